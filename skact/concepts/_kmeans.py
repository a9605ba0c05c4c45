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
from importlib.util import find_spec
from numbers import Integral
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from skact.concepts._base import BaseUnits, as_floats, check_enough_tokens, cosines, token_mean
from skact.tokens import TokenArray
from skact.validation import check_tokens

__all__ = ["KMeansConcepts", "elbow_curve", "kmeans", "nearest"]

Array = npt.NDArray[Any]
Backend = Literal["auto", "faiss", "sklearn"]

# Distances of a chunk that fit the cache.
_DISTANCES = 2**21


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
) -> Clusters:
    """Cluster all tokens by Lloyd's iteration.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        Tokens. A centred copy in float32 is held.
    n_clusters : int
        Number of clusters; the message of an error calls it n_concepts.
    max_iter : int
        Iterations at most.
    n_init : int
        Runs from different tokens, of which the one with the smallest inertia is kept.
    backend : {"auto", "faiss", "sklearn"}
        Library that does the work; "auto" takes faiss where it is installed.
    random_state : int, RandomState instance or None
        Draws the tokens that centroids start from. The first draws of a larger ``n_clusters`` are
        those of a smaller one.

    Returns
    -------
    clusters : Clusters
        Centroids, the nearest one of each token, sum of squared distances to it, iterations.
    """
    check_enough_tokens(tokens, n_clusters, f"n_concepts={n_clusters} clusters")
    lloyd = _backend(backend)
    random = check_random_state(random_state)
    values, mean = _centred(tokens)
    best: Clusters | None = None
    for _ in range(n_init):
        rows = random.permutation(len(values))[:n_clusters]
        centroids, n_iter = lloyd(values, values[rows], max_iter)
        labels, distances = nearest(values, centroids)
        inertia = float(distances.sum())
        if best is None or inertia < best.inertia:
            best = Clusters(centroids.astype(np.float64) + mean, labels, inertia, n_iter)
    assert best is not None
    n_empty = n_clusters - len(np.unique(best.labels))
    if n_empty:
        warnings.warn(
            f"{n_empty} of the {n_clusters} clusters hold no token; there may be fewer distinct "
            "tokens than n_concepts.",
            ConvergenceWarning,
            stacklevel=4,
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


def _backend(backend: Backend) -> Callable[[Array, Array, int], tuple[Array, int]]:
    if backend == "auto":
        backend = "sklearn" if find_spec("faiss") is None else "faiss"
    return _lloyd_faiss if backend == "faiss" else _lloyd_sklearn


def _centred(tokens: TokenArray) -> tuple[Array, Array]:
    mean = token_mean(tokens)
    values = np.empty((tokens.n_tokens, tokens.n_features), np.float32)
    done = 0
    for _, block in tokens.blocks():
        block = as_floats(block)
        np.subtract(block, mean.astype(block.dtype), out=values[done : done + len(block)])
        done += len(block)
    # The mean as it was subtracted, so that adding it undoes the rounding.
    return values, mean.astype(np.float32 if tokens.dtype != np.float64 else np.float64)


def _lloyd_faiss(values: Array, centroids: Array, max_iter: int) -> tuple[Array, int]:
    # Loading faiss beside torch is a risk on some systems, so only a fit does it.
    import faiss

    n_iter = 0
    while n_iter < max_iter:
        # One iteration a call, because faiss itself does not stop at the fixed point. By default
        # it would also train on a subsample.
        step = faiss.Kmeans(
            values.shape[1],
            len(centroids),
            niter=1,
            min_points_per_centroid=1,
            max_points_per_centroid=len(values),
        )
        step.train(values, init_centroids=centroids)
        n_iter += 1
        before, centroids = centroids, np.asarray(step.centroids)
        if np.array_equal(before, centroids):
            break
    return centroids, n_iter


def _lloyd_sklearn(values: Array, centroids: Array, max_iter: int) -> tuple[Array, int]:
    method = KMeans(len(centroids), init=centroids, n_init=1, max_iter=max_iter, tol=0.0)
    with warnings.catch_warnings():
        # Clusters without tokens are reported once, by the caller.
        warnings.simplefilter("ignore", ConvergenceWarning)
        method.fit(values)
    return method.cluster_centers_, int(method.n_iter_)


class KMeansConcepts(BaseUnits):
    r"""A unit is the centroid of a cluster of tokens; a token is scored by the cosine with it.

    .. math:: \min_{v_1, \dots, v_K} \sum_i \min_k \lVert z_i - v_k \rVert^2, \qquad
              s_k(z) = \frac{\langle z, v_k \rangle}{\lVert z \rVert \lVert v_k \rVert}

    over **all** training tokens, never a subsample [1]_. A zero token scores 0.

    Parameters
    ----------
    n_concepts : int, default=8
        Clusters. The paper takes 1000 for tokens and 50 for one vector per sample; see
        :func:`elbow_curve`.
    max_iter : int, default=300
        Iterations at most; fewer once no centroid moves any more.
    n_init : int, default=1
        Runs from different tokens, of which the one with the smallest inertia is kept.
    backend : {"auto", "faiss", "sklearn"}, default="auto"
        Library that does the work; "auto" takes faiss where it is installed. Both start from the
        same tokens and differ only in how they revive a cluster that has lost all tokens: faiss
        splits a large cluster, scikit-learn moves the centroid to a far token.
    random_state : int, RandomState instance or None, default=None
        Draws the tokens that centroids start from.

    Attributes
    ----------
    concept_vectors_ : ndarray of shape (n_concepts, n_features), dtype float64
        The centroids.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        The class name with a number.
    inertia_ : float
        Sum of squared distances of all training tokens to the nearest centroid.
    n_iter_ : int
        Iterations of the run that was kept.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    Notes
    -----
    Fitting holds a centred float32 copy of the tokens.

    References
    ----------
    .. [1] Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate
       Reliable Concept Signals in the Tail", section on concept vectors.

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
        "backend": [StrOptions({"auto", "faiss", "sklearn"})],
        "random_state": ["random_state"],
    }

    inertia_: float
    n_iter_: int

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
        )
        self.inertia_, self.n_iter_ = clusters.inertia, clusters.n_iter
        return clusters.centroids

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
    max_iter, n_init, backend : int, int, {"auto", "faiss", "sklearn"}
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
