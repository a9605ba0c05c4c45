"""Classes told by concepts alone."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import sklearn
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d, get_tags
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.fixes import parse_version
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from skact.arguments import Number
from skact.base import NestedParamsMixin
from skact.preprocessing import TokenPooling
from skact.rows import Array
from skact.targets import check_targets

__all__ = ["ConceptBottleneckClassifier"]

# Before 1.8, scikit-learn reads `l1_ratio` for this penalty only, and later warns of it.
_OLD = parse_version(sklearn.__version__) < parse_version("1.8")
_L1: dict[str, Any] = {"l1_ratio": 1.0, "solver": "saga"} | (
    {"penalty": "elasticnet"} if _OLD else {}
)


class ConceptBottleneckClassifier(
    NestedParamsMixin, MetaEstimatorMixin, ClassifierMixin, BaseEstimator
):
    r"""Classify samples by the scores of concepts alone.

    The scores of tokens are pooled to one per sample and concept, :math:`s_c`, brought to mean 0
    and variance 1, and read by a sparse logistic regression [1]_,

    .. math:: p(k \mid s) \propto e^{b_k + \sum_c w_{kc} (s_c - m_c) / d_c}, \qquad
              \min_{w, b} \; C \sum_i -\log p(y_i \mid s_i) + \sum_{kc} |w_{kc}|,

    so that what a class is told by can be read: ``coef_`` has a weight for each class and concept,
    most of them 0 where C is small. Two classes have one row of weights, of the larger one.

    Parameters
    ----------
    estimator : transformer
        From samples to scores: a concept method, or a Pipeline that ends in one or in a detector,
        which may begin with an embedder. It is cloned and fitted; ``FrozenEstimator(fitted)`` is
        used as it is.
    pool : {"max", "mean", "last"}, default="max"
        What becomes of the scores of the tokens of a sample; a matrix of scores stays.
    C : float, default=1.0
        Inverse strength of the penalty: less is sparser.
    max_iter : int, default=1000
        Passes of the solver at most.
    tol : float, default=0.0001
        Where it stops.
    random_state : int, RandomState instance or None, default=None
        Order of samples in the solver.

    Attributes
    ----------
    coef_ : ndarray of shape (n_classes, n_concepts) or (1, n_concepts), dtype float64
        w, per standard deviation of the scores.
    intercept_ : ndarray of shape (n_classes,) or (1,), dtype float64
        b, the log-odds of a sample of mean scores.
    mean_, scale_ : ndarray of shape (n_concepts,), dtype float64
        m and d.
    classes_ : ndarray of shape (n_classes,)
        Classes.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the columns of ``coef_``.
    estimator_ : transformer
        The fitted clone.
    n_iter_ : int
        Passes of the solver.
    n_features_in_ : int
        Features of a token, where the estimator says them.

    See Also
    --------
    ConceptRules : Classes that are defined by concepts, not learnt from them.

    References
    ----------
    .. [1] Koh et al., "Concept Bottleneck Models", ICML 2020; with the sparse layer of Wong,
       Santurkar, Madry, "Leveraging Sparse Linear Layers for Debuggable Deep Networks", ICML 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import ConceptBottleneckClassifier, MeanPrototype
    >>> X, has = np.eye(4)[[0, 1, 2, 3] * 5], np.eye(4, dtype=int)[[0, 1, 2, 3] * 5]
    >>> y = np.where(has[:, 0] | has[:, 1], "warm", "cold")
    >>> model = ConceptBottleneckClassifier(MeanPrototype(), random_state=0)
    >>> model.fit(X, y, concept_labels=has).predict(X[:4])
    array(['warm', 'warm', 'cold', 'cold'], dtype='<U4')
    >>> np.sign(model.coef_)
    array([[ 1.,  1., -1., -1.]])
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "estimator": [HasMethods(["fit", "transform"])],
        "pool": [StrOptions({"max", "mean", "last"})],
        "C": [Number(Real, 0, None, closed="neither")],
        "max_iter": [Number(Integral, 1, None, closed="left")],
        "tol": [Number(Real, 0, None, closed="neither")],
        "random_state": ["random_state"],
    }

    # scikit-learn reads these requests under their name-mangled form.
    __metadata_request__fit: ClassVar = {"concept_labels": True, "token_labels": True}

    coef_: Array
    intercept_: Array
    mean_: Array
    scale_: Array
    classes_: Array
    concept_names_: Array

    def __init__(
        self,
        estimator: Any,
        *,
        pool: Literal["max", "mean", "last"] = "max",
        C: float = 1.0,
        max_iter: int = 1000,
        tol: float = 1e-4,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.pool = pool
        self.C = C
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def fit(self, X: Any, y: Any, concept_labels: Any = None, token_labels: Any = None) -> Self:
        """Fit the concepts, then the classes on their scores.

        Parameters
        ----------
        X : as of the estimator
            Samples.
        y : array-like of shape (n_samples,)
            Class of each sample.
        concept_labels : array-like of shape (n_samples, n_concepts) or (n_samples,), default=None
            Concepts in each sample, which the estimator is fitted to. None fits it to y, so that
            the classes themselves are the concepts of a method with labels.
        token_labels : TokenArray or list of arrays of bool, default=None
            Where the concepts are, for an estimator that takes it.

        Returns
        -------
        self : ConceptBottleneckClassifier
            Fitted.

        Raises
        ------
        ValueError
            If y is no vector of two classes or more, or does not fit X; whatever the estimator
            raises.
        """
        self._validate_params()
        y = _checked_classes(type(self).__name__, y)
        labels = y if concept_labels is None else concept_labels
        _check_concepts(labels, len(y))
        given = {} if token_labels is None else {"token_labels": token_labels}
        self.estimator_ = clone(self.estimator).fit(X, labels, **given)
        scores = self._scores(X)
        check_consistent_length(scores, y)
        self.concept_names_ = np.asarray(self.estimator_.get_feature_names_out(), dtype=object)
        scaler = StandardScaler().fit(scores)
        reader = LogisticRegression(
            C=self.C, max_iter=self.max_iter, tol=self.tol, random_state=self.random_state, **_L1
        ).fit(scaler.transform(scores), y)
        self.mean_, self.scale_ = scaler.mean_, scaler.scale_
        self.coef_, self.intercept_ = reader.coef_, reader.intercept_
        self.classes_ = reader.classes_
        self.n_iter_ = int(np.max(reader.n_iter_))
        return self

    def _scores(self, X: Any) -> Array:
        """Score samples: (n_samples, n_concepts), dtype float64."""
        scores = TokenPooling(self.pool).fit_transform(self.estimator_.transform(X))
        return np.asarray(scores, np.float64)

    def decision_function(self, X: Any) -> Array:
        """Give log-odds of classes.

        Parameters
        ----------
        X : as of the estimator
            Samples.

        Returns
        -------
        decision : ndarray of shape (n_samples,) or (n_samples, n_classes), dtype float64
            Of two classes that of the larger one; of more, log-probabilities up to a constant of
            each sample.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X does not fit the estimator.
        """
        check_is_fitted(self)
        decision = (self._scores(X) - self.mean_) / self.scale_ @ self.coef_.T + self.intercept_
        return decision[:, 0] if len(self.classes_) == 2 else decision

    def predict_proba(self, X: Any) -> Array:
        """Give probabilities of classes.

        Parameters
        ----------
        X : as of the estimator
            Samples.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes), dtype float64
            They sum to 1.

        Raises
        ------
        NotFittedError, ValueError
            As in ``decision_function``.
        """
        decision = self.decision_function(X)
        if decision.ndim == 1:
            return np.column_stack([expit(-decision), expit(decision)])
        chances: Array = softmax(decision, axis=1)
        return chances

    def predict(self, X: Any) -> Array:
        """Tell the most probable class.

        Parameters
        ----------
        X : as of the estimator
            Samples.

        Returns
        -------
        classes : ndarray of shape (n_samples,)
            Of ``classes_``.

        Raises
        ------
        NotFittedError, ValueError
            As in ``decision_function``.
        """
        decision = self.decision_function(X)
        best = (decision > 0).astype(int) if decision.ndim == 1 else decision.argmax(axis=1)
        return self.classes_[best]

    @property
    def n_features_in_(self) -> int:
        """Features of a token."""
        check_is_fitted(self)
        return int(self.estimator_.n_features_in_)

    @property
    def feature_names_in_(self) -> Array:
        """Names of the columns of a data frame."""
        names: Array = self.estimator_.feature_names_in_
        return names

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        return tags


class _Concepts(BaseEstimator):
    """What errors about labels name."""


def _check_concepts(labels: Any, n_samples: int) -> None:
    try:
        check_targets(_Concepts(), labels, n_samples)
    except (TypeError, ValueError) as error:
        raise type(error)(f"concept_labels must be labels of concepts: {error}") from error


def _checked_classes(name: str, y: Any) -> Array:
    if y is None:
        raise ValueError(
            f"This {name} estimator requires y to be passed, but the target y is None."
        )
    if np.asarray(y).dtype.kind == "c":
        raise ValueError("y must hold classes. Complex data not supported.")
    y = column_or_1d(y, warn=True)
    if y.dtype.kind == "f":
        assert_all_finite(y, input_name="y")
    check_classification_targets(y)
    if len(kinds := np.unique(y)) < 2:
        raise ValueError(f"y must have two classes or more, got 1 class: {kinds.tolist()}.")
    return y
