"""Bound the norm of outlier tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any, Self

import numpy as np
from sklearn.base import OneToOneFeatureMixin

from skact.arguments import Number
from skact.base import TokenTransformer
from skact.rows import Array, as_floats, row_chunks
from skact.tokens import TokenArray, rescaled
from skact.validation import check_tokens

__all__ = ["NormClip"]


class NormClip(OneToOneFeatureMixin, TokenTransformer):
    r"""Scale tokens of an outlying norm down to a multiple of the median norm.

    .. math:: z' = z \, \min\!\Big(1, \frac{r\,m}{\lVert z \rVert}\Big), \qquad
        m = \operatorname{median}_i \lVert z_i \rVert

    with the median over all training tokens that are not zero. A few massive activations, at
    delimiters of some language models and at register-like patches of some vision transformers,
    carry nearly all of the squared norm, so that means, scales and separators are about them [1]_.
    Clipped, they keep
    their place, their label and their direction. Goes before :class:`TokenScaler`.

    Parameters
    ----------
    ratio : float, default=20
        Largest norm in units of the median norm.

    Attributes
    ----------
    median_norm_ : float
        Median norm of the training tokens that are not zero; 0 if all are.
    n_clipped_ : int
        Training tokens beyond the largest norm.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Where the training tokens came from.

    References
    ----------
    .. [1] Sun, Chen, Kolter, Liu, "Massive Activations in Large Language Models", COLM 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import NormClip
    >>> X = [np.array([[300.0, 400.0], [0.0, 1.0]]), np.array([[1.0, 0.0]])]
    >>> clip = NormClip().fit(X)
    >>> clip.median_norm_, clip.n_clipped_
    (1.0, 1)
    >>> clip.transform(X)[0]
    array([[12., 16.],
           [ 0.,  1.]])
    """

    _parameter_constraints = {"ratio": [Number(Real, 0, None, closed="neither")]}

    median_norm_: float
    n_clipped_: int

    def __init__(self, ratio: float = 20) -> None:
        self.ratio = ratio

    def fit(self, X: Any, y: Any = None) -> Self:
        """Compute the median norm.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Training tokens.
        y : None
            Ignored.

        Returns
        -------
        self : NormClip
            Fitted.

        Raises
        ------
        ValueError, TypeError
            If X is not finite, or is no activations.
        """
        self._validate_params()
        tokens = check_tokens(self, X, reset=True)
        norms = np.concatenate(list(tokens.each_block(lambda _, block: _norms(block))))
        self.median_norm_ = float(np.median(norms[norms > 0])) if norms.any() else 0.0
        self.n_clipped_ = int((norms > self.ratio * self.median_norm_).sum())
        return self

    @property
    def _limit(self) -> float:
        return self.ratio * self.median_norm_ or np.inf

    def _transform(self, tokens: TokenArray) -> TokenArray:
        digest = hashlib.sha256(np.float64(self._limit).tobytes()).hexdigest()
        return tokens.map(
            self._function(),
            feature_names=tokens.feature_names,
            source=rescaled(tokens.source, f"NormClip {digest[:12]}"),
        )

    def _function(self) -> Callable[[Array], Array]:
        return partial(_clipped, limit=self._limit)


def _norms(block: Array) -> Array:
    """Norm of each token, float64 of shape (n_tokens,)."""
    norms = [np.linalg.norm(chunk.astype(np.float64), axis=1) for chunk in row_chunks(block)]
    return np.concatenate(norms)


def _clipped(block: Array, limit: float) -> Array:
    values, norms = as_floats(block), _norms(block)
    odd = norms > limit
    if not odd.any():
        return values
    out: Array = values.copy()
    out[odd] = values[odd] * (limit / norms[odd])[:, None]  # in float64, which holds the ratio
    return out
