"""What a fitted estimator says of raw samples, whatever its parts are wrapped in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from skact.base import (
    SEARCHES,
    has_many_classes,
    one_of_many,
    steps_of,
    summing_to_one,
    unwrapped,
    winners_of,
)
from skact.detection import BaseDetector
from skact.embedding import TransformerEmbedder
from skact.models import resolve_layers
from skact.preprocessing import SelectLayer
from skact.rows import Array
from skact.tokens import LayerStack, TokenArray

__all__ = ["Reading", "is_of_one", "lines_of", "read_concepts", "through"]


@dataclass(frozen=True)
class Reading:
    """What an estimator says of one concept in raw samples.

    Parameters
    ----------
    concept : str
        Its name.
    line : list
        Steps from raw samples to decisions: an embedder first, a detector last.
    number : int
        Number of the concept in the detector.
    scores : TokenArray of shape (n_samples, 1)
        Score of each token.
    marks : TokenArray of shape (n_samples, 1), dtype bool
        Which of them reach the threshold by themselves.
    pooled, decision, chance : ndarray of shape (n_samples,)
        Pooled score, what it has above the threshold, and the probability of the concept.
    found : ndarray of shape (n_samples,), dtype bool
        Where it is found: above the threshold; of more than two classes the most probable one.
    block : int or None
        Layer that is read.
    """

    concept: str
    line: list[Any]
    number: int
    scores: TokenArray
    marks: TokenArray
    pooled: Array
    decision: Array
    chance: Array
    found: Array
    block: int | None

    @property
    def detector(self) -> BaseDetector:
        """What decides."""
        detector: BaseDetector = self.line[-1]
        return detector

    @property
    def threshold(self) -> float:
        """Pooled score from which on the concept is found."""
        return float(self.detector.thresholds_[self.number])


def lines_of(estimator: Any) -> dict[str, list[Any]]:
    """List the steps from raw samples to decisions, for each concept.

    Parameters
    ----------
    estimator : ConceptDetector, ConceptSearchCV, Pipeline or search
        Fitted; perhaps within ``FrozenEstimator`` or scikit-learn's searches.

    Returns
    -------
    lines : dict of str to list
        By concept: steps in order. Concepts that share a step share the object.

    Raises
    ------
    TypeError
        If it does not begin with an embedder that keeps tokens, or does not end in a detector.
    """
    inner = unwrapped(estimator, SEARCHES)
    winners = winners_of(inner)
    if winners is not None:
        lines = {name: steps_of(line, SEARCHES) for name, line in winners.items()}
    else:
        *head, last = steps_of(inner, SEARCHES) or [inner]
        winners = winners_of(last)
        if winners is None:
            names = getattr(last, "concept_names_", [None])
            winners = dict.fromkeys(map(str, names), last)
        lines = {name: [*head, *steps_of(line, SEARCHES)] for name, line in winners.items()}
    line = next(iter(lines.values()), []) or [inner]
    first, last = line[0], line[-1]
    if not isinstance(first, TransformerEmbedder) or not isinstance(last, BaseDetector):
        raise TypeError(
            "estimator must be a fitted ConceptDetector, or a Pipeline or search that starts with "
            "a TransformerEmbedder and ends in a detector, so that it reads raw samples; got "
            f"{type(inner).__name__} that starts with {type(first).__name__} and ends in "
            f"{type(last).__name__}. What was fitted on tokens becomes one by "
            "make_pipeline(embedder, FrozenEstimator(it))."
        )
    check_is_fitted(last)
    if first.pooling is not None:
        raise TypeError(
            f"estimator pools by pooling={first.pooling!r} before the scores, so tokens have none."
        )
    return lines


def read_concepts(
    estimator: Any, samples: Sequence[Any], concepts: Sequence[str] | None = None
) -> list[Reading]:
    """Ask a fitted estimator about raw samples; the model runs once.

    Parameters
    ----------
    estimator : ConceptDetector, ConceptSearchCV, Pipeline or search
        As in :func:`lines_of`.
    samples : sequence of n_samples raw samples
        Texts, chats or images.
    concepts : sequence of str, default=None
        Names of the concepts to ask about; None asks about all.

    Returns
    -------
    readings : list of Reading
        One for each concept, in their order.

    Raises
    ------
    TypeError
        As in :func:`lines_of`.
    """
    lines, of_one = lines_of(estimator), is_of_one(estimator)
    asked = list(lines if concepts is None else concepts)
    # Which class is the most probable one depends on all.
    lines = lines if of_one else {name: lines[name] for name in asked}
    common = getattr(unwrapped(estimator, SEARCHES), "embedder_", None)
    embedded = _embedded(lines, samples, common)
    scored: dict[tuple[int, ...], tuple[TokenArray, Array]] = {}
    readings, odds = {}, []
    for name, line in lines.items():
        detector, tokens = line[-1], embedded[id(line[0])]
        # Each line may have an embedder of its own that gives the same tokens.
        key = (id(tokens), *map(id, line[1:]))
        if key not in scored:
            scores = through(line[1:-1], tokens)
            scored[key] = scores, detector.pool(scores)
        scores, pooled = scored[key]
        number = [str(known) for known in detector.concept_names_].index(name)
        column = int(detector.matched_columns_[number])
        decision = detector.decide(pooled)[:, number]
        odds.append(detector.log_odds(pooled)[:, number])
        readings[name] = Reading(
            concept=name,
            line=line,
            number=number,
            scores=scores.columns([column]),
            marks=detector.superactivators(scores).columns([number]),
            pooled=pooled[:, column],
            decision=decision,
            chance=detector.probabilities(pooled)[:, number],
            found=decision > 0,
            block=_block(line, tokens),
        )
    if of_one:
        readings = _of_one(readings, np.stack(odds, axis=1))
    return [readings[name] for name in asked]


def _of_one(readings: Mapping[str, Reading], odds: Array) -> dict[str, Reading]:
    """Say of classes of which each sample has one what the estimator says of them together."""
    found = one_of_many(odds).T
    chances = summing_to_one(np.stack([one.chance for one in readings.values()], axis=1)).T
    return {
        name: replace(reading, found=mine, chance=chance)
        for (name, reading), mine, chance in zip(readings.items(), found, chances, strict=True)
    }


def is_of_one(estimator: Any) -> bool:
    """Tell whether an estimator gives each sample one of more than two classes.

    Parameters
    ----------
    estimator : ConceptDetector, ConceptSearchCV, Pipeline or search
        As in :func:`lines_of`.

    Returns
    -------
    of_one : bool
        Then the most probable class is found in a sample.
    """
    inner = unwrapped(estimator, SEARCHES)
    decides = inner if winners_of(inner) is not None else steps_of(inner, SEARCHES)[-1]
    return has_many_classes(decides)


def through(steps: Sequence[Any], tokens: Any) -> Any:
    """Take tokens through fitted steps."""
    for step in steps:
        tokens = step.transform(tokens)
    return tokens


def _embedded(
    lines: Mapping[str, list[Any]], samples: Sequence[Any], common: TransformerEmbedder | None
) -> dict[int, Any]:
    """Tokens by the id of the embedder, in one pass where embedders differ in their layer alone."""
    embedders = {id(line[0]): line[0] for line in lines.values()}
    if common is None:
        return {key: embedder.transform(samples) for key, embedder in embedders.items()}
    n_blocks = common.n_blocks
    asked = {key: resolve_layers(one.layer, n_blocks) for key, one in embedders.items()}
    union = sorted({block for blocks, _ in asked.values() for block in blocks})
    stack: Any = clone(common).set_params(layer=union).transform(samples)
    return {
        key: LayerStack({b: stack.layer(b) for b in blocks}) if many else stack.layer(blocks[0])
        for key, (blocks, many) in asked.items()
    }


def _block(line: Sequence[Any], tokens: Any) -> int | None:
    """Layer that a line reads; None if it reads several."""
    for step in line[1:]:
        if isinstance(step, SelectLayer):
            return step.layer_
    return None if isinstance(tokens, LayerStack) else tokens.source.block
