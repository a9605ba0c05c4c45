"""Masks that are made when they are asked for, from files or from what was read of them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, SupportsIndex, overload

import numpy as np
import numpy.typing as npt

from skact.files import check_size
from skact.samples import PIXELS_PER_BYTE

Mask = npt.NDArray[np.bool_]


class Masks(ABC):
    """A sequence of masks; one is made when it is asked for, and not kept.

    An integer gives one mask, an array of shape (height, width, n_concepts) and dtype bool. A
    slice, an array of indices or a boolean array gives another sequence and makes no mask.
    """

    @property
    @abstractmethod
    def n_concepts(self) -> int:
        """Channels of a mask."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _decode(self, row: int) -> Mask:
        """Make one mask."""

    @abstractmethod
    def _take(self, rows: npt.NDArray[np.int64]) -> Self:
        """Choose some of them."""

    @property
    def shape(self) -> tuple[int]:
        """``(n_samples,)``; lets scikit-learn index it without decoding."""
        return (len(self),)

    def __iter__(self) -> Iterator[Mask]:
        return (self._decode(row) for row in range(len(self)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n_samples={len(self)}, n_concepts={self.n_concepts})"

    @overload
    def __getitem__(self, key: SupportsIndex) -> Mask: ...

    @overload
    def __getitem__(self, key: slice | npt.ArrayLike | tuple[Any, ...]) -> Self: ...

    def __getitem__(self, key: Any) -> Mask | Self:
        if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis:
            key = key[0]
        if isinstance(key, list) and not key:
            key = slice(0)
        rows = np.arange(len(self))[key]
        if np.ndim(rows) == 0:
            return self._decode(int(rows))
        if rows.ndim != 1:
            raise IndexError(
                f"{type(self).__name__} has one dimension; the index gave {rows.ndim}."
            )
        return self._take(rows)


class LazyMasks(Masks):
    """Masks by a function.

    Parameters
    ----------
    recipes : sequence
        What each mask is made from.
    draw : callable
        Takes a recipe, returns a mask.
    n_concepts : int
        Channels of a mask.
    """

    def __init__(
        self, recipes: Sequence[Any], draw: Callable[[Any], Mask], n_concepts: int
    ) -> None:
        self._recipes, self._draw, self._n_concepts = tuple(recipes), draw, n_concepts

    @property
    def n_concepts(self) -> int:
        """Channels of a mask."""
        return self._n_concepts

    def __len__(self) -> int:
        return len(self._recipes)

    def _decode(self, row: int) -> Mask:
        return self._draw(self._recipes[row])

    def _take(self, rows: npt.NDArray[np.int64]) -> LazyMasks:
        return LazyMasks([self._recipes[row] for row in rows], self._draw, self.n_concepts)


def read_classes(
    path: str, size: tuple[int, int] | None = None, modes: Sequence[str] = ("L", "P")
) -> npt.NDArray[np.uint8]:
    """Decode a mask file whose pixel values are classes.

    Parameters
    ----------
    path : str
        An image of one channel, palettised or grey, of 8 bits.
    size : (int, int) or None, default=None
        Height and width that it has to have.
    modes : sequence of str, default=("L", "P")
        Modes of PIL that it may have; bilevel images hold 0 and 1.

    Returns
    -------
    pixels : ndarray of shape (height, width) or, for colours, (height, width, 3), dtype uint8
        The values.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no such image, or has another size.
    """
    from PIL import Image

    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no mask {path}.")
    try:
        with Image.open(path) as image:
            mode, shape = image.mode, (image.height, image.width)
            # What the header claims is judged before the pixels take memory.
            check_size(image.width * image.height, os.path.getsize(path), PIXELS_PER_BYTE)
            fits = mode in modes and size in (None, shape)
            pixels = np.asarray(image, dtype=np.uint8) if fits else np.empty(0, np.uint8)
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"Mask {path} cannot be read as an image: {error}.") from error
    if mode not in modes:
        expected = "a colour" if "RGB" in modes else "a grey or palettised"
        raise ValueError(f"Mask {path} must be {expected} image of 8 bits, got mode {mode!r}.")
    if not fits:
        raise ValueError(f"Mask {path} has (height, width) {shape}, expected {size}.")
    return pixels
