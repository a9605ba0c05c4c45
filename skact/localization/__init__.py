"""Find where in a sample a concept is.

:class:`ConceptLocalizer` maps a concept over the tokens of a text or the patches of an image, by
one of ten attribution methods, towards a global or a local target; :func:`faithfulness` tells how
well a map explains what it maps. Importing this package loads neither torch nor captum nor shapiq;
the first use of a method that needs them does.
"""

from skact.localization._faithfulness import (
    Curve,
    FaithfulnessResult,
    deletion_curve,
    faithfulness,
    insertion_curve,
)
from skact.localization._game import Game
from skact.localization._game_methods import LIME, RISE, SHAPIQ, KernelSHAP
from skact.localization._interactions import Interactions, shapiq, shapley_interactions
from skact.localization._localizer import ConceptLocalizer
from skact.localization._method import AttributionMethod
from skact.localization._methods import (
    CALM,
    METHODS,
    MFABA,
    DirectAlignment,
    FullGrad,
    GradCAM,
    IntegratedGradients,
)
from skact.localization._perturbation import kernel_shap, lime, rise, rise_map
from skact.localization._targets import GlobalTarget, LocalTarget, Target
from skact.localization._unit import UNITS, Unit

__all__ = [
    "AttributionMethod",
    "CALM",
    "ConceptLocalizer",
    "Curve",
    "DirectAlignment",
    "FaithfulnessResult",
    "FullGrad",
    "Game",
    "GlobalTarget",
    "GradCAM",
    "IntegratedGradients",
    "Interactions",
    "KernelSHAP",
    "LIME",
    "LocalTarget",
    "METHODS",
    "MFABA",
    "RISE",
    "SHAPIQ",
    "Target",
    "UNITS",
    "Unit",
    "deletion_curve",
    "faithfulness",
    "insertion_curve",
    "kernel_shap",
    "lime",
    "rise",
    "rise_map",
    "shapiq",
    "shapley_interactions",
]
