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
from skact.detection._prompt import Prompt, PromptDetector, parse_answer
from skact.detection._thresholds import DELTA_GRID, concept_f1, tail_threshold

__all__ = [
    "BaseDetector",
    "DELTA_GRID",
    "LastToken",
    "MaxToken",
    "MeanToken",
    "Prompt",
    "PromptDetector",
    "RandomToken",
    "SuperActivator",
    "WeakSuperActivator",
    "concept_f1",
    "parse_answer",
    "superactivators",
    "tail_threshold",
]
