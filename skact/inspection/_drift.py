"""How far the activations of two sets lie apart, beside what dealing samples at random gives."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils import Bunch

from skact.algebra import activation_drift
from skact.arguments import Such, checked, instance
from skact.extras import need

__all__ = ["DriftDisplay"]

_PARTS = ("metric", "layers", "distance", "null", "p_value", "by_feature")
_AXES = Such(
    "one or two matplotlib Axes",
    lambda value: (
        all(hasattr(a, "add_patch") for a in np.ravel(value)) and np.size(value) in (1, 2)
    ),
)


class DriftDisplay:
    """The distance of two sets of activations beside its null, and the distances of features.

    The first panel has the distances of random deals of the samples, and marks the observed one:
    as a histogram of one layer, or of several as a box for each, whose whiskers reach to the least
    and the largest deal. The second one has the distance of each feature, the largest first, a line
    for each layer; it is missing where the metric has none.

    Parameters
    ----------
    result : Bunch
        From :func:`skact.activation_drift`.

    Attributes
    ----------
    figure_ : matplotlib Figure
        Where it was drawn.
    axes_ : ndarray of shape (n_panels,) of matplotlib Axes
        The null, and the features.

    Raises
    ------
    ValueError
        If it is no such result.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import DriftDisplay
    >>> X = np.random.default_rng(0).normal(size=(50, 3))
    >>> display = DriftDisplay.from_activations(X, X + [0, 0, 2], random_state=0)
    >>> display.axes_[1].lines[0].get_ydata().round(6)
    array([2., 0., 0.])
    """

    figure_: Any
    axes_: npt.NDArray[Any]

    @checked(result=[instance("a Bunch(...), or a dict of the same", dict)])
    def __init__(self, result: Any) -> None:
        lacking = [name for name in _PARTS if name not in result]
        if lacking:
            raise ValueError(f"result must be what activation_drift returns, but lacks {lacking}.")
        self.result = Bunch(**result)

    @classmethod
    @checked(axes=[_AXES, None])
    def from_activations(
        cls,
        X: Any,
        Y: Any,
        *,
        metric: Literal["wasserstein", "frechet"] = "wasserstein",
        n_permutations: int = 200,
        random_state: Any = None,
        axes: Any = None,
    ) -> Self:
        """Measure how far two sets lie apart, and draw it.

        Parameters
        ----------
        X, Y : TokenArray, list of 2-D arrays, 3-D array or 2-D array, or LayerStack
            Activations of the two sets.
        metric, n_permutations, random_state : as in `skact.activation_drift`
            The distance, and how many random deals are drawn by what.
        axes : one or two matplotlib Axes, default=None
            Where to draw, one for each panel; None makes a new figure.

        Returns
        -------
        display : DriftDisplay
            With ``figure_`` and ``axes_``.

        Raises
        ------
        ValueError
            If an argument is not as said.
        """
        result = activation_drift(
            X, Y, metric=metric, n_permutations=n_permutations, random_state=random_state
        )
        return cls(result).plot(axes=axes)

    @checked(axes=[_AXES, None])
    def plot(self, *, axes: Any = None) -> Self:
        """Draw the panels.

        Parameters
        ----------
        axes : one or two matplotlib Axes, default=None
            Where to draw, one for each panel; None makes a new figure.

        Returns
        -------
        self : DriftDisplay
            With ``figure_`` and ``axes_``.

        Raises
        ------
        ValueError
            If there is another number of panels.
        """
        plt = need("matplotlib.pyplot", "plot")
        n_panels = 1 if self.result.by_feature is None else 2
        if axes is None:
            size = 4.5 * n_panels, 3.6
            _, axes = plt.subplots(1, n_panels, figsize=size, layout="constrained")
        self.axes_ = np.ravel(axes)
        if len(self.axes_) != n_panels:
            raise ValueError(
                f"axes must be {n_panels} for metric={self.result.metric!r}, got {len(self.axes_)}."
            )
        if len(self.result.layers) == 1:
            self._draw_one(self.axes_[0])
        else:
            self._draw_layers(self.axes_[0])
        if n_panels == 2:
            self._draw_features(self.axes_[1])
        self.figure_ = self.axes_[0].figure
        return self

    def _draw_one(self, ax: Any) -> None:
        (null,), (distance,), (p_value,) = (
            self.result[name] for name in ("null", "distance", "p_value")
        )
        ax.hist(null, bins="auto", color="0.7", label="random deals")
        ax.axvline(distance, color="C3", label=f"observed, p = {p_value:.3g}")
        ax.set(xlabel=f"{self.result.metric} distance", ylabel="deals")
        ax.legend()

    def _draw_layers(self, ax: Any) -> None:
        places = np.arange(len(self.result.layers))
        grey = {name: {"color": "0.5"} for name in ("boxprops", "whiskerprops", "capprops")}
        ax.boxplot(self.result.null.T, positions=places, whis=(0, 100), **grey)
        ax.plot([], [], color="0.5", label="random deals")
        ax.plot(places, self.result.distance, "o-", color="C3", ms=4, label="observed")
        ax.set_xticks(places, self.result.layers)
        ax.set(xlabel="block", ylabel=f"{self.result.metric} distance")
        ax.legend()

    def _draw_features(self, ax: Any) -> None:
        for layer, distances in zip(self.result.layers, self.result.by_feature, strict=True):
            ranks = np.arange(1, len(distances) + 1)
            label = None if layer is None else f"block {layer}"
            ax.plot(ranks, np.sort(distances)[::-1], marker=".", ms=3, label=label)
        ax.set(xlabel="features, the largest first", ylabel="distance of a feature")
        if self.result.layers != [None]:
            ax.legend()
