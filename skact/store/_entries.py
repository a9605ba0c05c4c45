"""What the index is asked and told about samples and shards."""

from __future__ import annotations

import sqlite3
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from skact.rows import Array
from skact.store._index import DamagedIndexError, Index
from skact.store._records import Identity, ShardRow

__all__ = [
    "Held",
    "add_shards",
    "are_there",
    "drop_shard",
    "find",
    "layer_shards",
    "missing",
    "row_ids",
]


def row_ids(connection: sqlite3.Connection, identities: Mapping[int, Identity]) -> dict[int, int]:
    """Find the rows of identities, and make those that are not there.

    Parameters
    ----------
    connection : Connection
        Of :meth:`Index.writing`.
    identities : mapping of int to Identity
        By block.

    Returns
    -------
    ids : dict of int to int
        Row by block.
    """
    ids = {}
    for block, identity in identities.items():
        connection.execute(
            "INSERT OR IGNORE INTO identities (digest, json, model, block) VALUES (?, ?, ?, ?)",
            (identity.digest, identity.json, identity.model, identity.block),
        )
        row = connection.execute("SELECT id FROM identities WHERE digest = ?", (identity.digest,))
        ids[block] = int(row.fetchone()[0])
    return ids


def missing(index: Index, samples: Sequence[bytes], identities: Mapping[int, Identity]) -> Array:
    """Tell what is not in the store.

    Parameters
    ----------
    index : Index
        The index.
    samples : sequence of bytes
        Keys of samples.
    identities : mapping of int to Identity
        By block.

    Returns
    -------
    missing : ndarray of shape (n_samples, n_blocks), dtype bool
        Columns in the order of the mapping.
    """
    lacking = np.ones((len(samples), len(identities)), bool)
    with index.reading(samples) as connection:
        for column, identity in enumerate(identities.values()):
            rows = connection.execute(
                "SELECT place FROM wanted JOIN identities ON digest = ? "
                "JOIN entries ON identity = identities.id AND entries.sample = wanted.sample",
                (identity.digest,),
            ).fetchall()
            lacking[[place for (place,) in rows], column] = False
    return lacking


@dataclass(frozen=True)
class Held:
    """Samples of a layer in one shard.

    Parameters
    ----------
    id : int
        Number of the shard.
    row : ShardRow
        The shard.
    samples : dict of int to bytes
        Keys by slot.
    """

    id: int
    row: ShardRow
    samples: dict[int, bytes]


def find(
    index: Index, samples: Sequence[bytes], identity: Identity
) -> tuple[Array, list[Held]] | None:
    """Say where samples of a layer lie.

    Parameters
    ----------
    index : Index
        The index.
    samples : sequence of bytes
        Keys of samples.
    identity : Identity
        The layer.

    Returns
    -------
    places : ndarray of shape (n_samples, 2), int
        Which of the shards each sample lies in, and its slot.
    shards : list of Held
        The shards. None instead of both if a sample is not there.

    Raises
    ------
    DamagedIndexError
        If the index contradicts itself.
    """
    with index.reading(samples) as connection:
        rows = connection.execute(
            "SELECT place, shard, slot FROM wanted JOIN identities ON digest = ? "
            "JOIN entries ON identity = identities.id AND entries.sample = wanted.sample "
            "ORDER BY place",
            (identity.digest,),
        ).fetchall()
        if len(rows) < len(samples):
            return None
        if [place for place, _, _ in rows] != list(range(len(samples))):
            raise DamagedIndexError(index.path, "it holds a sample twice")
        # The keys are those that were asked for: in a damaged index even a match may be none.
        asked = [(shard, slot, samples[place]) for place, shard, slot in rows]
        shards = _held(index, connection, asked)
    numbers = {shard.id: number for number, shard in enumerate(shards)}
    places = np.array([(numbers[shard], slot) for _, shard, slot in rows], np.int64)
    return places.reshape(-1, 2), shards


def layer_shards(index: Index, identity: Identity) -> list[Held]:
    """List the shards of a layer that hold samples, in ascending order."""
    with index.reading() as connection:
        rows = connection.execute(
            "SELECT shard, slot, sample FROM entries JOIN identities ON identities.id = identity "
            "WHERE digest = ? ORDER BY shard, slot",
            (identity.digest,),
        ).fetchall()
        return _held(index, connection, rows)


def are_there(index: Index, shards: Sequence[Held]) -> bool:
    """Tell whether the index still names all of these shards, which may be pruned meanwhile."""
    query = "SELECT 1 FROM shards WHERE id = ? AND name = ?"
    with index.reading() as connection:
        return all(connection.execute(query, (s.id, s.row.name)).fetchall() for s in shards)


def drop_shard(connection: sqlite3.Connection, shard: int, name: str, identity: int) -> bool:
    """Take a shard out of the index, and what lies in it, if that number is still its own."""
    gone = connection.execute("DELETE FROM shards WHERE id = ? AND name = ?", (shard, name))
    if gone.rowcount:
        connection.execute(
            "DELETE FROM entries WHERE identity = ? AND shard = ?", (identity, shard)
        )
    return bool(gone.rowcount)


def _held(
    index: Index, connection: sqlite3.Connection, entries: Sequence[tuple[int, int, bytes]]
) -> list[Held]:
    """Put shard, slot and key of entries together by shard."""
    samples: dict[int, dict[int, bytes]] = defaultdict(dict)
    for shard, slot, sample in entries:
        if type(shard) is not int or type(slot) is not int:
            raise DamagedIndexError(index.path, f"a sample lies in slot {slot!r} of {shard!r}")
        if samples[shard].setdefault(slot, sample) != sample:
            raise DamagedIndexError(index.path, "two of its samples lie in one slot")
    query = f"SELECT {ShardRow.COLUMNS} FROM shards WHERE id = ?"
    held = []
    for shard in sorted(samples):
        found = connection.execute(query, (shard,)).fetchall()
        if not found:
            raise DamagedIndexError(index.path, f"it lacks the shard {shard} of its samples")
        try:
            held.append(Held(shard, ShardRow.read(*found[0]), samples[shard]))
        except ValueError as error:
            raise DamagedIndexError(index.path, error) from error
    return held


def add_shards(
    connection: sqlite3.Connection,
    ids: Mapping[int, int],
    rows: Mapping[int, ShardRow],
    samples: Sequence[bytes],
    created: float | None = None,
) -> list[int]:
    """Enter sealed shards; a sample that some other shard holds already stays there.

    Parameters
    ----------
    connection : Connection
        Of :meth:`Index.writing`.
    ids : mapping of int to int
        Rows of identities, by block.
    rows : mapping of int to ShardRow
        The shards, by block.
    samples : sequence of bytes
        Keys of the samples in their slots.
    created : float or None, default=None
        When they were written, in seconds since 1970; None means now.

    Returns
    -------
    ids : list of int
        Numbers of the shards.
    """
    numbers = []
    for block, row in rows.items():
        lengths = row.lengths.astype("<i8").tobytes()
        shard = connection.execute(
            f"INSERT INTO shards (identity, n_rows, created, {ShardRow.COLUMNS}) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                ids[block],
                row.shape[0],
                time.time() if created is None else created,
                row.name,
                row.dtype,
                row.n_features,
                row.start,
                row.n_bytes,
                lengths,
                None if row.shapes is None else row.shapes.astype("<i8").tobytes(),
            ),
        ).lastrowid
        connection.executemany(
            "INSERT OR IGNORE INTO entries VALUES (?, ?, ?, ?)",
            ((ids[block], sample, shard, slot) for slot, sample in enumerate(samples)),
        )
        numbers.append(int(shard or 0))
    return numbers
