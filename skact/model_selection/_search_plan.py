"""What a search fits: candidates in groups that share fits, and their order among equals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from skact.detection import BaseDetector
from skact.embedding import TransformerEmbedder
from skact.models import resolve_layers
from skact.preprocessing import SelectLayer

__all__ = ["Group", "Params", "Plan", "Variant", "configure", "detector_of", "make_plan"]

Params = dict[str, Any]


class Variant(NamedTuple):
    """Settings of a detector, with a candidate for each delta, or level, of one path."""

    params: Params
    along: str
    values: list[Any]
    candidates: list[int]


@dataclass(frozen=True)
class Group:
    """Candidates that share everything before the detector."""

    head: Params
    variants: list[Variant]

    @property
    def candidates(self) -> list[int]:
        """Numbers of the candidates, variant by variant."""
        return [i for variant in self.variants for i in variant.candidates]


@dataclass(frozen=True)
class Plan:
    """What is fitted, in which groups, and the order among equal candidates."""

    estimator: Any
    groups: list[Group]
    blocks: list[int]
    ranks: list[tuple[float, int, int]]


def detector_of(estimator: Any) -> BaseDetector:
    """Return the detector that an estimator ends in; a TypeError if there is none."""
    detector = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    if not isinstance(detector, BaseDetector):
        raise TypeError(
            "ConceptSearchCV needs an estimator that ends in a detector, got "
            f"{type(detector).__name__}."
        )
    return detector


def make_plan(
    estimator: Any, candidates: list[Params], stacked: list[int]
) -> tuple[TransformerEmbedder | None, Plan]:
    """Group the candidates; take the embedder out if the grid varies nothing but its layer.

    ``stacked`` are the blocks of X if it is a LayerStack, which a negative layer counts from.
    """
    configured = [configure(estimator, params) for params in candidates]
    detectors = [detector_of(one) for one in configured]
    for detector in detectors:
        detector._validate_params()
    layers = [_layer(one, stacked) for one in configured]
    embedder, blocks = _shared_embedder(estimator, candidates, configured), []
    if embedder is not None:
        name = estimator.steps[0][0]
        blocks = sorted(set(layers))
        estimator = Pipeline([(name, SelectLayer()), *estimator.steps[1:]])
        candidates = [
            {**params, f"{name}__layer": layer}
            for params, layer in zip(candidates, layers, strict=True)
        ]
    groups = _groups(estimator, candidates, detectors)
    deltas = [0.0 if one.delta is None else float(one.delta) for one in detectors]
    ranks = list(zip(deltas, layers, range(len(candidates)), strict=True))
    return embedder, Plan(estimator, groups, blocks, ranks)


def configure(estimator: Any, params: Params) -> Any:
    """Return a clone with these settings; steps of the grid are cloned, so that none is changed."""
    return clone(estimator).set_params(**clone(params, safe=False))


def _layer(estimator: Any, stacked: list[int]) -> Any:
    """Block that a configured estimator reads; 0 where it does not choose one."""
    steps = [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else []
    step = next((step for step in steps if hasattr(step, "layer")), None)
    if isinstance(step, TransformerEmbedder):
        return resolve_layers(step.layer, step.n_blocks)[0][0]
    layer = getattr(step, "layer", 0)
    is_number = isinstance(layer, int | np.integer)
    return stacked[layer] if is_number and -len(stacked) <= layer < 0 else layer


def _shared_embedder(
    estimator: Any, candidates: list[Params], configured: list[Any]
) -> TransformerEmbedder | None:
    if not isinstance(estimator, Pipeline):
        return None
    name, first = estimator.steps[0]
    layers = [one.steps[0][1].layer for one in configured if hasattr(one.steps[0][1], "layer")]
    if any(np.ndim(layer) for layer in layers):  # a stack, of which no step takes one layer
        return None
    keys = {key for params in candidates for key in params} - {f"{name}__layer"}
    untouched = not any(key == name or key.startswith(f"{name}__") for key in keys)
    return first if isinstance(first, TransformerEmbedder) and untouched else None


def _groups(estimator: Any, candidates: list[Params], detectors: list[BaseDetector]) -> list[Group]:
    last = estimator.steps[-1][0] if isinstance(estimator, Pipeline) else None
    groups: dict[Any, tuple[Params, dict[Any, Variant]]] = {}
    for i, params in enumerate(candidates):
        of_detector = {
            key for key in params if last is None or key == last or key.startswith(f"{last}__")
        }
        head = {key: value for key, value in params.items() if key not in of_detector}
        along = detectors[i].path_parameter
        own = {
            key: params[key]
            for key in of_detector - {along if last is None else f"{last}__{along}"}
        }
        _, variants = groups.setdefault(_identity(head), (head, {}))
        variant = variants.setdefault(_identity(own), Variant(own, along, [], []))
        variant.values.append(getattr(detectors[i], along))
        variant.candidates.append(i)
    return [Group(head, list(variants.values())) for head, variants in groups.values()]


def _identity(params: Params) -> Any:
    """Tell settings apart; a grid hands out the same object for the same setting.

    The layers 1 and 1.0 are different ones, so equal values of unlike types are told apart.
    """
    return tuple(
        (key, type(value), value if isinstance(value, int | float | str) else id(value))
        for key, value in sorted(params.items())
    )
