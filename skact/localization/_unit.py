"""What one player of a sample is made of: one token, or a group of tokens.

A group is taken away as a whole, and its attribution is that of each of its tokens. So a budget of
masks that is too small for the patches of an image says something about fewer, larger players.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import mode

from skact.extras import need
from skact.rows import Array

__all__ = ["UNITS", "Unit", "cells", "superpixels"]

#: Units by modality.
UNITS = {"image": ("token", "grid", "segments"), "text": ("token", "word")}


@dataclass(frozen=True)
class Unit:
    """What is one player.

    Parameters
    ----------
    name : {"token", "word", "grid", "segments"}, default="token"
        Tokens and patches; runs of characters without white space; squares of patches;
        superpixels.
    cell_size : int, default=2
        Patches along each side of a square.
    n_segments : int, default=50
        Superpixels that are asked for.

    Raises
    ------
    ValueError
        If there is no such unit.
    """

    name: str = "token"
    cell_size: int = 2
    n_segments: int = 50

    def __post_init__(self) -> None:
        known = tuple(dict.fromkeys(name for names in UNITS.values() for name in names))
        if self.name not in known:
            raise ValueError(f"unit must be one of {known}, got {self.name!r}.")

    def check(self, modality: str) -> None:
        """Refuse units of texts for images, and the reverse."""
        if self.name not in UNITS[modality]:
            raise ValueError(
                f"unit={self.name!r} is not for {modality}s; use one of {UNITS[modality]}."
            )


def cells(n_rows: int, n_columns: int, size: int) -> Array:
    """Squares of patches, counted row by row; those at the right and lower edge may be smaller.

    Parameters
    ----------
    n_rows, n_columns : int
        The grid of patches.
    size : int
        Patches along each side of a square.

    Returns
    -------
    players : ndarray of shape (n_rows * n_columns,), dtype int64
        Square of each patch.

    Raises
    ------
    ValueError
        If the square is larger than the grid.
    """
    if size > min(n_rows, n_columns):
        raise ValueError(
            f"cell_size={size} is larger than the grid of {n_rows} x {n_columns} patches; use "
            f"{min(n_rows, n_columns)} or less."
        )
    rows, columns = np.arange(n_rows) // size, np.arange(n_columns) // size
    return (rows[:, None] * -(-n_columns // size) + columns).ravel()


def superpixels(pixels: Array, n_rows: int, n_columns: int, n_segments: int) -> Array:
    """Superpixels of the colours that a model is shown, by SLIC of scikit-image [1]_.

    A patch belongs to the superpixel that holds most of its pixels.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, n_channels)
        What lies under the patches, on any scale.
    n_rows, n_columns : int
        The grid of patches.
    n_segments : int
        Superpixels that are asked for. There may be a few more; one that is most of no patch is
        left out.

    Returns
    -------
    players : ndarray of shape (n_rows * n_columns,), dtype int64
        Superpixel of each patch.

    Raises
    ------
    ImportError
        If scikit-image is not installed.

    References
    ----------
    .. [1] R. Achanta, A. Shaji, K. Smith, A. Lucchi, P. Fua and S. Süsstrunk, "SLIC Superpixels
       Compared to State-of-the-Art Superpixel Methods", TPAMI 2012.
    """
    what = 'unit="segments" (superpixels of scikit-image)'
    slic = need("skimage.segmentation", what).slic
    colours = pixels.astype(np.float64) - pixels.min()
    colours /= max(colours.max(), np.finfo(np.float64).tiny)
    segments = slic(colours, n_segments=n_segments, start_label=0, channel_axis=-1)
    blocks = segments.reshape(n_rows, -1, n_columns, segments.shape[1] // n_columns)
    most = mode(blocks.swapaxes(1, 2).reshape(n_rows * n_columns, -1), axis=1).mode
    return np.unique(most, return_inverse=True)[1]
