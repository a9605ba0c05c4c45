"""Scores of one sample's tokens over its text, or of its patches over its image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skact.inspection._display import HeatMapDisplay
from skact.inspection._glyphs import columns_of, drawable
from skact.inspection._html import is_dark, patch_map, token_map
from skact.inspection._reading import flat_chat
from skact.models import are_chats
from skact.rows import Array
from skact.samples import image_size, open_image

__all__ = ["PatchHeatMapDisplay", "TokenHeatMapDisplay", "outline_of"]


# Characters to a line, and the height of a line on the axes, where a character is 1 wide.
_COLUMNS = 64
_LINE = 2.0
# Width of a character of matplotlib's monospaced font, in units of its size.
_ASPECT = 0.602


class TokenHeatMapDisplay(HeatMapDisplay):
    """Scores of one concept over a text; SuperActivators are outlined.

    Parameters
    ----------
    sample : str or chat
        The text; of a chat each message is shown behind its role.
    tokens : sequence of Token or ChatToken
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
    limits : (float, float), default=None
        Scores of the first and the last colour, so that several samples have one scale.

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

    _place, is_image = "start", False

    def _read_sample(self, sample: Any, tokens: Any) -> tuple[Any, Any]:
        if isinstance(sample, list | tuple) and sample and are_chats([sample]):
            return flat_chat(sample, tokens)
        if not isinstance(sample, str):
            raise TypeError(f"sample must be a text or a chat, got {type(sample).__name__}.")
        return sample, tokens

    def _layout(self) -> tuple[list[tuple[int, int, str]], int]:
        """Line, column and text of each token, with lines broken at spaces of the text."""
        texts = [self.sample[token.start : token.end] for token in self.tokens]
        ends = [0, *(token.end for token in self.tokens)]
        spaced = [token.start > end for token, end in zip(self.tokens, ends, strict=False)]
        # A word is all tokens up to the next space; one that is wider than a line is broken.
        words = np.cumsum(spaced)
        widths = np.bincount(words, weights=list(map(columns_of, texts)))
        places, line, column = [], 0, 0
        for text, space, word in zip(texts, spaced, words, strict=True):
            column += space
            needed = widths[word] if space else columns_of(text)
            if column and column + min(needed, _COLUMNS) > _COLUMNS:
                line, column = line + 1, 0
            places.append((line, column, text))
            column += columns_of(text)
        return places, line + 1

    def _size(self) -> tuple[float, float]:
        """Size of a new figure in inches."""
        return 8.0, 0.5 + 0.28 * self._layout()[1]

    def _fragment(self, cmap: str | None) -> str:
        """HTML of the map alone."""
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
        texts, families = drawable([text for *_, text in places], "monospace")
        for (line, column, whole), text, colour, marked in zip(
            places, texts, colours, self.superactivators, strict=True
        ):
            ax.add_patch(
                Rectangle(
                    (column, line * _LINE + 0.15),
                    max(columns_of(whole), 0.5),
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
                family=families,
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
    limits : (float, float), default=None
        Scores of the first and the last colour, so that several samples have one scale.

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

    _place, is_image = "box", True

    def _read_sample(self, sample: Any, tokens: Any) -> tuple[Any, Any]:
        image_size(sample, 0)
        return sample, tokens

    def _size(self) -> tuple[float, float]:
        """Size of a new figure in inches."""
        return 4.0, 4.0

    def _opacity(self, shade: Array) -> Array | float:
        # What says little shows the image in its own colours.
        return 0.75 * shade if self.center is None else 1.6 * np.abs(shade - 0.5)

    def _fragment(self, cmap: str | None) -> str:
        """HTML of the map alone."""
        outline = outline_of(self.tokens, self.superactivators)
        return patch_map(
            open_image(self.sample, 0), self.tokens, self._colours(cmap), self.scores, outline
        )

    def _draw(self, ax: Any, colours: Array) -> None:
        from matplotlib.collections import LineCollection
        from matplotlib.patches import Rectangle

        ax.imshow(open_image(self.sample, 0))
        for patch, colour in zip(self.tokens, colours, strict=True):
            left, top, right, bottom = patch.box
            # Pixels are drawn around their centres, so their edges lie at -0.5, 0.5, ...
            corner = left - 0.5, top - 0.5
            # add_patch also looks for limits, which are the image's, and takes most of the time.
            ax.add_artist(
                Rectangle(corner, right - left, bottom - top, facecolor=colour, linewidth=0)
            )
        edges = np.array(outline_of(self.tokens, self.superactivators)).reshape(-1, 2, 2) - 0.5
        # A light line in a dark one is seen on any ground.
        for colour, width in (("black", 3.5), ("white", 1.75)):
            lines = LineCollection(
                list(edges), colors=colour, linewidths=width, capstyle="projecting"
            )
            ax.add_collection(lines, autolim=False)


def outline_of(patches: Sequence[Any], marked: Array) -> list[tuple[float, float, float, float]]:
    """Give the edges between marked patches and all else, so that neighbours share a frame.

    Parameters
    ----------
    patches : sequence of n_patches Patch
        Patches of one image.
    marked : ndarray of shape (n_patches,), dtype bool
        Which of them are marked.

    Returns
    -------
    edges : list of (float, float, float, float)
        Ends of each edge, x, y, x, y in pixels.
    """
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
