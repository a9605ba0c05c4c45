"""Out-of-fold scores in ``fit_transform``, the full fit in ``transform``."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags, indexable
from sklearn.utils._indexing import _safe_indexing
from sklearn.utils._metadata_requests import _routing_enabled
from sklearn.utils._param_validation import HasMethods
from sklearn.utils.validation import _num_samples, check_is_fitted

from skact.arguments import N_JOBS, check_entries, check_sample_weight
from skact.base import NestedParamsMixin, TokensOutMixin
from skact.concepts import BaseUnits
from skact.model_selection._folds import consumed, make_folds
from skact.rows import Array
from skact.tokens import SampleView, TokenArray

__all__ = ["CrossFitTransformer"]


class CrossFitTransformer(NestedParamsMixin, MetaEstimatorMixin, TokensOutMixin, BaseEstimator):
    """Hand out-of-fold scores to the next step, so that its threshold is not optimistic.

    A pipeline that fits a concept method and a detector on the same rows sets the thresholds on
    scores that are too high, because the method has seen these tokens. Here ``fit_transform``
    scores each fold by a clone that was fitted on the other folds, and ``transform`` uses a clone
    that was fitted on all rows: the pattern of scikit-learn's TargetEncoder.

    Parameters
    ----------
    estimator : transformer
        The concept method.
    cv : int, cross-validation splitter or iterable, default=5
        An int makes stratified folds for class labels, plain ones for an indicator matrix; with
        groups, folds that keep each group together.
    shuffle : bool, default=True
        Whether an int ``cv`` shuffles; data sorted by concept needs it.
    random_state : int, RandomState instance or None, default=None
        Seed of the shuffling.
    n_jobs : int, default=None
        Folds fitted at a time, as in joblib.

    Attributes
    ----------
    estimator_ : transformer
        The clone fitted on all rows.
    n_features_in_ : int
        Features of a token.

    Raises
    ------
    ValueError
        Whatever the concept method raises, with the fold named: for instance if a rare concept has
        no positive sample in a training part. By ``fit_transform`` also if the folds do not hold
        every sample once, ``cv`` needs groups and there are none, or the method finds its units
        without labels.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from skact import CrossFitTransformer, LinearSeparator, SuperActivator
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(60) % 2
    >>> X = [rng.normal(size=(5, 3)) + 4 * label for label in y]
    >>> pipe = make_pipeline(CrossFitTransformer(LinearSeparator(), random_state=0),
    ...                      SuperActivator(delta=0.9))
    >>> float(pipe.fit(X, y).score(X, y))
    1.0
    """

    # scikit-learn reads this request under its name-mangled form.
    __metadata_request__fit: ClassVar = {"token_labels": True, "groups": True}

    _parameter_constraints: dict[str, list[Any]] = {
        "estimator": [HasMethods(["fit", "transform"])],
        "cv": ["cv_object"],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "n_jobs": [N_JOBS, None],
    }

    estimator_: Any

    def __init__(
        self,
        estimator: Any,
        cv: Any = 5,
        *,
        shuffle: bool = True,
        random_state: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.cv = cv
        self.shuffle = shuffle
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(
        self,
        X: Any,
        y: Any = None,
        token_labels: Any = None,
        *,
        groups: Any = None,
        sample_weight: Any = None,
    ) -> Self:
        """Fit on all rows.

        Parameters
        ----------
        X, y, token_labels : as in the concept method
            Training tokens, targets, labels of tokens.
        groups : array-like of shape (n_samples,), default=None
            Handed to the concept method if it asks for them.
        sample_weight : array-like of shape (n_samples,), default=None
            Handed to the concept method, which must take it.

        Returns
        -------
        self : CrossFitTransformer
            Fitted.

        Raises
        ------
        ValueError, TypeError
            If X, y, token_labels, groups and sample_weight do not fit together, as the concept
            method raises it.
        """
        self._validate_params()
        self.estimator_ = _fit(self.estimator, X, y, token_labels, groups, sample_weight)
        return self

    def fit_transform(
        self,
        X: Any,
        y: Any = None,
        token_labels: Any = None,
        *,
        groups: Any = None,
        sample_weight: Any = None,
    ) -> Any:
        """Fit on all rows, and return scores that no row had a part in fitting.

        Parameters
        ----------
        X, y, token_labels : as in the concept method
            Training tokens, targets, labels of tokens.
        groups : array-like of shape (n_samples,), default=None
            Samples that belong together, such as sentences of a document: those of a group are
            scored by a clone that saw none of them, unless ``cv`` cuts without looking at groups.
        sample_weight : array-like of shape (n_samples,), default=None
            Handed to the concept method, which must take it.

        Returns
        -------
        scores : TokenArray of shape (n_samples, n_concepts), or ndarray for a 2-D array
            Out-of-fold scores in the order of X.

        Raises
        ------
        ValueError, TypeError
            As in ``fit``; if a fold leaves a concept out, or the estimator finds units, which
            clones number otherwise.
        """
        self._validate_params()
        _refuse_units(self.estimator)
        rows = np.arange(_num_samples(X))
        folds = make_folds(
            self.cv, y, groups, len(rows), shuffle=self.shuffle, random_state=self.random_state
        )
        if token_labels is not None:
            check_entries("token_labels", token_labels, len(rows))
        if sample_weight is not None:
            sample_weight = check_sample_weight(sample_weight, len(rows))
        data = indexable(X, y, token_labels, groups, sample_weight)
        tested = np.concatenate([test for _, test in folds])
        if not np.array_equal(np.sort(tested), rows):
            raise ValueError("cv must put every sample into exactly one test fold.")
        self.estimator_ = _fit(self.estimator, *data)
        parts = Parallel(n_jobs=self.n_jobs)(
            delayed(_fit_and_transform)(
                self.estimator,
                data,
                train,
                test,
                f"fold {k + 1} of {len(folds)}",
            )
            for k, (train, test) in enumerate(folds)
        )
        ragged = all(isinstance(part, TokenArray) for part in parts)
        joined = TokenArray.concatenate(parts) if ragged else np.concatenate(parts)
        return joined[np.argsort(tested)]

    def transform(self, X: Any) -> Any:
        """Score by the concept method that was fitted on all rows.

        Parameters
        ----------
        X : tokens
            As in the concept method.

        Returns
        -------
        scores : TokenArray of shape (n_samples, n_concepts), or ndarray for a 2-D array
            Scores.

        Raises
        ------
        NotFittedError, ValueError, TypeError
            Before ``fit``, or if X does not fit, as the concept method raises it.
        """
        check_is_fitted(self)
        scores = self.estimator_.transform(X)
        # A matrix is framed as this estimator is told, not as the inner one.
        return scores if isinstance(scores, SampleView) else np.asarray(scores)

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Return the names that the concept method gives its columns.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Handed on.

        Returns
        -------
        names : ndarray of shape (n_features_out,), dtype object
            Names.
        """
        check_is_fitted(self)
        return self.estimator_.get_feature_names_out(input_features)

    @property
    def n_features_in_(self) -> int:
        """Features of a token."""
        check_is_fitted(self)
        return int(self.estimator_.n_features_in_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.input_tags, tags.target_tags = inner.input_tags, inner.target_tags
        return tags


def _refuse_units(estimator: Any) -> None:
    steps = (
        [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]
    )
    for step in steps:
        if isinstance(step, BaseUnits):
            raise ValueError(
                f"{type(step).__name__} finds its units without labels, so a column means another "
                "unit in each fold; put it into the pipeline as it is, or fit it beforehand and "
                "wrap it in FrozenEstimator."
            )


def _fit(estimator: Any, X: Any, y: Any, token_labels: Any, groups: Any, weight: Any) -> Any:
    metadata = {} if token_labels is None else {"token_labels": token_labels}
    if metadata and isinstance(estimator, Pipeline) and not _routing_enabled():
        raise ValueError(
            "token_labels reach the steps of the Pipeline in CrossFitTransformer where metadata is "
            "routed only; say sklearn.set_config(enable_metadata_routing=True) before fit."
        )
    if weight is not None:
        metadata["sample_weight"] = weight
    if groups is not None and consumed(estimator, "fit", ["groups"]):
        metadata["groups"] = groups
    return clone(estimator).fit(X, y, **metadata)


def _fit_and_transform(
    estimator: Any, data: list[Any], train: Array, test: Array, fold: str
) -> Any:
    parts = [None if part is None else _safe_indexing(part, train) for part in data]
    try:
        return _fit(estimator, *parts).transform(_safe_indexing(data[0], test))
    except ValueError as error:
        raise ValueError(f"in {fold} of the cross-fit: {error}") from error
