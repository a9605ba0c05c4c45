"""What of an image a model is shown, and how large.

Two framings have the same methods. :class:`ProcessorFraming` leaves it to the image processor,
which may cut the sides off. :class:`WholeFraming` shows all of the image in about as many patches
as the processor makes, for models that take images of any size. Either gives the geometry of an
image of some size, so that masks and boxes go where the pixels go, and the pixels themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from skact.models._geometry import Axis, Geometry, image_geometry

__all__ = ["Framing", "ProcessorFraming", "WholeFraming", "choose_framing", "whole_grid"]

# What a processor does to the size of an image.
_RESIZING = ("do_resize", "do_center_crop", "do_pad")


@dataclass(frozen=True)
class ProcessorFraming:
    """Images as their processor makes them.

    Parameters
    ----------
    processor : image processor of transformers
        Resizes, crops, pads and normalises.
    """

    processor: Any

    convention = ""

    @property
    def extra(self) -> dict[str, Any]:
        """Keyword arguments that the model needs."""
        return {}

    def geometry(self, height: int, width: int) -> Geometry:
        """Say where the pixels of an image of this size go."""
        return image_geometry(self.processor, height, width)

    def pixels(self, image: Any, size: tuple[int, int]) -> Any:
        """Process an image, as a tensor (1, n_channels, height, width)."""
        return self.processor(images=[image], return_tensors="pt")["pixel_values"]


@dataclass(frozen=True)
class WholeFraming:
    """Whole images: resized by PIL with their proportions, each side to whole patches.

    Parameters
    ----------
    processor : image processor of transformers
        Its filter resizes, and it normalises. The patches that it makes of an image say into how
        many the whole of it goes.
    patch : tuple of int
        Height and width of a patch.
    max_patches : int
        Patches of an image at most.
    extra : dict
        Keyword arguments with which the model takes images of any size.
    """

    processor: Any
    patch: tuple[int, int]
    max_patches: int
    extra: dict[str, Any]

    @property
    def convention(self) -> str:
        """What is shown, for the source of activations."""
        return f", whole images in at most {self.max_patches} patches"

    def geometry(self, height: int, width: int) -> Geometry:
        """Say where the pixels of an image of this size go."""
        rows, columns = image_geometry(self.processor, height, width).grid(self.patch)
        n_patches = min(max(rows * columns, 1), self.max_patches)
        sides = height / self.patch[0], width / self.patch[1]
        grid = whole_grid(sides[0] / sides[1], n_patches, self.max_patches)
        made = [n * side for n, side in zip(grid, self.patch, strict=True)]
        return Geometry(Axis(height, made[0], 0, made[0]), Axis(width, made[1], 0, made[1]))

    def pixels(self, image: Any, size: tuple[int, int]) -> Any:
        """Process an image, as a tensor (1, n_channels, height, width)."""
        resized = image.resize(size[::-1], resample=getattr(self.processor, "resample", None))
        done = {step: False for step in _RESIZING if getattr(self.processor, step, None)}
        return self.processor(images=[resized], return_tensors="pt", **done)["pixel_values"]


Framing = ProcessorFraming | WholeFraming


def whole_grid(ratio: float, n_patches: int, most: int) -> tuple[int, int]:
    """Choose the grid of about so many patches that comes nearest to some proportions.

    Of all grids of r rows and c columns with ``0.9 n <= r c <= 1.1 n`` and ``r c <= most``, the one
    with the least ``|log(r / (c ratio))|``, and of several the nearest to n patches.

    Parameters
    ----------
    ratio : float
        Rows for a column.
    n_patches : int
        Patches wanted, at most ``most``.
    most : int
        Patches at most.

    Returns
    -------
    rows, columns : int
        At least one each.

    Examples
    --------
    >>> from skact.models._framing import whole_grid
    >>> whole_grid(1.0, 256, 1024), whole_grid(213 / 320, 256, 1024)
    ((16, 16), (13, 20))
    """
    # In tenths, since 0.9 n is no binary fraction.
    fewest, most = -(-9 * n_patches // 10), min(11 * n_patches // 10, most)
    rows = np.arange(1, most + 1)
    low, high = -(-fewest // rows), most // rows
    rows, low, high = (side[low <= high] for side in (rows, low, high))
    exact = np.floor(rows / ratio)
    columns = np.concatenate([np.clip(exact + up, low, high) for up in (0, 1)]).astype(int)
    rows = np.tile(rows, 2)
    bent = np.abs(np.log(rows / (columns * ratio))).round(9)
    best = np.lexsort((np.abs(rows * columns - n_patches), bent))[0]
    return int(rows[best]), int(columns[best])


def choose_framing(
    crop: str,
    processor: Any,
    patch: tuple[int, int],
    max_patches: int,
    any_size: dict[str, Any] | None,
    name: str,
) -> Framing:
    """Choose how images are shown.

    Parameters
    ----------
    crop : {"auto", "whole", "processor"}
        As in :class:`~skact.embedding.TransformerEmbedder`.
    processor : image processor of transformers
        The processor.
    patch : tuple of int
        Height and width of a patch.
    max_patches : int
        Patches of a whole image at most.
    any_size : dict or None
        Keyword arguments with which the model takes images of any size; None if it does not.
    name : str
        Name of the model, for errors.

    Returns
    -------
    framing : ProcessorFraming or WholeFraming
        The framing.

    Raises
    ------
    ValueError
        If whole images are asked for and the model takes one size only.
    """
    if crop == "processor" or (crop == "auto" and any_size != {}):
        return ProcessorFraming(processor)
    if any_size is None:
        raise ValueError(
            f'crop="whole" shows images of any size, but the model {name!r} takes one size only; '
            'use crop="processor", or "auto".'
        )
    return WholeFraming(processor, patch, max_patches, any_size)
