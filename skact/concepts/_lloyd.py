r"""k-means: Lloyd's iteration over tokens in memory and on disk.

Lloyd's iteration assigns every token to the nearest centre and moves each centre to the mean of its
tokens; neither step can raise the sum of squared distances. Once no centre moves, none ever will,
so the iteration may stop there and has the result of any larger number of iterations.

Distances are computed as :math:`\lVert z \rVert^2 - 2 \langle z, v \rangle + \lVert v \rVert^2` in
single precision, which loses what tokens have in common with their mean; so tokens are centred
first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from scipy.sparse import csr_array
from sklearn.cluster import MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from skact.concepts._base import check_enough_tokens
from skact.concepts._callbacks import Report
from skact.concepts._statistics import token_mean
from skact.rows import Array, as_floats
from skact.tokens import TokenArray
from skact.warning import warn

__all__ = ["BACKENDS", "Backend", "Clusters", "kmeans", "nearest", "update_means"]

Backend = Literal["faiss", "minibatch"]
BACKENDS = frozenset(get_args(Backend))

# Distances, and values, of a chunk that fit the cache.
_DISTANCES = 2**21
# How far, relatively, the halves of a split cluster start from its centroid.
_SPLIT = 1 / 1024
# Numbers whose squares, added up, overflow in single precision; those of its inverse vanish.
_LARGE = 1e15


@dataclass(frozen=True)
class Clusters:
    """Result of :func:`kmeans`."""

    centroids: Array  # (n_clusters, n_features), float64
    labels: Array  # (n_tokens,), the number of the nearest centroid
    inertia: float
    n_iter: int


def kmeans(
    tokens: TokenArray,
    n_clusters: int,
    *,
    max_iter: int,
    n_init: int,
    random_state: Any,
    backend: Backend = "faiss",
    report: Report | None = None,
) -> Clusters:
    """Cluster all tokens by Lloyd's iteration.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        Tokens. A centred copy in float32 is held, unless it takes more than half of scikit-learn's
        ``working_memory``: then each iteration reads them once, in blocks.
    n_clusters : int
        Number of clusters; the message of an error calls it n_concepts.
    max_iter : int
        Iterations at most.
    n_init : int
        Runs from different tokens, of which the one with the smallest inertia is kept.
    random_state : int, RandomState instance or None
        Draws the tokens that centroids start from. The first draws of a larger ``n_clusters`` are
        those of a smaller one.
    backend : {"faiss", "minibatch"}, default="faiss"
        What does the work on tokens that are held: Lloyd's iteration by faiss, or scikit-learn's
        mini-batches.
    report : callable, default=None
        Called after each iteration with what gives the centroids; tells whether to stop.

    Returns
    -------
    clusters : Clusters
        Centroids, the nearest one of each token, sum of squared distances to it, iterations.
    """
    check_enough_tokens(tokens, n_clusters, f"n_concepts={n_clusters} clusters")
    in_memory = tokens.may_be_held
    if in_memory and (exponent := _exponent(block for _, block in tokens.blocks())):
        # A power of two changes no digit.
        sized = tokens.map(lambda block: np.ldexp(as_floats(block), -exponent))
        settings = {"max_iter": max_iter, "n_init": n_init, "random_state": random_state}
        again = None if report is None else _unscaled(report, exponent)
        found = kmeans(sized, n_clusters, **settings, backend=backend, report=again)
        inertia = float(np.ldexp(found.inertia, 2 * exponent))
        return replace(found, centroids=np.ldexp(found.centroids, exponent), inertia=inertia)
    random = check_random_state(random_state)
    data = _InMemory(tokens) if in_memory else _InBlocks(tokens)
    best: Clusters | None = None
    converged = False
    for _ in range(n_init):
        start = data.rows(random.permutation(tokens.n_tokens)[:n_clusters])
        _check_size(start)
        if isinstance(data, _InMemory) and backend == "minibatch":
            centroids, n_iter, done = _minibatches(data, start, max_iter, random, report)
        else:
            centroids, n_iter, done = _iterate(data, start, max_iter, report)
        labels, inertia = data.nearest(centroids)
        if best is None or inertia < best.inertia:
            converged = done
            best = Clusters(centroids.astype(np.float64) + data.mean, labels, inertia, n_iter)
    assert best is not None
    if not converged:
        warn(
            f"k-means did not converge in max_iter={max_iter} iterations: its centroids still "
            "moved.",
            ConvergenceWarning,
        )
    n_empty = n_clusters - len(np.unique(best.labels))
    if n_empty:
        warn(
            f"{n_empty} of the {n_clusters} clusters hold no token; there may be fewer distinct "
            "tokens than n_concepts.",
            ConvergenceWarning,
        )
    return best


def nearest(values: Array, centroids: Array) -> tuple[Array, Array]:
    """Find the nearest centroid of each token.

    Parameters
    ----------
    values : ndarray of shape (n_tokens, n_features)
        Tokens.
    centroids : ndarray of shape (n_clusters, n_features)
        Centroids.

    Returns
    -------
    labels : ndarray of shape (n_tokens,), dtype int64
        Number of the nearest centroid.
    distances : ndarray of shape (n_tokens,), dtype float64
        Squared Euclidean distance to it.
    """
    labels = np.empty(len(values), np.int64)
    distances = np.empty(len(values))
    values = as_floats(values)
    shift = centroids.mean(axis=0).astype(values.dtype)
    centres = (centroids - shift).astype(values.dtype)
    half_norms = 0.5 * np.einsum("kd,kd->k", centres, centres)
    n_rows = max(_DISTANCES // max(centroids.shape), 1)
    for start in range(0, len(values), n_rows):
        rows = slice(start, start + n_rows)
        part = values[rows] - shift
        labels[rows] = np.argmin(half_norms - part @ centres.T, axis=1)
        part -= centres[labels[rows]]
        distances[rows] = np.einsum("nd,nd->n", part, part, dtype=np.float64)
    return labels, distances


def update_means(tokens: TokenArray, centroids: Array, counts: Array) -> tuple[Array, Array, float]:
    """Assign further tokens, and move each centroid to the mean of all that it ever got.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        Further tokens; a block of them is assigned at a time.
    centroids : ndarray of shape (n_clusters, n_features), dtype float64
        Where the centroids are; not changed.
    counts : ndarray of shape (n_clusters,), dtype float64
        Tokens that each has got so far; not changed.

    Returns
    -------
    centroids, counts : ndarray
        Both afterwards.
    inertia : float
        Sum of squared distances of these tokens to the centroids that they were assigned to.
    """
    centroids, counts, inertia = centroids.copy(), counts.copy(), 0.0
    for _, block in tokens.blocks():
        values = as_floats(block)
        labels, distances = nearest(values, centroids)
        inertia += float(distances.sum())
        sums, new = _sums(values, labels, len(centroids))
        counts += new
        centroids += (sums - new[:, None] * centroids) / np.maximum(counts, 1)[:, None]
    return centroids, counts, inertia


def _exponent(blocks: Iterable[Array]) -> int:
    """Power of two that brings numbers near 1 whose squares would vanish or overflow; else 0."""
    largest = max(max(float(block.max()), -float(block.min())) for block in blocks)
    return 0 if largest == 0 or 1 / _LARGE < largest < _LARGE else int(np.frexp(largest)[1])


def _check_size(rows: Array) -> None:
    if (largest := np.abs(rows).max()) > _LARGE:
        raise ValueError(
            f"tokens of size {largest:.1g} have squares beyond single precision; put TokenScaler "
            "before k-means."
        )


def _unscaled(report: Report, exponent: int) -> Report:
    return lambda centroids: report(lambda: np.ldexp(centroids(), exponent))


class _InMemory:
    """Tokens in a centred copy."""

    def __init__(self, tokens: TokenArray) -> None:
        mean = token_mean(tokens)
        self.values = np.empty((tokens.n_tokens, tokens.n_features), np.float32)
        for rows, block in tokens.row_blocks():
            block = as_floats(block)
            np.subtract(block, mean.astype(block.dtype), out=self.values[rows])
        # The mean as it was subtracted, so that adding it undoes the rounding.
        self.mean: Array = mean.astype(np.float32 if tokens.dtype != np.float64 else np.float64)

    def rows(self, numbers: Array) -> Array:
        return self.values[numbers]

    def step(self, centroids: Array) -> Array:
        # Loading faiss beside torch is a risk on some systems, so only a fit does it.
        import faiss

        # One iteration a call, because faiss itself does not stop at the fixed point. By default
        # it would also train on a subsample.
        step = faiss.Kmeans(
            self.values.shape[1],
            len(centroids),
            niter=1,
            min_points_per_centroid=1,
            max_points_per_centroid=len(self.values),
        )
        step.train(self.values, init_centroids=centroids)
        return np.asarray(step.centroids)

    def nearest(self, centroids: Array) -> tuple[Array, float]:
        labels, distances = nearest(self.values, centroids)
        return labels, float(distances.sum())


class _InBlocks:
    """Tokens that are read and centred block by block, in each iteration anew."""

    def __init__(self, tokens: TokenArray) -> None:
        self.tokens, self.mean = tokens, token_mean(tokens)

    def rows(self, numbers: Array) -> Array:
        return self._centred(self.tokens.rows(numbers))

    def step(self, centroids: Array) -> Array:
        sums, counts = np.zeros(centroids.shape), np.zeros(len(centroids))
        for _, block in self.tokens.blocks():
            values = self._centred(block)
            block_sums, block_counts = _sums(values, nearest(values, centroids)[0], len(centroids))
            sums += block_sums
            counts += block_counts
        return _split_for_empty(sums / np.maximum(counts, 1)[:, None], counts).astype(np.float32)

    def nearest(self, centroids: Array) -> tuple[Array, float]:
        labels, inertia = np.empty(self.tokens.n_tokens, np.int64), 0.0
        for rows, block in self.tokens.row_blocks():
            labels[rows], distances = nearest(self._centred(block), centroids)
            inertia += float(distances.sum())
        return labels, inertia

    def _centred(self, block: Array) -> Array:
        values = as_floats(block)
        return np.asarray(values - self.mean.astype(values.dtype), np.float32)


def _iterate(
    data: _InMemory | _InBlocks, centroids: Array, max_iter: int, report: Report | None
) -> tuple[Array, int, bool]:
    """Repeat Lloyd's iteration until no centroid moves; tell whether none does."""
    n_iter, done = 0, False
    while not done and n_iter < max_iter:
        before, centroids = centroids, data.step(centroids)
        n_iter += 1
        stopped = report is not None and report(partial(np.add, centroids, data.mean))
        done = stopped or np.array_equal(before, centroids)
    return centroids, n_iter, done


