"""Photographs whose concepts have a place: pixel masks in the folder format, decoded on access."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.utils import Bunch

from skact.arguments import PATH, Such, checked
from skact.datasets import _files
from skact.datasets._gather import Asked, Sample, check_new_id, gather
from skact.datasets._lazy import Mask, Masks, read_classes
from skact.files import check_link, inside, read_json

_SEQUENCE = Such("a list", lambda v: isinstance(v, Sequence | np.ndarray) and _is_no_text(v))
_NUMBERS = Such("a list of ints", lambda v: isinstance(v, Collection) and _is_no_text(v))


def _is_no_text(value: Any) -> bool:
    return not isinstance(value, str | bytes | Mapping)


class MaskFiles(Masks):
    """Pixel masks on disk as a sequence; a mask is decoded when it is asked for, and not kept.

    An integer gives one mask as an array. A slice, an array of indices or a boolean array gives
    another `MaskFiles` and decodes nothing, so that splitting and cross-validation stay cheap.

    Parameters
    ----------
    paths : sequence of str or path-like
        Single-channel images (PNG, palettised or grey, 8 bits) whose pixel values are classes.
    values : sequence of int
        Pixel value of each concept, in the order of the last axis of a decoded mask.
    known : collection of int or None, default=None
        Pixel values that a file may hold; any other one is an error. None allows every value.
    sizes : sequence of (int, int) or None, default=None
        Height and width that each file has to have. None skips the check, for one file or for all.

    Attributes
    ----------
    paths : tuple of str
        Where the masks are.
    values : tuple of int
        Pixel value of each concept.
    shape : tuple of int
        ``(n_samples,)``; lets scikit-learn index it without decoding.

    Raises
    ------
    ValueError
        On access: if a file is no single-channel 8-bit image, has another size than stated, or
        holds an unknown value. On creation: if `sizes` and `paths` differ in length,
        or a value is no pixel value.
    FileNotFoundError
        On access: if a file is missing.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from PIL import Image
    >>> from skact.datasets import MaskFiles
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "mask.png")
    ...     Image.fromarray(np.array([[1, 2], [2, 255]], dtype=np.uint8)).save(path)
    ...     masks = MaskFiles([path], values=[1, 2])
    ...     mask = masks[0]
    >>> mask.shape, mask[:, :, 1].tolist()
    ((2, 2, 2), [[False, True], [True, False]])
    """

    @checked(
        paths=[_SEQUENCE],
        values=[_NUMBERS],
        known=[_NUMBERS, None],
        sizes=[_SEQUENCE, None],
    )
    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        values: Sequence[int],
        *,
        known: Collection[int] | None = None,
        sizes: Sequence[tuple[int, int] | None] | None = None,
    ) -> None:
        if sizes is not None and len(sizes) != len(paths):
            raise ValueError(f"Got {len(paths)} paths and {len(sizes)} sizes.")
        _check_values(values, "values")
        _check_values(() if known is None else known, "known")
        for i, path in enumerate(paths):
            if not PATH.is_satisfied_by(path):
                raise TypeError(f"paths[{i}] must be a path, got {path!r:.80}.")
        for i, size in enumerate(sizes or ()):
            if size is not None and not (isinstance(size, tuple | list) and len(size) == 2):
                raise ValueError(f"sizes[{i}] must be (height, width) or None, got {size!r:.80}.")
        self.paths = tuple(os.fspath(path) for path in paths)
        self.values = tuple(int(value) for value in values)
        self._known = None if known is None else frozenset(int(value) for value in known)
        self._sizes = None if sizes is None else tuple(sizes)

    @property
    def n_concepts(self) -> int:
        """Channels of a mask."""
        return len(self.values)

    def _take(self, rows: npt.NDArray[np.int64]) -> MaskFiles:
        return MaskFiles(
            [self.paths[row] for row in rows],
            self.values,
            known=self._known,
            sizes=None if self._sizes is None else [self._sizes[row] for row in rows],
        )

    def __len__(self) -> int:
        return len(self.paths)

    def _decode(self, row: int) -> Mask:
        path, size = self.paths[row], None if self._sizes is None else self._sizes[row]
        pixels = read_classes(path, size)
        if self._known is not None:
            unknown = sorted(set(np.unique(pixels).tolist()) - self._known)
            if unknown:
                raise ValueError(
                    f"Mask {path} holds the value {unknown[0]}, which is no class; known are "
                    f"{sorted(self._known)}."
                )
        return np.asarray(pixels[:, :, None] == np.asarray(self.values, dtype=np.int64))


@_files.reads_a_folder
def load_masks(
    folder: str | os.PathLike[str],
    *,
    split: str | None = None,
    concepts: Iterable[str] | None = None,
    min_samples: int = 0,
) -> Bunch:
    """Read a folder of images with pixel masks; no image and no mask is decoded.

    The folder holds

    - ``classes.json``: an object with ``classes``, names by pixel value (as a string), ``ignore``,
      the value of unlabelled pixels (255 if not given), and, if there is one, ``background``, the
      value of labelled background. Neither of the two is a concept.
    - ``index.jsonl`` (UTF-8, one JSON object a line): ``id``, ``image`` and ``mask`` (paths inside
      the folder), ``labels`` (names of the classes that occur), ``split`` (``train``, ``cal`` or
      ``test``) and, if given, ``width`` and ``height`` in pixels and ``group``, a string or an
      integer; samples of one group belong into one split.
    - the images, and one mask per image: 8-bit palettised or grey, of the image's size, whose pixel
      values are those of ``classes.json``.

    Parameters
    ----------
    folder : str or path-like
        The folder.
    split : {"train", "cal", "test"} or None, default=None
        Samples to return, all of them if None.
    concepts : iterable of str or None, default=None
        Classes to keep, in the order of the columns wanted; all classes if None. Samples without
        any of them stay, as negatives.
    min_samples : int, default=0
        Classes of fewer samples, counted over all splits, are left out; of `concepts`, refused.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With the attributes

        data : list of str
            Absolute paths of the `n_samples` images.
        masks : MaskFiles
            ``masks[i]`` is a bool array of shape (height, width, n_concepts), read when asked for.
            Unlabelled and background pixels are False in every channel.
        target : ndarray of shape (n_samples, n_concepts), dtype int64
            1 where the class is among an image's ``labels``.
        target_names : list of str
            The classes by rising pixel value, or `concepts`.
        split : ndarray of shape (n_samples,), dtype str
            Split of every sample.
        groups : ndarray of shape (n_samples,), dtype str
            Group of every sample, its id where it has none.
        ids : list of str
            Id of every sample.
        DESCR : str
            Text of the folder's ``README.md``, empty if there is none.

    Raises
    ------
    FileNotFoundError
        If the folder, one of its two JSON files, or an image or mask of the index is missing.
    ValueError
        If a file does not hold what is described above, or a path leads out of the folder (the
        message names file and line), or if `split` or `concepts` ask for something that the folder
        does not have. A mask is checked when it is read, not before.

    Examples
    --------
    >>> from skact.datasets import load_masks
    >>> photos = load_masks("photos", split="train")  # doctest: +SKIP
    >>> photos.masks[0].shape  # doctest: +SKIP
    (213, 320, 22)
    """
    root = _files.open_folder(folder)
    classes = _read_classes(check_link(root, root / "classes.json"))
    samples: list[Sample] = []
    ids: dict[str, str] = {}
    for where, record in _files.read_records(check_link(root, root / "index.jsonl")):
        samples.append(_read_sample(record, root, classes.names, where))
        check_new_id(samples[-1].identifier, ids, where)

    def place(chosen: list[Sample], names: list[str]) -> dict[str, Any]:
        paths, sizes = zip(*(sample.located for sample in chosen), strict=True)
        values = [classes.values[name] for name in names]
        return {"masks": MaskFiles(paths, values, known=classes.known, sizes=sizes)}

    asked, names = Asked(split, concepts, min_samples), list(classes.values)
    return gather(samples, names, asked, root, place, _files.read_description(root))


def _check_values(values: Iterable[Any], name: str) -> None:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= int(value) <= 255:
            raise ValueError(f"{name} must hold pixel values from 0 to 255, got {value!r:.80}.")


class _Classes(NamedTuple):
    values: dict[str, int]  # concept -> pixel value, by rising value
    names: frozenset[str]  # of the concepts and, if it has one, of the background
    known: frozenset[int]


def _read_classes(path: Path) -> _Classes:
    content = read_json(path)
    classes = content.get("classes") if isinstance(content, dict) else None
    if not isinstance(classes, dict) or not classes:
        raise ValueError(f"{path}: 'classes' must be an object of names by pixel value.")
    by_value: dict[int, str] = {}
    for value, name in classes.items():
        if not re.fullmatch("0|[1-9][0-9]{0,2}", value) or int(value) > 255:
            raise ValueError(f"{path}: {value!r:.80} is no pixel value from 0 to 255.")
        if not isinstance(name, str) or not name or name in by_value.values():
            raise ValueError(
                f"{path}: class {value} must have a name of its own, got {name!r:.80}."
            )
        by_value[int(value)] = name
    others = [content.get("ignore", 255), content.get("background")]
    others = [other for other in others if other is not None]
    if any(type(other) is not int or not 0 <= other <= 255 for other in others):
        raise ValueError(f"{path}: 'ignore' and 'background' must be pixel values or null.")
    concepts = {by_value[value]: value for value in sorted(set(by_value) - set(others))}
    return _Classes(concepts, frozenset(by_value.values()), frozenset([*others, *by_value]))


def _read_sample(record: dict[str, Any], root: Path, names: frozenset[str], where: str) -> Sample:
    labels = _files.get_list(record, "labels", where)
    for label in labels:
        if not isinstance(label, str) or label not in names:
            raise ValueError(f"{where}: label {label!r:.80} is no class of classes.json.")
    size = None
    if "width" in record or "height" in record:
        height, width = record.get("height"), record.get("width")
        if type(height) is not int or type(width) is not int:
            raise ValueError(f"{where}: 'width' and 'height' must be integers, or both missing.")
        size = (height, width)
    mask = inside(root, _files.get_string(record, "mask", where), f"{where}: 'mask'")
    return Sample(
        _files.get_string(record, "id", where),
        inside(root, _files.get_string(record, "image", where), f"{where}: 'image'"),
        labels,
        (mask, size),
        _files.get_split(record, where),
        _files.get_group(record, where),
    )
