"""The paper's Adam recipe for linear separators, for all concepts in one batched loop.

Training concepts one after another spends its time in loops over minibatches of 32 rows. Here
minibatch s of every concept is gathered at once, and one batched matrix product scores all of them.
Each concept keeps its own rows, order, step count, schedule and early stopping, so the result is
that of separate runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

__all__ = ["AdamRecipe", "fit_adam"]

Array = npt.NDArray[Any]

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


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
        Seed of the minibatch order.

    Returns
    -------
    result : AdamResult
        Vectors after the last epoch of each concept, and the mean loss over minibatches and the F1
        after each epoch.
    """
    random = np.random.default_rng(seed)
    values = np.ascontiguousarray(values, dtype=np.float32)
    # The longest concepts first: in each step those that still have rows are a prefix.
    alive = [
        _Concept(c, *parts) for c, parts in enumerate(zip(rows, targets, weights, strict=True))
    ]
    alive.sort(key=lambda concept: -len(concept.rows))
    state = _Adam(init[[concept.number for concept in alive]], recipe.weight_decay)
    vectors = np.empty(init.shape)
    curves: list[list[tuple[float, float]]] = [[] for _ in rows]
    for epoch in range(recipe.max_epochs):
        orders = [concept.order(random if recipe.shuffle else None) for concept in alive]
        rate = recipe.learning_rate * recipe.lr_decay ** (epoch // recipe.lr_step)
        for batch in _minibatches(values, alive, orders, recipe.batch_size):
            state.step(*batch, rate)
        scores = _scores(values, [concept.rows for concept in alive], state.vectors)
        go_on = []
        for k, concept in enumerate(alive):
            vectors[concept.number] = state.vectors[k]
            loss, f1 = concept.judge(scores[k], orders[k], recipe.batch_size)
            curves[concept.number].append((loss, f1))
            reached = recipe.stop_f1 is not None and f1 >= recipe.stop_f1
            go_on.append(concept.wait(loss, recipe.tol) < recipe.patience and not reached)
        alive = [concept for concept, stays in zip(alive, go_on, strict=True) if stays]
        state.keep(np.array(go_on))
        if not alive:
            break
    return AdamResult(
        vectors,
        [np.array([loss for loss, _ in curve]) for curve in curves],
        [np.array([f1 for _, f1 in curve]) for curve in curves],
    )


class _Concept:
    """Training rows of one concept, and how long it has waited for an improvement."""

    def __init__(self, number: int, rows: Array, targets: Array, weights: Array) -> None:
        self.number = number
        self.rows = np.asarray(rows, dtype=np.int64)
        self.targets = targets.astype(np.float32)
        self.weights = weights.astype(np.float32)
        self.best, self.waited = np.inf, 0

    def order(self, random: np.random.Generator | None) -> Array:
        n_rows = len(self.rows)
        return np.arange(n_rows) if random is None else random.permutation(n_rows)

    def judge(self, scores: Array, order: Array, batch_size: int) -> tuple[float, float]:
        """Mean over minibatches of the loss, and F1 over all rows."""
        losses = self.weights * (np.logaddexp(0, scores) - self.targets * scores)
        starts = np.arange(0, len(order), batch_size)
        sizes = np.minimum(batch_size, len(order) - starts)
        loss = float((np.add.reduceat(losses[order], starts) / sizes).mean())
        found = scores >= 0
        both = (found * self.targets).sum()
        return loss, float(2 * both / max(found.sum() + self.targets.sum(), 1))

    def wait(self, loss: float, tol: float) -> int:
        """Count the epochs since the last improvement."""
        if loss < self.best - tol:
            self.best, self.waited = loss, 0
        else:
            self.waited += 1
        return self.waited


def _minibatches(
    values: Array, concepts: list[_Concept], orders: list[Array], size: int
) -> Iterator[tuple[Array, Array, Array]]:
    """Values, targets and weights of the next rows of every concept that has some left.

    Weights are divided by the size of the minibatch, and are 0 beyond a concept's last row.
    """
    lengths = np.array([len(order) for order in orders])
    shape = (len(concepts), -(-int(lengths.max()) // size) * size)
    rows: Array = np.zeros(shape, np.int64)
    targets: Array = np.zeros(shape, np.float32)
    weights: Array = np.zeros(shape, np.float32)
    for k, (concept, order) in enumerate(zip(concepts, orders, strict=True)):
        n_rows = len(order)
        sizes = np.minimum(size, n_rows - np.arange(n_rows) // size * size)
        rows[k, :n_rows] = concept.rows[order]
        targets[k, :n_rows] = concept.targets[order]
        weights[k, :n_rows] = concept.weights[order] / sizes

    def by_minibatch(part: Array) -> Array:
        """Minibatch after minibatch, so that the rows of one lie side by side."""
        return np.ascontiguousarray(part.reshape(len(concepts), -1, size).swapaxes(0, 1))

    rows, targets, weights = by_minibatch(rows), by_minibatch(targets), by_minibatch(weights)
    # One buffer for all: memory that is new at each step costs more than the gathering.
    buffer = np.empty((len(concepts), size, values.shape[1]), np.float32)
    for s in range(len(rows)):
        n_active = int((lengths > s * size).sum())
        # Any mode but "raise" writes straight into the buffer; all rows exist.
        batch = np.take(values, rows[s, :n_active], axis=0, out=buffer[:n_active], mode="clip")
        yield batch, targets[s, :n_active], weights[s, :n_active]


def _scores(values: Array, rows: list[Array], vectors: Array) -> list[Array]:
    """Scores of each concept's rows by its own vector."""
    n_rows = sum(map(len, rows))
    if 16 * n_rows >= len(values) * len(rows):
        # Scoring all tokens in one product is cheaper than gathering the rows of each concept.
        everything = vectors @ values.T
        return [scores[own] for scores, own in zip(everything, rows, strict=True)]
    return [values[own] @ vector for own, vector in zip(rows, vectors, strict=True)]


class _Adam:
    """Adam with the L2 term in the gradient; a step moves a prefix of the vectors."""

    def __init__(self, vectors: Array, weight_decay: float) -> None:
        self.vectors = np.array(vectors, dtype=np.float32)
        self.weight_decay = np.float32(weight_decay)
        self.first = np.zeros_like(self.vectors)
        self.second = np.zeros_like(self.vectors)
        self.steps = np.zeros((len(vectors), 1))

    def step(self, batch: Array, targets: Array, weights: Array, rate: float) -> None:
        n_active = len(batch)
        vectors, first, second = (
            part[:n_active] for part in (self.vectors, self.first, self.second)
        )
        steps = self.steps[:n_active]
        scores = np.matmul(batch, vectors[..., None])[..., 0]
        slope = (expit(scores) - targets) * weights
        gradient = np.matmul(slope[:, None], batch)[:, 0] + self.weight_decay * vectors
        steps += 1
        first += np.float32(1 - _BETA1) * (gradient - first)
        second *= np.float32(_BETA2)
        second += np.float32(1 - _BETA2) * gradient * gradient
        scale = (rate / (1 - _BETA1**steps)).astype(np.float32)
        root = np.sqrt(second / (1 - _BETA2**steps).astype(np.float32)) + np.float32(_EPS)
        vectors -= scale * first / root

    def keep(self, which: Array) -> None:
        """Forget the vectors that are done."""
        self.vectors, self.first = self.vectors[which], self.first[which]
        self.second, self.steps = self.second[which], self.steps[which]
