"""What the heat maps of texts and images have in common: scores, colours and where they go."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from skact.arguments import PATH, SEQUENCE, Number, Such, checked, float_array
from skact.extras import need
from skact.inspection._colours import colour
from skact.inspection._glyphs import set_title
from skact.inspection._html import page, titled
from skact.inspection._lines import lines_of, read_concepts
from skact.inspection._reading import (
    attributions,
    center_of,
    find_concept,
    is_localizer,
    is_many,
    tokens_and_marks,
)
from skact.inspection._samples import CMAP, SamplesDisplay, is_open
from skact.rows import Array
from skact.samples import as_list

__all__ = ["TOKENS", "HeatMapDisplay", "check_marks"]

#: Tokens or patches of a sample.
TOKENS = Such(
    "a list of tokens, from TransformerEmbedder.tokens_of",
    lambda value: SEQUENCE.is_satisfied_by(value) and len(value),
)
_REAL = Number(Real, None, None, closed="neither")
_LIMITS = Such(
    "two numbers, the lower one first",
    lambda value: (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(map(_REAL.is_satisfied_by, value))
        and value[0] < value[1]
    ),
)
AXES = Such("matplotlib Axes", lambda value: hasattr(value, "add_patch"))


_CMAP = "YlOrRd"


def check_marks(superactivators: Any, n_tokens: int) -> Array:
    """Turn one mark per token into bools; none is marked where nothing is given."""
    if superactivators is None:
        return np.zeros(n_tokens, bool)
    marks = np.asarray(superactivators)
    if marks.dtype.kind not in "biuf" or not np.isin(marks, (0, 1)).all():
        raise ValueError(f"superactivators must hold True and False, got {superactivators!r}.")
    if marks.shape != (n_tokens,):
        raise ValueError(
            f"superactivators must have shape ({n_tokens},), one entry per token, got "
            f"{marks.shape}."
        )
    return marks.astype(bool)


class HeatMapDisplay(ABC):
    """Scores and SuperActivators of one sample for one concept."""

    _place: ClassVar[str]  # what a token has that says where it lies
    is_image: ClassVar[bool]

    ax_: Any
    figure_: Any

    @checked(
        tokens=[TOKENS],
        scores=["array-like"],
        superactivators=["array-like", None],
        concept=[str, None],
        center=[_REAL, None],
        limits=[_LIMITS, None],
    )
    def __init__(
        self,
        sample: Any,
        tokens: Sequence[Any],
        scores: npt.ArrayLike,
        superactivators: npt.ArrayLike | None = None,
        *,
        concept: str | None = None,
        center: float | None = None,
        limits: tuple[float, float] | None = None,
    ) -> None:
        sample, tokens = self._read_sample(sample, tokens)
        if not all(hasattr(token, self._place) for token in tokens):
            raise TypeError(f"tokens must have a {self._place} each, got {tokens[0]!r}.")
        self.sample = sample
        self.tokens = tokens
        self.scores = float_array(scores, "scores")
        self.superactivators = check_marks(superactivators, len(tokens))
        self.concept = concept
        self.center = center
        self.limits = limits
        if self.scores.shape != (len(tokens),):
            raise ValueError(
                f"scores must have shape ({len(tokens)},), one entry per token, got "
                f"{self.scores.shape}."
            )

    @classmethod
    @checked(ax=[AXES, None], cmap=[CMAP, None], colorbar=["boolean", None])
    def from_estimator(
        cls,
        estimator: Any,
        sample: Any,
        concept: int | str = 0,
        *,
        ax: Any = None,
        cmap: str | None = None,
        colorbar: bool | None = None,
    ) -> Self | SamplesDisplay:
        """Score or localize in raw samples and draw them.

        Parameters
        ----------
        estimator : ConceptDetector, Pipeline, search or ConceptLocalizer
            Fitted. What goes from a TransformerEmbedder to a detector gives scores of tokens; a
            localizer gives attributions, which have a sign.
        sample : str, chat, image or path, or a list of those
            One raw sample, or several, which are drawn on one scale.
        concept : int or str, default=0
            Number or name of the concept.
        ax : matplotlib Axes, default=None
            Where to draw one sample; None makes a new figure.
        cmap : str, default=None
            Colour map, as in ``plot``.
        colorbar : bool, default=None
            Whether a bar says which colour is which score; None draws one for several samples.

        Returns
        -------
        display : Display or SamplesDisplay
            With ``figure_`` and ``ax_``, or ``axes_`` of several samples.

        Raises
        ------
        ValueError
            If the estimator does not know the concept, or ``ax`` is to hold several samples.
        TypeError
            If the estimator is neither a localizer nor starts at raw samples.
        """
        if not is_many(sample):
            (shown,) = cls._of_samples(estimator, [sample], concept)
            return shown.plot(ax=ax, cmap=cmap, colorbar=bool(colorbar))
        if ax is not None:
            raise ValueError("ax holds one sample, and sample is a list of several.")
        displays = cls._of_samples(estimator, as_list(sample), concept)
        ends = np.array([one._ends() for one in displays])
        name, limits = displays[0].concept, (float(ends.min()), float(ends.max()))
        for i, one in enumerate(displays):
            one.limits, one.concept = limits, f"sample {i}"
        bar = colorbar is None or colorbar
        return SamplesDisplay(displays, concept=name).plot(cmap=cmap, colorbar=bar)

    @classmethod
    def _of_samples(cls, estimator: Any, samples: Sequence[Any], concept: int | str) -> list[Self]:
        """Make the display of each sample, not drawn."""
        if is_localizer(estimator):
            number, name = find_concept(estimator.concept_names_, concept)
            method, shown = estimator.method, []
            for sample in samples:
                tokens, marks = tokens_and_marks(estimator, sample, number)
                (scores,) = attributions(estimator, sample, number, [method]).values()
                center = center_of(method, scores)
                shown.append(cls(sample, tokens, scores, marks, concept=name, center=center))
            return shown
        _, name = find_concept(lines_of(estimator), concept)
        (reading,) = read_concepts(estimator, samples, [name])
        pieces = zip(
            samples, reading.line[0].tokens_of(samples), reading.scores, reading.marks, strict=True
        )
        return [cls(s, tokens, a[:, 0], m[:, 0], concept=name) for s, tokens, a, m in pieces]

    @checked(ax=[AXES, None], cmap=[CMAP, None], title=[str, None], colorbar=["boolean"])
    def plot(
        self,
        *,
        ax: Any = None,
        cmap: str | None = None,
        title: str | None = None,
        colorbar: bool = False,
    ) -> Self:
        """Draw the sample.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        cmap : str, default=None
            Colour map. None is "RdBu_r" with a centre and "YlOrRd" without one. Over an image the
            colour is the more opaque the more it says, so that a photograph keeps its own colours
            elsewhere.
        title : str, default=None
            None names the concept.
        colorbar : bool, default=False
            Whether a bar beside the map says which colour is which score.

        Returns
        -------
        self : Display
            With ``ax_`` and ``figure_``. A notebook shows the figure once, not the page too.
        """
        plt = need("matplotlib.pyplot", "plot")
        if ax is None:
            _, ax = plt.subplots(figsize=self._size(), layout="constrained")
        set_title(ax, self.concept if title is None else title)
        ax.set_axis_off()
        if colorbar:
            self._draw_bar(ax.figure, ax, cmap)
        self._draw(ax, self._colours(cmap))
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @checked(path=[PATH, None], cmap=[CMAP, None], title=[str, None])
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
        return page(title or type(self).__name__, titled(title, self._fragment(cmap)), path)

    def _repr_html_(self) -> str | None:
        # A notebook that shows the figure of `plot` shows nothing twice.
        return None if is_open(self) else titled(self.concept, self._fragment(None))

    def _ends(self) -> tuple[float, float]:
        """Give the scores of the first and the last colour."""
        # A map of a missing score is no zero: such tokens stay uncoloured.
        known = self.scores[np.isfinite(self.scores)]
        low, high = (known.min(), known.max()) if len(known) else (0.0, 0.0)
        if self.limits is not None:
            low, high = self.limits
        if self.center is not None:
            reach = max(abs(low - self.center), abs(high - self.center)) if len(known) else 0
            low, high = self.center - (reach or 1), self.center + (reach or 1)
        return float(low), float(high if high > low else low + 1)

    def _colours(self, cmap: str | None) -> Array:
        """Red, green, blue and opacity of each token, from its score."""
        low, high = self._ends()
        known = np.isfinite(self.scores)
        shade = np.clip((np.where(known, self.scores, low) - low) / (high - low), 0, 1)
        colours = self._painted(shade, cmap)
        colours[~known] = (1, 1, 1, 0)
        return colours

    def _painted(self, shade: Array, cmap: str | None) -> Array:
        """Colours of shades in [0, 1]."""
        colours = colour(shade, cmap or (_CMAP if self.center is None else "RdBu_r"))
        colours[:, 3] = self._opacity(shade)
        return colours

    def _draw_bar(self, figure: Any, axes: Any, cmap: str | None) -> None:
        """Say beside axes of a figure which colour is which score."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import ListedColormap, Normalize

        colours = self._painted(np.linspace(0, 1, 256), cmap)
        # As the colours look on white.
        seen = 1 - colours[:, 3:] * (1 - colours[:, :3])
        scale = ScalarMappable(Normalize(*self._ends()), ListedColormap(seen))
        figure.colorbar(scale, ax=axes, label="score", fraction=0.05, aspect=15)

    @abstractmethod
    def _read_sample(self, sample: Any, tokens: Any) -> tuple[Any, Any]:
        """Refuse what is no sample of this kind; give it, and its tokens, in the form drawn."""

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
