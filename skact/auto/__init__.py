"""One estimator from raw samples to decisions: the recommended line, chosen by cross-validation."""

from skact.auto._detector import ConceptDetector

__all__ = ["ConceptDetector"]
