"""What the heat maps of texts and images have in common: scores, colours and where they go."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.pipeline import Pipeline

from skact.arguments import PATH, SEQUENCE, Number, Such, checked, float_array, instance
from skact.extras import need
from skact.inspection._colours import colour
from skact.inspection._html import page, titled
from skact.inspection._reading import (
    attributions,
    center_of,
    find_concept,
    is_localizer,
    tokens_and_marks,
)
from skact.rows import Array

__all__ = ["TOKENS", "HeatMapDisplay", "check_marks"]

#: Tokens or patches of a sample.
TOKENS = Such(
    "a list of tokens, from TransformerEmbedder.tokens_of",
    lambda value: SEQUENCE.is_satisfied_by(value) and len(value),
)
AXES = Such("matplotlib Axes", lambda value: hasattr(value, "add_patch"))
CMAP = instance("the name of a colour map", str)


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

    _cmap: ClassVar[str]
    _place: ClassVar[str]  # what a token has that says where it lies

    ax_: Any
    figure_: Any

    @checked(
        tokens=[TOKENS],
        scores=["array-like"],
        superactivators=["array-like", None],
        concept=[str, None],
        center=[Number(Real, None, None, closed="neither"), None],
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
    ) -> None:
        self._check_sample(sample)
        if not all(hasattr(token, self._place) for token in tokens):
            raise TypeError(f"tokens must have a {self._place} each, got {tokens[0]!r}.")
        self.sample = sample
        self.tokens = tokens
        self.scores = float_array(scores, "scores")
        self.superactivators = check_marks(superactivators, len(tokens))
        self.concept = concept
        self.center = center
        if self.scores.shape != (len(tokens),):
            raise ValueError(
                f"scores must have shape ({len(tokens)},), one entry per token, got "
                f"{self.scores.shape}."
            )

    @classmethod
    @checked(ax=[AXES, None])
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
            methods = [estimator.method]
            (scores,) = attributions(estimator, sample, number, methods).values()
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

    @checked(ax=[AXES, None], cmap=[CMAP, None], title=[str, None])
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
        plt = need("matplotlib.pyplot", "plot")
        if ax is None:
            _, ax = plt.subplots(figsize=self._size(), layout="constrained")
        ax.set_title(self.concept if title is None else title, parse_math=False)
        ax.set_axis_off()
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

    def _repr_html_(self) -> str:
        return titled(self.concept, self._fragment(None))

    def _colours(self, cmap: str | None) -> Array:
        """Red, green, blue and opacity of each token, from its score."""
        # A map of a missing score is no zero: such tokens stay uncoloured.
        known = self.scores[np.isfinite(self.scores)]
        if self.center is None:
            low, span = (known.min(), np.ptp(known)) if len(known) else (0.0, 0.0)
            shade = (self.scores - low) / (span if span > 0 else 1)
        else:
            reach = np.abs(known - self.center).max(initial=0)
            shade = 0.5 + (self.scores - self.center) / (2 * reach if reach > 0 else 1)
        name = cmap or (self._cmap if self.center is None else "RdBu_r")
        colours = colour(np.nan_to_num(shade, nan=0.5), name)
        colours[:, 3] = self._opacity(shade)
        colours[~np.isfinite(self.scores)] = (1, 1, 1, 0)
        return colours

    @abstractmethod
    def _check_sample(self, sample: Any) -> None:
        """Refuse what is no sample of this kind."""

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
