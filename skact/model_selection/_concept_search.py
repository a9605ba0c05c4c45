"""Grid search in which every concept gets its own winner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from numpy.ma import MaskedArray
from scipy.stats import rankdata
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.model_selection import ParameterGrid
from sklearn.utils import get_tags, indexable
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _num_samples, check_is_fitted

from skact.arguments import N_JOBS, check_entries, check_sample_weight
from skact.base import AnswersMixin, ConceptNamesOutMixin, NestedParamsMixin
from skact.detection import BaseDetector
from skact.embedding import TransformerEmbedder
from skact.extras import need
from skact.model_selection._search_fits import (
    Data,
    Metric,
    Split,
    assemble,
    evaluate,
    fit_group,
    make_splits,
)
from skact.model_selection._search_plan import Params, Plan, detector_of, make_plan
from skact.rows import Array
from skact.tail import concept_f1
from skact.targets import check_targets
from skact.tokens import LayerStack, TokenArray
from skact.validation import check_tokens
from skact.warning import warn

__all__ = ["ConceptSearchCV"]


def _has_two_cuts(search: ConceptSearchCV) -> bool:
    for name, winner in getattr(search, "best_estimators_", {}).items():
        if not hasattr(detector_of(winner), "unsure"):
            raise AttributeError(
                f"the winner of concept {name!r} has one cut only; two come with "
                "TopWindows(cut=('recall', 'false_alarms'))."
            )
    return True


class ConceptSearchCV(
    AnswersMixin, ConceptNamesOutMixin, NestedParamsMixin, MetaEstimatorMixin, BaseEstimator
):
    r"""Search a grid once and give each concept its own best layer, delta and concept method.

    .. math:: \theta^*_c = \arg\max_\theta \frac{1}{K} \sum_{k=1}^K
              \mathrm{F1}_c(\theta; \text{fold } k)

    The result is that of one GridSearchCV per concept, scored by the F1 of that concept, at the
    price of one: all concepts share the fits, all deltas, or levels, of a candidate share one pass
    over the scores, and all layers share one embedding [1]_.

    Parameters
    ----------
    estimator : Pipeline or detector
        Ends in a detector. If it starts with a TransformerEmbedder of which the grid changes
        nothing but ``layer``, the samples are embedded once.
    param_grid : dict or list of dict
        As in GridSearchCV; whole steps may be searched too.
    scoring : "f1" or callable, default="f1"
        ``scoring(y_true, y_pred)`` -> float on 0 and 1 of one concept; larger is better, and NaN
        cannot win. One that takes ``sample_weight`` gets the weights of ``fit``.
    cv : int, cross-validation splitter, iterable or bool array of shape (n_samples,), default=5
        Folds; an int makes stratified ones for class labels, plain ones for an indicator matrix,
        and with groups such that keep each group together. A bool array marks a calibration split,
        and the search then follows the paper's protocol: everything before the detector is fitted
        on the other samples, thresholds are set and scored on the calibration split.
    refit : bool or callable, default=True
        Fit the winners: on all samples, or by the protocol. A callable names them, too: it takes
        ``cv_results_`` and gives the place of each concept's winner, of shape (n_concepts,), as in
        a rule of one standard error; the best mean wins without one.
    n_jobs : int, default=None
        Fits at a time, as in joblib.

    Attributes
    ----------
    best_params_ : dict of str to dict
        Winning parameters of each concept. Ties go to the smaller delta (none is the smallest),
        then the earlier layer, then the earlier candidate.
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
    classes_ : ndarray of shape (n_classes,) or (n_concepts,)
        The classes, or the numbers of the concepts where y was an indicator matrix.
    multilabel_ : bool
        Whether y was an indicator matrix.
    n_splits_ : int
        Folds; 1 for a calibration split.
    embedder_ : TransformerEmbedder or None
        The first step, if the samples were embedded once for all candidates.

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
    __metadata_request__fit: ClassVar = {"token_labels": True, "groups": True}

    _parameter_constraints: dict[str, list[Any]] = {
        "estimator": [HasMethods(["fit", "predict"])],
        "param_grid": [dict, list],
        "scoring": [StrOptions({"f1"}), callable],
        "cv": ["cv_object", np.ndarray],
        "refit": ["boolean", callable],
        "n_jobs": [N_JOBS, None],
    }

    best_params_: dict[str, Params]
    best_score_: Array
    best_index_: Array
    best_estimators_: dict[str, Any]
    cv_results_: dict[str, Any]
    concept_names_: Array
    n_splits_: int
    embedder_: TransformerEmbedder | None

    def __init__(
        self,
        estimator: Any,
        param_grid: Params | list[Params],
        *,
        scoring: str | Metric = "f1",
        cv: Any = 5,
        refit: bool | Callable[[dict[str, Any]], npt.ArrayLike] = True,
        n_jobs: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.param_grid = param_grid
        self.scoring = scoring
        self.cv = cv
        self.refit = refit
        self.n_jobs = n_jobs

    def fit(
        self,
        X: Any,
        y: Any,
        token_labels: Any = None,
        *,
        groups: Any = None,
        sample_weight: Any = None,
    ) -> Self:
        """Search, and fit the winners.

        Parameters
        ----------
        X : sequence of n_samples samples, TokenArray or LayerStack
            What the estimator takes.
        y : array-like of shape (n_samples,) or (n_samples, n_concepts)
            Class labels (of two the larger one is the concept, of more each one) or an indicator
            matrix.
        token_labels : TokenArray of shape (n_samples, n_concepts), dtype bool, default=None
            Handed to every step that asks for it.
        groups : array-like of shape (n_samples,), default=None
            Samples that belong together, for ``cv`` and for every step that asks for it.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each sample counts for the detector, for every step that asks for it by
            ``set_fit_request(sample_weight=True)``, and in the scores, unless ``scoring`` takes no
            weights: a weight of 2 is that of a sample that is twice in its fold.

        Returns
        -------
        self : ConceptSearchCV
            Fitted.

        Raises
        ------
        ValueError
            If the grid names something unknown, y, groups or weights do not fit X, all samples of a
            fold have weight 0, ``cv`` needs groups and there are none, a step does not say whether
            it wants weights, or a concept has no positive sample in a training part; the fold is
            named. After the search, if a callable ``refit`` gives no place for each concept.
        TypeError
            If the estimator does not end in a detector.
        """
        self._validate_params()
        candidates = _candidates(self.param_grid)
        n_samples = _num_samples(X)
        targets = check_targets(self, y, n_samples)
        splits = make_splits(self.cv, y, groups, n_samples)
        if token_labels is not None:
            check_entries("token_labels", token_labels, n_samples)
        if sample_weight is not None:
            sample_weight = check_sample_weight(sample_weight, n_samples)
        X, *beside = indexable(X, y, token_labels, groups, sample_weight)
        blocks = X.layers if isinstance(X, LayerStack) else []
        self.embedder_, plan = make_plan(self.estimator, candidates, blocks)
        data = Data(self._embed(X, plan.blocks), *beside)
        metric = _f1 if self.scoring == "f1" else self.scoring
        jobs = [(f, group) for f in range(len(splits)) for group in plan.groups]
        found = Parallel(n_jobs=self.n_jobs)(
            delayed(evaluate)(
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
        self.__dict__.pop("best_estimators_", None)  # of an earlier fit with refit=True
        if self.refit:
            self._refit(plan, data, splits[0])
        return self

    def _embed(self, X: Any, blocks: list[int]) -> Any:
        if self.embedder_ is None:
            return X
        return clone(self.embedder_).set_params(layer=blocks).transform(X)

    def _select(self, candidates: list[Params], scores: Array, plan: Plan) -> None:
        # Added up concept by concept as GridSearchCV does, so that rounding makes the same ties.
        mean = np.stack([np.average(s, axis=1) for s in np.moveaxis(scores, 2, 0)], axis=1)
        # argmax takes the first of equals, so the order of candidates breaks ties.
        order = np.array(sorted(range(len(candidates)), key=plan.ranks.__getitem__))
        names = [str(name) for name in self.concept_names_]
        _check_scores(mean, names)
        self.cv_results_ = _results(candidates, scores, mean, names)
        best: Array = order[np.argmax(np.nan_to_num(mean[order], nan=-np.inf), axis=0)]
        if callable(self.refit):
            best = _check_places(self.refit(self.cv_results_), mean, names)
        self.best_index_ = best
        self.best_score_ = mean[self.best_index_, np.arange(mean.shape[1])]
        self.best_params_ = {
            name: candidates[i] for name, i in zip(names, self.best_index_, strict=True)
        }

    def _refit(self, plan: Plan, data: Data, split: Split) -> None:
        if not split.protocol:
            everything = np.arange(_num_samples(data.y))
            split = Split(everything, everything, everything, False)
        chosen = self.best_index_.tolist()
        self._winners: list[tuple[Any, list[dict[int, BaseDetector]]]] = []
        whole: dict[int, Any] = {}
        for group in plan.groups:
            winners = set(chosen).intersection(group.candidates)
            if not winners:
                continue
            head, detectors, _ = fit_group(plan.estimator, group, data, split)
            # Of one variant they differ in the threshold alone: concepts whose winners pool alike.
            alike = [
                {c: detectors[i] for c, i in enumerate(chosen) if i in variant.candidates}
                for variant in group.variants
            ]
            self._winners.append((head, [concepts for concepts in alike if concepts]))
            for i in winners:
                whole[i] = assemble(self.estimator, self.embedder_, head, detectors[i])
        self.best_estimators_ = {
            name: whole[i] for name, i in zip(self.best_params_, chosen, strict=True)
        }

    def _scored(self, X: Any) -> Iterator[tuple[dict[int, BaseDetector], TokenArray]]:
        """Yield detectors that pool alike, by the number of their concept, and what they read."""
        check_is_fitted(self)
        if not hasattr(self, "best_estimators_"):
            raise AttributeError("ConceptSearchCV(refit=False) keeps no estimator to predict with.")
        if self.embedder_ is not None:
            X = self._embed(X, sorted({head[0].layer_ for head, _ in self._winners}))
        for head, alike in self._winners:
            scores = X if head is None else head.transform(X)
            tokens = check_tokens(next(iter(alike[0].values())), scores, reset=False)
            for detectors in alike:
                yield detectors, tokens

    def decision_function(self, X: Any) -> Array:
        """Pooled score minus threshold, each concept by its winner; positive where found.

        Of more than two classes the log-odds instead, which compare them.

        Parameters
        ----------
        X : sequence of n_samples samples, TokenArray or LayerStack
            What the estimator takes.

        Returns
        -------
        decision : ndarray of shape (n_samples,) or (n_samples, n_concepts), dtype float64
            In units of the scores.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        AttributeError
            With ``refit=False``.
        ValueError, TypeError
            If X does not fit what was given to ``fit``.
        """
        check_is_fitted(self)
        say = BaseDetector.log_odds if self._has_many_classes else BaseDetector.decide
        return self._like_y(self._of_winners(X, say))

    def predict_proba(self, X: Any) -> Array:
        """Tell how probable concepts are, each concept by its winner.

        Parameters
        ----------
        X : sequence of n_samples samples, TokenArray or LayerStack
            What the estimator takes.

        Returns
        -------
        chances : ndarray of shape (n_samples, n_classes) or (n_samples, n_concepts), dtype float64
            Of the classes, summing to 1, or of each concept.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        AttributeError
            With ``refit=False``.
        ValueError, TypeError
            If X does not fit what was given to ``fit``.
        """
        return self._chances(self._of_winners(X, BaseDetector.probabilities))

    def _of_winners(self, X: Any, say: Callable[[BaseDetector, Array], Array]) -> Array:
        """Ask the winner of each concept about pooled scores: (n_samples, n_concepts)."""
        check_is_fitted(self)
        said: Array = np.empty((_num_samples(X), len(self.concept_names_)))
        for detectors, tokens in self._scored(X):
            pooled = next(iter(detectors.values())).pool(tokens)
            for c, detector in detectors.items():
                said[:, c] = say(detector, pooled)[:, c]
        return said

    def predict(self, X: Any) -> Array:
        """Tell which samples hold which concept, each concept by its winner.

        Parameters
        ----------
        X : sequence of n_samples samples, TokenArray or LayerStack
            What the estimator takes.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_concepts)
            Class labels (of more than two the most probable one), or 0 and 1 per concept.

        Raises
        ------
        NotFittedError, AttributeError, ValueError, TypeError
            Before ``fit`` or without ``refit``, or if X does not fit what was given to ``fit``.
        """
        return self._answers(self.decision_function(X))

    @available_if(_has_two_cuts)  # type: ignore[untyped-decorator]
    def predict_unsure(self, X: Any) -> Array:
        """Tell which samples hold which concept, which do not, and which may, by its winner.

        Parameters
        ----------
        X : sequence of n_samples samples, TokenArray or LayerStack
            What the estimator takes.

        Returns
        -------
        said : ndarray of shape (n_samples,) or (n_samples, n_concepts), dtype int64
            1, -1 and 0.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        AttributeError
            With ``refit=False``, or if the winner of a concept has one cut only.
        """
        said = self._of_winners(X, lambda detector, pooled: detector.unsure(pooled))
        return self._like_y(said.astype(np.int64))

    def superactivators(self, X: Any) -> TokenArray:
        """Mark the SuperActivators of each concept, by its winner.

        Parameters
        ----------
        X : sequence of n_samples samples, TokenArray or LayerStack
            What the estimator takes.

        Returns
        -------
        marks : TokenArray of shape (n_samples, n_concepts), dtype bool
            True at the SuperActivators, with the source of the scores where all winners read one.

        Raises
        ------
        NotFittedError, AttributeError, ValueError, TypeError
            Before ``fit`` or without ``refit``, or if X does not fit what was given to ``fit``.
        """
        marks: TokenArray | None = None
        sources = set()
        for detectors, tokens in self._scored(X):
            sources.add(tokens.source)
            if marks is None:
                shape = (tokens.n_tokens, len(self.concept_names_))
                marks = tokens.with_values(np.zeros(shape, bool), list(self.concept_names_))
            marks.values[:, list(detectors)] = _marks(detectors, tokens)
        assert marks is not None
        return marks.with_source(sources.pop() if len(sources) == 1 else None)

    def winners(self) -> Any:
        """Tell what won for each concept.

        Returns
        -------
        table : pandas.DataFrame
            A row for each concept, by its name: ``candidate``, the number in ``cv_results_``;
            ``mean_score`` and ``std_score`` over the folds; and each parameter that is searched,
            None where the winner does not set it.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ImportError
            If pandas is not installed.
        """
        check_is_fitted(self)
        pandas, results = need("pandas", "winners"), self.cv_results_
        params = sorted({key for candidate in results["params"] for key in candidate})
        rows = [
            {
                "candidate": int(i),
                "mean_score": results[f"mean_test_{name}"][i],
                "std_score": results[f"std_test_{name}"][i],
                **{key: self.best_params_[name].get(key) for key in params},
            }
            for name, i in zip(self.best_params_, self.best_index_, strict=True)
        ]
        return pandas.DataFrame(rows, index=pandas.Index(self.best_params_, name="concept"))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.input_tags, tags.target_tags = inner.input_tags, inner.target_tags
        tags.classifier_tags = inner.classifier_tags
        return tags


def _candidates(param_grid: Params | list[Params]) -> list[Params]:
    try:
        candidates = list(ParameterGrid(param_grid))
    except (TypeError, ValueError) as error:
        raise type(error)(f"param_grid is no grid: {error}") from error
    if not candidates:
        raise ValueError("param_grid holds no candidate.")
    return candidates


def _marks(detectors: dict[int, BaseDetector], tokens: TokenArray) -> Array:
    """SuperActivators (n_tokens, n_detectors) of one concept each, the key of its detector."""
    columns = np.array([one.matched_columns_[c] for c, one in detectors.items()])
    thresholds = np.array([one.thresholds_[c] for c, one in detectors.items()])
    return tokens.map(partial(_reach, columns=columns, thresholds=thresholds)).flat()


def _reach(scores: Array, columns: Array, thresholds: Array) -> Array:
    reached: Array = scores[:, columns] >= thresholds
    return reached


def _check_scores(mean: Array, names: list[str]) -> None:
    """Warn of candidates without a score, which cannot win; refuse if a concept has no other."""
    undefined = np.isnan(mean)
    for c in np.flatnonzero(undefined.all(axis=0)):
        raise ValueError(f"scoring gives NaN for every candidate of concept {names[c]!r}.")
    if undefined.any():
        worst = int(undefined.sum(axis=0).argmax())
        warn(
            f"scoring gives NaN for {undefined.sum()} of {undefined.size} pairs of a candidate and "
            f"a concept ({undefined[:, worst].sum()} of concept {names[worst]!r}); they cannot win."
        )


def _check_places(best: Any, mean: Array, names: list[str]) -> Array:
    """Check which candidate a rule names for each concept."""
    n_candidates = len(mean)
    try:
        places = np.asarray(best)
    except ValueError:  # lists of unequal length
        places = np.empty(0)
    if (
        places.shape != (len(names),)
        or places.dtype.kind not in "iu"
        or not ((places >= 0) & (places < n_candidates)).all()
    ):
        raise ValueError(
            f"refit must give the place of a candidate for each of {len(names)} concepts, integers "
            f"from 0 to {n_candidates - 1}; got {best!r}."
        )
    for c, place in enumerate(places):
        if np.isnan(mean[place, c]):
            raise ValueError(
                f"refit names candidate {place} for concept {names[c]!r}, whose score is NaN."
            )
    return places.astype(np.int64)


def _f1(y_true: Array, y_pred: Array, sample_weight: Array | None = None) -> float:
    return float(concept_f1(y_true.astype(bool), y_pred.astype(bool), sample_weight=sample_weight))


def _results(
    candidates: list[Params], scores: Array, mean: Array, names: list[str]
) -> dict[str, Any]:
    """Make ``cv_results_`` from scores (n_candidates, n_splits, n_concepts) and their means."""
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
        results[f"rank_test_{name}"] = rankdata(
            -np.nan_to_num(mean[:, c], nan=-np.inf), method="min"
        ).astype(np.int32)
    return results
