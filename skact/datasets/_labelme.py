"""Images with regions as LabelMe writes them."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from skact.datasets._files import found_in, open_folder, read_description, reads_a_folder
from skact.datasets._gather import Asked, Sample, gather
from skact.datasets._lazy import Mask
from skact.datasets._regions import (
    Region,
    Regions,
    read_corners,
    read_size,
    region_masks,
    to_runs,
)
from skact.files import check_size, inside, read_json
from skact.samples import PIXELS_PER_BYTE
from skact.warning import warn

_WITHOUT_AREA = ("line", "linestrip", "point", "points")


@reads_a_folder
def load_labelme(
    folder: str | os.PathLike[str],
    *,
    split: str | None = None,
    concepts: Iterable[str] | None = None,
    min_samples: int = 0,
) -> Bunch:
    """Read a folder of LabelMe: a JSON for each image.

    Polygons, rectangles, circles and masks are read. Splits are drawn by :func:`draw_splits`.

    Parameters
    ----------
    folder : str or path-like
        Holds the JSON files and the images that they name; folders inside are looked into.
    split : {"train", "cal", "test"} or None, default=None
        Samples to return, all of them if None.
    concepts : iterable of str or None, default=None
        Labels to keep, in the order of the columns wanted; all labels if None.
    min_samples : int, default=0
        Labels of fewer samples, counted over all splits, are left out; of `concepts`, refused.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        As that of :func:`load_masks`.

    Raises
    ------
    FileNotFoundError
        If the folder or an image is missing.
    ValueError
        If a file is damaged, or names an image outside of the folder; the message names it.

    Warns
    -----
    UserWarning
        If shapes without an area, such as lines and points, were left out.

    Examples
    --------
    >>> from skact.datasets import load_labelme
    >>> photos = load_labelme("photos", min_samples=20)  # doctest: +SKIP
    """
    root = open_folder(folder)
    samples, n_without = [], 0
    for path in found_in(root, "**/*.json"):
        content = read_json(path)
        shapes = content.get("shapes") if isinstance(content, dict) else None
        name = content.get("imagePath") if isinstance(content, dict) else None
        if not isinstance(shapes, list) or not isinstance(name, str):
            raise ValueError(f"{path} is not of LabelMe: 'imagePath' and 'shapes' are expected.")
        beside = path.parent.relative_to(root) / name.replace("\\", "/")
        image = inside(root, str(beside), f"{path}: 'imagePath'")
        size = read_size(content.get("imageHeight"), content.get("imageWidth"), str(path))
        found = [
            _read_shape(shape, size, f"{path}, shape {i}") for i, shape in enumerate(shapes, 1)
        ]
        regions = [region for region in found if region is not None]
        n_without += len(found) - len(regions)
        labels = [label for region in regions for label in region.labels]
        identifier = str(path.relative_to(root).with_suffix(""))
        samples.append(Sample(identifier, image, labels, Regions(size, regions)))
    if n_without:
        warn(f"{n_without} shapes of {root} are lines or points and were left out.")
    names = sorted({label for sample in samples for label in sample.labels})
    asked = Asked(split, concepts, min_samples)
    return gather(samples, names, asked, root, region_masks, read_description(root))


def _read_shape(shape: Any, size: tuple[int, int], where: str) -> Region | None:
    """Read a shape, None if it has no area."""
    kind = shape.get("shape_type", "polygon") if isinstance(shape, dict) else None
    label = shape.get("label") if isinstance(shape, dict) else None
    if not isinstance(label, str) or not label:
        raise ValueError(f"{where}: 'label' must be a text, got {label!r:.80}.")
    if kind in _WITHOUT_AREA:
        return None
    points = shape.get("points")
    if kind == "polygon":
        return Region((label,), (read_corners(points, size, where),))
    if kind == "mask":
        return Region((label,), runs=to_runs(_read_mask(shape, size, where)))
    if kind not in ("rectangle", "circle"):
        raise ValueError(f"{where}: shapes of type {kind!r:.80} are not read.")
    if not isinstance(points, list) or len(points) != 2:
        raise ValueError(f"{where}: a {kind} must have 2 points, got {points!r:.80}.")
    (x0, y0), (x1, y1), _ = read_corners([*points, points[0]], size, where)
    if kind == "rectangle":
        return Region((label,), (np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]),))
    angle = np.linspace(0, 2 * np.pi, 128, endpoint=False)
    circle = np.hypot(x1 - x0, y1 - y0) * np.c_[np.cos(angle), np.sin(angle)] + (x0, y0)
    return Region((label,), (read_corners(circle, size, where),))


def _read_mask(shape: Any, size: tuple[int, int], where: str) -> Mask:
    """Decode the picture of a mask, and put it where its box begins."""
    from PIL import Image

    points = shape.get("points")
    try:
        content = base64.b64decode(shape.get("mask"), validate=True)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            check_size(image.width * image.height, len(content), PIXELS_PER_BYTE)
            piece = np.asarray(image.convert("L")) > 0
        (left, top), _ = [(int(x), int(y)) for x, y in points]  # OverflowError: infinite
    except (
        Image.DecompressionBombError,
        OSError,
        OverflowError,
        SyntaxError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(f"{where}: the mask must be a PNG with its corners: {error}.") from error
    height, width = piece.shape
    if not (0 <= top <= size[0] - height and 0 <= left <= size[1] - width):
        raise ValueError(f"{where}: a mask {height}x{width} at {points!r:.80} leaves the image.")
    whole = np.zeros(size, bool)
    whole[top : top + height, left : left + width] = piece
    return whole
