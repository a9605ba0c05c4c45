"""Concepts put together, compared, carried: rules, masks, heads, clean maps, spaces, drift."""

from skact.algebra._alignment import align_tokens
from skact.algebra._bias import concept_bias
from skact.algebra._bottleneck import ConceptBottleneckClassifier
from skact.algebra._denoising import rank_gaussian_filter, remove_interference
from skact.algebra._drift import activation_drift
from skact.algebra._embedding import ConceptualEmbedding
from skact.algebra._rules import ConceptRules
from skact.algebra._segmenter import ConceptSegmenter
from skact.algebra._sensitivity import concept_sensitivity, layer_consistency
from skact.algebra._space_map import ActivationSpaceMap

__all__ = [
    "ActivationSpaceMap",
    "ConceptBottleneckClassifier",
    "ConceptRules",
    "ConceptSegmenter",
    "ConceptualEmbedding",
    "activation_drift",
    "align_tokens",
    "concept_bias",
    "concept_sensitivity",
    "layer_consistency",
    "rank_gaussian_filter",
    "remove_interference",
]
