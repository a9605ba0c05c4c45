"""The fixed list of classes that a file may name, and what of each goes into a file.

Nothing else is ever made of a file. Each class is known by the room that it is entered by.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

__all__ = ["DEFAULTS", "LEFT_OUT", "PRIVATE", "class_of", "name_of"]

_CLASSES = {
    "skact.algebra": (
        *("ActivationSpaceMap", "ConceptBottleneckClassifier", "ConceptRules", "ConceptSegmenter"),
        "ConceptualEmbedding",
    ),
    "skact.auto": ("Choice", "ConceptDetector", "ConceptEncoder", "LabelColumn", "Part"),
    "skact.concepts": (
        *("Adam", "AutoencoderTraining", "Descent", "DifferenceInMeans", "IsolatedConcepts"),
        "KMeansConcepts",
        *("KMeansSeparator", "LBFGS", "LinearSeparator", "MaxSeparator", "MeanPrototype"),
        *("Minibatch", "Moments", "MultiLayerAutoencoder", "NMFConcepts", "PCAConcepts"),
        *("SAEUnitFilter", "SeenTokens"),
        *("SemiNMFConcepts", "SparseAutoencoder", "TrainingState"),
    ),
    "skact.detection": (
        *("LastToken", "MaxToken", "MeanToken", "RandomToken", "SuperActivator", "TopWindows"),
        "WeakSuperActivator",
    ),
    "skact.embedding": ("TransformerEmbedder",),
    "skact.heads": ("HeadPursuit", "SimultaneousOMP"),
    "skact.localization": (
        *("CALM", "ConceptLocalizer", "DirectAlignment", "FullGrad", "GlobalTarget", "GradCAM"),
        *("IntegratedGradients", "KernelSHAP", "LIME", "LocalTarget", "MFABA", "RISE", "SHAPIQ"),
    ),
    "skact.model_selection": ("ConceptSearchCV", "CrossFitTransformer"),
    "skact.models": ("DetachedPair",),
    "skact.monitoring": ("Cascade",),
    "skact.preprocessing": (
        *("JoinLayers", "NormClip", "PositionContext", "SelectLayer", "TokenPooling"),
        "TokenScaler",
    ),
    "skact.prompting": ("DetachedModel", "PromptDetector"),
    "skact.steering": (
        *("Ablation", "ActivationTransport", "Addition", "AffineEdit", "LinearErasure"),
        *("MinimalNormEdit", "UnitEdit"),
    ),
    "skact.targets": ("Targets",),
    "skact.tokens": ("Source",),
    "sklearn.frozen": ("FrozenEstimator",),
    "sklearn.model_selection": (
        *("GroupKFold", "GroupShuffleSplit", "KFold", "LeaveOneGroupOut", "LeaveOneOut"),
        *("PredefinedSplit", "ShuffleSplit", "StratifiedGroupKFold", "StratifiedKFold"),
        *("StratifiedShuffleSplit", "TimeSeriesSplit"),
    ),
    "sklearn.pipeline": ("FeatureUnion", "Pipeline"),
}
_ROOMS = {f"{room}.{name}": room for room, names in _CLASSES.items() for name in names}

#: Parameters that belong to a machine, a session or to trust in somebody, with what they become.
DEFAULTS: dict[str, Any] = {
    "log": None,
    "memory": None,
    "progress": False,
    "store": None,
    "trust_remote_code": False,
    "verbose": False,
}
#: Fitted state without an underscore at its end that goes into a file.
PRIVATE = {
    *("_counts", "_encoder", "_known", "_labels", "_mean_square", "_parts", "_seen", "_state"),
    *("_sklearn_output_config", "_sums", "_winners"),
}
#: Fitted state that does not.
LEFT_OUT = {"_minibatch", "_skl_callbacks"}


@cache
def class_of(name: str) -> Any:
    """Return the class that a file names.

    Parameters
    ----------
    name : str
        As from :func:`name_of`.

    Returns
    -------
    cls : type
        The class; its room is imported.

    Raises
    ------
    ValueError
        If it is not on the list.
    """
    if name not in _ROOMS:
        raise ValueError(f"it names {name!r}, which is not on the list of classes of skact.load")
    return getattr(import_module(_ROOMS[name]), name.rpartition(".")[2])


def name_of(cls: Any) -> str | None:
    """Return the name of a class on the list, None of any other.

    Parameters
    ----------
    cls : type
        A class.

    Returns
    -------
    name : str or None
        Such as ``"skact.concepts.MeanPrototype"``.
    """
    for room, names in _CLASSES.items():
        inside = cls.__module__ == room or cls.__module__.startswith(f"{room}.")
        if inside and cls.__name__ in names and class_of(f"{room}.{cls.__name__}") is cls:
            return f"{room}.{cls.__name__}"
    return None
