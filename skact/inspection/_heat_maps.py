"""Scores of one sample's tokens over its text, or of its patches over its image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.pipeline import Pipeline

__all__ = ["PatchHeatMapDisplay", "TokenHeatMapDisplay"]

Array = npt.NDArray[Any]

_COLUMNS = 64
_LINE = 2.0
# Width of a character of matplotlib's monospaced font, in units of its size.
_ASPECT = 0.602


class _HeatMapDisplay:
    """Scores and SuperActivators of one sample for one concept."""

    _cmap: ClassVar[str]

    def __init__(
        self,
        sample: Any,
        tokens: Sequence[Any],
        scores: npt.ArrayLike,
        superactivators: npt.ArrayLike | None = None,
        *,
        concept: str | None = None,
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
        for name, values in (("scores", self.scores), ("superactivators", self.superactivators)):
            if values.shape != (len(tokens),):
                raise ValueError(
                    f"{name} must have shape ({len(tokens)},), one entry per token, got "
                    f"{values.shape}."
                )

    @classmethod
    def from_estimator(
        cls, estimator: Pipeline, sample: Any, concept: int | str = 0, *, ax: Any = None
    ) -> Self:
        """Score one raw sample and draw it.

        Parameters
        ----------
        estimator : Pipeline
            Fitted, from a TransformerEmbedder to a detector.
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
            If the detector does not know the concept.
        TypeError
            If the estimator is no pipeline that starts at raw samples.
        """
        if not isinstance(estimator, Pipeline) or not hasattr(estimator[0], "tokens_of"):
            raise TypeError(
                "estimator must be a Pipeline that starts with a TransformerEmbedder, got "
                f"{type(estimator).__name__}."
            )
        detector = estimator[-1]
        names = list(detector.concept_names_)
        if concept not in names and concept not in range(len(names)):
            raise ValueError(f"concept must be one of {names} or its number, got {concept!r}.")
        number = names.index(concept) if concept in names else int(concept)
        scores = estimator[:-1].transform([sample])
        display = cls(
            sample,
            estimator[0].tokens_of([sample])[0],
            scores[0][:, detector.matched_columns_[number]],
            detector.superactivators(scores)[0][:, number],
            concept=str(names[number]),
        )
        return display.plot(ax=ax)

    def plot(self, *, ax: Any = None, cmap: str | None = None, title: str | None = None) -> Self:
        """Draw the sample.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        cmap : str, default=None
            Colour map, from the sample's lowest to its highest score; None is "YlOrRd" for text
            and "gray" for images, which keeps their hues.
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
        span = np.ptp(self.scores)
        shade = (self.scores - self.scores.min()) / (span if span > 0 else 1)
        ax.set_title(self.concept if title is None else title, parse_math=False)
        ax.set_axis_off()
        self._draw(ax, plt.get_cmap(cmap or self._cmap), shade)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _size(self) -> tuple[float, float]:
        """Size of a new figure in inches."""
        raise NotImplementedError

    def _draw(self, ax: Any, cmap: Any, shade: Array) -> None:
        """Draw tokens, coloured by ``shade`` in [0, 1], with SuperActivators outlined."""
        raise NotImplementedError


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
        places, line, column, end = [], 0, 0, 0
        for token in self.tokens:
            text = self.sample[token.start : token.end]
            gap = 1 if token.start > end else 0
            if column + gap + len(text) > _COLUMNS and gap:
                line, column, gap = line + 1, 0, 0
            places.append((line, column + gap, text))
            column += gap + len(text)
            end = token.end
        return places, line + 1

    def _size(self) -> tuple[float, float]:
        return 8.0, 0.5 + 0.28 * self._layout()[1]

    def _draw(self, ax: Any, cmap: Any, shade: Array) -> None:
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
        for (line, column, text), tone, marked in zip(
            places, shade, self.superactivators, strict=True
        ):
            red, green, blue, _ = cmap(tone)
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.45
            ax.add_patch(
                Rectangle(
                    (column, line * _LINE + 0.15),
                    max(len(text), 0.5),
                    _LINE - 0.3,
                    facecolor=(red, green, blue),
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
                color="white" if dark else "black",
                zorder=3,
                parse_math=False,
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

    def _draw(self, ax: Any, cmap: Any, shade: Array) -> None:
        import PIL.Image
        from matplotlib.patches import Rectangle

        is_path = isinstance(self.sample, str) or hasattr(self.sample, "__fspath__")
        image = np.asarray(PIL.Image.open(self.sample) if is_path else self.sample)
        ax.imshow(image, cmap="gray" if image.ndim == 2 else None)
        for patch, tone, marked in zip(self.tokens, shade, self.superactivators, strict=True):
            left, top, right, bottom = patch.box
            # Pixels are drawn around their centres, so their edges lie at -0.5, 0.5, ...
            corner, width, height = (left - 0.5, top - 0.5), right - left, bottom - top
            ax.add_patch(
                Rectangle(corner, width, height, facecolor=cmap(tone), alpha=0.45, linewidth=0)
            )
            if marked:
                ax.add_patch(
                    Rectangle(corner, width, height, fill=False, edgecolor="white", linewidth=2)
                )
