"""What stands beside the F1 of a detector: the floor, and recall where false alarms are rare."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from skact.arguments import Number, checked, float_array
from skact.metrics._overlap import indicator, weighted_f1_score, weighted_mean
from skact.rows import Array

__all__ = ["all_positive_f1_score", "tpr_at_fpr_score"]


@checked(y_true=["array-like"])
def all_positive_f1_score(y_true: Any) -> float:
    r"""Weighted F1 of saying yes to everything: the floor that any detector has to beat.

    .. math:: F_c = \frac{2 p_c}{1 + p_c}

    with :math:`p_c` the share of samples that hold c, weighted as in :func:`weighted_f1_score`.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_concepts), 0 and 1 or bool
        Truth.

    Returns
    -------
    score : float
        In [0, 1].

    Raises
    ------
    ValueError
        If there are values other than 0 and 1, or no samples.

    Examples
    --------
    >>> from skact import all_positive_f1_score
    >>> all_positive_f1_score([1, 1, 1, 0])
    0.857...
    """
    true = indicator(y_true, "y_true")
    return weighted_f1_score(true, np.ones_like(true))


@checked(
    y_true=["array-like"],
    y_score=["array-like"],
    fpr=[Number(Real, 0, 1, closed="left")],
)
def tpr_at_fpr_score(y_true: Any, y_score: Any, *, fpr: float = 0.01) -> float:
    r"""Share of positives above a threshold that few negatives reach.

    .. math:: \mathrm{TPR}_c = \max_\tau \big\{ P(s \ge \tau \mid c) :
              P(s \ge \tau \mid \neg c) \le \mathrm{fpr} \big\}

    on these samples, weighted by the number that hold c. Of fewer than 1 / fpr negatives, none may
    reach the threshold.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_concepts), 0 and 1 or bool
        Truth.
    y_score : array-like of the same shape
        Scores; larger for what is more likely there.
    fpr : float, default=0.01
        Share of negatives in [0, 1) that may be found.

    Returns
    -------
    score : float
        In [0, 1]. Concepts that no sample holds do not count; NaN if that is all of them.

    Raises
    ------
    ValueError
        If the shapes differ, there are values other than 0 and 1 in the truth, or a score is NaN.

    Examples
    --------
    >>> from skact import tpr_at_fpr_score
    >>> tpr_at_fpr_score([1, 1, 1, 0, 0], [0.9, 0.8, 0.3, 0.4, 0.1])
    0.666...
    """
    true, scores = indicator(y_true, "y_true"), float_array(y_score, "y_score")
    if scores.shape != np.shape(y_true):
        raise ValueError(f"y_score has shape {scores.shape}, y_true has {np.shape(y_true)}.")
    if np.isnan(scores).any():
        raise ValueError("y_score must hold numbers, but holds NaN.")
    scores = scores.reshape(true.shape)
    n_positive = true.sum(axis=0)
    held = np.flatnonzero(n_positive)
    found = np.array([_found(scores[true[:, c], c], scores[~true[:, c], c], fpr) for c in held])
    return float(weighted_mean(found, n_positive[held])) if len(held) else np.nan


def _found(positives: Array, negatives: Array, fpr: float) -> float:
    """Share of positives above all negatives but those that may be found."""
    # What rounding makes of a whole number must not cost a negative.
    n_allowed = int(fpr * len(negatives) + 1e-9)
    bound = np.partition(negatives, -1 - n_allowed)[-1 - n_allowed] if len(negatives) else -np.inf
    return float(np.mean(positives > bound))
