"""Arrays that show files: the pages that the system keeps of them, and how to read past those.

The pages of a mapped file count as memory of the process once they were read, although they can be
dropped at any time. Whoever reads a file from end to end lets go of them, so that its memory does
not grow with the file.

Of a file that is larger than memory nothing is left when it is read again, and to find a page for
all that is read takes longer than to read it. :class:`DirectReader` does without.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from io import FileIO
from pathlib import Path
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np

from skact.rows._types import Array

__all__ = [
    "BLOCK",
    "DIRECT",
    "DirectReader",
    "ask_for",
    "exceeds_memory",
    "expect_single_rows",
    "let_go",
    "mapping",
    "new_memory",
    "pack",
    "shows_file",
    "unpack",
]


# Bytes of a file to ask for at a time, and those that a fault maps around it.
_REQUEST, _AROUND = 2**19, 2**16
# Absent on Windows, where nothing is asked for or let go of.
_WILL_NEED, _DONT_NEED, _RANDOM, _NORMAL = (
    getattr(mmap, f"MADV_{advice}", -1) for advice in ("WILLNEED", "DONTNEED", "RANDOM", "NORMAL")
)
# What goes past the cache begins and ends at multiples of a block. Memory in huge pages, which
# numpy asks for, lies in one piece for the disk as well: it then reads up to three times as fast.
BLOCK, _HUGE_PAGE = 2**12, 2**21
# Absent outside of Linux, where everything goes through the cache.
DIRECT = getattr(os, "O_DIRECT", 0)


def mapping(values: Any) -> mmap.mmap | None:
    """Return the mapped file that an array shows, if it shows one."""
    return getattr(values, "_mmap", None) if isinstance(values, np.memmap) else None


def shows_file(values: Array) -> bool:
    """Tell whether an array is a view on a mapped file, of whatever class."""
    owner: Any = values
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return isinstance(owner, mmap.mmap)


def ask_for(part: Array) -> None:
    """Have the system fetch rows of a mapped file at once; left to faults, it takes many requests.

    Parameters
    ----------
    part : memmap of shape (n_rows, n_features)
        The rows, side by side. Nothing happens for those of any other array, or of a file with
        changes of this process's own (mode "c").
    """
    if _can_advise(part):
        start = _position(part)
        # The system cuts longer requests off.
        for first in range(start - start % mmap.PAGESIZE, start + part.nbytes, _REQUEST):
            _advise(part, first, min(first + _REQUEST, start + part.nbytes), _WILL_NEED)


def expect_single_rows(part: Any, yes: bool) -> None:
    """Tell the system whether the rows of a mapped file are read one here, one there.

    If so, it fetches no more than is read; else several MiB around it, for what may come next.

    Parameters
    ----------
    part : memmap of shape (n_rows, n_features)
        Rows, as in :func:`ask_for`; what is said holds for the whole mapping.
    yes : bool
        Whether that is so.
    """
    if _can_advise(part):
        _advise(part, 0, len(part._mmap), _RANDOM if yes else _NORMAL)


def let_go(part: Array) -> None:
    """Let go of the pages that hold rows of a mapped file; they are read again if needed again.

    Parameters
    ----------
    part : memmap of shape (n_rows, n_features)
        The rows, as in :func:`ask_for`.
    """
    if _can_advise(part):
        start = _position(part)
        stop = start + part.nbytes
        _advise(part, start - start % _AROUND, stop + -stop % _AROUND, _DONT_NEED)


def _can_advise(part: Any) -> bool:
    return mapping(part) is not None and part.mode != "c" and part.nbytes > 0 and _DONT_NEED >= 0


def _advise(part: Any, first: int, stop: int, advice: int) -> None:
    """Tell the system what will happen to bytes of a mapping; it may not know, or not listen.

    ``mmap.madvise`` would stop all other threads of Python until pages are found for the bytes.
    """
    begin, n_bytes = _address(part._mmap) + first, min(stop, len(part._mmap)) - first
    _libc().madvise(ctypes.c_void_p(begin), ctypes.c_size_t(n_bytes), advice)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _address(mapped: mmap.mmap) -> int:
    return int(np.frombuffer(mapped, np.uint8).__array_interface__["data"][0])


def _position(values: Any) -> int:
    """Bytes from the begin of the mapping to the first value."""
    return int(values.__array_interface__["data"][0]) - _address(values._mmap)


def _offset(values: Any) -> int:
    """Bytes from the begin of the file to the first value."""
    begins: int = values.offset - values.offset % mmap.ALLOCATIONGRANULARITY
    return begins + _position(values)


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
    if mapping(values) is None:
        return np.asarray(values) if isinstance(values, np.memmap) else values
    # A temporary copy of joblib's may be gone when the other side reads it.
    if not _is_named(values) or "joblib_memmapping_folder" in os.fspath(values.filename):
        return values
    name = os.path.abspath(values.filename)
    return _FileRows(name, _offset(values), values.shape, values.dtype)


def unpack(packed: Any) -> Any:
    """Undo :func:`pack`; a file is mapped anew."""
    return packed.open() if isinstance(packed, _FileRows) else packed


def _is_named(values: Any) -> bool:
    """Tell whether what an array shows can be read again from the file of a name.

    Changes in mode "c" are in no file, and an unnamed file cannot be opened again.
    """
    return bool(
        values.mode != "c" and values.filename and values.size and values.flags.c_contiguous
    )


def new_memory(n_bytes: int) -> Array:
    """Take memory from and to which a disk reads and writes past the cache, uint8."""
    memory = np.empty(n_bytes + _HUGE_PAGE, np.uint8)
    start = -memory.ctypes.data % _HUGE_PAGE
    return memory[start : start + n_bytes]


class DirectReader:
    """Reads rows of mapped files past the cache of the system; a context manager.

    What it read is valid until the context is entered again, for the memory is used again. What
    cannot be read in this way is left to the mapping: the file system may not know it, and a file
    may have lost its name to another.

    Attributes
    ----------
    incomplete : bool
        Whether something was left to the mapping since the context was entered.
    """

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)
        self._used = 0
        # By the arrays that show them: the open file, and where their first row begins in it.
        self._files: dict[int, tuple[FileIO, int] | None] = {}
        self.incomplete = False

    def __enter__(self) -> Self:
        self._used, self.incomplete = 0, False
        return self

    def __exit__(self, *error: object) -> None:
        for found in self._files.values():
            if found is not None:
                found[0].close()
        self._files.clear()

    def give(self, values: Array) -> None:
        """Leave the memory to an array that lies there, and take another for what comes next."""
        if np.may_share_memory(values, self._memory):
            self._memory = np.empty(0, np.uint8)

    def read(self, values: Array, rows: slice) -> Array:
        """Read rows.

        Parameters
        ----------
        values : ndarray or memmap of shape (n_rows, n_features)
            Where they lie.
        rows : slice
            Which ones, from a row to another one.

        Returns
        -------
        read : ndarray of shape (n_rows_read, n_features)
            Equal to ``values[rows]``, and that itself where they cannot be read in this way.

        Raises
        ------
        OSError
            If the file became shorter, or the disk reports an error.
        """
        if mapping(values) is None:
            return values[rows]
        read = self._read(values, rows)
        if read is None:
            self.incomplete = True
            return values[rows]
        return read

    def _read(self, values: Array, rows: slice) -> Array | None:
        if id(values) not in self._files:
            self._files[id(values)] = _opened(values)
        found = self._files[id(values)]
        if found is None:
            return None
        file, begin = found
        shape = rows.stop - rows.start, values.shape[1]
        n_bytes = shape[0] * shape[1] * values.itemsize
        first = begin + rows.start * shape[1] * values.itemsize
        ahead = first % BLOCK
        memory = self._room(ahead + n_bytes)
        try:
            _fill(file, memory, first - ahead, ahead + n_bytes)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return None
        return memory[ahead : ahead + n_bytes].view(values.dtype).reshape(shape)

    def _room(self, n_bytes: int) -> Array:
        """Give memory of whole blocks."""
        size = -(-n_bytes // BLOCK) * BLOCK
        if self._used + size > len(self._memory):
            # Rows in the old memory keep it.
            self._memory = new_memory(max(len(self._memory) + 2**20, size))
            self._used = 0
        self._used += size
        return self._memory[self._used - size : self._used]


def _opened(values: Any) -> tuple[FileIO, int] | None:
    """Open the file that an array shows, and find its first row, if the file still has its name."""
    if values.mode != "r" or not _is_named(values):
        return None
    try:
        file = FileIO(values.filename, opener=lambda name, flags: os.open(name, flags | DIRECT))
    except OSError:
        return None
    if os.fstat(file.fileno()).st_ino != _inode(values._mmap):
        file.close()
        return None
    return file, _offset(values)


def _fill(file: FileIO, memory: Array, first: int, n_bytes: int) -> None:
    """Read at least some bytes of a file, from one of them on; a file may end within a block."""
    done = 0
    while done < n_bytes:
        n_read = os.preadv(file.fileno(), [memory[done:].data], first + done)
        if n_read == 0:
            raise OSError(f"{str(file.name)!r} ends before byte {first + n_bytes}, it was cut off.")
        done += n_read


_inodes: WeakKeyDictionary[mmap.mmap, int] = WeakKeyDictionary()


def _inode(mapped: mmap.mmap) -> int:
    """Say which file is mapped, whatever has its name by now; 0 if that is not known."""
    if mapped not in _inodes:
        address, inode = _address(mapped), 0
        with suppress(OSError), open("/proc/self/maps", encoding="utf-8") as lines:
            for line in lines:
                addresses, _, _, _, number, *_ = line.split()
                first, last = (int(end, 16) for end in addresses.split("-"))
                if first <= address < last:
                    inode = int(number)
        _inodes[mapped] = inode
    return _inodes[mapped]


def exceeds_memory(n_bytes: int) -> bool:
    """Tell whether files are larger than all that the system can keep of them.

    Parameters
    ----------
    n_bytes : int
        Their size.

    Returns
    -------
    larger : bool
        Whether they exceed what is left of the memory of the machine, or of a control group that
        limits the memory of this process. False outside of Linux.
    """
    return bool(DIRECT) and n_bytes > _memory_left()


def _memory_left(root: Path = Path("/")) -> int:
    """Bytes of files that the system can keep for this process."""
    left = [2**63]
    with suppress(OSError), (root / "proc" / "meminfo").open(encoding="utf-8") as lines:
        left += [int(line.split()[1]) * 2**10 for line in lines if line.startswith("MemAvailable")]
    return min(left + [limit - _memory_held() for limit in _group_limits(root)])


def _memory_held() -> int:
    """Bytes of this process that are in no file."""
    with suppress(OSError), open("/proc/self/statm", encoding="utf-8") as sizes:
        _, resident, shared, *_ = map(int, sizes.read().split())
        return (resident - shared) * mmap.PAGESIZE
    return 0


def _group_limits(root: Path) -> list[int]:
    """Bytes that control groups of this process allow to it and to the files it reads."""
    limits = []
    groups = root / "sys" / "fs" / "cgroup"
    with suppress(OSError):
        for line in (root / "proc" / "self" / "cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            # The first version of control groups names what they control, the second does not.
            if controllers == "memory":
                folder, name = groups / "memory", "memory.limit_in_bytes"
            elif not controllers:
                folder, name = groups, "memory.max"
            else:
                continue
            own = folder / group.lstrip("/")
            for place in (own, *own.parents):
                with suppress(OSError, ValueError):  # there is none, or it is "max"
                    limits.append(int((place / name).read_text(encoding="utf-8")))
    return limits
