r"""Logistic regression for many concepts at once, by a preconditioned quasi-Newton method.

All concepts share the tokens, so one pass computes the scores and the gradients of all of them as
two matrix products. The Hessian of concept c is :math:`Z^\top D_c Z + \lambda I` with
:math:`D_c \le \tfrac14 W_c`; the tokens' second moment :math:`M` therefore bounds its shape for
every c. Writing :math:`v = L^{-\top} u` with :math:`L L^\top = \tfrac14 M + \lambda I` makes the
problem nearly round for all concepts, and L-BFGS needs about ten passes instead of dozens.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

from skact.concepts._base import as_floats
from skact.tokens import TokenArray

__all__ = ["balanced_weights", "fit_logistic"]

Array = npt.NDArray[Any]

# Rows, and scores, of a chunk: it fits the cache while its scores are turned into gradients.
_ROWS = 16_384
_SCORES = 2**20


def balanced_weights(n_positive: Array, n_tokens: int) -> tuple[Array, Array]:
    """Weight of each negative and of each positive token, by which both classes count the same.

    Parameters
    ----------
    n_positive : ndarray of shape (n_concepts,)
        Positive tokens of each concept.
    n_tokens : int
        All tokens.

    Returns
    -------
    negative, positive : ndarray of shape (n_concepts,), dtype float64
        Each class sums to 1/2; both are 0 where one of the classes is empty.
    """
    separable = (n_positive > 0) & (n_positive < n_tokens)
    positive = np.where(separable, 0.5 / np.maximum(n_positive, 1), 0)
    negative = np.where(separable, 0.5 / np.maximum(n_tokens - n_positive, 1), 0)
    return negative, positive


def fit_logistic(
    tokens: TokenArray,
    labels: TokenArray | Array,
    class_weight: tuple[Array, Array],
    *,
    l2: float,
    max_iter: int,
) -> tuple[Array, int]:
    r"""Minimise the weighted logistic loss of every concept.

    .. math:: \min_v \sum_i w_{c,i} \log\big(1 + e^{-t_{c,i} \langle z_i, v \rangle}\big)
              + \tfrac{\lambda}{2} \lVert v \rVert^2, \qquad t_{c,i} = \pm 1

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        Tokens; read block by block, about ten times.
    labels : TokenArray of shape (n_samples, n_concepts), or ndarray of shape (n_tokens,)
        Labels of the same tokens: bools, or the number of the one concept that each token belongs
        to, with which no matrix of labels is ever held.
    class_weight : tuple of two ndarrays of shape (n_concepts,)
        Weight of each negative and of each positive token.
    l2 : float
        :math:`\lambda`.
    max_iter : int
        Iterations after which a ConvergenceWarning is given.

    Returns
    -------
    vectors : ndarray of shape (n_concepts, n_features), dtype float64
        The minimiser; unique if ``l2 > 0``.
    n_iter : int
        Iterations.
    """
    n_concepts, n_features = len(class_weight[0]), tokens.n_features
    inverse = _preconditioner(tokens, l2)
    read = _reader(tokens, labels, min(max(_SCORES // n_concepts, 1), _ROWS))

    def objective(flat_u: Array) -> tuple[float, Array]:
        vectors = flat_u.reshape(n_concepts, n_features) @ inverse
        loss = 0.5 * l2 * float(np.vdot(vectors, vectors))
        gradient = l2 * vectors
        for values, marked in read():
            if marked.ndim == 1:
                marked = marked[:, None] == np.arange(n_concepts)
            chunk_loss, slope = _loss_and_slope(
                values @ vectors.T.astype(values.dtype), marked, *class_weight
            )
            loss += chunk_loss
            gradient += slope.T @ values
        return loss, (gradient @ inverse.T).ravel()

    start = np.zeros(n_concepts * n_features)
    result = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iter, "gtol": 1e-5, "ftol": 1e-10},
    )
    if result.status == 1:
        warnings.warn(
            f"the separators did not converge in max_iter={max_iter} iterations.",
            ConvergenceWarning,
            stacklevel=4,
        )
    vectors = result.x.reshape(n_concepts, n_features) @ inverse
    return vectors, max(int(result.nit), 1)


def _reader(
    tokens: TokenArray, labels: TokenArray | Array, n_rows: int
) -> Callable[[], Iterable[tuple[Array, Array]]]:
    """Return what goes through all chunks; tokens that fit in one block are gathered once."""
    samples, _ = next(tokens.blocks())
    if samples == slice(0, len(tokens)):
        held = list(_chunks(tokens, labels, n_rows))
        return lambda: held
    return lambda: _chunks(tokens, labels, n_rows)


def _chunks(
    tokens: TokenArray, labels: TokenArray | Array, n_rows: int
) -> Iterator[tuple[Array, Array]]:
    done = 0
    for samples, values in tokens.blocks():
        if isinstance(labels, TokenArray):
            marked = labels[samples].flat()
        else:
            marked = labels[done : done + len(values)]
        done += len(values)
        for start in range(0, len(values), n_rows):
            rows = slice(start, start + n_rows)
            yield as_floats(values[rows]), marked[rows]


def _preconditioner(tokens: TokenArray, l2: float) -> Array:
    """Inverse of the Cholesky factor; rows u become rows v by ``u @ inverse``."""
    n_features = tokens.n_features
    moment = np.zeros((n_features, n_features))
    for _, block in tokens.blocks():
        values = as_floats(block)
        moment += values.T @ values
    moment /= 4 * tokens.n_tokens
    # Without an L2 term, constant features would make the factor singular.
    ridge = max(l2, 1e-10 * np.trace(moment) / n_features, np.finfo(float).tiny ** 0.5)
    moment.flat[:: n_features + 1] += ridge
    factor = cholesky(moment, lower=True)
    return solve_triangular(factor, np.eye(n_features), lower=True)


def _loss_and_slope(
    scores: Array, marked: Array, negative_weight: Array, positive_weight: Array
) -> tuple[float, Array]:
    """Weighted loss, and its derivative by the scores."""
    margin = np.where(marked, scores, -scores)
    weight = np.where(marked, positive_weight, negative_weight).astype(scores.dtype)
    small = np.exp(-np.abs(margin))
    loss = float(np.vdot(weight, np.log1p(small) + np.maximum(-margin, 0)))
    slope = weight * np.where(margin < 0, 1, small) / (1 + small)
    return loss, np.where(marked, -slope, slope)
