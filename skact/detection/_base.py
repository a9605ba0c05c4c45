"""The base class of detectors: pool each sample's token scores, compare with a threshold."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from numbers import Real
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import Bunch
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from skact.base import concept_names
from skact.rows import Array, most_held, on_disk, runs
from skact.tail import DELTA_GRID, best_columns, concept_f1
from skact.targets import Targets, check_targets, check_token_labels, label_classes
from skact.tokens import TokenArray
from skact.validation import check_tokens, like_input

__all__ = ["BaseDetector", "Calibration"]

Kept = list[Array]


class _Table(NamedTuple):
    """Thresholds and F1 (n_deltas, n_concepts, n_columns); or one column each, and which."""

    thresholds: Array
    f1: Array | None
    own: Array | None


@dataclass(frozen=True)
class Calibration:
    """What a detector sees of one concept when it sets the threshold.

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
        starts = np.cumsum(self.lengths) - self.lengths
        marked = np.add.reduceat(self.labels, starts, dtype=np.int64)
        return float((marked / self.lengths)[self.present].mean())

    def part(self, samples: slice, rows: slice) -> Calibration:
        """Only some samples, whose tokens are these rows."""
        return replace(
            self,
            lengths=self.lengths[samples],
            labels=self.labels[rows],
            present=self.present[samples],
        )


