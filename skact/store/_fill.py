"""Put into a store what it does not hold, whoever else writes at the same time.

Samples are prepared in windows, and a window goes in chunks of samples of about one length, so that
little is padded. One thread prepares and claims what comes next while the model embeds a chunk, and
another writes what it puts out. A chunk is committed in one transaction when all of it is on the
disk; so a run that dies loses the chunk it works on and the one that is on its way to the disk. All
layers that a sample lacks come from one pass.
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
from skact.rows import Array, Sink, runs
from skact.store._claims import Owner
from skact.store._index import Identity, Index, ShardRow, make_folder, missing, row_ids
from skact.store._pending import Disk, PendingShards
from skact.store._shards import RAW, Shelf

__all__ = ["Filled", "Job", "commit", "fill"]

_CHUNK_BYTES = 2**28  # of a shard
# Chunks of a window, and samples of the first one: nothing else is done while it is prepared.
_WINDOW, _FIRST = 4, 256
_POLL = 0.05, 1.0  # seconds to wait for other writers: the first time, and at most


class Job(Protocol):
    """Samples that can be embedded.

    ``n_rows`` says how many rows each gives, of ``n_features`` numbers, and ``n_tokens`` how many
    tokens the model puts out for it. ``embed`` writes the rows of the samples with the given
    numbers, in any order, into the room that the sink gives for the first, second, and so on of
    them, and reports tokens to a bar.
    """

    n_rows: Array
    n_tokens: Array
    n_features: int

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


@dataclass
class _Window:
    """Samples that lack the same layers: their numbers, keys, and layers by block."""

    places: list[int]
    keys: list[bytes]
    layers: Mapping[int, Identity]

    def only(self, which: list[int]) -> Self:
        """Keep some of the samples."""
        places, keys = [self.places[i] for i in which], [self.keys[i] for i in which]
        return type(self)(places, keys, self.layers)


@dataclass
class _Chunk:
    """Samples of a window that are ours to embed."""

    job: Job
    rows: Array  # their numbers in the job
    keys: list[bytes]
    layers: Mapping[int, Identity]
    n_behind: int  # tokens of all samples that come after them, about


class _Writer:
    """Chunk after chunk under one owner, with a thread before the model and one behind it."""

    def __init__(self, index: Index, shelf: Shelf, dtype: str, chunk_size: int) -> None:
        self.index = index
        self.shelf = shelf
        self.dtype = dtype
        self.chunk_size = chunk_size
        self.owner = Owner(index)
        self.ahead = ThreadPoolExecutor(1)
        self.disk = Disk()
        self.n_chunks = 0
        self.n_embedded = 0

    def __enter__(self) -> Self:
        self.owner.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.ahead.shutdown()
        self.disk.__exit__()
        self.owner.__exit__()

    def chunks(
        self, windows: list[_Window], prepare: Callable[[list[int]], Job]
    ) -> Iterator[_Chunk]:
        """Prepare and claim each chunk while the one before is embedded."""
        chunks = self._claimed(windows, prepare)
        following = self.ahead.submit(next, chunks, None)
        while (chunk := following.result()) is not None:
            following = self.ahead.submit(next, chunks, None)
            yield chunk

    def _claimed(
        self, windows: list[_Window], prepare: Callable[[list[int]], Job]
    ) -> Iterator[_Chunk]:
        """Prepare windows one by one, and leave out what others have claimed."""
        n_later = sum(len(window.places) for window in windows)
        for given in windows:
            n_later -= len(given.places)
            window = given.only(self.owner.free(given.keys, given.layers))
            if not window.places:
                continue
            job = prepare(window.places)
            n_behind = int(job.n_tokens.sum()) * (1 + n_later / len(window.places))
            n_bytes = job.n_rows * job.n_features * RAW[self.dtype].itemsize
            order = np.argsort(-job.n_tokens, kind="stable")
            for part in runs(n_bytes[order], _CHUNK_BYTES, self.chunk_size):
                rows = order[part]
                n_behind -= int(job.n_tokens[rows].sum())
                free = self.owner.claim([window.keys[i] for i in rows], window.layers)
                if free:
                    own = np.sort(rows[free])
                    keys = [window.keys[i] for i in own]
                    yield _Chunk(job, own, keys, window.layers, int(n_behind))

    def write(self, chunk: _Chunk, progress: Any) -> None:
        """Embed a chunk, and leave it to the disk."""
        job = chunk.job
        shards = PendingShards(
            self.shelf.folder,
            f"{self.owner.name}-{self.n_chunks}",
            self.dtype,
            list(chunk.layers),
            chunk.keys,
            job.n_rows[chunk.rows],
            job.n_features,
            self.disk,
        )
        self.n_chunks += 1
        try:
            shards.reserve()
            job.embed(chunk.rows, list(chunk.layers), shards, progress)
            self.n_embedded += len(chunk.rows)
            self.disk.run(self._finish, shards, chunk.layers)
        except BaseException:
            with suppress(Exception):
                self.disk.wait()  # it may be writing these files
            shards.discard()
            raise

    def _finish(self, shards: PendingShards, layers: Mapping[int, Identity]) -> None:
        try:
            try:
                rows, samples = shards.seal()
            except FileNotFoundError as error:  # litter that was removed
                raise _TakenForDeadError from error
            if not commit(self.index, self.owner, rows, samples, layers):
                raise _TakenForDeadError
        except BaseException:
            shards.discard()
            raise


def _windows(
    samples: Sequence[bytes],
    lacking: Array,
    needed: Array,
    layers: Mapping[int, Identity],
    chunk_size: int,
) -> list[_Window]:
    """Put samples together by what they lack, if that is a needed layer; a few of them first."""
    blocks = list(layers)
    places = np.flatnonzero(lacking[:, needed].any(axis=1))
    patterns, group = np.unique(lacking[places], axis=0, return_inverse=True)
    windows: list[_Window] = []
    for number, pattern in enumerate(patterns):
        own = places[group.reshape(-1) == number].tolist()
        wanted = {blocks[column]: layers[blocks[column]] for column in np.flatnonzero(pattern)}
        start = 0
        while start < len(own):
            size = _WINDOW * chunk_size if windows else min(chunk_size, _FIRST)
            part = own[start : start + size]
            windows.append(_Window(part, [samples[place] for place in part], wanted))
            start += size
    return windows


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
        while windows := _windows(
            samples, missing(index, samples, every), needed, every, chunk_size
        ):
            make_folder(shelf.folder)
            with (
                suppress(_TakenForDeadError),
                _Writer(index, shelf, dtype, chunk_size) as writer,
            ):
                for chunk in writer.chunks(windows, prepare):
                    n_tokens = int(chunk.job.n_tokens[chunk.rows].sum())
                    bar.total = bar.n + n_tokens + chunk.n_behind
                    writer.write(chunk, bar)
                writer.disk.wait()
            n_embedded += writer.n_embedded
            if not writer.n_embedded:
                # All that is left is being written by others.
                time.sleep(pause)
            pause = _POLL[0] if writer.n_embedded else min(2 * pause, _POLL[1])
    return Filled(len(samples), n_embedded)
