"""Percentile bootstrap over samples, of a score or of the paired difference of two."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import bootstrap
from sklearn.utils import check_random_state

from skact.arguments import Number, checked
from skact.metrics._overlap import (
    Statistic,
    indicators,
    sample_f1,
    token_f1,
    token_f1_score,
    token_iou,
    token_iou_score,
    weighted_f1_score,
)
from skact.metrics._ranking import (
    pointing_game,
    pointing_game_score,
    token_average_precision,
    token_average_precision_score,
)
from skact.rows import Array
from skact.tokens import TokenArray
from skact.warning import warn

__all__ = ["Interval", "bootstrap_interval"]


# Scores of this package read resamples off counts that are taken once.
_STATISTICS: dict[Any, Callable[[Any, Any, str, Any], Statistic]] = {
    weighted_f1_score: sample_f1,
    token_f1_score: token_f1,
    token_iou_score: token_iou,
    token_average_precision_score: token_average_precision,
    pointing_game_score: pointing_game,
}


class Interval(NamedTuple):
    """An estimate and its interval.

    Parameters
    ----------
    estimate : float
        Value on the data.
    low, high : float
        Ends of the interval.
    """

    estimate: float
    low: float
    high: float

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={value:.4g}" for name, value in self._asdict().items())
        return f"Interval({said})"

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


@checked(
    y_true=["array-like"],
    y_pred=["array-like"],
    baseline=["array-like", None],
    metric=[callable, None],
    sample_weight=["array-like", None],
    n_resamples=[Number(Integral, 1, None, closed="left")],
    confidence_level=[Number(Real, 0, 1, closed="neither")],
    random_state=["random_state"],
)
def bootstrap_interval(
    y_true: Any,
    y_pred: Any,
    *,
    baseline: Any = None,
    metric: Callable[[Any, Any], float] | None = None,
    sample_weight: Any = None,
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: Any = None,
) -> Interval:
    """Percentile bootstrap over samples; with a baseline, of the paired difference.

    Parameters
    ----------
    y_true : array-like or TokenArray of shape (n_samples, ...)
        Truth: samples, such as 0 and 1 or class labels, or tokens of samples.
    y_pred : array-like or TokenArray of shape (n_samples, ...)
        Decisions, or what else the metric takes.
    baseline : like y_pred, default=None
        Decisions of another method on the same samples: the interval is then that of
        ``metric(y_true, y_pred) - metric(y_true, baseline)``, both on the same resamples, which is
        far narrower than two separate intervals suggest.
    metric : callable, default=None
        ``metric(y_true, y_pred)`` -> float, called on each resample; the scores of this package
        are computed for all resamples at once. None is :func:`weighted_f1_score`, or
        :func:`token_f1_score` for a TokenArray. Classes are those of the samples at hand, not of
        each resample.
    sample_weight : array-like of shape (n_samples,), default=None
        How much each sample counts wherever it is drawn; for the scores of this package. The
        estimate is that of repeated samples. The interval is not, since copies of a sample would
        be drawn as if they were samples of their own.
    n_resamples : int, default=1000
        Resamples of the samples, all concepts together.
    confidence_level : float, default=0.95
        Share of resamples inside.
    random_state : int, RandomState instance or None, default=None
        Draws the resamples.

    Returns
    -------
    interval : Interval
        Estimate, low, high. Resamples on which the metric is not defined, because it gives NaN or
        infinity or raises a ValueError, are left out; the ends are NaN where these are more than
        half, and all three where it is not defined on the samples themselves.

    Raises
    ------
    ValueError
        If lengths differ, there are fewer than two samples, a setting is out of range, weights are
        given for a metric of one's own, or the metric raises one for the samples themselves.

    Warns
    -----
    UserWarning
        If resamples were left out, with their number.

    Examples
    --------
    >>> from skact import bootstrap_interval
    >>> y = [[1], [0], [1], [1], [0], [1]]
    >>> bootstrap_interval(y, y, random_state=0)
    Interval(estimate=1, low=1, high=1)
    >>> bootstrap_interval(["yes", "no", "yes"], ["no", "no", "no"], random_state=0)
    Interval(estimate=0, low=0, high=0)
    """
    predictions = (
        {"y_pred": y_pred} if baseline is None else {"y_pred": y_pred, "baseline": baseline}
    )
    n_samples = len(y_true)
    for name, given in predictions.items():
        if len(given) != n_samples:
            raise ValueError(f"{name} has {len(given)} samples, y_true has {n_samples}.")
    if n_samples < 2:
        raise ValueError(f"the bootstrap needs at least 2 samples, got {n_samples}.")
    if metric is None:
        metric = token_f1_score if isinstance(y_true, TokenArray) else weighted_f1_score
    if metric is weighted_f1_score:
        # Three classes in one of two pairs would be three concepts there and one in the other.
        y_true, *marks = indicators({"y_true": y_true, **predictions})
        predictions = dict(zip(predictions, marks, strict=True))
    failures: list[ValueError] = []
    scores = [
        _resampled(y_true, given, metric, name, sample_weight, failures)
        for name, given in predictions.items()
    ]

    def statistic(rows: Array, axis: int = -1) -> Array:
        values = [score(rows) for score in scores]
        return values[0] if baseline is None else values[0] - values[1]

    everything = np.arange(n_samples)
    estimate = float(statistic(everything))
    if failures:
        raise failures[0]
    if not np.isfinite(estimate):
        warn(f"the metric is not defined on these samples: it gives {estimate}.")
        return Interval(estimate, np.nan, np.nan)
    # 2**24 counts at a time are 128 MiB.
    batch = max(1, 2**24 // (n_samples * _width(y_true)))
    drawn = _draw(statistic, everything, n_resamples, batch, random_state)
    return Interval(estimate, *_ends(drawn, confidence_level, failures))


def _draw(
    statistic: Any, everything: Array, n_resamples: int, batch: int, random_state: Any
) -> Array:
    """Compute a statistic of resamples, ``batch`` at a time; float64 of shape (n_resamples,)."""
    seed = check_random_state(random_state).randint(2**31 - 1)
    with warnings.catch_warnings():
        # What a metric has to say about the samples was said before.
        warnings.simplefilter("ignore")
        drawn: Array = bootstrap(
            (everything,),
            statistic,
            n_resamples=n_resamples,
            batch=batch,
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
    return drawn


def _ends(drawn: Array, level: float, failures: list[ValueError]) -> tuple[float, float]:
    """Read off the ends of the middle share of those resamples that have a value."""
    defined = drawn[np.isfinite(drawn)]
    n_undefined = len(drawn) - len(defined)
    too_many = n_undefined > len(defined)
    if n_undefined:
        reason = f" ({failures[0]})" if failures else ""
        left = "too many for an interval" if too_many else "the interval is that of the others"
        warn(
            f"the metric is not defined on {n_undefined} of {len(drawn)} resamples "
            f"({n_undefined / len(drawn):.1%}){reason}; {left}. More samples of the rare class "
            "would help."
        )
    if too_many:
        return np.nan, np.nan
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resampled(
    y_true: Any,
    y_pred: Any,
    metric: Callable[[Any, Any], float],
    name: str,
    sample_weight: Any,
    failures: list[ValueError],
) -> Statistic:
    """Return a function of sample numbers (..., n_drawn) to scores (...).

    NaN where the metric raises a ValueError, which goes to ``failures``.
    """
    if metric in _STATISTICS:
        return _STATISTICS[metric](y_true, y_pred, name, sample_weight)
    if sample_weight is not None:
        raise ValueError(
            "sample_weight is for the scores of this package; a metric of your own can read "
            "weights from y_true."
        )
    keep = [d if isinstance(d, TokenArray) else np.asarray(d) for d in (y_true, y_pred)]

    def score(rows: Array) -> float:
        try:
            return metric(*(d[rows] for d in keep))
        except ValueError as error:
            failures.append(error)
            return np.nan

    return lambda rows: np.apply_along_axis(score, -1, rows)


def _width(y: Any) -> int:
    shape = np.shape(y) if not isinstance(y, TokenArray) else y.shape
    return int(np.prod(shape[1:], initial=1))
