"""Grid search in which every concept gets its own winner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from numpy.ma import MaskedArray
from scipy.stats import rankdata
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.model_selection import ParameterGrid, check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags, indexable
from sklearn.utils._indexing import _safe_indexing
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import _num_samples, check_is_fitted

from skact.detection import BaseDetector, concept_f1
from skact.embedding import TransformerEmbedder
from skact.embedding.depth import resolve_layers
from skact.preprocessing import SelectLayer
from skact.tokens import TokenArray
from skact.validation import check_targets, check_tokens

__all__ = ["ConceptSearchCV"]

Array = npt.NDArray[Any]
Params = dict[str, Any]
Metric = Callable[[Array, Array], float]


class ConceptSearchCV(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    r"""Search a grid once and give each concept its own best layer, delta and concept method.

    .. math:: \theta^*_c = \arg\max_\theta \frac{1}{K} \sum_{k=1}^K
              \mathrm{F1}_c(\theta; \text{fold } k)

    The result is that of one GridSearchCV per concept, scored by the F1 of that concept, at the
    price of one: all concepts share the fits, all deltas of a candidate share one pass over the
    scores, and all layers share one embedding [1]_.

    Parameters
    ----------
    estimator : Pipeline or detector
        Ends in a detector. If it starts with a TransformerEmbedder of which the grid changes
        nothing but ``layer``, the samples are embedded once.
    param_grid : dict or list of dict
        As in GridSearchCV; whole steps may be searched too.
    scoring : "f1" or callable, default="f1"
        ``scoring(y_true, y_pred)`` -> float on 0 and 1 of one concept; larger is better.
    cv : int, cross-validation splitter, iterable or bool array of shape (n_samples,), default=5
        Folds. A bool array marks a calibration split, and the search then follows the paper's
        protocol: everything before the detector is fitted on the other samples, thresholds are
        set and scored on the calibration split.
    refit : bool, default=True
        Fit the winners: on all samples, or by the protocol.
    n_jobs : int, default=None
        Fits at a time, as in joblib.

    Attributes
    ----------
    best_params_ : dict of str to dict
        Winning parameters of each concept. Ties go to the smaller delta, then the earlier layer,
        then the earlier candidate.
    best_score_ : ndarray of shape (n_concepts,)
        Mean score of each winner.
    best_index_ : ndarray of shape (n_concepts,), dtype int64
        Its place in ``cv_results_``.
    best_estimators_ : dict of str to Pipeline or detector
        Fitted winner of each concept; concepts with the same winner share it. With ``refit``.
    cv_results_ : dict of ndarrays
        ``params``, a masked array ``param_NAME`` each, and for each concept ``split0_test_CONCEPT``
        ..., ``mean_test_CONCEPT``, ``std_test_CONCEPT``, ``rank_test_CONCEPT``, all of shape
        (n_candidates,).
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts.
    classes_ : ndarray of shape (2,) or (n_concepts,)
        The two classes, or the numbers of the concepts where y was an indicator matrix.
    multilabel_ : bool
        Whether y was an indicator matrix.
    n_splits_ : int
        Folds; 1 for a calibration split.

    References
    ----------
    .. [1] Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate
       Reliable Concept Signals in the Tail", section on detection.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import Pipeline
    >>> from skact import ConceptSearchCV, LinearSeparator, SuperActivator
    >>> rng = np.random.default_rng(0)
    >>> y = rng.random((60, 2)) < 0.5
    >>> X = [rng.normal(size=(5, 3)) + 3 * np.r_[row, 0] for row in y]
    >>> pipe = Pipeline([("concepts", LinearSeparator()), ("detect", SuperActivator())])
    >>> search = ConceptSearchCV(pipe, {"detect__delta": [0.1, 0.5, 0.9]}, cv=3).fit(X, y)
    >>> sorted(search.best_params_), search.predict(X).shape
    (['concept0', 'concept1'], (60, 2))
    """

    # scikit-learn reads this request under its name-mangled form.
    __metadata_request__fit: ClassVar = {"token_labels": True}

    _parameter_constraints: dict[str, list[Any]] = {
        "estimator": [HasMethods(["fit", "predict"])],
        "param_grid": [dict, list],
        "scoring": [StrOptions({"f1"}), callable],
        "cv": ["cv_object", np.ndarray],
        "refit": ["boolean"],
        "n_jobs": [Integral, None],
    }

    best_params_: dict[str, Params]
    best_score_: Array
    best_index_: Array
    best_estimators_: dict[str, Any]
    cv_results_: dict[str, Any]
    concept_names_: Array
    classes_: Array
    multilabel_: bool
    n_splits_: int

    def __init__(
        self,
        estimator: Any,
        param_grid: Params | list[Params],
        *,
        scoring: str | Metric = "f1",
        cv: Any = 5,
        refit: bool = True,
        n_jobs: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.param_grid = param_grid
        self.scoring = scoring
        self.cv = cv
        self.refit = refit
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any, token_labels: Any = None) -> Self:
        """Search, and fit the winners.

        Parameters
        ----------
        X : sequence of n_samples samples, TokenArray or LayerStack
            What the estimator takes.
        y : array-like of shape (n_samples,) or (n_samples, n_concepts)
            Two classes (the larger one is the concept) or an indicator matrix.
        token_labels : TokenArray of shape (n_samples, n_concepts), dtype bool, default=None
            Handed to every step that asks for it.

        Returns
        -------
        self : ConceptSearchCV
            Fitted.

        Raises
        ------
        ValueError
            If the grid names something unknown, y does not fit X, or a concept has no positive
            sample in a training part; the fold is named.
        TypeError
            If the estimator does not end in a detector.
        """
        self._validate_params()
        candidates = list(ParameterGrid(self.param_grid))
        n_samples = _num_samples(X)
        targets = check_targets(self, y, n_samples)
        X, y, token_labels = indexable(X, y, token_labels)
        splits = _splits(self.cv, y, n_samples)
        self.embedder_, plan = _plan(self.estimator, candidates)
        data = _Data(self._embed(X, plan.blocks), y, token_labels)
        metric = _f1 if self.scoring == "f1" else self.scoring
        jobs = [(f, group) for f in range(len(splits)) for group in plan.groups]
        found = Parallel(n_jobs=self.n_jobs)(
            delayed(_evaluate)(
                plan.estimator,
                group,
                data,
                targets.present,
                splits[f],
                metric,
                f"fold {f + 1} of {len(splits)}",
            )
            for f, group in jobs
        )
        scores = np.empty((len(candidates), len(splits), targets.n_concepts))
        for (f, _), (rows, values, _) in zip(jobs, found, strict=True):
            scores[rows, f] = values
        like = found[0][2]
        self.concept_names_, self.classes_ = like.concept_names_, like.classes_
        self.multilabel_, self.n_splits_ = like.multilabel_, len(splits)
        self._select(candidates, scores, plan)
        if self.refit:
            self._refit(plan, data, splits[0])
        return self

    def _embed(self, X: Any, blocks: list[int]) -> Any:
        if self.embedder_ is None:
            return X
        return clone(self.embedder_).set_params(layer=blocks).transform(X)

    def _select(self, candidates: list[Params], scores: Array, plan: _Plan) -> None:
        mean = np.stack([np.average(s, axis=1) for s in np.moveaxis(scores, 2, 0)], axis=1)
        # argmax takes the first of equals, so the order of candidates breaks ties.
        order = np.array(sorted(range(len(candidates)), key=plan.ranks.__getitem__))
        self.best_index_ = order[np.argmax(mean[order], axis=0)]
        self.best_score_ = mean[self.best_index_, np.arange(mean.shape[1])]
        names = [str(name) for name in self.concept_names_]
        self.best_params_ = {
            name: candidates[i] for name, i in zip(names, self.best_index_, strict=True)
        }
        results: dict[str, Any] = {"params": candidates}
        for key in sorted({key for params in candidates for key in params}):
            column = MaskedArray(np.empty(len(candidates), dtype=object), mask=True)
            for i, params in enumerate(candidates):
                if key in params:
                    column[i] = params[key]
            results[f"param_{key}"] = column
        for c, name in enumerate(names):
            for f in range(scores.shape[1]):
                results[f"split{f}_test_{name}"] = scores[:, f, c]
            results[f"mean_test_{name}"] = mean[:, c]
            results[f"std_test_{name}"] = scores[:, :, c].std(axis=1)
            ranks = rankdata(-mean[:, c], method="min").astype(np.int32)
            results[f"rank_test_{name}"] = ranks
        self.cv_results_ = results

    def _refit(self, plan: _Plan, data: _Data, split: _Split) -> None:
        if not split.protocol:
            everything = np.arange(_num_samples(data.y))
            split = _Split(everything, everything, everything, False)
        winners = set(self.best_index_.tolist())
        fitted: dict[int, tuple[Any, BaseDetector]] = {}
        for group in plan.groups:
            if winners.intersection(group.candidates):
                head, detectors = _fit_group(plan.estimator, group, data, split)
                fitted.update({i: (head, detectors[i]) for i in winners.intersection(detectors)})
        whole = {i: _assemble(self.estimator, self.embedder_, *fitted[i]) for i in fitted}
        chosen = self.best_index_.tolist()
        self._winners = [fitted[i] for i in chosen]
        self.best_estimators_ = {
            name: whole[i] for name, i in zip(self.best_params_, chosen, strict=True)
        }

    def _scored(self, X: Any) -> Iterator[tuple[list[int], list[BaseDetector], Any]]:
        """Scores of X by each distinct winner's first steps, with the concepts that use them."""
        check_is_fitted(self)
        if not hasattr(self, "best_estimators_"):
            raise AttributeError("ConceptSearchCV(refit=False) keeps no estimator to predict with.")
        if self.embedder_ is not None:
            X = self._embed(X, sorted({head[0].layer_ for head, _ in self._winners}))
        heads = {id(head): head for head, _ in self._winners}
        for key, head in heads.items():
            concepts = [c for c, (own, _) in enumerate(self._winners) if id(own) == key]
            scores = X if head is None else head.transform(X)
            yield concepts, [self._winners[c][1] for c in concepts], scores

    def decision_function(self, X: Any) -> Array:
        """Pooled score minus threshold, each concept by its winner; positive where found.

        Parameters
        ----------
        X : sequence of n_samples samples, TokenArray or LayerStack
            What the estimator takes.

        Returns
        -------
        decision : ndarray of shape (n_samples,) or (n_samples, n_concepts), dtype float64
            In units of the scores.
        """
        decision: Array = np.empty((_num_samples(X), len(self.concept_names_)))
        for concepts, detectors, scores in self._scored(X):
            for c, detector in zip(concepts, detectors, strict=True):
                tokens = check_tokens(detector, scores, reset=False)
                decision[:, c] = detector._decide(detector._pool(tokens))[:, c]
        return decision if self.multilabel_ else decision[:, 0]

    def predict(self, X: Any) -> Array:
        """Tell which samples hold which concept, each concept by its winner.

        Parameters
        ----------
        X : sequence of n_samples samples, TokenArray or LayerStack
            What the estimator takes.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_concepts)
            Class labels, or 0 and 1 per concept.
        """
        check_is_fitted(self)
        present = (self.decision_function(X) > 0).astype(np.int64)
        return present if self.multilabel_ else self.classes_[present]

    def superactivators(self, X: Any) -> TokenArray:
        """Mark the SuperActivators of each concept, by its winner.

        Parameters
        ----------
        X : sequence of n_samples samples, TokenArray or LayerStack
            What the estimator takes.

        Returns
        -------
        marks : TokenArray of shape (n_samples, n_concepts), dtype bool
            True at the SuperActivators.
        """
        marks: TokenArray | None = None
        for concepts, detectors, scores in self._scored(X):
            for c, detector in zip(concepts, detectors, strict=True):
                tokens = check_tokens(detector, scores, reset=False)
                if marks is None:
                    shape = (tokens.n_tokens, len(self.concept_names_))
                    marks = tokens.with_values(np.zeros(shape, bool), list(self.concept_names_))
                marks.values[:, c] = detector._mark(tokens).values[:, c]
        assert marks is not None
        return marks

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.input_tags, tags.target_tags = inner.input_tags, inner.target_tags
        tags.classifier_tags = inner.classifier_tags
        return tags


def _f1(y_true: Array, y_pred: Array) -> float:
    return float(concept_f1(y_true.astype(bool), y_pred.astype(bool)))


class _Data(NamedTuple):
    """Samples with their targets and labels of tokens."""

    X: Any
    y: Any
    token_labels: Any

    def rows(self, rows: Array) -> _Data:
        return _Data(*(None if part is None else _safe_indexing(part, rows) for part in self))


class _Split(NamedTuple):
    """Rows for the steps before the detector, for the detector, and for scoring."""

    head: Array
    detector: Array
    score: Array
    protocol: bool


class _Variant(NamedTuple):
    """Settings of a detector, with a candidate for each delta."""

    params: Params
    deltas: list[float]
    candidates: list[int]


@dataclass(frozen=True)
class _Group:
    """Candidates that share everything before the detector."""

    head: Params
    variants: list[_Variant]

    @property
    def candidates(self) -> list[int]:
        """Numbers of the candidates, variant by variant."""
        return [i for variant in self.variants for i in variant.candidates]


@dataclass(frozen=True)
class _Plan:
    """What is fitted, in which groups, and the order among equal candidates."""

    estimator: Any
    groups: list[_Group]
    blocks: list[int]
    ranks: list[tuple[float, int, int]]


def _splits(cv: Any, y: Any, n_samples: int) -> list[_Split]:
    if isinstance(cv, np.ndarray) and cv.dtype == bool:
        if cv.shape != (n_samples,) or cv.all() or not cv.any():
            raise ValueError(
                f"cv as a calibration split must be bool of shape ({n_samples},) with some but "
                f"not all True; got shape {cv.shape} with {int(cv.sum())} True."
            )
        cal = np.flatnonzero(cv)
        return [_Split(np.flatnonzero(~cv), cal, cal, True)]
    folds = check_cv(cv, y, classifier=True).split(np.zeros(n_samples), y)
    return [_Split(train, train, test, False) for train, test in folds]


def _detector_of(estimator: Any) -> BaseDetector:
    detector = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    if not isinstance(detector, BaseDetector):
        raise TypeError(
            "ConceptSearchCV needs an estimator that ends in a detector, got "
            f"{type(detector).__name__}."
        )
    return detector


def _plan(estimator: Any, candidates: list[Params]) -> tuple[TransformerEmbedder | None, _Plan]:
    """Group the candidates; take the embedder out if the grid varies nothing but its layer."""
    configured = [_configure(estimator, params) for params in candidates]
    detectors = [_detector_of(one) for one in configured]
    layers = [_layer(one) for one in configured]
    embedder, blocks = _shared_embedder(estimator, candidates), []
    if embedder is not None:
        name = estimator.steps[0][0]
        layers = [resolve_layers([layer], embedder.n_blocks)[0][0] for layer in layers]
        blocks = sorted(set(layers))
        estimator = Pipeline([(name, SelectLayer()), *estimator.steps[1:]])
        candidates = [
            {**params, f"{name}__layer": layer}
            for params, layer in zip(candidates, layers, strict=True)
        ]
    deltas = [float(detector.delta) for detector in detectors]
    groups = _groups(estimator, candidates, deltas)
    ranks = list(zip(deltas, layers, range(len(candidates)), strict=True))
    return embedder, _Plan(estimator, groups, blocks, ranks)


