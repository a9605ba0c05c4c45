"""Where the pixels of an image go in an image processor.

A processor resizes, crops and pads, each along rows and columns separately. So along one axis,
position x of the original lands at ``u = x * resized / original - start`` of the processed image,
and the patches are intervals of u. Masks and boxes go through the same map as the image itself,
in integers, so that a mask pixel on the edge of a patch is never lost to rounding. A patch in
which no pixel of the image lies is padding, and no token.

What a processor does is read from its settings and then tried on ramps (:func:`check_geometry`):
a processor that puts pixels elsewhere is refused rather than trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from skact.rows import Array

__all__ = [
    "Axis",
    "Geometry",
    "Patch",
    "check_geometry",
    "image_geometry",
    "mask_to_patches",
    "patch_boxes",
]

Box = tuple[float, float, float, float]


class Patch(NamedTuple):
    """One image token.

    Parameters
    ----------
    row, column : int
        Place in the grid of patches; -1 for a token that is no patch (CLS, registers).
    box : tuple of float
        ``(left, top, right, bottom)`` in pixels of the original image. May reach out of the
        image where the processor pads; empty for a token that is no patch.
    """

    row: int
    column: int
    box: Box


@dataclass(frozen=True)
class Axis:
    """What happens along one axis of an image.

    Parameters
    ----------
    original : int
        Pixels of the image.
    resized : int
        Pixels after resizing.
    start : int
        Resized pixel at which the processed image starts; negative where padding comes first.
    size : int
        Pixels of the processed image.
    """

    original: int
    resized: int
    start: int
    size: int

    def to_original(self, position: float | Array) -> Any:
        """Take positions of the processed image back to the original one."""
        return (position + self.start) * self.original / self.resized

    def seen(self, patch: int) -> float:
        """Share of the original pixels that lies in a patch."""
        stop = min(self.start + self.size // patch * patch, self.resized)
        return max(0, stop - max(self.start, 0)) / self.resized

    def patch_pixels(self, patch: int) -> tuple[Array, Array]:
        """First and one-past-last original pixel that overlaps each patch; equal if none does."""
        edges = (np.arange(self.size // patch + 1) * patch + self.start) * self.original
        first, stop = edges[:-1] // self.resized, -(-edges[1:] // self.resized)
        first, stop = np.clip(first, 0, self.original), np.clip(stop, 0, self.original)
        return first, np.maximum(first, stop)


@dataclass(frozen=True)
class Geometry:
    """What happens to an image in its processor: one :class:`Axis` each for rows and columns."""

    rows: Axis
    columns: Axis

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the processed image."""
        return self.rows.size, self.columns.size

    def grid(self, patch: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.rows.size // patch[0], self.columns.size // patch[1]

    def hidden(self, patch: tuple[int, int]) -> float:
        """Share of the original pixels that no patch shows."""
        return 1 - self.rows.seen(patch[0]) * self.columns.seen(patch[1])

    def _real(self, patch: tuple[int, int]) -> tuple[Array, Array]:
        """Which rows and columns of patches hold more than padding."""
        rows, columns = self.rows.patch_pixels(patch[0]), self.columns.patch_pixels(patch[1])
        return np.less(*rows), np.less(*columns)

    def tokens(self, patch: tuple[int, int]) -> Array:
        """Which patches are tokens, row by row: those that hold more than padding."""
        return np.logical_and.outer(*self._real(patch)).reshape(-1)

    def shape(self, patch: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the patches that are tokens."""
        rows, columns = self._real(patch)
        return int(rows.sum()), int(columns.sum())


def _entry(size: Any, key: str) -> int | None:
    value = size.get(key) if isinstance(size, dict) else getattr(size, key, None)
    return None if value is None else int(value)


def _resized(size: Any, height: int, width: int) -> tuple[int, int] | None:
    """Size after the processor's resize step; None if the setting is not known."""
    short, long = _entry(size, "shortest_edge"), _entry(size, "longest_edge")
    if short and long:
        return _between(short, long, height, width)
    if short:
        scaled = int(short * max(height, width) / min(height, width))
        return (scaled, short) if width <= height else (short, scaled)
    limits = _entry(size, "max_height"), _entry(size, "max_width")
    if limits[0] and limits[1]:
        scale = min(limits[0] / height, limits[1] / width)
        return int(height * scale), int(width * scale)
    exact = _entry(size, "height"), _entry(size, "width")
    return (exact[0], exact[1]) if exact[0] and exact[1] else None


def _between(short: int, long: int, height: int, width: int) -> tuple[int, int]:
    """Shortest edge as asked, unless the longest would pass its limit."""
    exact = float(short)
    if max(height, width) / min(height, width) * short > long:
        exact = long * min(height, width) / max(height, width)
        short = round(exact)
    if short == min(height, width):
        return height, width
    if width < height:
        return int(exact * height / width), short
    return short, int(exact * width / height)


def _in_tile(tile: int, height: int, width: int) -> tuple[int, int]:
    """One edge fills the tile, the other keeps the aspect ratio."""
    scales = tile / height, tile / width
    if scales[1] < scales[0]:
        return max(1, min(int(height * scales[1]), tile)), tile
    return tile, max(1, min(int(width * scales[0]), tile))


def _asked(processor: Any, step: str, setting: str) -> Any:
    return getattr(processor, setting, None) if getattr(processor, step, None) else None


def image_geometry(processor: Any, height: int, width: int) -> Geometry:
    """Say what a processor does to an image, from its settings.

    Parameters
    ----------
    processor : image processor of transformers
        Its ``size``, ``crop_size`` and ``pad_size`` are read.
    height, width : int
        Size of the image.

    Returns
    -------
    geometry : Geometry
        The map of pixels and the processed size.

    Raises
    ------
    ValueError
        If the settings are of an unknown kind.
    """
    size = _asked(processor, "do_resize", "size")
    tiled = hasattr(processor, "max_image_tiles")
    if size is None:
        resized: tuple[int, int] | None = (height, width)
    elif tiled:
        resized = _in_tile(_entry(size, "height") or 0, height, width)
    else:
        resized = _resized(size, height, width)
    if resized is None or min(resized) < 1:
        raise ValueError(
            f"{type(processor).__name__} with size={size} is not understood for an image of "
            f"height {height} and width {width}."
        )
    crop = _asked(processor, "do_center_crop", "crop_size")
    # A processor that cuts into tiles pads up to its tile.
    pad = size if tiled else _asked(processor, "do_pad", "pad_size")
    axes = []
    for name, before, after in zip(("height", "width"), (height, width), resized, strict=True):
        wanted = after if crop is None else (_entry(crop, name) or after)
        final = wanted if pad is None else (_entry(pad, name) or wanted)
        axes.append(Axis(before, after, (after - wanted) // 2, final))
    return Geometry(*axes)


def _ramps(height: int, width: int) -> Array:
    """Image whose channels hold the x and the y position as grey values, and white."""
    y, x = np.mgrid[:height, :width] + 0.5
    channels = [255 * x / width, 255 * y / height, np.full((height, width), 255.0)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def check_geometry(processor: Any) -> None:
    """Compare :func:`image_geometry` with what the processor really does to two ramps.

    Parameters
    ----------
    processor : image processor of transformers
        The processor.

    Raises
    ------
    ValueError
        If an image is processed to another size, or pixels end up elsewhere by more than about
        a pixel.
    """
    for height, width in ((90, 150), (150, 90)):
        geometry = image_geometry(processor, height, width)
        pixels = processor(
            images=[_ramps(height, width)],
            do_rescale=False,
            do_normalize=False,
            return_tensors="np",
            input_data_format="channels_last",
        )["pixel_values"]
        if pixels.ndim != 4 or pixels.shape[2:] != geometry.size:
            raise ValueError(
                f"{type(processor).__name__} is not understood: an image of height {height} and "
                f"width {width} became pixel_values of shape {pixels.shape}, expected "
                f"(1, 3, {geometry.size[0]}, {geometry.size[1]})."
            )
        _compare_ramps(processor, geometry, pixels[0].astype(float))


def _compare_ramps(processor: Any, geometry: Geometry, pixels: Array) -> None:
    for channel, axis in ((0, geometry.columns), (1, geometry.rows)):
        centres = axis.to_original(np.arange(axis.size) + 0.5)
        tolerance = 1 + axis.original / axis.resized
        # Resampling filters bend a ramp near its ends, and padding holds no position.
        inner = (centres > 2 * tolerance) & (centres < axis.original - 2 * tolerance)
        found = np.median(pixels[channel], axis=0 if channel == 0 else 1, keepdims=False)
        padded = np.median(pixels[2], axis=0 if channel == 0 else 1) < 128
        error = np.abs(found * axis.original / 255 - centres)[inner & ~padded]
        if error.size and error.max() > tolerance:
            raise ValueError(
                f"{type(processor).__name__} is not understood: it moves pixels by up to "
                f"{error.max():.1f} from where its settings say."
            )


def patch_boxes(geometry: Geometry, patch: tuple[int, int]) -> list[Patch]:
    """List the patches of an image that hold more than padding, row by row.

    Parameters
    ----------
    geometry : Geometry
        Of the image.
    patch : tuple of int
        Height and width of a patch in processed pixels.

    Returns
    -------
    patches : list of Patch
        In the order of the model's tokens.
    """
    n_rows, n_columns = geometry.grid(patch)
    tops = [float(e) for e in geometry.rows.to_original(np.arange(n_rows + 1) * patch[0])]
    lefts = [float(e) for e in geometry.columns.to_original(np.arange(n_columns + 1) * patch[1])]
    return [
        Patch(r, c, (lefts[c], tops[r], lefts[c + 1], tops[r + 1]))
        for r, c in (divmod(k, n_columns) for k in np.flatnonzero(geometry.tokens(patch)).tolist())
    ]


def _any_between(mask: Array, first: Array, stop: Array) -> Array:
    """For each interval, whether the mask holds anything in it, along the first axis."""
    counts = np.zeros((len(mask) + 1, *mask.shape[1:]), np.int32)
    np.cumsum(mask, axis=0, out=counts[1:])
    return counts[stop] > counts[first]


def mask_to_patches(mask: Array, geometry: Geometry, patch: tuple[int, int]) -> Array:
    """Label the patches that any mask pixel falls into.

    A mask pixel is a square, taken through the geometric transform of its image; a patch is
    positive if the square overlaps it by any positive area. So no pixel that survives a crop is
    lost, however strongly the image is made smaller.

    Parameters
    ----------
    mask : ndarray of shape (height, width, n_concepts), dtype bool
        Of the size of the original image.
    geometry : Geometry
        Of the image.
    patch : tuple of int
        Height and width of a patch in processed pixels.

    Returns
    -------
    labels : ndarray of shape (n_patches, n_concepts), dtype bool
        As :func:`patch_boxes` lists them.
    """
    across = _any_between(mask, *geometry.rows.patch_pixels(patch[0]))
    both = _any_between(across.swapaxes(0, 1), *geometry.columns.patch_pixels(patch[1]))
    return both.swapaxes(0, 1).reshape(-1, mask.shape[2])[geometry.tokens(patch)]
