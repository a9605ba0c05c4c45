"""The map of one layer: attention, cumulants, update, gaps and curvature."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "Cumulants",
    "Floats",
    "attention",
    "check_shapes",
    "cumulants",
    "curvature",
    "growth_factor",
    "gap_variance",
    "gaps",
    "layer_map",
    "mean_activation",
    "number",
    "numbers",
    "pair_variance",
    "positive",
    "update",
]

Floats = npt.NDArray[np.float64]

# K'' has no singularity within pi / range of the real axis, so on an interval of at most 1 / range
# the error of 8 nodes is below 13 ** -16.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2


class Cumulants(NamedTuple):
    """The cumulant generating function of activations and its derivatives, at some points.

    Parameters
    ----------
    value, mean, variance, third : ndarray of shape (..., n_points)
        K, K', K'' and K''': the log of the mean weight; the mean, variance and third central moment
        of the activations under weights softmax(s a).
    """

    value: Floats
    mean: Floats
    variance: Floats
    third: Floats


def numbers(values: Any, name: str, min_ndim: int = 0) -> Floats:
    """Turn an argument into finite float64, or raise a ValueError that names it.

    Parameters
    ----------
    values : array-like
        Numbers.
    name : str
        What the argument is called.
    min_ndim : int, default=0
        Axes that it must have, the last of which must not be empty.

    Returns
    -------
    array : ndarray of float64
        The numbers.
    """
    try:
        if np.asarray(values).dtype.kind not in "iuf":
            raise TypeError
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must hold real numbers, got {values!r}.") from None
    if array.ndim < min_ndim or not array.size:
        raise ValueError(
            f"{name} must have {min_ndim} or more axes and one or more entries, got shape "
            f"{array.shape}."
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity.")
    return array


def number(value: Any, name: str, low: float = -np.inf) -> float:
    """Return one finite number of at least ``low``, or raise a ValueError that names it."""
    found = numbers(value, name)
    if found.ndim or not found >= low:
        raise ValueError(f"{name} must be one number of at least {low:g}, got {value!r}.")
    return float(found)


def positive(value: Any, name: str) -> float:
    """Return one finite number above 0, or raise a ValueError that names it."""
    found = numbers(value, name)
    if found.ndim or not found > 0:
        raise ValueError(f"{name} must be one number above 0, got {value!r}.")
    return float(found)


def _softmax(logits: Floats) -> Floats:
    weights: Floats = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def check_shapes(**shapes: tuple[int, ...]) -> None:
    """Refuse arguments, or axes of them, that do not broadcast together."""
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError:
        said = ", ".join(f"{shape} of {name}" for name, shape in shapes.items())
        raise ValueError(
            f"{' and '.join(shapes)} must fit each other, got shapes {said}."
        ) from None


def _products(x: Floats, a: Floats, name: str, kappa: float = 1.0) -> Floats:
    """Products (..., n_points, n_tokens) of queries, called by their name, and activations."""
    try:
        np.broadcast_shapes(x.shape[:-1], a.shape[:-1])
    except ValueError:
        raise ValueError(
            f"{name} and activations must be of the same sequences, got shapes {x.shape} and "
            f"{a.shape}; only their last axes may differ."
        ) from None
    with np.errstate(over="ignore", invalid="ignore"):
        products: Floats = kappa * x[..., :, None] * a[..., None, :]
    if not np.isfinite(products).all():
        raise ValueError(
            f"activations are too large: their products with {name} are no longer finite; scale "
            "them down."
        )
    return products


def _logits(
    x: Floats, a: Floats, kappa: float, logit_noise: npt.ArrayLike, name: str = "activations"
) -> Floats:
    """Logits (..., n_points, n_tokens) of queries x."""
    logits = _products(x, a, name, kappa)
    noise = numbers(logit_noise, "logit_noise")
    try:
        return logits + np.broadcast_to(noise, logits.shape)
    except ValueError:
        raise ValueError(
            f"logit_noise must have one entry per query and token, shape {logits.shape}, got "
            f"{noise.shape}."
        ) from None


def _weights(
    x: Any, activations: Any, kappa: Any, logit_noise: Any, name: str = "x"
) -> tuple[Floats, Floats]:
    """Return checked activations with an axis of queries, and the weights of each query."""
    a = numbers(activations, "activations", 1)
    points = np.atleast_1d(numbers(x, name))
    weights = _softmax(_logits(points, a, positive(kappa, "kappa"), logit_noise, name))
    return np.broadcast_to(a[..., None, :], weights.shape), weights


def cumulants(activations: npt.ArrayLike, s: npt.ArrayLike) -> Cumulants:
    r"""Give the cumulant generating function of activations and three derivatives.

    .. math:: K(s) = \log \tfrac{1}{T} \sum_j e^{s a_j}

    Parameters
    ----------
    activations : array-like of shape (..., n_tokens)
        Activations of each sequence.
    s : array-like of shape (..., n_points)
        Where, for each sequence or for all of them.

    Returns
    -------
    cumulants : Cumulants
        Arrays of shape (..., n_points). K' grows with s unless all activations are equal, as
        K'' > 0 says.

    Raises
    ------
    ValueError
        If an argument is empty, not finite or no number.

    Examples
    --------
    >>> from skact.theory import cumulants
    >>> found = cumulants([-1.0, 1.0], [0.0])  # log cosh
    >>> found.mean.item(), found.variance.item(), found.third.item()
    (0.0, 1.0, 0.0)
    """
    a = numbers(activations, "activations", 1)
    points = np.atleast_1d(numbers(s, "s"))
    logits = _products(points, a, "s")
    top = logits.max(axis=-1)
    weights = np.exp(logits - top[..., None])
    value = top + np.log(weights.mean(axis=-1))
    mean, second, third = _moments(
        np.broadcast_to(a[..., None, :], weights.shape),
        weights / weights.sum(axis=-1, keepdims=True),
    )
    return Cumulants(value, mean, second, third)


def _moments(a: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean, variance and third central moment along the last axis."""
    mean: Floats = (weights * a).sum(axis=-1)
    apart = a - mean[..., None]
    square = weights * apart**2
    return mean, square.sum(axis=-1), (square * apart).sum(axis=-1)


