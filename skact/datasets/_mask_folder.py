"""A folder of images beside a folder of masks."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from sklearn.utils import Bunch

from skact.arguments import PATH, Such, checked
from skact.datasets._files import open_folder, read_description
from skact.datasets._gather import ASKED, Asked, Sample, gather
from skact.datasets._layers import Layer, Layers, labels_of, layer_masks
from skact.files import check_link, inside

_KINDS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def _is_value(value: object) -> bool:
    return type(value) is int and 0 <= value <= 255


_CLASSES = Such(
    "a dict of names by pixel value",
    lambda v: isinstance(v, Mapping) and v and all(isinstance(n, str) and n for n in v.values()),
)
_VALUES = Such("a list of pixel values", lambda v: isinstance(v, list | tuple | set | frozenset))


@checked(images=[PATH], masks=[PATH], classes=[_CLASSES, None], ignore=[_VALUES], **ASKED)
def load_mask_folder(
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str],
    *,
    classes: Mapping[int, str] | None = None,
    ignore: Collection[int] = (0, 255),
    split: str | None = None,
    concepts: Iterable[str] | None = None,
    min_samples: int = 0,
) -> Bunch:
    """Read a plain folder of images and one of masks, with the same names.

    With `classes`, the mask of ``NAME.jpg`` is ``NAME.png``, palettised or grey, and its pixel
    values are classes. Without, there is a folder of masks for each concept,
    ``CONCEPT/NAME.png``, in which all but 0 is the concept; an image without one lacks the concept.
    Each mask is read once to see what occurs, and again when it is asked for. Splits are drawn by
    :func:`draw_splits`.

    Parameters
    ----------
    images : str or path-like
        Folder of the images; folders inside are not looked at.
    masks : str or path-like
        Folder of the masks.
    classes : dict of int to str, or None, default=None
        Names by pixel value.
    ignore : collection of int, default=(0, 255)
        Values of no class. Any other one is an error.
    split : {"train", "cal", "test"} or None, default=None
        Samples to return, all of them if None.
    concepts : iterable of str or None, default=None
        Classes to keep, in the order of the columns wanted; all classes if None.
    min_samples : int, default=0
        Classes of fewer samples, counted over all splits, are left out; of `concepts`, refused.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        As that of :func:`load_masks`.

    Raises
    ------
    FileNotFoundError
        If a folder or a mask is missing.
    ValueError
        If a mask is no image of one channel and of its image's size, or holds an unknown value; or
        if a link leads out of the folders. The message names the file.

    Examples
    --------
    >>> from skact.datasets import load_mask_folder
    >>> photos = load_mask_folder("photos", "masks", classes={1: "cat"})  # doctest: +SKIP
    """
    root, place = open_folder(images), open_folder(masks)
    for value in (*(classes or ()), *ignore):
        if not _is_value(value):
            raise ValueError(
                f"classes and ignore must hold pixel values 0 to 255, got {value!r:.80}."
            )
    names = sorted(check_link(place, path).name for path in place.iterdir() if path.is_dir())
    if classes is not None:
        names = list(dict.fromkeys(classes.values()))
    elif not names:
        raise ValueError(f"{place} has no folder of a concept; or give the classes of its masks.")
    values = {value: (name,) for value, name in (classes or {}).items()}
    samples = []
    for path in sorted(path for path in root.iterdir() if path.suffix.lower() in _KINDS):
        check_link(root, path)
        if classes is None:
            layers = [Layer(str(mask), name) for name in names for mask in _mask(place, name, path)]
        else:
            mask = inside(place, f"{path.stem}.png", f"The file in masks of {path.name}")
            layers = [Layer(mask, values, frozenset(ignore) - set(values))]
        located = Layers(str(path), layers)
        samples.append(Sample(path.name, str(path), labels_of(located), located))
    asked = Asked(split, concepts, min_samples)
    return gather(samples, names, asked, root, layer_masks, read_description(root))


def _mask(place: Path, name: str, path: Path) -> list[Path]:
    mask = check_link(place, place / name / f"{path.stem}.png")
    return [mask] if mask.is_file() else []
