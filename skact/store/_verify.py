"""Compare a store with itself: the index, entry by entry, and the rows of every shard."""

from __future__ import annotations

import hashlib
import math
import sqlite3
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from skact.files import parse_json
from skact.store._entries import Held, add_shards, are_there, drop_shard, row_ids
from skact.store._index import DamagedIndexError, Index
from skact.store._records import ShardRow
from skact.store._shards import ShardFolder, said_damaged
from skact.store._upkeep import remove_unnamed

__all__ = ["verify"]


@dataclass
class _Layer:
    """A layer as the index describes it, and what in that can be no shard or sample."""

    id: int
    digest: bytes
    shards: list[Held] = field(default_factory=list)
    strange: list[int] = field(default_factory=list)  # numbers of shards
    strays: list[tuple[Any, ...]] = field(default_factory=list)  # sample, shard and slot


@dataclass
class _Lost:
    """What is to be taken out of the index."""

    entries: list[tuple[Any, ...]] = field(default_factory=list)  # identity, sample, shard, slot
    shards: list[tuple[int, int]] = field(default_factory=list)  # number and identity
    names: list[str] = field(default_factory=list)


def verify(index: Index, folder: ShardFolder, repair: bool) -> list[str]:
    """Read everything and compare checksums, as ``ActivationStore.verify`` says."""
    problem = _index_problem(index, folder)
    if problem is not None:
        if not repair:
            return [problem]
        _make_anew(index, folder)
    with index.reading() as connection:
        layers = _layers(connection)
    problems, lost = [] if problem is None else [problem], _Lost()
    # Files are read outside of the transaction, which would hold up writers.
    for layer in layers:
        problems += _strange(index, layer, lost)
        for held in layer.shards:
            problems += _damaged(index, folder, layer, held, lost)
    if repair and (lost.entries or lost.shards):
        _remove(index, folder, lost)
    return problems


def _index_problem(index: Index, folder: ShardFolder) -> str | None:
    """Say why the index must be made anew, None if it need not."""
    if not index.path.exists() and not index.path.is_symlink():
        sealed = any(name.endswith(".safetensors") for name in folder.names())
        return str(DamagedIndexError(index.path, "it is missing")) if sealed else None
    if problem := index.problem():
        return problem
    with index.reading() as connection:
        names = connection.execute("SELECT digest, json, block FROM identities").fetchall()
        (lone,) = connection.execute(
            "SELECT EXISTS (SELECT 1 FROM shards WHERE identity NOT IN (SELECT id FROM identities))"
            " OR EXISTS (SELECT 1 FROM entries WHERE identity NOT IN (SELECT id FROM identities))"
        ).fetchall()[0]
    if lone or not all(_is_identity(*name) for name in names):
        return str(DamagedIndexError(index.path, "the names of its layers"))
    return None


def _is_identity(digest: Any, text: Any, block: Any) -> bool:
    try:
        said = parse_json(text, "the identity")["block"]
        return bool(said == block and hashlib.sha256(text.encode()).digest() == digest)
    except (ValueError, TypeError, KeyError, AttributeError):
        return False


