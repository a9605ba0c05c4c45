"""Principal components: units are the directions in which tokens vary most."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from scipy.linalg import eigh
from sklearn.utils.validation import check_is_fitted

from skact.arguments import Number
from skact.concepts._base import BaseUnits, check_enough_tokens
from skact.concepts._reconstruction import ReconstructionMixin
from skact.concepts._statistics import scatter, token_mean, weighted_blocks
from skact.rows import Array, as_floats
from skact.tokens import TokenArray

__all__ = ["PCAConcepts"]


class PCAConcepts(ReconstructionMixin, BaseUnits):
    r"""A unit is a direction of largest variance of the tokens; a token is scored along it.

    .. math:: v_k = \arg\max_{\lVert v \rVert = 1,\; v \perp v_1, \dots, v_{k-1}}
              \sum_i \langle z_i - \bar z, v \rangle^2, \qquad
              s_k(z) = \langle z - \bar z, v_k \rangle

    the eigenvectors of the covariance of all training tokens [1]_, which is summed block by block
    in float64. The entry of each vector that is largest in size is positive.

    Parameters
    ----------
    n_concepts : int, default=None
        Components; None keeps as many as there can be, the smaller number of tokens and features.

    Attributes
    ----------
    concept_vectors_ : ndarray of shape (n_concepts, n_features), dtype float64
        The components, of length 1 and orthogonal, by falling variance.
    mean_ : ndarray of shape (n_features,), dtype float64
        Mean of the training tokens.
    explained_variance_ : ndarray of shape (n_concepts,), dtype float64
        Variance of the scores of each component, with n_tokens - 1 degrees of freedom.
    explained_variance_ratio_ : ndarray of shape (n_concepts,), dtype float64
        Its share of the variance of all features; 0 if nothing varies.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        The class name with a number.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    References
    ----------
    .. [1] Jolliffe, "Principal Component Analysis", 2nd edition, 2002.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import PCAConcepts
    >>> X = np.array([[0.0, 0.0], [2.0, 2.0], [4.0, 4.0], [6.0, 6.0]])
    >>> method = PCAConcepts(n_concepts=1).fit(X)
    >>> method.concept_vectors_.round(3), method.explained_variance_ratio_.round(3)
    (array([[0.707, 0.707]]), array([1.]))
    >>> method.inverse_transform(method.transform(X)).round(3)[1]
    array([2., 2.])
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "n_concepts": [Number(Integral, 1, None, closed="left"), None],
    }

    mean_: Array
    explained_variance_: Array
    explained_variance_ratio_: Array

    def __init__(self, n_concepts: int | None = None) -> None:
        self.n_concepts = n_concepts

    def _fit_vectors(self, tokens: TokenArray) -> Array:
        check_enough_tokens(tokens, 2, "principal components")
        n_features = tokens.n_features
        n_concepts = self.n_concepts
        if n_concepts is None:
            n_concepts = min(tokens.n_tokens, n_features)
        check_enough_tokens(tokens, n_concepts, f"n_concepts={n_concepts} components")
        if n_concepts > n_features:
            raise ValueError(
                f"n_concepts={n_concepts} components need at least as many features, got "
                f"n_features={n_features}."
            )
        self.mean_ = token_mean(tokens)
        covariance = scatter(weighted_blocks(tokens, None), self.mean_)
        covariance /= tokens.n_tokens - 1
        variances, vectors = eigh(
            covariance, subset_by_index=[n_features - n_concepts, n_features - 1]
        )
        vectors = vectors.T[::-1]
        largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
        # Rounding can leave the variance of a constant direction below zero.
        self.explained_variance_ = np.maximum(variances[::-1], 0)
        total = np.trace(covariance)
        self.explained_variance_ratio_ = self.explained_variance_ / (total if total > 0 else 1)
        return vectors * np.sign(largest)

    def _score(self, values: Array) -> Array:
        values = as_floats(values)
        centred = values - self.mean_.astype(values.dtype)
        return centred @ self.concept_vectors_.T.astype(values.dtype)

    def affine_map(self) -> tuple[Array, Array]:
        """Give scores as an affine function of a token: ``weights @ token + bias``.

        Returns
        -------
        weights : ndarray of shape (n_concepts, n_features), dtype float64
            The components.
        bias : ndarray of shape (n_concepts,), dtype float64
            What the mean scores, with a minus.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        """
        check_is_fitted(self)
        weights = self.concept_vectors_.astype(np.float64)
        return weights, -weights @ self.mean_

    def _reconstruct(self, scores: Array) -> Array:
        scores = as_floats(scores)
        return scores @ self.concept_vectors_.astype(scores.dtype) + self.mean_.astype(scores.dtype)
