"""The paper's Adam recipe for linear separators.

Each concept keeps its own rows, order, step count, schedule and early stopping, so the result is
that of separate runs, though all of them take their steps together (:mod:`._adam_steps`).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from numbers import Integral, Real
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning

from skact.arguments import Number, float_array
from skact.concepts._adam_steps import AdamState, Examples, Group, take_steps
from skact.concepts._callbacks import Report
from skact.concepts._solver import Balance, Problem, Solution, Solver
from skact.concepts._statistics import balanced_weights
from skact.concepts._stopping import count_stagnant
from skact.rows import Array, as_floats
from skact.tokens import TokenArray
from skact.warning import warn

__all__ = ["Adam"]

_THREADS = 2

# Loss and F1 after each epoch of a concept.
_Curve = list[tuple[float, float]]


class Adam(Solver):
    r"""Solver of :class:`LinearSeparator`: the paper's recipe, minibatches of balanced tokens.

    Adam [1]_ with the L2 term inside the gradient and a step size that falls in steps, for each
    concept on its own. Reads the tokens at random.

    Parameters
    ----------
    learning_rate : float, default=0.01
        Initial step size.
    batch_size : int, default=32
        Tokens in a minibatch.
    max_epochs : int, default=100
        Passes over the tokens.
    init : array-like of shape (n_concepts, n_features), default=None
        Initial vectors; None draws them uniformly from :math:`\pm 1/\sqrt{n\_features}`.
    shuffle : bool, default=True
        Whether to go through the tokens in a new order in each epoch.
    lr_step : int, default=10
        Epochs after which the step size is multiplied by ``lr_decay``.
    lr_decay : float, default=0.5
        That factor.
    patience : int, default=15
        Epochs in a row without progress after which training stops.
    tol : float, default=3.0
        How far the loss must fall below the smallest one of all epochs before, for progress. The
        paper's value, which a loss below 0.7 never reaches: with it every run ends after
        ``patience + 1`` epochs.
    stop_f1 : float, default=None
        Stop once the F1 on the training tokens reaches it.

    References
    ----------
    .. [1] Kingma, Ba, "Adam: A Method for Stochastic Optimization", 2015.

    Examples
    --------
    >>> from skact import Adam, LinearSeparator
    >>> method = LinearSeparator(Adam(tol=1e-3)).set_params(solver__learning_rate=0.1)
    >>> method
    LinearSeparator(solver=Adam(learning_rate=0.1, tol=0.001))
    """

    balances = ("auto", "sample", "weight", None)

    _parameter_constraints: dict[str, list[Any]] = {
        "learning_rate": [Number(Real, 0, None, closed="neither")],
        "batch_size": [Number(Integral, 1, None, closed="left")],
        "max_epochs": [Number(Integral, 1, None, closed="left")],
        "init": ["array-like", None],
        "shuffle": ["boolean"],
        "lr_step": [Number(Integral, 1, None, closed="left")],
        "lr_decay": [Number(Real, 0, 1, closed="right")],
        "patience": [Number(Integral, 1, None, closed="left")],
        "tol": [Number(Real, 0, None, closed="left")],
        "stop_f1": [Number(Real, 0, 1, closed="right"), None],
    }

    def __init__(
        self,
        learning_rate: float = 0.01,
        *,
        batch_size: int = 32,
        max_epochs: int = 100,
        init: npt.ArrayLike | None = None,
        shuffle: bool = True,
        lr_step: int = 10,
        lr_decay: float = 0.5,
        patience: int = 15,
        tol: float = 3.0,
        stop_f1: float | None = None,
    ) -> None:
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.init = init
        self.shuffle = shuffle
        self.lr_step = lr_step
        self.lr_decay = lr_decay
        self.patience = patience
        self.tol = tol
        self.stop_f1 = stop_f1

    @property
    def limit(self) -> int:
        """Most epochs."""
        return self.max_epochs

    def _solve(
        self, problem: Problem, random: np.random.RandomState, report: Report | None, state: Any
    ) -> Solution:
        init = self._initial((len(problem.n_positive), problem.tokens.n_features), random)
        examples = _examples(problem.labels.flat(), problem.balance, random)
        values, examples = _read(problem.tokens, examples)
        seed = int(random.randint(2**31 - 1))
        vectors, curves = self._train(values, examples, init, problem.weight_decay, seed, report)
        if not np.isfinite(vectors).all():
            raise ValueError(
                f"learning_rate={self.learning_rate!r} is too large: the vectors are not finite."
            )
        loss, f1 = ([np.array([p[i] for p in curve]) for curve in curves] for i in range(2))
        n_iter = max(map(len, curves))
        n_left = sum(len(curve) == self.max_epochs for curve in curves)
        if n_left and self.max_epochs > self.patience:
            warn(
                f"{n_left} of {len(curves)} separators did not converge in max_epochs="
                f"{self.max_epochs}: their losses still fell by more than tol={self.tol:g}.",
                ConvergenceWarning,
            )
        return Solution(vectors, n_iter, {"loss_curves_": loss, "f1_curves_": f1})

    def _initial(self, shape: tuple[int, int], random: np.random.RandomState) -> Array:
        if self.init is None:
            bound = 1 / np.sqrt(shape[1])
            return random.uniform(-bound, bound, size=shape)
        init = float_array(self.init, "init")
        if init.shape != shape:
            raise ValueError(f"init must have shape {shape}, got {init.shape}.")
        if not np.isfinite(init).all():
            raise ValueError("init must hold finite numbers.")
        return init.copy()

    def _train(
        self,
        values: Array,
        examples: list[Examples],
        init: Array,
        weight_decay: float,
        seed: int,
        report: Report | None,
    ) -> tuple[Array, list[_Curve]]:
        """Train each concept; its order is drawn by the seed and its number.

        To report each epoch, all concepts go from epoch to epoch together, which costs some of the
        speed.
        """
        vectors = init.copy()
        curves: list[_Curve] = [[] for _ in examples]
        computing = Lock()

        def train(concepts: Array) -> Iterator[bool]:
            """Yield after each epoch whether others wait for it."""
            group = Group([examples[c] for c in concepts])
            state = AdamState(init[concepts], weight_decay)
            random = [np.random.default_rng([seed, c]) for c in concepts] if self.shuffle else None
            for alive, reached, points in self._epochs(values, group, state, random, computing):
                vectors[concepts[alive]] = reached
                for c, point in zip(concepts[alive], points, strict=True):
                    curves[c].append(point)
                yield report is not None

        # The longest concepts first: in each step those that still have rows are a prefix.
        everyone = np.argsort([-len(one.rows) for one in examples], kind="stable")
        n_groups = min(_THREADS, len(examples))
        training = [train(everyone[number::n_groups]) for number in range(n_groups)]
        with ThreadPoolExecutor(_THREADS) as threads:
            while training:
                # To the end of an epoch if it is reported, else to the end.
                goes_on = threads.map(any, training)
                training = [group for group, goes in zip(training, goes_on, strict=True) if goes]
                if training and report is not None and report(lambda: vectors):
                    break
        return vectors, curves

    def _epochs(
        self,
        values: Array,
        group: Group,
        state: AdamState,
        random: list[np.random.Generator] | None,
        computing: Lock,
    ) -> Iterator[tuple[Array, Array, _Curve]]:
        """Yield the concepts that train, their vectors after an epoch, and their loss and F1.

        An epoch starts before it is known who stops; what it did for those is dropped.
        """
        alive = np.arange(len(state.vectors))
        best, n_stagnant = np.full(len(alive), np.inf), np.zeros(len(alive), np.int64)
        for epoch in range(self.max_epochs + 1):
            before, rates = state.vectors.copy(), None
            batches = group.minibatches(alive, self.batch_size, random)
            if epoch < self.max_epochs:
                rate = self.learning_rate * self.lr_decay ** (epoch // self.lr_step)
                rates = state.rates(rate, len(batches.rows))
            scores = take_steps(values, batches, before, state, rates, computing)
            if epoch == 0:
                continue
            loss, f1 = batches.judge(scores)
            yield alive, before, list(zip(loss.tolist(), f1.tolist(), strict=True))
            best, n_stagnant = count_stagnant(loss, best, n_stagnant, self.tol)
            stays = n_stagnant < self.patience
            if self.stop_f1 is not None:
                stays &= f1 < self.stop_f1
            if not stays.any():
                return
            alive, best, n_stagnant = alive[stays], best[stays], n_stagnant[stays]
            if not stays.all():
                state.keep(stays)


def _examples(marked: Array, balance: Balance, random: np.random.RandomState) -> list[Examples]:
    """Give each concept all tokens, or those that it has and as many that it has not."""
    n_tokens, n_concepts = marked.shape
    weight = np.ones((2, n_concepts))
    if balance == "weight":
        weight = n_tokens * np.array(balanced_weights(marked.sum(axis=0), n_tokens))
    examples = []
    for mark, negative, positive in zip(marked.T, *weight, strict=True):
        everything = balance in (None, "weight")
        rows = np.arange(n_tokens) if everything else _balanced_rows(mark, random)
        targets = mark[rows]
        examples.append(Examples(rows, targets, np.where(targets, positive, negative)))
    return examples


def _balanced_rows(marked: Array, random: np.random.RandomState) -> Array:
    """All positive rows and as many negative ones, drawn without replacement, in token order."""
    positive, negative = np.flatnonzero(marked), np.flatnonzero(~marked)
    if len(negative) > len(positive):
        negative = random.choice(negative, len(positive), replace=False)
    return np.sort(np.concatenate([positive, negative]))


def _read(tokens: TokenArray, examples: list[Examples]) -> tuple[Array, list[Examples]]:
    """Values of all tokens; where they cannot all be held, of those that are trained on.

    They are in single precision, or still in half of it where that alone may be held.
    """
    if tokens.may_be_held:
        values = as_floats(tokens.flat())
    else:
        needed = np.unique(np.concatenate([one.rows for one in examples]))
        values = tokens.rows(needed)
        examples = [replace(one, rows=np.searchsorted(needed, one.rows)) for one in examples]
    dtype = np.float16 if values.dtype == np.float16 else np.float32
    return np.ascontiguousarray(values, dtype=dtype), examples
