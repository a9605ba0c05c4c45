"""What lies between a token and a decision, in whatever a detector was fitted in."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from skact.base import (
    SEARCHES,
    TokenTransformer,
    has_many_classes,
    steps_of,
    unwrapped,
    winners_of,
)
from skact.detection import BaseDetector
from skact.embedding import TransformerEmbedder
from skact.model_selection import CrossFitTransformer
from skact.preprocessing import JoinLayers, SelectLayer
from skact.rows import Array
from skact.tokens import Source, TokenArray

__all__ = ["Line", "Lines", "lines_of"]


@dataclass(frozen=True)
class Line:
    """Steps from a token of one layer to scores, and the detector that reads them.

    Parameters
    ----------
    block : int or None
        Of the layer; None if it is not known.
    source : Source or None
        Where the tokens came from on which the first step was fitted.
    width : int
        Features of a token.
    steps : tuple of TokenTransformer
        What maps tokens to scores, as fitted now; fitting it again changes nothing here.
    score : callable
        Does that: takes tokens (n, width), float32, returns scores (n, n_columns).
    detector : BaseDetector
        Fitted.
    concepts : ndarray of int
        Numbers of the concepts that are decided here.
    """

    block: int | None
    source: Source | None
    width: int
    steps: tuple[TokenTransformer, ...]
    score: Callable[[Array], Array]
    detector: BaseDetector
    concepts: Array

    @property
    def columns(self) -> Array:
        """Score column of each of the concepts."""
        return self.detector.matched_columns_[self.concepts]

    @property
    def thresholds(self) -> Array:
        """Threshold of each of the concepts."""
        return self.detector.thresholds_[self.concepts]

    def check_source(self, tokens: Any, what: str) -> None:
        """Refuse tokens that say that they are of another model, layer or scaling, or grids.

        Parameters
        ----------
        tokens : object
            A TokenArray says where it comes from; anything else does not.
        what : str
            What the tokens are called.

        Raises
        ------
        ValueError
            If that is not where the detector's tokens came from, or it pools squares of them.
        """
        if not isinstance(tokens, TokenArray):
            return
        if tokens.shapes is not None and getattr(self.detector, "window", 1) > 1:
            raise ValueError(
                f"{what} holds grids, of which the detector pools squares, where a monitor pools "
                "runs of tokens; ask the estimator itself."
            )
        mine = replace(self.source or Source(), block=self.block)
        if tokens.source is not None and (field := mine.conflict(tokens.source)):
            raise ValueError(
                f"{what} comes from another {field} than the detector was fitted on: fitted on "
                f"({mine}), got ({tokens.source})."
            )


class Lines(NamedTuple):
    """What was taken apart.

    Parameters
    ----------
    names : list of str
        Names of the concepts.
    lines : list of Line
        One for each way from tokens to decisions; together they decide all concepts.
    embedder : TransformerEmbedder or None
        What reads raw samples, if it is part of the estimator.
    of_one : bool
        Whether each sample has one of more than two classes, the most probable one.
    """

    names: list[str]
    lines: list[Line]
    embedder: TransformerEmbedder | None
    of_one: bool


def lines_of(estimator: Any) -> Lines:
    """Take apart what was fitted.

    Parameters
    ----------
    estimator : Pipeline, detector, search or ConceptDetector
        Fitted.

    Returns
    -------
    lines : Lines
        Names of the concepts, and what decides them.

    Raises
    ------
    TypeError
        If a step does not map tokens one by one, or there is no detector at the end.
    """
    decides, head = unwrapped(estimator, SEARCHES), []
    if winners_of(decides) is None:
        *head, decides = _steps(decides) or [decides]
    names = [str(name) for name in getattr(decides, "concept_names_", ())]
    winners = winners_of(decides)
    if winners is None:
        steps = [*head, decides]
        line = _line(steps, np.arange(len(names)))
        return Lines(names, [line], _embedder(steps), has_many_classes(decides))
    shared: dict[tuple[int, ...], tuple[list[Any], list[int]]] = {}
    for name, pipeline in winners.items():
        steps = [*head, *_steps(pipeline)]
        # The first step may be an embedder for each, which says nothing of who won.
        key = tuple(id(step) for step in steps if not isinstance(step, TransformerEmbedder))
        shared.setdefault(key, (steps, []))[1].append(names.index(name))
    lines = [_line(steps, np.array(concepts)) for steps, concepts in shared.values()]
    embedder = _embedder(next(iter(shared.values()))[0])
    return Lines(names, lines, embedder, has_many_classes(decides))


def _steps(estimator: Any) -> list[Any]:
    """All steps in order; of what was cross-fitted, those that were fitted on all."""
    steps = steps_of(estimator, SEARCHES)
    return [
        inner
        for step in steps
        for inner in (_steps(step.estimator_) if isinstance(step, CrossFitTransformer) else [step])
    ]


def _embedder(steps: list[Any]) -> TransformerEmbedder | None:
    return steps[0] if isinstance(steps[0], TransformerEmbedder) else None


def _line(steps: list[Any], concepts: Array) -> Line:
    detector = steps[-1] if steps else None
    if not isinstance(detector, BaseDetector):
        raise TypeError(
            "estimator must end in a detector, such as SuperActivator or TopWindows; it ends in "
            f"{type(detector).__name__}."
        )
    middle = steps[_embedder(steps) is not None : -1]
    for step in middle:
        if isinstance(step, JoinLayers):
            raise TypeError(
                "estimator joins layers side by side, which no single token brings; a search over "
                "layers can be watched."
            )
        if not isinstance(step, TokenTransformer):
            raise TypeError(
                f"estimator has the step {type(step).__name__}, which does not map tokens one by "
                "one as the steps of this package do."
            )
    first = middle[0] if middle else detector
    if concepts.size and getattr(detector, "matched_columns_", None) is None:
        raise TypeError("estimator must be fitted.")
    source = first.source_
    block = None if source is None else source.block
    if isinstance(first, SelectLayer) and first.layer_ is not None:
        block = first.layer_
    frozen = tuple(map(copy, middle))
    score = _Chain([step.token_function() for step in frozen])
    return Line(block, source, first.n_features_in_, frozen, score, detector, concepts)


class _Chain:
    """One function after the other."""

    def __init__(self, functions: list[Callable[[Array], Array]]) -> None:
        self._functions = functions

    def __call__(self, values: Array) -> Array:
        return reduce(lambda rows, function: function(rows), self._functions, values)
