r"""The SuperActivator detector and its baselines.

With :math:`s_c(z)` the score of a token for concept c, every detector pools a sample to one score
:math:`A_c(x)` and finds the concept where :math:`A_c(x) \ge \tau_c(\delta)`. The baselines take the
threshold from pooled scores, :math:`\tau_A(\delta) = Q_{1-\delta}(\{A(x) : x \text{ holds } c\})`;
the SuperActivator detector takes it from tokens,
:math:`\tau_c(\delta) = Q_{1-\delta}(\{s_c(z) : z \text{ belongs to } c\})`, so that only the
extreme tail of the in-concept tokens speaks.

Source: Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate Reliable
Concept Signals in the Tail", section on detection.
"""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions

from skact.arguments import Number
from skact.detection._base import BaseDetector
from skact.detection._calibration import (
    Known,
    LabelledScores,
    Reference,
    ReferenceScores,
    TopScores,
)
from skact.pooling import RunningLast, RunningMax, RunningMean, RunningPool
from skact.rows import Array
from skact.tail import best_cut_of_sorted, tail_threshold
from skact.tokens import TokenArray

__all__ = [
    "LastToken",
    "MaxToken",
    "MeanToken",
    "RandomToken",
    "SuperActivator",
    "WeakSuperActivator",
]


class SuperActivator(BaseDetector):
    r"""A concept is present if a token reaches the extreme tail of the in-concept scores.

    .. math:: \hat y_c(x) = \big[\max_i s_c(z_i) \ge \tau_c(\delta)\big], \qquad
              \tau_c(\delta) = Q_{1-\delta}\big(\{s_c(z) : z \text{ labelled } c\}\big)

    Parameters
    ----------
    delta : float, default=0.1
        Sparsity in (0, 1): the share of the in-concept token scores above the threshold.
    match_columns : {"auto"} or bool, default="auto"
        Whether each concept takes the column with the best F1 on the data given to ``fit``;
        "auto" does so for units that were found without labels, and where columns and concepts
        differ in number.

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

    References
    ----------
    .. [1] Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate
       Reliable Concept Signals in the Tail", section on detection.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import SuperActivator
    >>> scores = [np.array([[0.1], [2.0]]), np.array([[0.3], [0.2]]), np.array([[1.0]])]
    >>> labels = [np.array([[False], [True]]), np.array([[False], [False]]), np.array([[True]])]
    >>> detector = SuperActivator(delta=0.5).fit(scores, [1, 0, 1], token_labels=labels)
    >>> detector.thresholds_, detector.predict(scores)
    (array([1.5]), array([1, 0, 0]))
    >>> detector.superactivators(scores)[0].ravel()
    array([False,  True])
    """

    _reference = LabelledScores()

    def _running_pool(self) -> RunningMax:
        return RunningMax(self.n_features_in_)

    def _pool(self, scores: TokenArray) -> Array:
        return scores.max()

    def _thresholds(self, reference: Reference, deltas: Array) -> Array:
        return tail_threshold(reference.scores, deltas, reference.weight)


class _PooledDetector(BaseDetector):
    """A baseline: the threshold is a quantile of the pooled scores of positive samples."""

    def _thresholds(self, reference: Reference, deltas: Array) -> Array:
        scores, weight = reference.of_positives()
        return tail_threshold(scores, deltas, weight)


class MaxToken(_PooledDetector):
    r"""Baseline that pools a sample by its largest score, :math:`A(x) = \max_i s(z_i)`.

    Parameters
    ----------
    delta : float, default=0.1
        Sparsity in (0, 1): the share of the positive samples' pooled scores above the threshold.
    match_columns : {"auto"} or bool, default="auto"
        Whether each concept takes the column with the best F1 on the data given to ``fit``;
        "auto" does so for units that were found without labels, and where columns and concepts
        differ in number.

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

    def _running_pool(self) -> RunningMax:
        return RunningMax(self.n_features_in_)

    def _pool(self, scores: TokenArray) -> Array:
        return scores.max()


class MeanToken(_PooledDetector):
    r"""Baseline that pools a sample by its mean score, :math:`A(x) = \frac1n \sum_i s(z_i)`.

    Parameters
    ----------
    delta : float, default=0.1
        Sparsity in (0, 1): the share of the positive samples' pooled scores above the threshold.
    match_columns : {"auto"} or bool, default="auto"
        Whether each concept takes the column with the best F1 on the data given to ``fit``;
        "auto" does so for units that were found without labels, and where columns and concepts
        differ in number.

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

    def _running_pool(self) -> RunningMean:
        return RunningMean(self.n_features_in_)

    def _pool(self, scores: TokenArray) -> Array:
        return scores.mean()


