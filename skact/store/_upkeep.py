"""Look after a store: what is in it, whether it is intact, and what can go."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skact.store._claims import live_owners
from skact.store._format import read_layer
from skact.store._index import Index
from skact.store._records import ShardRow
from skact.store._shards import SHARD_NAME, ShardFolder
from skact.tokens import same_shapes

__all__ = ["describe", "prune", "verify"]


def describe(index: Index) -> list[dict[str, Any]]:
    """List the layers of a store, one dict each, as ``ActivationStore.info`` gives them."""
    with index.reading() as connection:
        rows = connection.execute(
            "SELECT identities.id, model, block, json, count(*), sum(n_rows), "
            "sum(n_bytes), n_features, min(created), max(created) FROM shards JOIN identities "
            "ON identities.id = identity GROUP BY identity ORDER BY model, block, identities.id"
        ).fetchall()
        n_samples = dict(
            connection.execute("SELECT identity, count(*) FROM entries GROUP BY identity")
        )
    return [
        {
            "model": model,
            "layer": block,
            "dtype": json.loads(text)["stored_as"],
            "convention": json.loads(text)["convention"],
            "samples": n_samples.get(number, 0),
            "tokens": n_rows,
            "features": width,
            "shards": n_shards,
            "bytes": n_bytes,
            "created": (first, last),
            "identity": json.loads(text),
        }
        for number, model, block, text, n_shards, n_rows, n_bytes, width, first, last in rows
    ]


@dataclass(frozen=True)
class _Shard:
    """A shard as the index describes it: with the digest of its identity, and the key by slot."""

    id: int
    identity: int
    digest: bytes
    row: ShardRow
    samples: dict[int, bytes]


def _shards(connection: sqlite3.Connection) -> Iterator[_Shard]:
    """Go through the shards, layer by layer."""
    for identity, digest in connection.execute(
        "SELECT id, digest FROM identities ORDER BY id"
    ).fetchall():
        shards = connection.execute(
            f"SELECT id, {ShardRow.COLUMNS} FROM shards WHERE identity = ? ORDER BY id", (identity,)
        ).fetchall()
        samples: dict[int, dict[int, bytes]] = defaultdict(dict)
        for shard, slot, sample in connection.execute(
            "SELECT shard, slot, sample FROM entries WHERE identity = ?", (identity,)
        ):
            samples[shard][slot] = sample
        for shard, *columns in shards:
            row = ShardRow.read(*columns)
            yield _Shard(shard, identity, digest, row, samples.pop(shard, {}))


def _intact(shard: _Shard, path: Path) -> set[int]:
    """Slots of a shard whose sample, rows and checksum belong together."""
    try:
        layer = read_layer(path)
    except (FileNotFoundError, ValueError):  # pruned meanwhile, or damaged
        return set()
    row, values = shard.row, layer.values
    said = layer.identity.digest, layer.dtype, values.offset, values.shape
    if said != (shard.digest, row.dtype, row.start, row.shape):
        return set()
    same = np.array_equal(layer.lengths, row.lengths) and same_shapes(layer.shapes, row.shapes)
    if not same:
        return set()
    slots = [slot for slot, key in enumerate(layer.samples) if shard.samples.get(slot) == key]
    return set(slots) - set(layer.damaged(slots))


def _damage(shard: _Shard, folder: ShardFolder) -> tuple[str | None, list[int]]:
    """Say what is wrong with a shard, and which of its slots cannot be used."""
    problem = folder.problem(shard.row)
    if problem:
        return problem, list(shard.samples)
    path = folder.path / shard.row.name
    intact = _intact(shard, path)
    bad = [slot for slot in shard.samples if slot not in intact]
    if not bad:
        return None, []
    return f"{str(path)!r} is damaged in {len(bad)} of {len(shard.samples)} samples", bad


def _is_there(index: Index, shard: int) -> bool:
    """Tell whether a shard was not pruned meanwhile."""
    with index.reading() as connection:
        return bool(connection.execute("SELECT 1 FROM shards WHERE id = ?", (shard,)).fetchone())


def verify(index: Index, folder: ShardFolder, repair: bool) -> list[str]:
    """Read everything and compare checksums, as ``ActivationStore.verify`` says."""
    problems, lost, gone = [], [], []
    with index.reading() as connection:
        (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        shards = list(_shards(connection))
    if state != "ok":
        problems.append(f"the index {str(index.path)!r} is damaged: {state}")
    # Files are read outside of the transaction, which would hold up writers.
    for shard in shards:
        problem, bad = _damage(shard, folder)
        if problem and _is_there(index, shard.id):
            problems.append(problem)
            lost += [(shard.identity, shard.samples[slot], shard.id) for slot in bad]
            if len(bad) == len(shard.samples):
                gone.append(shard)
    if repair and problems:
        with index.writing() as connection:
            connection.executemany(
                "DELETE FROM entries WHERE identity = ? AND sample = ? AND shard = ?", lost
            )
            connection.executemany("DELETE FROM shards WHERE id = ?", [(s.id,) for s in gone])
        folder.remove([shard.row.name for shard in gone])
    return problems


def _chosen(
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
    )
    before = None if older_than is None else time.time() - older_than * 24 * 3600
    rules = model is not None or layer is not None or before is not None
    going, total = {}, 0
    for shard, identity, name, its_model, block, created, n_bytes, used in shards:
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
    if not folder.path.is_dir():
        return 0
    # Listed before the index is read: what appears later cannot be taken for litter.
    present = [path.name for path in folder.path.iterdir()]
    with index.writing() as connection:
        living = live_owners(connection)
        going = _chosen(connection, model, layer, older_than, max_bytes)
        for shard, (identity, _) in going.items():
            connection.execute(
                "DELETE FROM entries WHERE identity = ? AND shard = ?", (identity, shard)
            )
            connection.execute("DELETE FROM shards WHERE id = ?", (shard,))
        connection.execute(
            "DELETE FROM identities WHERE id NOT IN (SELECT identity FROM shards) "
            "AND id NOT IN (SELECT identity FROM claims)"
        )
        known = {name for (name,) in connection.execute("SELECT name FROM shards")}
    gone = [name for _, name in going.values()]
    ours = (name for name in present if SHARD_NAME.fullmatch(name) and name not in known)
    litter = [name for name in ours if name.partition("-")[0] not in living]
    return folder.remove(sorted({*gone, *litter}))
