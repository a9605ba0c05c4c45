"""Centre tokens and divide them by one scalar."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import numpy as np
from sklearn.base import OneToOneFeatureMixin
from sklearn.utils.validation import check_is_fitted

from skact.base import MergeMixin, TokenTransformer
from skact.rows import Array, as_floats, row_chunks
from skact.tokens import TokenArray, rescaled
from skact.validation import check_tokens, like_input, weighted_samples

__all__ = ["TokenScaler"]


class TokenScaler(MergeMixin, OneToOneFeatureMixin, TokenTransformer):
    r"""Centre tokens and divide them by one scalar, so that layers become comparable.

    .. math:: z' = (z - \mu) / s, \qquad s = \sqrt{\tfrac1N \sum_i \lVert z_i \rVert^2}

    with the mean :math:`\mu` over all training tokens and the root mean square norm :math:`s` of
    the **un-centred** tokens: angles between centred tokens stay as they are, which a scale per
    feature would not do [1]_.

    Parameters
    ----------
    with_mean : bool, default=True
        Subtract the mean.
    with_scale : bool, default=True
        Divide by the scalar.

    Attributes
    ----------
    mean_ : ndarray of shape (n_features,), dtype float64
        Mean of the training tokens.
    scale_ : float
        Root mean square norm of the un-centred training tokens; 1 if all are zero.
    n_tokens_seen_ : int or float
        Training tokens, each as often as its sample counts.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Where the training tokens came from.

    References
    ----------
    .. [1] Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate
       Reliable Concept Signals in the Tail", appendix on embeddings.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import TokenScaler
    >>> scaler = TokenScaler().fit([np.array([[3.0, 4.0]]), np.array([[3.0, 4.0], [-3.0, 4.0]])])
    >>> scaler.mean_, scaler.scale_
    (array([1., 4.]), 5.0)
    """

    _parameter_constraints = {"with_mean": ["boolean"], "with_scale": ["boolean"]}

    mean_: Array
    scale_: float
    n_tokens_seen_: float
    _mean_square: float

    def __init__(self, *, with_mean: bool = True, with_scale: bool = True) -> None:
        self.with_mean = with_mean
        self.with_scale = with_scale

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Compute mean and scale.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Training tokens.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each sample counts, with all of its tokens: a weight of 2 is that of a sample
            that is there twice, one of 0 leaves it out.

        Returns
        -------
        self : TokenScaler
            Fitted.

        Raises
        ------
        ValueError
            If X is not finite, or the weights are no weights of its samples.
        """
        return self._update(X, sample_weight, 0)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Go on with more training tokens; in any order, the result is that of one ``fit``.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            More training tokens.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            As in ``fit``; those of a call that average less than 1 are scaled to an average of 1.

        Returns
        -------
        self : TokenScaler
            Fitted.

        Raises
        ------
        ValueError
            If X is not finite, or the weights are no weights of its samples.
        """
        return self._update(X, sample_weight, getattr(self, "n_tokens_seen_", 0))

    def _update(self, X: Any, sample_weight: Any, n_seen: float) -> Self:
        self._validate_params()
        first = n_seen == 0
        tokens, _, weight = weighted_samples(sample_weight, check_tokens(self, X, reset=first))
        lengths, total, square = tokens.lengths, np.zeros(tokens.n_features), 0.0

        def moments(samples: slice, block: Array) -> tuple[Array, float]:
            if weight is None:
                return _moments(block)
            return _weighted_moments(block, np.repeat(weight[samples], lengths[samples]))

        for sums, squares in tokens.each_block(moments):
            total += sums
            square += squares
        if not first:
            total += self.mean_ * n_seen
            square += self._mean_square * n_seen
        n_tokens = tokens.n_tokens if weight is None else float(weight @ lengths)
        self._learn(n_seen + n_tokens, total, square)
        return self

    def _learn(self, n_tokens: float, total: Array, square: float) -> None:
        self.n_tokens_seen_, self.mean_ = n_tokens, total / n_tokens
        self._mean_square = square / n_tokens
        self.scale_ = float(np.sqrt(self._mean_square)) or 1.0

    def _join(self, other: Self) -> None:
        mine, its = self.n_tokens_seen_, other.n_tokens_seen_
        self._learn(
            mine + its,
            self.mean_ * mine + other.mean_ * its,
            self._mean_square * mine + other._mean_square * its,
        )

    def _transform(self, tokens: TokenArray) -> TokenArray:
        shift, scale, fingerprint = self._map()
        return tokens.map(
            partial(_scaled, shift=shift, scale=scale),
            feature_names=tokens.feature_names,
            source=rescaled(tokens.source, fingerprint),
        )

    def _function(self) -> Callable[[Array], Array]:
        shift, scale, _ = self._map()
        return partial(_scaled_singles, shift=shift.astype(np.float32), scale=scale)

    def affine_map(self) -> tuple[float, Array]:
        """Give scaled tokens as an affine function of a token: ``weight * token + bias``.

        Returns
        -------
        weight : float
            One over the scale.
        bias : ndarray of shape (n_features,), dtype float64
            What is added.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        """
        check_is_fitted(self)
        shift, scale, _ = self._map()
        return 1 / scale, -shift / scale

    def inverse_transform(self, X: Any) -> TokenArray | Array:
        """Undo ``transform``.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Scaled tokens.

        Returns
        -------
        tokens : TokenArray of shape (n_samples, n_features), or ndarray for a 2-D array
            Tokens in the model's own units.

        Raises
        ------
        NotFittedError, ValueError, TypeError
            Before ``fit``, if X does not fit what was given to ``fit``, or if it is no activations.
        """
        check_is_fitted(self)
        shift, scale, _ = self._map()
        # The source of scaled tokens is not the one the scaler was fitted on, so it is set aside.
        scaled = X.with_source(None) if isinstance(X, TokenArray) else X
        tokens = check_tokens(self, scaled, reset=False)
        unscaled = tokens.map(
            partial(_unscaled, shift=shift, scale=scale),
            feature_names=tokens.feature_names,
            source=self.source_,
        )
        return like_input(X, unscaled)

    def _map(self) -> tuple[Array, float, str]:
        shift = self.mean_ if self.with_mean else np.zeros_like(self.mean_)
        scale = self.scale_ if self.with_scale else 1.0
        digest = hashlib.sha256(shift.tobytes() + np.float64(scale).tobytes()).hexdigest()
        return shift, scale, f"TokenScaler {digest[:12]}"


def _moments(block: Array) -> tuple[Array, float]:
    """Sum of the tokens (n_features,), and of the squares of all their numbers."""
    total, square = np.zeros(block.shape[1]), 0.0
    chunks = list(row_chunks(block))
    exact = np.empty(chunks[0].shape)  # for all of them: new memory takes longer than the sums
    for chunk in chunks:
        values = exact[: len(chunk)]
        values[:] = as_floats(chunk)
        total += values.sum(axis=0)
        square += float(np.vdot(values, values))
    return total, square


def _weighted_moments(block: Array, times: Array) -> tuple[Array, float]:
    """Add up the tokens, and their squares, each as often as it counts."""
    total, square, done = np.zeros(block.shape[1]), 0.0, 0
    for chunk in row_chunks(block):
        values, often = chunk.astype(np.float64), times[done : done + len(chunk)]
        total += often @ values
        square += float(often @ np.einsum("ij,ij->i", values, values))
        done += len(chunk)
    return total, square


def _scaled(block: Array, shift: Array, scale: float) -> Array:
    values = as_floats(block)
    shift = shift.astype(values.dtype)
    # Memory that is new anyway is written again, which is faster than taking more.
    reused = None if np.may_share_memory(values, block) else values
    out: Array = np.subtract(values, shift, out=reused)
    out /= scale
    return out


def _scaled_singles(values: Array, shift: Array, scale: float) -> Array:
    return (values - shift) / scale


def _unscaled(block: Array, shift: Array, scale: float) -> Array:
    values = as_floats(block)
    return values * scale + shift.astype(values.dtype)
