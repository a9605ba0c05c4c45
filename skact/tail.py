r"""Thresholds in the tail, cuts of pooled scores and probabilities: functions on plain arrays.

A cut that keeps a promise is an order statistic. Of n scores of samples that hold a concept, the
k-th smallest leaves at most a share :math:`\alpha` of such samples below it

- on average over calibrations, for :math:`k = \lfloor \alpha (n + 1) \rfloor`, if samples are
  exchangeable;
- in a share of at least ``confidence`` of all calibrations, for the largest k with
  :math:`P(\mathrm{Bin}(n, \alpha) \le k - 1) \le 1 - \mathit{confidence}`.

The k-th largest score of samples without the concept bounds false alarms in the same way.
"""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, expit, logit

from skact.arguments import Number, check_sample_weight, checked, float_array
from skact.rows import Array, all_finite

__all__ = [
    "DELTA_GRID",
    "best_columns",
    "best_cut",
    "best_cut_of_sorted",
    "concept_f1",
    "false_alarm_cut",
    "fit_sigmoid",
    "guaranteed_rank",
    "log_odds",
    "recall_cut",
    "sigmoid",
    "tail_threshold",
    "unsure_cuts",
]


#: The sparsities of the paper's search, ascending.
DELTA_GRID = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_DOUBLES = 2**20


