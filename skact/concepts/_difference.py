"""Differences of means: a concept is the way from other tokens to its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, Self

import numpy as np
from scipy.linalg import LinAlgError, LinAlgWarning, eigh, solve
from sklearn.utils._param_validation import StrOptions

from skact.arguments import Number
from skact.base import MergeMixin
from skact.concepts._base import BaseConcepts, ProductsMixin, check_separable
from skact.concepts._statistics import (
    Moments,
    label_counts,
    labelled_sums,
    moments,
    scatter,
    weight_of_tokens,
    weighted_blocks,
)
from skact.concepts._streaming import StreamingConceptsMixin
from skact.rows import Array
from skact.tokens import TokenArray

__all__ = ["DifferenceInMeans", "SeenTokens"]


@dataclass(frozen=True)
class SeenTokens:
    """What is known of the tokens of each concept, and of all tokens."""

    sums: Array
    counts: Array
    all: Moments

    def __add__(self, other: SeenTokens) -> SeenTokens:
        return SeenTokens(self.sums + other.sums, self.counts + other.counts, self.all + other.all)


class DifferenceInMeans(MergeMixin, StreamingConceptsMixin, ProductsMixin, BaseConcepts):
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

    With ``whiten=True`` directions in which all tokens vary count less,

    .. math:: v_c = \big((1 - \gamma)\, C + \gamma\, \tfrac{\operatorname{tr} C}{d}\, I\big)^{-1}
              (\mu_c - \mu_r)

    with C the covariance of all d-dimensional tokens. With :math:`\gamma = 0` that is the direction
    of Fisher's linear discriminant [3]_, which the covariance within the classes gives too, since
    it differs from C along :math:`\mu_c - \mu_r` alone.

    Parameters
    ----------
    variant : {"mean", "pca"}, default="mean"
        Difference of means, or leading direction of the pairwise differences.
    reference : {"out", "all"}, default="out"
        The tokens that a concept is told from: those not labelled c, or all tokens. For
        ``variant="mean"`` the second is the first times the share of tokens not labelled c.
    whiten : bool, default=False
        Weigh directions by the inverse covariance; for ``variant="mean"`` only.
    shrinkage : float, default=0.1
        :math:`\gamma` in [0, 1]: how far the covariance is moved towards a ball, where it is
        whitened. 1 leaves the direction of the plain difference, 0 needs more tokens than features.

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
    .. [3] Fisher, "The Use of Multiple Measurements in Taxonomic Problems", 1936.

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
        "whiten": ["boolean"],
        "shrinkage": [Number(Real, 0, 1, closed="both")],
    }

    def __init__(
        self,
        variant: Literal["mean", "pca"] = "mean",
        *,
        reference: Literal["out", "all"] = "out",
        whiten: bool = False,
        shrinkage: float = 0.1,
    ) -> None:
        self.variant = variant
        self.reference = reference
        self.whiten = whiten
        self.shrinkage = shrinkage

    _seen: SeenTokens

    def _validate_params(self) -> None:
        super()._validate_params()
        if self.whiten and self.variant != "mean":
            raise ValueError(
                f'whiten=True needs variant="mean", got variant={self.variant!r}: the direction of '
                "the largest differences is not what remains large when all are made equal."
            )

    def _streams(self) -> bool:
        # The scatter of each concept would have to be kept.
        return self.variant == "mean"

    def _merges(self) -> bool:
        return self._streams()

    def _fit_vectors(self, tokens: TokenArray, labels: TokenArray, weight: Array | None) -> Array:
        difference = super()._fit_vectors(tokens, labels, weight)
        counts = label_counts(labels)
        check_separable(counts, tokens.n_tokens, self.concept_names_, "token", "a difference")
        if self.variant == "mean":
            return difference
        return self._leading(tokens, labels, weight, difference)

    def _update(
        self, tokens: TokenArray, labels: TokenArray, first: bool, weight: Array | None
    ) -> Array:
        sums, counts = labelled_sums(tokens, labels, weight)
        whole = moments(tokens, weight, with_scatter=self.whiten)
        seen = SeenTokens(sums, counts, whole)
        self._seen = seen if first else self._seen + seen
        return self._vectors()

    def _join(self, other: Self) -> None:
        self._seen += other._seen
        self.concept_vectors_ = self._vectors()

    def _vectors(self) -> Array:
        seen = self._seen
        counts, n_tokens = seen.counts, seen.all.n_tokens
        inside = seen.sums / np.where(counts > 0, counts, 1)[:, None]
        # Sums of the same weights in another order may differ in their last digits.
        known = (counts > 0) & (counts < n_tokens * (1 - 1e-12))
        difference = np.where(known[:, None], inside - seen.all.mean, 0)
        if self.reference == "out":
            difference *= n_tokens / np.where(known, n_tokens - counts, 1)[:, None]
        return self._whitened(difference) if self.whiten else difference

    def _whitened(self, difference: Array) -> Array:
        n_tokens, scattered = self._seen.all.n_tokens, self._seen.all.scatter
        if scattered is None:
            raise ValueError(
                "whiten=True needs the covariance of all tokens, and earlier calls were made with "
                "whiten=False; call fit first."
            )
        n_features = len(scattered)
        ball = float(np.trace(scattered)) / n_tokens / n_features or 1.0
        covariance = (1 - self.shrinkage) / n_tokens * scattered
        covariance.flat[:: n_features + 1] += self.shrinkage * ball
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", LinAlgWarning)
                return solve(covariance, difference.T, assume_a="pos").T.copy()
        except (LinAlgError, LinAlgWarning):
            raise ValueError(
                f"the covariance of {n_tokens} tokens of {n_features} features has no inverse; "
                f"shrinkage must be larger, got {self.shrinkage}."
            ) from None

    def _leading(
        self, tokens: TokenArray, labels: TokenArray, weight: Array | None, difference: Array
    ) -> Array:
        """Directions of the largest pairwise differences."""
        counts, mean, n_tokens = self._seen.counts, self._seen.all.mean, self._seen.all.n_tokens
        everything = scatter(weighted_blocks(tokens, weight), mean)
        vectors = np.empty_like(difference)
        for c, count in enumerate(counts):
            inner = scatter(_labelled(tokens, labels, weight, c), mean)
            away = self._seen.sums[c] / count - mean
            if self.reference == "out":
                other, n_other = everything - inner, n_tokens - count
                away_other = away - difference[c]
            else:
                other, n_other = everything, n_tokens
                away_other = np.zeros_like(away)
            # Second moments about the common mean; what remains of the mixed terms.
            mixed = np.outer(away, away_other)
            pairs = inner / count + other / n_other - mixed - mixed.T
            vector = _leading(pairs)
            vectors[c] = -vector if vector @ difference[c] < 0 else vector
        return vectors


def _labelled(
    tokens: TokenArray, labels: TokenArray, weight: Array | None, concept: int
) -> Iterator[tuple[Array | None, Array]]:
    for samples, values in tokens.blocks():
        marked, times = (
            labels[samples].flat()[:, concept],
            weight_of_tokens(tokens, weight, samples),
        )
        yield None if times is None else times[marked], values[marked]


def _leading(matrix: Array) -> Array:
    n = len(matrix)
    return eigh(matrix, subset_by_index=[n - 1, n - 1])[1][:, 0]
