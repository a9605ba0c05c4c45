"""Broden, whose images have labels of pixels for objects, parts, materials and colours."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.utils import Bunch

from skact.arguments import PATH, SEQUENCE, checked
from skact.datasets._files import is_number, open_folder, read_description
from skact.datasets._gather import ASKED, PUBLISHED_SPLITS, Asked, Sample, gather
from skact.datasets._lazy import LazyMasks, Mask, read_classes
from skact.datasets._tables import read_rows
from skact.files import check_link, inside

_KINDS = ("object", "part", "material", "color")


class _Labelled(NamedTuple):
    size: tuple[int, int]  # of the image
    coarse: tuple[int, int]  # of the files of labels
    files: Sequence[tuple[str, str]]  # kind, path


@checked(folder=[PATH], kinds=[SEQUENCE], part=[str, None], **ASKED)
def load_broden(
    folder: str | os.PathLike[str],
    *,
    part: str | None = None,
    kinds: Sequence[str] = _KINDS,
    split: str | None = None,
    concepts: Iterable[str] | None = None,
    min_samples: int = 0,
) -> Bunch:
    """Read a folder of Broden, such as ``broden1_224``.

    The folder holds ``index.csv`` (``image``, ``split``, sizes, files of labels by kind, several
    parted by ``;``), ``label.csv`` (``number``, ``name``) and ``images``. In a file of labels a
    pixel is the number red + 256 green, 0 for none. Concepts are called
    ``object::sky``; labels that are coarser than the image are enlarged to it. Each file is
    read once to see what occurs, and again when a mask is asked for.

    Parameters
    ----------
    folder : str or path-like
        The folder.
    part : str or None, default=None
        Where images are from, such as ``"pascal"`` or ``"opensurfaces"``; all of them if None.
    kinds : sequence of str, default=("object", "part", "material", "color")
        Kinds of labels that are read.
    split : {"train", "cal", "test"} or None, default=None
        Samples to return, all of them if None. ``val`` is ``cal``; ``test`` is empty in Broden, for
        which :func:`draw_splits` helps.
    concepts : iterable of str or None, default=None
        Concepts to keep, in the order of the columns wanted; all that occur if None.
    min_samples : int, default=0
        Concepts of fewer samples, counted over all splits, are left out; of `concepts`, refused.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        As that of :func:`load_masks`.

    Raises
    ------
    FileNotFoundError
        If the folder or a file that the index names is missing.
    ValueError
        If a row or a file of labels is damaged; the message names file and line.

    Examples
    --------
    >>> from skact.datasets import PAPER_CONCEPTS, load_broden
    >>> photos = load_broden(
    ...     "broden1_224", part="pascal", concepts=PAPER_CONCEPTS["pascal"]
    ... )  # doctest: +SKIP
    """
    if not kinds:
        raise ValueError("kinds must name one kind of labels at least.")
    for kind in kinds:
        if kind not in _KINDS:
            raise ValueError(f"kinds must be among {', '.join(_KINDS)}, got {kind!r}.")
    root = open_folder(folder)
    check_link(root, root / "images")
    names = _read_names(check_link(root, root / "label.csv"))
    samples = []
    for where, _, row in _rows(check_link(root, root / "index.csv")):
        image = row.get("image", "")
        if part is not None and Path(image).parts[:1] != (part,):
            continue
        own = PUBLISHED_SPLITS.get(row.get("split", ""))
        if own is None:
            raise ValueError(
                f"{where}: 'split' must be train, val or test: {row.get('split')!r:.80}."
            )
        located = _read_files(row, root, kinds, where)
        path = inside(root / "images", image, f"{where}: 'image'")
        samples.append(Sample(image, path, _occurring(located, names, where), located, own))
    if not samples:
        raise ValueError(f"{root} has no image of part {part!r:.80}.")
    occurring = sorted({label for sample in samples for label in sample.labels})
    place = partial(_masks, names=names)
    asked = Asked(split, concepts, min_samples)
    return gather(samples, occurring, asked, root, place, read_description(root))


def _rows(path: Path) -> Iterable[tuple[str, int, dict[str, str]]]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    return read_rows(path)


def _read_names(path: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for where, _, row in _rows(path):
        number, name = row.get("number", ""), row.get("name", "")
        if not is_number(number) or not 0 < int(number) < 2**16 or not name:
            raise ValueError(
                f"{where}: 'number' and 'name' are expected, got {number!r:.80}, {name!r:.80}."
            )
        if int(number) in names:
            raise ValueError(
                f"{where}: number {number} is that of {names[int(number)]!r:.80} already."
            )
        names[int(number)] = name
    return names


def _read_files(row: Mapping[str, str], root: Path, kinds: Sequence[str], where: str) -> _Labelled:
    sizes = [row.get(key, "") for key in ("ih", "iw", "sh", "sw")]
    if not all(is_number(size) and 0 < int(size) < 2**14 for size in sizes):
        raise ValueError(f"{where}: ih, iw, sh and sw must be sizes in pixels, got {sizes!r:.80}.")
    ih, iw, sh, sw = map(int, sizes)
    files = [
        (kind, inside(root / "images", name, f"{where}: {kind!r}"))
        for kind in kinds
        for name in filter(None, row.get(kind, "").split(";"))
    ]
    return _Labelled((ih, iw), (sh, sw), files)


def _numbers(path: str, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    colours = read_classes(path, size, ("RGB",)).astype(np.int64)
    return colours[:, :, 0] + 256 * colours[:, :, 1]


def _occurring(located: _Labelled, names: Mapping[int, str], where: str) -> set[str]:
    labels = set()
    for kind, path in located.files:
        for number in np.unique(_numbers(path, located.coarse)).tolist():
            if number and number not in names:
                raise ValueError(f"{where}: {path} holds {number}, which label.csv does not name.")
            if number:
                labels.add(f"{kind}::{names[number]}")
    return labels


def _masks(chosen: list[Sample], wanted: list[str], names: Mapping[int, str]) -> dict[str, Any]:
    draw = partial(_draw, wanted=tuple(wanted), names=names)
    return {"masks": LazyMasks([sample.located for sample in chosen], draw, len(wanted))}


def _draw(located: _Labelled, wanted: tuple[str, ...], names: Mapping[int, str]) -> Mask:
    columns = {name: column for column, name in enumerate(wanted)}
    mask = np.zeros((*located.coarse, len(wanted)), bool)
    for kind, path in located.files:
        numbers = _numbers(path, located.coarse)
        for number in np.unique(numbers).tolist():
            column = columns.get(f"{kind}::{names.get(number)}")
            if column is not None:
                mask[:, :, column] |= numbers == number
    (height, width), (rows, lines) = located.size, located.coarse
    return mask[np.arange(height) * rows // height][:, np.arange(width) * lines // width]
