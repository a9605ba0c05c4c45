"""Rows that do not lie in one array: in several files, or computed when they are read.

:class:`Shards` shows the rows of several files or arrays as those of one matrix, and
:class:`Mapped` shows a matrix whose rows go through a function. Both are read by
``values[rows]``, which gives an ordinary array of the rows asked for; nothing else is ever held.

The pages of a mapped file count as memory of the process once they were read, although they can be
dropped at any time. Whoever reads a file from end to end calls :func:`release`, so that its memory
does not grow with the file.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import get_config

__all__ = [
    "Mapped",
    "Shards",
    "all_finite",
    "as_floats",
    "may_hold",
    "on_disk",
    "pack",
    "read",
    "release",
    "row_chunks",
    "unpack",
]

Array = npt.NDArray[Any]

_DTYPES = ("float16", "float32", "float64", "bool")

# Values of a chunk that stays in the cache while it is converted, or goes through functions.
_CHUNK = 2**18
# Rows in a row, on average, that are worth reading as a stretch.
_STRETCH = 16
# Bytes of a file to ask for at a time.
_REQUEST = 2**19


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
    >>> from skact.shards import Shards
    >>> values = Shards([np.zeros((2, 3)), np.ones((4, 3))])
    >>> values.shape, values[1:4].sum(axis=1)
    ((6, 3), array([0., 3., 3.]))
    """

    ndim = 2

    def __init__(self, parts: Sequence[Any], *, bfloat16: bool = False) -> None:
        self.parts = list(parts)
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
        self._starts = np.cumsum([0, *map(len, self.parts)])
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
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                overlaps = self._overlaps(start, max(start, stop))
                pieces = [read(part, slice(a, b)) for part, a, b in overlaps]
                if len(pieces) == 1 and not self.bfloat16:
                    return pieces[0]
                return self._joined(pieces)
            rows = np.arange(start, stop, step)
        return self._gathered(_row_numbers(rows, len(self)))

    def _overlaps(self, start: int, stop: int) -> Iterator[tuple[Array, int, int]]:
        """Parts that hold some of the rows, and where they begin and end in each."""
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        for part, offset in zip(self.parts[first:], self._starts[first:].tolist(), strict=False):
            if offset >= stop:
                return
            if offset + len(part) > start:
                yield part, max(start - offset, 0), min(stop - offset, len(part))

    def _joined(self, pieces: list[Array]) -> Array:
        out = np.empty((sum(map(len, pieces)), self.shape[1]), self.dtype)
        done = 0
        for piece in pieces:
            out[done : done + len(piece)] = self._decoded(piece)
            done += len(piece)
        return out

    def _gathered(self, rows: Array) -> Array:
        out = np.empty((len(rows), self.shape[1]), self.dtype)
        number = np.searchsorted(self._starts, rows, side="right") - 1
        for k in np.unique(number):
            here = np.flatnonzero(number == k)
            out[here] = self._decoded(read(self.parts[k], rows[here] - self._starts[k]))
        return out

    def release(self, rows: slice | Array) -> None:
        """Let go of the pages that hold rows.

        Parameters
        ----------
        rows : slice or ndarray of int
            Which ones.
        """
        if isinstance(rows, slice):
            for part, start, stop in self._overlaps(*rows.indices(len(self))[:2]):
                release(part, slice(start, stop))
            return
        number = np.searchsorted(self._starts, rows, side="right") - 1
        for k in np.unique(number):
            release(self.parts[k], rows[number == k] - self._starts[k])

    def _decoded(self, piece: Array) -> Array:
        if not self.bfloat16:
            return piece
        # A bfloat16 is the upper half of a float32.
        bits = piece.astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "parts": [pack(part) for part in self.parts]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, parts=[unpack(part) for part in state["parts"]])

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
        self.values = values
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
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            n_rows = len(range(start, stop, step))
            rows = slice(start, stop) if step == 1 else np.arange(start, stop, step)
        else:
            rows = _row_numbers(rows, len(self))
            n_rows = len(rows)
        n_chunk = max(_CHUNK // max(self.values.shape[1], self.shape[1]), 1)
        if n_rows <= n_chunk:
            return self._computed(rows)
        out = np.empty((n_rows, self.shape[1]), self.dtype)
        for done in range(0, n_rows, n_chunk):
            to = min(done + n_chunk, n_rows)
            if isinstance(rows, slice):
                out[done:to] = self._computed(slice(rows.start + done, rows.start + to))
            else:
                out[done:to] = self._computed(rows[done:to])
        return out

    def _computed(self, rows: slice | Array) -> Array:
        return self.function(self.values[rows])

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "values": pack(self.values)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, values=unpack(state["values"]))

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


