r"""Logistic regression for many concepts, by minibatches: few passes over tokens of any number.

A minibatch of tokens serves all concepts at once. As in :mod:`skact.concepts._logistic`, the
Hessian of every concept is at most :math:`H = \tfrac14 M + \lambda I` with the second moment
:math:`M` of the tokens, so a step of concept c is

.. math:: v \leftarrow v - \eta_t H^{-1} g, \qquad \eta_t = \frac{0.3}{\sqrt{1 + t / 50}}

with the gradient :math:`g` of the minibatch, and does not depend on the unit or the correlations
of the features. Minibatches have 2,048 tokens, of few tokens fewer, so that a pass has 80 of them,
but not below twice the features or 128. M is that of n tokens from all over; off the diagonal it is
multiplied by :math:`n / (n + d)` with the d features, since few tokens say little of correlations.
A step that would change the scores by more than their usual size, :math:`g^\top H^{-1} g > 1`, is
shortened to that: a rare concept has large weights, and a single token must not decide where its
vector goes. The result is the mean of all steps in which later ones count more [1]_, whose distance
from the minimum shrinks with each pass.

References
----------
.. [1] Shamir, Zhang, "Stochastic Gradient Descent for Non-smooth Optimization: Convergence Results
   and Optimal Averaging Schemes", 2013, with its parameter 3.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils.extmath import row_norms

from skact.arguments import Number
from skact.concepts._callbacks import Report
from skact.concepts._solver import Problem, Solution, Solver
from skact.concepts._statistics import RUN, balanced_weights, places_of, run_numbers, shuffled_runs
from skact.rows import Array, as_floats
from skact.tokens import TokenArray
from skact.warning import warn

__all__ = ["Descent", "Minibatch", "descend"]


_MOST, _FEWEST = 2048, 128  # tokens of a minibatch
_STEPS = 80  # that a pass has at least, if its tokens make as many minibatches
_RATE, _STEADY = 0.3, 50
_RATIO = 20  # of a norm to the median


class Minibatch(Solver):
    """Solver of :class:`LinearSeparator`: near the minimum in few passes, by preconditioned steps.

    Reads the tokens from end to end, so that they may be many more than memory holds, and can go
    on: with it, a separator has ``partial_fit``, of which every call but the first is one pass.

    Parameters
    ----------
    n_passes : int, default=2
        Passes over the tokens.

    Examples
    --------
    >>> from skact import LinearSeparator, Minibatch
    >>> hasattr(LinearSeparator(Minibatch(n_passes=4)), "partial_fit")
    True
    """

    streams = True

    _parameter_constraints: dict[str, list[Any]] = {
        "n_passes": [Number(Integral, 1, None, closed="left")],
    }

    def __init__(self, n_passes: int = 2) -> None:
        self.n_passes = n_passes

    @property
    def limit(self) -> int:
        """Most passes."""
        return self.n_passes

    def _solve(
        self, problem: Problem, random: np.random.RandomState, report: Report | None, state: Any
    ) -> Solution:
        if state is None:
            start = np.zeros((len(problem.n_positive), problem.tokens.n_features))
            descent = Descent.start(problem.tokens, start, problem.weight_decay)
        else:
            # What was fitted before must not change with what is fitted now.
            descent = deepcopy(state)
        descent.n_positive += problem.n_positive
        descent.n_tokens += problem.tokens.n_tokens
        n_iter, stopped = 0, False
        while not stopped and n_iter < (self.n_passes if state is None else 1):
            descend(
                descent,
                problem.tokens,
                problem.labels,
                l2=problem.weight_decay,
                balanced=problem.balance is not None,
                random=random,
            )
            n_iter += 1
            stopped = report is not None and report(lambda: descent.mean)
        return Solution(descent.mean.copy(), n_iter, state=descent)


@dataclass
class Descent:
    """Where the separators are, and what they go on from."""

    vectors: Array  # (n_concepts, n_features), after the last step
    mean: Array  # their mean over steps
    metric: Array  # (n_features, n_features), the inverse of H
    n_steps: int
    n_positive: Array  # (n_concepts,), labelled tokens so far
    n_tokens: int

    @classmethod
    def start(cls, tokens: TokenArray, vectors: Array, l2: float) -> Descent:
        r"""Begin at some vectors, with the metric of tokens from all over.

        Parameters
        ----------
        tokens : TokenArray of shape (n_samples, n_features)
            Tokens.
        vectors : ndarray of shape (n_concepts, n_features)
            Where to begin.
        l2 : float
            :math:`\lambda`.

        Returns
        -------
        descent : Descent
            Before the first step.
        """
        n_features = tokens.n_features
        step = max(tokens.n_tokens // max(RUN // 8, 4 * n_features), 1)
        moment, norms = np.zeros((n_features, n_features)), [np.empty(0)]
        # Whole runs: single samples from all over a file would map most of it.
        for _, block in tokens[run_numbers(tokens) % step == 0].blocks():
            values = as_floats(block)
            moment += values.T @ values
            norms.append(row_norms(values))
        _warn_of_outliers(np.concatenate(norms))
        n_read = sum(map(len, norms))
        moment /= 4 * n_read
        # Few tokens say little of the correlations of features.
        unsure = n_features / (n_features + n_read)
        diagonal = l2 + unsure * moment.diagonal()
        moment *= 1 - unsure
        moment[np.diag_indices(n_features)] += np.where(diagonal > 0, diagonal, 1)
        return cls(
            vectors.astype(np.float32),
            vectors.astype(np.float64),
            np.linalg.inv(moment).astype(np.float32),
            0,
            np.zeros(len(vectors)),
            0,
        )


def _warn_of_outliers(norms: Array) -> None:
    """Say that tokens have a norm far above that of others: steps would be about them."""
    median = float(np.median(norms))
    n_odd = int((norms > _RATIO * median).sum())
    if n_odd and median:
        warn(
            f"{n_odd} of {len(norms)} tokens have a norm above {_RATIO} times the median, up to "
            f"{norms.max():.4g} against {median:.4g}: minibatches will be about them and learn "
            'little of the others. NormClip(ratio=20) bounds them; solver="lbfgs" finds the '
            "minimum."
        )


def descend(
    descent: Descent,
    tokens: TokenArray,
    labels: TokenArray,
    *,
    l2: float,
    balanced: bool,
    random: np.random.RandomState,
) -> None:
    """Go through the tokens once, in an order drawn anew.

    Parameters
    ----------
    descent : Descent
        Changed in place. Its counts must include these tokens.
    tokens : TokenArray of shape (n_samples, n_features)
        Tokens.
    labels : TokenArray of shape (n_samples, n_concepts), dtype bool
        Their labels.
    l2 : float
        The penalty.
    balanced : bool
        Whether positives and negatives count the same.
    random : RandomState
        Draws the order: of runs of samples, and of the minibatches of a block.
    """
    # Half the weight of a negative and of a positive token of each concept.
    negative = positive = np.full(len(descent.vectors), 0.5, np.float32)
    if balanced:
        both = balanced_weights(descent.n_positive, descent.n_tokens)
        negative, positive = (descent.n_tokens / 2 * np.array(both)).astype(np.float32)
    order = shuffled_runs(tokens, random)
    tokens, labels = tokens[order], labels[order]
    size = _size(tokens.n_tokens, tokens.n_features)

    def prepared(samples: slice, block: Array) -> tuple[Array, list[tuple[Array, Array]]]:
        return as_floats(block), _dealt(labels[samples].flat(), size)

    for values, marked in tokens.each_block(prepared):
        for first in random.permutation(len(marked)):
            batch = values[first :: len(marked)]
            _step(descent, batch, marked[first], negative, positive, l2)


def _size(n_tokens: int, n_features: int) -> int:
    """Tokens of a minibatch: of few tokens fewer, but more than features, lest steps be noise."""
    return int(np.clip(n_tokens // _STEPS, max(_FEWEST, min(2 * n_features, _MOST)), _MOST))


def _dealt(labels: Array, size: int) -> list[tuple[Array, Array]]:
    """Deal tokens to minibatches, each of which gets every n-th: from all over, yet as they lie.

    Parameters
    ----------
    labels : ndarray of shape (n_tokens, n_concepts), dtype bool
        Their labels.
    size : int
        Most tokens of a minibatch.

    Returns
    -------
    marked : list of tuple of two ndarrays of int
        For each minibatch the number in it, and the concept, of each label.
    """
    n_batches = -(-len(labels) // size)
    token, concept = places_of(labels)
    place, number = np.divmod(token, n_batches)
    return [(place[own], concept[own]) for own in (number == np.arange(n_batches)[:, None])]


def _step(
    descent: Descent,
    values: Array,
    marked: tuple[Array, Array],
    negative: Array,
    positive: Array,
    l2: float,
) -> None:
    """Take a step, given where the labels are, and half the weight of tokens without and with."""
    vectors = descent.vectors
    # The slope w (sigmoid(s) - y) in the form that is fastest: few tokens have a label.
    slope = values @ (vectors.T / 2).astype(values.dtype)
    np.tanh(slope, out=slope)
    missing = slope[marked] - 1
    slope += 1
    slope *= negative
    slope[marked] = missing * positive[marked[1]]
    gradient = (slope.T @ values / len(values) + l2 * vectors).astype(np.float32)
    step = gradient @ descent.metric
    length = np.sqrt(np.einsum("cd,cd->c", gradient, step))
    rate = _RATE / np.sqrt(1 + descent.n_steps / _STEADY) / np.maximum(length, 1)
    vectors -= rate[:, None].astype(np.float32) * step
    descent.n_steps += 1
    descent.mean += min(1, 4 / (descent.n_steps + 3)) * (vectors - descent.mean)
