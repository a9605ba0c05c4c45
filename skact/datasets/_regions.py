"""Regions of an image as COCO writes them, turned into masks by COCO's own rules.

Run lengths go down the columns, first those of pixels outside. A polygon's edges are followed on a
grid five times as fine, and a pixel is inside if its centre is; the rule is that of pycocotools, to
which the tests compare it, and needs neither compiled code nor trust in what a file says.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from skact.datasets._gather import Sample
from skact.datasets._lazy import LazyMasks, Mask

_FINER = 5
# Pixels that one image may have; masks of more take memory that nobody meant.
_MOST_PIXELS = 2**28
# How many times its size beyond an image a corner may lie: the walk along an edge takes as long.
_BEYOND = 10


class Region(NamedTuple):
    """A region of an image.

    Parameters
    ----------
    labels : tuple of str
        Concepts that are there.
    polygons : tuple of ndarray of shape (n_points, 2), dtype float64
        Corners, x and y, of polygons that make it up together.
    runs : ndarray, dtype int64, or None, default=None
        Run lengths, instead.
    """

    labels: tuple[str, ...]
    polygons: tuple[npt.NDArray[np.float64], ...] = ()
    runs: npt.NDArray[np.int64] | None = None


class Regions(NamedTuple):
    """All regions of one image.

    Parameters
    ----------
    size : (int, int)
        Height and width.
    regions : sequence of Region
        In any order; they may overlap.
    """

    size: tuple[int, int]
    regions: Sequence[Region]


def region_masks(chosen: list[Sample], names: list[str]) -> dict[str, LazyMasks]:
    """Return the masks of images whose `located` is `Regions`, as `gather` wants it."""
    columns = {name: column for column, name in enumerate(names)}
    draw = partial(_draw, columns=columns)
    return {"masks": LazyMasks([sample.located for sample in chosen], draw, len(names))}


def _draw(image: Regions, columns: dict[str, int]) -> Mask:
    mask = np.zeros((*image.size, len(columns)), bool)
    for region in image.regions:
        own = [columns[label] for label in region.labels if label in columns]
        if own:
            mask[:, :, own] |= paint(region, image.size)[:, :, None]
    return mask


def paint(region: Region, size: tuple[int, int]) -> Mask:
    """Return the pixels of a region, of shape (height, width)."""
    if region.runs is not None:
        inside = np.arange(len(region.runs)) % 2 == 1
        return np.repeat(inside, region.runs).reshape(size[::-1]).T
    mask = np.zeros(size, bool)
    for corners in region.polygons:
        mask |= _fill(corners, size)
    return mask


def _fill(corners: npt.NDArray[np.float64], size: tuple[int, int]) -> Mask:
    """Fill a polygon: count, down the columns, how many times its edge was crossed so far."""
    height, width = size
    x, y = _outline(corners)
    step = np.flatnonzero(np.diff(x)) + 1
    edge = (np.minimum(x[step], x[step - 1]) + 0.5) / _FINER - 0.5
    level = np.ceil(np.clip((np.minimum(y[step], y[step - 1]) + 0.5) / _FINER - 0.5, 0, height))
    hit = (edge == np.floor(edge)) & (edge >= 0) & (edge <= width - 1)
    places = (edge[hit] * height + level[hit]).astype(np.int64)
    crossed = np.cumsum(np.bincount(places, minlength=height * width + 1)[: height * width])
    return (crossed % 2 == 1).reshape(width, height).T


def _outline(
    corners: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Walk along the edges of a polygon on the finer grid, one point a step."""
    fine = np.trunc(_FINER * corners + 0.5).astype(np.int64)
    xs, ys = [], []
    for (x0, y0), (x1, y1) in zip(fine, np.roll(fine, -1, axis=0), strict=True):
        wide, n_steps = abs(x1 - x0) >= abs(y1 - y0), max(abs(x1 - x0), abs(y1 - y0))
        t = np.arange(n_steps + 1)
        # Edges are walked from left to right, or downwards if they are steep, and turned after.
        if x0 > x1 if wide else y0 > y1:
            t, (x0, y0, x1, y1) = t[::-1], (x1, y1, x0, y0)
        slope = ((y1 - y0) if wide else (x1 - x0)) / max(n_steps, 1)
        other = np.trunc((y0 if wide else x0) + slope * t + 0.5).astype(np.int64)
        xs.append(t + x0 if wide else other)
        ys.append(other if wide else t + y0)
    return np.concatenate(xs), np.concatenate(ys)


