"""The choice of a line for each concept, by cross-validation.

Every head (a layer, scaled, and a concept method) is fitted once per fold, and scores the samples
of that fold. On these out-of-fold scores a :class:`~skact.ConceptSearchCV` compares heads and
detectors for each concept, with the same folds. Thresholds come from all out-of-fold scores,
vectors from all samples.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sklearn import clone, config_context
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import Pipeline

from skact.concepts import DifferenceInMeans, LinearSeparator, MaxSeparator
from skact.detection import TopWindows
from skact.metrics import (
    Interval,
    all_positive_f1_score,
    bootstrap_interval,
    tpr_at_fpr_score,
    weighted_f1_score,
)
from skact.model_selection import ConceptSearchCV, CrossFitTransformer, make_folds
from skact.pooling import longest_window
from skact.preprocessing import SelectLayer, TokenScaler
from skact.rows import Array
from skact.targets import rarest_concepts
from skact.tokens import LayerStack, TokenArray
from skact.warning import warn

__all__ = [
    "DETECTORS",
    "METHODS",
    "Choice",
    "choose",
    "concept_folds",
    "splits_among",
    "warn_of_floor",
]

#: Concept methods that are compared.
METHODS = (
    DifferenceInMeans(whiten=True),
    LinearSeparator(),
    MaxSeparator(tol=1e-4),
    MaxSeparator(weight_decay=1e-4, tol=1e-4),
)
#: Pools that are compared, from the largest token to the mean of all, each with one cut.
DETECTORS = tuple(
    TopWindows(None, window=window, top=top, share=share, cut="expected_f1")
    for window, top, share in ((1, 1, None), (4, 1, None), (1, 1, 0.1), (1, 1, 0.5), (1, 1, 1.0))
)


@dataclass(frozen=True)
class Choice:
    """What was chosen for concepts of which the same samples are known.

    Parameters
    ----------
    heads : list of Pipeline
        What turns layers into scores, fitted on all samples: of each candidate.
    search : ConceptSearchCV
        Chooses a head and a detector for each concept, from a stack of the scores of all heads.
    results : list of dict
        What is known of each winner.
    """

    heads: list[Pipeline]
    search: ConceptSearchCV
    results: list[dict[str, Any]]

    @property
    def winners(self) -> list[int]:
        """Number of the head of each concept."""
        return [params["head__layer"] for params in self.search.best_params_.values()]

    def detectors(self) -> list[tuple[int, TopWindows]]:
        """Head and detector of each concept."""
        fitted = [pipe[-1] for pipe in self.search.best_estimators_.values()]
        return list(zip(self.winners, fitted, strict=True))

    @property
    def blocks(self) -> list[int]:
        """Layers that the winners read."""
        return sorted({self.heads[h][0].layer_ for h in self.winners})

    def scores(self, layers: LayerStack) -> LayerStack:
        """Scores by the heads that won, numbered as in the search."""
        return LayerStack({h: self.heads[h].transform(layers) for h in sorted(set(self.winners))})


def concept_folds(
    y: Array,
    names: list[str],
    groups: Any,
    *,
    cv: Any,
    random_state: Any,
    located: Array | None = None,
) -> list[tuple[Array, Array]]:
    """Make folds over which the positives of rare concepts are spread.

    Parameters
    ----------
    y : ndarray of shape (n_samples, n_concepts), dtype int64
        Labels of samples.
    names : list of str
        Names of the concepts.
    groups : array-like of shape (n_samples,) or None
        Samples that stay together.
    cv, random_state : as in ConceptDetector
        Folds, and how they are drawn.
    located : ndarray of shape (n_samples, n_concepts), dtype bool, default=None
        Where tokens are labelled; None where none are.

    Returns
    -------
    folds : list of (ndarray of int, ndarray of int)
        Rows to fit on, rows to score.

    Raises
    ------
    ValueError
        If a concept has fewer than two samples on one side, or none where one fold is left out,
        or no labelled token there.
    """
    for c, name in enumerate(names):
        for what, label in (("with", 1), ("without", 0)):
            if (n := int((y[:, c] == label).sum())) < 2:
                raise ValueError(
                    f"cv needs at least 2 samples {what} concept {name!r}, got {n} of {len(y)} "
                    "that are known."
                )
    rarest = rarest_concepts(y == 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")
        folds = make_folds(cv, rarest, groups, len(y), shuffle=True, random_state=random_state)
    for k, (train, _) in enumerate(folds):
        for what, label in (("with", 1), ("without", 0)):
            lacking = np.flatnonzero(~(y[train] == label).any(axis=0))
            if len(lacking):
                together = "" if groups is None else ", since groups keeps them together"
                raise ValueError(
                    f"all samples {what} concept {names[lacking[0]]!r} are in fold {k + 1} of "
                    f"{len(folds)}{together}; without that fold nothing can be learnt of it."
                )
        if located is not None and not (there := located[train].any(axis=0)).all():
            raise ValueError(
                f"without fold {k + 1} of {len(folds)} no token is labelled with concept "
                f"{names[there.argmin()]!r}: spans or masks may lie where the model does not look, "
                "behind its last token or in what is cropped."
            )
    return folds


def splits_among(
    splits: list[tuple[Array, Array]], rows: Array, n_samples: int
) -> list[tuple[Array, Array]]:
    """Say splits of all samples of some rows alone, by their places there.

    Parameters
    ----------
    splits : list of (ndarray of int, ndarray of int)
        Rows to fit on, rows to score.
    rows : ndarray of int
        Which samples remain.
    n_samples : int
        Number of all samples.

    Returns
    -------
    splits : list of (ndarray of int, ndarray of int)
        Places in ``rows``.
    """
    places = np.full(n_samples, -1)
    places[rows] = np.arange(len(rows))
    pairs = [(places[train], places[test]) for train, test in splits]
    return [(train[train >= 0], test[test >= 0]) for train, test in pairs]


def choose(
    layers: LayerStack,
    labels: TokenArray,
    y: Array,
    folds: list[tuple[Array, Array]],
    *,
    located: bool = True,
    weight: Array | None = None,
    seed: int,
    n_jobs: int | None,
) -> Choice:
    """Compare all heads and detectors, and fit the winner of each concept.

    It has the best F1 in cross-validation. Where no token is labelled, it is the best
    :class:`MaxSeparator`, unless another is better by more than a standard error of the folds:
    the others take all tokens of a sample for the concept, and learn what else its samples share,
    such as their style, which folds of the same samples cannot tell.

    Parameters
    ----------
    layers : LayerStack
        Tokens.
    labels : TokenArray of bool
        Their labels, with the names of the concepts.
    y : ndarray of shape (n_samples, n_concepts), dtype int64
        Labels of samples.
    folds : list of (ndarray of int, ndarray of int)
        From :func:`concept_folds`.
    located : bool, default=True
        Whether tokens are labelled; else the labels are those of their samples.
    weight : ndarray of shape (n_samples,), default=None
        How often each sample counts, above 0.
    seed : int
        Of the bootstrap.
    n_jobs : int or None
        Fits at a time.

    Returns
    -------
    choice : Choice
        Fitted.
    """
    heads: list[Pipeline] = []
    scores: dict[int, TokenArray] = {}
    with config_context(enable_metadata_routing=True):
        for block in layers.layers:
            for method in METHODS:
                scale, concepts = TokenScaler(), clone(method)
                if weight is not None:
                    for step in (scale, concepts):
                        step.set_fit_request(sample_weight=True)
                head = Pipeline(
                    [("layer", SelectLayer(block)), ("scale", scale), ("concepts", concepts)]
                )
                crossed = CrossFitTransformer(head, cv=folds, n_jobs=n_jobs)
                seen = crossed.fit_transform(layers, y, token_labels=labels, sample_weight=weight)
                # Each fold was scaled in its own way, and what is to come in another one.
                scores[len(heads)] = seen.with_source(None)
                heads.append(crossed.estimator_)
    longest = longest_window(labels)
    detectors = [detector for detector in DETECTORS if detector.window <= longest]
    names = [str(name) for name in labels.feature_names or ()]
    search = ConceptSearchCV(
        Pipeline([("head", SelectLayer()), ("detect", detectors[0])]),
        {"head__layer": list(scores), "detect": detectors},
        cv=folds,
        refit=located or partial(_unless_better, names=names, n_folds=len(folds)),
        n_jobs=n_jobs,
    )
    choice = Choice(heads, search, [])
    with warnings.catch_warnings():
        # Candidates that say nothing of a concept are there to be beaten.
        warnings.filterwarnings("ignore", ".*on average no higher")
        search.fit(LayerStack(scores), y, token_labels=labels, sample_weight=weight)
        search.refit = True  # what won is fitted, and a file keeps no function
        best = search.best_index_.tolist()
        params = search.cv_results_["params"]
        found = {i: _decisions(params[i], scores, labels, y, weight, folds) for i in set(best)}
    for c, i in enumerate(best):
        choice.results.append(_result(choice, c, scores, y[:, c], found[i][:, c], weight, seed))
    return choice


def _unless_better(results: dict[str, Any], names: Sequence[str], n_folds: int) -> list[int]:
    """Name the best separator through a pool, unless more than a standard error is lost by it."""
    head = np.array([params["head__layer"] for params in results["params"]])
    # Of equals the earlier head, as in a search.
    order = np.argsort(head, kind="stable")
    pooled = np.array([isinstance(METHODS[h % len(METHODS)], MaxSeparator) for h in head[order]])
    winners = []
    for name in names:
        mean, std = (results[f"{what}_test_{name}"][order] for what in ("mean", "std"))
        through_pool = np.where(pooled, mean, -np.inf)
        best, first = mean.argmax(), through_pool.argmax()
        error = std[best] / np.sqrt(max(n_folds - 1, 1))
        winners.append(int(order[first if through_pool[first] >= mean[best] - error else best]))
    return winners


def _decisions(
    params: dict[str, Any],
    scores: dict[int, TokenArray],
    labels: TokenArray,
    y: Array,
    weight: Array | None,
    folds: list[tuple[Array, Array]],
) -> Array:
    """Decisions (n_samples, n_concepts) of one candidate on samples that it did not see."""
    seen, found = scores[params["head__layer"]], np.zeros(y.shape, bool)
    for train, test in folds:
        times = None if weight is None else weight[train]
        part = clone(params["detect"]).fit(seen[train], y[train], labels[train], times)
        found[test] = part.decide(part.pool(seen[test])) > 0
    return found


def _result(
    choice: Choice,
    c: int,
    scores: dict[int, TokenArray],
    truth: Array,
    found: Array,
    weight: Array | None,
    seed: int,
) -> dict[str, Any]:
    """Say what won for a concept, and how good it is on samples that it did not see."""
    head, detector = choice.detectors()[c]
    steps = choice.heads[head]
    pooled = detector.pool(scores[head])[:, detector.matched_columns_[c]]
    times = {"sample_weight": weight}
    gain = _gain(truth, found, weight, seed)
    return {
        "concept": str(choice.search.concept_names_[c]),
        "layer": steps[0].layer_,
        "method": " ".join(repr(steps[-1]).split()),
        "pool": _pool(detector),
        "cut": detector.cut,
        "f1": weighted_f1_score(truth, found, **times),
        "floor": all_positive_f1_score(truth, **times),
        "gain": gain.estimate,
        "gain_low": gain.low,
        "gain_high": gain.high,
        "auroc": float(roc_auc_score(truth, pooled, **times)),
        "average_precision": float(average_precision_score(truth, pooled, **times)),
        "tpr_at_1_fpr": tpr_at_fpr_score(truth, pooled, sample_weight=weight),
        "n_positive": int(truth.sum()),
        "n_known": len(truth),
    }


def _gain(truth: Array, found: Array, weight: Array | None, seed: int) -> Interval:
    """F1 above the floor, paired."""
    return bootstrap_interval(
        truth, found, baseline=np.ones_like(truth), sample_weight=weight, random_state=seed
    )


def _pool(detector: TopWindows) -> str:
    """Name the pool of a detector in words."""
    if detector.share == 1:
        return "mean"
    which = f"top {detector.top}" if detector.share is None else f"top {detector.share:.0%}"
    window = "" if detector.window == 1 else f" of windows of {detector.window}"
    return f"max{window}" if which == "top 1" else f"{which}{window}"


def warn_of_floor(rows: Sequence[Mapping[str, Any]]) -> None:
    """Warn of concepts that are not told from saying yes to everything.

    Parameters
    ----------
    rows : sequence of mapping
        Of ``results_``: the figures of a concept by name.
    """
    poor = [row for row in rows if not row["gain_low"] > 0]
    if poor:
        told = ", ".join(
            f"{row['concept']!r} (F1 {row['f1']:.3f}, floor {row['floor']:.3f}, gain "
            f"{row['gain']:.3f} [{row['gain_low']:.3f}, {row['gain_high']:.3f}], "
            f"{row['n_positive']} positives)"
            for row in poor[:3]
        )
        warn(
            f"{len(poor)} of {len(rows)} concepts are not told from saying yes to everything: "
            f"{told}{', ...' if len(poor) > 3 else ''}. More labelled samples, another model "
            "or other layers may help; results_ has the figures."
        )
