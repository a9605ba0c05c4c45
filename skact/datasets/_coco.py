"""Images with regions in COCO's format, which many annotation tools export."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions

from skact.arguments import checked
from skact.datasets._files import open_folder
from skact.datasets._gather import ASKED, FILES, Asked, Files, Sample, by_split, gather
from skact.datasets._regions import (
    Region,
    Regions,
    read_box,
    read_corners,
    read_runs,
    read_size,
    region_masks,
)
from skact.datasets._stream import read_items
from skact.files import inside
from skact.warning import warn

_LEVELS = ("category", "supercategory", "both")


@checked(files=FILES, images=FILES, level=[StrOptions(set(_LEVELS))], crowd=["boolean"], **ASKED)
def load_coco(
    files: Files,
    images: Files,
    *,
    level: str = "category",
    crowd: bool = True,
    split: str | None = None,
    concepts: Iterable[str] | None = None,
    min_samples: int = 0,
) -> Bunch:
    """Read images with regions from COCO's instances, or an export in that format.

    Regions are polygons or run lengths, compressed or not. A mask is drawn when it is asked for, by
    the rules of pycocotools. Of an annotation without an outline, as tools for boxes write them,
    the whole box is the region.

    Parameters
    ----------
    files : path or dict of paths by split
        The JSON, such as ``annotations/instances_val2017.json``. One of more than 64 MiB is
        streamed by ijson, of the extra ``data``.
    images : path or dict of paths by split
        The folder of the images, such as ``val2017``, or one for each of `files`.
    level : {"category", "supercategory", "both"}, default="category"
        What the concepts are. A name of both is one concept.
    crowd : bool, default=True
        Whether regions of a crowd belong to the concept. If not, they are no region at all.
    split : {"train", "cal", "test"} or None, default=None
        Samples to return, all of them if None; drawn by :func:`draw_splits` if there is one file.
    concepts : iterable of str or None, default=None
        Concepts to keep, in the order of the columns wanted; all of them if None.
    min_samples : int, default=0
        Concepts of fewer samples, counted over all splits, are left out; of `concepts`, refused.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        As that of :func:`load_masks`. Images without any region are negatives.

    Raises
    ------
    FileNotFoundError
        If a file, folder or image is missing.
    ValueError
        If an image, category or annotation is damaged, or a path leads out of the folder; the
        message names file and id.

    Warns
    -----
    UserWarning
        If boxes were read where there is no outline.

    Examples
    --------
    >>> from skact.datasets import PAPER_CONCEPTS, load_coco
    >>> photos = load_coco(
    ...     "annotations/instances_val2017.json",
    ...     "val2017",
    ...     level="both",
    ...     concepts=PAPER_CONCEPTS["coco"],
    ... )  # doctest: +SKIP
    >>> photos.masks[0].shape  # doctest: +SKIP
    (426, 640, 29)
    """
    samples: list[Sample] = []
    names: dict[str, None] = {}
    for own, path in by_split(files):
        root = open_folder(_of_split(images, own))
        categories = _read_categories(path, level)
        names |= dict.fromkeys(label for labels in categories.values() for label in labels)
        found = _read_images(path)
        n_boxes = sum(
            _read_annotation(item, found, categories, crowd, str(path))
            for item in read_items(path, "annotations")
        )
        if n_boxes:
            warn(f"{n_boxes} annotations of {path} have no outline: the whole box is the region.")
        for image in found.values():
            labels = {label for region in image.regions for label in region.labels}
            data = inside(root, image.name, f"{image.where}: 'file_name'")
            identifier = image.name if own is None else f"{own}/{image.name}"
            located = Regions(image.size, image.regions)
            samples.append(Sample(identifier, data, labels, located, own))
    return gather(samples, list(names), Asked(split, concepts, min_samples), files, region_masks)


def _of_split(images: Files, split: str | None) -> str | os.PathLike[str]:
    if not isinstance(images, Mapping):
        return images
    if split is None or split not in images:
        raise ValueError(f"images must be one folder, or have {split!r} like files.")
    return images[split]


class _Image(NamedTuple):
    name: str
    size: tuple[int, int]
    where: str
    regions: list[Region]


def _read_categories(path: Path, level: str) -> dict[int, tuple[str, ...]]:
    """Return the labels of each category."""
    categories = {}
    for item in read_items(path, "categories"):
        where = f"{path}, category {_id(item)}"
        name = _text(item, "name", where)
        # Tools that know none write none.
        above = "" if level == "category" else item.get("supercategory") or ""
        if not isinstance(above, str) or (level == "supercategory" and not above):
            raise ValueError(f"{where}: 'supercategory' must be a text, got {above!r:.80}.")
        both = (name, above) if level == "both" else (name if level == "category" else above,)
        key = _number(item, "id", where)
        if key in categories:
            raise ValueError(f"{where}: the id comes twice.")
        categories[key] = tuple(dict.fromkeys(filter(None, both)))
    return categories


def _read_images(path: Path) -> dict[int, _Image]:
    images: dict[int, _Image] = {}
    for item in read_items(path, "images"):
        where = f"{path}, image {_id(item)}"
        name = _text(item, "file_name", where)
        size = read_size(item.get("height"), item.get("width"), where)
        key = _number(item, "id", where)
        if key in images:
            raise ValueError(f"{where}: the id comes twice.")
        images[key] = _Image(name, size, where, [])
    return images


def _read_annotation(
    item: Any,
    images: dict[int, _Image],
    categories: dict[int, tuple[str, ...]],
    crowd: bool,
    path: str,
) -> bool:
    """Add the region of an annotation to its image; whether it is but a box."""
    where = f"{path}, annotation {_id(item)}"
    image = images.get(_number(item, "image_id", where))
    labels = categories.get(_number(item, "category_id", where))
    if image is None or labels is None:
        key = "image_id" if image is None else "category_id"
        raise ValueError(f"{where}: there is no such {key}, {item[key]!r:.80}.")
    if item.get("iscrowd") and not crowd:
        return False
    segmentation = item.get("segmentation")
    is_box = not segmentation and item.get("bbox") is not None
    if isinstance(segmentation, dict) and segmentation:
        region = Region(labels, runs=read_runs(segmentation, image.size, where))
    elif isinstance(segmentation, list) and segmentation:
        region = Region(
            labels, tuple(read_corners(points, image.size, where) for points in segmentation)
        )
    elif is_box:
        region = Region(labels, (read_box(item["bbox"], image.size, where),))
    else:
        raise ValueError(
            f"{where}: 'segmentation' must be polygons or run lengths, got {segmentation!r:.80}."
        )
    image.regions.append(region)
    return is_box


def _id(item: Any) -> str:
    """Say which item it is, whatever stands there."""
    return f"{(item.get('id') if isinstance(item, dict) else item)!r:.80}"


def _text(item: Any, key: str, where: str) -> str:
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, str) or not value:
        raise ValueError(f"{where}: {key!r} must be a text, got {value!r:.80}.")
    return value


def _number(item: Any, key: str, where: str) -> int:
    value = item.get(key) if isinstance(item, dict) else None
    if type(value) is not int:
        raise ValueError(f"{where}: {key!r} must be an int, got {value!r:.80}.")
    return value
