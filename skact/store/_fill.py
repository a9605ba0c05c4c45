"""Put into a store what it does not hold, whoever else writes at the same time.

Samples are prepared in windows, and a window goes in chunks of samples of about one length, so that
little is padded. One thread prepares and claims what comes next while the model embeds a chunk,
another writes what it puts out, and one more seals the chunk before. A chunk is committed in one
transaction when all of it is on the disk; so a run that dies loses the chunk it works on and the
one that is on its way to the disk. All layers that a sample lacks come from one pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from skact.progress import token_bar
from skact.rows import Array, Sink, offsets_of, rows_of, runs
from skact.store._chunk import ChunkSink, Worker
from skact.store._claims import Owner
from skact.store._entries import missing
from skact.store._index import Index, make_folder
from skact.store._records import RAW, Identity
from skact.store._shards import ShardFolder
from skact.store._upkeep import remove_unnamed
from skact.store._windows import Window, windows

__all__ = ["CHUNK_BYTES", "Filled", "Job", "fill"]

#: Of a shard.
CHUNK_BYTES = 2**28
_POLL = 0.05, 1.0  # seconds to wait for other writers: the first time, and at most


class Job(Protocol):
    """Samples that can be embedded.

    ``n_rows`` says how many rows each gives, of ``n_features`` numbers, and ``n_tokens`` how many
    tokens the model puts out for it; ``shapes`` their rows and columns where they are grids, None
    where they are runs; ``segments``, for each row of all samples, which run of adjacent rows it
    lies in, None where no sample has a gap. ``embed`` writes the rows of the samples with the given
    numbers, in any order, into the room that the sink gives for the first, second, and so on of
    them, and reports tokens to a bar.
    """

    n_rows: Array
    n_tokens: Array
    n_features: int
    shapes: Array | None
    segments: Array | None

    def embed(self, rows: Array, blocks: Sequence[int], sink: Sink, progress: Any) -> object: ...


@dataclass(frozen=True)
class Filled:
    """What a call to fill a store did.

    Parameters
    ----------
    n_samples : int
        Distinct samples that were asked for.
    n_embedded : int
        Those of them that this call ran the model on; the others were there, or came from
        another process.
    """

    n_samples: int
    n_embedded: int


class _TakenForDeadError(Exception):
    """The owner was silent for so long that others took its claims."""


@dataclass
class _Chunk:
    """Samples of a window that are ours to embed."""

    job: Job
    rows: Array  # their numbers in the job
    keys: list[bytes]
    layers: Mapping[int, Identity]
    n_behind: int  # tokens of all samples that come after them, about


class _ChunkWriter:
    """Chunk after chunk under one owner, with a thread before the model and two behind it.

    The disk takes its time to seal a chunk; meanwhile the rows of the next are written.
    """

    def __init__(self, index: Index, folder: ShardFolder, dtype: str, chunk_size: int) -> None:
        self.index = index
        self.folder = folder
        self.dtype = dtype
        self.chunk_size = chunk_size
        self.owner = Owner(index)
        self.ahead = ThreadPoolExecutor(1)
        self.writing, self.sealing = Worker(), Worker()
        self.n_chunks = 0
        self.n_embedded = 0

    def __enter__(self) -> Self:
        self.owner.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.ahead.shutdown()
        self.writing.__exit__()
        self.sealing.__exit__()
        self.owner.__exit__()

    def chunks(
        self, windows: list[Window], prepare: Callable[[list[int]], Job]
    ) -> Iterator[_Chunk]:
        """Prepare and claim each chunk while the one before is embedded."""
        chunks = self._claimed(windows, prepare)
        following = self.ahead.submit(next, chunks, None)
        while (chunk := following.result()) is not None:
            following = self.ahead.submit(next, chunks, None)
            yield chunk

    def _claimed(
        self, windows: list[Window], prepare: Callable[[list[int]], Job]
    ) -> Iterator[_Chunk]:
        """Prepare windows one by one, and leave out what others have claimed."""
        n_later = sum(len(window.places) for window in windows)
        for whole in windows:
            n_later -= len(whole.places)
            window = whole.only(self.owner.free(whole.keys, whole.layers))
            if not window.places:
                continue
            job = prepare(window.places)
            n_behind = int(job.n_tokens.sum()) * (1 + n_later / len(window.places))
            n_bytes = job.n_rows * job.n_features * RAW[self.dtype].itemsize
            order = np.argsort(-job.n_tokens, kind="stable")
            for part in runs(n_bytes[order], CHUNK_BYTES, self.chunk_size):
                rows = order[part]
                n_behind -= int(job.n_tokens[rows].sum())
                free = self.owner.claim([window.keys[i] for i in rows], window.layers)
                if free:
                    claimed = np.sort(rows[free])
                    keys = [window.keys[i] for i in claimed]
                    yield _Chunk(job, claimed, keys, window.layers, int(n_behind))

    def write(self, chunk: _Chunk, progress: Any) -> None:
        """Embed a chunk, and leave it to the disk."""
        job = chunk.job
        sink = ChunkSink(
            self.folder.path,
            f"{self.owner.name}-{self.n_chunks}",
            self.dtype,
            chunk.layers,
            chunk.keys,
            job.n_rows[chunk.rows],
            job.n_features,
            None if job.shapes is None else job.shapes[chunk.rows],
            None
            if job.segments is None
            else job.segments[rows_of(offsets_of(job.n_rows), chunk.rows)],
            self.writing,
        )
        self.n_chunks += 1
        try:
            sink.reserve()
            job.embed(chunk.rows, list(chunk.layers), sink, progress)
            self.n_embedded += len(chunk.rows)
            self.writing.wait()
            self.sealing.run(self._finish, sink)
        except BaseException:
            with suppress(Exception):
                self.writing.wait()  # it may be writing these files
            sink.discard()
            raise

    def _finish(self, sink: ChunkSink) -> None:
        try:
            try:
                rows, samples = sink.seal()
            except FileNotFoundError as error:  # litter that was removed
                raise _TakenForDeadError from error
            if not self.owner.commit(rows, samples, sink.layers):
                raise _TakenForDeadError
        except BaseException:
            sink.discard()
            with suppress(ValueError, OSError):  # they are litter, and go later
                remove_unnamed(self.index, self.folder, sink.names)
            raise


def fill(
    index: Index,
    folder: ShardFolder,
    samples: Sequence[bytes],
    identities: Mapping[int, Identity],
    also: Mapping[int, Identity],
    prepare: Callable[[list[int]], Job],
    *,
    dtype: str,
    chunk_size: int,
    progress: bool = False,
) -> Filled:
    """Embed what is missing; when it returns, every sample is in the store at every layer.

    Parameters
    ----------
    index, folder : Index, ShardFolder
        The store.
    samples : sequence of bytes
        Distinct keys of samples.
    identities : mapping of int to Identity
        Layers that must be there, by block.
    also : mapping of int to Identity
        Layers to keep too where a sample goes through the model anyway, by block.
    prepare : callable
        Makes a :class:`Job` of the samples with the given numbers; called in another thread, for
        some chunks of samples that are missing at a time.
    dtype : {"float32", "float16", "bfloat16"}
        What to store.
    chunk_size : int
        Most samples of a chunk.
    progress : bool, default=False
        Whether to show a bar. What is not prepared yet is taken to have as many tokens per sample
        as the window that is.

    Returns
    -------
    filled : Filled
        What was done.

    Raises
    ------
    OSError
        If the store cannot be written, before anything is embedded, or the disk is full.
    """
    every = {**also, **identities}
    needed = np.array([block in identities for block in every])
    n_embedded, pause = 0, _POLL[0]
    with token_bar(progress) as bar:
        while lacking := windows(
            samples, missing(index, samples, every), needed, every, chunk_size
        ):
            folder.refuse_link()
            make_folder(folder.path)
            with (
                suppress(_TakenForDeadError),
                _ChunkWriter(index, folder, dtype, chunk_size) as writer,
            ):
                for chunk in writer.chunks(lacking, prepare):
                    n_tokens = int(chunk.job.n_tokens[chunk.rows].sum())
                    bar.total = bar.n + n_tokens + chunk.n_behind
                    writer.write(chunk, bar)
                writer.sealing.wait()
            n_embedded += writer.n_embedded
            if not writer.n_embedded:
                # All that is left is being written by others.
                time.sleep(pause)
            pause = _POLL[0] if writer.n_embedded else min(2 * pause, _POLL[1])
    return Filled(len(samples), n_embedded)
