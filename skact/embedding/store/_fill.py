"""Put into a store what it does not hold, whoever else writes at the same time.

Samples go in chunks. A chunk is claimed, embedded straight into the mapped files of its shards,
brought to the disk, and committed in one transaction; so a run that dies loses the chunk it works
on and the one that is on its way to the disk. All layers that a sample lacks come from one pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from skact.embedding.store._claims import Owner
from skact.embedding.store._index import (
    Identity,
    Index,
    ShardRow,
    make_folder,
    missing,
    row_ids,
)
from skact.embedding.store._shards import RAW, PendingShards, Shelf
from skact.tokens import Array

__all__ = ["Allocate", "Filled", "Job", "commit", "fill"]

_CHUNK_BYTES = 2**28  # of a shard
_POLL = 0.05, 1.0  # seconds to wait for other writers: the first time, and at most

Allocate = Callable[[int, tuple[int, int], np.dtype[Any]], Array]


class Job(Protocol):
    """Samples that can be embedded.

    ``n_rows`` says how many rows each gives, of ``n_features`` numbers, and ``n_tokens`` how many
    tokens the model puts out for it. ``embed`` writes the rows of the samples with the given
    numbers, one sample after another, into the arrays that ``allocate(block, shape, dtype)``
    gives, and reports tokens to a bar.
    """

    n_rows: Array
    n_tokens: Array
    n_features: int

    def embed(
        self, rows: Array, blocks: Sequence[int], allocate: Allocate, progress: Any
    ) -> object: ...


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


def commit(
    index: Index,
    owner: Owner,
    rows: Mapping[int, ShardRow],
    samples: Sequence[bytes],
    identities: Mapping[int, Identity],
) -> bool:
    """Enter sealed shards into the index; from then on they exist.

    Parameters
    ----------
    index : Index
        The index.
    owner : Owner
        Who wrote them.
    rows : mapping of int to ShardRow
        The shards by block.
    samples : sequence of bytes
        Keys of the samples in their slots.
    identities : mapping of int to Identity
        By block.

    Returns
    -------
    done : bool
        False if the owner was taken for dead meanwhile, and its files perhaps for litter.
    """
    with index.writing() as connection:
        if not owner.lives(connection):
            return False
        ids = row_ids(connection, {block: identities[block] for block in rows})
        for block, row in rows.items():
            shard = connection.execute(
                "INSERT INTO shards (identity, name, dtype, n_features, n_rows, lengths, "
                "checksums, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    ids[block],
                    row.name,
                    row.dtype,
                    row.n_features,
                    row.n_rows,
                    row.lengths.astype("<i8").tobytes(),
                    row.checksums.tobytes(),
                    time.time(),
                ),
            ).lastrowid
            connection.executemany(
                "INSERT OR IGNORE INTO entries VALUES (?, ?, ?, ?)",
                ((ids[block], sample, shard, slot) for slot, sample in enumerate(samples)),
            )
            connection.executemany(
                "DELETE FROM claims WHERE identity = ? AND sample = ?",
                ((ids[block], sample) for sample in samples),
            )
    return True


class _TakenForDeadError(Exception):
    """The owner was silent for so long that others took its claims."""


class _Writer:
    """Chunk after chunk under one owner; the disk works while the model does."""

    def __init__(self, index: Index, shelf: Shelf, dtype: str) -> None:
        self.index = index
        self.shelf = shelf
        self.dtype = dtype
        self.owner = Owner(index)
        self.n_chunks = 0
        self.disk = ThreadPoolExecutor(1)
        self.unfinished: Future[None] | None = None

    def __enter__(self) -> Self:
        self.owner.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.disk.shutdown()
        self.owner.__exit__()

    def write(
        self,
        job: Job,
        rows: Array,
        samples: Sequence[bytes],
        identities: Mapping[int, Identity],
        progress: Any,
    ) -> None:
        """Embed some samples of a job, and leave them to the disk."""
        prefix = f"{self.owner.name}-{self.n_chunks}"
        self.n_chunks += 1
        shards = PendingShards(self.shelf.folder, prefix, self.dtype)
        try:
            job.embed(rows, list(identities), shards.allocate, progress)
            self.wait()
        except BaseException:
            shards.discard()
            raise
        lengths = job.n_rows[rows]
        self.unfinished = self.disk.submit(self._finish, shards, lengths, samples, identities)

    def _finish(
        self,
        shards: PendingShards,
        lengths: Array,
        samples: Sequence[bytes],
        identities: Mapping[int, Identity],
    ) -> None:
        try:
            rows = shards.seal(lengths, samples)
            if not commit(self.index, self.owner, rows, samples, identities):
                raise _TakenForDeadError
        except BaseException:
            shards.discard()
            raise

    def wait(self) -> None:
        """Wait for the disk, and hear what went wrong there."""
        unfinished, self.unfinished = self.unfinished, None
        if unfinished is not None:
            unfinished.result()


def _groups(lacking: Array, places: Array) -> Iterator[tuple[Array, Array]]:
    """Put samples together that lack the same layers: which layers, and which samples."""
    patterns, group = np.unique(lacking[places], axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        yield np.flatnonzero(pattern), places[group.reshape(-1) == number]


def _cut(n_bytes: Array, chunk_size: int) -> Iterator[slice]:
    """Cut samples into chunks of bounded number and size."""
    ends = np.cumsum(n_bytes)
    start = 0
    while start < len(ends):
        used = ends[start - 1] if start else 0
        stop = int(np.searchsorted(ends, used + _CHUNK_BYTES, side="right"))
        stop = min(max(stop, start + 1), start + chunk_size)
        yield slice(start, stop)
        start = stop


def fill(
    index: Index,
    shelf: Shelf,
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
    index, shelf : Index, Shelf
        The store.
    samples : sequence of bytes
        Distinct keys of samples.
    identities : mapping of int to Identity
        Layers that must be there, by block.
    also : mapping of int to Identity
        Layers to keep too where a sample goes through the model anyway, by block.
    prepare : callable
        Makes a :class:`Job` of the samples with the given numbers; called if any is missing.
    dtype : {"float32", "float16", "bfloat16"}
        What to store.
    chunk_size : int
        Most samples of a chunk.
    progress : bool, default=False
        Whether to show a bar.

    Returns
    -------
    filled : Filled
        What was done.

    Raises
    ------
    OSError
        If the store cannot be written, before anything is embedded, or the disk is full.
    """
    from tqdm.auto import tqdm

    every = {**also, **identities}
    blocks = list(every)
    needed = [block in identities for block in blocks]
    number: dict[int, int] = {}
    n_embedded, pause = 0, _POLL[0]
    with tqdm(desc="Embedding", unit="token", unit_scale=True, disable=not progress) as bar:
        while True:
            lacking = missing(index, samples, every)
            places = np.flatnonzero(lacking[:, needed].any(axis=1))
            if len(places) == 0:
                return Filled(len(samples), n_embedded)
            make_folder(shelf.folder)
            if not set(places.tolist()) <= number.keys():
                number = {place: i for i, place in enumerate(places.tolist())}
                job = prepare(places.tolist())
                bar.reset(int(job.n_tokens.sum()))
            before = n_embedded
            with suppress(_TakenForDeadError), _Writer(index, shelf, dtype) as writer:
                for columns, group in _groups(lacking, places):
                    layers = {blocks[column]: every[blocks[column]] for column in columns}
                    rows = np.array([number[place] for place in group.tolist()])
                    n_bytes = job.n_rows[rows] * job.n_features * RAW[dtype].itemsize
                    for chunk in _cut(n_bytes, chunk_size):
                        keys = [samples[place] for place in group[chunk]]
                        free = writer.owner.claim(keys, layers)
                        if free:
                            ours = [keys[i] for i in free]
                            writer.write(job, rows[chunk][free], ours, layers, bar)
                            n_embedded += len(free)
                writer.wait()
            if n_embedded == before:
                # All that is left is being written by others.
                time.sleep(pause)
            pause = _POLL[0] if n_embedded > before else min(2 * pause, _POLL[1])
