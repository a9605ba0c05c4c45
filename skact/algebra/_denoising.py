"""Maps over a grid of patches, freed of speckle and of what other maps have put into them."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from skact.arguments import Number, Such, checked, float_array
from skact.rows import Array

__all__ = ["rank_gaussian_filter", "remove_interference"]

_ODD = Such(
    "an odd int in the range [1, inf)",
    lambda value: Number(Integral, 1, None, closed="left").is_satisfied_by(value) and value % 2,
)


def _maps(values: Any, name: str, ndims: tuple[int, ...]) -> Array:
    array = float_array(values, name)
    if array.ndim not in ndims or not array.size or not np.isfinite(array).all():
        raise ValueError(
            f"{name} must hold finite numbers, with {' or '.join(map(str, ndims))} dimensions; got "
            f"shape {array.shape}."
        )
    return array


@checked(maps=["array-like"], size=[_ODD])
def rank_gaussian_filter(maps: Any, size: int = 3) -> Array:
    r"""Smooth maps by the middle of each window, wider where the window is noisier.

    Negative values are set to 0. Of the sorted values :math:`v_{(-m)} \le \dots \le v_{(m)}` of the
    size x size window around a patch, with the map mirrored at its border,

    .. math:: \hat v = \frac{\sum_i w_i v_{(i)}}{\sum_i w_i}, \qquad
              w_i = \exp\Big(-\frac{i^2}{2 s^2}\Big), \qquad s = \frac{\sigma}{\mu},

    with :math:`\mu` and :math:`\sigma` the mean and standard deviation of the window [1]_: where
    all is even it is the median, which leaves lone peaks out, and where little stands out of
    nothing more ranks count. A window of zeros gives 0, one of equal values their median. The
    mirror repeats the outermost patches; that of the code published with the source does not.

    Parameters
    ----------
    maps : array-like of shape (n_rows, n_columns) or (n_maps, n_rows, n_columns)
        Maps.
    size : int, default=3
        Patches along a side of the window, odd.

    Returns
    -------
    smooth : ndarray of the shape of ``maps``, dtype float64
        Not negative. Scaling a map scales it.

    Raises
    ------
    ValueError
        If maps are not finite or not of such a shape, or size is even.

    References
    ----------
    .. [1] Li et al., "Token Activation Map to Visually Explain Multimodal LLMs", 2025, section on
       the rank Gaussian filter.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import rank_gaussian_filter
    >>> peak = np.ones((3, 3))
    >>> peak[1, 1] = 1.3
    >>> rank_gaussian_filter(peak).round(3)[1, 1]
    np.float64(1.0)
    """
    given = np.maximum(_maps(maps, "maps", (2, 3)), 0)
    edges = [(0, 0)] * (given.ndim - 2) + [(size // 2, size // 2)] * 2
    padded = np.pad(given, edges, mode="symmetric")
    windows = sliding_window_view(padded, (size, size), axis=(-2, -1))
    ranked = np.sort(windows.reshape(*given.shape, -1), axis=-1)
    mean, deviation = ranked.mean(axis=-1), ranked.std(axis=-1)
    spread = np.divide(deviation, mean, out=np.zeros_like(mean), where=mean > 0)[..., None]
    offsets = np.arange(ranked.shape[-1]) - ranked.shape[-1] // 2
    # The middle has weight 1, and nothing else where the spread is 0.
    scaled = np.divide(offsets, spread, out=np.full(ranked.shape, np.inf), where=spread > 0)
    weights = np.where(offsets == 0, 1.0, np.exp(-(scaled**2) / 2))
    return (weights * ranked).sum(axis=-1) / weights.sum(axis=-1)


@checked(target=["array-like"], others=["array-like"], weights=["array-like", None])
def remove_interference(target: Any, others: Any, weights: Any = None) -> Array:
    r"""Take out of a map what maps of earlier tokens, or of other concepts, have put into it.

    .. math:: m' = \max(0,\, m - s\, u), \qquad u = \sum_i w_i m_i, \qquad
              s = \arg\min_s \lVert m - s\, u \rVert^2
              = \frac{\langle m, u \rangle}{\lVert u \rVert^2}

    with :math:`w_i` how much each of them has to do with this one [1]_.

    Parameters
    ----------
    target : array-like of shape (n_rows, n_columns)
        The map m.
    others : array-like of shape (n_maps, n_rows, n_columns)
        Maps that interfere.
    weights : array-like of shape (n_maps,), default=None
        w, not negative. None weighs all alike; only proportions count.

    Returns
    -------
    rest : ndarray of shape (n_rows, n_columns), dtype float64
        Not negative. The map itself, cut off at 0, where the others have nothing in common with it.

    Raises
    ------
    ValueError
        If maps differ in shape or are not finite, or there is not one weight for each.

    References
    ----------
    .. [1] Li et al., "Token Activation Map to Visually Explain Multimodal LLMs", 2025, section on
       estimated causal inference.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import remove_interference
    >>> remove_interference([[1.0, 1.0]], [[[0.0, 2.0]]])
    array([[1., 0.]])
    """
    own, more = _maps(target, "target", (2,)), _maps(others, "others", (3,))
    if more.shape[1:] != own.shape:
        raise ValueError(f"others must hold maps of shape {own.shape}, got {more.shape[1:]}.")
    times = np.ones(len(more)) if weights is None else float_array(weights, "weights")
    if times.shape != (len(more),) or not (np.isfinite(times) & (times >= 0)).all():
        raise ValueError(
            f"weights must hold {len(more)} finite numbers that are not negative, one for each of "
            f"others; got shape {times.shape}."
        )
    mixed = np.tensordot(times, more, 1)
    power = (mixed**2).sum()
    scale = (own * mixed).sum() / power if power > 0 else 0.0
    return np.maximum(own - scale * mixed, 0)
