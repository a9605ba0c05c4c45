"""How good the decisions on one concept are, as numbers with intervals."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from skact.metrics import (
    Interval,
    all_positive_f1_score,
    bootstrap_interval,
    tpr_at_fpr_score,
    weighted_f1_score,
)
from skact.rows import Array

__all__ = ["OUTCOMES", "Figures", "figures", "outcomes", "worst_first"]

#: Keys of outcomes, what they are called, and whether the largest decision is shown first.
OUTCOMES = {
    "hit": ("Found, and it is there", True),
    "missed": ("Missed: it is there", False),
    "alarm": ("False alarm: it is not there", True),
    "clear": ("Not found, and it is not there", True),
    "found": ("Found, no label", True),
    "nothing": ("Not found, no label", True),
}


@dataclass(frozen=True)
class Figures:
    """Figures of one concept on samples with a label.

    Parameters
    ----------
    n_known, n_positive, n_found : int
        Samples with a label, those that hold the concept, and those where it is found.
    floor : float
        F1 of saying yes to everything.
    f1, gain, auroc, average_precision : Interval
        With 95 % intervals over samples; the gain is F1 above the floor, paired. NaN where there
        are samples of one kind only.
    precision, recall, tpr : float
        Share of the found that is right, of the concept that is found, and that found where 1 %
        of the other samples are.
    """

    n_known: int
    n_positive: int
    n_found: int
    floor: float
    f1: Interval
    gain: Interval
    auroc: Interval
    average_precision: Interval
    precision: float
    recall: float
    tpr: float


def figures(truth: Array, found: Array, pooled: Array, *, seed: int, n_resamples: int) -> Figures:
    """Judge decisions.

    Parameters
    ----------
    truth : ndarray of shape (n_known,), dtype bool
        Which samples hold the concept.
    found : ndarray of shape (n_known,), dtype bool
        In which it is found.
    pooled : ndarray of shape (n_known,)
        The score behind it.
    seed, n_resamples : int
        Of the bootstrap.

    Returns
    -------
    figures : Figures
        The figures.
    """
    nothing = Interval(np.nan, np.nan, np.nan)
    both = bool(truth.any() and not truth.all())
    options: dict[str, Any] = {"n_resamples": n_resamples, "random_state": seed}
    with warnings.catch_warnings():
        # Resamples without the concept have no ranking; of the figures that is no news.
        warnings.simplefilter("ignore")
        interval = bootstrap_interval if len(truth) > 1 else lambda *a, **k: nothing
        return Figures(
            n_known=len(truth),
            n_positive=int(truth.sum()),
            n_found=int(found.sum()),
            floor=all_positive_f1_score(truth),
            f1=interval(truth, found, metric=weighted_f1_score, **options),
            gain=interval(truth, found, baseline=np.ones_like(truth), **options),
            auroc=interval(truth, pooled, metric=_auroc, **options) if both else nothing,
            average_precision=interval(truth, pooled, metric=_precision, **options)
            if both
            else nothing,
            precision=float(truth[found].mean()) if found.any() else np.nan,
            recall=float(found[truth].mean()) if truth.any() else np.nan,
            tpr=tpr_at_fpr_score(truth, pooled) if both else np.nan,
        )


def _auroc(truth: Array, scores: Array) -> float:
    """Share of pairs of a positive and a negative in which the positive scores higher."""
    n_positive = int(truth.sum())
    n_negative = len(truth) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    above = rankdata(scores)[truth].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * n_negative))


def _precision(truth: Array, scores: Array) -> float:
    """Average precision: the mean, over the positives, of the precision down to their score."""
    order = np.argsort(-scores)
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(truth[order])[ends]
    if not hits[-1]:
        return float("nan")
    return float(np.sum(np.diff(hits, prepend=0) * hits / (ends + 1)) / hits[-1])


def outcomes(present: Array, found: Array) -> Array:
    """Name what came of each sample.

    Parameters
    ----------
    present : ndarray of shape (n_samples,)
        1, 0, or NaN where it is unknown whether the concept is there.
    found : ndarray of shape (n_samples,), dtype bool
        Where it is found.

    Returns
    -------
    outcomes : ndarray of shape (n_samples,), dtype object
        Keys of :data:`OUTCOMES`.
    """
    known = [present == 1, present == 0, np.isnan(present)]
    yes = np.select(known, ["hit", "alarm", "found"], "")
    no = np.select(known, ["missed", "clear", "nothing"], "")
    named: Array = np.where(found, yes, no).astype(object)
    return named


def worst_first(named: Array, outcome: str, decision: Array, n_most: int) -> Array:
    """Choose the samples of an outcome that say most: sure hits, and errors that were sure.

    Parameters
    ----------
    named : ndarray of shape (n_samples,)
        From :func:`outcomes`.
    outcome : str
        Key of :data:`OUTCOMES`.
    decision : ndarray of shape (n_samples,)
        Pooled score minus threshold.
    n_most : int
        How many.

    Returns
    -------
    rows : ndarray of int
        At most so many; of samples without the concept in truth and decision, the closest calls.
    """
    rows = np.flatnonzero(named == outcome)
    sign = -1 if OUTCOMES[outcome][1] else 1
    chosen: Array = rows[np.argsort(sign * decision[rows], kind="stable")[:n_most]]
    return chosen
