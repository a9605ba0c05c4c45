"""Decisions against truth, by counts per concept: F1 of samples, F1 and IoU of tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from skact.arguments import check_sample_weight
from skact.rows import Array
from skact.targets import missing_labels
from skact.tokens import TokenArray

__all__ = [
    "Statistic",
    "check_alike",
    "check_marks",
    "concept_iou",
    "indicator",
    "indicators",
    "sample_f1",
    "score_of",
    "token_f1",
    "token_f1_score",
    "token_iou",
    "token_iou_score",
    "weight_column",
    "weighted_f1_score",
    "weighted_mean",
]

# Score of resampled samples: numbers of samples (..., n_drawn) to scores (...).
Statistic = Callable[[Array], Array]


def weighted_f1_score(y_true: Any, y_pred: Any, *, sample_weight: Any = None) -> float:
    r"""F1 per concept, weighted by the number :math:`n_c` of samples that hold it.

    .. math:: F = \frac{\sum_c n_c F_c}{\sum_c n_c}, \qquad
              F_c = \frac{2 TP_c}{2 TP_c + FP_c + FN_c}

    the table value of the paper [1]_.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_concepts)
        Truth: 0 and 1, where a vector is one concept, or a vector of class labels. The larger of
        two classes is the concept; of more classes, each is one.
    y_pred : array-like of the same shape
        Decisions.
    sample_weight : array-like of shape (n_samples,), default=None
        How much each sample counts.

    Returns
    -------
    score : float
        In [0, 1]; equal to ``sklearn.metrics.f1_score(average="weighted")`` on an indicator
        matrix or more than two classes. 0 if no concept occurs.

    Raises
    ------
    ValueError
        If the shapes differ, a matrix holds values other than 0 and 1, a vector something that is
        no class of the same kind as the others, or weights are none of these samples.

    References
    ----------
    .. [1] Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate
       Reliable Concept Signals in the Tail", section on evaluation.

    Examples
    --------
    >>> from skact import weighted_f1_score
    >>> weighted_f1_score([[1, 0], [1, 1], [0, 0]], [[1, 0], [1, 0], [0, 0]])
    0.666...
    >>> weighted_f1_score(["yes", "no", "yes"], ["yes", "no", "no"])
    0.666...
    """
    return score_of(sample_f1(y_true, y_pred, sample_weight=sample_weight), len(y_true))


def token_f1_score(labels_true: Any, labels_pred: Any, *, sample_weight: Any = None) -> float:
    r"""F1 over tokens per concept, weighted by the number of tokens that belong to it.

    .. math:: F = \frac{\sum_c n_c F_c}{\sum_c n_c}, \qquad
              F_c = \frac{2 TP_c}{2 TP_c + FP_c + FN_c}

    over the tokens of all samples, :math:`n_c` of which belong to c.

    Parameters
    ----------
    labels_true, labels_pred : TokenArray of shape (n_samples, n_concepts), dtype bool
        Truth and decisions for the same tokens.
    sample_weight : array-like of shape (n_samples,), default=None
        How much each sample counts, with all of its tokens.

    Returns
    -------
    score : float
        In [0, 1]; equal to ``sklearn.metrics.f1_score(average="weighted")`` on all tokens. 0 if no
        concept occurs.

    Raises
    ------
    ValueError
        If samples, lengths or concepts differ, or weights are none of these samples.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import TokenArray, token_f1_score
    >>> true = TokenArray(np.array([[True], [True], [False]]), [0, 2, 3])
    >>> token_f1_score(true, TokenArray(np.array([[True], [False], [False]]), [0, 2, 3]))
    0.666...
    """
    statistic = token_f1(labels_true, labels_pred, sample_weight=sample_weight)
    return score_of(statistic, len(labels_true))


def token_iou_score(labels_true: Any, labels_pred: Any, *, sample_weight: Any = None) -> float:
    r"""Intersection over union of tokens per concept, weighted by the tokens that belong to it.

    .. math:: \frac{\sum_c n_c \mathrm{IoU}_c}{\sum_c n_c}, \qquad
              \mathrm{IoU}_c = \frac{TP_c}{TP_c + FP_c + FN_c}

    over the tokens of all samples, :math:`n_c` of which belong to c.

    Parameters
    ----------
    labels_true, labels_pred : TokenArray of shape (n_samples, n_concepts), dtype bool
        Truth and decisions for the same tokens.
    sample_weight : array-like of shape (n_samples,), default=None
        How much each sample counts, with all of its tokens.

    Returns
    -------
    score : float
        In [0, 1]; equal to ``sklearn.metrics.jaccard_score(average="weighted")`` on all tokens. 0
        if no concept occurs.

    Raises
    ------
    ValueError
        If samples, lengths or concepts differ, or weights are none of these samples.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import TokenArray, token_iou_score
    >>> true = TokenArray(np.array([[True], [True], [False]]), [0, 2, 3])
    >>> token_iou_score(true, TokenArray(np.array([[True], [False], [False]]), [0, 2, 3]))
    0.5
    """
    statistic = token_iou(labels_true, labels_pred, sample_weight=sample_weight)
    return score_of(statistic, len(labels_true))


def concept_iou(labels_true: Any, labels_pred: Any, *, sample_weight: Any = None) -> Array:
    r"""Intersection over union of the masks of a whole set of samples, for each concept.

    .. math:: \mathrm{IoU}_c = \frac{\sum_x |M_c(x) \cap L_c(x)|}{\sum_x |M_c(x) \cup L_c(x)|}

    with M what is marked and L what is labelled in a sample x [1]_: large masks count more than
    small ones, and a false mark in a sample without the concept counts too.

    Parameters
    ----------
    labels_true, labels_pred : TokenArray of shape (n_samples, n_concepts), dtype bool
        Truth and decisions for the same tokens.
    sample_weight : array-like of shape (n_samples,), default=None
        How much each sample counts, with all of its tokens.

    Returns
    -------
    iou : ndarray of shape (n_concepts,), dtype float64
        In [0, 1]; 0 where nothing is marked or labelled. Their mean, weighted by the labelled
        tokens, is :func:`token_iou_score`.

    Raises
    ------
    ValueError
        If samples, lengths or concepts differ, or weights are none of these samples.

    References
    ----------
    .. [1] Bau, Zhou, Khosla, Oliva, Torralba, "Network Dissection: Quantifying Interpretability of
       Deep Visual Representations", 2017, section on scoring units.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import TokenArray, concept_iou
    >>> true = TokenArray(np.array([[True], [True], [False]]), [0, 2, 3])
    >>> concept_iou(true, TokenArray(np.array([[True], [False], [False]]), [0, 2, 3]))
    array([0.5])
    """
    counts = _token_counts(labels_true, labels_pred, "labels_pred")
    times = weight_column(sample_weight, len(labels_true))
    both, positive, predicted = ((times * one).sum(axis=0) for one in counts)
    above, below = _iou(both, positive, predicted)
    return np.divide(above, below, out=np.zeros(below.shape), where=below > 0)


def sample_f1(
    y_true: Any, y_pred: Any, name: str = "y_pred", sample_weight: Any = None
) -> Statistic:
    """F1 of resampled samples."""
    true, pred = indicators({"y_true": y_true, name: y_pred})
    check_alike(true, pred)
    return _weighted(_f1, (true & pred, true, pred), sample_weight)


def token_f1(
    labels_true: Any, labels_pred: Any, name: str = "labels_pred", sample_weight: Any = None
) -> Statistic:
    """F1 of the tokens of resampled samples."""
    return _weighted(_f1, _token_counts(labels_true, labels_pred, name), sample_weight)


def token_iou(
    labels_true: Any, labels_pred: Any, name: str = "labels_pred", sample_weight: Any = None
) -> Statistic:
    """IoU of the tokens of resampled samples."""
    return _weighted(_iou, _token_counts(labels_true, labels_pred, name), sample_weight)


def check_marks(labels: Any, name: str) -> None:
    """Refuse what is no TokenArray of bool."""
    if not isinstance(labels, TokenArray) or labels.dtype != bool:
        got = getattr(labels, "dtype", type(labels).__name__)
        raise ValueError(f"{name} must be a TokenArray of bool, got {got}.")


def check_alike(true: Any, pred: Any) -> None:
    """Refuse truth and decisions, or truth and scores, that differ in shape."""
    if true.shape != pred.shape:
        raise ValueError(f"truth and decisions differ in shape: {true.shape} and {pred.shape}.")
    if isinstance(true, TokenArray) and not np.array_equal(true.lengths, pred.lengths):
        raise ValueError("truth and decisions differ in the number of tokens of a sample.")


def score_of(statistic: Statistic, n_samples: int) -> float:
    """Score of all samples, each of them once."""
    return float(statistic(np.arange(n_samples)))


def indicators(given: Mapping[str, Any]) -> list[Array]:
    """Check 0 and 1 of samples, or classes, of the truth and of decisions on the same samples.

    Parameters
    ----------
    given : mapping of str to array-like
        By names for messages, the truth first.

    Returns
    -------
    marks : list of ndarray of shape (n_samples, n_concepts), dtype bool
        The larger of two classes is the concept; of more, each is one.
    """
    arrays = {name: _read(y, name) for name, y in given.items()}
    for name, y in arrays.items():
        _refuse_missing(y, name)
    truth = next(iter(arrays.values()))
    if truth.ndim != 1 or (not _are_strings(truth) and np.isin(truth, (0, 1)).all()):
        return [indicator(y, name) for name, y in arrays.items()]
    for name, y in arrays.items():
        whole = y.dtype.kind in "biuf" and np.all(np.isfinite(y) & (y == np.rint(y)))
        if y.ndim != 1 or not (_are_strings(y) if _are_strings(truth) else whole):
            kind = "strings" if _are_strings(truth) else "whole numbers"
            raise ValueError(
                f"{name} must be (n_samples,) of {kind}, the classes of y_true, got shape "
                f"{y.shape} and dtype {y.dtype}."
            )
    classes = np.unique(np.concatenate(list(arrays.values())))
    if len(classes) < 2 and len(arrays) == 1:
        raise ValueError(
            f"y_true has one class only ({classes[0]!r}), and no other says whether it is the "
            "concept; give 0 and 1."
        )
    concepts = classes if len(classes) > 2 else classes[-1:]
    return [y[:, None] == concepts for y in arrays.values()]


def _read(y: Any, name: str) -> Array:
    try:
        array = np.asarray(y)
    except ValueError as error:
        raise ValueError(f"{name} must have rows of one length: {error}") from error
    if array.dtype.kind == "U" and isinstance(y, list | tuple):
        # Of numbers among strings numpy makes strings.
        return np.asarray(y, object)
    is_column = hasattr(y, "columns") and array.ndim == 2 and array.shape[1] == 1
    return array[:, 0] if is_column else array


def _refuse_missing(y: Array, name: str) -> None:
    missing = np.isnan(y) if y.dtype.kind == "f" else missing_labels(y)
    if n_missing := int(missing.sum()):
        raise ValueError(
            f"{name} misses {n_missing} of its {y.size} values; take the samples in which it is "
            "known, for each concept by itself."
        )


def _are_strings(y: Array) -> bool:
    return y.dtype.kind in "UT" or (y.dtype.kind == "O" and all(isinstance(v, str) for v in y.flat))


def indicator(y: Any, name: str) -> Array:
    """Check 0 and 1 of samples; (n_samples, n_concepts), dtype bool."""
    y = np.asarray(y)
    if y.ndim not in (1, 2) or not y.size or not np.isin(y, (0, 1)).all():
        raise ValueError(
            f"{name} must be (n_samples,) or (n_samples, n_concepts) of 0 and 1, got shape "
            f"{y.shape} and dtype {y.dtype}."
        )
    return y.reshape(len(y), -1).astype(bool)


def _token_counts(true: Any, pred: Any, name: str) -> tuple[Array, Array, Array]:
    """Count hits, positives and decisions per sample and concept."""
    check_marks(true, "labels_true")
    check_marks(pred, name)
    check_alike(true, pred)
    hits = true.with_values(true.flat() & pred.flat())
    return hits.sum(), true.sum(), pred.sum()


def _weighted(
    formula: Callable[[Array, Array, Array], tuple[Array, Array]],
    per_sample: tuple[Array, Array, Array],
    sample_weight: Any,
) -> Statistic:
    """Score per concept from counts (n_samples, n_concepts), weighted by the positives."""
    times = weight_column(sample_weight, len(per_sample[0]))
    counted = [times * counts for counts in per_sample]

    def statistic(rows: Array) -> Array:
        both, positive, predicted = (counts[rows].sum(axis=-2) for counts in counted)
        above, below = formula(both, positive, predicted)
        scores = np.divide(above, below, out=np.zeros(below.shape), where=below > 0)
        return weighted_mean(scores, positive)

    return statistic


def weight_column(sample_weight: Any, n_samples: int) -> Array:
    """How much each sample counts, (n_samples, 1); ones of int64 where nothing is said."""
    if sample_weight is None:
        return np.ones((n_samples, 1), np.int64)
    return check_sample_weight(sample_weight, n_samples)[:, None]


def weighted_mean(scores: Array, weights: Array) -> Array:
    """Mean over the last axis; 0 where all weights are."""
    total, weight = (scores * weights).sum(axis=-1), weights.sum(axis=-1)
    return np.divide(total, weight, out=np.zeros(np.shape(total)), where=weight > 0)


def _f1(both: Array, positive: Array, predicted: Array) -> tuple[Array, Array]:
    return 2 * both, positive + predicted


def _iou(both: Array, positive: Array, predicted: Array) -> tuple[Array, Array]:
    return both, positive + predicted - both
