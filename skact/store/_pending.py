"""The shards that are being written.

Rows are written from front to back, in the order in which the model puts them out. They are
gathered in memory that is used again and again, and go from there to the disk past the cache of the
system: what is slow about writing is to get hold of new pages, of the cache more than of any other.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from skact.rows import BLOCK as _BLOCK
from skact.rows import DIRECT as _DIRECT
from skact.rows import Array, new_memory, offsets_of
from skact.store._index import ShardRow
from skact.store._shards import RAW, checksums, sync_folder

__all__ = ["Disk", "PendingShards"]

# Bytes of all shards of a chunk together that are gathered before they are written.
_PIECE = 2**25


class Disk:
    """A thread that writes while the model works, one task at a time; a context manager.

    It has two sets of memory: the task that runs reads one, and the next rows go into the other.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._unfinished: Future[None] | None = None
        self._sets = [np.empty(0, np.uint8), np.empty(0, np.uint8)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown()

    def memory(self, n_shards: int, n_bytes: int) -> Array:
        """Hand out the set of memory that was not handed out last.

        Parameters
        ----------
        n_shards, n_bytes : int
            How much is needed.

        Returns
        -------
        memory : ndarray of shape (n_shards, at least n_bytes), dtype uint8
            Its rows are whole blocks.
        """
        n_bytes = _whole(n_bytes)
        size = n_shards * n_bytes
        self._sets.reverse()
        if len(self._sets[0]) < size:
            self._sets[0] = new_memory(size)
        return self._sets[0][:size].reshape(n_shards, n_bytes)

    def run(self, task: Callable[..., None], *args: Any) -> None:
        """Wait for the last task, and start the next."""
        self.wait()
        self._unfinished = self._thread.submit(task, *args)

    def wait(self) -> None:
        """Wait for the last task, and hear what went wrong in it."""
        unfinished, self._unfinished = self._unfinished, None
        if unfinished is not None:
            unfinished.result()


def _whole(n_bytes: int) -> int:
    """Round up to whole blocks."""
    return -(-n_bytes // _BLOCK) * _BLOCK


@contextmanager
def _naming_a_full_disk(path: Path, n_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            error.errno,
            f"no space left for {n_bytes / 2**20:.0f} MiB of activations; what was committed "
            "before is intact. Make room, and run again",
            str(path),
        ) from error


class _ShardFile:
    """A file that is written from front to back, past the cache if the file system allows it."""

    def __init__(self, path: Path, n_bytes: int) -> None:
        self.path = path
        self.n_bytes = n_bytes
        with _naming_a_full_disk(path, n_bytes), open(path, "xb", buffering=0) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, n_bytes)  # so that a full disk shows now
        try:
            self._open(_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._open(0)

    def _open(self, way: int) -> None:
        self.way = way
        self.file = open(  # noqa: SIM115
            self.path, "r+b", buffering=0, opener=lambda name, flags: os.open(name, flags | way)
        )

    def write(self, content: Array) -> None:
        """Append whole blocks."""
        rest = memoryview(content)
        with _naming_a_full_disk(self.path, self.n_bytes):
            while len(rest):
                try:
                    rest = rest[self.file.write(rest) :]
                except OSError as error:
                    if error.errno != errno.EINVAL or not self.way:
                        raise
                    place = self.file.tell()
                    self.file.close()
                    self._open(0)
                    self.file.seek(place)

    def finish(self) -> None:
        """Cut off what filled the last block, and bring the file to the disk."""
        with self.file:
            self.file.truncate(self.n_bytes)
            os.fsync(self.file.fileno())


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
    blocks : sequence of int
        The transformer blocks.
    samples : sequence of bytes
        Keys of the samples.
    lengths : ndarray of shape (n_samples,)
        Rows of each sample.
    n_features : int
        Numbers in a row.
    disk : Disk
        Writes.

    Attributes
    ----------
    dtype : dtype
        float32, float16, or uint16 for the bits of bfloat16.
    """

    def __init__(
        self,
        folder: Path,
        prefix: str,
        dtype: str,
        blocks: Sequence[int],
        samples: Sequence[bytes],
        lengths: Array,
        n_features: int,
        disk: Disk,
    ) -> None:
        self.folder = folder
        self.paths = {block: folder / f"{prefix}-{block}.tmp" for block in blocks}
        self.stored_as = dtype
        self.dtype = RAW[dtype]
        self.samples = samples
        self.lengths = np.asarray(lengths)
        self.n_features = n_features
        self.disk = disk
        self._row_bytes = n_features * self.dtype.itemsize
        self._files: dict[int, _ShardFile] = {}
        self._memory = np.empty((len(blocks), 0), np.uint8)
        self._start = self._stop = 0  # of the rows that are in the memory and not sent
        self._gathered: list[Array] = []  # their samples
        self._order: list[Array] = []  # samples that are sent
        self._checksums: dict[int, list[Array]] = {block: [] for block in blocks}

    def reserve(self) -> None:
        """Make the files.

        Raises
        ------
        OSError
            If the disk is full.
        """
        n_bytes = int(self.lengths.sum()) * self._row_bytes
        for block, path in self.paths.items():
            self._files[block] = _ShardFile(path, n_bytes)

    def discard(self) -> None:
        """Remove the files, whatever name they have by now."""
        for file in self._files.values():
            file.file.close()
        for path in self.paths.values():
            path.unlink(missing_ok=True)
            path.with_suffix(".bin").unlink(missing_ok=True)

    def room(self, samples: Array) -> tuple[dict[int, Array], Array]:
        """Give memory for the rows of the samples that come next.

        Parameters
        ----------
        samples : ndarray of shape (n_next,), int
            Their numbers.

        Returns
        -------
        rows : dict of int to ndarray of shape (n_rows, n_features)
            By block.
        starts : ndarray of shape (n_next,)
            Where in them each sample begins.

        Raises
        ------
        OSError
            If what was written before could not be.
        """
        offsets = offsets_of(self.lengths[samples])
        n_bytes = int(offsets[-1]) * self._row_bytes
        if self._stop + n_bytes > self._memory.shape[1]:
            self._send(n_bytes)
        rows = self._memory[:, self._stop : self._stop + n_bytes].view(self.dtype)
        shape = int(offsets[-1]), self.n_features
        return {
            block: own.reshape(shape) for block, own in zip(self.paths, rows, strict=True)
        }, offsets[:-1]

    def keep(self, samples: Array) -> None:
        """Count the rows of the samples that were given room last as filled.

        Parameters
        ----------
        samples : ndarray of shape (n_next,), int
            Their numbers.
        """
        self._stop += int(self.lengths[samples].sum()) * self._row_bytes
        self._gathered.append(samples)

    def _send(self, n_bytes: int) -> None:
        """Have the rows in the memory written, and go on in the other set."""
        if self._gathered:
            self.disk.wait()  # it may be reading that set
        n_shards, full = len(self.paths), self._stop // _BLOCK * _BLOCK
        rest = self._memory[:, full : self._stop]
        total = int(self.lengths.sum()) * self._row_bytes
        size = max(min(_PIECE // n_shards, total), rest.shape[1] + n_bytes)
        following = self.disk.memory(n_shards, size)
        following[:, : rest.shape[1]] = rest
        if self._gathered:
            self.disk.run(self._write, self._memory, self._take(), full)
        self._memory, self._start, self._stop = following, rest.shape[1], rest.shape[1]

    def _take(self) -> tuple[slice, Array]:
        samples = np.concatenate(self._gathered)
        self._gathered = []
        return slice(self._start, self._stop), samples

    def _write(self, memory: Array, taken: tuple[slice, Array], stop: int) -> None:
        """Write the memory up to a block; its rows are those of some samples."""
        place, samples = taken
        self._order.append(samples)
        keys = [self.samples[i] for i in samples.tolist()]
        for (block, file), raw in zip(self._files.items(), memory, strict=True):
            values = raw[place].reshape(-1, self._row_bytes)
            self._checksums[block].append(checksums(values, self.lengths[samples], keys))
            file.write(raw[:stop])

    def seal(self) -> tuple[dict[int, ShardRow], list[bytes]]:
        """Bring all files to the disk under their final names.

        Returns
        -------
        rows : dict of int to ShardRow
            What the index is to know, by block.
        samples : list of bytes
            Keys of the samples in their slots.

        Raises
        ------
        OSError
            If the disk is full.
        """
        self._write(self._memory, self._take(), _whole(self._stop))
        order = np.concatenate(self._order)
        rows = {}
        for block, path in self.paths.items():
            self._files[block].finish()
            os.replace(path, path.with_suffix(".bin"))
            rows[block] = ShardRow(
                path.with_suffix(".bin").name,
                self.stored_as,
                self.n_features,
                self.lengths[order],
                np.concatenate(self._checksums[block]),
            )
        sync_folder(self.folder)
        return rows, [self.samples[i] for i in order.tolist()]
