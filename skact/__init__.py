"""Find out whether and where a human concept is present in what a transformer sees.

Token activations flow through rooms of scikit-learn estimators: ``embedding`` turns raw text or
images into tokens, ``preprocessing`` scales them, ``concepts`` scores them, ``detection`` decides
per sample, ``localization`` says where, ``model_selection`` and ``metrics`` choose and judge. What
users need is importable from here; heavy libraries load with the first name that needs them.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "tokens": ["LayerStack", "Source", "TokenArray"],
    "validation": ["check_tokens"],
    "embedding": [
        "ActivationStore",
        "Patch",
        "Token",
        "TransformerEmbedder",
        "depth_to_block",
        "embed_to_store",
    ],
    "preprocessing": ["SelectLayer", "TokenScaler"],
    "concepts": [
        "DifferenceInMeans",
        "KMeansConcepts",
        "KMeansSeparator",
        "LinearSeparator",
        "MaxSeparator",
        "MeanPrototype",
        "NMFConcepts",
        "PCAConcepts",
        "SAEUnitFilter",
        "SemiNMFConcepts",
        "SparseAutoencoder",
        "elbow_curve",
    ],
    "detection": [
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
    ],
    "model_selection": ["ConceptSearchCV", "CrossFitTransformer"],
    "metrics": [
        "Interval",
        "bootstrap_interval",
        "keep_pairs",
        "pointing_game_score",
        "pointing_game_scorer",
        "token_average_precision_score",
        "token_average_precision_scorer",
        "token_f1_score",
        "token_f1_scorer",
        "token_iou_score",
        "token_iou_scorer",
        "weighted_f1_score",
    ],
    "inspection": ["LocalizationDisplay", "PatchHeatMapDisplay", "TokenHeatMapDisplay"],
    "localization": [
        "ConceptLocalizer",
        "FaithfulnessResult",
        "GlobalTarget",
        "LocalTarget",
        "deletion_curve",
        "faithfulness",
        "insertion_curve",
    ],
    "datasets": [
        "MaskFiles",
        "Span",
        "load_masks",
        "load_spans",
        "make_paragraphs",
        "make_shapes",
        "parse_tags",
        "shapes_model_path",
    ],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'skact' has no attribute {name!r}")
    return getattr(importlib.import_module(f"skact.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
