"""What holds for all activations: concentration, equalization, and how much noise is allowed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from skact.theory._dynamics import (
    Floats,
    check_shapes,
    gap_variance,
    mean_activation,
    number,
    numbers,
    positive,
)

__all__ = [
    "FORMS",
    "Range",
    "concentration_bound",
    "equalization_bounds",
    "equalization_ratio",
    "gap_threshold",
    "noise_term",
    "off_pole_mass",
    "pole_margins",
    "softmax_stability",
]

FORMS = ("paper", "sharp", "noiseless")


class Range(NamedTuple):
    """Two ends between which something lies.

    Parameters
    ----------
    low, high : ndarray or float
        The ends.
    """

    low: Floats | float
    high: Floats | float


def pole_margins(activations: npt.ArrayLike) -> Range:
    """Give how far each pole stands from the token next to it.

    Parameters
    ----------
    activations : array-like of shape (..., n_tokens)
        At least two tokens.

    Returns
    -------
    margins : Range
        ``low`` is the distance from the smallest activation to the second smallest, ``high`` that
        from the largest to the second largest, each of shape (...); 0 where two tokens are equal.

    Raises
    ------
    ValueError
        If the argument is not as said.
    """
    a = numbers(activations, "activations", 1)
    if a.shape[-1] < 2:
        raise ValueError("activations must have two or more tokens, for a margin; got one.")
    ordered = np.sort(a, axis=-1)
    return Range(ordered[..., 1] - ordered[..., 0], ordered[..., -1] - ordered[..., -2])


def _pole(a: Floats) -> Floats:
    """Token that each token's attention tends to: the largest for positive ones, else the least."""
    return np.where(a > 0, a.argmax(axis=-1)[..., None], a.argmin(axis=-1)[..., None])


def off_pole_mass(attention: npt.ArrayLike, activations: npt.ArrayLike) -> Floats:
    """Give the attention of each token that does not go to its pole.

    Parameters
    ----------
    attention : array-like of shape (..., n_tokens, n_tokens)
        As from :func:`~skact.theory.attention`.
    activations : array-like of shape (..., n_tokens)
        Activations of the same tokens. The pole of a positive one is the largest, of others the
        smallest.

    Returns
    -------
    mass : ndarray of shape (..., n_tokens)
        In [0, 1].

    Raises
    ------
    ValueError
        If shapes do not fit each other.
    """
    a, weights = numbers(activations, "activations", 1), numbers(attention, "attention", 2)
    if weights.shape != (*a.shape, a.shape[-1]):
        raise ValueError(
            f"attention must have shape {(*a.shape, a.shape[-1])}, one row per token of "
            f"activations, got {weights.shape}."
        )
    elsewhere = np.arange(a.shape[-1]) != _pole(a)[..., None]
    return np.asarray(np.where(elsewhere, weights, 0).sum(axis=-1))


def concentration_bound(
    activations: npt.ArrayLike, kappa: float, *, logit_bound: float = 0.0
) -> Floats:
    r"""Bound the attention of each token that does not go to its pole.

    .. math:: (T - 1)\, e^{2 e - \kappa |a_i| g}

    with the margin g of the pole, and at most 1.

    Parameters
    ----------
    activations : array-like of shape (..., n_tokens)
        At least two tokens.
    kappa : float
        Sharpness, above 0.
    logit_bound : float, default=0
        e, the largest noise of a logit.

    Returns
    -------
    bound : ndarray of shape (..., n_tokens)
        On :func:`off_pole_mass`.

    Raises
    ------
    ValueError
        If an argument is not as said.

    Examples
    --------
    >>> from skact.theory import attention, concentration_bound, off_pole_mass
    >>> a = [-1.0, 0.5, 2.0]
    >>> off_pole_mass(attention(a, 1.0), a).round(3)
    array([0.214, 0.41 , 0.05 ])
    >>> concentration_bound(a, 1.0).round(3)
    array([0.446, 0.945, 0.1  ])
    """
    a = numbers(activations, "activations", 1)
    low, high = (np.asarray(margin)[..., None] for margin in pole_margins(a))
    reach = positive(kappa, "kappa") * np.abs(a) * np.where(a > 0, high, low)
    exponent = 2 * number(logit_bound, "logit_bound", 0) - reach + np.log(a.shape[-1] - 1)
    return np.exp(np.minimum(exponent, 0))


