"""The base classes of concept methods: with labels, and without."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skact.base import ConceptNamesOutMixin, TokenTransformer, concept_names
from skact.concepts._callbacks import reporting, with_callbacks
from skact.concepts._statistics import products
from skact.rows import Array
from skact.targets import Targets, check_targets, check_token_labels
from skact.tokens import Columns, Labels, Source, TokenArray
from skact.validation import check_tokens, weighted_samples

__all__ = [
    "BaseConcepts",
    "BaseUnits",
    "ProductsMixin",
    "check_enough_tokens",
    "check_separable",
]


class ScoresMixin(ConceptNamesOutMixin):
    """A vector per column, and a score per token and column.

    Stands beside :class:`skact.base.TokenTransformer`, whose hook ``_transform`` it fills.
    """

    _columns: ClassVar[Columns]
    _labels: Labels | None = None

    concept_vectors_: Array
    concept_names_: Array

    @abstractmethod
    def _score(self, values: Array) -> Array:
        """Score flat tokens: (n_tokens, n_features) to (n_tokens, n_concepts)."""

    def _transform(self, tokens: TokenArray) -> TokenArray:
        return tokens.map(
            self._score,
            feature_names=list(self.concept_names_),
            source=replace(tokens.source or Source(), columns=self._columns, labels=self._labels),
        )

    def _function(self) -> Callable[[Array], Array]:
        frozen = copy.copy(self)
        frozen.concept_vectors_ = self.concept_vectors_.astype(np.float32)
        return frozen._score


class ProductsMixin:
    """Scores that are inner products with the vectors."""

    concept_vectors_: Array

    def _score(self, values: Array) -> Array:
        return products(values, self.concept_vectors_)

    def affine_map(self) -> tuple[Array, Array]:
        """Give scores as an affine function of a token: ``weights @ token + bias``.

        Returns
        -------
        weights : ndarray of shape (n_concepts, n_features), dtype float64
            The vectors.
        bias : ndarray of shape (n_concepts,), dtype float64
            Zeros.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        """
        check_is_fitted(self)
        return self.concept_vectors_.astype(np.float64), np.zeros(len(self.concept_vectors_))


class BaseConcepts(ScoresMixin, TokenTransformer):
    """A vector per labelled concept, and a score per token and concept.

    ``fit`` checks everything and calls the hook ``_fit_vectors(tokens, labels, weight)``, which
    returns the vectors; ``transform`` calls ``_score(values)`` on flat tokens.

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
    _known: Targets

    # scikit-learn reads this request under its name-mangled form.
    __metadata_request__fit: ClassVar = {"token_labels": True}

    @with_callbacks
    def fit(self, X: Any, y: Any, token_labels: Any = None, sample_weight: Any = None) -> Self:
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
        sample_weight : array-like of shape (n_samples,), default=None
            How often each sample counts, with all of its tokens: a weight of 2 is that of a sample
            that is there twice, one of 0 leaves it out.

        Returns
        -------
        self : estimator
            Fitted.

        Raises
        ------
        ValueError
            If X, y, token_labels and sample_weight do not fit together, or a concept has no
            positive sample or token.
        """
        self._validate_params()
        tokens, (y, token_labels), weight = weighted_samples(
            sample_weight, check_tokens(self, X), y=y, token_labels=token_labels
        )
        targets = check_targets(self, y, len(tokens))
        labels, targets = check_token_labels(token_labels, tokens, targets)
        self._known = targets.without_samples()
        self._labels = "samples" if token_labels is None else "tokens"
        self.concept_names_ = concept_names(targets.names, targets.n_concepts)
        with reporting(self, X, y):
            self.concept_vectors_ = self._fit_vectors(tokens, labels, weight)
        return self

    @abstractmethod
    def _fit_vectors(self, tokens: TokenArray, labels: TokenArray, weight: Array | None) -> Array:
        """Return the concept vectors (n_concepts, n_features).

        The weight (n_samples,) says how often a sample counts; None once.
        """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags


class BaseUnits(ScoresMixin, TokenTransformer):
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
