"""One cell of a table: a concept method, a detector, and what they decide on test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import Pipeline

from skact.concepts import (
    AutoencoderTraining,
    BaseConcepts,
    DifferenceInMeans,
    KMeansConcepts,
    KMeansSeparator,
    LinearSeparator,
    MaxSeparator,
    MeanPrototype,
    NMFConcepts,
    PCAConcepts,
    SemiNMFConcepts,
    SparseAutoencoder,
)
from skact.detection import (
    LastToken,
    MaxToken,
    MeanToken,
    RandomToken,
    SuperActivator,
    WeakSuperActivator,
)
from skact.inspection import depth_curve
from skact.metrics import tpr_at_fpr_score
from skact.model_selection import ConceptSearchCV
from skact.preprocessing import SelectLayer, TokenScaler
from skact.rows import Array
from skact.tail import DELTA_GRID, concept_f1
from skact.tokens import LayerStack, TokenArray

__all__ = [
    "CLS",
    "DETECTORS",
    "METHODS",
    "Problem",
    "cell",
    "cells",
    "check_units",
    "held_out_scores",
    "make_method",
    "ranking",
    "row",
    "search",
    "used",
]

SEED = 0
METHODS: dict[str, Any] = {
    "LinearSeparator": LinearSeparator(),
    "MeanPrototype": MeanPrototype(),
    "DifferenceInMeans": DifferenceInMeans(),
    "MaxSeparator": MaxSeparator(),
    "KMeansConcepts": KMeansConcepts(200, max_iter=20, random_state=SEED),
    "KMeansSeparator": KMeansSeparator(50, max_iter=20, random_state=SEED),
    "PCAConcepts": PCAConcepts(100),
    "SparseAutoencoder": SparseAutoencoder(
        128,
        "topk",
        k=8,
        training=AutoencoderTraining(max_epochs=3, batch_size=1024),
        random_state=SEED,
    ),
    "NMFConcepts": NMFConcepts(16, max_iter=30, random_state=SEED),
    "SemiNMFConcepts": SemiNMFConcepts(4, max_iter=30, random_state=SEED),
}
DETECTORS: dict[str, Any] = {
    "RandomToken": RandomToken(random_state=SEED),
    "LastToken": LastToken(),
    "MeanToken": MeanToken(),
    "MaxToken": MaxToken(),
    "SuperActivator": SuperActivator(),
    "WeakSuperActivator": WeakSuperActivator(),
    "Exact cut": WeakSuperActivator(objective="sample"),
}
# The CLS baseline sees one vector per sample, so every aggregator is the same.
CLS = "CLS"
# k-means on vectors of samples gets the paper's number of clusters; so do the other units.
N_UNITS_CLS = 50


@dataclass
class Problem:
    """A data set, embedded at several layers.

    Parameters
    ----------
    tokens, cls : LayerStack
        Activations of the tokens, and one vector of each sample.
    labels : TokenArray of shape (n_samples, n_concepts), dtype bool
        Labels of the tokens.
    y : ndarray of shape (n_samples, n_concepts)
        What samples hold.
    split : ndarray of shape (n_samples,)
        "train", "cal" or "test".
    names : list of str
        Of the concepts.
    """

    tokens: LayerStack
    cls: LayerStack
    labels: TokenArray
    y: Array
    split: Array
    names: list[str]

    def rows(self, split: str) -> Array:
        """Numbers of the samples of a split."""
        return np.flatnonzero(self.split == split)

    def part(self, rows: Array) -> Problem:
        """Take some of the samples."""
        tokens, cls, labels = self.tokens[rows], self.cls[rows], self.labels[rows]
        return Problem(tokens, cls, labels, self.y[rows], self.split[rows], self.names)


def make_method(name: str, parameters: Mapping[str, Any] | None = None) -> Any:
    """Concept method of :data:`METHODS`, with some parameters set otherwise.

    Parameters
    ----------
    name : str
        The method.
    parameters : mapping of str to object, default=None
        By name; a table sets parameters of the object that has the name.

    Returns
    -------
    method : estimator
        Not fitted.

    Raises
    ------
    ValueError
        If a parameter is not known (naming the nearest), or its value is none that it takes.
    """
    method = clone(METHODS[name])
    known = method.get_params()
    for key, value in _flat(parameters or {}):
        if key not in known:
            near = get_close_matches(key, known, 1, 0)[0] if known else None
            nearest = f"; the nearest is {near!r}" if near else ", nor any other"
            raise ValueError(f"{name} has no parameter {key!r}{nearest}.")
        method.set_params(**{key: value})
    for part in (method, *method.get_params(deep=False).values()):
        if isinstance(part, BaseEstimator):
            part._validate_params()
    return method


def _flat(parameters: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in parameters.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}__")
        else:
            yield prefix + key, value


def cells(name: str, detectors: list[str]) -> list[str]:
    """Detectors that are tried on a concept method, the vector of a sample at last."""
    # Sorting the tokens of every column for every concept takes too long for many units.
    labelled = isinstance(METHODS[name], BaseConcepts)
    return [d for d in detectors if labelled or d != "WeakSuperActivator"] + [CLS]


def used(name: str, kind: str, parameters: Mapping[str, Any] | None = None) -> Any:
    """Concept method for tokens, or for vectors of samples (CLS)."""
    method = make_method(name, parameters)
    if kind == CLS and not isinstance(method, BaseConcepts):
        return method.set_params(n_concepts=min(method.n_concepts, N_UNITS_CLS))
    return method


def check_units(name: str, parameters: Mapping[str, Any] | None, width: int, n_train: int) -> None:
    """Refuse more units than tokens have features, or samples of train give vectors.

    Parameters
    ----------
    name : str
        Of :data:`METHODS`.
    parameters : mapping of str to object or None
        As of :func:`make_method`.
    width : int
        Features of a token.
    n_train : int
        Samples of train.

    Raises
    ------
    ValueError
        If there are too many.
    """
    method = make_method(name, parameters)
    if isinstance(method, BaseConcepts):
        return
    if isinstance(method, PCAConcepts) and (method.n_concepts or 0) > width:
        raise ValueError(
            f"{name} has n_concepts={method.n_concepts}, and the model is {width} wide; set "
            f"methods.{name}.n_concepts."
        )
    n_units = used(name, CLS, parameters).n_concepts
    if n_units > n_train:
        raise ValueError(
            f"{name} finds {n_units} units in vectors of samples, and train has {n_train} samples; "
            f"set methods.{name}.n_concepts."
        )


def cell(name: str, detector: str, scores: LayerStack, problem: Problem) -> dict[str, Any]:
    """Choose on cal and decide on test; all of it as JSON holds it."""
    labels = None if detector == CLS else problem.labels
    by = MaxToken() if detector == CLS else DETECTORS[detector]
    found, predicted, decision = search(by, scores, problem, labels)
    truth = problem.y[problem.rows("test")]
    best = found.best_params_.values()
    depth = depth_curve(found)
    return {
        "method": name,
        "detector": detector,
        "layers": [int(params["layer__layer"]) for params in best],
        "deltas": [float(params["detect__delta"]) for params in best],
        "cal_f1": np.round(found.best_score_, 4).tolist(),
        "cal_f1_by_layer": {
            "layers": depth.layers.tolist(),
            "mean": np.round(depth.mean[0], 4).tolist(),
        },
        "test_f1": np.round(concept_f1(truth.astype(bool), predicted), 4).tolist(),
        "ranking": ranking(truth, decision),
        "predicted": predicted.astype(int).tolist(),
    }


def row(
    name: str, detectors: list[str], problem: Problem, parameters: Mapping[str, Any] | None = None
) -> Iterator[dict[str, Any]]:
    """Fill the cells of a concept method, one after the other."""
    scores: dict[str, LayerStack] = {}
    for detector in detectors:
        kind = CLS if detector == CLS else "tokens"
        if kind not in scores:
            on_vectors = kind == CLS
            stack = problem.cls if on_vectors else problem.tokens
            labels = None if on_vectors else problem.labels
            scores[kind] = held_out_scores(used(name, kind, parameters), stack, problem, labels)
        yield cell(name, detector, scores[kind], problem)


def held_out_scores(
    method: Any, stack: LayerStack, problem: Problem, labels: TokenArray | None
) -> LayerStack:
    """Scores of the samples in cal, then of those in test, at each layer."""
    train, held = problem.rows("train"), np.r_[problem.rows("cal"), problem.rows("test")]
    labelled = isinstance(method, BaseConcepts)
    scores = {}
    for layer in stack.layers:
        tokens = stack.layer(layer)
        scaler = TokenScaler().fit(tokens[train])
        first: Any = scaler.transform(tokens[train])
        rest: Any = scaler.transform(tokens[held])
        if isinstance(method, NMFConcepts):
            first, rest = first.map(_halves), rest.map(_halves)
        given = {"token_labels": labels[train]} if labelled and labels is not None else {}
        scores[layer] = method.fit(first, problem.y[train], **given).transform(rest)
    return LayerStack(scores)


def _halves(values: Array) -> Array:
    """Positive and negative parts side by side: features that are never negative."""
    return np.hstack([np.maximum(values, 0), np.maximum(-values, 0)])


def search(
    detector: Any, scores: LayerStack, problem: Problem, labels: TokenArray | None
) -> tuple[ConceptSearchCV, Array, Array]:
    """Let each concept choose on cal; the fitted search, its decisions and scores on test."""
    cal = problem.rows("cal")
    everything = np.arange(len(cal))
    deltas = (detector.delta,) if isinstance(detector, WeakSuperActivator) else DELTA_GRID
    found = ConceptSearchCV(
        Pipeline([("layer", SelectLayer()), ("detect", detector)]),
        {"layer__layer": scores.layers, "detect__delta": deltas},
        # Thresholds are set and compared on the same samples.
        cv=[(everything, everything)],
    )
    labels = None if labels is None else labels[cal]
    found.fit(scores[: len(cal)], problem.y[cal], token_labels=labels)
    test = scores[len(cal) :]
    return found, found.predict(test).astype(bool), found.decision_function(test)


def ranking(truth: Array, scores: Array) -> dict[str, float]:
    """Figures that need no cut, weighted by positives; of concepts that some samples hold."""
    truth, scores = (np.reshape(given, (len(truth), -1)) for given in (truth, scores))
    held = np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0))
    weights = truth[:, held].sum(axis=0)
    each = {"auroc": roc_auc_score, "average_precision": average_precision_score}
    figures = {
        name: np.average([score(truth[:, c], scores[:, c]) for c in held], weights=weights)
        for name, score in each.items()
    }
    figures["tpr_at_1_fpr"] = tpr_at_fpr_score(truth[:, held], scores[:, held])
    return {name: round(float(value), 4) for name, value in figures.items()}
