"""Looking at activations; nothing here changes them."""

from skact.inspection._depth import (
    BestLayersDisplay,
    BestSparsityDisplay,
    DepthCurveDisplay,
    SparsityCurveDisplay,
    best_layers,
    best_sparsity,
    depth_curve,
    sparsity_curve,
)
from skact.inspection._distributions import (
    CoverageDisplay,
    ScoreDistributionsDisplay,
    SeparabilityDisplay,
    coverage,
    score_distributions,
    separability,
)
from skact.inspection._drift import DriftDisplay
from skact.inspection._dynamics import DynamicsDisplay
from skact.inspection._head_scores import HeadScoresDisplay
from skact.inspection._heat_maps import PatchHeatMapDisplay, TokenHeatMapDisplay, outline_of
from skact.inspection._html import document, escaped, text_pieces
from skact.inspection._intervals import IntervalsDisplay, picture
from skact.inspection._layer_maps import LayerHeatMapDisplay
from skact.inspection._lines import Reading, is_of_one, lines_of, read_concepts, through
from skact.inspection._localization import LocalizationDisplay
from skact.inspection._positions import (
    SuperActivatorCountsDisplay,
    SuperActivatorPositionsDisplay,
    superactivator_counts,
    superactivator_positions,
)
from skact.inspection._reading import find_concept, flat_chat
from skact.inspection._samples import SamplesDisplay
from skact.inspection._steering import SteeringDisplay

__all__ = [
    "BestLayersDisplay",
    "BestSparsityDisplay",
    "CoverageDisplay",
    "DepthCurveDisplay",
    "DriftDisplay",
    "DynamicsDisplay",
    "HeadScoresDisplay",
    "IntervalsDisplay",
    "LayerHeatMapDisplay",
    "LocalizationDisplay",
    "PatchHeatMapDisplay",
    "Reading",
    "SamplesDisplay",
    "ScoreDistributionsDisplay",
    "SeparabilityDisplay",
    "SparsityCurveDisplay",
    "SteeringDisplay",
    "SuperActivatorCountsDisplay",
    "SuperActivatorPositionsDisplay",
    "TokenHeatMapDisplay",
    "best_layers",
    "best_sparsity",
    "coverage",
    "depth_curve",
    "document",
    "escaped",
    "find_concept",
    "flat_chat",
    "is_of_one",
    "lines_of",
    "outline_of",
    "picture",
    "read_concepts",
    "score_distributions",
    "separability",
    "sparsity_curve",
    "superactivator_counts",
    "superactivator_positions",
    "text_pieces",
    "through",
]
