"""What the index is asked and told about samples and shards."""

from __future__ import annotations

import sqlite3
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from skact.rows import Array
from skact.store._index import Index
from skact.store._records import Identity, ShardRow

__all__ = ["add_shards", "find", "layer_slots", "missing", "row_ids", "shard_rows"]


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
            )
            lacking[[place for (place,) in rows], column] = False
    return lacking


def find(connection: sqlite3.Connection, identity: Identity) -> Array:
    """Say where samples of a layer lie.

    Parameters
    ----------
    connection : Connection
        Of :meth:`Index.reading`, with samples.
    identity : Identity
        The layer.

    Returns
    -------
    places : ndarray of shape (n_there, 2), int
        Shard and slot of the samples that are there, in the order in which they were asked for.
    """
    places = connection.execute(
        "SELECT shard, slot FROM wanted JOIN identities ON digest = ? JOIN entries "
        "ON identity = identities.id AND entries.sample = wanted.sample ORDER BY place",
        (identity.digest,),
    ).fetchall()
    return np.array(places, np.int64).reshape(-1, 2)


def layer_slots(connection: sqlite3.Connection, identity: Identity) -> dict[int, list[int]]:
    """List the slots that hold the samples of a layer, by shard, all in ascending order."""
    slots: dict[int, list[int]] = defaultdict(list)
    for shard, slot in connection.execute(
        "SELECT shard, slot FROM entries JOIN identities ON identities.id = identity "
        "WHERE digest = ? ORDER BY shard, slot",
        (identity.digest,),
    ):
        slots[shard].append(slot)
    return slots


def shard_rows(connection: sqlite3.Connection, shards: Sequence[int]) -> list[ShardRow]:
    """Read the rows of shards, by their numbers."""
    query = f"SELECT {ShardRow.COLUMNS} FROM shards WHERE id = ?"
    return [ShardRow.read(*connection.execute(query, (shard,)).fetchone()) for shard in shards]


def add_shards(
    connection: sqlite3.Connection,
    ids: Mapping[int, int],
    rows: Mapping[int, ShardRow],
    samples: Sequence[bytes],
) -> None:
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
    """
    for block, row in rows.items():
        lengths = row.lengths.astype("<i8").tobytes()
        shard = connection.execute(
            f"INSERT INTO shards (identity, n_rows, created, {ShardRow.COLUMNS}) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                ids[block],
                row.shape[0],
                time.time(),
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
