"""Thresholds in the tail, and the decisions they give: functions on plain arrays."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real

import numpy as np
import numpy.typing as npt

from skact.arguments import Number, checked, float_array
from skact.rows import Array, all_finite, positions_of, segments_of

__all__ = ["DELTA_GRID", "best_columns", "best_cut", "concept_f1", "tail_threshold", "top_share"]


#: The sparsities of the paper's search, ascending.
DELTA_GRID = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_DOUBLES = 2**20


@checked(scores=["array-like"], delta=["array-like", Number(Real, 0, 1, closed="neither")])
def tail_threshold(scores: Array, delta: float | npt.ArrayLike) -> Array:
    r"""Score above which a share ``delta`` of the scores lies.

    .. math:: \tau(\delta) = Q_{1-\delta}(\text{scores})

    with linear interpolation between order statistics (paper, section on detection). The level
    :math:`1 - \delta` and the threshold are rounded to the precision of the scores, so that a
    threshold that falls on an order statistic equals it.

    Parameters
    ----------
    scores : ndarray of shape (n_scores,) or (n_scores, n_columns)
        Scores of one concept, or of each column.
    delta : float or array-like of shape (n_deltas,)
        Share in (0, 1).

    Returns
    -------
    thresholds : ndarray, dtype float64
        Of shape delta.shape + scores.shape[1:].

    Raises
    ------
    ValueError
        If there is no score, one is not finite, there is no delta, or one lies outside of (0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> from skact import tail_threshold
    >>> tail_threshold(np.arange(11.0), [0.1, 0.5])
    array([9., 5.])
    """
    scores, deltas = np.asarray(scores), float_array(delta, "delta")
    if scores.ndim not in (1, 2) or not len(scores) or scores.dtype.kind not in "biuf":
        raise ValueError(
            "scores must hold numbers, (n_scores,) or (n_scores, n_columns) with at least one "
            f"score; got shape {scores.shape} of dtype {scores.dtype}."
        )
    if scores.dtype.kind == "f" and not all_finite(scores):
        raise ValueError("scores must be finite, but hold NaN or infinity.")
    if not deltas.size or not ((deltas > 0) & (deltas < 1)).all():
        raise ValueError(f"delta must lie in (0, 1), got {delta!r}.")
    precision = np.float64 if scores.dtype == np.float64 else np.float32
    level = (1 - deltas).astype(precision).astype(np.float64)
    # Ranks of more than 2**24 scores do not fit single precision, so they are found in double.
    table = scores.reshape(len(scores), -1)
    thresholds = np.empty((*level.shape, table.shape[1]))
    # Doubles and their copy take a multiple of the scores, so only some columns do at a time.
    step = max(_DOUBLES // len(table), 1)
    for start in range(0, table.shape[1], step):
        some = slice(start, start + step)
        thresholds[..., some] = np.quantile(table[:, some].astype(np.float64), level, axis=0)
    thresholds = thresholds.reshape((*level.shape, *scores.shape[1:]))
    return thresholds.astype(precision).astype(np.float64)[()]


@checked(present=["array-like"], predicted=["array-like"])
def concept_f1(present: npt.ArrayLike, predicted: npt.ArrayLike) -> Array:
    r"""F1 of decisions per concept, :math:`2 TP / (2 TP + FP + FN)`; 0 where nothing is true.

    Parameters
    ----------
    present : array-like of shape (n_samples, ...), bool or 0 and 1
        Truth.
    predicted : array-like broadcastable against ``present``, bool or 0 and 1
        Decisions; both are reduced over the first axis.

    Returns
    -------
    f1 : ndarray, dtype float64
        One value per remaining entry.

    Raises
    ------
    ValueError
        If there are values other than 0 and 1, no samples, or shapes that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import concept_f1
    >>> concept_f1(np.array([True, True, False]), np.array([True, False, False])).round(3)
    np.float64(0.667)
    """
    present, predicted = _decisions(present, "present"), _decisions(predicted, "predicted")
    try:
        np.broadcast_shapes(present.shape, predicted.shape)
    except ValueError:
        raise ValueError(
            f"present and predicted differ in shape: {present.shape} and {predicted.shape}."
        ) from None
    both = (present & predicted).sum(axis=0)
    either = present.sum(axis=0) + predicted.sum(axis=0)
    return np.divide(2.0 * both, either, out=np.zeros(np.shape(both)), where=either > 0)[()]


def _decisions(values: npt.ArrayLike, name: str) -> Array:
    array = np.asarray(values)
    if array.ndim == 0 or not len(array) or array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} must hold 0 and 1 for one or more samples, got shape {array.shape} of dtype "
            f"{array.dtype}."
        )
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        raise ValueError(f"{name} must hold 0 and 1, got {np.setdiff1d(array, (0, 1))[0]}.")
    return array.astype(bool, copy=False)


def best_columns(f1: Array) -> Array:
    """Column with the best F1 for each concept; the first one among equals.

    Parameters
    ----------
    f1 : ndarray of shape (n_concepts, n_columns)
        F1 of each column as a detector of each concept.

    Returns
    -------
    columns : ndarray of shape (n_concepts,), dtype int64
        Several concepts may share one.
    """
    return np.argmax(f1, axis=1)


def best_cut(scores: Array, positive: Array) -> float:
    r"""Cut with the best F1 among **all** cuts; the largest one among equals.

    .. math:: \tau^* = \arg\max_\tau \mathrm{F1}\big([s_i \ge \tau], y_i\big)

    Parameters
    ----------
    scores : ndarray of shape (n_scores,)
        Scores.
    positive : ndarray of shape (n_scores,), dtype bool
        Truth; at least one is True.

    Returns
    -------
    cut : float
        One of the scores.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    hits = np.cumsum(positive[order])
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + positive.sum())
    # Equal scores fall on the same side of a cut.
    f1[:-1][ordered[:-1] == ordered[1:]] = -1
    return float(ordered[np.argmax(f1)])


def top_share(scores: Array, lengths: Array, shares: npt.ArrayLike) -> Iterator[Array]:
    r"""Mark the :math:`\lceil \rho\, n \rceil` highest scores of each sample, for several shares.

    Parameters
    ----------
    scores : ndarray of shape (n_tokens,)
        Scores, sample after sample.
    lengths : ndarray of shape (n_samples,)
        Tokens of each sample.
    shares : array-like of shape (n_shares,)
        Values of :math:`\rho` in (0, 1].

    Yields
    ------
    top : ndarray of shape (n_tokens,), dtype bool
        For each share; among equal scores the earlier token.
    """
    order = np.lexsort((-scores, segments_of(lengths)))
    rank = np.empty(len(scores), np.int64)
    rank[order] = positions_of(lengths)
    for share in np.asarray(shares, np.float64):
        # A share that is an exact number of tokens must not be rounded up by its last bit.
        size = np.ceil(share * lengths - 1e-9).astype(np.int64)
        yield rank < np.repeat(np.maximum(size, 1), lengths)
