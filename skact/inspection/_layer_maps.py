"""Scores of one sample at several layers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy.typing as npt
from sklearn.pipeline import Pipeline

from skact.arguments import PATH, Such, checked
from skact.embedding import TransformerEmbedder
from skact.inspection._analysis import winners_by_layer
from skact.inspection._display import TOKENS
from skact.inspection._heat_maps import PatchHeatMapDisplay, TokenHeatMapDisplay
from skact.inspection._html import page
from skact.inspection._reading import find_concept
from skact.inspection._samples import CMAP, FIGURE, draw_grid, grid_html, is_open, wrapped

__all__ = ["LayerHeatMapDisplay"]

_SCORES = Such(
    "a dict of blocks to scores of the tokens",
    lambda value: isinstance(value, Mapping) and len(value),
)
_MARKS = Such("a dict of blocks to marks of the tokens", lambda value: isinstance(value, Mapping))
# Images side by side.
_COLUMNS = 6


class LayerHeatMapDisplay:
    """Scores of one concept in one sample at several layers; SuperActivators are outlined.

    Every layer has its own scale, from its lowest to its highest score in the sample, because
    scores of different layers differ in units.

    Parameters
    ----------
    sample : str, image or path
        One raw sample.
    tokens : sequence of Token or Patch
        Its tokens, from ``TransformerEmbedder.tokens_of``.
    scores : mapping of int to array-like of shape (n_tokens,)
        Scores by block.
    superactivators : mapping of int to array-like of shape (n_tokens,), default=None
        True at SuperActivators, by block; a block that is left out has none marked.
    concept : str, default=None
        Name of the concept.

    Attributes
    ----------
    figure_ : matplotlib Figure
        Where it was drawn.
    axes_ : ndarray of matplotlib Axes
        One row per layer of a text; of an image, the layers row by row.

    Raises
    ------
    ValueError, TypeError
        If an argument is of another kind, or a layer does not have one score per token.

    Examples
    --------
    >>> from skact import LayerHeatMapDisplay, Token
    >>> tokens = [Token("so", 0, 2), Token("happy", 3, 8)]
    >>> html = LayerHeatMapDisplay("so happy", tokens, {0: [0.1, 0.2], 5: [0.0, 0.9]}).to_html()
    >>> "block 0" in html, "block 5" in html
    (True, True)
    """

    figure_: Any
    axes_: npt.NDArray[Any]

    @checked(tokens=[TOKENS], scores=[_SCORES], superactivators=[_MARKS, None], concept=[str, None])
    def __init__(
        self,
        sample: Any,
        tokens: Sequence[Any],
        scores: Mapping[int, npt.ArrayLike],
        superactivators: Mapping[int, npt.ArrayLike] | None = None,
        *,
        concept: str | None = None,
    ) -> None:
        marks = superactivators or {}
        unknown = [block for block in marks if block not in scores]
        if unknown:
            raise ValueError(f"superactivators has block {unknown[0]!r}, scores has not.")
        self.sample = sample
        self.tokens = tokens
        self.scores = scores
        self.superactivators = superactivators
        self.concept = concept
        self._is_image = hasattr(tokens[0], "box")
        display = PatchHeatMapDisplay if self._is_image else TokenHeatMapDisplay
        self._cells: list[Any] = [
            display(sample, tokens, scores[block], marks.get(block), concept=f"block {block}")
            for block in sorted(scores)
        ]

    @classmethod
    @checked(figure=[FIGURE, None])
    def from_estimator(
        cls, estimator: Any, sample: Any, concept: int | str = 0, *, figure: Any = None
    ) -> Self:
        """Score one raw sample at several layers and draw it.

        Parameters
        ----------
        estimator : ConceptSearchCV, or mapping of int to Pipeline
            Fitted, from a TransformerEmbedder to a detector. A search has the layers of its
            winners; pipelines by block may have all.
        sample : str, image or path
            One raw sample.
        concept : int or str, default=0
            Number or name of the concept.
        figure : matplotlib Figure or SubFigure, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : LayerHeatMapDisplay
            With ``figure_`` and ``axes_``.

        Raises
        ------
        ValueError
            If the estimator does not know the concept.
        TypeError
            If the estimator is neither, or does not start at raw samples.
        """
        if isinstance(estimator, Mapping) and estimator:
            pipelines = dict(estimator)
        else:
            pipelines = winners_by_layer(estimator)
        scores, marks = {}, {}
        for block, pipeline in pipelines.items():
            if not isinstance(pipeline, Pipeline) or not isinstance(
                pipeline[0], TransformerEmbedder
            ):
                raise TypeError(
                    "estimator must start with a TransformerEmbedder at each layer, but that of "
                    f"layer {block!r} is {type(pipeline).__name__} without one; scores can be "
                    "given to LayerHeatMapDisplay(sample, tokens, scores)."
                )
            detector = pipeline[-1]
            number, name = find_concept(detector.concept_names_, concept)
            found = pipeline[:-1].transform([sample])
            scores[block] = found[0][:, detector.matched_columns_[number]]
            marks[block] = detector.superactivators(found)[0][:, number]
        tokens = pipeline[0].tokens_of([sample])[0]
        return cls(sample, tokens, scores, marks, concept=name).plot(figure=figure)

    @checked(figure=[FIGURE, None], cmap=[CMAP, None], colorbar=["boolean"])
    def plot(self, *, figure: Any = None, cmap: str | None = None, colorbar: bool = False) -> Self:
        """Draw all layers.

        Parameters
        ----------
        figure : matplotlib Figure or SubFigure, default=None
            Where to draw; None makes a new figure.
        cmap : str, default=None
            Colour map, as in the heat maps.
        colorbar : bool, default=False
            Whether a bar beside each layer says which colour is which score.

        Returns
        -------
        self : LayerHeatMapDisplay
            With ``figure_`` and ``axes_``.
        """
        rows = wrapped(self._cells, _COLUMNS if self._is_image else 1)
        size = (1.8, 2.0) if self._is_image else None
        self.figure_, self.axes_ = draw_grid(
            rows, figure, self.concept, size, cmap, own_bars=colorbar
        )
        return self

    @checked(path=[PATH, None], cmap=[CMAP, None])
    def to_html(
        self, path: str | os.PathLike[str] | None = None, *, cmap: str | None = None
    ) -> str:
        """Give all layers as a page that needs no other file and runs no script.

        Parameters
        ----------
        path : str or path-like, default=None
            Also write it there, in one step.
        cmap : str, default=None
            Colour map, as in the heat maps.

        Returns
        -------
        html : str
            A whole document. All text of the sample is escaped.
        """
        return page(self.concept or type(self).__name__, self._fragment(cmap), path)

    def _repr_html_(self) -> str | None:
        return None if is_open(self) else self._fragment(None)

    def _fragment(self, cmap: str | None) -> str:
        rows = [self._cells] if self._is_image else [[cell] for cell in self._cells]
        return grid_html(rows, self.concept, cmap)
