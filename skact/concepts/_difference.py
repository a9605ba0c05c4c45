"""Differences of means: a concept is the way from other tokens to its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from scipy.linalg import eigh
from sklearn.utils._param_validation import StrOptions

from skact.concepts._base import BaseConcepts, check_separable
from skact.concepts._statistics import labelled_sums, products, scatter, token_sum
from skact.concepts._streaming import StreamingConceptsMixin
from skact.rows import Array
from skact.tokens import TokenArray

__all__ = ["DifferenceInMeans"]


class DifferenceInMeans(StreamingConceptsMixin, BaseConcepts):
    r"""A concept is the direction from the tokens without it to the tokens with it.

    With :math:`\mu_c` and :math:`C_c` the mean and covariance of the tokens labelled c, and
    :math:`\mu_r`, :math:`C_r` those of the reference tokens,

    .. math:: v_c = \mu_c - \mu_r, \qquad s_c(z) = \langle z, v_c \rangle

    for ``variant="mean"`` [1]_. With ``variant="pca"`` it is the direction in which differences of
    pairs are largest [2]_,

    .. math:: v_c = \arg\max_{\lVert v \rVert = 1} \frac{1}{n_c n_r} \sum_{i \in c} \sum_{j \in r}
              \langle z_i - z_j, v \rangle^2,

    with the sign that makes tokens of the concept score higher on average. The sum over **all**
    pairs replaces the random pairs of the source; it costs no more than two covariances, because
    it is :math:`v^\top (C_c + C_r + (\mu_c - \mu_r)(\mu_c - \mu_r)^\top) v`.

    Parameters
    ----------
    variant : {"mean", "pca"}, default="mean"
        Difference of means, or leading direction of the pairwise differences.
    reference : {"out", "all"}, default="out"
        The tokens that a concept is told from: those not labelled c, or all tokens. For
        ``variant="mean"`` the second is the first times the share of tokens not labelled c.

    Attributes
    ----------
    concept_vectors_ : ndarray of shape (n_concepts, n_features), dtype float64
        The directions; of length 1 for "pca".
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    References
    ----------
    .. [1] Marks, Tegmark, "The Geometry of Truth: Emergent Linear Structure in Large Language Model
       Representations of True/False Datasets", 2023, section on mass-mean probing.
    .. [2] Zou et al., "Representation Engineering: A Top-Down Approach to AI Transparency", 2023,
       section on linear artificial tomography.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import DifferenceInMeans
    >>> X = np.array([[1.0, 5.0], [3.0, 5.0], [0.0, 4.0], [0.0, 6.0]])
    >>> DifferenceInMeans().fit(X, [1, 1, 0, 0]).concept_vectors_
    array([[2., 0.]])
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "variant": [StrOptions({"mean", "pca"})],
        "reference": [StrOptions({"out", "all"})],
    }

    def __init__(
        self,
        variant: Literal["mean", "pca"] = "mean",
        *,
        reference: Literal["out", "all"] = "out",
    ) -> None:
        self.variant = variant
        self.reference = reference

    _sums: Array
    _counts: Array
    _total: Array
    _n_tokens: int

    def _streams(self) -> bool:
        # The scatter of each concept would have to be kept.
        return self.variant == "mean"

    def _update(self, tokens: TokenArray, labels: TokenArray, first: bool) -> Array:
        (sums, counts), total = labelled_sums(tokens, labels), token_sum(tokens)
        if first:
            self._sums, self._counts, self._total, self._n_tokens = sums, counts, total, 0
        else:
            self._sums, self._counts = self._sums + sums, self._counts + counts
            self._total = self._total + total
        self._n_tokens += tokens.n_tokens
        return self._vectors(tokens, labels)

    def _vectors(self, tokens: TokenArray, labels: TokenArray) -> Array:
        counts, n_tokens = self._counts, self._n_tokens
        check_separable(counts, n_tokens, self.concept_names_, "token", "a difference")
        mean, seen = self._total / n_tokens, counts[:, None] > 0
        inside = self._sums / np.maximum(counts, 1)[:, None]
        difference = np.where(seen, inside - mean, 0)
        if self.reference == "out":
            difference /= 1 - counts[:, None] / n_tokens
        if self.variant == "mean":
            return difference
        everything = scatter((block for _, block in tokens.blocks()), mean)
        vectors = np.empty_like(difference)
        for c, count in enumerate(counts):
            inner = scatter(_labelled(tokens, labels, c), mean)
            away = inside[c] - mean
            if self.reference == "out":
                other, n_other = everything - inner, tokens.n_tokens - count
                away_other = away - difference[c]
            else:
                other, n_other = everything, tokens.n_tokens
                away_other = np.zeros_like(away)
            # Second moments about the common mean; what remains of the mixed terms.
            mixed = np.outer(away, away_other)
            pairs = inner / count + other / n_other - mixed - mixed.T
            vector = _leading(pairs)
            vectors[c] = -vector if vector @ difference[c] < 0 else vector
        return vectors

    def _score(self, values: Array) -> Array:
        return products(values, self.concept_vectors_)


def _labelled(tokens: TokenArray, labels: TokenArray, concept: int) -> Iterator[Array]:
    for samples, values in tokens.blocks():
        yield values[labels[samples].flat()[:, concept]]


def _leading(matrix: Array) -> Array:
    n = len(matrix)
    return eigh(matrix, subset_by_index=[n - 1, n - 1])[1][:, 0]
