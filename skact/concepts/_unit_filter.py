"""Leaving out units that cannot stand for any of the labelled concepts."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.validation import check_is_fitted

from skact.arguments import Number
from skact.base import TokenTransformer
from skact.rows import Array, most_held, offsets_of, rows_from, runs, segment_max
from skact.targets import check_targets
from skact.tokens import TokenArray
from skact.validation import check_outputs, check_tokens, like_input

__all__ = ["SAEUnitFilter", "firing", "strength_quantile", "strong_activations"]


def strength_quantile(
    n_concepts: int, quantiles: tuple[float, float], n_concepts_range: tuple[int, int]
) -> float:
    """Interpolate the quantile of strength below which units are dropped.

    Parameters
    ----------
    n_concepts : int
        Labelled concepts.
    quantiles : tuple of two floats
        The quantile at, and outside, the ends of the range.
    n_concepts_range : tuple of two ints
        Numbers of concepts between which it rises linearly.

    Returns
    -------
    quantile : float
        In [0, 1].

    Examples
    --------
    >>> from skact.concepts._unit_filter import strength_quantile
    >>> [round(strength_quantile(n, (0.5, 0.8), (1, 81)), 3) for n in (1, 41, 81, 500)]
    [0.5, 0.65, 0.8, 0.8]
    """
    return float(np.interp(n_concepts, n_concepts_range, quantiles))


def firing(tokens: TokenArray) -> tuple[Array, Array]:
    """Count where each unit fires.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_units)
        Activations.

    Returns
    -------
    n_samples : ndarray of shape (n_units,), dtype int64
        Samples with a positive activation.
    n_tokens : ndarray of shape (n_units,), dtype int64
        Tokens with one.
    """
    lengths = tokens.lengths

    def count(samples: slice, values: Array) -> Array:
        positive = values > 0
        fires = segment_max(positive, offsets_of(lengths[samples]))
        return np.stack([np.count_nonzero(fires, axis=0), np.count_nonzero(positive, axis=0)])

    total = np.zeros((2, tokens.n_features), np.int64)
    for counts in tokens.each_block(count):
        total += counts
    return total[0], total[1]


def strong_activations(
    tokens: TokenArray, columns: Array, n_positive: Array, quantile: float
) -> Array:
    """Quantile of the positive activations of some columns, in as few passes as memory allows.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_units)
        Activations.
    columns : ndarray of int of shape (n_columns,)
        Ascending columns, each with a positive activation.
    n_positive : ndarray of int of shape (n_columns,)
        How many positive ones each has.
    quantile : float
        In [0, 1]; linear interpolation.

    Returns
    -------
    strengths : ndarray of shape (n_columns,), dtype float64
        One per column.
    """
    out = np.empty(len(columns))
    for run in runs(n_positive * tokens.dtype.itemsize, most_held() / 2):
        chosen, offsets = columns[run], offsets_of(n_positive[run])
        held, filled = np.empty(offsets[-1], tokens.dtype), offsets[:-1].copy()
        for values, counts in tokens.each_block(partial(_positive, chosen)):
            held[rows_from(filled, counts)] = values
            filled += counts
        for c, (start, stop) in enumerate(pairwise(offsets), run.start):
            out[c] = np.quantile(held[start:stop].astype(np.float64), quantile)
    return out


def _positive(columns: Array, samples: slice, values: Array) -> tuple[Array, Array]:
    """Positive values column after column, and how many each column has."""
    some = values[:, columns].T
    positive = some > 0
    return some[positive], np.count_nonzero(positive, axis=1)


class SAEUnitFilter(SelectorMixin, TokenTransformer):
    r"""Keep the units that fire about as often as the labelled concepts occur, and strongly.

    A unit fires in a sample if any token's activation is positive. With :math:`\phi_j` the share of
    samples in which unit j fires and :math:`\pi_c` the share that holds concept c, a unit is kept
    if [1]_

    - it is neither dead nor ubiquitous: :math:`\phi_j > 0` and
      :math:`\phi_{min} \le \phi_j \le \phi_{max}`;
    - it fires about as often as concepts occur:
      :math:`a \min_c \pi_c \le \phi_j \le b \max_c \pi_c`;
    - its strong activations are not weak: its strength, the 99th percentile of its positive
      activations, reaches a quantile of the strengths of all units that pass the first two rules.

    Strength is taken over the tokens on which a unit fires: a sparse unit fires on less than one
    token in a hundred, and over all tokens its percentile would be 0. The paper gives the quantile
    as 0.5 to 0.8, more with more concepts; here it rises linearly between two numbers of concepts.

    Parameters
    ----------
    min_share, max_share : float, default=0.001, 0.99
        :math:`\phi_{min}` and :math:`\phi_{max}`.
    min_ratio, max_ratio : float, default=0.75, 1.25
        a and b.
    percentile : float, default=99
        Percentile of a unit's positive activations that is its strength.
    strength_quantiles : tuple of two floats, default=(0.5, 0.8)
        Quantile of the strengths that must be reached, for few and for many concepts.
    n_concepts_range : tuple of two ints, default=(1, 80)
        The numbers of concepts that count as few and many.

    Attributes
    ----------
    support_ : ndarray of shape (n_units,), dtype bool
        Units that are kept.
    frequencies_ : ndarray of shape (n_units,), dtype float64
        :math:`\phi_j`.
    frequency_range_ : tuple of two floats
        Lowest and highest frequency that passes the first two rules.
    strengths_ : ndarray of shape (n_units,), dtype float64
        Strengths; NaN for units that fail the first two rules.
    min_strength_ : float
        Strength that must be reached.
    unit_names_ : ndarray of shape (n_units,), dtype object, or None
        Names of all units, if the activations have any.
    n_features_in_ : int
        Units.
    source_ : Source or None
        Model, layer and scaling behind the activations.

    References
    ----------
    .. [1] Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate
       Reliable Concept Signals in the Tail", appendix on sparse autoencoders.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import SAEUnitFilter
    >>> y = np.array([1, 1, 0, 0])
    >>> dead, ubiquitous, useful, weak = np.zeros(4), np.ones(4), 3.0 * y, 0.1 * y
    >>> SAEUnitFilter().fit(np.c_[dead, ubiquitous, useful, weak], y).get_support()
    array([False, False,  True, False])
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "min_share": [Number(Real, 0, 1, closed="both")],
        "max_share": [Number(Real, 0, 1, closed="both")],
        "min_ratio": [Number(Real, 0, None, closed="left")],
        "max_ratio": [Number(Real, 0, None, closed="right")],
        "percentile": [Number(Real, 0, 100, closed="both")],
        "strength_quantiles": [tuple, list],
        "n_concepts_range": [tuple, list],
    }

    support_: Array
    frequencies_: Array
    frequency_range_: tuple[float, float]
    strengths_: Array
    min_strength_: float
    unit_names_: Array | None

    def __init__(
        self,
        *,
        min_share: float = 0.001,
        max_share: float = 0.99,
        min_ratio: float = 0.75,
        max_ratio: float = 1.25,
        percentile: float = 99,
        strength_quantiles: tuple[float, float] = (0.5, 0.8),
        n_concepts_range: tuple[int, int] = (1, 80),
    ) -> None:
        self.min_share = min_share
        self.max_share = max_share
        self.min_ratio = min_ratio
        self.max_ratio = max_ratio
        self.percentile = percentile
        self.strength_quantiles = strength_quantiles
        self.n_concepts_range = n_concepts_range

    def fit(self, X: Any, y: Any) -> Self:
        """Choose the units.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Activations (n_tokens, n_units) of each training sample.
        y : array-like of shape (n_samples,) or (n_samples, n_concepts)
            Class labels (two classes: one concept, the larger class; more: one concept a class)
            or an indicator matrix.

        Returns
        -------
        self : SAEUnitFilter
            Fitted.

        Raises
        ------
        ValueError
            If X and y do not fit together, or no unit is left; the rule that left none is named.
        """
        self._validate_params()
        self._check_ranges()
        tokens = check_tokens(self, X)
        targets = check_targets(self, y, len(tokens))
        names = tokens.feature_names
        self.unit_names_ = None if names is None else np.array(names, dtype=object)
        n_samples, n_positive = firing(tokens)
        self.frequencies_ = n_samples / len(tokens)
        share = targets.present.mean(axis=0)
        low = max(self.min_share, self.min_ratio * float(share.min()))
        high = min(self.max_share, self.max_ratio * float(share.max()))
        self.frequency_range_ = (low, high)
        frequent = (
            (self.frequencies_ > 0) & (low <= self.frequencies_) & (self.frequencies_ <= high)
        )
        survivors = np.flatnonzero(frequent)
        if len(survivors) == 0:
            raise ValueError(
                f"no unit is left: of {tokens.n_features} units "
                f"{np.count_nonzero(self.frequencies_ == 0)} fire in no sample, and none of the "
                f"others in a share of samples between {low:.4g} and {high:.4g}. Widen min_ratio="
                f"{self.min_ratio}, max_ratio={self.max_ratio}, min_share={self.min_share} or "
                f"max_share={self.max_share}."
            )
        strengths = strong_activations(
            tokens, survivors, n_positive[survivors], self.percentile / 100
        )
        first, last = self.strength_quantiles
        few, many = self.n_concepts_range
        quantile = strength_quantile(targets.n_concepts, (first, last), (few, many))
        self.min_strength_ = float(np.quantile(strengths, quantile))
        self.strengths_ = np.full(tokens.n_features, np.nan)
        self.strengths_[survivors] = strengths
        self.support_ = frequent & (self.strengths_ >= self.min_strength_)
        return self

    def _check_ranges(self) -> None:
        quantiles, numbers = self.strength_quantiles, self.n_concepts_range
        if not (
            len(quantiles) == 2
            and all(isinstance(q, Real) for q in quantiles)
            and 0 <= quantiles[0] <= quantiles[1] <= 1
        ):
            raise ValueError(
                f"strength_quantiles must be two ascending numbers in [0, 1], got {quantiles!r}."
            )
        if not (
            len(numbers) == 2
            and all(isinstance(n, Integral) for n in numbers)
            and 1 <= numbers[0] < numbers[1]
        ):
            raise ValueError(
                f"n_concepts_range must be two ascending integers from 1, got {numbers!r}."
            )

    def _get_support_mask(self) -> Array:
        check_is_fitted(self)
        return self.support_

    def transform(self, X: Any) -> TokenArray | Array:
        """Keep the columns of the chosen units.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Activations.

        Returns
        -------
        activations : TokenArray of shape (n_samples, n_kept), or ndarray for a 2-D array
            The columns in their order, with their names and their source.

        Raises
        ------
        NotFittedError, ValueError, TypeError
            Before ``fit``, if X does not fit what was given to ``fit``, or if it is no activations.
        """
        return TokenTransformer.transform(self, X)

    def _transform(self, tokens: TokenArray) -> TokenArray:
        return tokens.columns(self.support_)

    def inverse_transform(self, X: Any) -> TokenArray | Array:
        """Put the kept columns back in their places, and zeros in all others.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Activations of the kept units.

        Returns
        -------
        activations : TokenArray of shape (n_samples, n_units), or ndarray for a 2-D array
            Activations of all units.

        Raises
        ------
        ValueError
            If X has another number of columns than there are kept units.
        """
        tokens = check_outputs(self, X, int(self.get_support().sum()))
        names = None if self.unit_names_ is None else list(self.unit_names_)
        return like_input(X, tokens.map(self._spread, feature_names=names, source=tokens.source))

    def _spread(self, values: Array) -> Array:
        """Put flat columns back in their places: (n_tokens, n_kept) to (n_tokens, n_units)."""
        out = np.zeros((len(values), len(self.support_)), values.dtype)
        out[:, self.support_] = values
        return out

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Return the names of the kept units.

        Parameters
        ----------
        input_features : array-like of str of shape (n_units,), default=None
            Names of all units; None takes those seen in ``fit``, or ``x0``, ``x1``, ...

        Returns
        -------
        names : ndarray of shape (n_kept,), dtype object
            Names.
        """
        check_is_fitted(self)
        if input_features is None and self.unit_names_ is not None:
            return self.unit_names_[self.support_]
        return super().get_feature_names_out(input_features)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags
