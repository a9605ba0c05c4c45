"""Rows that do not lie in one array: in several files, or computed when they are read.

:class:`Shards` shows the rows of several files or arrays as those of one matrix, and
:class:`Mapped` shows a matrix whose rows go through a function. Both are read by
``values[rows]``, which gives an ordinary array of the rows asked for; nothing else is ever held.

The pages of a mapped file count as memory of the process once they were read, although they can be
dropped at any time. Whoever reads a file from end to end calls :func:`release`, so that its memory
does not grow with the file.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn import config_context, get_config

from skact.floats import CHUNK

__all__ = [
    "Mapped",
    "Shards",
    "expect",
    "may_hold",
    "on_disk",
    "pack",
    "read",
    "read_ahead",
    "release",
    "unpack",
]

Array = npt.NDArray[Any]
T = TypeVar("T")

_DTYPES = ("float16", "float32", "float64", "bool")

# Rows in a row, on average, that are worth reading as a stretch.
_STRETCH = 16
# Threads that read ahead.
_READERS = 2
# Bytes of a file to ask for at a time, and those that a fault maps around it.
_REQUEST, _AROUND = 2**19, 2**16
# Absent on Windows, where nothing is asked for or let go of.
_WILL_NEED, _DONT_NEED = (getattr(mmap, f"MADV_{do}", -1) for do in ("WILLNEED", "DONTNEED"))


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
        chosen = _selection(rows, len(self))
        if not isinstance(chosen[0], slice):
            return self._gathered(chosen[0])
        pieces = [
            part[start:stop] for stretch in chosen for part, start, stop in self._overlaps(stretch)
        ]
        if len(pieces) == 1 and not self.bfloat16:
            return pieces[0]
        return self._joined(pieces)

    def _overlaps(self, rows: slice) -> Iterator[tuple[Array, int, int]]:
        """Parts that hold some of the rows, and where they begin and end in each."""
        start, stop = rows.start, rows.stop
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
            out[here] = self._decoded(self.parts[k][rows[here] - self._starts[k]])
        return out

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
        size = max(CHUNK // max(self.values.shape[1], self.shape[1]), 1)
        chunks = [part for some in _selection(rows, len(self)) for part in _cut(some, size)]
        if len(chunks) == 1:
            return self.function(self.values[chunks[0]])
        out = np.empty((sum(map(_n_rows, chunks)), self.shape[1]), self.dtype)
        done = 0
        for chunk in chunks:
            part = self.function(self.values[chunk])
            out[done : done + len(part)] = part
            done += len(part)
        return out

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


def _selection(rows: Any, n_rows: int) -> list[Any]:
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


def _cut(rows: Any, size: int) -> list[Any]:
    """Cut a stretch or row numbers into chunks of about equal size."""
    start, n_rows = (rows.start, _n_rows(rows)) if isinstance(rows, slice) else (0, len(rows))
    n_chunks = max(round(n_rows / size), 1)
    cuts = [start + n_rows * i // n_chunks for i in range(n_chunks + 1)]
    parts = [slice(first, last) for first, last in pairwise(cuts)]
    return parts if isinstance(rows, slice) else [rows[part] for part in parts]


def _n_rows(chunk: Any) -> int:
    return chunk.stop - chunk.start if isinstance(chunk, slice) else len(chunk)


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
    expect(values, rows)
    return _read_expected(values, rows)


def _read_expected(values: Any, rows: slice | Array) -> Array:
    result: Array = values[rows]
    if not _shows_file(result):
        release(values, rows)
    return result


def read_ahead(
    values: Any, pieces: Sequence[T], rows_of: Callable[[T], slice | Array]
) -> Iterator[Array]:
    """Read pieces one after the other, and let go of each once the next is asked for.

    While one of :class:`Shards` or :class:`Mapped` is used, threads read and compute those behind
    it, and the system fetches what comes after them.

    Parameters
    ----------
    values : ndarray, memmap, Shards or Mapped of shape (n_rows, n_features)
        The rows.
    pieces : sequence
        Pieces, of any kind.
    rows_of : callable
        Gives the rows of a piece, a slice or an ndarray of int.

    Yields
    ------
    values : ndarray of shape (n_rows_of_piece, n_features)
        As from :func:`read`.
    """
    # A piece is asked for, read and let go of while no more than these others are.
    rows = lru_cache(2 * _READERS + 2)(lambda number: rows_of(pieces[number]))
    if isinstance(values, Shards | Mapped):
        blocks = _in_threads(values, len(pieces), rows)
    else:
        blocks = (read(values, rows(number)) for number in range(len(pieces)))
    for number, block in enumerate(blocks):
        yield block
        if _shows_file(block):
            release(values, rows(number))


def _in_threads(
    values: Any, n_pieces: int, rows: Callable[[int], slice | Array]
) -> Iterator[Array]:
    """Read pieces by their numbers, with those behind in threads."""
    # scikit-learn keeps a configuration for each thread.
    config = get_config()

    def reading(number: int) -> Array:
        with config_context(**config):
            if number + _READERS < n_pieces:
                expect(values, rows(number + _READERS))
            return _read_expected(values, rows(number))

    for first in range(min(_READERS, n_pieces)):
        expect(values, rows(first))
    with ThreadPoolExecutor(_READERS) as readers:
        ahead: deque[Future[Array]] = deque()
        for number in range(n_pieces):
            while number + len(ahead) < min(number + _READERS + 1, n_pieces):
                ahead.append(readers.submit(reading, number + len(ahead)))
            yield ahead.popleft().result()


def expect(values: Any, rows: slice | Array) -> None:
    """Ask for rows of mapped files in large pieces; where they are used, a fault asks for a page.

    Parameters
    ----------
    values : ndarray, memmap, Shards or Mapped
        Where the rows lie.
    rows : slice or ndarray of int
        Which ones; where they are not neighbours, nothing is asked for.
    """
    for mapping, start, n_bytes in _in_files(values, rows, exactly=True):
        # The system cuts longer requests off.
        for first in range(start - start % mmap.PAGESIZE, start + n_bytes, _REQUEST):
            _advise(mapping, first, min(first + _REQUEST, start + n_bytes), _WILL_NEED)


def release(values: Any, rows: slice | Array) -> None:
    """Let go of the pages of mapped files that hold rows; they are read again if needed again.

    Parameters
    ----------
    values : ndarray, memmap, Shards or Mapped
        Where the rows lie. Files with changes of this process's own (mode "c") are left alone.
    rows : slice or ndarray of int
        Which ones; for single rows, what lies between them goes as well.
    """
    for mapping, start, n_bytes in _in_files(values, rows, exactly=False):
        stop = start + n_bytes
        _advise(mapping, start - start % _AROUND, stop + -stop % _AROUND, _DONT_NEED)


def _advise(mapping: mmap.mmap, first: int, stop: int, advice: int) -> None:
    """Tell the system what will happen to bytes of a mapping; it may not know, or not listen.

    ``mmap.madvise`` would stop all other threads of Python until pages are found for the bytes.
    """
    begin, n_bytes = _address(mapping) + first, min(stop, len(mapping)) - first
    _libc().madvise(ctypes.c_void_p(begin), ctypes.c_size_t(n_bytes), advice)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _address(mapping: mmap.mmap) -> int:
    return int(np.frombuffer(mapping, np.uint8).__array_interface__["data"][0])


def _in_files(
    values: Any, rows: slice | Array, exactly: bool
) -> Iterator[tuple[mmap.mmap, int, int]]:
    """Find rows in mapped files: the mapping, the byte where they begin, and bytes from there.

    Of single rows there is nothing if ``exactly``, else all that lies between them.
    """
    if isinstance(values, Mapped):
        yield from _in_files(values.values, rows, exactly)
    elif isinstance(values, Shards):
        for stretch in _spans(rows, len(values), exactly):
            for part, start, stop in values._overlaps(stretch):
                yield from _in_files(part, slice(start, stop), exactly)
    elif _mapping(values) is not None and values.mode != "c" and _DONT_NEED >= 0:
        for stretch in _spans(rows, len(values), exactly):
            part = values[stretch]
            if part.nbytes:
                yield part._mmap, _position(part), part.nbytes


def _spans(rows: slice | Array, n_rows: int, exactly: bool) -> list[slice]:
    chosen = _selection(rows, n_rows)
    if isinstance(chosen[0], slice):
        return chosen
    if exactly or not len(chosen[0]):
        return []
    return [slice(int(chosen[0].min()), int(chosen[0].max()) + 1)]


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


def _shows_file(values: Array) -> bool:
    """Tell whether an array is a view on a mapped file, of whatever class."""
    owner: Any = values
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return isinstance(owner, mmap.mmap)


def _position(values: Any) -> int:
    """Bytes from the begin of the mapping to the first value."""
    return int(values.__array_interface__["data"][0]) - _address(values._mmap)
