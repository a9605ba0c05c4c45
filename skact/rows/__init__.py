"""Rows of numbers, in memory and in files.

A matrix may lie in one array, in several files (:class:`Shards`), or be computed when it is read
(:class:`Mapped`). Whoever reads through this room never holds more than a few pieces of it.
"""

from skact.rows._files import BLOCK, DIRECT, new_memory, pack, unpack
from skact.rows._floats import as_floats, finite_floats, row_chunks
from skact.rows._pieces import Mapped, Shards
from skact.rows._reading import may_hold, most_held, on_disk, read, read_ahead, runs
from skact.rows._sink import Arrays, Sink
from skact.rows._types import Array, as_numpy

__all__ = [
    "BLOCK",
    "DIRECT",
    "Array",
    "Arrays",
    "Mapped",
    "Shards",
    "Sink",
    "as_floats",
    "as_numpy",
    "finite_floats",
    "may_hold",
    "most_held",
    "new_memory",
    "on_disk",
    "pack",
    "read",
    "read_ahead",
    "row_chunks",
    "runs",
    "unpack",
]