def attention(
    activations: npt.ArrayLike,
    kappa: float,
    *,
    logit_noise: npt.ArrayLike = 0.0,
    causal: bool = False,
) -> Floats:
    r"""Give the attention of each token.

    .. math:: \mathrm{softmax}_j(\kappa a_i a_j + \epsilon_{ij})

    Parameters
    ----------
    activations : array-like of shape (..., n_tokens)
        Activations of each sequence.
    kappa : float
        Sharpness, above 0.
    logit_noise : array-like of shape (..., n_tokens, n_tokens), default=0
        What is added to the logits.
    causal : bool, default=False
        Whether a token attends to itself and those before it alone. The statements about a shared
        map do not hold then.

    Returns
    -------
    attention : ndarray of shape (..., n_tokens, n_tokens)
        Rows sum to 1.

    Raises
    ------
    ValueError
        If an argument is not as said.
    """
    a = numbers(activations, "activations", 1)
    logits = _logits(a, a, positive(kappa, "kappa"), logit_noise)
    if causal:
        logits = np.where(np.tri(a.shape[-1], dtype=bool), logits, -np.inf)
    return _softmax(logits)


def mean_activation(
    x: npt.ArrayLike, activations: npt.ArrayLike, kappa: float, *, logit_noise: npt.ArrayLike = 0.0
) -> Floats:
    r"""Give the mean activation that a query attends to, :math:`m(x) = K'(\kappa x)`.

    Parameters
    ----------
    x : array-like of shape (..., n_points)
        Activations of queries.
    activations : array-like of shape (..., n_tokens)
        Activations of the tokens that they attend to.
    kappa : float
        Sharpness, above 0.
    logit_noise : array-like of shape (..., n_points, n_tokens), default=0
        What is added to the logits.

    Returns
    -------
    mean : ndarray of shape (..., n_points)
        It grows with x unless all activations are equal.

    Raises
    ------
    ValueError
        If an argument is not as said.
    """
    a, weights = _weights(x, activations, kappa, logit_noise)
    return np.asarray((weights * a).sum(axis=-1))


def layer_map(x: npt.ArrayLike, activations: npt.ArrayLike, kappa: float, beta: float) -> Floats:
    r"""Give where a layer without noise moves an activation, :math:`\phi(x) = x + \beta m(x)`.

    Parameters
    ----------
    x : array-like of shape (..., n_points)
        Activations before the layer.
    activations, kappa : as in :func:`mean_activation`
        Tokens that are attended to, and sharpness.
    beta : float
        Strength of the write.

    Returns
    -------
    moved : ndarray of shape (..., n_points)
        Activations after the layer.

    Raises
    ------
    ValueError
        If an argument is not as said.
    """
    return np.asarray(x) + number(beta, "beta") * mean_activation(x, activations, kappa)