def equalization_ratio(activations: npt.ArrayLike, kappa: float, beta: float) -> Floats:
    r"""Give the factor by which a layer without noise multiplies a distance to the largest token.

    .. math:: \frac{\delta_i'}{\delta_i} = \frac{1 + \beta \kappa \bar V_i}
              {1 + \beta m(a_{max}) / a_{max}}, \qquad \delta_i = \frac{a_{max} - a_i}{a_{max}}

    Parameters
    ----------
    activations : array-like of shape (..., n_tokens)
        Distances are shares of the largest one of each sequence.
    kappa, beta : float
        Sharpness, above 0, and strength of the write.

    Returns
    -------
    ratio : ndarray of shape (..., n_tokens)
        It tends to 1 / (1 + beta) as attention concentrates. Infinite or NaN where the largest
        activation is or becomes 0.

    Raises
    ------
    ValueError
        If an argument is not as said.
    """
    a, top, beta = _with_top(activations, beta)
    slope = 1 + beta * positive(kappa, "kappa") * gap_variance(
        np.broadcast_to(top, a.shape), a, a, kappa
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(slope / (1 + beta * mean_activation(top, a, kappa) / top))


def _with_top(activations: npt.ArrayLike, beta: float) -> tuple[Floats, Floats, float]:
    a = numbers(activations, "activations", 1)
    top = a.max(axis=-1, keepdims=True)
    return a, top, number(beta, "beta")


def equalization_bounds(activations: npt.ArrayLike, kappa: float, beta: float) -> Range:
    r"""Bound that factor for positive tokens, by what attention off the pole can do.

    With :math:`q(x) = (T - 1) e^{-\kappa x g}`, the range R of the activations and :math:`\beta
    \ge 0`,

    .. math:: \frac{1}{1 + \beta} \le \frac{\delta_i'}{\delta_i} \le
              \frac{1 + \beta \kappa R^2 \min(q(a_i), 1/4)}{1 + \beta (1 - q(a_{max}) R / a_{max})},

    for the variance under the attention of a token between :math:`a_i` and :math:`a_{max}` is at
    most :math:`q(a_i) R^2`, and never above :math:`R^2 / 4`, and its mean is at least
    :math:`a_{max} - q R`. Both ends meet as :math:`\kappa a_i g` grows. Nothing is said of a
    sequence whose largest activation does not stay positive.

    Parameters
    ----------
    activations : array-like of shape (..., n_tokens)
        At least two tokens.
    kappa, beta : float
        Sharpness, above 0, and strength of the write, not below 0.

    Returns
    -------
    bounds : Range
        On :func:`equalization_ratio`, each of shape (..., n_tokens): NaN where a token is not
        positive, infinite where nothing is said.

    Raises
    ------
    ValueError
        If an argument is not as said.
    """
    a, top, beta = _with_top(activations, number(beta, "beta", 0))
    off = concentration_bound(a, kappa)
    spread = np.ptp(a, axis=-1, keepdims=True)
    at_top = np.take_along_axis(off, a.argmax(axis=-1)[..., None], axis=-1)
    above = 1 + beta * kappa * spread**2 * np.minimum(off, 0.25)
    with np.errstate(divide="ignore", invalid="ignore"):
        below = 1 + beta * (1 - at_top * spread / top)
        stays = 1 + beta * mean_activation(top, a, kappa) / top > 0
        high = np.where(stays & (below > 0), above / np.maximum(below, 0), np.inf)
    low = np.where(stays, 1 / (1 + beta), -np.inf)
    return Range(np.where(a > 0, low, np.nan), np.where(a > 0, high, np.nan))


def softmax_stability(logit_bound: float) -> dict[str, float]:
    r"""Give how far noise of the logits moves a softmax.

    Parameters
    ----------
    logit_bound : float
        d, the largest change of a logit.

    Returns
    -------
    bounds : dict
        "ratio" bounds the quotient of two weights :math:`p_k / q_k`, from above as it is and from
        below by its inverse, :math:`e^{2d}`; "paper" bounds :math:`\sum_k |p_k - q_k|` by
        :math:`e^{2d} - 1`, and "tight" by :math:`2 \tanh(d / 2)`, which two tokens attain.

    Raises
    ------
    ValueError
        If the argument is not as said.
    """
    d = number(logit_bound, "logit_bound", 0)
    ratio = float(np.exp(2 * d))
    return {"ratio": ratio, "paper": ratio - 1, "tight": 2 * float(np.tanh(d / 2))}


def noise_term(
    spread: npt.ArrayLike,
    beta: float,
    *,
    logit_bound: float = 0.0,
    noise_bound: float = 0.0,
    form: str = "paper",
) -> Floats:
    r"""Bound how far noise moves a gap from its growth.

    .. math:: |\Delta' - (1 + \beta \kappa \bar V)\, \Delta| \le N

    Parameters
    ----------
    spread : array-like
        R, the largest activation less the smallest.
    beta : float
        Strength of the write.
    logit_bound, noise_bound : float, default=0
        e and n, the largest noise of a logit and of an activation.
    form : {"paper", "sharp", "noiseless"}, default="paper"
        "paper" is :math:`\beta R (e^{4e} - 1) / 2 + 2n`. "sharp" is :math:`\beta R \tanh e + 2n`;
        its :math:`\bar V_{ij}` is that under the noisy attention of token i or j. Around the
        growth **without** noise that is not a bound; "noiseless", :math:`2 \beta R \tanh(e / 2) +
        2n`, is one, and two tokens attain it. "paper" holds around both.

    Returns
    -------
    bound : ndarray, of the shape of spread
        N.

    Raises
    ------
    ValueError
        If an argument is not as said.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {list(FORMS)}, got {form!r}.")
    reach = numbers(spread, "spread")
    if (reach < 0).any():
        raise ValueError(f"spread must not be negative, got {spread!r}.")
    e, n = number(logit_bound, "logit_bound", 0), number(noise_bound, "noise_bound", 0)
    moved = {"paper": np.expm1(4 * e) / 2, "sharp": np.tanh(e), "noiseless": 2 * np.tanh(e / 2)}
    return np.asarray(abs(number(beta, "beta")) * reach * moved[form] + 2 * n)


def gap_threshold(
    variance: npt.ArrayLike,
    spread: npt.ArrayLike,
    kappa: float,
    beta: float,
    *,
    logit_bound: float = 0.0,
    noise_bound: float = 0.0,
    form: str = "paper",
) -> Floats:
    r"""Give how large a gap must be for a layer with noise to widen it.

    A gap grows for certain when :math:`\beta \kappa \bar V \Delta > N`, so when it exceeds
    :math:`N / (\beta \kappa \bar V)`.

    Parameters
    ----------
    variance : array-like
        :math:`\bar V`, from :func:`~skact.theory.gap_variance` or
        :func:`~skact.theory.pair_variance`, with or without noise as ``form`` says.
    spread, logit_bound, noise_bound, form : as in :func:`noise_term`
        What bounds the noise; spread of a shape that fits variance.
    kappa, beta : float
        Sharpness, above 0, and strength of the write, not below 0.

    Returns
    -------
    threshold : ndarray, of the shape of variance
        Infinite where nothing grows: no variance, or beta is 0.

    Raises
    ------
    ValueError
        If an argument is not as said.
    """
    beta = number(beta, "beta", 0)
    noise = noise_term(spread, beta, logit_bound=logit_bound, noise_bound=noise_bound, form=form)
    rate = beta * positive(kappa, "kappa") * numbers(variance, "variance")
    check_shapes(variance=rate.shape, spread=noise.shape)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(rate > 0, noise / rate, np.inf)
