"""Concept vectors without what they share with those of other concepts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from numbers import Real
from typing import Any, Self

import numpy as np
from sklearn.base import MetaEstimatorMixin, clone
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skact.arguments import Number, instance
from skact.concepts._base import BaseConcepts
from skact.rows import Array
from skact.tokens import TokenArray
from skact.validation import check_tokens
from skact.warning import warn

__all__ = ["IsolatedConcepts", "isolated"]


def isolated(vectors: Array, rho: float) -> Array:
    """Take out of each vector what lies in the span of the others.

    Parameters
    ----------
    vectors : ndarray of shape (n_concepts, n_features)
        Concept vectors.
    rho : float
        Share of the energy along the others that goes, in [0, 1].

    Returns
    -------
    vectors : ndarray of shape (n_concepts, n_features), dtype float64
        The rest of each.
    """
    vectors = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.where(lengths > 0, lengths, 1)
    out = vectors.copy()
    for c, vector in enumerate(vectors):
        _, sizes, axes = np.linalg.svd(np.delete(units, c, axis=0), full_matrices=False)
        axes = axes[sizes > sizes.max(initial=0) * max(units.shape) * np.finfo(np.float64).eps]
        out[c] -= (1 - np.sqrt(1 - rho)) * (axes.T @ (axes @ vector))
    return out


class IsolatedConcepts(MetaEstimatorMixin, BaseConcepts):
    r"""Any concept method, with vectors from which those of the other concepts are taken out.

    Concepts that occur together have vectors that share directions. With t the vector of a concept,
    the rows of R those of all others, each divided by its length, and
    :math:`C = R^\top R / n + \lambda I = L L^\top`, the isolated vector is [1]_

    .. math:: t' = L\,\big(\tilde t - (1 - \sqrt{1 - \rho})\, Q Q^\top \tilde t\big), \qquad
              \tilde t = L^{-1} t,

    with Q an orthonormal basis of the columns of :math:`L^{-1} R^\top`: the energy of
    :math:`\tilde t` along the others falls to the share :math:`1 - \rho`. The span of the rows of R
    is one of eigenvectors of C, so whitening does not move it, and this is

    .. math:: t' = t - (1 - \sqrt{1 - \rho})\, P t

    with P the projection onto that span, which is how it is computed, without :math:`\lambda`.
    Tokens are scored with these vectors as the method does with its own.

    Parameters
    ----------
    estimator : concept method
        One with labels, such as ``DifferenceInMeans()``; it is cloned.
    rho : float, default=0.9
        Share of the energy along the others that is taken out: 0 changes nothing, 1 makes each
        vector orthogonal to those of the others as they were.

    Attributes
    ----------
    concept_vectors_ : ndarray of shape (n_concepts, n_features), dtype float64
        The isolated vectors.
    method_ : concept method
        The clone, fitted, with the isolated vectors in place of its own.
    shared_ : ndarray of shape (n_concepts,), dtype float64
        Share of the squared length of each vector that lay along the others before.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    Warns
    -----
    UserWarning
        If a vector lies wholly in the span of the others, so that nothing of it is its own.

    References
    ----------
    .. [1] Siu, Henry, Crispino, Liu, Song, Wang, "RepIt: Representing Isolated Targets to Steer
       Language Models", 2025, section on isolating vectors.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import DifferenceInMeans, IsolatedConcepts
    >>> X, y = np.eye(4), np.array([[1, 1], [0, 1], [0, 0], [0, 0]])
    >>> method = IsolatedConcepts(DifferenceInMeans(), rho=1).fit(X, y)
    >>> first, second = DifferenceInMeans().fit(X, y).concept_vectors_
    >>> bool(abs(method.concept_vectors_[0] @ second) < 1e-12)
    True
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "estimator": [instance("a labelled concept method, as MeanPrototype()", BaseConcepts)],
        "rho": [Number(Real, 0, 1, closed="both")],
    }

    method_: Any
    shared_: Array

    def __init__(self, estimator: Any, rho: float = 0.9) -> None:
        self.estimator = estimator
        self.rho = rho

    def fit(self, X: Any, y: Any, token_labels: Any = None, sample_weight: Any = None) -> Self:
        """Fit the method, and isolate its vectors.

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
            How often each sample counts; the method must take it.

        Returns
        -------
        self : IsolatedConcepts
            Fitted.

        Raises
        ------
        ValueError
            Whatever the method raises.
        """
        self._validate_params()
        check_tokens(self, X)
        given = {"token_labels": token_labels, "sample_weight": sample_weight}
        given = {name: value for name, value in given.items() if value is not None}
        self.method_ = clone(self.estimator).fit(X, y, **given)
        self.concept_names_ = self.method_.concept_names_
        vectors = np.asarray(self.method_.concept_vectors_, np.float64)
        energy = (vectors**2).sum(axis=1)
        own = (isolated(vectors, 1.0) ** 2).sum(axis=1)
        self.shared_ = 1 - np.divide(own, energy, out=np.ones_like(own), where=energy > 0)
        whole = self.concept_names_[self.shared_ > 1 - 1e-10]
        if len(whole):
            warn(
                f"the vectors of {len(whole)} of {len(vectors)} concepts (first {whole[0]!r}) lie "
                "in the span of the others, so nothing of them is their own."
            )
        self.concept_vectors_ = isolated(vectors, self.rho)
        self.method_.concept_vectors_ = self.concept_vectors_
        return self

    @available_if(lambda self: hasattr(self.estimator, "affine_map"))  # type: ignore[untyped-decorator]
    def affine_map(self) -> tuple[Array, Array]:
        """Give scores as an affine function of a token: ``weights @ token + bias``.

        There is none where the method has none.

        Returns
        -------
        weights : ndarray of shape (n_concepts, n_features), dtype float64
            As of the method, of isolated vectors.
        bias : ndarray of shape (n_concepts,), dtype float64
            As of the method.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        """
        check_is_fitted(self)
        weights, bias = self.method_.affine_map()
        return weights, bias

    def _fit_vectors(self, tokens: TokenArray, labels: TokenArray, weight: Array | None) -> Array:
        raise NotImplementedError  # fit is written anew

    def _score(self, values: Array) -> Array:
        return self.method_._score(values)

    def _function(self) -> Callable[[Array], Array]:
        return copy.copy(self.method_)._function()
