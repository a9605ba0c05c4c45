"""Reading past the pages that the system keeps of files.

Of a file that is larger than memory nothing is left when it is read again, and to find a page for
all that is read takes longer than to read it. :class:`DirectReader` does without.
"""

from __future__ import annotations

import errno
import mmap
import os
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Self

import numpy as np

from skact.rows._files import FileRows, mapping
from skact.rows._types import Array

__all__ = ["BLOCK", "DIRECT", "DirectReader", "exceeds_memory", "new_memory"]


# What goes past the cache begins and ends at multiples of a block. Memory in huge pages, which
# numpy asks for, lies in one piece for the disk as well: it then reads up to three times as fast.
BLOCK, _HUGE_PAGE = 2**12, 2**21
# Absent outside of Linux, where everything goes through the cache.
DIRECT = getattr(os, "O_DIRECT", 0)


def new_memory(n_bytes: int) -> Array:
    """Take memory from and to which a disk reads and writes past the cache, uint8."""
    memory = np.empty(n_bytes + _HUGE_PAGE, np.uint8)
    start = -memory.ctypes.data % _HUGE_PAGE
    return memory[start : start + n_bytes]


class DirectReader:
    """Reads rows of mapped files past the cache of the system; a context manager.

    What it read is valid until the context is entered again, for the memory is used again. What
    cannot be read in this way is left to the mapping: the file system may not know it, a file may
    have lost its name to another, and a plain ``numpy.memmap`` does not say which file it shows.

    Attributes
    ----------
    incomplete : bool
        Whether something was left to the mapping since the context was entered.
    """

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)
        self._used = 0
        self._files: dict[int, FileIO | None] = {}  # by the arrays that show them
        self.incomplete = False

    def __enter__(self) -> Self:
        self._used, self.incomplete = 0, False
        return self

    def __exit__(self, *error: object) -> None:
        for file in filter(None, self._files.values()):
            file.close()
        self._files.clear()

    def give(self, values: Array) -> None:
        """Leave the memory to an array that lies there, and take another for what comes next."""
        if np.may_share_memory(values, self._memory):
            self._memory = np.empty(0, np.uint8)

    def read(self, values: Array, rows: slice) -> Array:
        """Return what equals ``values[rows]``, or that itself where it cannot be read in this way.

        Raises OSError if the file became shorter, or the disk reports an error.
        """
        found = self._read(values, rows) if isinstance(values, FileRows) else None
        if found is None:
            self.incomplete |= mapping(values) is not None
            return values[rows]
        return found

    def _read(self, values: FileRows, rows: slice) -> Array | None:
        if id(values) not in self._files:
            self._files[id(values)] = values.open(DIRECT)
        file = self._files[id(values)]
        if file is None:
            return None
        shape = rows.stop - rows.start, values.shape[1]
        n_bytes = shape[0] * shape[1] * values.itemsize
        first = values.place + rows.start * shape[1] * values.itemsize
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


def _fill(file: FileIO, memory: Array, first: int, n_bytes: int) -> None:
    """Read at least some bytes of a file, from one of them on; a file may end within a block."""
    done = 0
    while done < n_bytes:
        n_read = os.preadv(file.fileno(), [memory[done:].data], first + done)
        if n_read == 0:
            raise OSError(f"{str(file.name)!r} ends before byte {first + n_bytes}, it was cut off.")
        done += n_read


def exceeds_memory(n_bytes: int) -> bool:
    """Tell whether files are larger than all that the system can keep of them; on Linux only.

    That is what is left of the memory of the machine, or of a control group that limits the memory
    of this process.
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
    # The first version of control groups names what they control, the second does not.
    names = {
        "memory": (groups / "memory", "memory.limit_in_bytes"),
        "": (groups, "memory.max"),
    }
    with suppress(OSError):
        for line in (root / "proc" / "self" / "cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers in names:
                folder, name = names[controllers]
                lowest = folder / group.lstrip("/")
                for place in (lowest, *lowest.parents):
                    with suppress(OSError, ValueError):  # there is none, or it is "max"
                        limits.append(int((place / name).read_text(encoding="utf-8")))
    return limits
