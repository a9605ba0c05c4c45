"""Files of raw activations, written once and never changed.

A shard holds the rows of many samples at one layer, little-endian and without a header. It is
filled under a temporary name in the same folder, brought to the disk, and renamed; a file that has
its final name is complete. What is in it says the index.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary
from zlib import crc32

import numpy as np

from skact.rows import Array, FileRows, offsets_of
from skact.store._index import ShardRow

__all__ = ["RAW", "SHARD_NAME", "Shelf", "checksums", "sync_folder"]

# numpy has no bfloat16: its bits are kept as uint16.
RAW: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
}
SHARD_NAME = re.compile(r"[0-9a-f]+-[0-9]+-[0-9]+\.(bin|tmp)")


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def checksums(values: Array, lengths: Array, samples: Sequence[bytes]) -> Array:
    """CRC-32 of each sample's key followed by its rows.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_features)
        C-contiguous.
    lengths : ndarray of shape (n_samples,)
        Rows of each sample, one after another.
    samples : sequence of bytes
        The keys.

    Returns
    -------
    checksums : ndarray of shape (n_samples,), dtype uint32
        The checksums.
    """
    offsets = offsets_of(lengths).tolist()
    raw = values.view(np.uint8)
    return np.array(
        [
            crc32(raw[start:end], crc32(sample))
            for (start, end), sample in zip(pairwise(offsets), samples, strict=True)
        ],
        "<u4",
    )


class Shelf:
    """The folder of shards; maps each file once per process as long as somebody reads it.

    Parameters
    ----------
    folder : Path
        The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mapped: WeakValueDictionary[str, Any] = WeakValueDictionary()

    def problem(self, row: ShardRow) -> str | None:
        """Say what is wrong with the length of a file, None if nothing."""
        path = self.folder / row.name
        if not path.exists():
            return f"{str(path)!r} is missing"
        size = path.stat().st_size
        if size != row.n_bytes:
            return f"{str(path)!r} has {size} bytes instead of {row.n_bytes}"
        return None

    def map(self, row: ShardRow) -> Array:
        """Map a shard to read it.

        Parameters
        ----------
        row : ShardRow
            What the index knows of it.

        Returns
        -------
        values : FileRows of shape (n_rows, n_features), dtype float32, float16 or uint16
            Not writable.

        Raises
        ------
        OSError
            If the file is missing or does not have its length.
        """
        problem = self.problem(row)
        if problem:
            raise OSError(
                f"the shard {problem}. verify(repair=True) takes what it held out of the index; "
                "it is then embedded again."
            )
        values = self._mapped.get(row.name)
        if values is None:
            path, shape = self.folder / row.name, (row.n_rows, row.n_features)
            values = FileRows(path, RAW[row.dtype], shape)
            self._mapped[row.name] = values
        return values

    def remove(self, names: Sequence[str]) -> int:
        """Remove files.

        Parameters
        ----------
        names : sequence of str
            Files of this folder.

        Returns
        -------
        n_bytes : int
            What they took.
        """
        n_bytes = 0
        for name in names:
            with suppress(FileNotFoundError):
                n_bytes += (self.folder / name).stat().st_size
                (self.folder / name).unlink()
        return n_bytes
