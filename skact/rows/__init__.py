"""Rows of numbers, in memory and in files.

A matrix may lie in one array, in several files (:class:`Shards`), or be computed when it is read
(:class:`Mapped`). Whoever reads through this room never holds more than a few pieces of it. Where
rows are cut into segments of different lengths, as tokens are into samples, the arithmetic of
lengths, offsets and rows is here too: :func:`offsets_of`, :func:`rows_of`, :func:`segment_max`, ...
"""

from skact.rows._direct import BLOCK
from skact.rows._files import FileRows
from skact.rows._floats import all_finite, as_floats, row_chunks
from skact.rows._pieces import Mapped, Shards
from skact.rows._ragged import (
    offsets_of,
    positions_of,
    rows_from,
    rows_of,
    segment_at,
    segment_max,
    segment_sum,
    segments_of,
)
from skact.rows._reading import may_hold, most_held, on_disk, read, read_ahead, runs
from skact.rows._sink import Arrays, Sink
from skact.rows._types import Array, as_numpy

__all__ = [
    "BLOCK",
    "Array",
    "Arrays",
    "FileRows",
    "Mapped",
    "Shards",
    "Sink",
    "all_finite",
    "as_floats",
    "as_numpy",
    "may_hold",
    "most_held",
    "offsets_of",
    "on_disk",
    "positions_of",
    "read",
    "read_ahead",
    "row_chunks",
    "rows_from",
    "rows_of",
    "runs",
    "segment_at",
    "segment_max",
    "segment_sum",
    "segments_of",
]
