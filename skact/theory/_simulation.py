"""Layers one after another, with what theory says of each."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state

from skact.theory._bounds import Range, concentration_bound, equalization_bounds, noise_term
from skact.theory._dynamics import Floats, attention, gaps, growth_factor, number, numbers, update

__all__ = ["Simulation", "simulate"]


class Simulation(NamedTuple):
    """Activations through layers, and what theory says of each layer.

    Parameters
    ----------
    activations : ndarray of shape (n_layers + 1, ..., n_tokens)
        Before the first layer, and after each.
    attention : ndarray of shape (n_layers, ..., n_tokens, n_tokens)
        Of each layer.
    gaps : ndarray of shape (n_layers + 1, ..., n_tokens, n_tokens)
        Differences between tokens.
    growth : ndarray of shape (n_layers, ..., n_tokens, n_tokens)
        Factors by which theory has gaps grow without noise, from the activations before each layer.
    noise : ndarray of shape (n_layers, ...)
        How far noise may move a gap from that, at most.
    concentration : ndarray of shape (n_layers, ..., n_tokens)
        Bound on the attention off the pole.
    equalization : Range or None
        Bounds, each of shape (n_layers, ..., n_tokens), on the factor of distances to the largest
        token; None with noise, or with beta below 0.
    """

    activations: Floats
    attention: Floats
    gaps: Floats
    growth: Floats
    noise: Floats
    concentration: Floats
    equalization: Range | None


def simulate(
    activations: npt.ArrayLike,
    n_layers: int,
    *,
    kappa: npt.ArrayLike = 1.0,
    beta: npt.ArrayLike = 0.1,
    logit_bound: float = 0.0,
    noise_bound: float = 0.0,
    random_state: Any = None,
) -> Simulation:
    """Send activations through layers that are aligned with a concept.

    Parameters
    ----------
    activations : array-like of shape (..., n_tokens)
        Before the first layer; at least two tokens.
    n_layers : int
        Number of layers, at least 1.
    kappa, beta : float or array-like of shape (n_layers,), default=1 and 0.1
        Sharpness, above 0, and strength of the write, of all layers or of each.
    logit_bound, noise_bound : float, default=0
        The largest noise of a logit and of an activation. Noise is drawn uniformly up to it, anew
        in each layer.
    random_state : int, RandomState or None, default=None
        Where noise comes from.

    Returns
    -------
    simulation : Simulation
        Activations, attention, gaps and bounds.

    Raises
    ------
    ValueError
        If an argument is not as said, or activations leave the range of numbers.

    Examples
    --------
    >>> from skact.theory import simulate
    >>> found = simulate([-1.0, 0.2, 0.5, 2.0], 3, kappa=1.0, beta=0.2)
    >>> found.gaps[:, 3, 2].round(2)
    array([1.5 , 1.68, 1.83, 1.92])
    """
    a = numbers(activations, "activations", 1)
    if isinstance(n_layers, bool | np.bool_) or not isinstance(n_layers, int | np.integer):
        raise ValueError(f"n_layers must be an int of at least 1, got {n_layers!r}.")
    n_layers = int(number(n_layers, "n_layers", 1))
    kappas, betas = (_each(v, name, n_layers) for v, name in ((kappa, "kappa"), (beta, "beta")))
    e, n = number(logit_bound, "logit_bound", 0), number(noise_bound, "noise_bound", 0)
    draws = check_random_state(random_state)
    states, weights = [a], []
    for layer, (k, b) in enumerate(zip(kappas, betas, strict=True)):
        logit_noise = draws.uniform(-e, e, (*a.shape, a.shape[-1]))
        try:
            weights.append(attention(a, k, logit_noise=logit_noise))
            a = update(a, k, b, logit_noise=logit_noise, noise=draws.uniform(-n, n, a.shape))
        except ValueError as error:
            raise ValueError(f"in layer {layer}: {error}") from None
        states.append(a)
    path, layers = np.stack(states), list(zip(states[:-1], kappas, betas, strict=True))
    noise: dict[str, Any] = {"logit_bound": e, "noise_bound": n, "form": "noiseless"}
    ends = None
    if not (e or n) and (betas >= 0).all():
        bounds = [equalization_bounds(*layer) for layer in layers]
        ends = Range(np.stack([one.low for one in bounds]), np.stack([one.high for one in bounds]))
    return Simulation(
        activations=path,
        attention=np.stack(weights),
        gaps=gaps(path),
        growth=np.stack([growth_factor(*layer) for layer in layers]),
        noise=np.stack([noise_term(np.ptp(x, -1), b, **noise) for x, _, b in layers]),
        concentration=np.stack([concentration_bound(x, k, logit_bound=e) for x, k, _ in layers]),
        equalization=ends,
    )


def _each(value: npt.ArrayLike, name: str, n_layers: int) -> Floats:
    found = numbers(value, name)
    if found.shape not in ((), (n_layers,)):
        raise ValueError(f"{name} must be one number, or one per layer, {n_layers}; got {value!r}.")
    return np.broadcast_to(found, n_layers)
