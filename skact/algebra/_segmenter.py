"""Concepts found by the strongest activations of units, alone and together."""

from __future__ import annotations

from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from skact.arguments import Number
from skact.base import ConceptNamesOutMixin, TokenTransformer, concept_names
from skact.concepts import LinearSeparator, labelled_sums
from skact.metrics import concept_iou
from skact.rows import Array, most_held
from skact.tail import tail_threshold
from skact.targets import (
    check_more_targets,
    check_targets,
    check_token_labels,
    in_order_of_fit,
)
from skact.tokens import Labels, Source, TokenArray
from skact.validation import check_tokens, like_input
from skact.warning import warn

__all__ = ["ConceptSegmenter", "top_thresholds", "unit_iou"]


def top_thresholds(tokens: TokenArray, share: float) -> Array:
    """Activation of each unit above which a share of all tokens lies.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        Activations; of tokens on disk some columns are held at a time.
    share : float
        In (0, 1).

    Returns
    -------
    thresholds : ndarray of shape (n_features,), dtype float64
        Quantiles, see :func:`~skact.tail_threshold`.
    """
    if tokens.may_be_held:
        return np.asarray(tail_threshold(tokens.flat(), share))
    step = max(int(most_held() // (4 * tokens.n_tokens)), 1)
    columns = np.arange(tokens.n_features)
    parts = [columns[start : start + step] for start in range(0, len(columns), step)]
    return np.concatenate([tail_threshold(tokens.columns(part).flat(), share) for part in parts])


def unit_iou(marks: TokenArray, labels: TokenArray) -> Array:
    r"""Intersection over union of the marks of each unit with the labels of each concept.

    .. math:: \mathrm{IoU}_{c,k} = \frac{\sum_x |M_k(x) \cap L_c(x)|}{\sum_x |M_k(x) \cup L_c(x)|}

    Parameters
    ----------
    marks : TokenArray of shape (n_samples, n_units)
        0 and 1.
    labels : TokenArray of shape (n_samples, n_concepts), dtype bool
        Labels of the same tokens.

    Returns
    -------
    iou : ndarray of shape (n_concepts, n_units), dtype float64
        In [0, 1].
    """
    both, labelled = labelled_sums(marks, labels)
    marked = sum(chunk.sum(axis=0, dtype=np.float64) for chunk in marks.float_chunks())
    union: Array = labelled[:, None] + marked - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


class ConceptSegmenter(ConceptNamesOutMixin, TokenTransformer):
    r"""Mark the tokens of a concept by the strongest activations of units.

    A unit, a column of X, marks the tokens where it exceeds a threshold of its own, the activation
    above which the share :math:`\delta` of **all** training tokens lies,

    .. math:: M_k(z) = [z_k > \tau_k], \qquad \tau_k = Q_{1 - \delta}(z_k),

    and is judged by the set IoU with the labels L of a concept over all training samples x [1]_,

    .. math:: \mathrm{IoU}_{c,k} =
              \frac{\sum_x |M_k(x) \cap L_c(x)|}{\sum_x |M_k(x) \cup L_c(x)|}.

    A concept is marked by its best unit, :math:`\arg\max_k \mathrm{IoU}_{c,k}`, or by a weighted
    combination of all units [2]_, where
    :math:`\sigma\big(\sum_k w_{c,k} M_k(z)\big) > \tfrac12`, with weights of the logistic loss in
    which tokens with and without the concept count the same,

    .. math:: w_c = \arg\min_w \sum_i \alpha_{c,i} \log\big(1 + e^{-t_{c,i} \langle M(z_i), w
              \rangle}\big) + \tfrac{\lambda}{2} \lVert w \rVert^2, \qquad t_{c,i} = \pm 1,

    as :class:`~skact.LinearSeparator` finds them. Without an intercept, a token that no unit marks
    belongs to no concept. What a unit is, is up to X: neurons of a layer, patches of images or
    tokens of texts alike, or units of a :class:`~skact.SparseAutoencoder` before this step.

    Parameters
    ----------
    share : float, default=0.005
        :math:`\delta`. One unit marks so many of the tokens, so its IoU with a concept that has the
        share p of them is at most :math:`\min(\delta, p) / \max(\delta, p)`: for common concepts a
        larger share is needed.
    units : {"weighted", "best"}, default="weighted"
        Whether all units mark a concept together, or its best one alone.
    weight_decay : float, default=1e-4
        :math:`\lambda`. Not read by "best".

    Attributes
    ----------
    thresholds_ : ndarray of shape (n_features,), dtype float64
        :math:`\tau_k`.
    unit_iou_ : ndarray of shape (n_concepts, n_features), dtype float64
        Set IoU of each unit with each concept on the training tokens.
    best_units_ : ndarray of shape (n_concepts,), dtype int64
        The best unit of each concept; the first one among equals.
    weights_ : ndarray of shape (n_concepts, n_features), dtype float64
        :math:`w_c`; with "best", 1 for the best unit and 0 for all others.
    iou_ : ndarray of shape (n_concepts,), dtype float64
        Set IoU of what is marked on the training tokens.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts.
    classes_ : ndarray of shape (n_classes,) or None
        Class labels, None if y was an indicator matrix.
    n_features_in_ : int
        Units.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    Warns
    -----
    UserWarning
        If no unit marks any token of a concept.

    References
    ----------
    .. [1] Bau, Zhou, Khosla, Oliva, Torralba, "Network Dissection: Quantifying Interpretability of
       Deep Visual Representations", 2017.
    .. [2] Fong, Vedaldi, "Net2Vec: Quantifying and Explaining how Concepts are Encoded by Filters
       in Deep Neural Networks", 2018, section on segmenting concepts.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import ConceptSegmenter
    >>> X = np.array([[0.1, 9.0], [0.2, 8.0], [0.3, 0.0], [0.4, 0.1]])
    >>> method = ConceptSegmenter(0.5, units="best").fit(X, [1, 1, 0, 0])
    >>> method.best_units_, method.predict(X).ravel()
    (array([1]), array([ True,  True, False, False]))
    """

    # scikit-learn reads these requests under their name-mangled form.
    __metadata_request__fit: ClassVar = {"token_labels": True}
    __metadata_request__score: ClassVar = {"token_labels": True}

    _parameter_constraints: dict[str, list[Any]] = {
        "share": [Number(Real, 0, 1, closed="neither")],
        "units": [StrOptions({"weighted", "best"})],
        "weight_decay": [Number(Real, 0, None, closed="left")],
    }

    thresholds_: Array
    unit_iou_: Array
    best_units_: Array
    weights_: Array
    iou_: Array
    classes_: Array | None
    _labels: Labels

    def __init__(
        self,
        share: float = 0.005,
        *,
        units: Literal["weighted", "best"] = "weighted",
        weight_decay: float = 1e-4,
    ) -> None:
        self.share = share
        self.units = units
        self.weight_decay = weight_decay

    def fit(self, X: Any, y: Any, token_labels: Any = None) -> Self:
        """Find the thresholds, the best unit of each concept, and the weights.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Training tokens, of texts or of images.
        y : array-like of shape (n_samples,) or (n_samples, n_concepts)
            Class labels (two classes: one concept, the larger class; more: one concept a class)
            or an indicator matrix.
        token_labels : TokenArray or list of arrays of bool, default=None
            Masks L: for each sample (n_tokens, n_concepts). None counts every token of a positive
            sample.

        Returns
        -------
        self : ConceptSegmenter
            Fitted.

        Raises
        ------
        ValueError
            If X, y and token_labels do not fit together, or a concept has no token, or all of them.
        """
        self._validate_params()
        tokens = check_tokens(self, X)
        targets = check_targets(self, y, len(tokens))
        labels, targets = check_token_labels(token_labels, tokens, targets)
        self.classes_ = targets.classes
        self.concept_names_ = concept_names(targets.names, targets.n_concepts)
        self._labels = "samples" if token_labels is None else "tokens"
        self.thresholds_ = top_thresholds(tokens, self.share)
        marks = tokens.map(self._marks)
        self.unit_iou_ = unit_iou(marks, labels)
        self.best_units_ = self.unit_iou_.argmax(axis=1)
        self._warn_of_unmarked()
        if self.units == "best":
            self.weights_ = np.eye(tokens.n_features)[self.best_units_]
        else:
            separator = LinearSeparator(weight_decay=self.weight_decay)
            self.weights_ = separator.fit(marks, targets.present, labels).concept_vectors_
        self.iou_ = concept_iou(labels, self._decide(tokens))
        return self

    def _warn_of_unmarked(self) -> None:
        unmarked = self.concept_names_[self.unit_iou_.max(axis=1) == 0].tolist()
        if unmarked:
            warn(
                f"none of the {self.n_features_in_} units marks a token of {unmarked} with "
                f"share={self.share}; a larger share marks more tokens."
            )

    def _marks(self, values: Array) -> Array:
        # Strictly above, so that a unit which is 0 for most tokens marks those where it fires.
        precision = np.float64 if values.dtype == np.float64 else np.float32
        return (values > self.thresholds_).astype(precision)

    def _score(self, values: Array) -> Array:
        marks = self._marks(values)
        scores: Array = marks @ self.weights_.T.astype(marks.dtype)
        return scores

    def _transform(self, tokens: TokenArray) -> TokenArray:
        """Give the weighted sums of marks, (n_tokens, n_concepts)."""
        return tokens.map(
            self._score,
            feature_names=list(self.concept_names_),
            source=replace(tokens.source or Source(), columns="concepts", labels=self._labels),
        )

    def _decide(self, tokens: TokenArray) -> TokenArray:
        scores = self._transform(tokens)
        return scores.map(_positive, feature_names=scores.feature_names, source=scores.source)

    def predict(self, X: Any) -> TokenArray | Array:
        """Mark the tokens of each concept.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Tokens of ``n_features_in_`` units.

        Returns
        -------
        masks : TokenArray of shape (n_samples, n_concepts), dtype bool, or ndarray for a 2-D array
            True where the weighted sum of the marks, which ``transform`` gives, is above 0.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X does not fit what the estimator was fitted on.
        """
        check_is_fitted(self)
        return like_input(X, self._decide(check_tokens(self, X, reset=False)))

    def score(self, X: Any, y: Any, token_labels: Any = None) -> float:
        """Set IoU of the masks with the labels, the mean over concepts.

        Parameters
        ----------
        X : as in ``predict``
            Tokens.
        y : array-like of shape (n_samples,) or (n_samples, n_concepts)
            As in ``fit``; a concept may have no sample.
        token_labels : TokenArray or list of arrays of bool, default=None
            Masks, as in ``fit``. None counts every token of a positive sample.

        Returns
        -------
        iou : float
            In [0, 1], see :func:`~skact.concept_iou`.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X, y and token_labels do not fit together, or hold other concepts than in ``fit``.
        """
        check_is_fitted(self)
        tokens = check_tokens(self, X, reset=False)
        y = in_order_of_fit(y, self.concept_names_)
        targets = check_more_targets(self, y, len(tokens), classes=self.classes_)
        if targets.n_concepts != len(self.concept_names_):
            raise ValueError(
                f"y has {targets.n_concepts} concepts, in fit it had {len(self.concept_names_)}."
            )
        labels, _ = check_token_labels(token_labels, tokens, targets, all_present=False)
        return float(concept_iou(labels, self._decide(tokens)).mean())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags


def _positive(scores: Array) -> Array:
    return scores > 0
