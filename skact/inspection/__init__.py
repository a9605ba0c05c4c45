"""Looking at activations; nothing here changes them."""

from skact.inspection._heat_maps import PatchHeatMapDisplay, TokenHeatMapDisplay
from skact.inspection._localization import LocalizationDisplay
from skact.inspection._reading import find_concept

__all__ = ["LocalizationDisplay", "PatchHeatMapDisplay", "TokenHeatMapDisplay", "find_concept"]
