r"""Logistic regression for many concepts at once, by a preconditioned quasi-Newton method.

All concepts share the tokens, so one pass computes the scores and the gradients of all of them as
two matrix products. The Hessian of concept c is :math:`Z^\top D_c Z + \lambda I` with
:math:`D_c \le \tfrac14 W_c`; the tokens' second moment :math:`M` therefore bounds its shape for
every c. Writing :math:`v = L^{-\top} u` with :math:`L L^\top = \tfrac14 M + \lambda I` makes the
problem nearly round for all concepts, and L-BFGS needs about ten passes instead of dozens. Each
concept has its own L-BFGS history and step length, and leaves when it is done, so that no concept
changes the result of another; only the passes are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from numbers import Integral
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from sklearn.exceptions import ConvergenceWarning

from skact.arguments import Number
from skact.concepts._callbacks import Report
from skact.concepts._solver import Problem, Solution, Solver
from skact.concepts._statistics import (
    balanced_weights,
    places_of,
    token_count,
    weight_of_tokens,
    weighted_blocks,
)
from skact.rows import Array, as_floats
from skact.tokens import TokenArray
from skact.warning import warn

__all__ = ["LBFGS", "fit_logistic"]


# Rows, and scores, of a chunk: it fits the cache while its scores are turned into gradients.
_ROWS = 2_048
_SCORES = 2**20

# What the minimum may still lie below the loss found, and the steps that L-BFGS remembers.
_GAP = 1e-9
_MEMORY = 8
# Losses in single precision that differ by less, relatively, cannot be told apart.
_FLAT = 1e-7

_Chunk = tuple[Array, tuple[Array, Array], Array | None]


class LBFGS(Solver):
    """Solver of :class:`LinearSeparator`: the minimum, by a preconditioned L-BFGS.

    Deterministic, and the same for each concept whatever the others are. Reads the tokens some
    dozen times, from end to end.

    Parameters
    ----------
    max_iter : int, default=200
        Iterations after which a ConvergenceWarning is given.

    Examples
    --------
    >>> from skact import LBFGS, LinearSeparator
    >>> LinearSeparator(LBFGS(max_iter=20)).get_params()["solver__max_iter"]
    20
    """

    weighs = True

    _parameter_constraints: dict[str, list[Any]] = {
        "max_iter": [Number(Integral, 1, None, closed="left")],
    }

    def __init__(self, max_iter: int = 200) -> None:
        self.max_iter = max_iter

    @property
    def limit(self) -> int:
        """Most iterations."""
        return self.max_iter

    def _solve(
        self, problem: Problem, random: np.random.RandomState, report: Report | None, state: Any
    ) -> Solution:
        n_tokens = token_count(problem.tokens, problem.weight)
        even = np.ones(len(problem.n_positive))
        weight = (even / n_tokens, even / n_tokens)
        if problem.balance is not None:
            weight = balanced_weights(problem.n_positive, n_tokens)
        return Solution(
            *fit_logistic(
                problem.tokens,
                problem.labels,
                weight,
                l2=problem.weight_decay,
                max_iter=self.max_iter,
                report=report,
                sample_weight=problem.weight,
            )
        )


def fit_logistic(
    tokens: TokenArray,
    labels: TokenArray | Array,
    class_weight: tuple[Array, Array],
    *,
    l2: float,
    max_iter: int,
    report: Report | None = None,
    sample_weight: Array | None = None,
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
    report : callable, default=None
        Called after each iteration with what gives the vectors; tells whether to stop.
    sample_weight : ndarray of shape (n_samples,), default=None
        How often each sample counts; None once.

    Returns
    -------
    vectors : ndarray of shape (n_concepts, n_features), dtype float64
        The minimiser; unique if ``l2 > 0``.
    n_iter : int
        Iterations.
    """
    n_concepts, n_features = len(class_weight[0]), tokens.n_features
    inverse = _preconditioner(tokens, l2, sample_weight)
    read = _reader(tokens, labels, sample_weight, min(max(_SCORES // n_concepts, 1), _ROWS))

    def objective(u: Array, concepts: Array) -> tuple[Array, Array]:
        """Loss (n,) and gradient (n, n_features) by u of some concepts."""
        vectors = u @ inverse
        loss = 0.5 * l2 * np.einsum("cd,cd->c", vectors, vectors)
        gradient = l2 * vectors
        place = np.full(n_concepts, -1)
        place[concepts] = np.arange(len(concepts))
        negative, positive = (part[concepts] for part in class_weight)
        for values, (row, concept), times in read():
            kept = place[concept] >= 0
            marked = place[concept[kept]], row[kept]
            scores = vectors.astype(values.dtype) @ values.T
            loss += _loss_to_slope(scores, marked, negative, positive, times)
            gradient += scores @ values
        return loss, gradient @ inverse.T

    def stop(u: Array) -> bool:
        return report is not None and report(lambda: u @ inverse)

    start = np.zeros((n_concepts, n_features))
    u, n_iter, converged = _minimise(objective, start, max_iter, stop)
    if not converged:
        warn(
            f"the separators did not converge in max_iter={max_iter} iterations.",
            ConvergenceWarning,
        )
    return u @ inverse, n_iter


def _minimise(
    objective: Callable[[Array, Array], tuple[Array, Array]],
    start: Array,
    max_iter: int,
    stop: Callable[[Array], bool],
) -> tuple[Array, int, bool]:
    r"""Minimise many convex functions at once, each by its own L-BFGS.

    A function is done when its L-BFGS model puts its minimum less than ``_GAP`` lower. At a point
    with gradient g from which the step is p, that is :math:`-\tfrac12 \langle g, p \rangle`. It is
    also done when a step of which rounding leaves nothing, or a very short one, brings no less.

    Parameters
    ----------
    objective : callable
        Values and gradients at points (n, n_features) of the functions with numbers (n,).
    start : ndarray of shape (n_functions, n_features)
        First points.
    max_iter : int
        Most calls of ``objective`` after the first one.
    stop : callable
        Called with the points after each of them; tells whether to give up.

    Returns
    -------
    points : ndarray of shape (n_functions, n_features)
        Minimisers.
    n_iter : int
        Calls of ``objective`` after the first one, at least 1.
    converged : bool
        Whether all are done.
    """
    points: Array = start.copy()
    active: Array = np.arange(len(start))
    loss, gradient = objective(points, active)
    step = -gradient
    size: Array = np.ones(len(start))
    flat: Array = np.zeros(len(start), bool)
    history: list[tuple[Array, Array, Array]] = []
    for n_iter in range(max_iter + 1):
        slope = _dots(gradient, step)
        going = (slope < -2 * _GAP) & ~flat
        if not going.all():
            active, loss, gradient, step, size, slope = (
                part[going] for part in (active, loss, gradient, step, size, slope)
            )
            history = [(s[going], y[going], sy[going]) for s, y, sy in history]
        if not len(active) or n_iter == max_iter:
            break
        moved = size[:, None] * step
        new_loss, new_gradient = objective(points[active] + moved, active)
        good = new_loss <= loss + 1e-4 * size * slope + _FLAT * loss
        flat = (new_loss >= loss) & ((slope > -0.2 * _FLAT * loss) | (size < 1e-3))
        moved[~good] = 0
        points[active] += moved
        change = np.where(good[:, None], new_gradient - gradient, 0)
        history = [*history[-_MEMORY + 1 :], (moved, change, _dots(moved, change))]
        loss, gradient = np.where(good, new_loss, loss), gradient + change
        size = np.where(good, 1, size / 2)
        step = np.where(good[:, None], _lbfgs_step(gradient, history), step)
        if stop(points):
            return points, n_iter + 1, True
    return points, max(n_iter, 1), not len(active)


def _dots(a: Array, b: Array) -> Array:
    return np.einsum("cd,cd->c", a, b)


def _lbfgs_step(gradient: Array, history: list[tuple[Array, Array, Array]]) -> Array:
    """Step by the two-loop recursion; pairs without curvature say nothing."""
    step, shares = -gradient, []
    inverses = [np.divide(1, sy, out=np.zeros_like(sy), where=sy > 0) for *_, sy in history]
    for (s, y, _), inverse in zip(reversed(history), reversed(inverses), strict=True):
        shares.append(inverse * _dots(s, step))
        step -= shares[-1][:, None] * y
    scale = np.ones(len(gradient))
    for _, y, sy in history:
        scale = np.where(sy > 0, sy / np.maximum(_dots(y, y), np.finfo(float).tiny), scale)
    step *= scale[:, None]
    for (s, y, _), inverse, share in zip(history, inverses, reversed(shares), strict=True):
        step += (share - inverse * _dots(y, step))[:, None] * s
    return step


def _reader(
    tokens: TokenArray, labels: TokenArray | Array, weight: Array | None, n_rows: int
) -> Callable[[], Iterable[_Chunk]]:
    """Return what goes through all chunks; tokens that may be held are gathered once."""
    if tokens.may_be_held:
        held = list(_chunks(tokens, labels, weight, n_rows))
        return lambda: held
    return lambda: _chunks(tokens, labels, weight, n_rows)


def _chunks(
    tokens: TokenArray, labels: TokenArray | Array, weight: Array | None, n_rows: int
) -> Iterator[_Chunk]:
    """Yield values, the row and the concept of each of their labels, and the weights of tokens."""
    done = 0
    for samples, values in tokens.blocks():
        times = weight_of_tokens(tokens, weight, samples)
        if isinstance(labels, TokenArray):
            marked = labels[samples].flat()
        else:
            marked = labels[done : done + len(values)]
        done += len(values)
        for start in range(0, len(values), n_rows):
            rows = slice(start, start + n_rows)
            part = marked[rows]
            row, concept = places_of(part) if part.ndim == 2 else (np.arange(len(part)), part)
            yield as_floats(values[rows]), (row, concept), None if times is None else times[rows]


def _preconditioner(tokens: TokenArray, l2: float, weight: Array | None) -> Array:
    """Inverse of the Cholesky factor; rows u become rows v by ``u @ inverse``."""
    n_features = tokens.n_features
    moment = np.zeros((n_features, n_features))
    for times, block in weighted_blocks(tokens, weight):
        values = as_floats(block)
        again = values if times is None else values * times[:, None].astype(values.dtype)
        moment += values.T @ again
    moment /= 4 * token_count(tokens, weight)
    energy, diagonal = np.trace(moment), moment.diagonal().copy()
    # Without an L2 term, constant features would make the factor singular.
    ridge = max(l2, 1e-10 * energy / n_features, np.finfo(float).tiny ** 0.5)
    while True:
        moment.flat[:: n_features + 1] = diagonal + ridge
        try:
            factor = cholesky(moment, lower=True)
            break
        except LinAlgError:  # of few long tokens, what single precision rounds is more than that
            if ridge > energy:
                raise
            ridge = max(10 * ridge, np.finfo(np.float32).eps * energy / n_features)
    return solve_triangular(factor, np.eye(n_features), lower=True)


def _loss_to_slope(
    scores: Array,
    marked: tuple[Array, Array],
    negative_weight: Array,
    positive_weight: Array,
    times: Array | None,
) -> Array:
    """Weighted loss of each row of scores, which become its derivative by them."""
    loss = np.abs(scores)
    np.exp(np.negative(loss, out=loss), out=loss)
    np.log1p(loss, out=loss)
    loss += np.maximum(scores, 0)
    # That was log(1 + exp(s)), the loss of a negative; of a positive it is less by s.
    negatives = loss.sum(axis=1) if times is None else loss @ times
    at, own = loss[marked], scores[marked]
    n_concepts = len(scores)
    if times is not None:
        at, own = at * times[marked[1]], own * times[marked[1]]
    negatives = negatives - np.bincount(marked[0], at, n_concepts)
    positives = np.bincount(marked[0], at - own, n_concepts)
    scores -= loss
    np.exp(scores, out=scores)
    likely = scores[marked]
    scores *= negative_weight[:, None].astype(scores.dtype)
    scores[marked] = (likely - 1) * positive_weight[marked[0]]
    if times is not None:
        scores *= times.astype(scores.dtype)
    return negative_weight * negatives + positive_weight * positives