@checked(
    scores=["array-like"],
    delta=["array-like", Number(Real, 0, 1, closed="neither")],
    sample_weight=["array-like", None],
)
def tail_threshold(
    scores: Array, delta: float | npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
) -> Array:
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
    sample_weight : array-like of shape (n_scores,), default=None
        How often each score counts: a weight of 2 is that of a score that is there twice. Weights
        that average less than 1 are scaled to an average of 1.

    Returns
    -------
    thresholds : ndarray, dtype float64
        Of shape delta.shape + scores.shape[1:].

    Raises
    ------
    ValueError
        If there is no score, one is not finite, there is no delta, one lies outside of (0, 1), or
        the weights are none of these scores.

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
    weight = None if sample_weight is None else check_sample_weight(sample_weight, len(scores))
    thresholds = np.empty((*level.shape, table.shape[1]))
    # Doubles and their copy take a multiple of the scores, so only some columns do at a time.
    step = max(_DOUBLES // len(table), 1)
    for start in range(0, table.shape[1], step):
        some = slice(start, start + step)
        part = table[:, some].astype(np.float64)
        if weight is None:
            thresholds[..., some] = np.quantile(part, level, axis=0)
        else:
            thresholds[..., some] = _weighted_quantile(part, level, weight)
    thresholds = thresholds.reshape((*level.shape, *scores.shape[1:]))
    return thresholds.astype(precision).astype(np.float64)[()]


def _weighted_quantile(scores: Array, levels: Array, weight: Array) -> Array:
    """Quantiles (*levels.shape, n_columns) of columns where each score is there ``weight`` times.

    With W scores, the quantile of level q lies between the order statistics of the numbers before
    and after q (W - 1), in proportion. That is the mean of the step function of order statistics
    from q (W - 1) to one further, which takes weights of any size.
    """
    weight = weight * max(1.0, np.count_nonzero(weight) / weight.sum())
    order = np.argsort(scores, axis=0, kind="stable")
    ordered, upper = np.take_along_axis(scores, order, axis=0), np.cumsum(weight[order], axis=0)
    lower = upper - weight[order]
    quantiles = np.empty((*levels.shape, scores.shape[1]))
    for place in np.ndindex(levels.shape):
        first = levels[place] * (weight.sum() - 1)
        least = np.take_along_axis(ordered, (upper > first).argmax(axis=0)[None], axis=0)
        shares = np.minimum(upper, first + 1) - np.maximum(lower, first)
        # From the least score on, so that where only one counts it is met to the last bit.
        quantiles[place] = least[0] + ((ordered - least) * np.maximum(shares, 0)).sum(axis=0)
    return quantiles


@checked(present=["array-like"], predicted=["array-like"], sample_weight=["array-like", None])
def concept_f1(
    present: npt.ArrayLike,
    predicted: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
) -> Array:
    r"""F1 of decisions per concept, :math:`2 TP / (2 TP + FP + FN)`; 0 where nothing is true.

    Parameters
    ----------
    present : array-like of shape (n_samples, ...), bool or 0 and 1
        Truth.
    predicted : array-like broadcastable against ``present``, bool or 0 and 1
        Decisions; both are reduced over the first axis.
    sample_weight : array-like of shape (n_samples,), default=None
        How much each sample counts.

    Returns
    -------
    f1 : ndarray, dtype float64
        One value per remaining entry.

    Raises
    ------
    ValueError
        If there are values other than 0 and 1, no samples, shapes that do not fit, or weights that
        are none of these samples.

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
    weight = None
    if sample_weight is not None:
        weight = check_sample_weight(sample_weight, max(len(present), len(predicted)))
    both = _total(present & predicted, weight)
    either = _total(present, weight) + _total(predicted, weight)
    return np.divide(2.0 * both, either, out=np.zeros(np.shape(both)), where=either > 0)[()]


def _total(marks: Array, weight: Array | None) -> Any:
    """Count marks along the first axis, each as often as its sample counts."""
    if weight is None:
        return marks.sum(axis=0)
    return np.tensordot(weight, np.broadcast_to(marks, (len(weight), *marks.shape[1:])), 1)


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


def best_cut(scores: Array, positive: Array, weight: Array | None = None) -> Any:
    r"""Cut with the best F1 among **all** cuts; the largest one among equals.

    .. math:: \tau^* = \arg\max_\tau \frac{2 \sum_{s_i \ge \tau} w_i p_i}
              {\sum_{s_i \ge \tau} w_i + \sum_i w_i p_i}

    This is F1 where p is the truth. Where p are probabilities, it is about the F1 to be expected,
    and less noisy if few samples are positive.

    Parameters
    ----------
    scores : ndarray of shape (n_scores,) or (n_scores, n_columns)
        Scores of one concept, or of each column.
    positive : ndarray of shape (n_scores,) or (n_scores, n_columns), dtype bool or float
        Truth, or probabilities; for all columns or each. At least one is not 0.
    weight : ndarray of shape (n_scores,), default=None
        w, above 0; None counts each score once.

    Returns
    -------
    cut : float, or ndarray of shape (n_columns,)
        One of the scores.
    """
    table = scores.reshape(len(scores), -1)
    if table.dtype.kind == "b":
        table = table.astype(np.float32)
    chances = np.broadcast_to(positive.reshape(len(scores), -1), table.shape)
    cuts = np.empty(table.shape[1])
    step = max(_DOUBLES // len(table), 1)
    for start in range(0, len(cuts), step):
        some = slice(start, start + step)
        order = np.argsort(-table[:, some], kind="stable", axis=0)
        cuts[some] = best_cut_of_sorted(
            np.take_along_axis(table[:, some], order, axis=0),
            np.take_along_axis(chances[:, some], order, axis=0),
            None if weight is None else weight[order],
        )
    return cuts.reshape(scores.shape[1:])[()]


def best_cut_of_sorted(scores: Array, positive: Array, weight: Array | None = None) -> Array:
    """Cut as :func:`best_cut` does, where scores are in order already.

    Parameters
    ----------
    scores : ndarray of shape (n_scores, n_columns)
        Scores that descend in each column.
    positive : ndarray of shape (n_scores, n_columns), dtype bool or float
        Truth or probability of each.
    weight : ndarray of shape (n_scores, n_columns), default=None
        How often each counts; None once.

    Returns
    -------
    cuts : ndarray of shape (n_columns,)
        One of the scores of each column.
    """
    found = np.arange(1, len(scores) + 1)[:, None]
    if weight is not None:
        found, positive = np.cumsum(weight, axis=0), weight * positive
    hits = np.cumsum(positive, axis=0)
    f1 = 2 * hits / (found + hits[-1])
    # Equal scores fall on the same side of a cut.
    f1[:-1][scores[:-1] == scores[1:]] = -1
    cuts: Array = scores[np.argmax(f1, axis=0), np.arange(scores.shape[1])]
    return cuts


def guaranteed_rank(
    n: int, rates: npt.ArrayLike, confidence: float | None = None, what: str = "samples"
) -> Array:
    """Tell which order statistic of n scores keeps the promise of a rate.

    Parameters
    ----------
    n : int
        Number of scores.
    rates : array-like of shape (n_rates,)
        Share in (0, 1) that may lie on the wrong side of the cut.
    confidence : float, default=None
        Share of calibrations that keep the rate; None keeps it on average.
    what : str, default="samples"
        What is counted, for the error.

    Returns
    -------
    ranks : ndarray of shape (n_rates,), dtype int64
        From 1, counted from the wrong side.

    Raises
    ------
    ValueError
        If n is too small for a rate; says how many are needed.

    Examples
    --------
    >>> from skact.tail import guaranteed_rank
    >>> guaranteed_rank(99, [0.1]), guaranteed_rank(99, [0.1], confidence=0.95)
    (array([10]), array([5]))
    """
    rates = np.atleast_1d(np.asarray(rates, np.float64))
    for rate in rates:
        # A rate such as 1 - 0.9 must not ask for one more by its last bit.
        needed = 1 / rate - 1 if confidence is None else np.log1p(-confidence) / np.log1p(-rate)
        if n < (needed := int(np.ceil(needed - 1e-9))):
            surely = "" if confidence is None else f" with confidence {confidence:g}"
            raise ValueError(
                f"an error rate of {rate:g}{surely} needs at least {needed} {what}, got {n}."
            )
    if confidence is None:
        return np.minimum(np.floor(rates * (n + 1) + 1e-9), n).astype(np.int64)
    below = bdtr(np.arange(n, dtype=np.float64)[:, None], n, rates)
    return np.maximum(np.sum(below <= 1 - confidence, axis=0), 1)


def recall_cut(scores: Array, levels: npt.ArrayLike, confidence: float | None = None) -> Array:
    """Largest cut that finds a promised share of the samples that hold a concept.

    Parameters
    ----------
    scores : ndarray of shape (n_positives, n_columns)
        Scores of samples that hold the concept.
    levels : array-like of shape (n_levels,)
        Recall in (0, 1).
    confidence : float, default=None
        Share of calibrations that keep the promise; None keeps it on average.

    Returns
    -------
    cuts : ndarray of shape (n_levels, n_columns), dtype float64
        Scores; a score that equals one is found.

    Raises
    ------
    ValueError
        If there are too few scores.
    """
    rates = 1 - np.atleast_1d(np.asarray(levels, np.float64))
    return _ranked(scores, guaranteed_rank(len(scores), rates, confidence) - 1).astype(np.float64)


def false_alarm_cut(scores: Array, levels: npt.ArrayLike, confidence: float | None = None) -> Array:
    """Smallest cut that finds a promised share, and no more, of the samples without a concept.

    The cut is the next float above a score, in the precision of the scores, so that the promise
    holds where many scores are equal.

    Parameters
    ----------
    scores : ndarray of shape (n_negatives, n_columns)
        Scores of samples that do not hold the concept.
    levels : array-like of shape (n_levels,)
        Share of false alarms in (0, 1).
    confidence : float, default=None
        Share of calibrations that keep the promise; None keeps it on average.

    Returns
    -------
    cuts : ndarray of shape (n_levels, n_columns), dtype float64
        A score that equals one is found.

    Raises
    ------
    ValueError
        If there are too few scores.
    """
    if scores.dtype.kind != "f":
        scores = scores.astype(np.float32)
    ranks = guaranteed_rank(len(scores), levels, confidence)
    below = _ranked(scores, len(scores) - ranks)
    return np.nextafter(below, scores.dtype.type(np.inf)).astype(np.float64)


def _ranked(scores: Array, places: Array) -> Array:
    """Order statistics (n_places, n_columns), from 0."""
    return np.partition(scores, np.unique(places), axis=0)[places]


def unsure_cuts(
    scores: Array, present: Array, levels: npt.ArrayLike, confidence: float | None = None
) -> Array:
    """Two cuts: below the lower one a concept is absent, from the upper one on it is present.

    The lower one promises recall, the upper one false alarms. Where they cross, nothing lies
    between, and both become their midpoint, which keeps both promises.

    Parameters
    ----------
    scores : ndarray of shape (n_samples, n_columns)
        Scores.
    present : ndarray of shape (n_samples,), dtype bool
        Samples that hold the concept.
    levels : array-like of shape (n_levels, 2)
        Recall and share of false alarms, each in (0, 1).
    confidence : float, default=None
        Share of calibrations that keep a promise, for each of the two.

    Returns
    -------
    cuts : ndarray of shape (n_levels, 2, n_columns), dtype float64
        The lower and the upper one.

    Raises
    ------
    ValueError
        If there are too few scores.
    """
    recall, alarms = np.asarray(levels, np.float64).T
    lower = recall_cut(scores[present], recall, confidence)
    upper = false_alarm_cut(scores[~present], alarms, confidence)
    middle = (lower + upper) / 2
    cross = lower > upper
    return np.stack([np.where(cross, middle, lower), np.where(cross, middle, upper)], axis=1)


def fit_sigmoid(scores: Array, present: Array, weight: Array | None = None) -> Array:
    r"""Probabilities from scores, by Platt's method without a penalty.

    .. math:: p = \frac{1}{1 + e^{-(a (A - m) + b)}}, \qquad a \ge 0

    minimises the cross entropy to the targets :math:`(n_+ + 1) / (n_+ + 2)` and
    :math:`1 / (n_- + 2)`, with the scores standardised. So :math:`A \to sA + t` with s > 0 changes
    no probability [1]_.

    Parameters
    ----------
    scores : ndarray of shape (n_samples, n_columns)
        Pooled scores.
    present : ndarray of shape (n_samples,) or (n_samples, n_columns), dtype bool
        Truth, for all columns or each.
    weight : ndarray of shape (n_samples,), default=None
        How often each sample counts; None once.

    Returns
    -------
    fitted : ndarray of shape (n_columns, 3), dtype float64
        m, a and b. a is 0 where scores are no higher with the concept than without.

    References
    ----------
    .. [1] Platt, "Probabilistic Outputs for Support Vector Machines and Comparisons to Regularized
       Likelihood Methods", 1999.
    """
    truth = np.broadcast_to(present.reshape(len(scores), -1), scores.shape)
    fitted = np.empty((scores.shape[1], 3))
    step = max(_DOUBLES // len(scores), 1)
    for start in range(0, len(fitted), step):
        some = slice(start, start + step)
        fitted[some] = _platt(scores[:, some].astype(np.float64), truth[:, some], weight)
    return fitted


def _platt(scores: Array, truth: Array, weight: Array | None) -> Array:
    times: Any = 1.0 if weight is None else weight[:, None]
    centre, scale = scores.mean(axis=0), scores.std(axis=0)
    n_samples: Any = len(scores)
    if weight is not None:
        n_samples, centre = weight.sum(), np.average(scores, axis=0, weights=weight)
        scale = np.sqrt(np.average((scores - centre) ** 2, axis=0, weights=weight))
    # A constant has a deviation of a few last bits.
    flat = scale <= 1e-12 * np.abs(scores).max(axis=0)
    z = (scores - centre) / np.where(flat, 1, scale) * ~flat
    n_positive = _total(truth, weight)
    n_negative = n_samples - n_positive
    target = np.where(truth, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    base = logit(np.average(target, axis=0, weights=weight))
    a, b, squares = np.zeros(len(base)), base, z * z

    def loss(a: Array, b: Array) -> tuple[Array, Array]:
        f = a * z + b
        return f, (times * (np.logaddexp(0, f) - target * f)).sum(axis=0)

    f, now = loss(a, b)
    for _ in range(100):
        p = expit(f)
        curve, slope = times * p * (1 - p), times * (p - target)
        aa, ab, bb = (x.sum(axis=0) for x in (curve * squares, curve * z, curve))
        ga, gb = (slope * z).sum(axis=0), slope.sum(axis=0)
        aa = np.where(flat, 1, aa)
        det = aa * bb - ab * ab
        da, db = (bb * ga - ab * gb) / det, (aa * gb - ab * ga) / det
        size = np.ones(len(base))
        while True:
            f, after = loss(a - size * da, b - size * db)
            if not np.any(worse := after > now + 1e-12 * np.abs(now)):
                break
            size[worse] /= 2
        a, b, now = a - size * da, b - size * db, after
        if max(np.abs(da).max(), np.abs(db).max()) < 1e-9:
            break
    # The loss is convex, so a slope below 0 means that the best one allowed is 0.
    rising = a > 0
    slope = np.where(rising & ~flat, a, 0) / np.where(flat, 1, scale)
    return np.column_stack([centre, slope, np.where(rising, b, base)])


def log_odds(scores: Array, fitted: Array) -> Array:
    """Log-odds of scores, by what :func:`fit_sigmoid` found.

    Parameters
    ----------
    scores : ndarray of shape (n_samples, n_columns)
        Pooled scores.
    fitted : ndarray of shape (n_columns, 3)
        m, a and b of each column.

    Returns
    -------
    odds : ndarray of shape (n_samples, n_columns), dtype float64
        0 where a concept is as probable as not.
    """
    centre, slope, intercept = fitted.T
    odds: Array = slope * (scores.astype(np.float64) - centre) + intercept
    return odds


def sigmoid(scores: Array, fitted: Array) -> Array:
    """Probabilities of scores, by what :func:`fit_sigmoid` found.

    Parameters
    ----------
    scores : ndarray of shape (n_samples, n_columns)
        Pooled scores.
    fitted : ndarray of shape (n_columns, 3)
        m, a and b of each column.

    Returns
    -------
    chances : ndarray of shape (n_samples, n_columns), dtype float64
        In (0, 1).
    """
    return expit(log_odds(scores, fitted))
