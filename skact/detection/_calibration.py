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
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from skact.cached import cached_property
from skact.detection._tops import SortedTops, top_sizes
from skact.rows import Array, most_held, offsets_of, on_disk, runs, segment_sum
from skact.tail import best_columns, concept_f1, fit_sigmoid
from skact.targets import Targets
from skact.tokens import TokenArray

__all__ = [
    "Calibration",
    "Known",
    "LabelledScores",
    "PooledScores",
    "Reference",
    "ReferenceScores",
    "Table",
    "TopScores",
    "judge_columns",
    "named_columns",
]


class Known(NamedTuple):
    """What is given to ``fit``.

    Parameters
    ----------
    scores : TokenArray of shape (n_samples, n_columns)
        Scores, in memory or on disk.
    labels : ndarray of shape (n_tokens, n_concepts), dtype bool
        Tokens that belong to the concepts.
    targets : Targets
        Samples that hold them.
    weight : ndarray of shape (n_samples,), dtype float64, or None
        How often each sample counts; None once.
    """

    scores: TokenArray
    labels: Array
    targets: Targets
    weight: Array | None


class Reference(NamedTuple):
    """Reference scores of one concept.

    Parameters
    ----------
    scores : ndarray of shape (n_scores, n_columns) or (n_scores,)
        The scores.
    positive : ndarray of shape (n_scores,), dtype bool
        Which of them belong to the concept, or to samples that hold it.
    weight : ndarray of shape (n_scores,), dtype float64, or None
        How often each counts; None once.
    """

    scores: Array
    positive: Array
    weight: Array | None = None

    def of_positives(self) -> tuple[Array, Array | None]:
        """Scores of the positive ones, and their weights."""
        weight = None if self.weight is None else self.weight[self.positive]
        return self.scores[self.positive], weight


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
    weight : ndarray of shape (n_samples,), dtype float64, or None
        How often each sample counts; None once.
    """

    lengths: Array
    labels: Array
    present: Array
    pool: Callable[[], Array]
    columns: slice
    weight: Array | None

    @property
    def pooled(self) -> Array:
        """Pooled scores (n_samples, n_columns)."""
        return self.pool()[:, self.columns]

    @cached_property
    def share(self) -> float:
        """Mean share of tokens that belong to the concept, in samples that hold it."""
        labelled = segment_sum(self.labels, offsets_of(self.lengths))
        weight = None if self.weight is None else self.weight[self.present]
        return float(np.average((labelled / self.lengths)[self.present], weights=weight))

    @property
    def token_weight(self) -> Array | None:
        """How often each labelled token counts."""
        if self.weight is None:
            return None
        return np.repeat(self.weight, self.lengths)[self.labels]


class ReferenceScores(Protocol):
    """Computes thresholds of all concepts from their reference scores."""

    def cuts(
        self,
        scores: TokenArray,
        concepts: Sequence[Calibration],
        deltas: Array,
        thresholds: Callable[[Any, Array], Array],
    ) -> Iterator[tuple[int, slice, Array]]:
        """Yield a concept, some of the columns that it judges, and (n_deltas, n_some) thresholds.

        ``thresholds`` takes the reference of a concept and the deltas.
        """


class PooledScores:
    """The pooled scores of all samples, positive where a sample holds the concept."""

    def cuts(
        self,
        scores: TokenArray,
        concepts: Sequence[Calibration],
        deltas: Array,
        thresholds: Callable[[Any, Array], Array],
    ) -> Iterator[tuple[int, slice, Array]]:
        """One score per sample and column."""
        for c, concept in enumerate(concepts):
            reference = Reference(concept.pooled, concept.present, concept.weight)
            yield c, slice(None), thresholds(reference, deltas)


class LabelledScores:
    """The scores of the tokens labelled with the concept, all of them positive."""

    def cuts(
        self,
        scores: TokenArray,
        concepts: Sequence[Calibration],
        deltas: Array,
        thresholds: Callable[[Any, Array], Array],
    ) -> Iterator[tuple[int, slice, Array]]:
        """One score per labelled token and column."""
        for c, labelled in enumerate(_labelled(scores, concepts)):
            positive = np.ones(len(labelled), bool)
            reference = Reference(labelled, positive, concepts[c].token_weight)
            yield c, slice(None), thresholds(reference, deltas)


def _labelled(scores: TokenArray, concepts: Sequence[Calibration]) -> Iterator[Array]:
    """Select the labelled tokens of each concept."""
    if not on_disk(scores.values):
        tokens = scores.flat()
        for concept in concepts:
            yield tokens[np.flatnonzero(concept.labels), concept.columns]
        return
    columns = [len(range(*concept.columns.indices(scores.n_features))) for concept in concepts]
    sizes = [
        4 * n_columns * int(concept.labels.sum())
        for n_columns, concept in zip(columns, concepts, strict=True)
    ]
    # Parts and what they are joined to are held at once, beside pooled scores.
    for run in runs(sizes, most_held() / 4):
        parts: list[list[Array]] = [[] for _ in concepts[run]]
        for rows, tokens in scores.row_blocks():
            for selected, concept in zip(parts, concepts[run], strict=True):
                selected.append(tokens[np.flatnonzero(concept.labels[rows]), concept.columns])
        while parts:
            yield np.concatenate(parts.pop(0))


@dataclass(frozen=True)
class TopScores:
    r"""The :math:`\lceil \delta \rho\, n(x) \rceil` highest scores of each sample.

    Thresholds are computed from what :meth:`SortedTops.among` gives for each delta.

    Parameters
    ----------
    share : float or None
        :math:`\rho`, the share of tokens that belong to a concept in samples that hold it; None
        takes the mean share of labelled tokens. 0 takes the highest score alone.
    """

    share: float | None

    def cuts(
        self,
        scores: TokenArray,
        concepts: Sequence[Calibration],
        deltas: Array,
        thresholds: Callable[[Any, Array], Array],
    ) -> Iterator[tuple[int, slice, Array]]:
        """Scores of some columns are sorted once for all concepts that judge them."""
        shares = [c.share if self.share is None else self.share for c in concepts]
        most = top_sizes(scores.lengths, max(shares) * deltas.max())
        numbers = np.arange(scores.n_features)
        shared = concepts[0].columns == slice(None)
        if not shared:
            numbers = np.concatenate([numbers[concept.columns] for concept in concepts])
        for some, tops in SortedTops.each(scores, numbers, most, None if shared else 1):
            for c in range(len(concepts)) if shared else [some.start]:
                sizes = (top_sizes(scores.lengths, share) for share in deltas * shares[c])
                one = concepts[c]
                parts = (tops.among(size, one.present, one.weight) for size in sizes)
                yield c, some if shared else slice(None), thresholds(parts, deltas)


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
    known: Known,
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
    known : Known
        Scores, and what is known of them.
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
    scores, labels, targets, weight = known
    n_columns = scores.n_features if columns is None else 1
    # Not every detector needs it, so it is computed when it is first asked for.
    pooled = cache(partial(pool, scores))
    concepts = []
    for c, present in enumerate(targets.present.T):
        judged = slice(None) if columns is None else slice(columns[c], columns[c] + 1)
        concepts.append(Calibration(scores.lengths, labels[:, c], present, pooled, judged, weight))
    cuts = np.empty((len(deltas), targets.n_concepts, n_columns))
    for c, some, found in reference.cuts(scores, concepts, deltas, thresholds):
        cuts[:, c, some] = found
    f1 = None
    if columns is None:
        f1 = np.empty(cuts.shape)
        for d, c in np.ndindex(f1.shape[:2]):
            found = pooled() >= cuts[d, c]
            f1[d, c] = concept_f1(targets.present[:, c, None], found, sample_weight=weight)

    @cache  # most deltas read the same columns
    def sigmoids(columns: tuple[int, ...]) -> Array:
        return fit_sigmoid(pooled()[:, list(columns)], targets.present, weight)

    return Table(cuts, f1, columns, pooled, targets.present, sigmoids)


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
    if names and columns and sorted(names) == sorted(columns):
        return np.array([columns.index(name) for name in names])
    return np.arange(targets.n_concepts)