class BaseDetector(ClassifierMixin, BaseEstimator):
    """A sample holds a concept if its pooled score reaches the concept's threshold.

    A subclass says how a sample is pooled (``_pool``), which scores of tokens the threshold of a
    concept depends on (``_keep``), and how it comes from them (``_thresholds``); everything else is
    here. Scores that are not in memory are read in blocks, and only what is kept is held.

    Parameters
    ----------
    delta : float, default=0.1
        Sparsity in (0, 1): the share of the reference scores that lies above the threshold.
    match_columns : {"auto"} or bool, default="auto"
        Whether each concept takes the column with the best F1 on the data given to ``fit``. False:
        column c is concept c, or the one of the same name. "auto" matches if the columns are units
        that were found without labels, or differ in number from the concepts.

    Attributes
    ----------
    thresholds_ : ndarray of shape (n_concepts,), dtype float64
        Threshold per concept, in units of the scores.
    matched_columns_ : ndarray of shape (n_concepts,), dtype int64
        Score column that each concept reads.
    classes_ : ndarray of shape (2,) or (n_concepts,)
        The two classes, or the numbers of the concepts where y was an indicator matrix.
    multilabel_ : bool
        Whether y was an indicator matrix.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts.
    n_features_in_ : int
        Score columns.
    source_ : Source or None
        Model, layer and scaling behind the scores.
    """

    # scikit-learn reads this request under its name-mangled form.
    __metadata_request__fit: ClassVar = {"token_labels": True}

    _parameter_constraints: dict[str, list[Any]] = {
        "delta": [Interval(Real, 0, 1, closed="neither")],
        "match_columns": ["boolean", StrOptions({"auto"})],
    }

    thresholds_: Array
    matched_columns_: Array
    classes_: Array
    multilabel_: bool
    concept_names_: Array

    def __init__(
        self, delta: float = 0.1, *, match_columns: bool | Literal["auto"] = "auto"
    ) -> None:
        self.delta = delta
        self.match_columns = match_columns

    @abstractmethod
    def _pool(self, scores: TokenArray) -> Array:
        """Pool each sample: (n_samples, n_columns)."""

    def _keep(self, scores: Array, part: Calibration, given: Calibration, deltas: Array) -> Kept:
        """Select what is needed of the scores (n_tokens_of_part, n_columns) of some samples.

        Lists of arrays, of which those of all parts are joined; nothing by default.
        """
        return []

    @abstractmethod
    def _thresholds(self, given: Calibration, kept: Kept, deltas: Array) -> Array:
        """Set the thresholds of one concept: (n_deltas, n_columns)."""

    def fit(self, X: Any, y: Any, token_labels: Any = None) -> Self:
        """Set the thresholds; best on scores that the concept method was not fitted on.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Scores (n_tokens, n_columns) of each sample.
        y : array-like of shape (n_samples,) or (n_samples, n_concepts)
            Two classes (the larger one is the concept) or an indicator matrix.
        token_labels : TokenArray or list of arrays of bool, default=None
            For each sample (n_tokens, n_concepts). None counts every token of a positive sample.

        Returns
        -------
        self : estimator
            Fitted.

        Raises
        ------
        ValueError
            If X, y and token_labels do not fit together, a concept has no positive sample or
            token, or ``match_columns=False`` and the columns differ in number from the concepts.
        """
        self._validate_params()
        scores, labels, targets = self._check_fit(X, y, token_labels)
        table = self._table(scores, labels, targets, np.array([self.delta]))
        return self._choose(table, 0)

    def fit_path(
        self,
        X: Any,
        y: Any,
        token_labels: Any = None,
        *,
        deltas: npt.ArrayLike = DELTA_GRID,
    ) -> list[Self]:
        """Fit a detector for each of several deltas in one pass over the scores.

        Parameters
        ----------
        X, y, token_labels : as in ``fit``
            Scores, targets, labels of tokens.
        deltas : array-like of shape (n_deltas,), default=DELTA_GRID
            Sparsities in (0, 1).

        Returns
        -------
        detectors : list of n_deltas detectors
            Clones; each equals ``fit`` with its delta.

        Raises
        ------
        ValueError
            As in ``fit``, or if a delta lies outside of (0, 1).
        """
        grid, path = self._unfitted_path(deltas)
        first = path[0]
        table = first._table(*first._check_fit(X, y, token_labels), grid)
        for d, detector in enumerate(path):
            state = {k: v for k, v in vars(first).items() if k not in first.get_params()}
            detector.__dict__.update(state)
            detector._choose(table, d)
        return path

    def match_table(
        self,
        X: Any,
        y: Any,
        token_labels: Any = None,
        *,
        deltas: npt.ArrayLike = DELTA_GRID,
    ) -> Bunch:
        """Judge every column as a detector of every concept at every delta.

        Parameters
        ----------
        X, y, token_labels : as in ``fit``
            Scores, targets, labels of tokens.
        deltas : array-like of shape (n_deltas,), default=DELTA_GRID
            Sparsities in (0, 1).

        Returns
        -------
        table : Bunch
            ``thresholds`` and ``f1``, float64 of shape (n_deltas, n_concepts, n_columns), with
            ``deltas``, ``concept_names`` and ``feature_names`` (or None) along the axes.
        """
        grid, path = clone(self).set_params(match_columns=True)._unfitted_path(deltas)
        first = path[0]
        scores, labels, targets = first._check_fit(X, y, token_labels)
        table = first._table(scores, labels, targets, grid)
        return Bunch(
            thresholds=table.thresholds,
            f1=table.f1,
            deltas=grid,
            concept_names=first.concept_names_,
            feature_names=scores.feature_names,
        )

    def _unfitted_path(self, deltas: npt.ArrayLike) -> tuple[Array, list[Self]]:
        """Check the deltas, and give a clone for each."""
        grid = np.atleast_1d(np.asarray(deltas, dtype=np.float64))
        path = [clone(self).set_params(delta=float(delta)) for delta in grid]
        for detector in path:
            detector._validate_params()
        return grid, path

    def _check_fit(self, X: Any, y: Any, token_labels: Any) -> tuple[TokenArray, Array, Targets]:
        scores = check_tokens(self, X)
        targets = check_targets(self, y, len(scores))
        labels, targets = check_token_labels(token_labels, scores, targets)
        self.multilabel_ = targets.classes is None
        self.classes_ = label_classes(targets)
        self.concept_names_ = concept_names(targets.names, targets.n_concepts)
        return scores, labels.flat(), targets

    def _table(self, scores: TokenArray, labels: Array, targets: Targets, deltas: Array) -> _Table:
        """Thresholds, and F1 where columns are matched, of every delta, concept and column."""
        match = self._matches(scores, targets)
        n_columns = scores.n_features if match else 1
        own = None if match else _own_columns(scores, targets)
        # Not every detector needs it, so it is computed when it is first asked for.
        pool = cache(partial(self._pool, scores))
        concepts = []
        for c, present in enumerate(targets.present.T):
            read = slice(None) if own is None else slice(own[c], own[c] + 1)
            concepts.append(Calibration(scores.lengths, labels[:, c], present, pool, read))
        thresholds = np.empty((len(deltas), targets.n_concepts, n_columns))
        f1 = np.empty(thresholds.shape) if match else None
        for c, kept in enumerate(self._kept(scores, concepts, n_columns, deltas)):
            given = concepts[c]
            thresholds[:, c] = self._thresholds(given, kept, deltas)
            if f1 is not None:
                present = given.present
                for d, threshold in enumerate(thresholds[:, c]):
                    f1[d, c] = concept_f1(present[:, None], given.pooled >= threshold)
        return _Table(thresholds, f1, own)

    def _kept(
        self, scores: TokenArray, concepts: list[Calibration], n_columns: int, deltas: Array
    ) -> Iterator[Kept]:
        """Keep what each concept needs of all tokens, in as few passes as memory allows."""
        if not on_disk(scores.values):
            tokens = scores.flat()
            for given in concepts:
                yield self._keep(tokens[:, given.columns], given, given, deltas)
            return
        sizes = [4 * n_columns * int(given.labels.sum()) for given in concepts]
        for run in runs(sizes, most_held()):
            group = range(run.start, run.stop)
            kept: list[list[Kept]] = [[] for _ in group]
            done = 0
            for samples, tokens in scores.blocks():
                rows = slice(done, done + len(tokens))
                done += len(tokens)
                for mine, c in zip(kept, group, strict=True):
                    given = concepts[c]
                    part = given.part(samples, rows)
                    mine.append(self._keep(tokens[:, given.columns], part, given, deltas))
            for mine in kept:
                yield [np.concatenate(parts) for parts in zip(*mine, strict=True)]

    def _choose(self, table: _Table, d: int) -> Self:
        """Take the matched columns and their thresholds at one delta."""
        thresholds = table.thresholds[d]
        if table.f1 is not None:
            self.matched_columns_ = best_columns(table.f1[d])
            self.thresholds_ = thresholds[np.arange(len(thresholds)), self.matched_columns_]
        elif table.own is not None:
            self.matched_columns_, self.thresholds_ = table.own, thresholds[:, 0].copy()
        return self

    def _matches(self, scores: TokenArray, targets: Targets) -> bool:
        n_columns, n_concepts = scores.n_features, targets.n_concepts
        if self.match_columns == "auto":
            units = scores.source is not None and scores.source.columns == "units"
            return units or n_columns != n_concepts
        if not self.match_columns and n_columns != n_concepts:
            raise ValueError(
                f"match_columns=False needs one column per concept, got {n_columns} columns for "
                f"{n_concepts} concepts."
            )
        return bool(self.match_columns)

    def decision_function(self, X: Any) -> Array:
        """Pooled score minus threshold; positive where the concept is found.

        A score equal to the threshold counts as found, and scikit-learn reads a decision of 0 as
        not found; so the float just below the threshold is subtracted.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Scores.

        Returns
        -------
        decision : ndarray of shape (n_samples,) or (n_samples, n_concepts), dtype float64
            In units of the scores.
        """
        check_is_fitted(self)
        decision = self._decide(self._pool(check_tokens(self, X, reset=False)))
        return decision if self.multilabel_ else decision[:, 0]

    def _decide(self, pooled: Array) -> Array:
        """Decisions (n_samples, n_concepts) from pooled scores (n_samples, n_columns)."""
        scores = pooled[:, self.matched_columns_].astype(np.float64)
        return scores - np.nextafter(self.thresholds_, -np.inf)

    def predict(self, X: Any) -> Array:
        """Tell which samples hold which concept.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Scores.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_concepts)
            Class labels, or 0 and 1 per concept.
        """
        present = (self.decision_function(X) > 0).astype(np.int64)
        return present if self.multilabel_ else self.classes_[present]

    def superactivators(self, X: Any) -> TokenArray | Array:
        """Mark the tokens whose own score reaches the threshold.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Scores.

        Returns
        -------
        marks : TokenArray of shape (n_samples, n_concepts), dtype bool
            True at the SuperActivators of each concept; an ndarray for a 2-D array.
        """
        check_is_fitted(self)
        return like_input(X, self._mark(check_tokens(self, X, reset=False)))

    def _mark(self, scores: TokenArray) -> TokenArray:
        return scores.map(
            self._reach,
            feature_names=list(self.concept_names_),
            source=scores.source,
        )

    def _reach(self, scores: Array) -> Array:
        """Which flat scores (n_tokens, n_columns) reach the thresholds, per concept."""
        reached: Array = scores[:, self.matched_columns_] >= self.thresholds_
        return reached

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.multi_label = True
        tags.target_tags.multi_output = True
        # A threshold on the best single column cannot separate blobs as a full classifier does.
        tags.classifier_tags.poor_score = True
        return tags


def _own_columns(scores: TokenArray, targets: Targets) -> Array:
    """Column of each concept: by name if both sides name the same concepts, else by place."""
    names, columns = targets.names, scores.feature_names
    if targets.classes is None and names and columns and sorted(names) == sorted(columns):
        return np.array([columns.index(name) for name in names])
    return np.arange(targets.n_concepts)
