"""Looking at activations; nothing here changes them."""

from skact.inspection._heat_maps import PatchHeatMapDisplay, TokenHeatMapDisplay

__all__ = ["PatchHeatMapDisplay", "TokenHeatMapDisplay"]
