"""Edits of activations: of tokens as estimators, and of live models."""

from skact.steering._bake import bake_edit, export_vectors
from skact.steering._directions import Ablation, Addition, AffineEdit, MinimalNormEdit
from skact.steering._edit import BaseEdit
from skact.steering._erasure import LinearErasure
from skact.steering._live import steer
from skact.steering._map import EditMap, Gate
from skact.steering._report import steering_report
from skact.steering._transport import ActivationTransport
from skact.steering._unit import UnitEdit

__all__ = [
    "Ablation",
    "ActivationTransport",
    "Addition",
    "AffineEdit",
    "BaseEdit",
    "EditMap",
    "Gate",
    "LinearErasure",
    "MinimalNormEdit",
    "UnitEdit",
    "bake_edit",
    "export_vectors",
    "steer",
    "steering_report",
]