def _minibatches(
    data: _InMemory,
    centroids: Array,
    max_iter: int,
    random: np.random.RandomState,
    report: Report | None,
) -> tuple[Array, int, bool]:
    """Go through the tokens in mini-batches until the centroids no longer get better."""
    method = MiniBatchKMeans(
        len(centroids), init=centroids, n_init=1, max_iter=max_iter, random_state=random
    ).fit(data.values)
    centroids = np.asarray(method.cluster_centers_)
    if report is not None:
        report(partial(np.add, centroids, data.mean))
    return centroids, int(method.n_iter_), bool(method.n_iter_ < max_iter)


def _split_for_empty(centroids: Array, counts: Array) -> Array:
    """Let each cluster without tokens split the largest, as faiss does, in place.

    Two centroids start a little to both sides of the old one.
    """
    for empty in np.flatnonzero(counts == 0):
        largest = int(counts.argmax())
        counts[empty] = counts[largest] = counts[largest] / 2
        centroids[empty] = centroids[largest]
        centroids[empty, ::2] *= 1 + _SPLIT
        centroids[empty, 1::2] *= 1 - _SPLIT
        centroids[largest, ::2] *= 1 - _SPLIT
        centroids[largest, 1::2] *= 1 + _SPLIT
    return centroids


def _sums(values: Array, labels: Array, n_clusters: int) -> tuple[Array, Array]:
    """Sum and number of the tokens of each cluster, in float64."""
    rows = np.arange(len(values) + 1)
    member = csr_array(
        (np.ones(len(values)), labels, rows), shape=(len(values), n_clusters), dtype=np.float64
    )
    return member.T @ values, np.bincount(labels, minlength=n_clusters).astype(np.float64)