def _make_anew(index: Index, folder: ShardFolder) -> None:
    """Make the index of what the shards say of themselves."""

    def fill(connection: sqlite3.Connection) -> None:
        # Above all numbers that the old one has given out.
        for table in ("identities", "shards"):
            connection.execute(
                "INSERT INTO sqlite_sequence VALUES (?, ?)", (table, time.time_ns() // 1000)
            )
        for name, layer in folder.layers():
            if layer is not None:
                size = layer.path.stat()
                start, width = layer.values.offset, int(layer.values.shape[1])
                row = ShardRow(
                    *(name, layer.dtype, width, start, size.st_size, layer.lengths, layer.shapes)
                )
                layers = {layer.identity.block: layer.identity}
                rows = {layer.identity.block: row}
                add_shards(
                    connection, row_ids(connection, layers), rows, layer.samples, size.st_mtime
                )

    index.replace(fill)
    with index.writing() as connection:  # what was pruned meanwhile
        there = set(folder.names())
        for shard, name, identity in connection.execute(
            "SELECT id, name, identity FROM shards"
        ).fetchall():
            if name not in there:
                drop_shard(connection, shard, name, identity)


def _layers(connection: sqlite3.Connection) -> list[_Layer]:
    """Read the index, whatever is in it."""
    layers = []
    for layer_id, digest in connection.execute(
        "SELECT id, digest FROM identities ORDER BY id"
    ).fetchall():
        layer = _Layer(layer_id, digest)
        samples: dict[Any, dict[Any, bytes]] = defaultdict(dict)
        for sample, shard, slot in connection.execute(
            "SELECT sample, shard, slot FROM entries WHERE identity = ?", (layer_id,)
        ).fetchall():
            if type(slot) is not int or slot in samples[shard]:
                layer.strays.append((sample, shard, slot))
            else:
                samples[shard][slot] = sample
        for shard, n_rows, created, *columns in connection.execute(
            f"SELECT id, n_rows, created, {ShardRow.COLUMNS} FROM shards WHERE identity = ? "
            "ORDER BY id",
            (layer_id,),
        ).fetchall():
            try:
                row = ShardRow.read(*columns)
                fine = n_rows == row.shape[0] and math.isfinite(created)
            except (ValueError, TypeError):
                fine = False
            if fine:
                layer.shards.append(Held(shard, row, samples.pop(shard, {})))
            else:
                layer.strange.append(shard)
        layer.strays += [
            (sample, shard, slot)
            for shard, slots in samples.items()
            for slot, sample in slots.items()
        ]
        layers.append(layer)
    return layers


def _strange(index: Index, layer: _Layer, lost: _Lost) -> list[str]:
    """Say what in the index can be no shard, and what lies in none."""
    lost.shards += [(shard, layer.id) for shard in layer.strange]
    lost.entries += [(layer.id, *stray) for stray in layer.strays]
    said = [
        f"the row of the shard {shard} in the index {str(index.path)!r} is damaged"
        for shard in layer.strange
    ]
    if layer.strays:
        said.append(
            f"{len(layer.strays)} samples in the index {str(index.path)!r} lie in no shard of "
            "their layer"
        )
    return said


def _damaged(
    index: Index, folder: ShardFolder, layer: _Layer, held: Held, lost: _Lost
) -> list[str]:
    """Say what is wrong with a shard, and note which of its slots cannot be used."""
    file, problem, bad = folder.look(held, layer.digest)
    if file is not None:
        good = sorted(set(held.samples).difference(bad))
        try:
            bad += file.damaged(good)
        except FileNotFoundError:
            problem, bad = f"{str(file.path)!r} is missing", list(held.samples)
        except OSError as error:
            problem, bad = f"{str(file.path)!r} cannot be read ({error})", list(held.samples)
    if not (bad or problem) or not are_there(index, [held]):
        return []
    lost.entries += [(layer.id, held.samples[slot], held.id, slot) for slot in bad]
    lost.shards.append((held.id, layer.id))
    lost.names.append(held.row.name)
    return [problem or said_damaged(folder.path / held.row.name, held, bad)]


def _remove(index: Index, folder: ShardFolder, lost: _Lost) -> None:
    """Take what is lost out of the index, and shards of which nothing is left off the disk.

    No number of a shard is ever used twice, so these rows are still those that were looked at.
    """
    with index.writing() as connection:
        connection.executemany(
            "DELETE FROM entries WHERE identity IS ? AND sample IS ? AND shard IS ? AND slot IS ?",
            lost.entries,
        )
        connection.executemany(
            "DELETE FROM shards WHERE id = ? AND NOT EXISTS "
            "(SELECT 1 FROM entries WHERE identity = ? AND shard = shards.id)",
            lost.shards,
        )
    remove_unnamed(index, folder, lost.names)
