"""A fitted detector as a gate: an edit acts on tokens that speak for a concept by themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skact.concepts import DifferenceInMeans, LinearSeparator, MaxSeparator, MeanPrototype
from skact.detection import BaseDetector
from skact.steering._map import Gate
from skact.steering._origin import check_origin
from skact.steering._scalers import check_scalers, fold_scalers, token_steps
from skact.tokens import Source

__all__ = ["gate_of", "gate_source"]

_LINEAR = (DifferenceInMeans, LinearSeparator, MaxSeparator)


def gate_of(gate: Any, width: int, source: Source | None, name: str | None) -> Gate:
    """Make a gate of a fitted line that ends in a detector.

    Parameters
    ----------
    gate : Pipeline or FrozenEstimator
        Scalers, a concept method that scores by inner product or cosine, and a detector.
    width : int
        Features of a token.
    source : Source or None
        Where the tokens of the edit come from.
    name : str or None
        Concept of the edit.

    Returns
    -------
    gate : Gate
        It fires on a token whose score reaches the threshold of the detector.

    Raises
    ------
    ValueError
        If it is of another layer or width, or decides on other concepts.
    TypeError
        If a step is not affine, or there is no detector at its end.
    """
    steps = token_steps(gate)
    *scalers, method, detector = [None, *steps] if len(steps) == 1 else steps
    if not isinstance(detector, BaseDetector):
        raise TypeError(
            "gate must end in a detector, such as SuperActivator or MaxToken; it ends in "
            f"{type(detector).__name__}."
        )
    if not isinstance(method, (*_LINEAR, MeanPrototype)):
        raise TypeError(
            "gate must have a concept method that scores tokens by an inner product or a cosine "
            f"before its detector, got {type(method).__name__}."
        )
    check_scalers("gate", scalers)
    check_is_fitted(detector)
    check_origin("gate", steps[0], width, source)
    found = _plain(method, detector, _concept(detector, name))
    return fold_scalers(found, scalers)


def gate_source(edit: Any) -> Source | None:
    """Say where the raw tokens come from that the gate of an edit was fitted on, if it has one."""
    gate = getattr(edit, "gate", None)
    source = None if gate is None else getattr(token_steps(gate)[0], "source_", None)
    # Scaled as those of the edit are, and folded with it.
    return None if source is None else replace(source, scaling=None)


def _concept(detector: BaseDetector, name: str | None) -> int:
    known = [str(one) for one in detector.concept_names_]
    if name is None and len(known) == 1:
        return 0
    if name not in known:
        raise ValueError(
            f"gate decides on the concepts {known}, and the edit is about {name!r}; fit both on "
            "the same concepts, or say concept by its name."
        )
    return known.index(name)


def _plain(method: Any, detector: BaseDetector, concept: int) -> Gate:
    """Make the gate of tokens as the concept method reads them."""
    column = detector.matched_columns_[concept]
    threshold = float(detector.thresholds_[concept])
    vector = np.asarray(method.concept_vectors_[column], np.float64)
    if isinstance(method, MeanPrototype):
        unit = vector / (np.linalg.norm(vector) or 1.0)
        centre = np.zeros_like(vector)
        return Gate(unit[None], np.zeros(1), centre=centre, cosine=threshold)
    return Gate(vector[None], np.array([-threshold]))
