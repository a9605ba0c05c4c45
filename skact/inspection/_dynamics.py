"""Activations through layers, and how gaps grow beside what theory says."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from skact.arguments import Such, checked, instance
from skact.extras import need
from skact.rows import Array
from skact.theory import Simulation, simulate

__all__ = ["DynamicsDisplay"]

_AXES = Such(
    "two matplotlib Axes",
    lambda value: np.size(value) == 2 and all(hasattr(a, "add_patch") for a in np.ravel(value)),
)


class DynamicsDisplay:
    r"""Simulated activations over layers, and the growth of gaps against its prediction.

    On the left is the activation of each token; tokens of one sequence have one colour. On the
    right each point is a gap to the largest token of its sequence in one layer: its measured growth
    :math:`\Delta' / \Delta` against the predicted :math:`1 + \beta \kappa \bar V`. Without noise
    all of them lie on the line; bars show how far noise may move them.

    Parameters
    ----------
    simulation : Simulation
        From :func:`skact.theory.simulate`.

    Attributes
    ----------
    predicted, measured, allowed : ndarray of shape (n_points,)
        Growth of each gap that is not 0, and how far noise may move it.
    layer : ndarray of shape (n_points,), int
        The layer of each.
    figure_ : matplotlib Figure
        Where it was drawn.
    axes_ : ndarray of 2 matplotlib Axes
        Activations, and growth.

    Raises
    ------
    ValueError
        If an argument is of another kind.

    Examples
    --------
    >>> from skact.inspection import DynamicsDisplay
    >>> display = DynamicsDisplay.from_activations([-1.0, 0.2, 0.5, 2.0], 3, beta=0.2)
    >>> abs(display.measured - display.predicted).max() < 1e-12
    np.True_
    """

    figure_: Any
    axes_: npt.NDArray[Any]

    @checked(simulation=[instance("a Simulation(), from skact.theory.simulate", Simulation)])
    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        before, after = (
            self._to_top(simulation.gaps[part]) for part in (slice(-1), slice(1, None))
        )
        apart = before > 0
        self.measured = after[apart] / before[apart]
        self.predicted = self._to_top(simulation.growth)[apart]
        noise = np.broadcast_to(simulation.noise[..., None], before.shape)
        self.allowed = noise[apart] / before[apart]
        self.layer = np.nonzero(apart)[0]

    def _to_top(self, pairs: Array) -> Array:
        """Take the row of the largest token before each layer."""
        top = self.simulation.activations[:-1].argmax(axis=-1)[..., None, None]
        return np.take_along_axis(pairs, top, axis=-2)[..., 0, :]

    @classmethod
    @checked(random_state=["random_state"], axes=[_AXES, None])
    def from_activations(
        cls,
        activations: npt.ArrayLike,
        n_layers: int,
        *,
        kappa: npt.ArrayLike = 1.0,
        beta: npt.ArrayLike = 0.1,
        logit_bound: float = 0.0,
        noise_bound: float = 0.0,
        random_state: Any = None,
        axes: Any = None,
    ) -> Self:
        """Simulate layers and draw them.

        Parameters
        ----------
        activations : array-like of shape (..., n_tokens)
            Before the first layer.
        n_layers : int
            Number of layers.
        kappa, beta, logit_bound, noise_bound, random_state : as in `skact.theory.simulate`
            The layers, and their noise.
        axes : two matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : DynamicsDisplay
            With ``figure_`` and ``axes_``.

        Raises
        ------
        ValueError
            If an argument is not as said.
        """
        simulation = simulate(
            activations,
            n_layers,
            kappa=kappa,
            beta=beta,
            logit_bound=logit_bound,
            noise_bound=noise_bound,
            random_state=random_state,
        )
        return cls(simulation).plot(axes=axes)

    @checked(axes=[_AXES, None])
    def plot(self, *, axes: Any = None) -> Self:
        """Draw both panels.

        Parameters
        ----------
        axes : two matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        self : DynamicsDisplay
            With ``figure_`` and ``axes_``.
        """
        plt = need("matplotlib.pyplot", "plot")
        if axes is None:
            _, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
        path, growth = self.axes_ = np.ravel(axes)
        states = self.simulation.activations
        layers = np.arange(len(states))
        for number, sequence in enumerate(
            states.reshape(len(states), -1, states.shape[-1]).swapaxes(0, 1)
        ):
            path.plot(layers, sequence, color=f"C{number % 10}", marker=".", alpha=0.7)
        path.set(xlabel="layer", ylabel="activation", title="activations over layers")
        path.xaxis.get_major_locator().set_params(integer=True)
        if self.allowed.any():
            growth.errorbar(
                self.predicted, self.measured, self.allowed, fmt="none", ecolor="0.8", zorder=1
            )
        points = growth.scatter(self.predicted, self.measured, c=self.layer, s=14, zorder=2)
        if len(self.predicted):
            ends = [self.predicted.min(), self.predicted.max()]
            growth.plot(ends, ends, color="0.4", linewidth=1)
        growth.set(
            xlabel="predicted growth", ylabel="measured growth", title="gaps to the largest token"
        )
        growth.figure.colorbar(points, ax=growth, label="layer")
        self.figure_ = growth.figure
        return self
