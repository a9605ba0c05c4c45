r"""How good detections are, with intervals.

The table value of the paper is the F1 of each concept, weighted by the number :math:`n_c` of
samples that hold it,

.. math:: F = \frac{\sum_c n_c F_c}{\sum_c n_c}, \qquad
          F_c = \frac{2 TP_c}{2 TP_c + FP_c + FN_c},

and its error bars are 95 % percentile bootstrap intervals over samples, with all concepts
resampled together (Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism", section on
evaluation). The same formula over tokens judges SuperActivators as a localization.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap
from sklearn.utils import check_random_state
from sklearn.utils.metadata_routing import MetadataRequest

from skact.detection import superactivators
from skact.tokens import TokenArray

__all__ = [
    "Interval",
    "TokenScorer",
    "bootstrap_interval",
    "token_f1_score",
    "token_f1_scorer",
    "weighted_f1_score",
]

Array = npt.NDArray[Any]


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

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def weighted_f1_score(y_true: Any, y_pred: Any) -> float:
    """F1 per concept, weighted by the number of samples that hold it.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_concepts), 0 and 1 or bool
        Truth. A vector is one concept.
    y_pred : array-like of the same shape
        Decisions.

    Returns
    -------
    score : float
        In [0, 1]; equal to ``sklearn.metrics.f1_score(average="weighted")`` on an indicator
        matrix. 0 if no concept occurs.

    Raises
    ------
    ValueError
        If the shapes differ or there are values other than 0 and 1.

    Examples
    --------
    >>> from skact import weighted_f1_score
    >>> weighted_f1_score([[1, 0], [1, 1], [0, 0]], [[1, 0], [1, 0], [0, 0]])
    0.666...
    """
    return float(_weighted_f1(*_counts(_indicator(y_true, "y_true"), _indicator(y_pred, "y_pred"))))


def token_f1_score(labels_true: Any, labels_pred: Any) -> float:
    """F1 over tokens per concept, weighted by the number of tokens that belong to it.

    Parameters
    ----------
    labels_true, labels_pred : TokenArray of shape (n_samples, n_concepts), dtype bool
        Truth and decisions for the same tokens.

    Returns
    -------
    score : float
        In [0, 1].

    Raises
    ------
    ValueError
        If samples, lengths or concepts differ.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import TokenArray, token_f1_score
    >>> true = TokenArray(np.array([[True], [True], [False]]), [0, 2, 3])
    >>> token_f1_score(true, TokenArray(np.array([[True], [False], [False]]), [0, 2, 3]))
    0.666...
    """
    for name, labels in (("labels_true", labels_true), ("labels_pred", labels_pred)):
        if not isinstance(labels, TokenArray) or labels.dtype != bool:
            got = getattr(labels, "dtype", type(labels).__name__)
            raise ValueError(f"{name} must be a TokenArray of bool, got {got}.")
    return float(_weighted_f1(*_counts(labels_true, labels_pred)))


def bootstrap_interval(
    y_true: Any,
    y_pred: Any,
    *,
    baseline: Any = None,
    metric: Callable[[Any, Any], float] | None = None,
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: Any = None,
) -> Interval:
    """Percentile bootstrap over samples; with a baseline, of the paired difference.

    Parameters
    ----------
    y_true : array-like or TokenArray of shape (n_samples, ...)
        Truth: samples, or tokens of samples.
    y_pred : like y_true
        Decisions.
    baseline : like y_true, default=None
        Decisions of another method on the same samples: the interval is then that of
        ``metric(y_true, y_pred) - metric(y_true, baseline)``, both on the same resamples, which is
        far narrower than two separate intervals suggest.
    metric : callable, default=None
        ``metric(y_true, y_pred)`` -> float, called on each resample. None is the weighted F1 over
        samples, or over tokens for a TokenArray, computed for all resamples at once.
    n_resamples : int, default=1000
        Resamples of the samples, all concepts together.
    confidence_level : float, default=0.95
        Share of resamples inside.
    random_state : int, RandomState instance or None, default=None
        Draws the resamples.

    Returns
    -------
    interval : Interval
        Estimate, low, high.

    Raises
    ------
    ValueError
        If lengths differ, there are fewer than two samples, or a setting is out of range.

    Examples
    --------
    >>> from skact import bootstrap_interval
    >>> y = [[1], [0], [1], [1], [0], [1]]
    >>> bootstrap_interval(y, y, random_state=0)
    Interval(estimate=1.0, low=1.0, high=1.0)
    """
    if not 0 < confidence_level < 1:
        raise ValueError(f"confidence_level must lie in (0, 1), got {confidence_level}.")
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1, got {n_resamples}.")
    predictions = (
        {"y_pred": y_pred} if baseline is None else {"y_pred": y_pred, "baseline": baseline}
    )
    n_samples = len(y_true)
    for name, given in predictions.items():
        if len(given) != n_samples:
            raise ValueError(f"{name} has {len(given)} samples, y_true has {n_samples}.")
    if n_samples < 2:
        raise ValueError(f"the bootstrap needs at least 2 samples, got {n_samples}.")
    scores = [_resampled(y_true, given, metric, name) for name, given in predictions.items()]

    def statistic(rows: Array, axis: int = -1) -> Array:
        values = [score(rows) for score in scores]
        return values[0] if baseline is None else values[0] - values[1]

    everything = np.arange(n_samples)
    result = bootstrap(
        (everything,),
        statistic,
        n_resamples=n_resamples,
        # 2**24 counts at a time are 128 MB.
        batch=max(1, 2**24 // (n_samples * _width(y_true))),
        vectorized=True,
        confidence_level=confidence_level,
        method="percentile",
        rng=np.random.default_rng(check_random_state(random_state).randint(2**31 - 1)),
    )
    low, high = result.confidence_interval
    return Interval(float(statistic(everything)), float(low), float(high))


def _resampled(
    y_true: Any, y_pred: Any, metric: Callable[[Any, Any], float] | None, name: str
) -> Callable[[Array], Array]:
    """Return a function of sample indices (..., n_samples) to scores (...)."""
    if metric is None:
        if not isinstance(y_true, TokenArray):
            y_true, y_pred = _indicator(y_true, "y_true"), _indicator(y_pred, name)
        counts = _counts(y_true, y_pred, per_sample=True)
        return lambda rows: _weighted_f1(*(count[rows].sum(axis=-2) for count in counts))
    keep = [d if isinstance(d, TokenArray) else np.asarray(d) for d in (y_true, y_pred)]

    def score(rows: Array) -> Array:
        flat = rows.reshape(-1, rows.shape[-1])
        return np.array([metric(*(d[r] for d in keep)) for r in flat]).reshape(rows.shape[:-1])

    return score


def _width(y: Any) -> int:
    shape = np.shape(y) if not isinstance(y, TokenArray) else y.shape
    return int(np.prod(shape[1:], initial=1))


def _indicator(y: Any, name: str) -> Array:
    y = np.asarray(y)
    if y.ndim not in (1, 2) or not np.isin(y, (0, 1)).all():
        raise ValueError(
            f"{name} must be (n_samples,) or (n_samples, n_concepts) of 0 and 1, got shape "
            f"{y.shape} and dtype {y.dtype}."
        )
    return y.reshape(len(y), -1).astype(bool)


def _counts(true: Any, pred: Any, *, per_sample: bool = False) -> tuple[Array, Array, Array]:
    """Count true positives, positives and decisions per concept, and per sample if wanted."""
    if isinstance(true, TokenArray) != isinstance(pred, TokenArray) or true.shape != pred.shape:
        raise ValueError(f"truth and decisions differ in shape: {true.shape} and {pred.shape}.")
    if isinstance(true, TokenArray):
        if not np.array_equal(true.lengths, pred.lengths):
            raise ValueError("truth and decisions differ in the number of tokens of a sample.")
        hits = true.with_values(true.flat() & pred.flat())
        both, positive, predicted = hits.sum(), true.sum(), pred.sum()
    else:
        both, positive, predicted = true & pred, true, pred
    if per_sample:
        return both.astype(np.int64), positive.astype(np.int64), predicted.astype(np.int64)
    return both.sum(axis=0), positive.sum(axis=0), predicted.sum(axis=0)


def _weighted_f1(both: Array, positive: Array, predicted: Array) -> Array:
    """Weighted F1 from counts (..., n_concepts)."""
    either = positive + predicted
    f1 = np.divide(2.0 * both, either, out=np.zeros(either.shape), where=either > 0)
    weight = positive.sum(axis=-1)
    total = (f1 * positive).sum(axis=-1)
    return np.divide(total, weight, out=np.zeros(np.shape(total)), where=weight > 0)


class TokenScorer:
    """Scorer for GridSearchCV: weighted token-level F1 of the SuperActivators.

    It asks for ``token_labels`` itself, so with metadata routing enabled
    ``GridSearchCV(pipe, grid, scoring=token_f1_scorer).fit(X, y, token_labels=labels)`` is all.
    """

    def __call__(self, estimator: Any, X: Any, y: Any = None, *, token_labels: Any) -> float:
        """Score a fitted estimator that ends in a detector.

        Parameters
        ----------
        estimator : detector, Pipeline or search
            Fitted.
        X : object
            What the estimator takes.
        y : object
            Ignored.
        token_labels : TokenArray of shape (n_samples, n_concepts), dtype bool
            Truth.

        Returns
        -------
        score : float
            In [0, 1].
        """
        return token_f1_score(token_labels, superactivators(estimator, X))

    def get_metadata_routing(self) -> MetadataRequest:
        """Ask scikit-learn for ``token_labels``.

        Returns
        -------
        request : MetadataRequest
            The request.
        """
        request = MetadataRequest(owner=self)
        request.score.add_request(param="token_labels", alias=True)
        return request

    def __repr__(self) -> str:
        return "token_f1_scorer"


#: The scorer, ready to use.
token_f1_scorer = TokenScorer()
