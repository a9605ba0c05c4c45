"""One estimator from raw samples to decisions: the recommended line, chosen by cross-validation."""

from skact.auto._choice import Choice
from skact.auto._detector import ConceptDetector, Part
from skact.auto._encoder import ConceptEncoder, LabelColumn

__all__ = ["Choice", "ConceptDetector", "ConceptEncoder", "LabelColumn", "Part"]