def as_floats(values: Array) -> Array:
    """Return values in a precision that linear algebra computes in, float32 or float64.

    Parameters
    ----------
    values : ndarray
        Of dtype float64, float32, float16 or bool.

    Returns
    -------
    values : ndarray
        As they are if float64 or float32, else in float32; half precision is for storage.
    """
    if values.dtype in (np.float64, np.float32):
        return values
    if values.dtype == np.float16 and values.flags.c_contiguous and all_finite(values):
        return _widened(values)
    return values.astype(np.float32)


def _widened(values: Array) -> Array:
    """Convert finite float16 to float32, several times faster than ``astype``.

    Shifted to the place of a float32's, the bits of a float16 are that number times 2**-112.
    """
    out = np.empty(values.shape, np.float32)
    given, made = values.reshape(-1).view(np.int16), out.reshape(-1)
    for start in range(0, len(made), _CHUNK):
        part = made[start : start + _CHUNK]
        bits = part.view(np.int32)
        bits[:] = given[start : start + _CHUNK]
        bits <<= 13
        # The sign was extended over the three bits that a float16's exponent does not have.
        bits &= np.int32(-0x70002000)
        part *= np.float32(2.0**112)
    return out


def row_chunks(values: Array) -> Iterator[Array]:
    """Cut rows into chunks that stay in the cache while something is computed from them.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_features)
        Rows.

    Yields
    ------
    chunk : ndarray of shape (n_rows_of_chunk, n_features)
        A view.
    """
    n_rows = max(_CHUNK // max(values.shape[1], 1), 1)
    for start in range(0, len(values), n_rows):
        yield values[start : start + n_rows]


def all_finite(values: Array) -> bool:
    """Tell whether no entry is NaN or infinite, without a mask as large as the values.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_features)
        Numbers of any dtype, or bools.

    Returns
    -------
    finite : bool
        True or False.
    """
    if values.dtype.kind != "f" or not values.size:
        return True
    flat = values.reshape(-1)
    for start in range(0, len(flat), _CHUNK):
        part = flat[start : start + _CHUNK]
        if part.dtype == np.float16:
            finite = np.bitwise_and(part.view(np.uint16), 0x7C00).max() < 0x7C00
        else:
            # A sum of squares is finite unless an entry is not, or is very large.
            with np.errstate(over="ignore", invalid="ignore"):
                finite = np.isfinite(np.vdot(part, part)) or np.isfinite(part).all()
        if not finite:
            return False
    return True


def may_hold(n_bytes: int) -> bool:
    """Tell whether something is small enough to be held whole.

    Parameters
    ----------
    n_bytes : int
        Its size.

    Returns
    -------
    small : bool
        Whether it takes at most half of scikit-learn's ``working_memory``.
    """
    return n_bytes <= get_config()["working_memory"] * 2**19


def on_disk(values: Any) -> bool:
    """Tell whether values are read from a file, or computed when they are read."""
    return isinstance(values, Shards | Mapped) or _mapping(values) is not None


def read(values: Any, rows: slice | Array) -> Array:
    """Read rows; those of a mapped file that are copied are let go of.

    Parameters
    ----------
    values : ndarray, memmap, Shards or Mapped of shape (n_rows, n_features)
        The rows.
    rows : slice or ndarray of int
        Which ones.

    Returns
    -------
    values : ndarray of shape (n_rows_read, n_features)
        A view where ``values`` can give one, else a copy.
    """
    if isinstance(values, np.memmap) and not isinstance(rows, slice):
        result = _in_stretches(values, rows)
    else:
        result = values[rows]
        _expect(result)
    if _mapping(result) is None:
        release(values, rows)
    return result


def _in_stretches(values: Array, rows: Array) -> Array:
    """Read rows of a mapped file; where many are neighbours, by stretches of them."""
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    if _STRETCH * len(cuts) >= len(rows):
        return np.asarray(values[rows])
    starts, ends = np.append(0, cuts).tolist(), np.append(cuts, len(rows)).tolist()
    stretches = [values[rows[a] : rows[a] + b - a] for a, b in zip(starts, ends, strict=True)]
    for stretch in stretches:
        _expect(stretch)
    result = np.empty((len(rows), values.shape[1]), values.dtype)
    for start, stretch in zip(starts, stretches, strict=True):
        result[start : start + len(stretch)] = stretch
    return result


def _expect(part: Array) -> None:
    """Ask for the pages of a mapped file in large pieces; a fault would fetch a small one."""
    if _mapping(part) is None or not part.nbytes or not hasattr(mmap, "MADV_WILLNEED"):
        return
    start = _position(part)
    # The system cuts longer requests off.
    for first in range(start - start % mmap.PAGESIZE, start + part.nbytes, _REQUEST):
        length = min(_REQUEST, start + part.nbytes - first)
        part._mmap.madvise(mmap.MADV_WILLNEED, first, length)  # type: ignore[attr-defined]


def release(values: Any, rows: slice | Array) -> None:
    """Let go of the pages of mapped files that hold rows; they are read again if needed again.

    Parameters
    ----------
    values : ndarray, memmap, Shards or Mapped
        Where the rows lie. Files with changes of this process's own (mode "c") are left alone.
    rows : slice or ndarray of int
        Which ones; for single rows, what lies between them goes as well.
    """
    if isinstance(values, Mapped):
        release(values.values, rows)
    elif isinstance(values, Shards):
        values.release(rows)
    elif _mapping(values) is not None and values.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        if not isinstance(rows, slice):
            rows = slice(int(rows.min()), int(rows.max()) + 1) if len(rows) else slice(0, 0)
        part = values[rows]
        if part.nbytes:
            start = _position(part)
            first = start - start % mmap.PAGESIZE
            part._mmap.madvise(mmap.MADV_DONTNEED, first, start + part.nbytes - first)


@dataclass(frozen=True)
class _FileRows:
    """Where rows lie in a file: what travels to another process instead of them."""

    filename: str
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def open(self) -> Any:
        return np.memmap(self.filename, self.dtype, "r", self.offset, self.shape)


def pack(values: Any) -> Any:
    """Replace an array that shows a file by the place of its rows.

    Parameters
    ----------
    values : object
        Values, of any kind.

    Returns
    -------
    packed : object
        Something small for a mapped file, else the values themselves.
    """
    mapping = _mapping(values)
    if mapping is None:
        return np.asarray(values) if isinstance(values, np.memmap) else values
    # Changes in mode "c" are in no file; an unnamed file cannot be opened again; and a temporary
    # copy of joblib's may be gone when the other side reads it.
    found = values.mode != "c" and values.filename and values.size and values.flags.c_contiguous
    if not found or "joblib_memmapping_folder" in os.fspath(values.filename):
        return values
    begins = values.offset - values.offset % mmap.ALLOCATIONGRANULARITY
    offset = begins + _position(values)
    return _FileRows(os.path.abspath(values.filename), offset, values.shape, values.dtype)


def unpack(packed: Any) -> Any:
    """Undo :func:`pack`; a file is mapped anew."""
    return packed.open() if isinstance(packed, _FileRows) else packed


def _mapping(values: Any) -> mmap.mmap | None:
    """Return the mapped file that an array shows, if it shows one."""
    return getattr(values, "_mmap", None) if isinstance(values, np.memmap) else None


def _position(values: Any) -> int:
    """Bytes from the begin of the mapping to the first value."""
    begin = np.frombuffer(values._mmap, np.uint8).__array_interface__["data"][0]
    return int(values.__array_interface__["data"][0] - begin)
