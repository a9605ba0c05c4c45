"""Estimates beside each other, each with its interval; and displays as files of pictures."""

from __future__ import annotations

import io
from numbers import Real
from typing import Any, Self

import numpy as np
from sklearn.utils import Bunch

from skact.arguments import Number, Such, checked, instance
from skact.extras import need
from skact.inspection._display import AXES

__all__ = ["IntervalsDisplay", "picture"]

_FIELDS = ("names", "series", "mean", "low", "high")
_DPI = 110
_SIZE = Such(
    "two positive numbers",
    lambda value: (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(side, int | float) and side > 0 for side in value)
    ),
)


class IntervalsDisplay:
    """Estimates with their intervals, and what they have to be above.

    Estimates of one name share a place, those of one series a colour.

    Parameters
    ----------
    result : Bunch
        ``names`` and ``series`` of the estimates, str; ``mean``, ``low`` and ``high``, each
        (n_estimates,), of which NaN is not drawn.
    floor : float, default=None
        Drawn as a line.
    label : str, default="weighted F1"
        What is estimated.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        Its figure.

    Raises
    ------
    ValueError
        If something of the result is missing, or is not as long as the rest.

    Examples
    --------
    >>> from skact.inspection import IntervalsDisplay
    >>> result = {"names": ["a", "a"], "series": ["max", "mean"]}
    >>> result |= {"mean": [0.7, 0.6], "low": [0.6, 0.5], "high": [0.8, 0.7]}
    >>> IntervalsDisplay(result, floor=0.4).size
    (6.5, 1.92)
    """

    ax_: Any
    figure_: Any

    @checked(
        result=[instance("a Bunch(...), or a dict of the same", dict)],
        floor=[Number(Real, None, None, closed="neither"), None],
        label=[str],
    )
    def __init__(
        self, result: Any, floor: float | None = None, *, label: str = "weighted F1"
    ) -> None:
        lacking = [name for name in _FIELDS if name not in result]
        if lacking:
            raise ValueError(f"result must hold {', '.join(_FIELDS)}, but lacks {lacking[0]!r}.")
        lengths = {name: len(result[name]) for name in _FIELDS}
        if len(set(lengths.values())) > 1 or not lengths["names"]:
            raise ValueError(f"result must hold as many of each, at least one; got {lengths}.")
        self.result = Bunch(**result)
        self.floor = floor
        self.label = label

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, in inches, in which all estimates have room."""
        n_names, n_series = (len(dict.fromkeys(self.result[k])) for k in ("names", "series"))
        return 6.5, 1.2 + 0.36 * n_names + 0.18 * n_series * n_names

    @checked(ax=[AXES, None])
    def plot(self, *, ax: Any = None) -> Self:
        """Draw the estimates.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        self : IntervalsDisplay
            With ``ax_`` and ``figure_``.
        """
        plt = need("matplotlib.pyplot", "plot")
        if ax is None:
            _, ax = plt.subplots(figsize=self.size, layout="constrained")
        names, series = (list(dict.fromkeys(self.result[k])) for k in ("names", "series"))
        mean, low, high = (np.asarray(self.result[k], float) for k in _FIELDS[2:])
        row = np.array([names.index(name) for name in self.result.names])
        colour = np.array([series.index(name) for name in self.result.series])
        place = row + (colour - (len(series) - 1) / 2) * 0.8 / len(series)
        for k, name in enumerate(series):
            some = colour == k
            reach = np.stack([mean[some] - low[some], high[some] - mean[some]]).clip(0)
            style: dict[str, Any] = {"fmt": "o", "ms": 4, "color": f"C{k % 10}", "label": name}
            ax.errorbar(mean[some], place[some], xerr=reach, **style)
        if self.floor is not None:
            ax.axvline(self.floor, color="black", ls=":", label=f"floor {self.floor:.3f}")
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.set_xlabel(self.label)
        ax.grid(axis="x", alpha=0.3)
        if len(series) > 1 or self.floor is not None:
            ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small")
        for text in (*ax.get_yticklabels(), *(legend_texts(ax))):
            text.set_parse_math(False)
        self.ax_, self.figure_ = ax, ax.figure
        return self


def legend_texts(ax: Any) -> list[Any]:
    """Texts of the legend, if there is one."""
    legend = ax.get_legend()
    return [] if legend is None else list(legend.get_texts())


@checked(display=[Such("a display, with plot", lambda value: hasattr(value, "plot"))], size=[_SIZE])
def picture(display: Any, *, size: tuple[float, float] = (6.5, 4.0), **options: Any) -> bytes:
    """Draw a display as a PNG file, without a window.

    Parameters
    ----------
    display : Display
        Of one Axes.
    size : tuple of two float, default=(6.5, 4.0)
        Width and height in inches.
    **options : dict
        Of its ``plot``.

    Returns
    -------
    png : bytes
        The file.

    Raises
    ------
    ImportError
        If matplotlib is not installed, naming its extra.
    """
    module = need("matplotlib.figure", "a figure")
    figure = module.Figure(figsize=size, dpi=_DPI, layout="constrained")
    display.plot(ax=figure.subplots(), **options)
    file = io.BytesIO()
    # Without the version of the library, so that the same figure is the same file.
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