def update(
    activations: npt.ArrayLike,
    kappa: float,
    beta: float,
    *,
    logit_noise: npt.ArrayLike = 0.0,
    noise: npt.ArrayLike = 0.0,
    causal: bool = False,
) -> Floats:
    r"""Move the activations of a sequence through one layer.

    .. math:: a_i' = a_i + \beta \sum_j \mathrm{softmax}_j(\kappa a_i a_j + \epsilon_{ij})\, a_j
              + \xi_i

    Parameters
    ----------
    activations, kappa, logit_noise, causal : as in :func:`attention`
        The sequence and what it attends to.
    beta : float
        Strength of the write.
    noise : array-like of shape (..., n_tokens), default=0
        What all else of the layer adds.

    Returns
    -------
    moved : ndarray of shape (..., n_tokens)
        Activations after the layer.

    Raises
    ------
    ValueError
        If an argument is not as said, or activations leave the range of numbers.
    """
    a = numbers(activations, "activations", 1)
    weights = attention(a, kappa, logit_noise=logit_noise, causal=causal)
    attended = (weights @ a[..., None])[..., 0]
    added = numbers(noise, "noise")
    check_shapes(activations=a.shape, noise=added.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        moved = np.asarray(a + number(beta, "beta") * attended + added)
    if not np.isfinite(moved).all():
        raise ValueError("activations are no longer finite after the layer; lower beta.")
    return moved


def gaps(activations: npt.ArrayLike) -> Floats:
    r"""Give the differences between tokens, :math:`\Delta_{ij} = a_i - a_j`.

    Parameters
    ----------
    activations : array-like of shape (..., n_tokens)
        Activations.

    Returns
    -------
    gaps : ndarray of shape (..., n_tokens, n_tokens)
        Antisymmetric.

    Raises
    ------
    ValueError
        If the argument is not as said.
    """
    a = numbers(activations, "activations", 1)
    return a[..., :, None] - a[..., None, :]


def gap_variance(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    activations: npt.ArrayLike,
    kappa: float,
    *,
    logit_noise: npt.ArrayLike = 0.0,
) -> Floats:
    r"""Give the variance of activations under the attention of queries between two.

    .. math:: \bar V = \int_0^1 \mathrm{Var}_{p(y + t (x - y))}(a)\, dt
              = \frac{m(x) - m(y)}{\kappa (x - y)}

    Parameters
    ----------
    x, y : array-like of shape (..., n_points)
        Ends of the way.
    activations, kappa : as in :func:`mean_activation`
        Tokens that are attended to, and sharpness.
    logit_noise : array-like of shape (..., n_points, n_tokens), default=0
        Noise of the logits, the same all along the way.

    Returns
    -------
    variance : ndarray of shape (..., n_points)
        Not negative. Where the ends are close the integral is computed instead of the quotient,
        which would lose its digits; where they are equal it is the variance there.

    Raises
    ------
    ValueError
        If an argument is not as said.
    """
    a = numbers(activations, "activations", 1)
    x, y = np.atleast_1d(numbers(x, "x"), numbers(y, "y"))
    check_shapes(x=x.shape, y=y.shape)
    kappa = positive(kappa, "kappa")
    step = kappa * (x - y)
    tokens, at_x = _weights(x, a, kappa, logit_noise)
    _, at_y = _weights(y, a, kappa, logit_noise, "y")
    near = np.abs(step) * np.ptp(a, axis=-1, keepdims=True) < 1
    found = ((at_x - at_y) * tokens).sum(axis=-1) / np.where(near, 1, step)
    near = np.broadcast_to(near, found.shape)
    if near.any():
        ends = [np.broadcast_to(v, found.shape)[near] for v in (x, y)]
        noise = np.broadcast_to(np.asarray(logit_noise, np.float64), tokens.shape)[near]
        found[near] = _integral(ends[0], ends[1], tokens[near], kappa, noise)
    return np.maximum(found, 0)  # which rounding may miss


def _integral(x: Floats, y: Floats, a: Floats, kappa: float, noise: Floats) -> Floats:
    """Mean variance between x and y, each (n,), under tokens (n, n_tokens)."""
    found = np.zeros(len(x))
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        query = kappa * (y + node * (x - y))
        found += weight * _moments(a, _softmax(query[:, None] * a + noise))[1]
    return found


def pair_variance(
    activations: npt.ArrayLike, kappa: float, *, logit_noise: npt.ArrayLike = 0.0
) -> Floats:
    r"""Give :func:`gap_variance` between all tokens of a sequence, :math:`\bar V_{ij}`.

    Parameters
    ----------
    activations, kappa : as in :func:`attention`
        The sequence and what it attends to.
    logit_noise : array-like of shape (..., n_tokens, n_tokens), default=0
        Noise of the logits; all along the way from j to i it is that of token i.

    Returns
    -------
    variance : ndarray of shape (..., n_tokens, n_tokens)
        Symmetric without noise; on the diagonal the variance under the attention of a token.

    Raises
    ------
    ValueError
        If an argument is not as said.
    """
    a = numbers(activations, "activations", 1)
    pairs = (*a.shape, a.shape[-1])
    flat = (*a.shape[:-1], -1)
    noise = numbers(logit_noise, "logit_noise")
    if noise.ndim:
        _logits(a, a, 1.0, noise)  # refuses other shapes
        noise = np.repeat(np.broadcast_to(noise, pairs), a.shape[-1], axis=-2)
    x, y = (np.broadcast_to(v, pairs).reshape(flat) for v in (a[..., None], a[..., None, :]))
    return gap_variance(x, y, a, kappa, logit_noise=noise).reshape(pairs)


def growth_factor(
    activations: npt.ArrayLike, kappa: float, beta: float, *, logit_noise: npt.ArrayLike = 0.0
) -> Floats:
    r"""Give the factor by which a layer multiplies each gap.

    .. math:: \Delta_{ij}' = (1 + \beta \kappa \bar V_{ij})\, \Delta_{ij}

    Parameters
    ----------
    activations, kappa, logit_noise : as in :func:`pair_variance`
        Activations before the layer, and what they attend to.
    beta : float
        Strength of the write.

    Returns
    -------
    growth : ndarray of shape (..., n_tokens, n_tokens)
        Exact without noise, else the middle of a bound, :func:`noise_term`. On the diagonal it is
        the slope of the map. At least 1 for beta >= 0, so that without noise no two tokens change
        their order.

    Raises
    ------
    ValueError
        If an argument is not as said.

    Examples
    --------
    >>> import numpy as np
    >>> from skact.theory import growth_factor, gaps, update
    >>> a = np.array([-0.5, 0.0, 2.0])
    >>> np.allclose(gaps(update(a, 1.0, 0.3)), growth_factor(a, 1.0, 0.3) * gaps(a))
    True
    """
    variance = pair_variance(activations, kappa, logit_noise=logit_noise)
    return 1 + number(beta, "beta") * float(kappa) * variance


def curvature(
    x: npt.ArrayLike,
    activations: npt.ArrayLike,
    kappa: float,
    beta: float,
    *,
    logit_noise: npt.ArrayLike = 0.0,
    value_noise: npt.ArrayLike = 0.0,
) -> Floats:
    r"""Give the second derivative of the map: which tail grows faster.

    .. math:: \phi''(x) = \beta \kappa^2\, E[(a - m)^3] + \kappa^2\, E[(a - m)^2 (n - \bar n)]

    under the attention of x; :math:`n_j = v^\top E_V h_j` is what tokens write beside the concept.

    Parameters
    ----------
    x, activations, kappa, logit_noise : as in :func:`mean_activation`
        Queries, and what they attend to.
    beta : float
        Strength of the write.
    value_noise : array-like of shape (..., n_tokens), default=0
        What each token writes beside beta times its activation.

    Returns
    -------
    curvature : ndarray of shape (..., n_points)
        Zero for Gaussian activations without noise.

    Raises
    ------
    ValueError
        If an argument is not as said.
    """
    a, weights = _weights(x, activations, kappa, logit_noise)
    noise = numbers(value_noise, "value_noise")
    try:
        noise = np.broadcast_to(noise[..., None, :] if noise.ndim else noise, a.shape)
    except ValueError:
        raise ValueError(
            f"value_noise must have one entry per token, {a.shape[-1]}, got shape {noise.shape}."
        ) from None
    written = number(beta, "beta") * a + noise
    written = written - (weights * written).sum(axis=-1, keepdims=True)
    apart = a - (weights * a).sum(axis=-1, keepdims=True)
    return np.asarray(float(kappa) ** 2 * (weights * apart**2 * written).sum(axis=-1))
