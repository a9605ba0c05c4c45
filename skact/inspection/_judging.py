"""Detectors judged at every layer and delta, on scores or in a fitted search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from skact.arguments import Such
from skact.detection import (
    BaseDetector,
    LastToken,
    MaxToken,
    MeanToken,
    RandomToken,
    SuperActivator,
)
from skact.inspection._analysis import Samples, read_samples, resample
from skact.model_selection import ConceptSearchCV
from skact.rows import Array
from skact.tail import concept_f1
from skact.tokens import LayerStack, TokenArray
from skact.validation import check_tokens

__all__ = ["ALL_DETECTORS", "DELTAS", "DETECTORS", "SOURCE", "Judged", "judge"]

SOURCE = Such(
    "a LayerStack(...) or TokenArray(...) of scores, or a fitted ConceptSearchCV(...)",
    lambda value: isinstance(value, LayerStack | TokenArray | ConceptSearchCV),
)


def _ascends(values: Any) -> bool:
    try:
        deltas = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        return False
    inside = deltas.ndim == 1 and deltas.size and ((deltas > 0) & (deltas < 1)).all()
    return bool(inside and (np.diff(deltas) > 0).all() and not np.iscomplexobj(values))


DELTAS = Such("numbers in (0, 1), ascending", _ascends)
DETECTORS = Such(
    "a dict of names to detectors",
    lambda value: (
        isinstance(value, Mapping)
        and len(value)
        and all(isinstance(k, str) and isinstance(v, BaseDetector) for k, v in value.items())
    ),
)
#: SuperActivator and its baselines on tokens.
ALL_DETECTORS: dict[str, BaseDetector] = {
    "SuperActivator": SuperActivator(),
    "MaxToken": MaxToken(),
    "MeanToken": MeanToken(),
    "LastToken": LastToken(),
    "RandomToken": RandomToken(random_state=0),
}


class Judged(NamedTuple):
    """F1 where layer and delta are chosen, and the decisions that F1 is read on.

    Parameters
    ----------
    layers, deltas, names : ndarray
        Names of the axes.
    f1 : ndarray of shape (n_layers, n_deltas, n_concepts)
        On the calibration samples.
    positive : ndarray of shape (n_concepts,)
        Samples that hold each concept.
    truth : ndarray of shape (n_samples, n_concepts), dtype bool, or None
        What the samples hold that F1 is read on. A search has none.
    decided : ndarray of shape (n_samples, n_layers, n_deltas, n_concepts), dtype bool, or None
        Decisions on them.
    """

    layers: Array
    deltas: Array
    names: Array
    f1: Array
    positive: Array
    truth: Array | None = None
    decided: Array | None = None

    def chosen(self, f1: Array) -> tuple[Array, Array]:
        """Layer and delta of each concept by F1 (..., n_layers, n_deltas, n_concepts)."""
        flat = np.swapaxes(f1, -3, -2).reshape(*f1.shape[:-3], -1, f1.shape[-1])
        delta, layer = np.divmod(flat.argmax(axis=-2), len(self.layers))
        return layer, delta

    def counts(self, n_resamples: int, random_state: Any) -> Array:
        """Draw resamples of the samples that F1 is read on."""
        if self.truth is None:
            return np.ones((1, 1), np.uint16)
        return resample(len(self.truth), n_resamples, random_state)

    def mean_f1(self, layer: Any, delta: Any, counts: Array) -> tuple[Array, Array]:
        """F1 of candidates (n_candidates, n_concepts), and its weighted mean in each resample."""
        c = np.arange(len(self.names))
        if self.truth is None or self.decided is None:
            f1 = self.f1[layer, delta, c]
            return f1, np.average(f1, axis=1, weights=self.positive)[None]
        f1, positive = _resampled_f1(self.truth, self.decided[:, layer, delta, c], counts)
        total = positive.sum(axis=1)
        mean = (f1 * positive[:, None]).sum(axis=2)
        return f1[0], mean / np.where(total > 0, total, np.nan)[:, None]

    def drawn_f1(self, counts: Array) -> Array:
        """F1 (1 + n_resamples, n_layers, n_deltas, n_concepts) in each resample."""
        if self.truth is None or self.decided is None:
            return self.f1[None]
        flat = self.decided.reshape(len(self.decided), -1, len(self.names))
        f1, _ = _resampled_f1(self.truth, flat, counts)
        return f1.reshape(-1, *self.f1.shape)


def _resampled_f1(truth: Array, decided: Array, counts: Array) -> tuple[Array, Array]:
    """F1 of decisions (n_samples, n_candidates, n_concepts) in each resample, and the positives."""
    # Double precision, as F1 itself, so that ties are the same.
    weights = counts.astype(np.float64)
    positive = weights @ truth
    f1 = np.zeros((len(counts), *decided.shape[1:]))
    for c, held in enumerate(truth.T):
        found = weights @ decided[:, :, c]
        both = weights[:, held] @ decided[held, :, c]
        either = positive[:, c, None] + found
        np.divide(2 * both, either, out=f1[:, :, c], where=either > 0)
    return f1, positive


def judge(
    scores: Any,
    y: Any,
    token_labels: Any,
    deltas: Any,
    detectors: Mapping[str, BaseDetector],
    calibration: Any = "all",
) -> dict[str, Judged]:
    """Judge detectors on scores, or read a search.

    Parameters
    ----------
    scores : LayerStack, TokenArray or ConceptSearchCV
        Scores, or a fitted search.
    y, token_labels : as in the analyses
        What samples hold; of scores only.
    deltas : array-like of shape (n_deltas,)
        Sparsities; of scores only.
    detectors : dict of str to detector
        By name; of scores only.
    calibration : array-like of shape (n_samples,), dtype bool, or "all"
        Samples that thresholds are set on, while F1 is read on the others; or the same ones for
        both.

    Returns
    -------
    judged : dict of str to Judged
        By name of the detector.

    Raises
    ------
    ValueError
        If something does not fit.
    """
    if isinstance(scores, ConceptSearchCV):
        if y is not None or token_labels is not None:
            raise ValueError(
                "y and token_labels must be None where scores is a search: its F1 are those of "
                "the samples it was fitted on."
            )
        detector = _last(scores.estimator)
        return {type(detector).__name__: _read_search(scores)}
    samples = read_samples(scores, y, token_labels, labelled=False)
    mask = _mask(calibration, len(samples.stack))
    without = np.flatnonzero(~samples.present[mask].any(axis=0))
    if len(without):
        raise ValueError(
            f"calibration holds no sample with concept {samples.names[without[0]]!r}, so it has no "
            "threshold; split the samples so that every concept is on both sides."
        )
    grid = np.asarray(deltas, np.float64)
    return {name: _judge_one(samples, mask, one, grid) for name, one in detectors.items()}


def _mask(calibration: Any, n_samples: int) -> Array:
    if isinstance(calibration, str) and calibration == "all":
        return np.ones(n_samples, bool)
    mask = np.asarray(calibration)
    if mask.dtype != bool or mask.shape != (n_samples,) or mask.all() or not mask.any():
        raise ValueError(
            f"calibration must be bool of shape ({n_samples},) with some but not all True: "
            "thresholds are set on these samples, F1 is read on the others; got "
            f"{repr(calibration)[:60]}."
        )
    return mask


def _judge_one(
    samples: Samples, calibration: Array, detector: BaseDetector, deltas: Array
) -> Judged:
    rest = calibration if calibration.all() else ~calibration
    present, labels = samples.present, samples.labels
    f1, decided = [], []
    for layer in samples.stack.layers:
        scores = samples.stack.layer(layer)
        try:
            path = detector.fit_path(
                scores[calibration],
                present[calibration].astype(np.int64),
                None if labels is None else labels[calibration],
                deltas=deltas,
            )
        except ValueError as error:
            raise ValueError(f"of the calibration samples in scores: {error}") from error
        on_cal, on_rest = (
            path[0].pool(check_tokens(path[0], scores[some], reset=False))
            for some in (calibration, rest)
        )
        f1.append([concept_f1(present[calibration], one.decide(on_cal) > 0) for one in path])
        decided.append([one.decide(on_rest) > 0 for one in path])
    truth = present[rest]
    return Judged(
        samples.layers,
        deltas,
        samples.names,
        np.array(f1),
        truth.sum(axis=0),
        truth,
        np.moveaxis(np.array(decided), 2, 0),
    )


def _read_search(search: ConceptSearchCV) -> Judged:
    """Read layers, deltas and F1 off a fitted search; the best of other settings counts."""
    results = getattr(search, "cv_results_", None)
    if results is None or not hasattr(search, "best_estimators_"):
        raise ValueError("scores is a search that is not fitted, or that has refit=False.")
    axes = []
    for name in ("layer", "delta"):
        keys = [k for k in results if k == f"param_{name}" or k.endswith(f"__{name}")]
        if len(keys) != 1:
            raise ValueError(
                f"scores is a search whose param_grid varies {len(keys)} parameters called "
                f"{name}; one is needed."
            )
        axes.append(np.unique(np.array(results[keys[0]].tolist()), return_inverse=True))
    (layers, at_layer), (deltas, at_delta) = axes
    names = search.concept_names_
    f1 = np.full((len(layers), len(deltas), len(names)), -np.inf)
    for c, name in enumerate(names):
        np.maximum.at(f1[:, :, c], (at_layer, at_delta), results[f"mean_test_{name}"])
    if not np.isfinite(f1).all():
        raise ValueError("scores is a search that has no F1 for some delta at some layer.")
    winners = [_last(search.best_estimators_[str(name)]) for name in names]
    positive = np.array([winner.n_positive_[c] for c, winner in enumerate(winners)])
    return Judged(layers, deltas, names, f1, positive)


def _last(estimator: Any) -> Any:
    return estimator[-1] if hasattr(estimator, "steps") else estimator
