"""The names of layers, and what the index knows of a shard."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from skact.rows import Array

__all__ = ["RAW", "SHARD_NAME", "Identity", "ShardRow", "owner_of"]

# numpy has no bfloat16: its bits are kept as uint16.
RAW: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
}
# Of files that writers make: theirs is the random name at the begin, so none comes twice.
SHARD_NAME = re.compile(r"[0-9a-f]+-[0-9]+-[0-9]+\.(safetensors|tmp)")


def owner_of(name: str) -> str:
    """Tell whose a shard is, by its name."""
    return name.partition("-")[0]


@dataclass(frozen=True)
class Identity:
    """All that decides the numbers of a layer, except the sample.

    Parameters
    ----------
    json : str
        In canonical JSON: keys sorted, no spaces, ASCII only.
    digest : bytes
        Its SHA-256.
    model : str
        Name of the model, for people; it does not enter the digest.
    block : int
        The transformer block.
    """

    json: str
    digest: bytes
    model: str
    block: int


@dataclass(frozen=True)
class ShardRow:
    """What the index knows of a shard: all that is needed to read its rows.

    Parameters
    ----------
    name : str
        File name.
    dtype : {"float32", "float16", "bfloat16"}
        Of the values.
    n_features : int
        Columns.
    start : int
        Byte of the file at which the values begin.
    n_bytes : int
        Length of the file.
    lengths : ndarray of shape (n_slots,), dtype int64
        Rows of each slot, one after another.
    shapes : ndarray of shape (n_slots, 2), dtype int64, or None
        Grid of each slot; None where slots are runs.
    """

    name: str
    dtype: str
    n_features: int
    start: int
    n_bytes: int
    lengths: Array
    shapes: Array | None

    COLUMNS = "name, dtype, n_features, start, n_bytes, lengths, shapes"

    @classmethod
    def read(
        cls,
        name: str,
        dtype: str,
        n_features: int,
        start: int,
        n_bytes: int,
        lengths: bytes,
        shapes: bytes | None,
    ) -> ShardRow:
        """Make one of the columns of a row.

        Raises
        ------
        ValueError
            If they can be no shard's, whatever they are.
        """
        try:
            grids = None if shapes is None else np.frombuffer(shapes, "<i8").reshape(-1, 2)
            rows = np.frombuffer(lengths, "<i8")
            fine = (
                bool(SHARD_NAME.fullmatch(name) and name.endswith(".safetensors"))
                and dtype in RAW
                and all(type(n) is int and n > 0 for n in (n_features, start, n_bytes))
                and rows.min() > 0
                and (grids is None or np.array_equal(grids.prod(1), rows))
            )
        except (TypeError, ValueError):
            fine = False
        if not fine:
            raise ValueError(f"the row of the shard {name!r} is damaged")
        return cls(name, dtype, n_features, start, n_bytes, rows, grids)

    @property
    def shape(self) -> tuple[int, int]:
        """Of the values."""
        return int(self.lengths.sum()), self.n_features
