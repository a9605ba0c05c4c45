r"""k-means: a unit is the centre of a cluster of tokens.

Lloyd's iteration assigns every token to the nearest centre and moves each centre to the mean of its
tokens; neither step can raise the sum of squared distances. Once no centre moves, none ever will,
so the iteration may stop there and has the result of any larger number of iterations.

Distances are computed as :math:`\lVert z \rVert^2 - 2 \langle z, v \rangle + \lVert v \rVert^2` in
single precision, which loses what tokens have in common with their mean; so tokens are centred
first.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from numbers import Integral
from typing import Any, Literal, get_args

import numpy as np
from scipy.sparse import csr_array
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from skact.concepts._base import BaseUnits, check_enough_tokens
from skact.concepts._callbacks import EpochsMixin, Report
from skact.concepts._statistics import cosines, token_mean
from skact.concepts._streaming import StreamingUnitsMixin
from skact.rows import Array, as_floats, may_hold
from skact.tokens import TokenArray
from skact.validation import check_tokens
from skact.warning import warn

__all__ = ["BACKENDS", "Backend", "KMeansConcepts", "elbow_curve", "kmeans", "nearest"]

Backend = Literal["auto", "faiss", "sklearn", "minibatch"]
BACKENDS = frozenset(get_args(Backend))
Step = Callable[[Array], Array]
# From centroids, with max_iter, the mean and a report, to centroids and the number of iterations.
Run = Callable[[Array, int, Array, Report | None], tuple[Array, int]]

# Distances of a chunk that fit the cache.
_DISTANCES = 2**21
# How far, relatively, the halves of a split cluster start from its centroid.
_SPLIT = 1 / 1024


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
    backend: Backend,
    random_state: Any,
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
    backend : {"auto", "faiss", "sklearn", "minibatch"}
        What does the work on tokens that are held: Lloyd's iteration by faiss or scikit-learn, or
        scikit-learn's mini-batches. "auto" takes faiss where it is installed, else mini-batches.
    random_state : int, RandomState instance or None
        Draws the tokens that centroids start from. The first draws of a larger ``n_clusters`` are
        those of a smaller one.
    report : callable, default=None
        Called after each iteration with what gives the centroids; tells whether to stop.

    Returns
    -------
    clusters : Clusters
        Centroids, the nearest one of each token, sum of squared distances to it, iterations.
    """
    check_enough_tokens(tokens, n_clusters, f"n_concepts={n_clusters} clusters")
    random = check_random_state(random_state)
    held = may_hold(4 * tokens.n_tokens * tokens.n_features)
    if held:
        values, mean = _centred(tokens)
        run = _runner(backend, values, random)
    else:
        mean = token_mean(tokens)
        run = partial(_iterate, partial(_step_in_blocks, tokens, mean))
    best: Clusters | None = None
    for _ in range(n_init):
        rows = random.permutation(tokens.n_tokens)[:n_clusters]
        start = values[rows] if held else _centred_block(tokens.rows(rows), mean)
        centroids, n_iter = run(start, max_iter, mean, report)
        if held:
            labels, distances = nearest(values, centroids)
            inertia = float(distances.sum())
        else:
            labels, inertia = _nearest_in_blocks(tokens, mean, centroids)
        if best is None or inertia < best.inertia:
            best = Clusters(centroids.astype(np.float64) + mean, labels, inertia, n_iter)
    assert best is not None
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
    n_rows = max(_DISTANCES // len(centroids), 1)
    for start in range(0, len(values), n_rows):
        rows = slice(start, start + n_rows)
        part = values[rows] - shift
        labels[rows] = np.argmin(half_norms - part @ centres.T, axis=1)
        part -= centres[labels[rows]]
        distances[rows] = np.einsum("nd,nd->n", part, part, dtype=np.float64)
    return labels, distances


def _iterate(
    step: Step, centroids: Array, max_iter: int, mean: Array, report: Report | None
) -> tuple[Array, int]:
    """Repeat Lloyd's iteration until no centroid moves."""
    n_iter, done = 0, False
    while not done and n_iter < max_iter:
        before, centroids = centroids, step(centroids)
        n_iter += 1
        stopped = report is not None and report(partial(np.add, centroids, mean))
        done = stopped or np.array_equal(before, centroids)
    return centroids, n_iter


def _runner(backend: Backend, values: Array, random: np.random.RandomState) -> Run:
    if backend == "auto":
        backend = "minibatch" if find_spec("faiss") is None else "faiss"
    if backend == "minibatch":
        return partial(_minibatches, values, random)
    return partial(_iterate, partial(_step_faiss if backend == "faiss" else _step_sklearn, values))


def _minibatches(
    values: Array,
    random: np.random.RandomState,
    centroids: Array,
    max_iter: int,
    mean: Array,
    report: Report | None,
) -> tuple[Array, int]:
    """Go through the tokens in mini-batches until the centroids no longer get better."""
    method = MiniBatchKMeans(
        len(centroids), init=centroids, n_init=1, max_iter=max_iter, random_state=random
    )
    found = np.asarray(method.fit(values).cluster_centers_)
    if report is not None:
        report(partial(np.add, found, mean))
    return found, int(method.n_iter_)


def _step_in_blocks(tokens: TokenArray, mean: Array, centroids: Array) -> Array:
    """One iteration over tokens that are not held; a cluster without tokens splits the largest."""
    sums, counts = np.zeros(centroids.shape), np.zeros(len(centroids))
    for _, block in tokens.blocks():
        values = _centred_block(block, mean)
        block_sums, block_counts = _sums(values, nearest(values, centroids)[0], len(centroids))
        sums += block_sums
        counts += block_counts
    moved = sums / np.maximum(counts, 1)[:, None]
    for empty in np.flatnonzero(counts == 0):
        largest = int(counts.argmax())
        counts[empty] = counts[largest] = counts[largest] / 2
        # As faiss does: two centroids a little to both sides of the old one.
        moved[empty] = moved[largest]
        moved[empty, ::2] *= 1 + _SPLIT
        moved[empty, 1::2] *= 1 - _SPLIT
        moved[largest, ::2] *= 1 - _SPLIT
        moved[largest, 1::2] *= 1 + _SPLIT
    return moved.astype(np.float32)


def _sums(values: Array, labels: Array, n_clusters: int) -> tuple[Array, Array]:
    """Sum and number of the tokens of each cluster, in float64."""
    rows = np.arange(len(values) + 1)
    member = csr_array(
        (np.ones(len(values)), labels, rows), shape=(len(values), n_clusters), dtype=np.float64
    )
    return member.T @ values, np.bincount(labels, minlength=n_clusters).astype(np.float64)


def _nearest_in_blocks(tokens: TokenArray, mean: Array, centroids: Array) -> tuple[Array, float]:
    labels, inertia = np.empty(tokens.n_tokens, np.int64), 0.0
    for rows, block in tokens.row_blocks():
        labels[rows], distances = nearest(_centred_block(block, mean), centroids)
        inertia += float(distances.sum())
    return labels, inertia


def _centred_block(block: Array, mean: Array) -> Array:
    values = as_floats(block)
    return np.asarray(values - mean.astype(values.dtype), np.float32)


def _centred(tokens: TokenArray) -> tuple[Array, Array]:
    mean = token_mean(tokens)
    values = np.empty((tokens.n_tokens, tokens.n_features), np.float32)
    for rows, block in tokens.row_blocks():
        block = as_floats(block)
        np.subtract(block, mean.astype(block.dtype), out=values[rows])
    # The mean as it was subtracted, so that adding it undoes the rounding.
    return values, mean.astype(np.float32 if tokens.dtype != np.float64 else np.float64)


def _step_faiss(values: Array, centroids: Array) -> Array:
    # Loading faiss beside torch is a risk on some systems, so only a fit does it.
    import faiss

    # One iteration a call, because faiss itself does not stop at the fixed point. By default it
    # would also train on a subsample.
    step = faiss.Kmeans(
        values.shape[1],
        len(centroids),
        niter=1,
        min_points_per_centroid=1,
        max_points_per_centroid=len(values),
    )
    step.train(values, init_centroids=centroids)
    return np.asarray(step.centroids)


def _step_sklearn(values: Array, centroids: Array) -> Array:
    method = KMeans(len(centroids), init=centroids, n_init=1, max_iter=1, tol=0.0)
    with warnings.catch_warnings():
        # Clusters without tokens are reported once, by the caller.
        warnings.simplefilter("ignore", ConvergenceWarning)
        method.fit(values)
    return np.asarray(method.cluster_centers_)


class KMeansConcepts(EpochsMixin, StreamingUnitsMixin, BaseUnits):
    r"""A unit is the centroid of a cluster of tokens; a token is scored by the cosine with it.

    .. math:: \min_{v_1, \dots, v_K} \sum_i \min_k \lVert z_i - v_k \rVert^2, \qquad
              s_k(z) = \frac{\langle z, v_k \rangle}{\lVert z \rVert \lVert v_k \rVert}

    over **all** training tokens, never a fixed subsample [1]_. A zero token scores 0.

    Parameters
    ----------
    n_concepts : int, default=8
        Clusters. The paper takes 1000 for tokens and 50 for one vector per sample; see
        :func:`elbow_curve`.
    max_iter : int, default=300
        Iterations at most; fewer once no centroid moves any more.
    n_init : int, default=1
        Runs from different tokens, of which the one with the smallest inertia is kept.
    backend : {"auto", "faiss", "sklearn", "minibatch"}, default="auto"
        What does the work: Lloyd's iteration by faiss or by scikit-learn, which start from the same
        tokens and differ only in how they revive a cluster that has lost all of them (faiss splits
        a large cluster, scikit-learn moves the centroid to a far token); or scikit-learn's
        mini-batches, which come near that result in less time. "auto" takes faiss where it is
        installed, else mini-batches.
    random_state : int, RandomState instance or None, default=None
        Draws the tokens that centroids start from.

    Attributes
    ----------
    concept_vectors_ : ndarray of shape (n_concepts, n_features), dtype float64
        The centroids.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        The class name with a number.
    inertia_ : float
        Sum of squared distances of all training tokens to the nearest centroid; after
        ``partial_fit``, of its tokens to the centroids they were assigned to.
    n_iter_ : int
        Iterations of the run that was kept, or its passes in mini-batches.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    Notes
    -----
    Fitting holds a centred float32 copy of the tokens where it takes at most half of scikit-learn's
    ``working_memory``. Otherwise each iteration reads the tokens once, in blocks, whatever the
    backend: Lloyd's iteration from the same start, in which an empty cluster splits the largest.

    :meth:`partial_fit` is mini-batch k-means [2]_: each block of tokens is assigned to the nearest
    centroids, and a centroid becomes the mean of all tokens that were ever assigned to it. It
    starts from tokens of the first call.

    References
    ----------
    .. [1] Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate
       Reliable Concept Signals in the Tail", section on concept vectors.
    .. [2] Sculley, "Web-scale k-means clustering", 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import KMeansConcepts
    >>> X = [np.array([[9.0, 1.0], [1.0, 9.0]]), np.array([[9.0, -1.0], [-1.0, 9.0]])]
    >>> method = KMeansConcepts(n_concepts=2, random_state=0).fit(X)
    >>> sorted(method.concept_vectors_.tolist())
    [[0.0, 9.0], [9.0, 0.0]]
    >>> method.inertia_
    4.0
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "n_concepts": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "backend": [StrOptions(BACKENDS)],
        "random_state": ["random_state"],
    }

    inertia_: float
    n_iter_: int
    _counts: Array

    def __init__(
        self,
        n_concepts: int = 8,
        *,
        max_iter: int = 300,
        n_init: int = 1,
        backend: Backend = "auto",
        random_state: Any = None,
    ) -> None:
        self.n_concepts = n_concepts
        self.max_iter = max_iter
        self.n_init = n_init
        self.backend = backend
        self.random_state = random_state

    def _fit_vectors(self, tokens: TokenArray) -> Array:
        clusters = kmeans(
            tokens,
            self.n_concepts,
            max_iter=self.max_iter,
            n_init=self.n_init,
            backend=self.backend,
            random_state=self.random_state,
            report=self._report,
        )
        self.inertia_, self.n_iter_ = clusters.inertia, clusters.n_iter
        self._counts = np.bincount(clusters.labels, minlength=self.n_concepts).astype(np.float64)
        return clusters.centroids

    def _max_epochs(self) -> int:
        return self.max_iter * self.n_init

    def _attributes(self, vectors: Any) -> dict[str, Any]:
        return {**super()._attributes(vectors), "concept_names_": self._names(len(vectors))}

    def _update(self, tokens: TokenArray, first: bool) -> Array:
        if first:
            check_enough_tokens(tokens, self.n_concepts, f"n_concepts={self.n_concepts} clusters")
            random = check_random_state(self.random_state)
            rows = random.permutation(tokens.n_tokens)[: self.n_concepts]
            centroids = as_floats(tokens.rows(rows)).astype(np.float64)
            counts, self.n_iter_ = np.zeros(self.n_concepts), 0
        else:
            centroids, counts = self.concept_vectors_.copy(), self._counts.copy()
        self.inertia_ = 0.0
        for _, block in tokens.blocks():
            values = as_floats(block)
            labels, distances = nearest(values, centroids)
            self.inertia_ += float(distances.sum())
            sums, new = _sums(values, labels, len(centroids))
            counts += new
            centroids += (sums - new[:, None] * centroids) / np.maximum(counts, 1)[:, None]
        self.n_iter_ += 1
        self._counts = counts
        return centroids

    def _score(self, values: Array) -> Array:
        return cosines(values, self.concept_vectors_)


def elbow_curve(
    X: Any,
    n_concepts_grid: Iterable[int],
    *,
    max_iter: int = 300,
    n_init: int = 1,
    backend: Backend = "auto",
    random_state: Any = None,
) -> Array:
    """Sum of squared distances left by k-means, for several numbers of clusters.

    The curve falls steeply while clusters are added that the tokens have, and slowly afterwards;
    the bend between is a choice of ``n_concepts``.

    Parameters
    ----------
    X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
        Training tokens.
    n_concepts_grid : iterable of int
        Numbers of clusters, ascending.
    max_iter, n_init, backend : int, int, {"auto", "faiss", "sklearn", "minibatch"}
        As in :class:`KMeansConcepts`.
    random_state : int, RandomState instance or None, default=None
        Draws the tokens that centroids start from; those of fewer clusters are among those of
        more.

    Returns
    -------
    inertias : ndarray of shape (n_grid,), dtype float64
        ``inertia_`` for each number. Falls but for the noise of local minima, which ``n_init``
        lowers.

    Raises
    ------
    ValueError
        If the grid is empty or not ascending, or its last entry exceeds the number of tokens.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import elbow_curve
    >>> elbow_curve(np.array([[0.0], [2.0], [10.0], [12.0]]), [1, 2, 4], random_state=0)
    array([104.,   4.,   0.])
    """
    grid = np.asarray(list(n_concepts_grid))
    ascending = grid.size > 0 and grid.dtype.kind in "iu" and bool((np.diff(grid) > 0).all())
    if not ascending or grid[0] < 1:
        raise ValueError(
            f"n_concepts_grid must hold positive integers in ascending order, got {grid.tolist()}."
        )
    tokens = check_tokens(KMeansConcepts(), X)
    check_enough_tokens(tokens, int(grid[-1]), f"n_concepts={grid[-1]} clusters")
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    return np.array(
        [
            KMeansConcepts(
                int(k), max_iter=max_iter, n_init=n_init, backend=backend, random_state=seed
            )
            .fit(tokens)
            .inertia_
            for k in grid
        ]
    )
