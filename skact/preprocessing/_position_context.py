"""Tokens without what their position alone puts into them."""

from __future__ import annotations

import hashlib
from numbers import Integral
from typing import Any, Self

import numpy as np
from scipy.sparse import csr_array
from sklearn.base import OneToOneFeatureMixin

from skact.arguments import Number
from skact.base import TokenTransformer
from skact.rows import Array, as_floats, offsets_of, positions_of, segment_sum
from skact.tokens import TokenArray, rescaled
from skact.validation import check_tokens
from skact.warning import warn

__all__ = ["PositionContext"]


class PositionContext(OneToOneFeatureMixin, TokenTransformer):
    r"""Take apart what tokens have of their position, of their sample, and by themselves.

    The token at position t of sample c is a sum [1]_

    .. math:: h_{c,t} = \mu + p_t + x_c + r_{c,t}, \qquad p_t = \operatorname{mean}_c h_{c,t} - \mu,
              \qquad x_c = \operatorname{mean}_t (h_{c,t} - p_t) - \mu

    with :math:`\mu` the mean of all training tokens. ``transform`` subtracts the positions,
    :math:`h_{c,t} - p_t`. The energies of the three parts add up to that of :math:`h - \mu`; where
    all samples are of one length they are orthogonal, and :math:`x_c` is the mean of the sample
    less :math:`\mu`. Positions that few training samples reach share one mean with all that come
    behind them. Patches of an image are numbered row by row.

    Parameters
    ----------
    min_samples : int, default=10
        Training samples that a position needs for a mean of its own.

    Attributes
    ----------
    mean_ : ndarray of shape (n_features,), dtype float64
        :math:`\mu`.
    positions_ : ndarray of shape (n_positions, n_features), dtype float64
        :math:`p_t`; the last one serves all further positions too.
    shares_ : ndarray of shape (3,), dtype float64
        Shares of position, context and rest in the energy about the mean; 0 if there is none.
    grid_ : ndarray of shape (2,), dtype int64, or None
        Rows and columns of the samples, where they are grids.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Where the training tokens came from.

    Warns
    -----
    UserWarning
        If so few samples have a second token that nothing is subtracted.

    References
    ----------
    .. [1] Song, Zhong, "Uncovering Hidden Geometry in Transformers via Disentangling Position and
       Context", 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import PositionContext
    >>> X = np.array([[[1.0], [5.0]], [[3.0], [7.0]]])
    >>> step = PositionContext(min_samples=2).fit(X)
    >>> step.positions_.ravel(), step.shares_
    (array([-2.,  2.]), array([0.8, 0.2, 0. ]))
    >>> step.transform(X)[0].ravel()
    array([3., 3.])
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "min_samples": [Number(Integral, 1, None, closed="left")]
    }

    mean_: Array
    positions_: Array
    shares_: Array
    grid_: Array | None

    def __init__(self, min_samples: int = 10) -> None:
        self.min_samples = min_samples

    def fit(self, X: Any, y: Any = None) -> Self:
        """Average the tokens at each position.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Training tokens.
        y : None
            Ignored.

        Returns
        -------
        self : PositionContext
            Fitted.

        Raises
        ------
        ValueError
            If X is not finite, or holds grids of several shapes, where a position is not one place.
        """
        self._validate_params()
        tokens = check_tokens(self, X)
        self.grid_ = None if tokens.shapes is None else tokens.shapes[0]
        self._check_grids(tokens)
        lengths = tokens.lengths
        reached = (lengths[:, None] > np.arange(lengths.max())).sum(axis=0)
        n_positions = max(1, int((reached >= self.min_samples).sum()))
        if n_positions == 1 and lengths.max() > 1:
            warn(
                f"no position but the first is reached by min_samples={self.min_samples} of "
                f"{len(tokens)} samples, so nothing is subtracted."
            )
        sums, counts = np.zeros((n_positions, tokens.n_features)), np.zeros(n_positions)
        for samples, block in tokens.blocks():
            where = _places(lengths[samples], n_positions)
            marks = csr_array((np.ones(len(where)), (where, np.arange(len(where)))))
            sums[: marks.shape[0]] += marks @ block.astype(np.float64)
            counts += np.bincount(where, minlength=n_positions)
        self.mean_ = sums.sum(axis=0) / counts.sum()
        self.positions_ = sums / counts[:, None] - self.mean_
        by_position = float(counts @ (self.positions_**2).sum(axis=1))
        self.shares_ = self._shares(tokens, by_position)
        return self

    def _shares(self, tokens: TokenArray, by_position: float) -> Array:
        """Energy of position, context and rest, as shares of their sum."""
        lengths, left, by_context = tokens.lengths, 0.0, 0.0
        for samples, block in tokens.blocks():
            some = lengths[samples]
            rest = block.astype(np.float64) - self.mean_
            rest -= self.positions_[_places(some, len(self.positions_))]
            left += float(np.vdot(rest, rest))
            sums = segment_sum(rest, offsets_of(some))
            by_context += float(((sums**2).sum(axis=1) / some).sum())
        parts = np.array([by_position, by_context, max(left - by_context, 0)])
        return parts / (parts.sum() or 1)

    def _check_grids(self, tokens: TokenArray) -> None:
        shapes = tokens.shapes
        if self.grid_ is None or shapes is None:
            return
        other = np.flatnonzero((shapes != self.grid_).any(axis=1))
        if len(other):
            raise ValueError(
                f"X holds a grid of {tuple(shapes[other[0]].tolist())} patches, sample {other[0]}, "
                f"and one of {tuple(self.grid_.tolist())} in fit: a position is another place in "
                "each; take samples of one shape."
            )

    def _transform(self, tokens: TokenArray) -> TokenArray:
        self._check_grids(tokens)
        lengths, out, done = tokens.lengths, None, 0
        for samples, block in tokens.blocks():
            values = as_floats(block)
            moved = self.positions_[_places(lengths[samples], len(self.positions_))]
            if out is None:
                out = np.empty((tokens.n_tokens, tokens.n_features), values.dtype)
            out[done : done + len(block)] = values - moved.astype(values.dtype)
            done += len(block)
        digest = hashlib.sha256(self.positions_.tobytes()).hexdigest()
        source = rescaled(tokens.source, f"PositionContext {digest[:12]}")
        return tokens.with_values(out, tokens.feature_names, source)

    @property
    def token_function(self) -> Any:
        """Not there: what happens to a token depends on where it stands."""
        raise AttributeError("PositionContext has no token_function: it needs whole samples.")


def _places(lengths: Array, n_positions: int) -> Array:
    """Which mean each token takes, int64 of shape (n_tokens,)."""
    return np.minimum(positions_of(lengths), n_positions - 1)
