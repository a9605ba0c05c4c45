"""Maps of several samples in one picture."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from skact.arguments import PATH, SEQUENCE, Number, Such, checked, instance
from skact.extras import need
from skact.inspection._glyphs import set_title
from skact.inspection._html import page, titled

__all__ = ["CMAP", "FIGURE", "SamplesDisplay", "draw_grid", "grid_html", "is_open", "wrapped"]

CMAP = instance("the name of a colour map", str)
FIGURE = Such("a matplotlib Figure or SubFigure", lambda value: hasattr(value, "suptitle"))
_DISPLAYS = Such(
    "a list of one or more heat maps, all of texts or all of images",
    lambda value: (
        SEQUENCE.is_satisfied_by(value)
        and len({type(one) for one in value}) == 1
        and hasattr(value[0], "_fragment")
    ),
)
# Images beside each other; texts stand below each other.
_N_COLUMNS = 4


def is_open(display: Any) -> bool:
    """Tell whether pyplot has the figure of a display, and so will show it."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    figure = getattr(display, "figure_", None)
    # Of a part of a figure, the whole has the number.
    number = None if figure is None else getattr(figure.figure, "number", None)
    return pyplot is not None and number is not None and pyplot.fignum_exists(number)


def wrapped(cells: Sequence[Any], n_columns: int) -> list[list[Any]]:
    """Break a list into rows of one length, filled up with None."""
    n_columns = min(n_columns, len(cells))
    rows = [list(cells[i : i + n_columns]) for i in range(0, len(cells), n_columns)]
    rows[-1] += [None] * (n_columns - len(rows[-1]))
    return rows


def draw_grid(
    cells: Sequence[Sequence[Any]],
    figure: Any,
    title: str | None,
    size: tuple[float, float] | None,
    cmap: str | None = None,
    bar: Any = None,
    own_bars: bool = False,
) -> tuple[Any, npt.NDArray[Any]]:
    """Draw displays in rows and columns, each titled by its concept.

    Parameters
    ----------
    cells : sequence of n_rows sequences of n_columns displays or None
        None leaves a place empty.
    figure : Figure, SubFigure or None
        Where to draw; None makes a new figure.
    title : str or None
        Over all of them.
    size : (float, float) or None
        Inches of a display in a new figure; None takes those of each.
    cmap : str or None, default=None
        As in the displays.
    bar : display or None, default=None
        Whose colours a bar explains.
    own_bars : bool, default=False
        Whether a bar beside each explains its own colours, where it has a score.

    Returns
    -------
    figure : Figure or SubFigure
        Where it was drawn.
    axes : ndarray of shape (n_rows, n_columns)
        Its axes.
    """
    plt = need("matplotlib.pyplot", "plot")
    n_rows, n_columns = len(cells), len(cells[0])
    sizes = [[size or cell._size() for cell in row if cell] for row in cells]
    heights = [max(height for _, height in row) for row in sizes]
    if figure is None:
        inches = n_columns * sizes[0][0][0], sum(heights) + 0.3
        figure = plt.figure(figsize=inches, layout="constrained")
    if title is not None:
        set_title(figure, title, weight="bold")
    axes = figure.subplots(n_rows, n_columns, squeeze=False, height_ratios=heights)
    for ax in axes.flat:
        ax.set_axis_off()
    flat = [cell for row in cells for cell in row]
    drawn = [(ax, cell) for ax, cell in zip(axes.flat, flat, strict=True) if cell]
    # Text is sized by the room it has, which titles and bars that come later would change.
    for ax, cell in drawn:
        set_title(ax, cell.concept)
    if bar is not None:
        bar._draw_bar(figure, axes, cmap)
    for ax, cell in drawn:
        if own_bars and np.isfinite(cell.scores).any():
            cell._draw_bar(figure, ax, cmap)
    for ax, cell in drawn:
        cell.plot(ax=ax, cmap=cmap)
    return figure, axes


