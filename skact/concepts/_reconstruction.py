"""What units share whose scores can be turned back into tokens."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

from sklearn.utils.validation import check_is_fitted

from skact.rows import Array
from skact.tokens import TokenArray
from skact.validation import check_outputs, like_input

__all__ = ["ReconstructionMixin"]


class ReconstructionMixin:
    """Units whose scores add up to tokens; stands beside ``BaseUnits``.

    A subclass writes the hook ``_reconstruct(scores)``.
    """

    concept_vectors_: Array

    def inverse_transform(self, X: Any) -> TokenArray | Array:
        """Turn scores back into tokens.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Scores with a column per unit.

        Returns
        -------
        tokens : TokenArray of shape (n_samples, n_features), or ndarray for a 2-D array
            The reconstructed tokens.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has another number of columns than there are units, or is not finite.
        """
        check_is_fitted(self)
        scores = check_outputs(self, X, len(self.concept_vectors_))
        source = None if scores.source is None else replace(scores.source, columns="features")
        return like_input(X, scores.map(self._reconstruct, source=source))

    @abstractmethod
    def _reconstruct(self, scores: Array) -> Array:
        """Turn flat scores into tokens: (n_tokens, n_units) to (n_tokens, n_features)."""
