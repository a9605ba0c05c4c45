"""Rows in mapped files: where they lie, and the pages that the system keeps of them.

The pages of a mapped file count as memory of the process once they were read, although they can be
dropped at any time. Whoever reads a file from end to end lets go of them, so that its memory does
not grow with the file.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from functools import cache
from io import FileIO
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from skact.cached import cached_property
from skact.rows._types import Array

__all__ = ["FileRows", "ask_for", "expect_single_rows", "let_go", "mapping", "shows_file"]


# Bytes of a file to ask for at a time, as longer requests are cut off, and those that a fault maps.
_REQUEST, _AROUND = 2**19, 2**16
# Absent on Windows, where nothing is asked for or let go of.
_WILL_NEED, _DONT_NEED, _RANDOM, _NORMAL = (
    getattr(mmap, f"MADV_{advice}", -1) for advice in ("WILLNEED", "DONTNEED", "RANDOM", "NORMAL")
)


class FileRows(np.memmap[Any, Any]):
    """Rows of a file that is mapped to be read, which know where they lie, as do views on them.

    Pickles hold that place instead of the rows, and are read by mapping the file anew.

    Parameters
    ----------
    path : str or Path
        The file.
    dtype : dtype
        Of the numbers.
    shape : tuple of int, default=None
        ``(n_rows, n_features)``; None shows all numbers that follow as one run, to be reshaped.
    offset : int, default=0
        Bytes of the file before the first row.

    Attributes
    ----------
    inode : tuple of int, or None
        The device and the number of the file, whatever has its name by now. None in views on
        a ``numpy.memmap``, which does not say what it has mapped.

    Raises
    ------
    OSError
        When rows are taken, if the file is shorter than it was.

    Examples
    --------
    >>> import os, pickle, tempfile
    >>> import numpy as np
    >>> from skact.rows import FileRows
    >>> path = os.path.join(tempfile.mkdtemp(), "rows.f32")
    >>> np.arange(300, dtype=np.float32).tofile(path)
    >>> rows = FileRows(path, np.float32, (100, 3))[10:20]
    >>> rows.place, pickle.loads(pickle.dumps(rows))[0]
    (120, FileRows([30., 31., 32.], dtype=float32))
    """

    inode: tuple[int, int] | None

    def __new__(
        cls,
        path: str | Path,
        dtype: npt.DTypeLike,
        shape: tuple[int, ...] | None = None,
        offset: int = 0,
    ) -> Self:
        with FileIO(os.fspath(path)) as file:
            rows: Any = super().__new__(cls, file, dtype, "r", offset, shape)
            rows.inode = _inode(file)
            return rows

    @classmethod
    def of(cls, values: Any) -> Any:
        """Turn a ``numpy.memmap`` into FileRows, a copy of one into an ndarray; keep the rest."""
        if not isinstance(values, np.memmap):
            return values
        if mapping(values) is None:
            return np.asarray(values)
        return values if isinstance(values, cls) else values.view(cls)

    @cached_property
    def place(self) -> int:
        """Bytes of the file before the first number."""
        return self.offset - self.offset % mmap.ALLOCATIONGRANULARITY + _extent(self)[1]

    def open(self, way: int) -> FileIO | None:
        """Open the file of rows side by side with flags of :func:`os.open`, if it has its name."""
        if self.inode is None or not self.flags.c_contiguous:
            return None
        try:
            file = FileIO(str(self.filename), opener=lambda name, flags: os.open(name, flags | way))
        except OSError:
            return None
        if _inode(file) == self.inode:
            return file
        file.close()
        return None

    def __array_finalize__(self, parent: Any) -> None:
        super().__array_finalize__(parent)
        self.inode = getattr(parent, "inode", None)

    # numpy makes ndarrays of what shows no file any more, but only of memmaps themselves.
    def __getitem__(self, key: Any) -> Any:
        self._refuse_cut()
        return FileRows.of(super().__getitem__(key))

    def _refuse_cut(self) -> None:
        """Raise OSError if the file became shorter: reading what is gone would end the process.

        Nothing can be said of a file that has lost its name, nor of what happens from now on.
        """
        mapped = mapping(self)
        if mapped is None or self.inode is None:
            return
        try:
            status = os.stat(str(self.filename))
        except OSError:
            return
        end = self.offset - self.offset % mmap.ALLOCATIONGRANULARITY + len(mapped)
        if (status.st_dev, status.st_ino) == self.inode and status.st_size < end:
            raise OSError(
                f"{str(self.filename)!r} was cut off while it is read: it has {status.st_size} "
                f"bytes left of at least {end}."
            )

    def __array_wrap__(self, array: Array, context: Any = None, return_scalar: bool = False) -> Any:
        return array[()] if return_scalar else array

    def __reduce__(self) -> tuple[Any, ...]:
        name = os.fspath(self.filename or "")
        # Changes in mode "c" are in no file, and a temporary copy of joblib's may soon be gone.
        lasts = name and self.mode != "c" and "joblib_memmapping_folder" not in name
        if lasts and self.flags.c_contiguous:
            return FileRows, (name, self.dtype, self.shape, self.place)
        return np.array, (np.asarray(self),)


def _inode(file: FileIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino


def mapping(values: Any) -> mmap.mmap | None:
    """Return the mapped file that an array shows, if it shows one."""
    return getattr(values, "_mmap", None) if isinstance(values, np.memmap) else None


def shows_file(values: Array) -> bool:
    """Tell whether an array is a view on a mapped file, of whatever class."""
    owner: Any = values
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return isinstance(owner, mmap.mmap)


def _extent(values: Any) -> tuple[int, int]:
    """Address of a mapping, and bytes from there to the first number of an array that shows it."""
    address = np.frombuffer(values._mmap, np.uint8).ctypes.data
    return address, values.ctypes.data - address


def ask_for(part: Array) -> None:
    """Have the system fetch rows at once; left to faults, it takes many requests."""
    _advise(part, _WILL_NEED, mmap.PAGESIZE, _REQUEST)


def expect_single_rows(part: Array, yes: bool) -> None:
    """Tell the system whether the rows of a mapping are read one here, one there.

    If so, it fetches no more than is read; else several MiB around it, for what may come next.
    """
    _advise(part, _RANDOM if yes else _NORMAL, 2**62)


def let_go(part: Array) -> None:
    """Let go of the pages that hold rows; they are read again if needed again."""
    _advise(part, _DONT_NEED, _AROUND)


def _advise(part: Any, advice: int, unit: int, most: int = 2**62) -> None:
    """Tell the system what will happen to rows, in whole units; it may not know, or not listen.

    Nothing is said of arrays in memory, nor of a file with changes of this process's own, mode "c",
    which would be lost. ``mmap.madvise`` would stop all other threads of Python meanwhile.
    """
    mapped = mapping(part)
    if mapped is None or part.mode == "c" or advice < 0:
        return
    address, first = _extent(part)
    stop = first + part.nbytes
    first, stop = first - first % unit, min(stop + -stop % unit, len(mapped))
    for begin in range(first, stop, most):
        size = ctypes.c_size_t(min(most, stop - begin))
        _libc().madvise(ctypes.c_void_p(address + begin), size, advice)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
