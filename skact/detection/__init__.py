"""Detectors: from scores of tokens to present or not, per sample and concept."""

from skact.detection._base import BaseDetector
from skact.detection._calibration import LabelledScores, PooledScores, Reference, TopScores
from skact.detection._detectors import (
    LastToken,
    MaxToken,
    MeanToken,
    RandomToken,
    SuperActivator,
    WeakSuperActivator,
)
from skact.detection._marks import ask_detector, superactivators
from skact.detection._windows import TopWindows

__all__ = [
    "LabelledScores",
    "PooledScores",
    "Reference",
    "TopScores",
    "BaseDetector",
    "LastToken",
    "MaxToken",
    "MeanToken",
    "RandomToken",
    "SuperActivator",
    "TopWindows",
    "WeakSuperActivator",
    "ask_detector",
    "superactivators",
]
