"""What stands beside the F1 of a detector: the floor, and recall where false alarms are rare."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from skact.arguments import Number, checked, float_array
from skact.metrics._overlap import (
    indicators,
    weight_column,
    weighted_f1_score,
    weighted_mean,
)
from skact.rows import Array

__all__ = ["all_positive_f1_score", "tpr_at_fpr_score"]


@checked(y_true=["array-like"], sample_weight=["array-like", None])
def all_positive_f1_score(y_true: Any, *, sample_weight: Any = None) -> float:
    r"""Weighted F1 of saying yes to everything: the floor that any detector has to beat.

    .. math:: F_c = \frac{2 p_c}{1 + p_c}

    with :math:`p_c` the share of samples that hold c, weighted as in :func:`weighted_f1_score`.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_concepts)
        Truth: 0 and 1, or a vector of class labels. The larger of two classes is the concept; of
        more classes, each is one.
    sample_weight : array-like of shape (n_samples,), default=None
        How much each sample counts.

    Returns
    -------
    score : float
        In [0, 1].

    Raises
    ------
    ValueError
        If there are values other than 0 and 1, no samples, or weights that are none of these.

    Examples
    --------
    >>> from skact import all_positive_f1_score
    >>> all_positive_f1_score([1, 1, 1, 0])
    0.857...
    """
    (true,) = indicators({"y_true": y_true})
    return weighted_f1_score(true, np.ones_like(true), sample_weight=sample_weight)


@checked(
    y_true=["array-like"],
    y_score=["array-like"],
    fpr=[Number(Real, 0, 1, closed="left")],
    sample_weight=["array-like", None],
)
def tpr_at_fpr_score(
    y_true: Any, y_score: Any, *, fpr: float = 0.01, sample_weight: Any = None
) -> float:
    r"""Share of positives above a threshold that few negatives reach.

    .. math:: \mathrm{TPR}_c = \max_\tau \big\{ P(s \ge \tau \mid c) :
              P(s \ge \tau \mid \neg c) \le \mathrm{fpr} \big\}

    on these samples, weighted by the number that hold c. Of fewer than 1 / fpr negatives, none may
    reach the threshold.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_concepts)
        Truth: 0 and 1, or a vector of class labels. The larger of two classes is the concept; of
        more classes, each is one.
    y_score : array-like of the same shape, or (n_samples, n_classes)
        Scores; larger for what is more likely there.
    fpr : float, default=0.01
        Share of negatives in [0, 1) that may be found.
    sample_weight : array-like of shape (n_samples,), default=None
        How much each sample counts.

    Returns
    -------
    score : float
        In [0, 1]. Concepts that no sample holds do not count; NaN if that is all of them.

    Raises
    ------
    ValueError
        If the shapes differ, there are values other than 0 and 1 in the truth, a score is NaN, or
        weights are none of these samples.

    Examples
    --------
    >>> from skact import tpr_at_fpr_score
    >>> tpr_at_fpr_score([1, 1, 1, 0, 0], [0.9, 0.8, 0.3, 0.4, 0.1])
    0.666...
    """
    (true,), scores = indicators({"y_true": y_true}), float_array(y_score, "y_score")
    if scores.shape not in (true.shape, true.shape[: 1 + (true.shape[1] > 1)]):
        raise ValueError(
            f"y_score has shape {scores.shape}, y_true has {np.shape(y_true)}, of which it needs "
            f"{true.shape[1]} columns."
        )
    if np.isnan(scores).any():
        raise ValueError("y_score must hold numbers, but holds NaN.")
    scores, weight = scores.reshape(true.shape), weight_column(sample_weight, len(true))[:, 0]
    counted = weight > 0
    true, scores, weight = true[counted], scores[counted], weight[counted]
    n_positive = weight @ true
    held = np.flatnonzero(n_positive)
    found = np.array([_found(scores[:, c], true[:, c], weight, fpr) for c in held])
    return float(weighted_mean(found, n_positive[held])) if len(held) else np.nan


def _found(scores: Array, true: Array, weight: Array, fpr: float) -> float:
    """Share of positives above all negatives but those that may be found."""
    order = np.flatnonzero(~true)[np.argsort(-scores[~true], kind="stable")]
    larger = np.cumsum(weight[order]) - weight[order]
    # What rounding makes of a whole number must not cost a negative.
    allowed = order[larger <= fpr * weight[order].sum() + 1e-9]
    bound = scores[allowed[-1]] if len(allowed) else -np.inf
    return float(np.average(scores[true] > bound, weights=weight[true]))
