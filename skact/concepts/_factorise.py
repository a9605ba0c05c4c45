r"""Matrix factorisations as functions on tokens.

Tokens are written as :math:`X \approx W H` with :math:`W \ge 0`. Given ``H``, each token has a
small convex problem of its own (:func:`activations`). ``H`` itself is found by scikit-learn's
minibatches where it must not be negative (:func:`nmf_in_blocks`), else by improving ``W`` and
solving for ``H`` in turn (:func:`semi_nmf`). All read tokens block by block.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from scipy.optimize import nnls
from sklearn.decomposition import MiniBatchNMF
from sklearn.exceptions import ConvergenceWarning

from skact.concepts._lloyd import kmeans
from skact.concepts._statistics import shuffled_runs
from skact.rows import Array, as_floats
from skact.tokens import TokenArray
from skact.warning import warn

__all__ = [
    "BATCH",
    "activations",
    "first_parts",
    "nmf_in_blocks",
    "reconstruction_error",
    "semi_nmf",
    "some_tokens",
    "train_nmf",
    "warn_not_converged",
]

# Rows of a minibatch of NMF.
BATCH = 1024
# Entries of the systems that are solved at once, and how often they are exchanged.
_ENTRIES = 2**22
_EXCHANGES = 50
# How often an iteration of semi-NMF goes through the parts: a sweep costs less than reading tokens.
_SWEEPS = 3
# Tokens that semi-NMF begins with, at least, and of each part.
_DRAWN, _DRAWN_PER_PART = 2**13, 2**5


def activations(values: Array, parts: Array) -> Array:
    r"""Solve :math:`\min_{w \ge 0} \lVert z - w H \rVert^2` for each token.

    By exchanging sets, for many tokens at once: with the set of parts that a token holds, its
    activations solve a linear system; parts that come out negative leave the set, and those by
    which the loss would fall enter it, until there are none. A token for which that goes round in
    circles is solved by :func:`scipy.optimize.nnls`.

    Parameters
    ----------
    values : ndarray of shape (n_tokens, n_features)
        Tokens z.
    parts : ndarray of shape (n_concepts, n_features)
        H; a row of zeros gets no activation.

    Returns
    -------
    activations : ndarray of shape (n_tokens, n_concepts), dtype float64
        The minimisers; nearly the shortest of them if the parts are linearly dependent.
    """
    parts = parts.astype(np.float64)
    lengths = np.linalg.norm(parts, axis=1)
    # With parts of length 1 the activations of all parts are in the same unit, that of the tokens.
    used = np.flatnonzero(lengths)
    units = parts[used] / lengths[used, None]
    gram = units @ units.T
    out = np.zeros((len(values), len(parts)))
    n_rows = max(_ENTRIES // max(len(used), 1) ** 2, 1)
    for start in range(0, len(values) if len(used) else 0, n_rows):
        rows = slice(start, start + n_rows)
        tokens = values[rows].astype(np.float64)
        solved, is_open = _exchange(tokens @ units.T, gram)
        for i in np.flatnonzero(is_open):
            solved[i] = nnls(units.T, tokens[i], maxiter=100 * len(units))[0]
        out[rows, used] = solved / lengths[used]
    return out


def _exchange(target: Array, gram: Array) -> tuple[Array, Array]:
    """Activations (n_tokens, n_units) by exchanging sets, and for which tokens they are wrong."""
    diagonal = np.eye(len(gram))
    if np.linalg.eigvalsh(gram)[0] < 1e-10:  # of many solutions the shortest
        gram = gram + 1e-8 * diagonal
    result, slack = np.zeros_like(target), 1e-10 * np.abs(target).max(axis=1, initial=0)
    held = target > 0
    left = np.flatnonzero(held.any(axis=1))
    for _ in range(_EXCHANGES):
        if not len(left):
            break
        own, wanted = held[left], target[left]
        system = np.where(own[:, :, None] & own[:, None, :], gram, diagonal)
        found = np.linalg.solve(system, np.where(own, wanted, 0)[..., None])[..., 0]
        change = np.where(own, found, found @ gram - wanted) < -slack[left, None]
        result[left] = np.maximum(found, 0)
        held[left] = own ^ change
        left = left[change.any(axis=1)]
    return result, np.isin(np.arange(len(target)), left)


def nmf_in_blocks(
    method: MiniBatchNMF,
    tokens: TokenArray,
    random: np.random.RandomState,
    *,
    tol: float,
    max_iter: int,
) -> tuple[Array, int]:
    """Factorise non-negative tokens in passes of minibatches.

    Parameters
    ----------
    method : MiniBatchNMF
        Not fitted; trained here.
    tokens : TokenArray of shape (n_samples, n_features)
        Tokens.
    random : RandomState
        Draws the order of each pass.
    tol : float
        Change of the parts in a pass, relative to their size, at which they have converged.
    max_iter : int
        Passes after which a ConvergenceWarning is given, unless ``tol=0``.

    Returns
    -------
    parts : ndarray of shape (n_concepts, n_features), dtype float64
        H.
    n_iter : int
        Passes.
    """
    n_iter, change = 0, np.inf
    while change > tol and n_iter < max_iter:
        before = getattr(method, "components_", np.zeros(1)).copy()
        train_nmf(method, tokens[shuffled_runs(tokens, random)])
        n_iter += 1
        moved = float(np.linalg.norm(method.components_ - before))
        change = moved / max(float(np.linalg.norm(method.components_)), np.finfo(float).tiny)
    if change > tol > 0:
        warn_not_converged(max_iter, "passes")
    return method.components_.astype(np.float64), n_iter


def warn_not_converged(max_iter: int, rounds: str) -> None:
    """Warn that a factorisation ended before it converged."""
    warn(f"the factorisation did not converge in max_iter={max_iter} {rounds}.", ConvergenceWarning)


def train_nmf(method: MiniBatchNMF, tokens: TokenArray, start: Array | None = None) -> None:
    """Go through tokens once, a minibatch at a time.

    Parameters
    ----------
    method : MiniBatchNMF
        Goes on from where it is.
    tokens : TokenArray of shape (n_samples, n_features)
        Tokens.
    start : ndarray of shape (n_concepts, n_features), default=None
        The parts that it begins with; None takes what it has, or draws them.
    """
    for values in _many_rows(tokens):
        n_batches = -(-len(values) // BATCH)
        for first in range(n_batches):
            batch = np.ascontiguousarray(values[first::n_batches])
            if start is None:
                method.partial_fit(batch)
                continue
            method.set_params(init="custom")
            # The activations are asked for, and not used.
            weights = np.ones((len(batch), len(start)), batch.dtype)
            method.partial_fit(batch, W=weights, H=start.astype(batch.dtype))
            start = None


def _many_rows(tokens: TokenArray) -> Iterator[Array]:
    """Blocks of a minibatch at least: the parts that fit a few tokens fit nothing else."""
    rows: list[Array] = []
    for _, block in tokens.blocks():
        rows.append(as_floats(block))
        if sum(map(len, rows)) >= BATCH:
            yield np.concatenate(rows)
            rows = []
    if rows:
        yield np.concatenate(rows)


def reconstruction_error(tokens: TokenArray, parts: Array) -> float:
    """Frobenius norm of X - W H with the best W.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        X.
    parts : ndarray of shape (n_concepts, n_features)
        H.

    Returns
    -------
    error : float
        The norm.
    """
    square = 0.0
    for values in tokens.float_chunks():
        square += float(np.sum((values - activations(values, parts) @ parts) ** 2))
    return float(np.sqrt(square))


def first_parts(tokens: TokenArray, n_parts: int, random: np.random.RandomState) -> Array:
    """Draw tokens, and take the centroids of their clusters.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        Tokens.
    n_parts : int
        Clusters of k-means.
    random : RandomState
        Draws the tokens that k-means starts from.

    Returns
    -------
    parts : ndarray of shape (n_parts, n_features), dtype float64
        The centroids.
    """
    with warnings.catch_warnings():
        # A part that starts without tokens is no fault: it gets some in the first iteration.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return kmeans(tokens, n_parts, max_iter=10, n_init=1, random_state=random).centroids


def some_tokens(tokens: TokenArray, n_parts: int, random: np.random.RandomState) -> TokenArray:
    """Draw as many tokens as tell roughly what the parts of all are.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        Tokens.
    n_parts : int
        Parts.
    random : RandomState
        Draws them.

    Returns
    -------
    drawn : TokenArray of shape (n_drawn, n_features)
        Held, one to a sample; all of ``tokens`` if they are few.
    """
    n_drawn = max(_DRAWN, _DRAWN_PER_PART * n_parts)
    if tokens.n_tokens <= n_drawn:
        return tokens
    # The order is that of a permutation, which is found again with any numpy.
    drawn = np.sort(random.permutation(tokens.n_tokens)[:n_drawn])
    return TokenArray(tokens.rows(drawn), np.arange(n_drawn + 1))


def semi_nmf(
    tokens: TokenArray, parts: Array, tol: float, max_iter: int
) -> tuple[Array, list[float], bool]:
    r"""Factorise tokens of any sign by the coordinate descent of :class:`SemiNMFConcepts`.

    An iteration reads the tokens once: the activations of a piece are improved, and what the best
    parts depend on, :math:`W^\top W` and :math:`W^\top X`, is summed up on the way.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        X.
    parts : ndarray of shape (n_concepts, n_features), dtype float64
        H at the start.
    tol : float
        Decrease of the loss in an iteration, relative to the sum of squares of X, at which it has
        converged.
    max_iter : int
        Most iterations.

    Returns
    -------
    parts : ndarray of shape (n_concepts, n_features), dtype float64
        H.
    losses : list of float
        Sum of squares of X - W H after each iteration.
    converged : bool
        Whether the loss came to rest.
    """
    sum_of_squares = sum(
        float(np.einsum("nd,nd->", block, block, dtype=np.float64)) for _, block in tokens.blocks()
    )
    dtype = np.result_type(tokens.dtype, np.float32)
    weights = np.zeros((len(parts), tokens.n_tokens), dtype)
    losses: list[float] = []
    for _ in range(max_iter):
        gram, matched = _improve(tokens, weights, parts)
        parts = _best_parts(parts, gram, matched, np.finfo(dtype).eps)
        loss = sum_of_squares + float(np.sum(parts * (gram @ parts - 2 * matched)))
        losses.append(max(loss, 0.0))
        if len(losses) > 1 and losses[-2] - losses[-1] <= tol * sum_of_squares:
            return parts, losses, True
    return parts, losses, False


def _improve(tokens: TokenArray, weights: Array, parts: Array) -> tuple[Array, Array]:
    """Improve W, which is (n_concepts, n_tokens) here, in place; give W^T W and W^T X."""
    lengths = np.linalg.norm(parts, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    # With parts of length 1 activations are in the unit of tokens, whatever that is.
    units = parts / lengths
    overlap = (units @ units.T).astype(weights.dtype)
    np.fill_diagonal(overlap, 0)
    units, lengths = units.astype(weights.dtype), lengths.astype(weights.dtype)
    gram, matched = np.zeros((len(parts), len(parts))), np.zeros(parts.shape)
    start = 0
    for chunk in tokens.float_chunks():
        rows = slice(start, start := start + len(chunk))
        own = weights[:, rows] * lengths
        _descend(own, units @ chunk.T, overlap)
        own /= lengths
        weights[:, rows] = own
        # In single precision nearly dependent activations would not be told from dependent ones.
        precise = own.astype(np.float64)
        gram += precise @ precise.T
        matched += own @ chunk
    return gram, matched


def _descend(weights: Array, match: Array, overlap: Array) -> None:
    """Set each row of W to its best given the others, several times, in place."""
    for _ in range(_SWEEPS):
        for row, wanted, shared in zip(weights, match, overlap, strict=True):
            np.maximum(wanted - shared @ weights, 0, out=row)


def _best_parts(parts: Array, gram: Array, matched: Array, eps: float) -> Array:
    """Least squares for H, given W; what W leaves open stays as it is."""
    inverse = np.linalg.pinv(gram, rcond=8 * eps, hermitian=True)
    return parts + inverse @ (matched - gram @ parts)
