"""The base classes of concept methods: with labels, and without."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skact.base import TokenTransformer, concept_names
from skact.concepts._callbacks import reporting, with_callbacks
from skact.rows import Array
from skact.targets import Targets, check_more_targets, check_targets, check_token_labels
from skact.tokens import Columns, Source, TokenArray
from skact.validation import check_tokens

__all__ = [
    "BaseConcepts",
    "BaseUnits",
    "StreamingConcepts",
    "StreamingUnits",
    "check_enough_tokens",
    "check_separable",
]


class _Scorer(TokenTransformer):
    """A vector per column, and a score per token and column."""

    _columns: ClassVar[Columns]

    concept_vectors_: Array
    concept_names_: Array
    _known: Targets

    @abstractmethod
    def _score(self, values: Array) -> Array:
        """Score flat tokens: (n_tokens, n_features) to (n_tokens, n_concepts)."""

    def _transform(self, tokens: TokenArray) -> TokenArray:
        return tokens.map(
            self._score,
            feature_names=list(self.concept_names_),
            source=replace(tokens.source or Source(), columns=self._columns),
        )

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Return the names of the columns.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        names : ndarray of shape (n_concepts,), dtype object
            ``concept_names_``.
        """
        check_is_fitted(self)
        return self.concept_names_


class BaseConcepts(_Scorer):
    """A vector per labelled concept, and a score per token and concept.

    ``fit`` checks everything and calls the hook ``_fit_vectors(tokens, labels)``, which returns the
    vectors; ``transform`` calls ``_score(values)`` on flat tokens.

    Attributes
    ----------
    concept_vectors_ : ndarray of shape (n_concepts, n_features)
        Directions of the concepts.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.
    """

    _columns = "concepts"

    # scikit-learn reads this request under its name-mangled form.
    __metadata_request__fit: ClassVar = {"token_labels": True}

    @with_callbacks
    def fit(self, X: Any, y: Any, token_labels: Any = None) -> Self:
        """Learn a vector for each concept.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Training tokens.
        y : array-like of shape (n_samples,) or (n_samples, n_concepts)
            Class labels (two classes: one concept, the larger class; more: one concept a class)
            or an indicator matrix.
        token_labels : TokenArray or list of arrays of bool, default=None
            For each sample (n_tokens, n_concepts). None counts every token of a positive sample.

        Returns
        -------
        self : estimator
            Fitted.

        Raises
        ------
        ValueError
            If X, y and token_labels do not fit together, or a concept has no positive sample or
            token.
        """
        self._validate_params()
        tokens = check_tokens(self, X)
        targets = check_targets(self, y, len(tokens), multiclass=True)
        labels, targets = check_token_labels(token_labels, tokens, targets)
        self._known = targets.without_samples()
        self.concept_names_ = concept_names(targets.names, targets.n_concepts)
        with reporting(self, X, y):
            self.concept_vectors_ = self._fit_vectors(tokens, labels)
        return self

    @abstractmethod
    def _fit_vectors(self, tokens: TokenArray, labels: TokenArray) -> Array:
        """Return the concept vectors (n_concepts, n_features)."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags


class StreamingConcepts(BaseConcepts):
    """Concept vectors that can go on learning from more tokens.

    A subclass writes the hook ``_update(tokens, labels, first)``, which returns the vectors after
    these tokens.
    """

    # scikit-learn reads this request under its name-mangled form.
    __metadata_request__partial_fit: ClassVar = {"token_labels": True}

    def _streams(self) -> bool:
        """Tell whether the parameters allow to go on; if not, there is no ``partial_fit``."""
        return True

    @available_if(lambda self: self._streams())  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: Any, y: Any, token_labels: Any = None, classes: npt.ArrayLike | None = None
    ) -> Self:
        """Go on with more training tokens.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            More training tokens.
        y : array-like of shape (n_samples,) or (n_samples, n_concepts)
            As in ``fit``. Not every concept needs a sample in every call; one that has had none
            yet has a zero vector.
        token_labels : TokenArray or list of arrays of bool, default=None
            As in ``fit``.
        classes : array-like of shape (n_classes,), default=None
            For class labels: all there will be. Read in the first call; None takes those in y.

        Returns
        -------
        self : estimator
            Fitted on all tokens so far.

        Raises
        ------
        ValueError
            If X, y and token_labels do not fit together, or y holds a concept that the first call
            did not.
        """
        self._validate_params()
        first = not hasattr(self, "concept_vectors_")
        tokens = check_tokens(self, X, reset=first)
        known = None if first else self._known
        targets = check_more_targets(self, y, len(tokens), known=known, classes=classes)
        labels, targets = check_token_labels(token_labels, tokens, targets, all_present=False)
        if first:
            self._known = targets.without_samples()
            self.concept_names_ = concept_names(targets.names, targets.n_concepts)
        self.concept_vectors_ = self._update(tokens, labels, first)
        return self

    def _fit_vectors(self, tokens: TokenArray, labels: TokenArray) -> Array:
        return self._update(tokens, labels, True)

    @abstractmethod
    def _update(self, tokens: TokenArray, labels: TokenArray, first: bool) -> Array:
        """Learn from more tokens, or start if they are the first; return the vectors."""


class BaseUnits(_Scorer):
    """Directions that are found without labels, and a score per token and unit.

    ``fit`` checks the tokens and calls the hook ``_fit_vectors(tokens)``, which returns the
    vectors; ``transform`` calls ``_score(values)`` on flat tokens. A detector matches each concept
    with one of the units.

    Attributes
    ----------
    concept_vectors_ : ndarray of shape (n_units, n_features)
        Directions of the units.
    concept_names_ : ndarray of shape (n_units,), dtype object
        The class name with a number.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.
    """

    _columns = "units"

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the units.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Training tokens.
        y : None
            Ignored.

        Returns
        -------
        self : estimator
            Fitted.

        Raises
        ------
        ValueError
            If X is not finite, or does not fit the parameters.
        """
        self._validate_params()
        tokens = check_tokens(self, X)
        with reporting(self, X, y):
            self._set_vectors(self._fit_vectors(tokens))
        return self

    def _set_vectors(self, vectors: Array) -> None:
        self.concept_names_, self.concept_vectors_ = self._names(len(vectors)), vectors

    def _names(self, n_units: int) -> Array:
        prefix = type(self).__name__.lower()
        return np.array([f"{prefix}{k}" for k in range(n_units)], dtype=object)

    @abstractmethod
    def _fit_vectors(self, tokens: TokenArray) -> Array:
        """Return the vectors (n_units, n_features)."""


