"""Fit and score the candidates of a search on one fold."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any, NamedTuple

import numpy as np
from sklearn import config_context
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils._indexing import _safe_indexing
from sklearn.utils.validation import has_fit_parameter

from skact.arguments import check_sample_weight
from skact.base import steps_of
from skact.detection import BaseDetector
from skact.embedding import TransformerEmbedder
from skact.model_selection._folds import consumed, make_folds
from skact.model_selection._search_plan import Group, configure, detector_of
from skact.rows import Array
from skact.validation import check_tokens

__all__ = ["Data", "Metric", "Split", "assemble", "evaluate", "fit_group", "make_splits"]

Metric = Callable[..., float]


class Data(NamedTuple):
    """Samples with their targets, labels of tokens, groups, and weights."""

    X: Any
    y: Any
    token_labels: Any
    groups: Any
    sample_weight: Any

    def rows(self, rows: Array) -> Data:
        """Take samples, with what belongs to them."""
        return Data(*(None if part is None else _safe_indexing(part, rows) for part in self))


class Split(NamedTuple):
    """Rows for the steps before the detector, for the detector, and for scoring.

    By the protocol the last two are the calibration split, else the first two are a training part.
    """

    head: Array
    detector: Array
    score: Array
    protocol: bool


def make_splits(cv: Any, y: Any, groups: Any, n_samples: int) -> list[Split]:
    """Make one split per fold, or the one of the protocol if ``cv`` marks a calibration split."""
    if isinstance(cv, np.ndarray) and cv.dtype == bool:
        if cv.shape != (n_samples,) or cv.all() or not cv.any():
            raise ValueError(
                f"cv as a calibration split must be bool of shape ({n_samples},) with some but "
                f"not all True; got shape {cv.shape} with {int(cv.sum())} True."
            )
        cal = np.flatnonzero(cv)
        return [Split(np.flatnonzero(~cv), cal, cal, True)]
    folds = make_folds(cv, y, groups, n_samples)
    return [Split(train, train, test, False) for train, test in folds]


def fit_group(
    estimator: Any, group: Group, data: Data, split: Split
) -> tuple[Pipeline | None, dict[int, BaseDetector], Any]:
    """Fit what the candidates of a group share, and on the scores it gives a detector of each.

    The steps before the detector (None if there are none), the detectors by candidate, the scores.
    """
    configured = configure(estimator, group.head)
    has_head = isinstance(configured, Pipeline) and len(configured.steps) > 1
    head = Pipeline(configured.steps[:-1]) if has_head else None
    calibration = data.rows(split.detector)
    scores = calibration.X
    if head is not None:
        if data.sample_weight is not None:
            _check_they_say(head)
        first = data.rows(split.head) if split.protocol else calibration
        with config_context(enable_metadata_routing=True):
            # Without routing, only labels named step by step would reach the steps.
            method = "fit" if split.protocol else "fit_transform"
            there = dict(zip(Data._fields[2:], first[2:], strict=True))
            there = {name: value for name, value in there.items() if value is not None}
            wanted = consumed(head, method, list(there))
            made = getattr(head, method)(first.X, first.y, **{n: there[n] for n in wanted})
        scores = head.transform(calibration.X) if split.protocol else made
    detectors: dict[int, BaseDetector] = {}
    for variant in group.variants:
        detector = detector_of(configure(configured, variant.params))
        path = detector.fit_path(
            scores,
            calibration.y,
            calibration.token_labels,
            sample_weight=calibration.sample_weight,
            **{f"{variant.along}s": variant.values},
        )
        detectors.update(zip(variant.candidates, path, strict=True))
    return head, detectors, scores


def _weighs(metric: Metric) -> bool:
    try:
        return "sample_weight" in signature(metric).parameters
    except ValueError:  # written in C
        return False


def _check_they_say(head: Pipeline) -> None:
    """Refuse steps that may want weights of samples and do not say so: they would get none."""
    for step in steps_of(head, ()):
        if not has_fit_parameter(step, "sample_weight"):
            continue
        if step.get_metadata_routing().fit.requests.get("sample_weight") is None:
            raise ValueError(
                f"{type(step).__name__} can weigh samples, and does not say whether it wants to: "
                "call its set_fit_request(sample_weight=True), or False."
            )


def evaluate(
    estimator: Any,
    group: Group,
    data: Data,
    present: Array,
    split: Split,
    metric: Metric,
    fold: str,
) -> tuple[list[int], Array, BaseDetector]:
    """Score each candidate of a group for each concept on one fold."""
    scored = data.rows(split.score)
    weight: dict[str, Array] = {}
    try:
        if scored.sample_weight is not None and _weighs(metric):
            weight["sample_weight"] = check_sample_weight(scored.sample_weight, len(split.score))
        head, detectors, scores = fit_group(estimator, group, data, split)
    except ValueError as error:
        raise ValueError(f"in {fold} of the search: {error}") from error
    if not split.protocol:
        scores = scored.X if head is None else head.transform(scored.X)
    truth = present[split.score].astype(np.int64)
    values = []
    for variant in group.variants:
        first = detectors[variant.candidates[0]]
        pooled = first.pool(check_tokens(first, scores, reset=False))
        for i in variant.candidates:
            found = (detectors[i].decide(pooled) > 0).astype(np.int64)
            pairs = zip(truth.T, found.T, strict=True)
            values.append([metric(t, f, **weight) for t, f in pairs])
    return group.candidates, np.array(values), first


def assemble(
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
