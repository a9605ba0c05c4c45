r"""Pooling and cuts as one family: the mean of a sample's top windows against one of five cuts.

With M tokens to a window, or M x M patches of an image, a sample has the window means
:math:`a_1, a_2, \dots` and the score :math:`A(x)`, the mean of the K largest. M = K = 1 is the
maximum, all windows of one token are the mean. All cuts are cuts of sample scores, so what they
promise holds for samples as long as those they were set on.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skact.arguments import Number, Such
from skact.detection._base import BaseDetector
from skact.detection._calibration import Known, Reference, Table
from skact.pooling import (
    RunningMax,
    RunningMean,
    RunningPool,
    RunningWindows,
    check_top_and_share,
    check_window,
    pool_windows,
)
from skact.rows import Array
from skact.tail import (
    DELTA_GRID,
    best_cut,
    false_alarm_cut,
    fit_sigmoid,
    guaranteed_rank,
    recall_cut,
    sigmoid,
    tail_threshold,
    unsure_cuts,
)
from skact.tokens import TokenArray
from skact.validation import check_tokens

__all__ = ["TopWindows"]

#: Recall on the lower cut, false alarms on the upper one.
BOTH = ("recall", "false_alarms")
_RATE = Number(Real, 0, 1, closed="neither")


def _two_rates(level: Any) -> bool:
    pair = isinstance(level, Sequence | np.ndarray) and not isinstance(level, str)
    return pair and len(level) == 2 and all(map(_RATE.is_satisfied_by, level))


def _has_two_cuts(detector: TopWindows) -> bool:
    if not detector.has_two_cuts:
        raise AttributeError(f"only cut={BOTH} leaves samples unsure, and cut={detector.cut!r}.")
    return True


class TopWindows(BaseDetector):
    r"""A concept is present if the mean of a sample's top windows reaches a cut of such means.

    .. math:: A(x) = \frac1K \sum_{k=1}^K a_{(k)}, \qquad a_t = \frac1M \sum_{m=0}^{M-1} s_{t+m},
              \qquad \hat y_c(x) = \big[A_c(x) \ge \tau_c\big]

    with :math:`a_{(1)} \ge a_{(2)} \ge \dots` the means of all runs of M tokens, or of all squares
    of M x M patches where samples are grids. ``TopWindows()`` is :class:`MaxToken`. It is not part
    of the paper.

    The cut is set on the pooled scores of the samples given to ``fit``:

    - "tail": :math:`Q_{1-\delta}` of those of positive samples, as for the baselines;
    - "f1": the best F1 among all cuts;
    - "expected_f1": the best F1 in expectation, with the probabilities of ``predict_proba``, which
      is less noisy where few samples are positive;
    - "recall": the largest cut that finds a share ``level`` of the positive samples;
    - "false_alarms": the smallest cut that finds a share ``level`` of the negative samples at most;
    - ("recall", "false_alarms"), with two levels: samples between the two are unsure.

    Levels are promises about new samples, exchangeable with those given to ``fit``, which must all
    count the same (``sample_weight`` only leaves samples out). Without
    ``confidence`` they hold on average: a single calibration misses its level about every second
    time. With it they hold for this share of calibrations.

    Parameters
    ----------
    delta : float or None, default=0.1
        Sparsity in (0, 1): the share of the positive samples' pooled scores above the threshold.
        None with another cut than "tail".
    window : int, default=1
        M: tokens of a run, or patches along one side of a square. In smaller samples the largest
        window that fits.
    top : int, default=1
        K: how many windows count; all in samples that have fewer.
    share : float, default=None
        Share in (0, 1] of the windows that count, rounded, at least one, in place of ``top``; 1
        with windows of one token gives the mean.
    cut : str or ("recall", "false_alarms"), default="tail"
        How the threshold is set: "tail", "f1", "expected_f1", "recall" or "false_alarms".
    level : float or pair of floats, default=None
        Promised rate in (0, 1), recall such as .9 or false alarms such as .01; both for two cuts.
    confidence : float, default=None
        Share in (0, 1) of calibrations that keep the promise, for each of two cuts; None keeps it
        on average.
    match_columns : {"auto"} or bool, default="auto"
        Whether each concept takes the column with the best F1 on the data given to ``fit``;
        "auto" does so for units that were found without labels, and where columns and concepts
        differ in number.

    Attributes
    ----------
    thresholds_ : ndarray of shape (n_concepts,), dtype float64
        Threshold per concept, in units of the scores; the upper one of two.
    unsure_thresholds_ : ndarray of shape (n_concepts, 2), dtype float64
        The lower and the upper of two cuts; both the midpoint where they would cross. Only with
        two.
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

    Examples
    --------
    >>> import numpy as np
    >>> from skact import TopWindows
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(400) % 2
    >>> X = rng.normal(size=(400, 30, 1)) + y[:, None, None]
    >>> detector = TopWindows(None, window=4, cut="false_alarms", level=0.05).fit(X[:200], y[:200])
    >>> bool(detector.predict(X[200:])[y[200:] == 0].mean() < 0.1)
    True
    >>> two = TopWindows(None, cut=("recall", "false_alarms"), level=(0.9, 0.1))
    >>> np.unique(two.fit(X[:200], y[:200]).predict_unsure(X[200:])).tolist()
    [-1, 0, 1]
    """

    _parameter_constraints: dict[str, list[Any]] = {
        **BaseDetector._parameter_constraints,
        "delta": [_RATE, None],
        "window": [Number(Integral, 1, None, closed="left")],
        "top": [Number(Integral, 1, None, closed="left")],
        "share": [Number(Real, 0, 1, closed="right"), None],
        "cut": [
            StrOptions({"tail", "f1", "expected_f1", "recall", "false_alarms"}),
            Such(str(BOTH), lambda cut: isinstance(cut, tuple | list) and tuple(cut) == BOTH),
        ],
        "level": [_RATE, Such("a pair of such floats", _two_rates), None],
        "confidence": [_RATE, None],
    }
    _path_shapes = [(), (2,)]

    unsure_thresholds_: Array

    def __init__(
        self,
        delta: float | None = 0.1,
        *,
        window: int = 1,
        top: int = 1,
        share: float | None = None,
        cut: str | tuple[str, str] = "tail",
        level: float | tuple[float, float] | None = None,
        confidence: float | None = None,
        match_columns: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__(delta, match_columns=match_columns)  # type: ignore[arg-type]
        self.window = window
        self.top = top
        self.share = share
        self.cut = cut
        self.level = level
        self.confidence = confidence

    @property
    def path_parameter(self) -> Literal["delta", "level"]:
        """Parameter whose values share one pass over the scores in ``fit_path``."""
        return "delta" if self.cut == "tail" else "level"

    @property
    def has_two_cuts(self) -> bool:
        """Whether some samples may be unsure."""
        return not isinstance(self.cut, str)

    def _validate_params(self) -> None:
        super()._validate_params()
        check_top_and_share(self.top, self.share)
        if self.cut == "tail" and self.delta is None:
            raise ValueError("cut='tail' needs a delta in (0, 1), got None.")
        if self.cut != "tail" and self.delta is not None:
            raise ValueError(
                f"delta belongs to cut='tail'; with cut={self.cut!r} it must be None, got "
                f"{self.delta}."
            )
        promises = self.has_two_cuts or self.cut in BOTH
        if not promises and self.level is not None:
            raise ValueError(f"cut={self.cut!r} promises no level; level must be None.")
        if promises and (self.level is None or self.has_two_cuts != _two_rates(self.level)):
            what = f"two levels, of {BOTH}" if self.has_two_cuts else "one level, the promised rate"
            raise ValueError(f"cut={self.cut!r} needs {what}, got level={self.level!r}.")
        if self.confidence is not None and self.level is None:
            raise ValueError(
                f"confidence={self.confidence} needs a level to be confident of, and "
                f"cut={self.cut!r} has none."
            )

    def _check_fit(self, X: Any, y: Any, token_labels: Any, sample_weight: Any) -> Known:
        known = super()._check_fit(X, y, token_labels, sample_weight)
        check_window(self.window, known.scores)
        if known.weight is not None and self.level is not None:
            raise ValueError(
                f"cut={self.cut!r} promises a rate of exchangeable samples, which samples of "
                "different weight are not; leave sample_weight out (a mask of 0 and 1 leaves "
                'samples out), or take cut="tail", "f1" or "expected_f1".'
            )
        return known

    def _table(self, known: Known, deltas: Array) -> Table:
        for name, present in zip(self.concept_names_, known.targets.present.T, strict=True):
            n = int(present.sum())
            if "recall" in self.cut:
                rates = 1 - np.atleast_2d(deltas.T)[0]
                guaranteed_rank(n, rates, self.confidence, f"samples that hold {name!r}")
            if "false_alarms" in self.cut:
                rates, n = np.atleast_2d(deltas.T)[-1], len(present) - n
                guaranteed_rank(n, rates, self.confidence, f"samples without {name!r}")
        return super()._table(known, deltas)

    def _running_pool(self) -> RunningPool:
        if self.window == self.top == 1 and self.share is None:
            return RunningMax(self.n_features_in_)
        if self.window == self.share == 1:
            return RunningMean(self.n_features_in_)
        return RunningWindows(self.n_features_in_, self.window, self.top, self.share)

    def _pool(self, scores: TokenArray) -> Array:
        return pool_windows(scores, self.window, self.top, self.share)

    def _thresholds(self, reference: Reference, deltas: Array) -> Array:
        scores, present, weight = reference
        if self.cut == "tail":
            return tail_threshold(scores[present], deltas, reference.of_positives()[1])
        if self.cut == "recall":
            return recall_cut(scores[present], deltas, self.confidence)
        if self.cut == "false_alarms":
            return false_alarm_cut(scores[~present], deltas, self.confidence)
        if self.has_two_cuts:
            return unsure_cuts(scores, present, deltas, self.confidence)[:, 1]
        if self.cut == "expected_f1":
            present = sigmoid(scores, fit_sigmoid(scores, present, weight))
        return np.tile(best_cut(scores, present, weight), (len(deltas), 1))

    def _set_thresholds(self, table: Table, d: int) -> Self:
        super()._set_thresholds(table, d)
        self.__dict__.pop("unsure_thresholds_", None)
        if self.cut == "expected_f1":
            self._warn_of_flat("it is found in every sample")
        if self.has_two_cuts:
            level, pooled = np.array([self.level], np.float64), table.pooled()
            pairs = zip(pooled[:, self.matched_columns_].T, table.present.T, strict=True)
            self.unsure_thresholds_ = np.array(
                [unsure_cuts(s[:, None], y, level, self.confidence)[0, :, 0] for s, y in pairs]
            )
        return self

    def fit_path(
        self,
        X: Any,
        y: Any,
        token_labels: Any = None,
        *,
        sample_weight: Any = None,
        deltas: npt.ArrayLike | None = None,
        levels: npt.ArrayLike | None = None,
    ) -> list[Self]:
        """Fit a detector for each of several deltas, or levels, in one pass over the scores.

        Parameters
        ----------
        X, y, token_labels, sample_weight : as in ``fit``
            Scores, targets, labels of tokens, weights of samples.
        deltas : array-like of shape (n_deltas,), default=None
            Sparsities in (0, 1) for ``cut="tail"``; None takes ``DELTA_GRID`` there.
        levels : array-like of shape (n_levels,) or (n_levels, 2), default=None
            Promised rates for a cut that promises some, pairs for two cuts; None takes ``level``.

        Returns
        -------
        detectors : list of detectors
            Clones; each equals ``fit`` with its delta or level.

        Raises
        ------
        ValueError
            As in ``fit``; if a value lies outside of (0, 1), or the cut does not take it.
        """
        return self._fit_path(self._path_values(deltas, levels), X, y, token_labels, sample_weight)

    def match_table(
        self,
        X: Any,
        y: Any,
        token_labels: Any = None,
        *,
        sample_weight: Any = None,
        deltas: npt.ArrayLike | None = None,
        levels: npt.ArrayLike | None = None,
    ) -> Bunch:
        """Judge every column as a detector of every concept at every delta, or level.

        Parameters
        ----------
        X, y, token_labels, sample_weight : as in ``fit``
            Scores, targets, labels of tokens, weights of samples.
        deltas, levels : as in ``fit_path``
            Values of ``delta``, or of ``level``.

        Returns
        -------
        table : Bunch
            ``thresholds`` and ``f1``, float64 of shape (n_values, n_concepts, n_columns), with
            ``deltas`` or ``levels``, ``concept_names`` and ``feature_names`` (or None) along the
            axes.

        Raises
        ------
        ValueError, TypeError
            As in ``fit_path``.
        """
        values = self._path_values(deltas, levels)
        return self._match_table(values, X, y, token_labels, sample_weight)

    def _path_values(self, deltas: Any, levels: Any) -> Any:
        if self.cut == "tail":
            if levels is not None:
                raise ValueError("levels do not belong to cut='tail', which goes by deltas.")
            return DELTA_GRID if deltas is None else deltas
        if deltas is not None:
            raise ValueError(
                f"deltas belong to cut='tail'; with cut={self.cut!r} delta must be None."
            )
        if levels is None:
            self._validate_params()
        return [self.level] if levels is None else levels

    @available_if(_has_two_cuts)  # type: ignore[untyped-decorator]
    def predict_unsure(self, X: Any) -> Array:
        """Tell which samples hold which concept, which do not, and which may.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Scores.

        Returns
        -------
        said : ndarray of shape (n_samples,) or (n_samples, n_concepts), dtype int64
            1 from the upper cut on, where ``predict`` finds the concept; -1 below the lower one; 0,
            unsure, between.

        Raises
        ------
        AttributeError
            If there is one cut only.
        NotFittedError, ValueError, TypeError
            Before ``fit``, if X does not fit what was given to ``fit``, or if it is no scores.
        """
        check_is_fitted(self)
        said = self.unsure(self.pool(check_tokens(self, X, reset=False)))
        return self._like_y(said)

    @available_if(_has_two_cuts)  # type: ignore[untyped-decorator]
    def unsure(self, pooled: Array) -> Array:
        """Compare pooled scores with both cuts, as in :meth:`predict_unsure`.

        Parameters
        ----------
        pooled : ndarray of shape (n_samples, n_columns)
            As from :meth:`pool`.

        Returns
        -------
        said : ndarray of shape (n_samples, n_concepts), dtype int64
            -1, 0 and 1.

        Raises
        ------
        AttributeError, NotFittedError, ValueError
            If there is one cut only; as in :meth:`decide`.
        """
        scores = self._of_concepts(pooled)
        lower, upper = self.unsure_thresholds_.T
        return (scores >= lower).astype(np.int64) + (scores >= upper) - 1
