"""Maps of one sample side by side: methods in one direction, targets in the other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from skact.arguments import PATH, SEQUENCE, Such, checked
from skact.inspection._display import TOKENS, check_marks
from skact.inspection._heat_maps import PatchHeatMapDisplay, TokenHeatMapDisplay
from skact.inspection._html import page
from skact.inspection._reading import (
    attributions,
    center_of,
    find_concept,
    is_localizer,
    method_name,
    tokens_and_marks,
)
from skact.inspection._samples import CMAP, FIGURE, draw_grid, grid_html, is_open, wrapped

__all__ = ["LocalizationDisplay"]


_MAPS = Such(
    "a dict of methods to dicts of targets to maps",
    lambda value: (
        isinstance(value, Mapping) and all(isinstance(row, Mapping) for row in value.values())
    ),
)
# Maps of an image beside each other.
_N_METHODS = 6
_LIST = Such("a list of one or more", lambda value: SEQUENCE.is_satisfied_by(value) and len(value))


class LocalizationDisplay:
    """Attributions of one concept in one sample, by several methods for several targets.

    Every map has its own scale, from blue (against the concept) over no colour to red, because
    methods differ in units. No colour is 0, but the mean of the map for "rise" or "RISE(...)",
    which gives expected values. SuperActivators are outlined in all maps.

    Parameters
    ----------
    sample : str, image or path
        One raw sample.
    tokens : sequence of Token or Patch
        Its tokens, from ``TransformerEmbedder.tokens_of``.
    maps : mapping of str to mapping of str to array-like of shape (n_tokens,)
        ``maps[method][target]`` is a map; every method has the same targets. Tokens that are NaN
        stay uncoloured.
    superactivators : array-like of shape (n_tokens,), default=None
        True at SuperActivators.
    concept : str, default=None
        Name of the concept.

    Attributes
    ----------
    figure_ : matplotlib Figure
        Where it was drawn.
    axes_ : ndarray of matplotlib Axes
        One row per method of a text; one row per target of an image, after the image itself, and
        more where there are more than 6 methods.

    Raises
    ------
    ValueError, TypeError
        If an argument is of another kind, there is no map, methods differ in their targets, or a
        map does not have one entry per token.

    Examples
    --------
    >>> from skact import Token
    >>> from skact.inspection import LocalizationDisplay
    >>> tokens = [Token("<b>", 0, 3), Token("joy", 4, 7)]
    >>> maps = {"direct": {"global": [-0.1, 0.4], "local": [0.0, 0.9]}}
    >>> html = LocalizationDisplay("<b> joy", tokens, maps, concept="joy").to_html()
    >>> "<b>" in html, "&lt;b&gt;" in html
    (False, True)
    """

    figure_: Any
    axes_: npt.NDArray[Any]

    @checked(tokens=[TOKENS], maps=[_MAPS], concept=[str, None])
    def __init__(
        self,
        sample: Any,
        tokens: Sequence[Any],
        maps: Mapping[str, Mapping[str, npt.ArrayLike]],
        superactivators: npt.ArrayLike | None = None,
        *,
        concept: str | None = None,
    ) -> None:
        self.sample = sample
        self.tokens = tokens
        self.maps = maps
        self.superactivators = check_marks(superactivators, len(tokens))
        self.concept = concept
        self._is_image = hasattr(tokens[0], "box")
        self._cells = self._grid(_targets(maps))

    @classmethod
    @checked(methods=[_LIST, None], targets=[_LIST], figure=[FIGURE, None])
    def from_estimator(
        cls,
        estimator: Any,
        sample: Any,
        concept: int | str = 0,
        *,
        methods: Sequence[Any] | None = None,
        targets: Sequence[Any] = ("global", "local"),
        figure: Any = None,
    ) -> Self:
        """Localize a concept in one raw sample by several methods, and draw the maps.

        Parameters
        ----------
        estimator : ConceptLocalizer
            Fitted. Its own method and target are left as they are.
        sample : str, image or path
            One raw sample.
        concept : int or str, default=0
            Number or name of the concept.
        methods : sequence, default=None
            Values of ``method``, names or objects; None is that of the localizer. Maps go by the
            names of their methods, or by the whole objects if two have one name.
        targets : sequence, default=("global", "local")
            Values of ``target``.
        figure : matplotlib Figure or SubFigure, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : LocalizationDisplay
            With ``figure_`` and ``axes_``. A local map of a sample without a SuperActivator is
            left uncoloured.

        Raises
        ------
        ValueError
            If the localizer does not know the concept, or was not fitted with ``method="calm"``
            where that map is asked for: its heads come from ``fit``.
        TypeError
            If the estimator is no localizer.
        """
        if not is_localizer(estimator):
            raise TypeError(
                f"estimator must be a ConceptLocalizer, got {type(estimator).__name__}."
            )
        number, name = find_concept(estimator.concept_names_, concept)
        tokens, marks = tokens_and_marks(estimator, sample, number)
        methods = (estimator.method,) if methods is None else methods
        calm = "calm" in map(method_name, methods)
        if calm and method_name(estimator.method_) != "calm":
            raise ValueError(
                'methods has "calm", which needs a localizer fitted with method="calm".'
            )
        maps: dict[str, dict[str, Any]] = {}
        for target in targets:
            # A shallow copy keeps what is fitted; maps do not depend on the thresholds.
            variant = copy(estimator).set_params(target=target)
            for method, scores in attributions(variant, sample, number, methods).items():
                maps.setdefault(method, {})[str(target)] = scores
        return cls(sample, tokens, maps, marks, concept=name).plot(figure=figure)

    def _grid(self, targets: list[str]) -> list[list[Any]]:
        """Lay the displays out in rows and columns; None where a place stays empty."""
        cells = [
            [self._cell(row[t], method, t) for t in targets] for method, row in self.maps.items()
        ]
        if not self._is_image:
            return cells
        # The image as it is leads the first row; all else is a map.
        nothing = np.full(len(self.tokens), np.nan)
        plain = PatchHeatMapDisplay(
            self.sample, self.tokens, nothing, self.superactivators, concept="image"
        )
        by_target = [wrapped(row, _N_METHODS) for row in zip(*cells, strict=True)]
        rows = [row for parts in zip(*by_target, strict=True) for row in parts]
        return [[None if i else plain, *row] for i, row in enumerate(rows)]

    def _cell(self, scores: npt.ArrayLike, method: str, target: str) -> Any:
        display: Any = PatchHeatMapDisplay if self._is_image else TokenHeatMapDisplay
        # Images are narrow, so their titles take two lines.
        title = f"{method}\n{target}" if self._is_image else f"{method}, {target}"
        center, marks = center_of(method, scores), self.superactivators
        return display(self.sample, self.tokens, scores, marks, concept=title, center=center)

    @checked(figure=[FIGURE, None], cmap=[CMAP, None], colorbar=["boolean"])
    def plot(self, *, figure: Any = None, cmap: str | None = None, colorbar: bool = False) -> Self:
        """Draw all maps.

        Parameters
        ----------
        figure : matplotlib Figure or SubFigure, default=None
            Where to draw; None makes a new figure.
        cmap : str, default=None
            Colour map, as in the heat maps.
        colorbar : bool, default=False
            Whether a bar beside each map says which colour is which score: every map has its own
            scale.

        Returns
        -------
        self : Display
            With ``figure_`` and ``axes_``. A notebook shows the figure once, not the page too.
        """
        size = (1.8, 2.2) if self._is_image else None
        self.figure_, self.axes_ = draw_grid(
            self._cells, figure, self.concept, size, cmap, own_bars=colorbar
        )
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
            A whole document. All text of the sample is escaped.
        """
        body = grid_html(self._cells, self.concept, cmap)
        return page(self.concept or type(self).__name__, body, path)

    def _repr_html_(self) -> str | None:
        return None if is_open(self) else grid_html(self._cells, self.concept)


def _targets(maps: Mapping[str, Mapping[str, npt.ArrayLike]]) -> list[str]:
    """Return the targets that every method has a map of."""
    targets = {method: list(row) for method, row in maps.items()}
    if not any(targets.values()):
        raise ValueError("maps must hold at least one map, as maps[method][target].")
    first = next(iter(targets.values()))
    for method, own in targets.items():
        if own != first:
            raise ValueError(f"maps has the targets {first}, but {own} for {method!r}.")
    return first