class StreamingUnits(BaseUnits):
    """Units that can go on learning from more tokens.

    A subclass writes the hook ``_update(tokens, first)``, which returns the vectors after these
    tokens.
    """

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Go on with more training tokens.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            More training tokens.
        y : None
            Ignored.

        Returns
        -------
        self : estimator
            Fitted.

        Raises
        ------
        ValueError
            As in ``fit``, or if X comes from another model or layer than the tokens before.
        """
        self._validate_params()
        first = not hasattr(self, "concept_vectors_")
        tokens = check_tokens(self, X, reset=first)
        self._set_vectors(self._update(tokens, first))
        return self

    @abstractmethod
    def _update(self, tokens: TokenArray, first: bool) -> Array:
        """Learn from more tokens, or start if they are the first; return the vectors."""


def check_separable(counts: Array, n_all: int, names: Array, unit: str, what: str) -> None:
    """Raise a ValueError that names a concept to which every unit, token or sample, belongs."""
    full = np.flatnonzero(counts == n_all)
    if len(full):
        verb = "belongs to" if unit == "token" else "holds"
        raise ValueError(
            f"every {unit} {verb} concept {names[full[0]]!r}; {what} needs {unit}s without it."
        )


def check_enough_tokens(tokens: TokenArray, n_needed: int, what: str) -> None:
    """Raise a ValueError that says ``what`` needs more tokens than there are."""
    if tokens.n_tokens < n_needed:
        raise ValueError(
            f"{what} need at least {n_needed} tokens, got {tokens.n_tokens} "
            f"(n_samples={len(tokens)})."
        )
