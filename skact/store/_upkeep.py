"""Look after a store: what is in it, whether it is intact, and what can go."""

from __future__ import annotations

import errno
import sqlite3
import time
from collections.abc import Iterable, Mapping
from typing import Any

from skact.files import parse_json
from skact.store._claims import forget_the_dead, live_owners
from skact.store._entries import drop_shard
from skact.store._index import DamagedIndexError, Index
from skact.store._records import owner_of
from skact.store._shards import ShardFolder

__all__ = ["describe", "prune", "remove_unnamed"]


def describe(index: Index) -> tuple[int, list[dict[str, Any]]]:
    """Count the samples, and list the layers, a dict each, as ``ActivationStore.info`` does."""
    with index.reading() as connection:
        rows = connection.execute(
            "SELECT identities.id, model, block, json, count(*), sum(n_rows), "
            "sum(n_bytes), n_features, min(created), max(created) FROM shards JOIN identities "
            "ON identities.id = identity GROUP BY identity ORDER BY model, block, identities.id"
        ).fetchall()
        counted = "SELECT identity, count(*) FROM entries GROUP BY identity"
        n_samples = dict(connection.execute(counted).fetchall())
        ((n_distinct,),) = connection.execute(
            "SELECT count(DISTINCT sample) FROM entries"
        ).fetchall()
    try:
        said = [parse_json(row[3], "the identity") for row in rows]
        return n_distinct, [
            {
                "model": model,
                "layer": block,
                "dtype": about["stored_as"],
                "convention": about["convention"],
                "samples": n_samples.get(number, 0),
                "tokens": n_rows,
                "features": width,
                "shards": n_shards,
                "bytes": n_bytes,
                "created": (first, last),
                "identity": about,
            }
            for about, (number, model, block, _, *figures) in zip(said, rows, strict=True)
            for n_shards, n_rows, n_bytes, width, first, last in [figures]
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedIndexError(index.path, f"the name of a layer ({error})") from error


def _chosen(
    index: Index,
    connection: sqlite3.Connection,
    model: str | None,
    layer: int | None,
    older_than: float | None,
    max_bytes: int | None,
) -> dict[int, tuple[int, str]]:
    """Identity and name of the shards that are to go, by number."""
    shards = connection.execute(
        "SELECT shards.id, identity, name, model, block, created, n_bytes, "
        "shards.id IN (SELECT shard FROM entries) FROM shards "
        "JOIN identities ON identities.id = identity ORDER BY shards.id DESC"
    ).fetchall()
    before = None if older_than is None else time.time() - older_than * 24 * 3600
    rules = model is not None or layer is not None or before is not None
    going, total = {}, 0
    for shard, identity, name, its_model, block, created, n_bytes, used in shards:
        if not (isinstance(created, float) and isinstance(n_bytes, int)):
            raise DamagedIndexError(index.path, f"age or size of the shard {name!r} is no number")
        named = (
            rules
            and model in (None, its_model)
            and layer in (None, block)
            and (before is None or created < before)
        )
        total += 0 if named or not used else n_bytes
        if named or not used or (max_bytes is not None and total > max_bytes):
            going[shard] = identity, name
    return going


def prune(
    index: Index,
    folder: ShardFolder,
    *,
    model: str | None,
    layer: int | None,
    older_than: float | None,
    max_bytes: int | None,
) -> int:
    """Remove shards and litter, as ``ActivationStore.prune`` says."""
    # Listed before the index is read: what appears later cannot be taken for litter.
    present = folder.names()
    if not present and not index.path.exists():
        return 0
    with index.writing() as connection:
        going = _chosen(index, connection, model, layer, older_than, max_bytes)
        known, living = _names(connection), live_owners(connection)
        # Nothing is written yet, so that this makes room where the disk is full.
        n_bytes = folder.remove(
            name for name in present if name not in known and owner_of(name) not in living
        )
    gone = [name for _, name in going.values()]
    try:
        _drop(index, going)
    except OSError as error:
        if error.errno != errno.ENOSPC or not gone:
            raise
        n_bytes += folder.remove(gone)  # without room for the index nothing else helps
        _drop(index, going)
    return n_bytes + remove_unnamed(index, folder, gone)


def _names(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM shards").fetchall()}


def _drop(index: Index, shards: Mapping[int, tuple[int, str]]) -> None:
    """Take shards out of the index, by number and name, and what belongs to nobody any more."""
    with index.writing() as connection:
        forget_the_dead(connection)
        for shard, (identity, name) in shards.items():
            drop_shard(connection, shard, name, identity)
        connection.execute(
            "DELETE FROM identities WHERE id NOT IN (SELECT identity FROM shards) "
            "AND id NOT IN (SELECT identity FROM claims)"
        )


def remove_unnamed(index: Index, folder: ShardFolder, names: Iterable[str]) -> int:
    """Remove files if no row names them by now; how many bytes they took.

    The lock is held meanwhile: nobody enters a file that is being removed.
    """
    with index.writing() as connection:
        return folder.remove(set(names) - _names(connection))
