"""One layer of a store as one file, of the same format as a shard, and back."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from skact.files import parse_json
from skact.rows import Array, Sink, all_finite, runs
from skact.store._entries import are_there, layer_shards
from skact.store._format import LayerFile
from skact.store._index import Index
from skact.store._layer_writer import copy_layer
from skact.store._records import Identity
from skact.store._shards import ShardFolder

__all__ = ["CopyJob", "are_numbers", "check_width", "export", "one_layer"]

_PIECE = 2**24  # bytes to copy at a time


def one_layer(
    index: Index,
    dtype: str,
    block: int | None,
    model: str | None,
    convention: str | Mapping[str, Any] | None,
) -> Identity:
    """Find the only layer that fits, as ``ActivationStore.export`` says."""
    with index.reading() as connection:
        rows = connection.execute(
            "SELECT json, digest, model, block FROM identities WHERE id IN "
            "(SELECT identity FROM entries) ORDER BY model, block, id"
        ).fetchall()
    every = [Identity(*columns) for columns in rows]
    told = {"convention": convention} if isinstance(convention, str) else dict(convention or {})
    wanted = {"stored_as": dtype, **told}
    fitting = [
        identity
        for identity in every
        if block in (None, identity.block)
        and model in (None, identity.model)
        and wanted.items() <= _entries(identity).items()
    ]
    if len(fitting) != 1:
        raise ValueError(
            f"{len(fitting)} layers of dtype {dtype} fit layer={block}, model={model!r}, "
            f"convention={convention!r}; name exactly one. "
            f"{'These fit' if fitting else 'The store holds'}: {_told_apart(fitting or every)}."
        )
    return fitting[0]


def _entries(identity: Identity) -> dict[str, str | float | None]:
    """Entries of an identity; those of an inner dict as ``outer.inner``."""
    out: dict[str, str | float | None] = {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{name}.{key}" if name else key)
        else:
            out[name] = json.dumps(value) if isinstance(value, list) else value

    walk(parse_json(identity.json, "the identity"), "")
    return out


def _told_apart(identities: Sequence[Identity]) -> str:
    """Name layers by model, block, convention, and whatever else is not the same in all."""
    every = [_entries(identity) for identity in identities]
    said = ("model", "block", "convention")
    names = [
        name
        for name in dict.fromkeys(name for one in every for name in one)
        if name not in said and len({one.get(name) for one in every}) > 1
    ]
    return (
        "; ".join(
            ", ".join(
                [
                    f"model={identity.model!r}, layer={identity.block}",
                    *(f"{name}={one.get(name)!r}" for name in ("convention", *names)),
                ]
            )
            for identity, one in zip(identities, every, strict=True)
        )
        or "nothing"
    )


def _opened(
    index: Index, folder: ShardFolder, identity: Identity
) -> list[tuple[list[int], LayerFile]]:
    """Open all shards of a layer at once: what is pruned later can still be read."""
    while shards := layer_shards(index, identity):
        try:
            return [
                (list(held.samples), folder.open(held, identity.digest, check=False))
                for held in shards
            ]
        except OSError:
            if are_there(index, shards):
                raise
    raise ValueError(
        f"layer {identity.block} of {identity.model!r} was removed from the store meanwhile."
    )


def export(index: Index, folder: ShardFolder, identity: Identity, file: Path) -> int:
    """Copy the shards of a layer into one file, as ``ActivationStore.export`` says."""
    shards = _opened(index, folder, identity)
    # The name is for people; whoever gets the file is not to read where the model lies here.
    name = os.path.basename(identity.model) if os.path.isabs(identity.model) else identity.model
    temporary = file.with_name(f"{file.name}.{secrets.token_hex(8)}.tmp")
    copy_layer(temporary, file, shards, replace(identity, model=name))
    return sum(len(slots) for slots, _ in shards)


def are_numbers(rows: Array) -> bool:
    """Whether rows hold neither NaN nor infinity."""
    if rows.dtype == np.uint16:  # bfloat16, the upper half of a float32
        return bool(((rows & 0x7F80) != 0x7F80).all())
    return all_finite(rows)


def check_width(index: Index, identity: Identity, n_features: int, what: str) -> None:
    """Refuse rows of another width than those that the store holds of the layer."""
    with index.reading() as connection:
        found = connection.execute(
            "SELECT n_features FROM shards WHERE identity = "
            "(SELECT id FROM identities WHERE digest = ?) LIMIT 1",
            (identity.digest,),
        ).fetchone()
    if found is not None and found[0] != n_features:
        raise ValueError(
            f"{what} holds {n_features} features of a token, but the store has {found[0]} of the "
            f"same layer ({identity.block} of {identity.model!r})."
        )


class CopyJob:
    """Samples of a file, as a :class:`~skact.store.Job` that copies rows and runs no model.

    Parameters
    ----------
    layer : LayerFile
        The file.
    samples : list of int
        Which of its samples.
    """

    def __init__(self, layer: LayerFile, samples: list[int]) -> None:
        self.layer = layer
        self.samples = np.array(samples)
        self.n_rows = self.n_tokens = layer.lengths[self.samples]
        self.n_features = int(layer.values.shape[1])
        self.shapes = None if layer.shapes is None else layer.shapes[self.samples]
        self.segments = layer.runs(self.samples)

    def embed(self, rows: Array, blocks: Sequence[int], sink: Sink, progress: Any) -> None:
        """Copy the rows of some samples, if they have their checksums."""
        (block,) = blocks
        numbers = self.samples[rows].tolist()
        if bad := self.layer.damaged(numbers):
            raise ValueError(
                f"{str(self.layer.path)!r} is damaged: the rows of {len(bad)} samples do not have "
                "their checksums. What was imported before is intact."
            )
        for i in numbers:
            if not are_numbers(self.layer.rows(i)):
                raise ValueError(
                    f"{str(self.layer.path)!r} holds NaN or infinity in the rows of its sample "
                    f"{i}. What was imported before is intact."
                )
        n_bytes = self.n_rows[rows] * self.n_features * self.layer.values.itemsize
        for part in runs(n_bytes, _PIECE):
            batch = np.arange(part.start, part.stop)
            room, starts = sink.room(batch)
            for i, start in zip(numbers[part], starts, strict=True):
                room[block][start : start + self.layer.lengths[i]] = self.layer.rows(i)
            sink.keep(batch)
