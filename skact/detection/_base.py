"""The base class of detectors: pool each sample's token scores, compare with a threshold."""

from __future__ import annotations

from abc import abstractmethod
from numbers import Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, clone
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from skact.arguments import Number, checked, float_array, instance
from skact.base import AnswersMixin, NestedParamsMixin, concept_names
from skact.detection._calibration import (
    Known,
    PooledScores,
    ReferenceScores,
    Table,
    judge_columns,
    named_columns,
)
from skact.pooling import RunningPool
from skact.rows import Array, all_finite
from skact.tail import DELTA_GRID, log_odds, sigmoid
from skact.targets import Targets, check_targets, check_token_labels, label_classes
from skact.tokens import Source, TokenArray
from skact.validation import check_tokens, like_input, weighted_samples
from skact.warning import warn

__all__ = ["BaseDetector"]


class _Everything(RunningPool):
    """All scores so far, pooled as those of a sample whenever they are asked for."""

    def __init__(self, detector: BaseDetector) -> None:
        super().__init__(detector.n_features_in_)
        self._detector = detector
        self._scores: list[Array] = []
        self._segments: list[Array] = []
        self._run = 0

    def add(self, scores: Array) -> None:
        self._scores.append(np.array(scores))
        self._segments.append(np.full(len(scores), self._run))

    def gap(self) -> None:
        self._run += 1

    def value(self) -> Array:
        self._scores = [np.concatenate(self._scores)]
        self._segments = [np.concatenate(self._segments)]
        n = len(self._scores[0])
        sample = TokenArray(self._scores[0], [0, n], segments=self._segments[0])
        pooled: Array = self._detector.pool(sample)[0]
        return pooled


