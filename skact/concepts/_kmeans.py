"""k-means: a unit is the centre of a cluster of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions

from skact.arguments import Number, Such, checked
from skact.concepts._base import BaseUnits, check_enough_tokens
from skact.concepts._callbacks import EpochsMixin
from skact.concepts._lloyd import BACKENDS, Backend, kmeans, update_means
from skact.concepts._statistics import cosine_function, cosines
from skact.concepts._streaming import StreamingUnitsMixin
from skact.rows import Array, as_floats
from skact.tokens import TokenArray
from skact.validation import check_tokens

__all__ = ["KMeansConcepts", "elbow_curve"]


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
    backend : {"faiss", "minibatch"}, default="faiss"
        What does the work: Lloyd's iteration by faiss, in which a cluster that has lost all tokens
        splits a large one; or scikit-learn's mini-batches, which come near that result in less
        time.
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
        "n_concepts": [Number(Integral, 1, None, closed="left")],
        "max_iter": [Number(Integral, 1, None, closed="left")],
        "n_init": [Number(Integral, 1, None, closed="left")],
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
        backend: Backend = "faiss",
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
            centroids, counts = self.concept_vectors_, self._counts
        centroids, self._counts, self.inertia_ = update_means(tokens, centroids, counts)
        self.n_iter_ += 1
        return centroids

    def _score(self, values: Array) -> Array:
        return cosines(values, self.concept_vectors_)

    def _function(self) -> Callable[[Array], Array]:
        return cosine_function(self.concept_vectors_)


@checked(
    n_concepts_grid=[Such("an iterable of ints", lambda value: isinstance(value, Iterable))],
    max_iter=[Number(Integral, 1, None, closed="left")],
    n_init=[Number(Integral, 1, None, closed="left")],
    backend=[StrOptions(BACKENDS)],
    random_state=["random_state"],
)
def elbow_curve(
    X: Any,
    n_concepts_grid: Iterable[int],
    *,
    max_iter: int = 300,
    n_init: int = 1,
    backend: Backend = "faiss",
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
    max_iter, n_init, backend : int, int, {"faiss", "minibatch"}
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
    whole = grid.size > 0 and grid.ndim == 1 and grid.dtype.kind in "iu"
    if not whole or grid[0] < 1 or not (np.diff(grid) > 0).all():
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
