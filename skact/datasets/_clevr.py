"""Renders of CLEVR with a mask of their objects."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sklearn.utils import Bunch

from skact.arguments import PATH, checked
from skact.datasets._files import open_folder
from skact.datasets._gather import ASKED, FILES, Asked, Files, Sample, by_split, gather
from skact.datasets._layers import Layer, Layers, labels_of, layer_masks
from skact.datasets._stream import read_items
from skact.files import inside

_KINDS = ("color", "material", "shape", "size")


@checked(files=FILES, images=[PATH], masks=[PATH], **ASKED)
def load_clevr(
    files: Files,
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str],
    *,
    split: str | None = None,
    concepts: Iterable[str] | None = None,
    min_samples: int = 0,
) -> Bunch:
    """Read renders of CLEVR, from scenes and masks whose pixel values number the objects.

    Concepts are ``color::red``, ``material::metal``, ``shape::cube`` and ``size::large``. In the
    mask of an image pixel value i is the i-th object of its scene, from 1; 0 is no object. An
    object that is hidden by others is not there.

    Parameters
    ----------
    files : path or dict of paths by split
        Scenes, such as ``CLEVR_val_scenes.json``.
    images : str or path-like
        Folder of the images that ``image_filename`` names.
    masks : str or path-like
        Folder of the masks: ``NAME.png`` for ``NAME.png`` or ``NAME.jpg``, palettised or grey.
    split : {"train", "cal", "test"} or None, default=None
        Samples to return, all of them if None; drawn by :func:`draw_splits` if there is one file.
    concepts : iterable of str or None, default=None
        Concepts to keep, in the order of the columns wanted; all of them if None.
    min_samples : int, default=0
        Concepts of fewer samples, counted over all splits, are left out; of `concepts`, refused.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        As that of :func:`load_masks`.

    Raises
    ------
    FileNotFoundError
        If a file, folder, image or mask is missing.
    ValueError
        If a scene or mask is damaged; the message names file and scene.

    Examples
    --------
    >>> from skact.datasets import load_clevr
    >>> renders = load_clevr("scenes.json", "images", "masks")  # doctest: +SKIP
    """
    root, place = open_folder(images), open_folder(masks)
    samples, known, seen = [], dict[str, None](), dict[str, str]()
    for own, path in by_split(files):
        for number, scene in enumerate(read_items(path, "scenes"), start=1):
            where = f"{path}, scene {number}"
            name, values = _read_scene(scene, where)
            image = inside(root, name, f"{where}: 'image_filename'")
            mask = inside(place, str(Path(name).with_suffix(".png")), f"{where}: its file in masks")
            known |= dict.fromkeys(label for labels in values.values() for label in labels)
            located = Layers(image, [Layer(mask, values, frozenset((0,)))])
            if name in seen:
                raise ValueError(f"{where}: image {name!r:.80} is that of {seen[name]} already.")
            seen[name] = where
            samples.append(Sample(name, image, labels_of(located), located, own))
    asked = Asked(split, concepts, min_samples)
    return gather(samples, sorted(known), asked, files, layer_masks)


def _read_scene(scene: Any, where: str) -> tuple[str, Mapping[int, tuple[str, ...]]]:
    """Return the name of the image, and the labels of each object by its pixel value."""
    name = scene.get("image_filename") if isinstance(scene, dict) else None
    things = scene.get("objects") if isinstance(scene, dict) else None
    if not isinstance(name, str) or not name or not isinstance(things, list):
        raise ValueError(f"{where}: 'image_filename' and a list of 'objects' are expected.")
    if len(things) > 255:
        raise ValueError(f"{where}: {len(things)} objects have no pixel value each.")
    values = {}
    for value, thing in enumerate(things, start=1):
        labels = [thing.get(kind) if isinstance(thing, dict) else None for kind in _KINDS]
        for kind, label in zip(_KINDS, labels, strict=True):
            if not isinstance(label, str) or not label:
                raise ValueError(
                    f"{where}, object {value}: {kind!r} must be a text: {label!r:.80}."
                )
        values[value] = tuple(f"{k}::{label}" for k, label in zip(_KINDS, labels, strict=True))
    return name, values
