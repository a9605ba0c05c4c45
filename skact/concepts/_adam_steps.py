"""Epochs of Adam for many separators in lock step, on plain arrays.

Training concepts one after another spends its time in loops over minibatches of 32 rows. Here
minibatch s of every concept is gathered at once, and one batched matrix product scores all of them.
What is left is mostly the fetching of rows in random order from memory. Hence threads share the
concepts, one fetching while the other computes, and the scores after an epoch are read off the rows
that the next one has fetched anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock

import numpy as np
from scipy.special import expit

from skact.rows import Array, as_floats, offsets_of

__all__ = ["AdamState", "Examples", "Group", "Minibatches", "take_steps"]

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8

# Bytes of the rows that are gathered at a time: few enough to stay in the cache.
_CHUNK = 2**21


@dataclass(frozen=True)
class Examples:
    """Rows that one concept trains on, in their order, with labels (0 or 1) and loss weights."""

    rows: Array
    targets: Array
    weights: Array


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
        predicted, truth = (scores >= 0) & self.real, self.targets > 0
        both, *either = (p.sum(axis=(0, 2)) for p in (predicted & truth, predicted, truth))
        return loss, 2 * both / np.maximum(sum(either), 1)


class Group:
    """Examples of some concepts, one concept after the other."""

    def __init__(self, examples: list[Examples]) -> None:
        self.lengths = np.array([len(one.rows) for one in examples])
        self.starts = offsets_of(self.lengths)[:-1]
        # The last entry stands where a concept has no more rows.
        self.rows = np.concatenate([*(one.rows for one in examples), [0]]).astype(np.int64)
        self.targets, self.weights = (
            np.concatenate([*(getattr(one, name) for one in examples), [0]]).astype(np.float32)
            for name in ("targets", "weights")
        )

    def minibatches(
        self, concepts: Array, size: int, random: list[np.random.Generator] | None
    ) -> Minibatches:
        """Minibatches of one epoch; the first concept has the most rows."""
        lengths, nothing = self.lengths[concepts], len(self.rows) - 1
        n_steps = -(-lengths // size)
        order = np.full((len(concepts), n_steps[0] * size), nothing)
        for k, c in enumerate(concepts):
            n_rows = lengths[k]
            drawn = np.arange(n_rows) if random is None else random[c].permutation(n_rows)
            order[k, :n_rows] = self.starts[c] + drawn
        # Minibatch after minibatch, so that the rows of one lie side by side.
        order = np.ascontiguousarray(order.reshape(len(concepts), -1, size).swapaxes(0, 1))
        real = order < nothing
        sizes = np.maximum(real.sum(axis=2, keepdims=True), 1).astype(np.float32)
        weights = self.weights[order] / sizes
        return Minibatches(self.rows[order], self.targets[order], weights, real, n_steps)


class AdamState:
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
        root = np.sqrt((1 - _BETA2**steps) / (1 - _BETA2))
        size = rate * (1 - _BETA1) / (1 - _BETA1**steps) * root
        return np.stack([size, _EPS * root], axis=1)[..., None].astype(np.float32)

    def descend(self, batches: Array, targets: Array, weights: Array, rates: Array) -> None:
        """Take one step for each minibatch."""
        n_active, size, n_features = batches.shape[1:]
        vectors, moments = self.vectors[:n_active], self.moments[:, :n_active]
        slope = np.empty((n_active, size, 1), np.float32)
        change = np.empty((2, n_active, n_features), np.float32)
        step, square = change
        betas = np.array([_BETA1, _BETA2], np.float32)[:, None, None]
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


def take_steps(
    values: Array,
    batches: Minibatches,
    before: Array,
    state: AdamState,
    rates: Array | None,
    computing: Lock,
) -> Array:
    """Take the steps of an epoch.

    Parameters
    ----------
    values : ndarray of shape (n_tokens, n_features), dtype float32 or float16
        What the rows of the minibatches are rows of.
    batches : Minibatches
        Those of the epoch.
    before : ndarray of shape (n_concepts, n_features), dtype float32
        Vectors before the epoch.
    state : AdamState
        What takes the steps.
    rates : ndarray or None
        Those of the state; None takes no step.
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
        if rates is not None:
            # Two threads in short calls at once would only wait for the interpreter.
            with computing:
                state.descend(chunk, batches.targets[steps], batches.weights[steps], rates[steps])
    state.steps += batches.n_steps
    return scores


def _gathered(values: Array, batches: Minibatches) -> Iterator[tuple[slice, Array]]:
    """Yield some steps and their rows' values, (n_steps, n_active, batch_size, n_features)."""
    size, n_features = batches.rows.shape[2], values.shape[1]
    # One buffer for all: memory that is new at each step costs more than the gathering.
    n_buffered = max(_CHUNK // (4 * size * n_features), len(batches.n_steps))
    buffer = np.empty((n_buffered, size, n_features), values.dtype)
    start = 0
    for n_active in range(len(batches.n_steps), 0, -1):
        # The steps in which just these concepts have rows.
        last = batches.n_steps[n_active - 1]
        while start < last:
            steps = slice(start, min(start + n_buffered // n_active, last))
            rows = np.ascontiguousarray(batches.rows[steps, :n_active])
            out = buffer[: rows.size // size].reshape(*rows.shape, n_features)
            # Any mode but "raise" writes straight into the buffer; all rows exist.
            yield steps, as_floats(np.take(values, rows, axis=0, out=out, mode="clip"))
            start = steps.stop
