"""Scores of one sample's tokens over its text, or of its patches over its image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skact.inspection._display import HeatMapDisplay
from skact.inspection._html import is_dark, patch_map, token_map
from skact.rows import Array
from skact.samples import image_size, open_image

__all__ = ["PatchHeatMapDisplay", "TokenHeatMapDisplay"]


# Characters to a line, and the height of a line on the axes, where a character is 1 wide.
_COLUMNS = 64
_LINE = 2.0
# Width of a character of matplotlib's monospaced font, in units of its size.
_ASPECT = 0.602


class TokenHeatMapDisplay(HeatMapDisplay):
    """Scores of one concept over a text; SuperActivators are outlined.

    Parameters
    ----------
    sample : str
        The text.
    tokens : sequence of Token
        Its tokens, from ``TransformerEmbedder.tokens_of``.
    scores : array-like of shape (n_tokens,)
        Score of each token.
    superactivators : array-like of shape (n_tokens,), default=None
        True at SuperActivators.
    concept : str, default=None
        Name of the concept.
    center : float, default=None
        The score that means nothing, for maps with a sign: colours diverge from it, to equal
        reach on both sides. None colours from the sample's lowest to its highest score.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        Its figure.

    Raises
    ------
    ValueError, TypeError
        If an argument is of another kind, or there is not one score per token.
    """

    _cmap, _place = "YlOrRd", "start"

    def _check_sample(self, sample: Any) -> None:
        if not isinstance(sample, str):
            raise TypeError(f"sample must be a text, got {type(sample).__name__}.")

    def _layout(self) -> tuple[list[tuple[int, int, str]], int]:
        """Line, column and text of each token, with lines broken at spaces of the text."""
        texts = [self.sample[token.start : token.end] for token in self.tokens]
        ends = [0, *(token.end for token in self.tokens)]
        spaced = [token.start > end for token, end in zip(self.tokens, ends, strict=False)]
        # A word is all tokens up to the next space; one that is wider than a line is broken.
        words = np.cumsum(spaced)
        widths = np.bincount(words, weights=list(map(len, texts)))
        places, line, column = [], 0, 0
        for text, space, word in zip(texts, spaced, words, strict=True):
            column += space
            needed = widths[word] if space else len(text)
            if column and column + min(needed, _COLUMNS) > _COLUMNS:
                line, column = line + 1, 0
            places.append((line, column, text))
            column += len(text)
        return places, line + 1

    def _size(self) -> tuple[float, float]:
        return 8.0, 0.5 + 0.28 * self._layout()[1]

    def _fragment(self, cmap: str | None) -> str:
        marked = self.superactivators
        return token_map(self.sample, self.tokens, self._colours(cmap), self.scores, marked)

    def _draw(self, ax: Any, colours: Array) -> None:
        from matplotlib.patches import Rectangle

        places, n_lines = self._layout()
        # The layout settles the room that the text has.
        ax.figure.draw_without_rendering()
        room = ax.get_position()
        figure_width, figure_height = ax.figure.get_size_inches()
        width, height = 72 * room.width * figure_width, 72 * room.height * figure_height
        size = min(width / ((_COLUMNS + 1) * _ASPECT), 0.75 * height / n_lines)
        # As many columns as characters of this size fit, so that text fills its rectangles.
        ax.set_xlim(-0.5, width / (size * _ASPECT) - 0.5)
        ax.set_ylim(n_lines * _LINE, 0)
        for (line, column, text), colour, marked in zip(
            places, colours, self.superactivators, strict=True
        ):
            ax.add_patch(
                Rectangle(
                    (column, line * _LINE + 0.15),
                    max(len(text), 0.5),
                    _LINE - 0.3,
                    facecolor=colour,
                    edgecolor="black" if marked else "none",
                    linewidth=1.5 if marked else 0,
                    zorder=2 if marked else 1,
                )
            )
            ax.text(
                column,
                (line + 0.5) * _LINE,
                text,
                family="monospace",
                size=size,
                va="center",
                color="white" if is_dark(colour) else "black",
                zorder=3,
                parse_math=False,
                # Its size comes from the layout, so it must not move it.
                in_layout=False,
            )


class PatchHeatMapDisplay(HeatMapDisplay):
    """Scores of one concept over an image; SuperActivators are outlined.

    Parameters
    ----------
    sample : PIL image, array of shape (height, width, n_channels) or path
        The image.
    tokens : sequence of Patch
        Its patches, from ``TransformerEmbedder.tokens_of``.
    scores : array-like of shape (n_tokens,)
        Score of each patch.
    superactivators : array-like of shape (n_tokens,), default=None
        True at SuperActivators.
    concept : str, default=None
        Name of the concept.
    center : float, default=None
        The score that means nothing, for maps with a sign: colours diverge from it, to equal
        reach on both sides. None colours from the sample's lowest to its highest score.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        Its figure.

    Raises
    ------
    ValueError, TypeError
        If an argument is of another kind, or there is not one score per patch.
    """

    _cmap, _place = "gray", "box"

    def _check_sample(self, sample: Any) -> None:
        image_size(sample, 0)

    def _size(self) -> tuple[float, float]:
        return 4.0, 4.0

    def _opacity(self, shade: Array) -> Array | float:
        # With a centre, what is neither for nor against the concept shows the image.
        return 0.45 if self.center is None else 1.6 * np.abs(shade - 0.5)

    def _image(self) -> Any:
        """Open the image; it is pale and grey under the two hues of a map with a centre."""
        from PIL import Image

        image = open_image(self.sample, 0)
        if self.center is None:
            return image
        grey = image.convert("L").convert("RGB")
        return Image.blend(grey, Image.new("RGB", grey.size, "white"), 0.4)

    def _fragment(self, cmap: str | None) -> str:
        outline = _outline(self.tokens, self.superactivators)
        return patch_map(self._image(), self.tokens, self._colours(cmap), self.scores, outline)

    def _draw(self, ax: Any, colours: Array) -> None:
        from matplotlib.collections import LineCollection
        from matplotlib.patches import Rectangle

        ax.imshow(self._image())
        for patch, colour in zip(self.tokens, colours, strict=True):
            left, top, right, bottom = patch.box
            # Pixels are drawn around their centres, so their edges lie at -0.5, 0.5, ...
            corner = left - 0.5, top - 0.5
            ax.add_patch(
                Rectangle(corner, right - left, bottom - top, facecolor=colour, linewidth=0)
            )
        edges = np.array(_outline(self.tokens, self.superactivators)).reshape(-1, 2, 2) - 0.5
        # A light line in a dark one is seen on any ground.
        for colour, width in (("black", 3.5), ("white", 1.75)):
            lines = LineCollection(
                list(edges), colors=colour, linewidths=width, capstyle="projecting"
            )
            ax.add_collection(lines, autolim=False)


def _outline(patches: Sequence[Any], marked: Array) -> list[tuple[float, float, float, float]]:
    """Edges (x, y, x, y) between marked patches and all else, so that neighbours share a frame."""
    inside = {(p.row, p.column) for p, mark in zip(patches, marked, strict=True) if mark}
    edges = []
    for patch in patches:
        row, column, (left, top, right, bottom) = patch
        if (row, column) not in inside:
            continue
        for neighbour, edge in (
            ((row - 1, column), (left, top, right, top)),
            ((row + 1, column), (left, bottom, right, bottom)),
            ((row, column - 1), (left, top, left, bottom)),
            ((row, column + 1), (right, top, right, bottom)),
        ):
            if neighbour not in inside:
                edges.append(edge)
    return edges