def read_size(height: Any, width: Any, where: str) -> tuple[int, int]:
    """Check the size of an image."""
    if type(height) is not int or type(width) is not int or height < 1 or width < 1:
        raise ValueError(
            f"{where}: height and width must be ints above 0: {height!r:.80}, {width!r:.80}."
        )
    if height * width > _MOST_PIXELS:
        raise ValueError(f"{where}: {height} x {width} pixels are more than {_MOST_PIXELS}.")
    return height, width


def read_corners(points: Any, size: tuple[int, int], where: str) -> npt.NDArray[np.float64]:
    """Check the corners of a polygon, [x, y, x, y, ...] or [[x, y], ...], of an image."""
    try:
        given = np.asarray(points)
        # Text, bools and whole numbers beyond 64 bits are no coordinates.
        corners = given.astype(np.float64) if given.dtype.kind in "iuf" else np.empty(0)
    except ValueError:
        corners = np.empty(0)
    if corners.ndim not in (1, 2) or corners.size % 2 or corners.size < 6:
        raise ValueError(f"{where}: a polygon must be 3 corners x, y or more, got {points!r:.80}.")
    corners = corners.reshape(-1, 2)
    beyond = _BEYOND * max(size)
    lies_near = (corners >= -beyond) & (corners <= beyond + max(size))  # which NaN never does
    if not lies_near.all():
        x, y = corners[~lies_near.all(axis=1)][0]
        raise ValueError(
            f"{where}: the corner {x:g}, {y:g} of a polygon is far outside of the image, of height "
            f"{size[0]} and width {size[1]}."
        )
    return corners


def read_box(box: Any, size: tuple[int, int], where: str) -> npt.NDArray[np.float64]:
    """Check a box, [left, top, width, height], of an image; its corners."""
    if isinstance(box, list) and len(box) == 4 and all(type(v) in (int, float) for v in box):
        x, y, width, height = box
        if width > 0 and height > 0:
            right, bottom = x + width, y + height
            return read_corners([x, y, right, y, right, bottom, x, bottom], size, where)
    raise ValueError(
        f"{where}: 'bbox' must be left, top, width and height, the last two above 0; got "
        f"{box!r:.80}."
    )


def to_runs(mask: Mask) -> npt.NDArray[np.int64]:
    """Give the run lengths of a mask, first that of pixels outside."""
    flat = mask.T.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]]))
    return np.concatenate([[0], runs]) if flat[0] else runs


def read_runs(rle: Any, size: tuple[int, int], where: str) -> npt.NDArray[np.int64]:
    """Check run lengths, a list or the text that COCO compresses it to."""
    counts = rle.get("counts") if isinstance(rle, dict) else None
    if not isinstance(rle, dict) or rle.get("size", list(size)) != list(size):
        raise ValueError(
            f"{where}: run lengths must be of the image's size {size}, got {rle!r:.80}."
        )
    if isinstance(counts, str):
        counts = _decompress(counts, where)
    if not isinstance(counts, list) or any(type(n) is not int or n < 0 for n in counts):
        raise ValueError(f"{where}: 'counts' must be run lengths, got {counts!r:.80}.")
    if sum(counts) != size[0] * size[1]:
        raise ValueError(
            f"{where}: run lengths add up to {sum(counts)}, not to {size[0]}x{size[1]}."
        )
    return np.array(counts, dtype=np.int64)


def _decompress(text: str, where: str) -> list[int]:
    """Read numbers of 5 bits a sign, lowest first; from the fourth on, less the last but one."""
    counts: list[int] = []
    value = shift = 0
    for sign in text:
        bits = ord(sign) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"{where}: {sign!r:.80} cannot stand in compressed run lengths.")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError(f"{where}: compressed run lengths end in the middle of a number.")
    return counts
