"""The shards of a chunk while they are written: batch by batch, beside the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np

from skact.rows import Array, offsets_of, rows_of
from skact.store._format import checksums
from skact.store._layer_writer import LayerWriter, sync_folder
from skact.store._records import RAW, Identity, ShardRow

__all__ = ["ChunkSink", "Worker"]


class Worker:
    """A thread for what is done beside the model, one task at a time; a context manager."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._unfinished: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown()

    def run(self, task: Callable[..., None], *args: Any) -> None:
        """Wait for the last task, so that what tasks hold does not add up, and start the next."""
        self.wait()
        self._unfinished = self._thread.submit(task, *args)

    def wait(self) -> None:
        """Wait for the last task, and hear what went wrong in it."""
        unfinished, self._unfinished = self._unfinished, None
        if unfinished is not None:
            unfinished.result()


class ChunkSink:
    """The shards of one chunk, one per block, until they are committed or discarded.

    A :class:`~skact.rows.Sink`: each batch gets memory of its own and is written when it is full.

    Parameters
    ----------
    folder : Path
        Where shards lie.
    prefix : str
        Start of their names, which no other writer uses.
    dtype : {"float32", "float16", "bfloat16"}
        What to write.
    layers : mapping of int to Identity
        By block.
    samples : sequence of bytes
        Keys of the samples.
    lengths : ndarray of shape (n_samples,)
        Rows of each sample.
    n_features : int
        Numbers in a row.
    shapes : ndarray of shape (n_samples, 2) or None
        Grid of each sample; None where samples are runs.
    segments : ndarray of shape (n_rows,) or None
        Run of adjacent rows that each row lies in; None where no sample has a gap.
    writing : Worker
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
        layers: Mapping[int, Identity],
        samples: Sequence[bytes],
        lengths: Array,
        n_features: int,
        shapes: Array | None,
        segments: Array | None,
        writing: Worker,
    ) -> None:
        self.folder = folder
        self.paths = {block: folder / f"{prefix}-{block}.tmp" for block in layers}
        self.stored_as = dtype
        self.dtype = RAW[dtype]
        self.layers = layers
        self.samples = samples
        self.lengths = np.asarray(lengths)
        self.n_features = n_features
        self.shapes = shapes
        self.segments = segments if segments is not None and segments.any() else None
        self.writing = writing
        self._files: dict[int, LayerWriter] = {}
        self._rows: dict[int, Array] = {}  # of the batch that is being filled
        self._order: list[Array] = []  # samples that are written

    @property
    def names(self) -> list[str]:
        """Of the files when they are sealed."""
        return [path.with_suffix(".safetensors").name for path in self.paths.values()]

    def reserve(self) -> None:
        """Make the files.

        Raises
        ------
        OSError
            If the disk is full.
        """
        for block, path in self.paths.items():
            self._files[block] = LayerWriter(
                path,
                self.layers[block],
                self.stored_as,
                n_samples=len(self.lengths),
                n_rows=int(self.lengths.sum()),
                n_features=self.n_features,
                has_shapes=self.shapes is not None,
                has_segments=self.segments is not None,
            )

    def discard(self) -> None:
        """Remove the files that are not sealed; the index may know the others."""
        for file in self._files.values():
            file.close()
        for path in self.paths.values():
            path.unlink(missing_ok=True)

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
        """
        lengths = self.lengths[samples]
        shape = len(self.layers), int(lengths.sum()), self.n_features
        self._rows = dict(zip(self.layers, np.empty(shape, self.dtype), strict=True))
        return self._rows, offsets_of(lengths)[:-1]

    def keep(self, samples: Array) -> None:
        """Have the rows written of the samples that were given room last.

        Parameters
        ----------
        samples : ndarray of shape (n_next,), int
            Their numbers.

        Raises
        ------
        OSError
            If what was written before could not be.
        """
        rows, self._rows = self._rows, {}
        self.writing.run(self._write, samples, rows)

    def _write(self, samples: Array, rows: Mapping[int, Array]) -> None:
        lengths, keys = self.lengths[samples], [self.samples[i] for i in samples.tolist()]
        shapes = None if self.shapes is None else self.shapes[samples]
        runs = self.segments
        if runs is not None:
            runs = runs[rows_of(offsets_of(self.lengths), samples)]
        for block, file in self._files.items():
            sums = checksums(rows[block], lengths, keys, runs)
            file.write(rows[block], lengths, keys, sums, shapes, runs)
        self._order.append(samples)

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
        order = np.concatenate(self._order)
        shapes = None if self.shapes is None else self.shapes[order]
        rows = {}
        for block, path in self.paths.items():
            file, shard = self._files[block], path.with_suffix(".safetensors")
            file.finish()
            os.replace(path, shard)
            rows[block] = ShardRow(
                shard.name,
                self.stored_as,
                self.n_features,
                file.start,
                file.n_bytes,
                self.lengths[order],
                shapes,
            )
        sync_folder(self.folder)
        return rows, [self.samples[i] for i in order.tolist()]