def _configure(estimator: Any, params: Params) -> Any:
    """Return a clone with these settings; steps of the grid are cloned, so that none is changed."""
    return clone(estimator).set_params(**clone(params, safe=False))


def _layer(estimator: Any) -> Any:
    """Layer that a configured estimator reads; 0 where it does not choose one."""
    steps = [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else []
    return next((step.layer for step in steps if hasattr(step, "layer")), 0)


def _shared_embedder(estimator: Any, candidates: list[Params]) -> TransformerEmbedder | None:
    if not isinstance(estimator, Pipeline):
        return None
    name, first = estimator.steps[0]
    keys = {key for params in candidates for key in params} - {f"{name}__layer"}
    untouched = not any(key == name or key.startswith(f"{name}__") for key in keys)
    return first if isinstance(first, TransformerEmbedder) and untouched else None


def _groups(estimator: Any, candidates: list[Params], deltas: list[float]) -> list[_Group]:
    last = estimator.steps[-1][0] if isinstance(estimator, Pipeline) else None
    delta = "delta" if last is None else f"{last}__delta"
    groups: dict[Any, tuple[Params, dict[Any, _Variant]]] = {}
    for i, params in enumerate(candidates):
        of_detector = {
            key for key in params if last is None or key == last or key.startswith(f"{last}__")
        }
        head = {key: value for key, value in params.items() if key not in of_detector}
        own = {key: params[key] for key in of_detector - {delta}}
        _, variants = groups.setdefault(_identity(head), (head, {}))
        variant = variants.setdefault(_identity(own), _Variant(own, [], []))
        variant.deltas.append(deltas[i])
        variant.candidates.append(i)
    return [_Group(head, list(variants.values())) for head, variants in groups.values()]


def _identity(params: Params) -> Any:
    """Tell settings apart; a grid hands out the same object for the same setting."""
    return tuple(
        (key, value if isinstance(value, int | float | str) else id(value))
        for key, value in sorted(params.items())
    )


def _fit_group(
    estimator: Any, group: _Group, data: _Data, split: _Split
) -> tuple[Pipeline | None, dict[int, BaseDetector]]:
    """Fit what the candidates of a group share, and a detector for each of them."""
    configured = _configure(estimator, group.head)
    has_head = isinstance(configured, Pipeline) and len(configured.steps) > 1
    head = Pipeline(clone(configured).steps[:-1]) if has_head else None
    calibration = data.rows(split.detector)
    scores = calibration.X
    if head is not None:
        first = data.rows(split.head)
        with config_context(enable_metadata_routing=True):
            # Without routing, only labels named step by step would reach the steps.
            method = "fit" if split.protocol else "fit_transform"
            wanted = get_routing_for_object(head).consumes(method, ["token_labels"])
            labels = {name: first.token_labels for name in wanted if first.token_labels is not None}
            made = getattr(head, method)(first.X, first.y, **labels)
        scores = head.transform(calibration.X) if split.protocol else made
    detectors: dict[int, BaseDetector] = {}
    for variant in group.variants:
        detector = _detector_of(_configure(configured, variant.params))
        path = detector.fit_path(
            scores, calibration.y, calibration.token_labels, deltas=variant.deltas
        )
        detectors.update(zip(variant.candidates, path, strict=True))
    return head, detectors


def _evaluate(
    estimator: Any,
    group: _Group,
    data: _Data,
    present: Array,
    split: _Split,
    metric: Metric,
    fold: str,
) -> tuple[list[int], Array, BaseDetector]:
    """Score each candidate of a group for each concept on one fold."""
    try:
        head, detectors = _fit_group(estimator, group, data, split)
    except ValueError as error:
        raise ValueError(f"in {fold} of the search: {error}") from error
    scored = data.rows(split.score).X
    scores = scored if head is None else head.transform(scored)
    truth = present[split.score].astype(np.int64)
    values = []
    for variant in group.variants:
        first = detectors[variant.candidates[0]]
        pooled = first._pool(check_tokens(first, scores, reset=False))
        for i in variant.candidates:
            found = (detectors[i]._decide(pooled) > 0).astype(np.int64)
            values.append([metric(t, f) for t, f in zip(truth.T, found.T, strict=True)])
    return group.candidates, np.array(values), first


def _assemble(
    estimator: Any,
    embedder: TransformerEmbedder | None,
    head: Pipeline | None,
    detector: BaseDetector,
) -> Any:
    """Put the fitted parts together again, with the embedder in its place."""
    if not isinstance(estimator, Pipeline):
        return detector
    steps = [] if head is None else list(head.steps)
    if embedder is not None:
        name, chosen = steps[0]
        steps[0] = (name, clone(embedder).set_params(layer=chosen.layer_))
    return Pipeline([*steps, (estimator.steps[-1][0], detector)])
