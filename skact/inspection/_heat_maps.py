"""Scores of one sample's tokens over its text, or of its patches over its image."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.pipeline import Pipeline

from skact.inspection._html import is_dark, page, patch_map, titled, token_map, write_page
from skact.inspection._reading import (
    attribution,
    center_of,
    find_concept,
    is_localizer,
    tokens_and_marks,
)
from skact.samples import open_image

__all__ = ["PatchHeatMapDisplay", "TokenHeatMapDisplay"]

Array = npt.NDArray[Any]

_COLUMNS = 64
_LINE = 2.0
# Width of a character of matplotlib's monospaced font, in units of its size.
_ASPECT = 0.602


class _HeatMapDisplay(ABC):
    """Scores and SuperActivators of one sample for one concept."""

    _cmap: ClassVar[str]

    ax_: Any
    figure_: Any

    def __init__(
        self,
        sample: Any,
        tokens: Sequence[Any],
        scores: npt.ArrayLike,
        superactivators: npt.ArrayLike | None = None,
        *,
        concept: str | None = None,
        center: float | None = None,
    ) -> None:
        self.sample = sample
        self.tokens = tokens
        self.scores = np.asarray(scores, dtype=np.float64)
        self.superactivators = (
            np.zeros(len(self.scores), bool)
            if superactivators is None
            else np.asarray(superactivators, dtype=bool)
        )
        self.concept = concept
        self.center = center
        for name, values in (("scores", self.scores), ("superactivators", self.superactivators)):
            if values.shape != (len(tokens),):
                raise ValueError(
                    f"{name} must have shape ({len(tokens)},), one entry per token, got "
                    f"{values.shape}."
                )

    @classmethod
    def from_estimator(
        cls, estimator: Any, sample: Any, concept: int | str = 0, *, ax: Any = None
    ) -> Self:
        """Score or localize in one raw sample and draw it.

        Parameters
        ----------
        estimator : Pipeline or ConceptLocalizer
            Fitted. A pipeline from a TransformerEmbedder to a detector gives scores of tokens; a
            localizer gives attributions, which have a sign.
        sample : str, image or path
            One raw sample.
        concept : int or str, default=0
            Number or name of the concept.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : Display
            With ``ax_`` and ``figure_``.

        Raises
        ------
        ValueError
            If the estimator does not know the concept.
        TypeError
            If the estimator is neither a localizer nor a pipeline that starts at raw samples.
        """
        center: float | None
        if is_localizer(estimator):
            number, name = find_concept(estimator.concept_names_, concept)
            tokens, marks = tokens_and_marks(estimator, sample, number)
            scores = attribution(estimator, sample, number)
            center = center_of(estimator.method, scores)
        elif isinstance(estimator, Pipeline) and hasattr(estimator[0], "tokens_of"):
            detector = estimator[-1]
            number, name = find_concept(detector.concept_names_, concept)
            all_scores = estimator[:-1].transform([sample])
            tokens = estimator[0].tokens_of([sample])[0]
            marks = detector.superactivators(all_scores)[0][:, number]
            scores = all_scores[0][:, detector.matched_columns_[number]]
            center = None
        else:
            raise TypeError(
                "estimator must be a ConceptLocalizer or a Pipeline that starts with a "
                f"TransformerEmbedder, got {type(estimator).__name__}."
            )
        return cls(sample, tokens, scores, marks, concept=name, center=center).plot(ax=ax)

    def plot(self, *, ax: Any = None, cmap: str | None = None, title: str | None = None) -> Self:
        """Draw the sample.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        cmap : str, default=None
            Colour map. None is "RdBu_r" with a centre; without one it is "YlOrRd" for text and
            "gray" for images, which keeps their hues.
        title : str, default=None
            None names the concept.

        Returns
        -------
        self : Display
            With ``ax_`` and ``figure_``.
        """
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots(figsize=self._size(), layout="constrained")
        ax.set_title(self.concept if title is None else title, parse_math=False)
        ax.set_axis_off()
        self._draw(ax, self._colours(cmap))
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def to_html(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        cmap: str | None = None,
        title: str | None = None,
    ) -> str:
        """Give the map as a page that needs no other file and runs no script.

        Parameters
        ----------
        path : str or path-like, default=None
            Also write it there, in one step.
        cmap, title : as in ``plot``
            Colour map and heading.

        Returns
        -------
        html : str
            A whole document. All text of the sample is escaped.
        """
        title = self.concept if title is None else title
        html = page(title or type(self).__name__, titled(title, self._fragment(cmap)))
        if path is not None:
            write_page(path, html)
        return html

    def _repr_html_(self) -> str:
        return titled(self.concept, self._fragment(None))

    def _colours(self, cmap: str | None) -> Array:
        """Red, green, blue and opacity of each token, from its score."""
        from matplotlib import colormaps

        # A map of a missing score is no zero: such tokens stay uncoloured.
        known = self.scores[np.isfinite(self.scores)]
        if self.center is None:
            low, span = (known.min(), np.ptp(known)) if len(known) else (0.0, 0.0)
            shade = (self.scores - low) / (span if span > 0 else 1)
        else:
            reach = np.abs(known - self.center).max(initial=0)
            shade = 0.5 + (self.scores - self.center) / (2 * reach if reach > 0 else 1)
        name = cmap or (self._cmap if self.center is None else "RdBu_r")
        colours = np.array(colormaps[name](np.nan_to_num(shade, nan=0.5)), dtype=np.float64)
        colours[:, 3] = self._opacity(shade)
        colours[~np.isfinite(self.scores)] = (1, 1, 1, 0)
        return colours

    def _opacity(self, shade: Array) -> Array | float:
        """Opacity of the colour of each token."""
        return 1.0

    @abstractmethod
    def _size(self) -> tuple[float, float]:
        """Size of a new figure in inches."""

    @abstractmethod
    def _draw(self, ax: Any, colours: Array) -> None:
        """Draw coloured tokens, with SuperActivators outlined."""

    @abstractmethod
    def _fragment(self, cmap: str | None) -> str:
        """HTML of the map alone."""


class TokenHeatMapDisplay(_HeatMapDisplay):
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
    ValueError
        If there is not one score per token.
    """

    _cmap = "YlOrRd"

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


class PatchHeatMapDisplay(_HeatMapDisplay):
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
    ValueError
        If there is not one score per patch.
    """

    _cmap = "gray"

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