class LastToken(_PooledDetector):
    r"""Baseline that reads a sample at its last token, :math:`A(x) = s(z_n)`.

    Parameters
    ----------
    delta : float, default=0.1
        Sparsity in (0, 1): the share of the positive samples' pooled scores above the threshold.
    match_columns : {"auto"} or bool, default="auto"
        Whether each concept takes the column with the best F1 on the data given to ``fit``;
        "auto" does so for units that were found without labels, and where columns and concepts
        differ in number.

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

    def _running_pool(self) -> RunningLast:
        return RunningLast(self.n_features_in_)

    def _pool(self, scores: TokenArray) -> Array:
        return scores.last()


class RandomToken(_PooledDetector):
    r"""Baseline that reads a sample at one token, drawn uniformly and once for all concepts.

    .. math:: A(x) = s(z_J), \qquad J \sim \mathrm{Uniform}\{1, \dots, n\}

    Parameters
    ----------
    delta : float, default=0.1
        Sparsity in (0, 1): the share of the positive samples' pooled scores above the threshold.
    match_columns : {"auto"} or bool, default="auto"
        Whether each concept takes the column with the best F1 on the data given to ``fit``;
        "auto" does so for units that were found without labels, and where columns and concepts
        differ in number.
    random_state : int, RandomState instance or None, default=None
        Draws the positions; an int makes them repeatable.

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
    seed_ : int
        Seed drawn in ``fit``. Sample i is read at a position drawn from it, the same one in every
        call, so that a prediction can be repeated.
    """

    _parameter_constraints: dict[str, list[Any]] = {
        **BaseDetector._parameter_constraints,
        "random_state": ["random_state"],
    }

    seed_: int

    def __init__(
        self,
        delta: float = 0.1,
        *,
        match_columns: bool | Literal["auto"] = "auto",
        random_state: Any = None,
    ) -> None:
        super().__init__(delta, match_columns=match_columns)
        self.random_state = random_state

    def _check_fit(self, X: Any, y: Any, token_labels: Any, sample_weight: Any) -> Known:
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        return super()._check_fit(X, y, token_labels, sample_weight)

    def _running_pool(self) -> RunningPool:
        raise ValueError(
            "RandomToken draws one of all tokens of a sample, which a stream that goes on does not "
            "have; use another detector."
        )

    def _pool(self, scores: TokenArray) -> Array:
        where = np.random.default_rng(self.seed_).random(len(scores))
        return scores.tokens_at((where * scores.lengths).astype(np.int64))


class WeakSuperActivator(BaseDetector):
    r"""SuperActivators from sample labels alone, at one fixed sparsity.

    The highest scores :math:`T(x)` of each sample, :math:`\lceil \rho\, n(x) \rceil` of them, stand
    for its SuperActivators. The threshold separates those of samples that hold the concept from
    those of samples that do not:

    .. math:: \tau_c = \arg\max_\tau \mathrm{F1}\big([s \ge \tau],
              [x(s) \text{ holds } c]\big), \qquad
              \hat y_c(x) = \big[\max_i s_c(z_i) \ge \tau_c\big]

    over the pooled :math:`s \in T(x)` (``objective="token"``), or over the maxima of samples
    (``objective="sample"``), with all cuts tried. :math:`\rho` is ``delta`` times the share of
    tokens that belong to the concept in a sample that holds it [1]_.

    Parameters
    ----------
    delta : float, default=0.1
        Sparsity in (0, 1): the share of in-concept tokens that count as SuperActivators.
    objective : {"token", "sample"}, default="token"
        What the threshold separates best. "sample" does not depend on ``delta``.
    share : float, default=None
        Share in (0, 1] of tokens that belong to a concept in samples that hold it. None takes the
        mean share in ``token_labels``; without those it is 1.
    match_columns : {"auto"} or bool, default="auto"
        Whether each concept takes the column with the best F1 on the data given to ``fit``;
        "auto" does so for units that were found without labels, and where columns and concepts
        differ in number.

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

    References
    ----------
    .. [1] Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate
       Reliable Concept Signals in the Tail", Appendix N. The paper names no objective.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import WeakSuperActivator
    >>> scores = [np.array([[0.1], [2.0]]), np.array([[0.3], [0.2]]), np.array([[1.0]])]
    >>> detector = WeakSuperActivator().fit(scores, [1, 0, 1])
    >>> detector.thresholds_, detector.predict(scores)
    (array([1.]), array([1, 0, 1]))
    """

    _parameter_constraints: dict[str, list[Any]] = {
        **BaseDetector._parameter_constraints,
        "objective": [StrOptions({"token", "sample"})],
        "share": [Number(Real, 0, 1, closed="right"), None],
    }

    def __init__(
        self,
        delta: float = 0.1,
        *,
        objective: Literal["token", "sample"] = "token",
        share: float | None = None,
        match_columns: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__(delta, match_columns=match_columns)
        self.objective = objective
        self.share = share

    def _running_pool(self) -> RunningMax:
        return RunningMax(self.n_features_in_)

    def _pool(self, scores: TokenArray) -> Array:
        return scores.max()

    @property
    def _reference(self) -> ReferenceScores:  # type: ignore[override]
        # Of each sample the maximum alone, or a share of its tokens.
        return TopScores(0.0 if self.objective == "sample" else self.share)

    def _thresholds(self, reference: Any, deltas: Array) -> Array:
        return np.array([best_cut_of_sorted(*tops) for tops in reference])
