"""Rows that do not lie in one array: in several files, or computed when they are read.

:class:`Shards` shows the rows of several files or arrays as those of one matrix, and
:class:`Mapped` shows a matrix whose rows go through a function. Both are read by
``values[rows]``, which gives an ordinary array of the rows asked for; nothing else is ever held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from itertools import pairwise
from typing import Any

import numpy as np

from skact.rows._files import FileRows
from skact.rows._floats import CHUNK
from skact.rows._ragged import offsets_of, segment_at
from skact.rows._types import Array

__all__ = ["Mapped", "Shards", "cut", "load", "parts_of", "selection"]


_DTYPES = ("float16", "float32", "float64", "bool")

# Rows in a row, on average, that are worth reading as a stretch.
_STRETCH = 16


class Shards:
    """Rows of one matrix that lie in several files or arrays.

    Parameters
    ----------
    parts : sequence of ndarray, memmap, Shards or Mapped of shape (n_rows_i, n_features)
        The rows, part after part: C-contiguous, of one width and one dtype, which is float16,
        float32, float64 or bool. Nothing is copied, and files are not read.
    bfloat16 : bool, default=False
        Whether the parts hold the bits of bfloat16 numbers as uint16; they are read as float32.

    Attributes
    ----------
    shape : tuple
        ``(n_rows, n_features)``.
    dtype : dtype
        Of the rows as they are read.
    nbytes : int
        Bytes as they are stored.

    Raises
    ------
    ValueError
        If there is no part, or parts are not 2-D or differ in width.
    TypeError
        If parts differ in dtype, or have one that is not listed above.

    Examples
    --------
    >>> import numpy as np
    >>> from skact.rows import Shards
    >>> values = Shards([np.zeros((2, 3)), np.ones((4, 3))])
    >>> values.shape, values[1:4].sum(axis=1)
    ((6, 3), array([0., 3., 3.]))
    """

    ndim = 2

    def __init__(self, parts: Sequence[Any], *, bfloat16: bool = False) -> None:
        self.parts = [FileRows.of(part) for part in parts]
        self.bfloat16 = bfloat16
        if not self.parts:
            raise ValueError("parts must hold at least one array.")
        first = self.parts[0]
        allowed = ("uint16",) if bfloat16 else _DTYPES
        for i, part in enumerate(self.parts):
            if getattr(part, "ndim", None) != 2:
                raise ValueError(
                    f"part {i} must be a 2-D array, got "
                    f"{getattr(part, 'shape', type(part).__name__)}."
                )
            if part.shape[1] != first.shape[1]:
                raise ValueError(
                    f"part {i} has {part.shape[1]} columns, part 0 has {first.shape[1]}."
                )
            if part.dtype != first.dtype or part.dtype.name not in allowed:
                raise TypeError(
                    f"parts must have one dtype of {allowed}, got {part.dtype} in part {i} and "
                    f"{first.dtype} in part 0."
                )
            if isinstance(part, np.ndarray) and not part.flags.c_contiguous:
                raise ValueError(f"part {i} must be C-contiguous.")
        self._starts = offsets_of([len(part) for part in self.parts])
        self.shape = (int(self._starts[-1]), int(first.shape[1]))
        self.dtype = np.dtype(np.float32) if bfloat16 else first.dtype

    @property
    def nbytes(self) -> int:
        """Bytes as they are stored."""
        return sum(part.nbytes for part in self.parts)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Array) -> Array:
        """Read rows.

        Parameters
        ----------
        rows : slice or ndarray of int
            Which ones; negative numbers count from the end.

        Returns
        -------
        values : ndarray of shape (n_rows_read, n_features)
            A view where a slice lies in one part that need not be decoded, else a copy.

        Raises
        ------
        IndexError
            If a row is out of range.
        """
        chosen = selection(rows, len(self))
        if not isinstance(chosen[0], slice):
            return self._gathered(chosen[0])
        places = [place for stretch in chosen for place in self._overlaps(stretch)]
        if len(places) == 1 and not self.bfloat16:
            part, start, stop = places[0]
            rows_read: Array = part[start:stop]
            return rows_read
        return self._joined(places)

    def _overlaps(self, rows: slice) -> Iterator[tuple[Array, int, int]]:
        """Parts that hold some of the rows, and where they begin and end in each."""
        start, stop = rows.start, rows.stop
        first = int(segment_at(self._starts, start))
        for part, offset in zip(self.parts[first:], self._starts[first:].tolist(), strict=False):
            if offset >= stop:
                return
            if offset + len(part) > start:
                yield part, max(start - offset, 0), min(stop - offset, len(part))

    def _joined(self, places: list[tuple[Any, int, int]]) -> Array:
        out = np.empty((sum(stop - start for _, start, stop in places), self.shape[1]), self.dtype)
        done = 0
        for part, start, stop in places:
            out[done : done + stop - start] = self._decoded(part[start:stop])
            done += stop - start
        return out

    def _gathered(self, rows: Array) -> Array:
        out = np.empty((len(rows), self.shape[1]), self.dtype)
        number = segment_at(self._starts, rows)
        for k in np.unique(number):
            here = np.flatnonzero(number == k)
            out[here] = self._decoded(self.parts[k][rows[here] - self._starts[k]])
        return out

    def _decoded(self, piece: Array) -> Array:
        if not self.bfloat16:
            return piece
        # A bfloat16 is the upper half of a float32.
        bits = piece.astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)

    def __repr__(self) -> str:
        kind = "bfloat16, read as float32" if self.bfloat16 else self.dtype
        return f"Shards({len(self.parts)} parts, shape {self.shape}, {kind})"


class Mapped:
    """Rows of a matrix that go through a function whenever they are read.

    Parameters
    ----------
    values : ndarray, memmap, Shards or Mapped of shape (n_rows, n_features)
        The rows.
    function : callable
        Takes (n, n_features), returns (n, n_new_features), row by row. Must not change what it
        is given, and must be one that can be pickled if the rows are to reach other processes.

    Attributes
    ----------
    shape : tuple
        ``(n_rows, n_new_features)``.
    dtype : dtype
        Of the result.
    """

    ndim = 2

    def __init__(self, values: Any, function: Callable[[Array], Array]) -> None:
        self.values = FileRows.of(values)
        self.function = function
        one = function(values[:1])
        self.shape = (int(values.shape[0]), int(one.shape[1]))
        self.dtype = one.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of what is read to compute the rows."""
        return int(self.values.nbytes)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Array) -> Array:
        """Compute rows.

        Parameters
        ----------
        rows : slice or ndarray of int
            Which ones.

        Returns
        -------
        values : ndarray of shape (n_rows_read, n_new_features)
            The result, which is not kept.
        """
        size = max(CHUNK // max(self.values.shape[1], self.shape[1]), 1)
        chunks = [
            part
            for some in selection(rows, len(self))
            for part in cut(some, max(round(_n_rows(some) / size), 1))
        ]
        if len(chunks) == 1:
            return self.function(self.values[chunks[0]])
        out = np.empty((sum(map(_n_rows, chunks)), self.shape[1]), self.dtype)
        done = 0
        for chunk in chunks:
            part = self.function(self.values[chunk])
            out[done : done + len(part)] = part
            done += len(part)
        return out

    def _over(self, values: Any) -> Mapped:
        """Put other rows through the same function."""
        other = copy(self)
        other.values, other.shape = values, (len(values), self.shape[1])
        return other

    def __repr__(self) -> str:
        return f"Mapped(shape {self.shape}, {self.dtype}, of {self.values!r})"


def _row_numbers(rows: Any, n_rows: int) -> Array:
    numbers = np.asarray(rows)
    if numbers.dtype.kind == "b" and numbers.shape == (n_rows,):
        return np.flatnonzero(numbers)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise IndexError(
            "rows are read by a slice or a 1-D array of integers, got "
            f"{numbers.ndim}-D of dtype {numbers.dtype}."
        )
    numbers = numbers.astype(np.int64)
    wrong = (numbers < -n_rows) | (numbers >= n_rows)
    if wrong.any():
        raise IndexError(f"row {numbers[wrong][0]} is out of range for {n_rows} rows.")
    return np.where(numbers < 0, numbers + n_rows, numbers)


def selection(rows: Any, n_rows: int) -> list[Any]:
    """Say which rows to read: in stretches of neighbours, or all by their numbers."""
    if isinstance(rows, slice):
        start, stop, step = rows.indices(n_rows)
        if step == 1:
            return [slice(start, max(start, stop))]
        numbers = np.arange(start, stop, step)
    else:
        numbers = _row_numbers(rows, n_rows)
    stretches: list[Any] = list(_stretches(numbers))
    return stretches or [numbers]


def _stretches(numbers: Array) -> list[slice]:
    """Cut row numbers into stretches that go on by one; none where they are short."""
    cuts = np.flatnonzero(np.diff(numbers) != 1) + 1
    if _STRETCH * len(cuts) >= len(numbers):
        return []
    firsts = numbers[np.append(0, cuts)].tolist()
    lengths = np.diff(cuts, prepend=0, append=len(numbers)).tolist()
    return [slice(first, first + length) for first, length in zip(firsts, lengths, strict=True)]


def cut(rows: Any, n_chunks: int) -> list[Any]:
    """Cut a stretch or row numbers into chunks of about equal size."""
    start, n_rows = (rows.start, _n_rows(rows)) if isinstance(rows, slice) else (0, len(rows))
    cuts = [start + n_rows * i // n_chunks for i in range(n_chunks + 1)]
    parts = [slice(first, last) for first, last in pairwise(cuts)]
    return parts if isinstance(rows, slice) else [rows[part] for part in parts]


def _n_rows(chunk: Any) -> int:
    return chunk.stop - chunk.start if isinstance(chunk, slice) else len(chunk)


def parts_of(values: Any, stretches: Sequence[slice]) -> Iterator[Array]:
    """Give the arrays that hold stretches of rows, in files or in memory."""
    if isinstance(values, Mapped):
        yield from parts_of(values.values, stretches)
    elif isinstance(values, Shards):
        for stretch in stretches:
            for part, start, stop in values._overlaps(stretch):
                yield from parts_of(part, [slice(start, stop)])
    else:
        yield from (values[stretch] for stretch in stretches)


def load(values: Any, stretches: Sequence[slice], read: Callable[[Array, slice], Array]) -> Any:
    """Give stretches of rows as values of the same kind, with those of arrays read."""
    if isinstance(values, Mapped):
        return values._over(load(values.values, stretches, read))
    if isinstance(values, Shards):
        parts = [
            load(part, [slice(start, stop)], read)
            for stretch in stretches
            for part, start, stop in values._overlaps(stretch)
        ]
        return Shards(parts, bfloat16=values.bfloat16)
    parts = [read(values, stretch) for stretch in stretches]
    return parts[0] if len(parts) == 1 else Shards(parts)
