"""Looking at activations; nothing here changes them."""

from skact.inspection._heat_maps import PatchHeatMapDisplay, TokenHeatMapDisplay
from skact.inspection._localization import LocalizationDisplay

__all__ = ["LocalizationDisplay", "PatchHeatMapDisplay", "TokenHeatMapDisplay"]
