"""k-means separators: a unit is the direction that separates a cluster from all other tokens."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import StrOptions

from skact.arguments import Number
from skact.concepts._base import BaseUnits, ProductsMixin
from skact.concepts._lloyd import BACKENDS, Backend, kmeans
from skact.concepts._logistic import fit_logistic
from skact.concepts._statistics import balanced_weights
from skact.rows import Array
from skact.tokens import TokenArray

__all__ = ["KMeansSeparator"]


class KMeansSeparator(ProductsMixin, BaseUnits):
    r"""A unit is the direction that separates a cluster of tokens from all others.

    .. math:: v_k = \arg\min_v \sum_i w_{k,i} \log\big(1 + e^{-t_{k,i} \langle z_i, v \rangle}\big)
              + \tfrac{\lambda}{2} \lVert v \rVert^2, \qquad s_k(z) = \langle z, v_k \rangle

    with :math:`t_{k,i} = 1` for the tokens whose nearest k-means centroid is number k and -1 for
    every other, no bias, and classes balanced by :math:`w = 1 / (2 n_\pm)` [1]_. All separators are
    trained together, without a matrix of memberships. A cluster that holds no token, or every one,
    cannot be separated from anything and gets a zero vector.

    Parameters
    ----------
    n_concepts : int, default=8
        Clusters, at least 2. The paper takes 1000 for tokens and 50 for one vector per sample.
    max_iter : int, default=300
        Iterations of k-means at most; fewer once no centroid moves any more.
    n_init : int, default=1
        Runs of k-means, of which the one with the smallest inertia is kept.
    weight_decay : float, default=1e-4
        :math:`\lambda`.
    separator_max_iter : int, default=200
        Iterations of the separators.
    backend : {"faiss", "minibatch"}, default="faiss"
        What clusters; see :class:`KMeansConcepts`.
    random_state : int, RandomState instance or None, default=None
        Draws the tokens that centroids start from.

    Attributes
    ----------
    concept_vectors_ : ndarray of shape (n_concepts, n_features), dtype float64
        The directions.
    centroids_ : ndarray of shape (n_concepts, n_features), dtype float64
        Centroids of the clusters.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        The class name with a number.
    inertia_ : float
        Sum of squared distances of all training tokens to the nearest centroid.
    n_iter_ : int
        Iterations of k-means.
    separator_n_iter_ : int
        Iterations of the separators.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    References
    ----------
    .. [1] Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate
       Reliable Concept Signals in the Tail", section on concept vectors and appendix on training.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import KMeansSeparator
    >>> X = np.array([[9.0, 1.0], [1.0, 9.0], [9.0, -1.0], [-1.0, 9.0]])
    >>> scores = KMeansSeparator(n_concepts=2, random_state=0).fit_transform(X)
    >>> (scores.argmax(axis=1) == scores[0].argmax()).tolist()
    [True, False, True, False]
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "n_concepts": [Number(Integral, 2, None, closed="left")],
        "max_iter": [Number(Integral, 1, None, closed="left")],
        "n_init": [Number(Integral, 1, None, closed="left")],
        "weight_decay": [Number(Real, 0, None, closed="left")],
        "separator_max_iter": [Number(Integral, 1, None, closed="left")],
        "backend": [StrOptions(BACKENDS)],
        "random_state": ["random_state"],
    }

    centroids_: Array
    inertia_: float
    n_iter_: int
    separator_n_iter_: int

    def __init__(
        self,
        n_concepts: int = 8,
        *,
        max_iter: int = 300,
        n_init: int = 1,
        weight_decay: float = 1e-4,
        separator_max_iter: int = 200,
        backend: Backend = "faiss",
        random_state: Any = None,
    ) -> None:
        self.n_concepts = n_concepts
        self.max_iter = max_iter
        self.n_init = n_init
        self.weight_decay = weight_decay
        self.separator_max_iter = separator_max_iter
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
        self.centroids_ = clusters.centroids
        self.inertia_, self.n_iter_ = clusters.inertia, clusters.n_iter
        vectors, self.separator_n_iter_ = fit_logistic(
            tokens,
            clusters.labels,
            balanced_weights(
                np.bincount(clusters.labels, minlength=self.n_concepts), tokens.n_tokens
            ),
            l2=self.weight_decay,
            max_iter=self.separator_max_iter,
        )
        return vectors
