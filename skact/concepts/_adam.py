"""The paper's Adam recipe for linear separators, for all concepts in lock step.

Training concepts one after another spends its time in loops over minibatches of 32 rows. Here
minibatch s of every concept is gathered at once, and one batched matrix product scores all of them.
Each concept keeps its own rows, order, step count, schedule and early stopping, so the result is
that of separate runs. What is left is mostly the fetching of rows in random order from memory.
Hence two threads share the concepts, one fetching while the other computes, and the scores after an
epoch are read off the rows that the next one has fetched anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Lock

import numpy as np
from scipy.special import expit

from skact.concepts._callbacks import Report
from skact.rows import Array

__all__ = ["BETA1", "BETA2", "Adam", "AdamRecipe", "Minibatches", "fit_adam"]


#: What :func:`walk` is, once it has its lock.
Walk = Callable[[Array, "Minibatches", Array, "Adam | None", Array], Array]

BETA1, BETA2, _EPS = 0.9, 0.999, 1e-8

# Threads, and bytes of the rows that each gathers at a time: few enough to stay in its cache.
_THREADS = 2
_CHUNK = 2**21

# Bytes of the rows of one concept that are copied side by side: few enough to stay in the cache.
_BLOCK = 2**24


@dataclass(frozen=True)
class AdamRecipe:
    """Settings of :func:`fit_adam`; see LinearSeparator for their meaning."""

    shuffle: bool
    batch_size: int
    learning_rate: float
    weight_decay: float
    max_epochs: int
    lr_step: int
    lr_decay: float
    patience: int
    tol: float
    stop_f1: float | None


@dataclass(frozen=True)
class AdamResult:
    """Vectors and learning curves, one entry per concept."""

    vectors: Array
    loss_curves: list[Array]
    f1_curves: list[Array]


def fit_adam(
    values: Array,
    rows: list[Array],
    targets: list[Array],
    weights: list[Array],
    init: Array,
    recipe: AdamRecipe,
    seed: int,
    report: Report | None = None,
) -> AdamResult:
    """Train one separator per concept with Adam.

    Parameters
    ----------
    values : ndarray of shape (n_tokens, n_features), dtype float32
        All training tokens.
    rows : list of ndarray of int
        For each concept the rows of ``values`` it trains on, in their order.
    targets, weights : list of ndarray of float32
        For each concept the label (0 or 1) and the loss weight of these rows.
    init : ndarray of shape (n_concepts, n_features)
        Initial vectors.
    recipe : AdamRecipe
        Settings.
    seed : int
        Seed of the minibatch order, together with the number of the concept.
    report : callable, default=None
        Called after each epoch with what gives the vectors; tells whether to stop. Then all
        concepts go from epoch to epoch together, which costs some of the speed.

    Returns
    -------
    result : AdamResult
        Vectors after the last epoch of each concept, and the mean loss over minibatches and the F1
        after each epoch.
    """
    values = np.ascontiguousarray(values, dtype=np.float32)
    vectors = np.array(init, dtype=np.float64)
    curves: list[list[tuple[float, float]]] = [[] for _ in rows]
    n_groups = min(_THREADS, len(rows))
    step = partial(walk, computing=Lock())

    def train(concepts: Array) -> Iterator[bool]:
        """Yield after each epoch whether others wait for it."""
        group = _Group(*([part[c] for c in concepts] for part in (rows, targets, weights)))
        random = [np.random.default_rng([seed, c]) for c in concepts] if recipe.shuffle else None
        # Groups that take turns would drive each other's rows out of the cache.
        own = group.gather(values) if report is None else values
        for alive, reached, points in _epochs(own, group, init[concepts], recipe, random, step):
            vectors[concepts[alive]] = reached
            for c, point in zip(concepts[alive], points, strict=True):
                curves[c].append(point)
            yield report is not None

    # The longest concepts first: in each step those that still have rows are a prefix.
    everyone = np.argsort([-len(own) for own in rows], kind="stable")
    training = [train(everyone[number::n_groups]) for number in range(n_groups)]
    with ThreadPoolExecutor(_THREADS) as threads:
        while training:
            # To the end of an epoch if it is reported, else to the end.
            goes_on = threads.map(any, training)
            training = [group for group, goes in zip(training, goes_on, strict=True) if goes]
            if training and report is not None and report(lambda: vectors):
                break
    return AdamResult(
        vectors,
        [np.array([loss for loss, _ in curve]) for curve in curves],
        [np.array([f1 for _, f1 in curve]) for curve in curves],
    )


def _epochs(
    own: Array,
    group: _Group,
    init: Array,
    recipe: AdamRecipe,
    random: list[np.random.Generator] | None,
    step: Walk,
) -> Iterator[tuple[Array, Array, list[tuple[float, float]]]]:
    """Yield the concepts that train, their vectors after an epoch, and their loss and F1.

    An epoch starts before it is known who stops; what it did for those is dropped.
    """
    alive = np.arange(len(init))
    state = Adam(init, recipe.weight_decay)
    best, waited = np.full(len(alive), np.inf), np.zeros(len(alive), np.int64)
    for epoch in range(recipe.max_epochs + 1):
        before = state.vectors.copy()
        batches = group.minibatches(alive, recipe.batch_size, random)
        rate = recipe.learning_rate * recipe.lr_decay ** (epoch // recipe.lr_step)
        rates = state.rates(rate, len(batches.rows))
        moving = state if epoch < recipe.max_epochs else None
        scores = step(own, batches, before, moving, rates)
        state.steps += batches.n_steps
        if epoch == 0:
            continue
        loss, f1 = batches.judge(scores)
        yield alive, before, list(zip(loss.tolist(), f1.tolist(), strict=True))
        better = loss < best - recipe.tol
        best, waited = np.where(better, loss, best), np.where(better, 0, waited + 1)
        stays = waited < recipe.patience
        if recipe.stop_f1 is not None:
            stays &= f1 < recipe.stop_f1
        if not stays.any():
            return
        alive, best, waited = alive[stays], best[stays], waited[stays]
        if not stays.all():
            state.keep(stays)


@dataclass(frozen=True)
class Minibatches:
    """Row, target and weight of the (n_steps, n_concepts, batch_size) places of one epoch.

    Weights are divided by the size of the minibatch. Places beyond the last row of a concept are
    not ``real`` and have weight 0.
    """

    rows: Array
    targets: Array
    weights: Array
    real: Array
    n_steps: Array

    def judge(self, scores: Array) -> tuple[Array, Array]:
        """Mean over minibatches of the loss, and F1 over all rows, of each concept."""
        losses = np.log1p(np.exp(-np.abs(scores))) + np.maximum(scores, 0) - self.targets * scores
        losses *= self.weights
        loss = losses.sum(axis=2).sum(axis=0, dtype=np.float64) / self.n_steps
        found, truth = (scores >= 0) & self.real, self.targets > 0
        both, *either = (part.sum(axis=(0, 2)) for part in (found & truth, found, truth))
        return loss, 2 * both / np.maximum(sum(either), 1)


class _Group:
    """Training rows of some concepts, one concept after the other."""

    def __init__(self, rows: list[Array], targets: list[Array], weights: list[Array]) -> None:
        self.lengths = np.array([len(own) for own in rows])
        self.starts = np.cumsum(self.lengths) - self.lengths
        # The last entry stands where a concept has no more rows.
        self.rows = np.concatenate([*rows, [0]]).astype(np.int64)
        self.targets = np.concatenate([*targets, [0]]).astype(np.float32)
        self.weights = np.concatenate([*weights, [0]]).astype(np.float32)

    def gather(self, values: Array) -> Array:
        """Values of the rows side by side, and their numbers there, for one concept of few rows."""
        if len(self.lengths) > 1 or 4 * len(self.rows) * values.shape[1] > _BLOCK:
            return values
        own = values[self.rows]
        self.rows = np.arange(len(own))
        return own

    def minibatches(
        self, concepts: Array, size: int, random: list[np.random.Generator] | None
    ) -> Minibatches:
        """Minibatches of one epoch; the first concept has the most rows."""
        lengths, nothing = self.lengths[concepts], len(self.rows) - 1
        n_steps = -(-lengths // size)
        order = np.full((len(concepts), n_steps[0] * size), nothing)
        for k, c in enumerate(concepts):
            n_rows = lengths[k]
            own = np.arange(n_rows) if random is None else random[c].permutation(n_rows)
            order[k, :n_rows] = self.starts[c] + own
        # Minibatch after minibatch, so that the rows of one lie side by side.
        order = np.ascontiguousarray(order.reshape(len(concepts), -1, size).swapaxes(0, 1))
        real = order < nothing
        sizes = np.maximum(real.sum(axis=2, keepdims=True), 1).astype(np.float32)
        weights = self.weights[order] / sizes
        return Minibatches(self.rows[order], self.targets[order], weights, real, n_steps)


def walk(
    values: Array,
    batches: Minibatches,
    before: Array,
    state: Adam | None,
    rates: Array,
    computing: Lock,
) -> Array:
    """Take the steps of an epoch.

    Parameters
    ----------
    values : ndarray of shape (n_tokens, n_features), dtype float32
        What the rows of the minibatches are rows of.
    batches : Minibatches
        Those of the epoch.
    before : ndarray of shape (n_concepts, n_features), dtype float32
        Vectors before the epoch.
    state : Adam or None
        What takes the steps; None takes none.
    rates : ndarray
        Those of the state.
    computing : Lock
        Held while steps are taken, by one thread at a time.

    Returns
    -------
    scores : ndarray of shape (n_steps, n_concepts, batch_size), dtype float32
        Of the rows, by the vectors before the epoch.
    """
    scores = np.zeros(batches.rows.shape, np.float32)
    for steps, chunk in _gathered(values, batches):
        n_active = chunk.shape[1]
        scores[steps, :n_active] = np.matmul(chunk, before[:n_active, :, None])[..., 0]
        if state is not None:
            # Two threads in short calls at once would only wait for the interpreter.
            with computing:
                state.descend(chunk, batches.targets[steps], batches.weights[steps], rates[steps])
    return scores


def _gathered(values: Array, batches: Minibatches) -> Iterator[tuple[slice, Array]]:
    """Yield some steps and their rows' values, (n_steps, n_active, batch_size, n_features)."""
    size, n_features = batches.rows.shape[2], values.shape[1]
    # One buffer for all: memory that is new at each step costs more than the gathering.
    n_held = max(_CHUNK // (4 * size * n_features), len(batches.n_steps))
    buffer = np.empty((n_held, size, n_features), np.float32)
    start = 0
    for n_active in range(len(batches.n_steps), 0, -1):
        # The steps in which just these concepts have rows.
        last = batches.n_steps[n_active - 1]
        while start < last:
            steps = slice(start, min(start + n_held // n_active, last))
            rows = np.ascontiguousarray(batches.rows[steps, :n_active])
            out = buffer[: rows.size // size].reshape(*rows.shape, n_features)
            # Any mode but "raise" writes straight into the buffer; all rows exist.
            yield steps, np.take(values, rows, axis=0, out=out, mode="clip")
            start = steps.stop


class Adam:
    r"""Adam with the L2 term in the gradient; a step moves a prefix of the vectors.

    Both moments are kept as plain sums, :math:`m = \beta m + g`; their factor
    :math:`1 - \beta` goes into the step size.
    """

    def __init__(self, vectors: Array, weight_decay: float) -> None:
        self.vectors = np.array(vectors, dtype=np.float32)
        self.weight_decay = np.float32(weight_decay)
        self.moments = np.zeros((2, *self.vectors.shape), np.float32)
        self.steps = np.zeros(len(vectors))

    def rates(self, rate: float, n_steps: int) -> Array:
        """Step size, and guard of its denominator: (n_steps, 2, n_concepts, 1)."""
        steps = self.steps + np.arange(1, n_steps + 1)[:, None]
        root = np.sqrt((1 - BETA2**steps) / (1 - BETA2))
        size = rate * (1 - BETA1) / (1 - BETA1**steps) * root
        return np.stack([size, _EPS * root], axis=1)[..., None].astype(np.float32)

    def descend(self, batches: Array, targets: Array, weights: Array, rates: Array) -> None:
        """Take one step for each minibatch."""
        n_active, size, n_features = batches.shape[1:]
        vectors, moments = self.vectors[:n_active], self.moments[:, :n_active]
        slope = np.empty((n_active, size, 1), np.float32)
        change = np.empty((2, n_active, n_features), np.float32)
        step, square = change
        betas = np.array([BETA1, BETA2], np.float32)[:, None, None]
        active = (targets[:, :n_active], weights[:, :n_active], rates[:, :, :n_active])
        for batch, target, weight, (rate, guard) in zip(batches, *active, strict=True):
            np.matmul(batch, vectors[..., None], out=slope)
            expit(slope, out=slope)
            slope[..., 0] -= target
            slope[..., 0] *= weight
            np.matmul(slope.swapaxes(1, 2), batch, out=step[:, None])
            np.multiply(vectors, self.weight_decay, out=square)
            step += square
            np.multiply(step, step, out=square)
            moments *= betas
            moments += change
            np.sqrt(moments[1], out=step)
            step += guard
            np.divide(moments[0], step, out=step)
            step *= rate
            vectors -= step

    def keep(self, which: Array) -> None:
        """Forget the vectors that are done."""
        self.vectors, self.moments = self.vectors[which], self.moments[:, which]
        self.steps = self.steps[which]
