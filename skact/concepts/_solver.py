"""What :class:`~skact.LinearSeparator` and its solvers need of each other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.base import BaseEstimator

from skact.base import NestedParamsMixin
from skact.concepts._callbacks import Report
from skact.rows import Array
from skact.tokens import TokenArray

__all__ = ["Balance", "Problem", "Solution", "Solver"]

Balance = Literal["auto", "weight", "sample"] | None


@dataclass(frozen=True)
class Problem:
    """Tokens, what is known of them, and which loss they have.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        Training tokens.
    labels : TokenArray of shape (n_samples, n_concepts), dtype bool
        Their labels.
    n_positive : ndarray of shape (n_concepts,), dtype int64
        Tokens that each concept has, or the sum of their weights.
    weight_decay : float
        The penalty.
    balance : {"auto", "weight", "sample"} or None
        How positives and negatives come to count the same.
    weight : ndarray of shape (n_samples,), dtype float64, or None
        How often each sample counts; None once.
    """

    tokens: TokenArray
    labels: TokenArray
    n_positive: Array
    weight_decay: float
    balance: Balance
    weight: Array | None = None


@dataclass(frozen=True)
class Solution:
    """Vectors, epochs, fitted attributes besides them, and what a solver that streams needs."""

    vectors: Array
    n_iter: int
    curves: dict[str, list[Array]] = field(default_factory=dict)
    state: Any = None


class Solver(NestedParamsMixin, BaseEstimator, ABC):
    """A way to the vectors of a :class:`~skact.LinearSeparator`: settings, and one method.

    A subclass writes the hook ``_solve``, says how many epochs there are at most, ``limit``, and
    overrides ``balances``, ``streams`` and ``weighs`` where it can do more.
    """

    balances: ClassVar[tuple[Balance, ...]] = ("auto", "weight", None)
    streams: ClassVar[bool] = False
    weighs: ClassVar[bool] = False

    @property
    @abstractmethod
    def limit(self) -> int:
        """Most iterations, passes or epochs."""

    def solve(
        self,
        problem: Problem,
        random: np.random.RandomState,
        report: Report | None = None,
        state: Any = None,
    ) -> Solution:
        """Find the vectors of all concepts.

        Parameters
        ----------
        problem : Problem
            Tokens, labels and loss.
        random : RandomState
            Draws whatever the solver leaves to chance.
        report : callable, default=None
            Called after each epoch with what gives the vectors; tells whether to stop.
        state : object, default=None
            What an earlier solution says to go on from.

        Returns
        -------
        solution : Solution
            The vectors (n_concepts, n_features), and how they were found.

        Raises
        ------
        ValueError
            If the solver cannot balance or weigh as asked, or its settings do not fit the tokens.
        """
        if problem.weight is not None and not self.weighs:
            raise ValueError(
                f"{type(self).__name__} draws tokens, each of which counts once; sample_weight "
                'needs solver="lbfgs". (A mask of 0 and 1 only leaves samples out, and is taken.)'
            )
        if problem.balance not in self.balances:
            raise ValueError(
                f'balance="{problem.balance}" needs solver="adam"; {type(self).__name__} balances '
                "by weights."
            )
        return self._solve(problem, random, report, state)

    @abstractmethod
    def _solve(
        self, problem: Problem, random: np.random.RandomState, report: Report | None, state: Any
    ) -> Solution:
        """Find the vectors of all concepts."""