class BaseDetector(AnswersMixin, NestedParamsMixin, BaseEstimator):
    """A sample holds a concept if its pooled score reaches the concept's threshold.

    A subclass says how a sample is pooled (``_pool``), which scores the threshold of a concept
    depends on (``_reference``, by default the pooled ones), and how it comes from them
    (``_thresholds``); everything else is here.

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
    classes_ : ndarray of shape (n_classes,) or (n_concepts,)
        The classes, or the numbers of the concepts where y was an indicator matrix.
    multilabel_ : bool
        Whether y was an indicator matrix.
    sigmoids_ : ndarray of shape (n_concepts, 3), dtype float64
        m, a and b of each concept: its probability is ``1 / (1 + exp(-(a * (A - m) + b)))``, with A
        the pooled score.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts.
    n_samples_ : int
        Samples that the thresholds were set on, without those of weight 0.
    n_positive_ : ndarray of shape (n_concepts,), dtype int64
        How many of them hold each concept.
    n_features_in_ : int
        Score columns.
    source_ : Source or None
        Model, layer and scaling behind the scores.
    """

    # scikit-learn reads this request under its name-mangled form.
    __metadata_request__fit: ClassVar = {"token_labels": True}

    _parameter_constraints: dict[str, list[Any]] = {
        "delta": [Number(Real, 0, 1, closed="neither")],
        "match_columns": ["boolean", StrOptions({"auto"})],
    }

    _reference: ReferenceScores = PooledScores()

    thresholds_: Array
    matched_columns_: Array
    sigmoids_: Array
    concept_names_: Array
    n_samples_: int
    n_positive_: Array

    _path_shapes: ClassVar[list[tuple[int, ...]]] = [()]

    def __init__(
        self, delta: float = 0.1, *, match_columns: bool | Literal["auto"] = "auto"
    ) -> None:
        self.delta = delta
        self.match_columns = match_columns

    @property
    def path_parameter(self) -> Literal["delta", "level"]:
        """Parameter whose values share one pass over the scores in ``fit_path``."""
        return "delta"

    @abstractmethod
    def _pool(self, scores: TokenArray) -> Array:
        """Pool each sample: (n_samples, n_columns)."""

    @abstractmethod
    def _thresholds(self, reference: Any, deltas: Array) -> Array:
        """Set the thresholds of one concept, (n_deltas, n_columns), from its reference scores."""

    def fit(self, X: Any, y: Any, token_labels: Any = None, sample_weight: Any = None) -> Self:
        """Set the thresholds; best on scores that the concept method was not fitted on.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Scores (n_tokens, n_columns) of each sample.
        y : array-like of shape (n_samples,) or (n_samples, n_concepts)
            Class labels (of two the larger one is the concept, of more each one) or an indicator
            matrix.
        token_labels : TokenArray or list of arrays of bool, default=None
            For each sample (n_tokens, n_concepts). None counts every token of a positive sample.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each sample counts: a weight of 2 is that of a sample that is there twice, one
            of 0 leaves it out. Weights that average less than 1 are scaled to an average of 1.

        Returns
        -------
        self : estimator
            Fitted.

        Raises
        ------
        ValueError
            If X, y, token_labels and sample_weight do not fit together, a concept has no positive
            sample or token, or ``match_columns=False`` and the columns differ in number from the
            concepts.
        """
        self._validate_params()
        value = getattr(self, self.path_parameter)
        table = self._table(
            self._check_fit(X, y, token_labels, sample_weight), np.array([value], np.float64)
        )
        return self._set_thresholds(table, 0)

    def fit_path(
        self,
        X: Any,
        y: Any,
        token_labels: Any = None,
        *,
        sample_weight: Any = None,
        deltas: npt.ArrayLike = DELTA_GRID,
    ) -> list[Self]:
        """Fit a detector for each of several deltas in one pass over the scores.

        Parameters
        ----------
        X, y, token_labels, sample_weight : as in ``fit``
            Scores, targets, labels of tokens, weights of samples.
        deltas : array-like of shape (n_deltas,), default=DELTA_GRID
            Sparsities in (0, 1).

        Returns
        -------
        detectors : list of n_deltas detectors
            Clones; each equals ``fit`` with its delta.

        Raises
        ------
        ValueError
            As in ``fit``, or if there is no delta, or one that lies outside of (0, 1).
        """
        return self._fit_path(deltas, X, y, token_labels, sample_weight)

    def _fit_path(self, values: Any, *data: Any) -> list[Self]:
        """Fit a detector for each of several values of the parameter of the path."""
        grid, path = self._unfitted_path(values)
        first = path[0]
        table = first._table(first._check_fit(*data), grid)
        settings = first.get_params(deep=False)
        learnt = {k: v for k, v in vars(first).items() if k not in settings}
        for d, detector in enumerate(path):
            detector.__dict__.update(learnt)
            detector._set_thresholds(table, d)
        return path

    def _set_thresholds(self, table: Table, d: int) -> Self:
        """Take from the table what belongs to its d-th delta."""
        self.matched_columns_, self.thresholds_ = table.best(d)
        self.sigmoids_ = table.sigmoids(tuple(self.matched_columns_.tolist())).copy()
        return self

    def match_table(
        self,
        X: Any,
        y: Any,
        token_labels: Any = None,
        *,
        sample_weight: Any = None,
        deltas: npt.ArrayLike = DELTA_GRID,
    ) -> Bunch:
        """Judge every column as a detector of every concept at every delta.

        Parameters
        ----------
        X, y, token_labels, sample_weight : as in ``fit``
            Scores, targets, labels of tokens, weights of samples.
        deltas : array-like of shape (n_deltas,), default=DELTA_GRID
            Sparsities in (0, 1).

        Returns
        -------
        table : Bunch
            ``thresholds`` and ``f1``, float64 of shape (n_deltas, n_concepts, n_columns), with
            ``deltas``, ``concept_names`` and ``feature_names`` (or None) along the axes.

        Raises
        ------
        ValueError, TypeError
            As in ``fit_path``.
        """
        return self._match_table(deltas, X, y, token_labels, sample_weight)

    def _match_table(self, values: Any, *data: Any) -> Bunch:
        """Judge every column at several values of the parameter of the path."""
        grid, path = clone(self).set_params(match_columns=True)._unfitted_path(values)
        first = path[0]
        known = first._check_fit(*data)
        table = first._table(known, grid)
        return Bunch(
            thresholds=table.thresholds,
            f1=table.f1,
            concept_names=first.concept_names_,
            feature_names=known.scores.feature_names,
            **{f"{self.path_parameter}s": grid},
        )

    def _unfitted_path(self, values: Any) -> tuple[Array, list[Self]]:
        """Check the values of the parameter of the path, and give a clone for each."""
        name = self.path_parameter
        try:
            grid = np.atleast_1d(np.asarray(values, dtype=np.float64))
        except (TypeError, ValueError):
            grid = np.empty(0)
        if not len(grid) or grid.shape[1:] not in self._path_shapes:
            raise ValueError(f"{name}s must hold one or more numbers in (0, 1), got {values!r}.")
        path = [clone(self).set_params(**{name: _setting(value)}) for value in grid]
        for detector in path:
            detector._validate_params()
        return grid, path

    def _check_fit(self, X: Any, y: Any, token_labels: Any, sample_weight: Any) -> Known:
        scores, (y, token_labels), weight = weighted_samples(
            sample_weight, check_tokens(self, X), y=y, token_labels=token_labels
        )
        targets = check_targets(self, y, len(scores))
        labels, targets = check_token_labels(token_labels, scores, targets)
        self.n_samples_, self.n_positive_ = len(scores), targets.present.sum(axis=0)
        self.multilabel_, self.classes_ = targets.classes is None, label_classes(targets)
        self.concept_names_ = concept_names(targets.names, targets.n_concepts)
        self._warn_of_source(scores.source, has_token_labels=token_labels is not None)
        return Known(scores, labels.flat(), targets, weight)

    def _warn_of_source(self, source: Source | None, *, has_token_labels: bool) -> None:
        """Say what would be silently wrong about where the scores come from."""
        name = type(self).__name__
        if source is not None and source.columns == "features":
            warn(
                f"{name} was given activations ({source}) where scores of concepts belong, and "
                f"takes each of the {self.n_features_in_} features for a concept; put a concept "
                "method before it, such as LinearSeparator(). (X.with_source(None), if features "
                "are what you mean.)"
            )
        uses_labels = not isinstance(self._reference, PooledScores)
        labels = None if source is None or not uses_labels else source.labels
        if labels is not None and (labels == "tokens") != has_token_labels:
            with_labels, without = name, "the concept method whose scores it reads"
            if not has_token_labels:
                with_labels, without = without, with_labels
            warn(
                f"token_labels were given to {with_labels} and not to {without}, which took every "
                "token of a positive sample for the concept; give them to both: in a pipeline by "
                "sklearn.set_config(enable_metadata_routing=True) and fit(..., token_labels=...), "
                "or to each step by name, step__token_labels=..."
            )

    def _table(self, known: Known, deltas: Array) -> Table:
        """Thresholds, and F1 where columns are matched, of every delta, concept and column."""
        scores, targets = known.scores, known.targets
        return judge_columns(
            known,
            deltas,
            pool=self._pool,
            reference=self._reference,
            thresholds=self._thresholds,
            columns=None if self._matches(scores, targets) else named_columns(scores, targets),
        )

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

        Of more than two classes the log-odds instead, which compare them.

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

        Raises
        ------
        NotFittedError, ValueError, TypeError
            Before ``fit``, if X does not fit what was given to ``fit``, or if it is no scores.
        """
        check_is_fitted(self)
        pooled = self.pool(check_tokens(self, X, reset=False))
        if self._has_many_classes:
            self._warn_of_flat("its probability is the same for all samples")
            return self.log_odds(pooled)
        return self._like_y(self.decide(pooled))

    @checked(scores=[instance("a TokenArray(...)", TokenArray)])
    def pool(self, scores: TokenArray) -> Array:
        """Pool the scores of each sample.

        Parameters
        ----------
        scores : TokenArray of shape (n_samples, n_columns)
            Checked scores.

        Returns
        -------
        pooled : ndarray of shape (n_samples, n_columns)
            One score per sample and column.

        Raises
        ------
        ValueError
            If scores are no TokenArray.
        """
        return self._pool(scores)

    def running_pool(self) -> RunningPool:
        """Give an empty pool that takes the scores of a stream, token after token.

        Returns
        -------
        pool : RunningPool
            Its value after each token is that of :meth:`pool` for all tokens so far.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If the detector needs whole samples.
        """
        check_is_fitted(self)
        return self._running_pool()

    def _running_pool(self) -> RunningPool:
        # Keeps all scores; a subclass that needs less says so.
        return _Everything(self)

    def decide(self, pooled: Array) -> Array:
        """Compare pooled scores with the thresholds, as in :meth:`decision_function`.

        Parameters
        ----------
        pooled : ndarray of shape (n_samples, n_columns)
            As from :meth:`pool`.

        Returns
        -------
        decision : ndarray of shape (n_samples, n_concepts), dtype float64
            Positive where a concept is found.

        Raises
        ------
        NotFittedError, ValueError
            Before ``fit``, or if pooled scores have other columns than in ``fit`` or are not
            finite.
        """
        return self._of_concepts(pooled) - np.nextafter(self.thresholds_, -np.inf)

    def _of_concepts(self, pooled: Array) -> Array:
        """Check pooled scores, and take those of the concepts, (n_samples, n_concepts)."""
        check_is_fitted(self)
        if getattr(pooled, "dtype", None) not in (np.float16, np.float32):
            pooled = float_array(pooled, "pooled")
        if pooled.ndim != 2 or pooled.shape[1] != self.n_features_in_:
            raise ValueError(
                f"pooled must have shape (n_samples, {self.n_features_in_}), got {pooled.shape}."
            )
        if not all_finite(pooled):
            raise ValueError("pooled must be finite, but holds NaN or infinity.")
        # All columns in double precision would take a multiple of them.
        return pooled[:, self.matched_columns_].astype(np.float64)

    def predict(self, X: Any) -> Array:
        """Tell which samples hold which concept.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Scores.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_concepts)
            Class labels (of more than two the most probable one), or 0 and 1 per concept.

        Raises
        ------
        NotFittedError, ValueError, TypeError
            Before ``fit``, if X does not fit what was given to ``fit``, or if it is no scores.
        """
        return self._answers(self.decision_function(X))

    def predict_proba(self, X: Any) -> Array:
        """Tell how probable concepts are, calibrated on the data given to ``fit``.

        A sigmoid of the pooled score is fitted by Platt's method, so scaling and shifting all
        scores changes nothing. ``predict`` follows the threshold instead of a probability of 0.5.
        On other data than the concept method was fitted on, probabilities are right; on the same
        they are too sure.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Scores.

        Returns
        -------
        chances : ndarray of shape (n_samples, n_classes) or (n_samples, n_concepts), dtype float64
            Of the classes, summing to 1, or of each concept.

        Raises
        ------
        NotFittedError, ValueError, TypeError
            Before ``fit``, if X does not fit what was given to ``fit``, or if it is no scores.
        """
        check_is_fitted(self)
        chances = self.probabilities(self.pool(check_tokens(self, X, reset=False)))
        self._warn_of_flat("its probability is the same for all samples")
        return self._chances(chances)

    def log_odds(self, pooled: Array) -> Array:
        """Turn pooled scores into log-odds, of which :meth:`probabilities` are the sigmoid.

        Parameters
        ----------
        pooled : ndarray of shape (n_samples, n_columns)
            As from :meth:`pool`.

        Returns
        -------
        odds : ndarray of shape (n_samples, n_concepts), dtype float64
            Of the concepts.

        Raises
        ------
        NotFittedError, ValueError
            Before ``fit``, or if pooled scores have other columns than in ``fit`` or are not
            finite.
        """
        return log_odds(self._of_concepts(pooled), self.sigmoids_)

    def probabilities(self, pooled: Array) -> Array:
        """Turn pooled scores into probabilities, as in :meth:`predict_proba`.

        Parameters
        ----------
        pooled : ndarray of shape (n_samples, n_columns)
            As from :meth:`pool`.

        Returns
        -------
        chances : ndarray of shape (n_samples, n_concepts), dtype float64
            Probabilities of the concepts.

        Raises
        ------
        NotFittedError, ValueError
            Before ``fit``, or if pooled scores have other columns than in ``fit`` or are not
            finite.
        """
        return sigmoid(self._of_concepts(pooled), self.sigmoids_)

    def _warn_of_flat(self, so: str) -> None:
        """Warn of concepts whose probability does not depend on the score."""
        names = self.concept_names_[self.sigmoids_[:, 1] == 0]
        if len(names):
            warn(
                f"the scores of {len(names)} of {len(self.concept_names_)} concepts (first "
                f"{names[0]!r}) were on average no higher with the concept than without when the "
                f"detector was fitted, so {so}."
            )

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

        Raises
        ------
        NotFittedError, ValueError, TypeError
            Before ``fit``, if X does not fit what was given to ``fit``, or if it is no scores.
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
        tags.classifier_tags.multi_label = True
        tags.target_tags.multi_output = True
        # A threshold on the best single column cannot separate blobs as a full classifier does.
        tags.classifier_tags.poor_score = True
        return tags


def _setting(value: Array) -> Any:
    """Value of a parameter from a row of a grid, where None is NaN."""
    if value.ndim:
        return tuple(value.tolist())
    return None if np.isnan(value) else float(value)
