"""Detectors: from scores of tokens to present or not, per sample and concept."""

from skact.detection._base import BaseDetector
from skact.detection._detectors import (
    LastToken,
    MaxToken,
    MeanToken,
    RandomToken,
    SuperActivator,
    WeakSuperActivator,
)
from skact.detection._marks import superactivators

__all__ = [
    "BaseDetector",
    "LastToken",
    "MaxToken",
    "MeanToken",
    "RandomToken",
    "SuperActivator",
    "WeakSuperActivator",
    "superactivators",
]
