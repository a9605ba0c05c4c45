r"""What thresholds are computed from, and every score column judged as a detector of every concept.

The threshold of a concept comes from its **reference scores**. A detector declares which these are,
by an object of this module:

- :class:`PooledScores`: the pooled scores :math:`A(x)` of all samples;
- :class:`LabelledScores`: the scores of the tokens labelled with the concept;
- :class:`TopScores`: the highest scores of each sample.

Scores that are not in memory are read in blocks, and only reference scores are held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from skact.rows import Array, most_held, offsets_of, on_disk, runs, segment_sum
from skact.tail import best_columns, concept_f1, fit_sigmoid, top_share
from skact.targets import Targets
from skact.tokens import TokenArray

__all__ = [
    "Calibration",
    "LabelledScores",
    "PooledScores",
    "Reference",
    "ReferenceScores",
    "Table",
    "TopScores",
    "judge_columns",
    "named_columns",
]


class Reference(NamedTuple):
    """Reference scores of one concept.

    Parameters
    ----------
    scores : ndarray of shape (n_scores, n_columns) or (n_scores,)
        The scores.
    positive : ndarray of shape (n_scores,), dtype bool
        Which of them belong to the concept, or to samples that hold it.
    """

    scores: Array
    positive: Array


@dataclass(frozen=True)
class Calibration:
    """One concept in the data that thresholds are computed from.

    Parameters
    ----------
    lengths : ndarray of shape (n_samples,)
        Tokens of each sample.
    labels : ndarray of shape (n_tokens,), dtype bool
        Tokens that belong to the concept, sample after sample.
    present : ndarray of shape (n_samples,), dtype bool
        Samples that hold it.
    pool : callable
        Pools all columns, once for all concepts.
    columns : slice
        Columns that are judged for this concept.
    """

    lengths: Array
    labels: Array
    present: Array
    pool: Callable[[], Array]
    columns: slice

    @property
    def pooled(self) -> Array:
        """Pooled scores (n_samples, n_columns)."""
        return self.pool()[:, self.columns]

    @cached_property
    def share(self) -> float:
        """Mean share of tokens that belong to the concept, in samples that hold it."""
        labelled = segment_sum(self.labels, offsets_of(self.lengths))
        return float((labelled / self.lengths)[self.present].mean())

    def part(self, samples: slice, rows: slice) -> Calibration:
        """Only some samples, whose tokens are these rows."""
        return replace(
            self,
            lengths=self.lengths[samples],
            labels=self.labels[rows],
            present=self.present[samples],
        )


class ReferenceScores(Protocol):
    """Takes the reference scores of a concept out of all scores, block by block."""

    def select(
        self, scores: Array, part: Calibration, whole: Calibration, deltas: Array
    ) -> list[Array]:
        """Select from the scores (n_tokens_of_part, n_columns) of some samples.

        Returns a list of arrays, of which those of all parts are joined.
        """

    def reference(self, selected: list[Array], whole: Calibration, deltas: Array) -> Any:
        """Make of the joined arrays what the detector gets."""


class PooledScores:
    """The pooled scores of all samples, positive where a sample holds the concept."""

    def select(
        self, scores: Array, part: Calibration, whole: Calibration, deltas: Array
    ) -> list[Array]:
        """Select nothing: samples are pooled once for all concepts."""
        return []

    def reference(self, selected: list[Array], whole: Calibration, deltas: Array) -> Reference:
        """One score per sample and column."""
        return Reference(whole.pooled, whole.present)


class LabelledScores:
    """The scores of the tokens labelled with the concept, all of them positive."""

    def select(
        self, scores: Array, part: Calibration, whole: Calibration, deltas: Array
    ) -> list[Array]:
        """Select the labelled tokens."""
        return [scores[part.labels]]

    def reference(self, selected: list[Array], whole: Calibration, deltas: Array) -> Reference:
        """One score per labelled token and column."""
        (scores,) = selected
        return Reference(scores, np.ones(len(scores), bool))


@dataclass(frozen=True)
class TopScores:
    r"""The :math:`\lceil \delta \rho\, n(x) \rceil` highest scores of each sample.

    Parameters
    ----------
    share : float or None
        :math:`\rho`, the share of tokens that belong to a concept in samples that hold it; None
        takes the mean share of labelled tokens.
    """

    share: float | None

    def select(
        self, scores: Array, part: Calibration, whole: Calibration, deltas: Array
    ) -> list[Array]:
        """Select the scores of each column and delta, and whether their samples are positive."""
        share = whole.share if self.share is None else self.share
        positive = np.repeat(part.present, part.lengths)
        selected = []
        for column in scores.T:
            for top in top_share(column, part.lengths, deltas * share):
                selected += [column[top], positive[top]]
        return selected

    def reference(
        self, selected: list[Array], whole: Calibration, deltas: Array
    ) -> list[list[Reference]]:
        """Flat scores for each delta and column."""
        pairs = [Reference(*selected[k : k + 2]) for k in range(0, len(selected), 2)]
        return [pairs[d :: len(deltas)] for d in range(len(deltas))]


class Table(NamedTuple):
    """Thresholds and F1 of columns, judged for each concept at each delta.

    Parameters
    ----------
    thresholds : ndarray of shape (n_deltas, n_concepts, n_columns)
        Thresholds; of one column for each concept where columns are not matched.
    f1 : ndarray of shape (n_deltas, n_concepts, n_columns), or None
        None where columns are not matched.
    columns : ndarray of shape (n_concepts,), or None
        Which column each concept reads; None where that is still to be chosen.
    pooled : callable
        Gives the pooled scores (n_samples, n_columns).
    present : ndarray of shape (n_samples, n_concepts), dtype bool
        Samples that hold the concepts.
    sigmoids : callable
        Takes the column of each concept as a tuple, gives the sigmoids (n_concepts, 3) that make
        probabilities of its pooled scores.
    """

    thresholds: Array
    f1: Array | None
    columns: Array | None
    pooled: Callable[[], Array]
    present: Array
    sigmoids: Callable[[tuple[int, ...]], Array]

    def best(self, d: int) -> tuple[Array, Array]:
        """Column of each concept, and its threshold, at the d-th delta."""
        thresholds = self.thresholds[d]
        if self.columns is not None:
            return self.columns, thresholds[:, 0].copy()
        assert self.f1 is not None
        columns = best_columns(self.f1[d])
        return columns, thresholds[np.arange(len(thresholds)), columns]


def judge_columns(
    scores: TokenArray,
    labels: Array,
    targets: Targets,
    deltas: Array,
    *,
    pool: Callable[[TokenArray], Array],
    reference: ReferenceScores,
    thresholds: Callable[[Any, Array], Array],
    columns: Array | None,
) -> Table:
    """Judge columns as detectors of concepts, in as few passes over the scores as memory allows.

    Parameters
    ----------
    scores : TokenArray of shape (n_samples, n_columns)
        Scores, in memory or on disk.
    labels : ndarray of shape (n_tokens, n_concepts), dtype bool
        Tokens that belong to the concepts.
    targets : Targets
        Samples that hold them.
    deltas : ndarray of shape (n_deltas,)
        Sparsities.
    pool : callable
        Pools the scores to (n_samples, n_columns).
    reference : ReferenceScores
        What thresholds are computed from.
    thresholds : callable
        Takes the reference of a concept and the deltas, gives (n_deltas, n_columns).
    columns : ndarray of shape (n_concepts,), or None
        The one column that is judged for each concept; None judges all.

    Returns
    -------
    table : Table
        Thresholds, and F1 over samples where all columns are judged.
    """
    n_columns = scores.n_features if columns is None else 1
    # Not every detector needs it, so it is computed when it is first asked for.
    pooled = cache(partial(pool, scores))
    concepts = []
    for c, present in enumerate(targets.present.T):
        judged = slice(None) if columns is None else slice(columns[c], columns[c] + 1)
        concepts.append(Calibration(scores.lengths, labels[:, c], present, pooled, judged))
    cuts = np.empty((len(deltas), targets.n_concepts, n_columns))
    f1 = np.empty(cuts.shape) if columns is None else None
    for c, selected in enumerate(_selected(scores, concepts, n_columns, reference, deltas)):
        concept = concepts[c]
        cuts[:, c] = thresholds(reference.reference(selected, concept, deltas), deltas)
        if f1 is not None:
            for d, cut in enumerate(cuts[:, c]):
                f1[d, c] = concept_f1(concept.present[:, None], concept.pooled >= cut)

    @cache  # most deltas read the same columns
    def sigmoids(columns: tuple[int, ...]) -> Array:
        return fit_sigmoid(pooled()[:, list(columns)], targets.present)

    return Table(cuts, f1, columns, pooled, targets.present, sigmoids)


def _selected(
    scores: TokenArray,
    concepts: Sequence[Calibration],
    n_columns: int,
    reference: ReferenceScores,
    deltas: Array,
) -> Iterator[list[Array]]:
    """Select what each concept needs of all scores."""
    if not on_disk(scores.values):
        tokens = scores.flat()
        for concept in concepts:
            yield reference.select(tokens[:, concept.columns], concept, concept, deltas)
        return
    sizes = [4 * n_columns * int(concept.labels.sum()) for concept in concepts]
    # Parts and what they are joined to are held at once, beside pooled scores.
    for run in runs(sizes, most_held() / 4):
        parts: list[list[list[Array]]] = [[] for _ in concepts[run]]
        start = 0
        for samples, tokens in scores.blocks():
            rows = slice(start, start + len(tokens))
            start += len(tokens)
            for selected, concept in zip(parts, concepts[run], strict=True):
                part = concept.part(samples, rows)
                columns = tokens[:, concept.columns]
                selected.append(reference.select(columns, part, concept, deltas))
        while parts:
            selected = parts.pop(0)
            yield [np.concatenate(arrays) for arrays in zip(*selected, strict=True)]


def named_columns(scores: TokenArray, targets: Targets) -> Array:
    """Column of each concept: by name if both sides name the same concepts, else by place.

    Parameters
    ----------
    scores : TokenArray of shape (n_samples, n_columns)
        Scores, with as many columns as there are concepts.
    targets : Targets
        The concepts.

    Returns
    -------
    columns : ndarray of shape (n_concepts,), dtype int64
        One for each concept.
    """
    names, columns = targets.names, scores.feature_names
    if targets.classes is None and names and columns and sorted(names) == sorted(columns):
        return np.array([columns.index(name) for name in names])
    return np.arange(targets.n_concepts)