def grid_html(cells: Sequence[Sequence[Any]], title: str | None, cmap: str | None = None) -> str:
    """Give displays in rows and columns as HTML; rows are broken where the page ends."""
    shown = [
        "".join(f"<div>{titled(c.concept, c._fragment(cmap))}</div>" for c in row if c)
        for row in cells
    ]
    style = "display:flex;flex-wrap:wrap;gap:1em 1.5em;margin-bottom:1em"
    return titled(title, "".join(f'<div style="{style}">{row}</div>' for row in shown))


class SamplesDisplay:
    """Heat maps of one concept in several samples, on one scale.

    ``from_estimator`` of the heat maps makes it of a list of samples.

    Parameters
    ----------
    displays : sequence of TokenHeatMapDisplay or PatchHeatMapDisplay
        One for each sample, titled by its ``concept``.
    concept : str, default=None
        Name of the concept.

    Attributes
    ----------
    figure_ : matplotlib Figure
        Where it was drawn.
    axes_ : ndarray of shape (n_rows, n_columns) of matplotlib Axes
        Texts are below each other, images beside each other in rows of ``n_columns``.

    Raises
    ------
    ValueError, TypeError
        If displays are none, or of different kinds.

    Examples
    --------
    >>> from skact import SamplesDisplay, Token, TokenHeatMapDisplay
    >>> tokens = [Token("so", 0, 2), Token("good", 3, 7)]
    >>> maps = [TokenHeatMapDisplay("so good", tokens, [s, 1.0], limits=(0, 1)) for s in (0.2, 0.4)]
    >>> SamplesDisplay(maps, concept="joy").to_html().count("good")
    2
    """

    figure_: Any
    axes_: npt.NDArray[Any]

    @checked(displays=[_DISPLAYS], concept=[str, None])
    def __init__(self, displays: Sequence[Any], *, concept: str | None = None) -> None:
        self.displays = list(displays)
        self.concept = concept

    @checked(
        figure=[FIGURE, None],
        n_columns=[Number(Integral, 1, None, closed="left"), None],
        cmap=[CMAP, None],
        colorbar=["boolean"],
    )
    def plot(
        self,
        *,
        figure: Any = None,
        n_columns: int | None = None,
        cmap: str | None = None,
        colorbar: bool = True,
    ) -> Self:
        """Draw all samples.

        Parameters
        ----------
        figure : matplotlib Figure or SubFigure, default=None
            Where to draw; None makes a new figure.
        n_columns : int, default=None
            Samples in a row; None takes 4 for images and 1 for texts.
        cmap : str, default=None
            Colour map, as in the heat maps.
        colorbar : bool, default=True
            Whether a bar says which colour is which score, where all samples have one scale.

        Returns
        -------
        self : SamplesDisplay
            With ``figure_`` and ``axes_``.
        """
        first = self.displays[0]
        cells = wrapped(self.displays, n_columns or (_N_COLUMNS if first.is_image else 1))
        size = (2.2, 2.3) if first.is_image else None
        one_scale = len({d._ends() for d in self.displays}) == 1
        bar = first if colorbar and one_scale else None
        self.figure_, self.axes_ = draw_grid(cells, figure, self.concept, size, cmap, bar)
        return self

    @checked(path=[PATH, None], cmap=[CMAP, None])
    def to_html(
        self, path: str | os.PathLike[str] | None = None, *, cmap: str | None = None
    ) -> str:
        """Give all maps as a page that needs no other file and runs no script.

        Parameters
        ----------
        path : str or path-like, default=None
            Also write it there, in one step.
        cmap : str, default=None
            Colour map, as in the heat maps.

        Returns
        -------
        html : str
            A whole document. All text of the samples is escaped.
        """
        body = grid_html([self.displays], self.concept, cmap)
        return page(self.concept or type(self).__name__, body, path)

    def _repr_html_(self) -> str | None:
        return None if is_open(self) else grid_html([self.displays], self.concept)
