"""Concept methods that can go on learning, as mixins beside their base class."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy.typing as npt
from sklearn.utils.metaestimators import available_if

from skact.base import concept_names
from skact.rows import Array
from skact.targets import Targets, check_more_targets, check_token_labels
from skact.tokens import Labels, TokenArray
from skact.validation import check_tokens, weighted_samples

__all__ = ["StreamingConceptsMixin", "StreamingUnitsMixin"]


class StreamingConceptsMixin:
    """Concept vectors that can go on learning from more tokens; stands beside ``BaseConcepts``.

    A subclass writes the hook ``_update(tokens, labels, first, weight)``, which returns the vectors
    after these tokens.
    """

    concept_vectors_: Array
    concept_names_: Array
    _known: Targets
    _labels: Labels | None
    _validate_params: Callable[[], None]

    # scikit-learn reads this request under its name-mangled form.
    __metadata_request__partial_fit: ClassVar = {"token_labels": True}

    def _streams(self) -> bool:
        """Tell whether the parameters allow to go on; if not, there is no ``partial_fit``."""
        return True

    @available_if(lambda self: self._streams())  # type: ignore[untyped-decorator]
    def partial_fit(
        self,
        X: Any,
        y: Any,
        token_labels: Any = None,
        classes: npt.ArrayLike | None = None,
        sample_weight: Any = None,
    ) -> Self:
        """Go on with more training tokens.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            More training tokens.
        y : array-like of shape (n_samples,) or (n_samples, n_concepts)
            As in ``fit``. Not every concept needs a sample in every call; one that has had none
            yet has a zero vector, where others are needed also one that has had nothing else.
        token_labels : TokenArray or list of arrays of bool, default=None
            As in ``fit``.
        classes : array-like of shape (n_classes,), default=None
            For class labels: all there will be. Read in the first call; None takes those in y.
        sample_weight : array-like of shape (n_samples,), default=None
            As in ``fit``; those of a call that average less than 1 are scaled to an average of 1.

        Returns
        -------
        self : estimator
            Fitted on all tokens so far.

        Raises
        ------
        ValueError
            If X, y, token_labels and sample_weight do not fit together, or y holds a concept that
            the first call did not.
        """
        self._validate_params()
        first = not hasattr(self, "concept_vectors_")
        tokens, (y, token_labels), weight = weighted_samples(
            sample_weight, check_tokens(self, X, reset=first), y=y, token_labels=token_labels
        )
        known = None if first else self._known
        targets = check_more_targets(self, y, len(tokens), known=known, classes=classes)
        labels, targets = check_token_labels(token_labels, tokens, targets, all_present=False)
        if first:
            self._known = targets.without_samples()
            self._labels = "samples" if token_labels is None else "tokens"
            self.concept_names_ = concept_names(targets.names, targets.n_concepts)
        self.concept_vectors_ = self._update(tokens, labels, first, weight)
        return self

    def _fit_vectors(self, tokens: TokenArray, labels: TokenArray, weight: Array | None) -> Array:
        return self._update(tokens, labels, True, weight)

    @abstractmethod
    def _update(
        self, tokens: TokenArray, labels: TokenArray, first: bool, weight: Array | None
    ) -> Array:
        """Learn from more tokens, or start if they are the first; return the vectors."""


class StreamingUnitsMixin:
    """Units that can go on learning from more tokens; stands beside ``BaseUnits``.

    A subclass writes the hook ``_update(tokens, first)``, which returns the vectors after these
    tokens.
    """

    _set_vectors: Callable[[Array], None]
    _validate_params: Callable[[], None]

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
