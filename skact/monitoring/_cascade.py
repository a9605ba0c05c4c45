"""A cheap detector for what it is sure of, and a better one for the rest."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils import _safe_indexing, get_tags
from sklearn.utils._param_validation import HasMethods
from sklearn.utils.validation import _num_samples, check_is_fitted

from skact.arguments import Such, check_entries
from skact.base import AnswersMixin, NestedParamsMixin, steps_of
from skact.detection import BaseDetector, ask_detector
from skact.rows import Array, as_numpy
from skact.targets import column_names

__all__ = ["Cascade", "Cascaded"]

_TWO_CUTS = "TopWindows(None, cut=('recall', 'false_alarms'), level=(0.95, 0.05))"


def _can_decide(second: Any) -> bool:
    return not isinstance(second, type) and (hasattr(second, "predict") or callable(second))


class Cascaded(NamedTuple):
    """What a cascade says of some samples, and who said it.

    Parameters
    ----------
    y : ndarray of shape (n_samples,) or (n_samples, n_concepts)
        As :meth:`Cascade.predict` gives it.
    first : ndarray of shape (n_samples,) or (n_samples, n_concepts), dtype int64
        What the first detector said: 1, -1, or 0 where it is unsure and the second one decided.
    share : float
        Share of the samples that went on to the second.
    """

    y: Array
    first: Array
    share: float


class Cascade(AnswersMixin, NestedParamsMixin, MetaEstimatorMixin, BaseEstimator):
    """Let a second detector decide where a first one is unsure.

    The first says yes from its upper cut on and no below its lower one. A sample goes on if the
    first is unsure of one concept at least, and of these concepts alone the second decides. So the
    levels of the two cuts say how much goes on, and how much is lost before.

    Parameters
    ----------
    first : Pipeline, detector, GridSearchCV or ConceptSearchCV
        Ends in a detector with two cuts, such as
        ``TopWindows(None, cut=("recall", "false_alarms"), level=(0.95, 0.05))``. In a
        ``FrozenEstimator`` it stays as it was fitted.
    second : estimator or callable
        An estimator with ``predict``, such as a line of a larger model, a ``ConceptDetector`` or a
        ``PromptDetector``; or a function of samples. It gets those samples that go on, all at once,
        and gives class labels (n_samples,), or 0 and 1 per concept (n_samples, n_concepts). Columns
        of a data frame are found by the names of the concepts, in whatever order.

    Attributes
    ----------
    first_ : estimator
        Fitted.
    second_ : estimator or None
        Fitted; None for a function.
    share_ : float
        Share of the samples given to ``fit`` that go on.
    shares_ : ndarray of shape (n_concepts,), dtype float64
        Share of them of which the first is unsure, per concept.
    classes_ : ndarray of shape (2,) or (n_concepts,)
        The two classes, or the numbers of the concepts where y was an indicator matrix.
    multilabel_ : bool
        Whether y was an indicator matrix.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import Cascade, TopWindows
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(400) % 2
    >>> X = rng.normal(size=(400, 8, 1)) + y[:, None, None]
    >>> sure = TopWindows(None, cut=("recall", "false_alarms"), level=(0.9, 0.1))
    >>> cascade = Cascade(sure, lambda samples: samples.mean(axis=(1, 2)) > 0.5).fit(X, y)
    >>> said = cascade.decide(X)
    >>> round(said.share, 2), round(float(np.mean(said.y == y)), 2)
    (0.23, 0.89)
    """

    # scikit-learn reads these requests under their name-mangled form.
    __metadata_request__fit: ClassVar = {"samples": True}
    __metadata_request__predict: ClassVar = {"samples": True}

    _parameter_constraints: dict[str, list[Any]] = {
        "first": [HasMethods(["fit", "predict"])],
        "second": [Such("an estimator with predict, or a function", _can_decide)],
    }

    first_: Any
    second_: Any
    share_: float
    shares_: Array
    classes_: Array
    multilabel_: bool
    concept_names_: Array

    def __init__(self, first: Any, second: Any) -> None:
        self.first = first
        self.second = second

    def fit(self, X: Any, y: Any, *, samples: Any = None) -> Self:
        """Fit both, and tell how much goes on.

        Parameters
        ----------
        X : TokenArray, LayerStack, or sequence of n_samples samples
            What the first takes; the second too, unless ``samples`` are given.
        y : array-like of shape (n_samples,) or (n_samples, n_concepts)
            Two classes (the larger one is the concept) or an indicator matrix.
        samples : sequence of n_samples samples, default=None
            What the second takes instead, such as the texts of the tokens in X.

        Returns
        -------
        self : Cascade
            Fitted.

        Raises
        ------
        ValueError
            If the first has no two cuts, ``samples`` are not as many, y has more than two classes,
            or the two speak of other concepts.
        """
        self._validate_params()
        self._check_first()
        if samples is not None:
            check_entries("samples", samples, _num_samples(X))
        self.first_ = clone(self.first).fit(X, y)
        end = steps_of(self.first_)[-1]
        self.classes_, self.multilabel_ = end.classes_, end.multilabel_
        if not self.multilabel_ and len(self.classes_) > 2:
            raise ValueError(
                f"y has {len(self.classes_)} classes, and a cascade says yes or no of a concept; "
                "give an indicator matrix with a column per class."
            )
        self.concept_names_ = end.concept_names_
        self.second_ = None
        if hasattr(self.second, "predict"):
            self.second_ = clone(self.second).fit(X if samples is None else samples, y)
        self._columns()
        unsure = self._said(X) == 0
        self.shares_, self.share_ = unsure.mean(axis=0), float(unsure.any(axis=1).mean())
        return self

    def _check_first(self) -> None:
        """Refuse one cut before anything is fitted; of a search that is known afterwards."""
        end = (steps_of(self.first) or [None])[-1]
        if isinstance(end, BaseDetector) and not hasattr(end, "predict_unsure"):
            raise ValueError(
                f"first must end in a detector that leaves samples unsure, such as {_TWO_CUTS}; it "
                f"ends in {end!r}."
            )

    def _columns(self, answers: Any = None) -> Any:
        """Find the columns of the second that hold the concepts of the first, in its order."""
        theirs = column_names(answers)
        if theirs is None:
            theirs = getattr(self.second_ and steps_of(self.second_)[-1], "concept_names_", None)
        if not self.multilabel_ or theirs is None:
            return slice(None)
        mine, theirs = self.concept_names_.tolist(), np.asarray(theirs).tolist()
        if sorted(map(str, mine)) != sorted(map(str, theirs)):
            raise ValueError(
                f"second must speak of the concepts of first: {theirs} there, {mine} here."
            )
        return [list(map(str, theirs)).index(str(name)) for name in mine]

    def _said(self, X: Any) -> Array:
        """Ask the first: 1, 0 and -1 of shape (n_samples, n_concepts)."""
        said = ask_detector(self.first_, "predict_unsure", X)
        return said.reshape(len(said), -1)

    def predict(self, X: Any, *, samples: Any = None) -> Array:
        """Tell which samples hold which concept.

        Parameters
        ----------
        X, samples : as in ``fit``
            Samples.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_concepts)
            Class labels, or 0 and 1 per concept.

        Raises
        ------
        NotFittedError, ValueError, TypeError
            As in ``decide``.
        """
        return self.decide(X, samples=samples).y

    def decide(self, X: Any, *, samples: Any = None) -> Cascaded:
        """Tell which samples hold which concept, and how many of them went on.

        Parameters
        ----------
        X, samples : as in ``fit``
            Samples.

        Returns
        -------
        said : Cascaded
            ``y``, what the ``first`` said, and the ``share`` that went on.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If ``samples`` are not as many, or the second gives something else than labels, or a
            data frame with other columns than the concepts.
        """
        check_is_fitted(self)
        if samples is not None:
            check_entries("samples", samples, _num_samples(X))
        said = self._said(X)
        present, unsure = said > 0, said == 0
        goes = np.flatnonzero(unsure.any(axis=1))
        if len(goes):
            answers = self._ask(_safe_indexing(X if samples is None else samples, goes), len(goes))
            present[goes] = np.where(unsure[goes], answers, present[goes])
        share = len(goes) / len(said)
        if self.multilabel_:
            return Cascaded(present.astype(np.int64), said, share)
        return Cascaded(self.classes_[present[:, 0].astype(np.int64)], said[:, 0], share)

    def _ask(self, samples: Any, n: int) -> Array:
        """Ask the second: bool of shape (n, n_concepts)."""
        given = self.second(samples) if self.second_ is None else self.second_.predict(samples)
        answers = _labels(given)
        shape = (n, len(self.concept_names_)) if self.multilabel_ else (n,)
        if not self.multilabel_ and answers.shape == (n, 1):
            answers = answers[:, 0]
        known = np.array([False, True]) if answers.dtype == bool else self.classes_
        if self.multilabel_ and answers.dtype != bool:
            known = np.array([0, 1])
        odd = answers[~np.isin(answers, known)]
        if answers.shape != shape or len(odd):
            such = f", such as {odd.flat[0]!r}" if len(odd) else ""
            raise ValueError(
                f"second must give labels of shape {shape}, each one of {known.tolist()} or a "
                f"bool; got {answers.dtype} of shape {answers.shape}{such}."
            )
        found: Array = answers == known[1]
        return found[:, self._columns(given)] if self.multilabel_ else found[:, None]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.first)
        tags.input_tags, tags.target_tags = inner.input_tags, inner.target_tags
        tags.classifier_tags = inner.classifier_tags
        tags.classifier_tags.multi_class = False
        return tags


def _labels(given: Any) -> Array:
    """Read what the second says as an array; of what is masked or no array nothing is read."""
    try:
        answers = as_numpy(given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"second must give an array of labels; got {given!r:.60}.") from error
    if np.ma.is_masked(given) or issparse(given):
        raise ValueError(
            f"second must give a label for each sample in an array; got {type(given).__name__}."
        )
    return answers
