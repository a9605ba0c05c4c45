"""Images of Pascal VOC, with boxes or with masks of classes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions

from skact.arguments import PATH, checked
from skact.datasets._files import found_in, open_folder, read_description
from skact.datasets._gather import ASKED, PUBLISHED_SPLITS, Asked, Sample, gather
from skact.datasets._layers import Layer, Layers, labels_of, layer_masks
from skact.datasets._regions import Region, Regions, read_size, region_masks
from skact.files import check_link, inside, read_text

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_NAMES = (
    "aeroplane,bicycle,bird,boat,bottle,bus,car,cat,chair,cow,diningtable,dog,horse,motorbike,"
    "person,pottedplant,sheep,sofa,train,tvmonitor"
)
_CLASSES = tuple(_NAMES.split(","))


@checked(folder=[PATH], regions=[StrOptions({"boxes", "classes"})], **ASKED)
def load_voc(
    folder: str | os.PathLike[str],
    *,
    regions: str = "classes",
    split: str | None = None,
    concepts: Iterable[str] | None = None,
    min_samples: int = 0,
) -> Bunch:
    """Read a folder of Pascal VOC, such as ``VOCdevkit/VOC2012``.

    Images are ``JPEGImages/NAME.jpg``, or ``.jpeg`` or ``.png``. Splits are those of the lists
    ``train.txt``, ``val.txt`` (``cal``) and ``test.txt`` in ``ImageSets/Segmentation`` or, for
    boxes, ``ImageSets/Main``; where there is no list they are drawn by :func:`draw_splits`.

    Parameters
    ----------
    folder : str or path-like
        The folder.
    regions : {"classes", "boxes"}, default="classes"
        Where concepts are: pixels of ``SegmentationClass/NAME.png``, read once to see what occurs
        and again when asked for; or boxes of ``Annotations/NAME.xml``, whose names may be others
        than the twenty.
    split : {"train", "cal", "test"} or None, default=None
        Samples to return, all of them if None.
    concepts : iterable of str or None, default=None
        Classes to keep, in the order of the columns wanted; all of them if None.
    min_samples : int, default=0
        Classes of fewer samples, counted over all splits, are left out; of `concepts`, refused.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        As that of :func:`load_masks`. Pixels at the border of things, 255, are no class.

    Raises
    ------
    FileNotFoundError
        If the folder or a file that a list names is missing.
    ValueError
        If a file is damaged; the message names it.

    Examples
    --------
    >>> from skact.datasets import load_voc
    >>> photos = load_voc("VOCdevkit/VOC2012", split="train")  # doctest: +SKIP
    """
    root = open_folder(folder)
    samples = []
    for where, name, own in _listed(root, regions):
        image = inside(root, _picture(root, name), where)
        if regions == "boxes":
            boxes = _read_boxes(Path(inside(root, f"Annotations/{name}.xml", where)))
            labels = [label for region in boxes.regions for label in region.labels]
            samples.append(Sample(name, image, labels, boxes, own))
        else:
            mask = inside(root, f"SegmentationClass/{name}.png", where)
            values = {value: (label,) for value, label in enumerate(_CLASSES, start=1)}
            layers = Layers(image, [Layer(mask, values, frozenset((0, 255)))])
            samples.append(Sample(name, image, labels_of(layers), layers, own))
    asked, about = Asked(split, concepts, min_samples), read_description(root)
    if regions == "classes":
        return gather(samples, _CLASSES, asked, root, layer_masks, about)
    names = sorted({label for sample in samples for label in sample.labels})
    return gather(samples, names, asked, root, region_masks, about)


def _listed(root: Path, regions: str) -> list[tuple[str, str, str | None]]:
    """List images: where each is named, its name and its split."""
    lists = root / "ImageSets" / ("Main" if regions == "boxes" else "Segmentation")
    found: dict[str, tuple[str, str, str | None]] = {}
    for name, own in PUBLISHED_SPLITS.items():
        path = check_link(root, lists / f"{name}.txt")
        lines = read_text(path).splitlines() if path.is_file() else []
        for number, line in enumerate(lines, start=1):
            where = f"{path}, line {number}"
            if line.strip() in found:
                raise ValueError(f"{where}: {line.strip()} is in {found[line.strip()][0]} already.")
            if line.strip():
                found[line.strip()] = (where, line.strip(), own)
    if found:
        return list(found.values())
    kinds = {"boxes": "Annotations/*.xml", "classes": "SegmentationClass/*.png"}
    files = found_in(root, kinds[regions])
    if not files:
        other = "classes" if regions == "boxes" else "boxes"
        has_other = any(root.glob(kinds[other]))
        hint = f" It has {kinds[other]}: regions={other!r} reads them." if has_other else ""
        raise ValueError(f"{root} has no {kinds[regions]}.{hint}")
    return [(str(path), path.stem, None) for path in files]


def _picture(root: Path, name: str) -> str:
    """Name the image inside the folder; a JPEG where there is none."""
    names = [f"JPEGImages/{name}{suffix}" for suffix in (".jpg", ".jpeg", ".png")]
    return next((one for one in names if (root / one).is_file()), names[0])


def _read_boxes(path: Path) -> Regions:
    from xml.etree import ElementTree

    text = read_text(path)
    if "<!" in text.replace("<!--", ""):  # entities can make a small file a large one
        raise ValueError(f"{path}: declarations such as <!DOCTYPE are not read.")
    try:
        tree = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: not XML ({error}).") from error
    height, width = (_number(tree, f"size/{name}", str(path)) for name in ("height", "width"))
    regions = []
    for number, thing in enumerate(tree.iter("object"), start=1):
        where = f"{path}, object {number}"
        label = (thing.findtext("name") or "").strip()
        if not label:
            raise ValueError(f"{where}: it has no name.")
        x0, y0, x1, y1 = (
            _number(thing, f"bndbox/{side}", where) for side in ("xmin", "ymin", "xmax", "ymax")
        )
        if not (0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height):
            raise ValueError(f"{where}: the box {x0, y0, x1, y1} leaves an image {width}x{height}.")
        # Pixels count from 1, and the last one belongs to the box.
        x0, y0 = max(x0 - 1, 0), max(y0 - 1, 0)
        corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
        regions.append(Region((label,), (corners,)))
    return Regions(read_size(int(height), int(width), str(path)), regions)


def _number(element: Element, name: str, where: str) -> float:
    text = element.findtext(name)
    try:
        value = float((text or "").replace("_", "?"))  # which Python reads in numbers
    except ValueError:
        value = np.nan
    if not 0 <= value < 1e6:
        raise ValueError(f"{where}: {name} must be a number of pixels, got {text!r:.80}.")
    return float(round(value))
