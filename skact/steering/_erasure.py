"""Least-squares concept erasure: no linear map can tell the concept afterwards."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from skact.arguments import Number
from skact.concepts import check_separable, labelled_sums, moments
from skact.rows import Array
from skact.steering._edit import STRENGTH, BaseEdit, Labelled
from skact.steering._map import EditMap
from skact.tokens import TokenArray
from skact.warning import warn

__all__ = ["LinearErasure", "eraser", "shrunk"]


def shrunk(covariance: Any, n_tokens: int) -> Any:
    r"""Shrink a covariance towards a ball, by as much as its noise asks for.

    .. math:: \alpha S + (1 - \alpha) \tfrac{\operatorname{tr} S}{d} I, \qquad
        1 - \alpha = \frac{(\operatorname{tr} S)^2 / n}
        {\lVert S \rVert_F^2 - (\operatorname{tr} S)^2 / d}

    (Bodnar, Gupta, Parolya, 2014).

    Parameters
    ----------
    covariance : ndarray of shape (n_features, n_features)
        S, over n.
    n_tokens : int
        n.

    Returns
    -------
    covariance : ndarray of shape (n_features, n_features)
        The shrunk one.
    """
    trace, d, eps = np.trace(covariance), len(covariance), np.finfo(np.float64).eps
    ball = trace / d
    square = d * ball**2
    top = trace**2 * square / n_tokens
    bottom = (covariance**2).sum() * square - (trace * ball) ** 2
    keep = 1 - (top + eps) / (bottom + eps)
    rest = (1 - keep) * (trace * ball + eps) / (square + eps)
    return keep * covariance + rest * ball * np.eye(d)


def eraser(covariance: Array, mixed: Array, tol: float) -> tuple[Array, Array]:
    r"""Find the smallest change that leaves no covariance with the labels.

    .. math:: h' = h - W^{+} U U^\top W (h - \mu), \qquad W = \Sigma^{-1/2}

    with the left singular vectors U of :math:`W \Sigma_{hz}`. The covariance becomes
    :math:`\Sigma - W^{+} U U^\top W^{+}`, so the variance never grows.

    Parameters
    ----------
    covariance : ndarray of shape (n_features, n_features)
        :math:`\Sigma`.
    mixed : ndarray of shape (n_features, n_concepts)
        :math:`\Sigma_{hz}`, covariances with the labels.
    tol : float
        Singular values up to here count as 0.

    Returns
    -------
    reads, writes : ndarray of shape (rank, n_features)
        The change is the product of the second and of what the first read.
    """
    values, vectors = np.linalg.eigh(covariance)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    roots = np.sqrt(np.maximum(values, 0))
    whiten = (vectors * np.where(kept, 1 / np.where(kept, roots, 1), 0)) @ vectors.T
    colour = (vectors * np.where(kept, roots, 0)) @ vectors.T
    left, sizes, _ = np.linalg.svd(whiten @ mixed, full_matrices=False)
    left = left[:, sizes > tol]
    return left.T @ whiten, -(colour @ left).T


class LinearErasure(BaseEdit):
    r"""Erase concepts, so that no linear map of a token can tell them, by the smallest change.

    .. math:: h' = h - a \, W^{+} P \, W (h - \mu), \qquad W = \Sigma^{-1/2}

    with the covariance :math:`\Sigma` and mean :math:`\mu` of all tokens, and the projection P onto
    the columns of :math:`W \Sigma_{hz}`, with z the labels of the tokens [1]_. On the training
    tokens the means of all classes are equal afterwards, so no linear predictor beats a constant
    one. With a strength of 1, doing it again changes nothing.

    Parameters
    ----------
    shrinkage : bool, default=True
        Whether the covariance is shrunk towards a ball, by as much as its noise asks for. The
        concept is erased either way; only what is the smallest change depends on it.
    tol : float, default=0.01
        Singular values of :math:`W \Sigma_{hz}` up to here are noise and stay.
    strength : float, default=1.0
        a, the share that is erased.

    Attributes
    ----------
    mean_ : ndarray of shape (n_features,), dtype float64
        :math:`\mu`.
    reads_, writes_ : ndarray of shape (rank, n_features), dtype float64
        The change of rank ``rank``, see :class:`~skact.steering.EditMap`.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    References
    ----------
    .. [1] Belrose et al., "LEACE: Perfect linear concept erasure in closed form", NeurIPS 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import LinearErasure
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(200) % 2
    >>> X = rng.normal(size=(200, 4)) + y[:, None] * [3, 1, 0, 0]
    >>> Z = LinearErasure().fit(X, y).transform(X)
    >>> bool(np.allclose(Z[y == 1].mean(axis=0), Z[y == 0].mean(axis=0)))
    True
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "shrinkage": ["boolean"],
        "tol": [Number(Real, 0, None, closed="left")],
        "strength": [STRENGTH],
    }

    mean_: Array
    reads_: Array
    writes_: Array

    def __init__(
        self,
        *,
        shrinkage: bool = True,
        tol: float = 0.01,
        strength: float = 1.0,
    ) -> None:
        self.shrinkage = shrinkage
        self.tol = tol
        self.strength = strength

    def _learn(self, tokens: TokenArray, labelled: Labelled) -> None:
        n = tokens.n_tokens
        sums, counts = labelled_sums(tokens, labelled.tokens)
        check_separable(counts, n, labelled.names, "token", "an erasure")
        seen = moments(tokens, with_scatter=True)
        mixed = (sums - counts[:, None] * seen.mean).T / (n - 1)
        scatter: Any = seen.scatter
        covariance = shrunk(scatter / n, n) if self.shrinkage else scatter / (n - 1)
        self.mean_ = seen.mean
        self.reads_, self.writes_ = eraser(covariance, mixed, self.tol)
        if not len(self.reads_):
            warn(
                f"LinearErasure found nothing to erase among {n} tokens: no singular value is "
                f"above tol={self.tol}, so it changes no token. They tell nothing of "
                f"{', '.join(map(str, labelled.names))} linearly, or it is erased already."
            )

    def _map(self, strength: float, unit: None) -> EditMap:
        offset = -self.reads_ @ self.mean_
        return EditMap(np.zeros(len(self.mean_)), self.reads_, offset, strength * self.writes_)
