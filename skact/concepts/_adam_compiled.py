"""The steps of Adam as a loop over rows that numba compiles.

While a row is at hand the loop takes from it the score by the vector before the epoch, the slope of
the loss, and its share of the gradient. It needs no interpreter, so two threads run side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from skact.concepts._adam import BETA1, BETA2, Adam, Minibatches

__all__ = ["take_steps", "walk"]

Array = npt.NDArray[Any]

_BETAS = np.array([BETA1, BETA2], np.float32)


def walk(
    values: Array, batches: Minibatches, before: Array, state: Adam | None, rates: Array
) -> Array:
    """Take the steps of an epoch, as :func:`skact.concepts._adam.walk` does."""
    if state is None:
        # Steps that nobody looks at cost no more than one epoch of many.
        state = Adam(before, 0.0)
    scores = np.zeros(batches.rows.shape, np.float32)
    _compiled_steps(
        values,
        batches.rows,
        batches.targets,
        batches.weights,
        batches.n_steps,
        before,
        state.vectors,
        state.moments,
        _BETAS,
        state.weight_decay,
        rates,
        scores,
    )
    return scores


def take_steps(
    values: Array,
    rows: Array,
    targets: Array,
    weights: Array,
    n_steps: Array,
    before: Array,
    vectors: Array,
    moments: Array,
    betas: Array,
    weight_decay: np.float32,
    rates: Array,
    scores: Array,
) -> None:
    """Move vectors and moments by one step for each minibatch, and fill in the scores."""
    n_features, one = values.shape[1], np.float32(1)
    change = np.empty(n_features, np.float32)
    for c in range(len(vectors)):
        start, vector, first, second = before[c], vectors[c], moments[0, c], moments[1, c]
        for s in range(n_steps[c]):
            for j in range(n_features):
                change[j] = weight_decay * vector[j]
            for i in range(rows.shape[2]):
                row = values[rows[s, c, i]]
                score = slope = np.float32(0)
                for j in range(n_features):
                    score += row[j] * start[j]
                    slope += row[j] * vector[j]
                scores[s, c, i] = score
                slope = one / (one + np.exp(-slope)) - targets[s, c, i]
                slope *= weights[s, c, i]
                for j in range(n_features):
                    change[j] += slope * row[j]
            rate, guard = rates[s, 0, c, 0], rates[s, 1, c, 0]
            for j in range(n_features):
                first[j] = betas[0] * first[j] + change[j]
                second[j] = betas[1] * second[j] + change[j] * change[j]
                vector[j] -= rate * (first[j] / (np.sqrt(second[j]) + guard))


# As in a matrix product, sums may be taken in any order. A cache would hold pickles.
_compiler = njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
_compiled_steps = _compiler(take_steps)
