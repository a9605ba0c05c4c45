"""The paper's Adam recipe for linear separators, for all concepts in one batched loop.

Training concepts one after another spends its time in loops over minibatches of 32 rows. Here
minibatch s of every concept is gathered at once, and one batched matrix product scores all of them.
Each concept keeps its own rows, order, step count, schedule and early stopping, so the result is
that of separate runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

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
    # The longest concepts first: in each step those that still have rows are a prefix.
    order = sorted(range(len(rows)), key=lambda c: -len(rows[c]))
    data = _Padded(
        values, [rows[c] for c in order], [targets[c] for c in order], [weights[c] for c in order]
    )
    state = _AdamState(torch.tensor(init[order], dtype=torch.float32), recipe)
    generator = torch.Generator().manual_seed(seed)
    best = torch.full((len(rows),), torch.inf)
    waited = torch.zeros(len(rows), dtype=torch.int64)
    alive = torch.arange(len(rows))
    curves: list[list[tuple[float, float]]] = [[] for _ in rows]
    for epoch in range(recipe.max_epochs):
        permutation = data.permutation(alive, generator if recipe.shuffle else None)
        rate = recipe.learning_rate * recipe.lr_decay ** (epoch // recipe.lr_step)
        for active, batch in data.minibatches(alive, permutation, recipe.batch_size):
            state.step(active, batch, rate)
        loss, f1 = data.evaluate(alive, permutation, recipe.batch_size, state.vectors)
        for k, c in enumerate(alive.tolist()):
            curves[order[c]].append((float(loss[k]), float(f1[k])))
        improved = loss < best[alive] - recipe.tol
        best[alive] = torch.where(improved, loss, best[alive])
        waited[alive] = torch.where(improved, 0, waited[alive] + 1)
        go_on = waited[alive] < recipe.patience
        if recipe.stop_f1 is not None:
            go_on &= f1 < recipe.stop_f1
        alive = alive[go_on]
        if len(alive) == 0:
            break
    vectors = np.empty(init.shape)
    vectors[order] = state.vectors.numpy()
    return AdamResult(
        vectors,
        [np.array([loss for loss, _ in curve]) for curve in curves],
        [np.array([f1 for _, f1 in curve]) for curve in curves],
    )


@dataclass(frozen=True)
class _Batch:
    values: torch.Tensor  # (n_active, batch, n_features)
    targets: torch.Tensor  # (n_active, batch)
    weights: torch.Tensor  # the same, divided by the batch's size; 0 beyond a concept's last row


class _Padded:
    """Rows of all concepts side by side, padded to the longest."""

    def __init__(
        self, values: Array, rows: list[Array], targets: list[Array], weights: list[Array]
    ) -> None:
        self.values = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        self.lengths = torch.tensor([len(r) for r in rows])
        self.rows = self._pad(rows, torch.int64)
        self.targets = self._pad(targets, torch.float32)
        self.weights = self._pad(weights, torch.float32)

    def _pad(self, ragged: list[Array], dtype: torch.dtype) -> torch.Tensor:
        padded = torch.zeros((len(ragged), int(self.lengths.max())), dtype=dtype)
        for row, entries in zip(padded, ragged, strict=True):
            row[: len(entries)] = torch.as_tensor(entries)
        return padded

    def permutation(self, alive: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        n = int(self.lengths[alive].max())
        positions = torch.arange(n)
        if generator is None:
            return positions.expand(len(alive), n)
        key = torch.rand((len(alive), n), generator=generator)
        key[positions >= self.lengths[alive, None]] = torch.inf
        return key.argsort(dim=1)

    def minibatches(self, alive: torch.Tensor, permutation: torch.Tensor, size: int) -> Any:
        lengths = self.lengths[alive]
        for start in range(0, permutation.shape[1], size):
            n_active = int((lengths > start).sum())
            active = alive[:n_active]
            where = permutation[:n_active, start : start + size]
            counts = (lengths[:n_active] - start).clamp(max=size)[:, None]
            real = torch.arange(where.shape[1]) < counts
            weights = self.weights[active].gather(1, where) * real / counts
            batch = _Batch(
                self.values[self.rows[active].gather(1, where)],
                self.targets[active].gather(1, where),
                weights,
            )
            yield active, batch

    def evaluate(
        self, alive: torch.Tensor, permutation: torch.Tensor, size: int, vectors: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean over minibatches of the loss, and the F1 over all rows."""
        loss = torch.zeros(len(alive))
        hits, flagged = torch.zeros(len(alive)), torch.zeros(len(alive))
        for active, batch in self.minibatches(alive, permutation, size):
            scores = torch.bmm(batch.values, vectors[active, :, None])[..., 0]
            losses = torch.nn.functional.binary_cross_entropy_with_logits(
                scores, batch.targets, batch.weights, reduction="none"
            )
            loss[: len(active)] += losses.sum(dim=1)
            predicted = (scores >= 0) & (batch.weights > 0)
            hits[: len(active)] += (predicted * batch.targets).sum(dim=1)
            flagged[: len(active)] += predicted.sum(dim=1)
        n_batches = torch.ceil(self.lengths[alive] / size)
        positives = self.targets[alive].sum(dim=1)
        return loss / n_batches, 2 * hits / (flagged + positives).clamp(min=1)


class _AdamState:
    """Adam with the L2 term in the gradient, stepped for some of the concepts at a time."""

    def __init__(self, vectors: torch.Tensor, recipe: AdamRecipe) -> None:
        self.vectors = vectors
        self.weight_decay = recipe.weight_decay
        self.first = torch.zeros_like(vectors)
        self.second = torch.zeros_like(vectors)
        self.steps = torch.zeros(len(vectors))

    def step(self, active: torch.Tensor, batch: _Batch, rate: float) -> None:
        vectors = self.vectors[active]
        scores = torch.bmm(batch.values, vectors[..., None])[..., 0]
        slope = (torch.sigmoid(scores) - batch.targets) * batch.weights
        gradient = torch.bmm(slope[:, None], batch.values)[:, 0] + self.weight_decay * vectors
        first = self.first[active].lerp(gradient, 1 - _BETA1)
        second = self.second[active] * _BETA2 + gradient**2 * (1 - _BETA2)
        steps = self.steps[active] + 1
        scale = rate / (1 - _BETA1**steps)
        root = (second / (1 - _BETA2**steps)[:, None]).sqrt() + _EPS
        self.vectors[active] = vectors - scale[:, None] * first / root
        self.first[active], self.second[active], self.steps[active] = first, second, steps
