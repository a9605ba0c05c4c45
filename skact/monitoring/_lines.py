"""What lies between a token and a decision, in whatever a detector was fitted in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from skact.base import TokenTransformer, steps_of, unwrapped
from skact.detection import BaseDetector
from skact.embedding import TransformerEmbedder
from skact.model_selection import CrossFitTransformer
from skact.preprocessing import JoinLayers, SelectLayer
from skact.rows import Array
from skact.tokens import Source

__all__ = ["Line", "lines_of"]

# What holds an estimator in another way may decide in another way too.
_HOLDERS = ("best_estimator_",)


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
    score : callable
        Takes tokens (n, width), float32, returns scores (n, n_columns).
    detector : BaseDetector
        Fitted.
    concepts : ndarray of int
        Numbers of the concepts that are decided here.
    """

    block: int | None
    source: Source | None
    width: int
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


def lines_of(estimator: Any) -> tuple[list[str], list[Line], TransformerEmbedder | None]:
    """Take apart what was fitted.

    Parameters
    ----------
    estimator : Pipeline, detector, search or ConceptDetector
        Fitted.

    Returns
    -------
    names : list of str
        Names of the concepts.
    lines : list of Line
        One for each way from tokens to decisions; together they decide all concepts.
    embedder : TransformerEmbedder or None
        What reads raw samples, if it is part of the estimator.

    Raises
    ------
    TypeError
        If a step does not map tokens one by one, or there is no detector at the end.
    """
    estimator = unwrapped(estimator, _HOLDERS)
    winners = getattr(estimator, "pipelines_", None) or getattr(estimator, "best_estimators_", None)
    if winners is None:
        steps = _steps(estimator)
        detector = steps[-1]
        names = [str(name) for name in detector.concept_names_]
        everything = np.arange(len(names))
        return names, [_line(steps, everything)], _embedder(steps)
    names = [str(name) for name in estimator.concept_names_]
    shared: dict[tuple[int, ...], tuple[list[Any], list[int]]] = {}
    for name, pipeline in winners.items():
        steps = _steps(pipeline)
        # The first step may be an embedder for each, which says nothing of who won.
        key = tuple(id(step) for step in steps if not isinstance(step, TransformerEmbedder))
        shared.setdefault(key, (steps, []))[1].append(names.index(name))
    lines = [_line(steps, np.array(concepts)) for steps, concepts in shared.values()]
    return names, lines, _embedder(next(iter(shared.values()))[0])


def _steps(estimator: Any) -> list[Any]:
    """All steps in order; of what was cross-fitted, those that were fitted on all."""
    steps = steps_of(estimator, _HOLDERS)
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
    functions = [step.token_function() for step in middle]
    return Line(block, source, first.n_features_in_, _Chain(functions), detector, concepts)


class _Chain:
    """One function after the other."""

    def __init__(self, functions: list[Callable[[Array], Array]]) -> None:
        self._functions = functions

    def __call__(self, values: Array) -> Array:
        return reduce(lambda rows, function: function(rows), self._functions, values)
