"""Files of raw activations, written once and never changed.

A shard holds the rows of many samples at one layer, little-endian and without a header. It is
filled under a temporary name in the same folder, brought to the disk, and renamed; a file that has
its final name is complete. What is in it says the index.
"""

from __future__ import annotations

import errno
import os
import re
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from skact.embedding.store._index import ShardRow
from skact.tokens import Array

__all__ = ["RAW", "SHARD_NAME", "PendingShards", "Shelf", "checksums", "sync_folder"]

# numpy has no bfloat16: its bits are kept as uint16.
RAW: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
}
SHARD_NAME = re.compile(r"[0-9a-f]+-[0-9]+-[0-9]+\.(bin|tmp)")
_BLANK = bytes(2**20)


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
    ends = np.cumsum(lengths).tolist()
    raw = values.view(np.uint8)
    return np.array(
        [
            zlib.crc32(raw[start:end], zlib.crc32(sample))
            for start, end, sample in zip([0, *ends], ends, samples, strict=False)
        ],
        "<u4",
    )


def _file_checksums(path: Path, sizes: Array, samples: Sequence[bytes]) -> Array:
    """Checksums of a file of which each sample has some bytes; reading is faster than mapping."""
    buffer = memoryview(bytearray(int(sizes.max())))
    found = []
    with open(path, "rb", buffering=0) as file:
        for size, sample in zip(sizes.tolist(), samples, strict=True):
            n_read = file.readinto(buffer[:size])
            found.append(zlib.crc32(buffer[:n_read], zlib.crc32(sample)))
    return np.array(found, "<u4")


def _reserve(descriptor: int, n_bytes: int) -> None:
    """Take the space now: writing through a map to a full disk would end the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, n_bytes)
        return
    left = n_bytes
    while left:
        left -= os.write(descriptor, _BLANK[:left])


class PendingShards:
    """The shards of one chunk, one per block, until they are committed or discarded.

    Parameters
    ----------
    folder : Path
        Where shards lie.
    prefix : str
        Start of their names, which no other writer uses.
    dtype : {"float32", "float16", "bfloat16"}
        What to write.
    """

    def __init__(self, folder: Path, prefix: str, dtype: str) -> None:
        self.folder = folder
        self.prefix = prefix
        self.dtype = dtype
        self.arrays: dict[int, np.memmap[Any, Any]] = {}

    def discard(self) -> None:
        """Remove the files, whatever name they have by now."""
        for block in self.arrays:
            self._temporary(block).unlink(missing_ok=True)
            self._final(block).unlink(missing_ok=True)

    def _final(self, block: int) -> Path:
        return self.folder / f"{self.prefix}-{block}.bin"

    def _temporary(self, block: int) -> Path:
        return self.folder / f"{self.prefix}-{block}.tmp"

    def allocate(self, block: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> Array:
        """Map the file of a block, for the forward pass to write into.

        Parameters
        ----------
        block : int
            The transformer block.
        shape : tuple of int
            Rows and features.
        dtype : dtype
            What the model puts out; the store's dtype is taken instead.

        Returns
        -------
        values : memmap of shape (n_rows, n_features), dtype float32, float16 or uint16
            To be filled; uint16 for the bits of bfloat16.

        Raises
        ------
        OSError
            If the disk is full.
        """
        path, raw = self._temporary(block), RAW[self.dtype]
        n_bytes = int(np.prod(shape)) * raw.itemsize
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            _reserve(descriptor, n_bytes)
            self.arrays[block] = np.memmap(path, raw, "r+", shape=shape)
        except OSError as error:
            path.unlink()
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise OSError(
                error.errno,
                f"no space left for {n_bytes / 2**20:.0f} MiB of activations; what was committed "
                "before is intact. Make room, and run again",
                str(path),
            ) from error
        finally:
            os.close(descriptor)
        return self.arrays[block]

    def seal(self, lengths: Array, samples: Sequence[bytes]) -> dict[int, ShardRow]:
        """Bring all files to the disk under their final names.

        Parameters
        ----------
        lengths : ndarray of shape (n_samples,)
            Rows of each sample.
        samples : sequence of bytes
            Their keys.

        Returns
        -------
        rows : dict of int to ShardRow
            What the index is to know, by block.
        """
        rows = {}
        for block, values in self.arrays.items():
            values.flush()
            sizes = np.asarray(lengths) * values.strides[0]
            found = _file_checksums(self._temporary(block), sizes, samples)
            rows[block] = ShardRow(
                self._final(block).name, self.dtype, values.shape[1], np.asarray(lengths), found
            )
            descriptor = os.open(self._temporary(block), os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(self._temporary(block), self._final(block))
        sync_folder(self.folder)
        return rows


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
        values : memmap of shape (n_rows, n_features), dtype float32, float16 or uint16
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
            values = np.memmap(path, RAW[row.dtype], "r", shape=shape)
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
