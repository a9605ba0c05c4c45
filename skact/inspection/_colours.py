"""The colour maps that heat maps have by default; others come from matplotlib.

They are those of the same name there, so a page and a figure look alike.
"""

from __future__ import annotations

import numpy as np

from skact.extras import need
from skact.rows import Array

__all__ = ["colour"]

# The colours between which a map runs evenly; the first two maps are ColorBrewer's.
_MAPS = {
    "RdBu_r": "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f",
    "YlOrRd": "ffffcc ffeda0 fed976 feb24c fd8d3c fc4e2a e31a1c bd0026 800026",
    "gray": "000000 ffffff",
}
_N_LEVELS = 256


def colour(shade: Array, name: str) -> Array:
    """Give the colours of shades.

    Parameters
    ----------
    shade : ndarray of shape (n_shades,)
        Numbers in [0, 1].
    name : str
        The colour map.

    Returns
    -------
    colours : ndarray of shape (n_shades, 4), dtype float64
        Red, green, blue and opacity in [0, 1].

    Raises
    ------
    ValueError
        If there is no such map.
    ImportError
        If it is a map of matplotlib, which is not installed.
    """
    if name not in _MAPS:
        maps = need("matplotlib", f"the colour map {name!r}").colormaps
        if name not in maps:
            raise ValueError(f"cmap must name a colour map of matplotlib, got {name!r}.")
        return np.array(maps[name](shade), np.float64)
    anchors = np.array([list(bytes.fromhex(text)) for text in _MAPS[name].split()]) / 255
    level = np.clip(np.floor(shade * _N_LEVELS), 0, _N_LEVELS - 1) / (_N_LEVELS - 1)
    places = np.linspace(0, 1, len(anchors))
    channels = [np.interp(level, places, channel) for channel in anchors.T]
    return np.stack([*channels, np.ones(len(level))], axis=1)
