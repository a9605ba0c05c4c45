"""One layer of a store as one safetensors file, written and read piece by piece.

The file holds ``values`` (n_tokens, n_features), ``lengths`` (n_samples,), the 32 bytes of each
sample's key in ``samples``, and ``checksums``, CRC-32 of each sample's key and rows. Its metadata
say in ``identity`` what the numbers are. A layer can be larger than memory, which the safetensors
library could not write; the format is simple: the length of the header in 8 bytes, the header as
JSON, the raw numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skact.rows import Array, Sink, offsets_of
from skact.store._fill import Job
from skact.store._index import Identity, Index, ShardRow
from skact.store._shards import RAW, Shelf, checksums, sync_folder

__all__ = ["Imported", "export", "read_export"]

_FORMAT = "skact activations 1"
_CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_LONGEST_HEADER = 10**8  # as in the library


def _slots(index: Index, shelf: Shelf, identity: Identity) -> list[tuple[bytes, Array, int]]:
    """Key, rows and checksum of every sample of a layer, in the order of the shards."""
    with index.reading() as connection:
        shards = connection.execute(
            f"SELECT shards.id, {ShardRow.COLUMNS} FROM shards JOIN identities ON "
            "identities.id = identity WHERE digest = ? ORDER BY shards.id",
            (identity.digest,),
        ).fetchall()
        places = connection.execute(
            "SELECT shard, slot, sample FROM entries JOIN identities ON identities.id = identity "
            "WHERE digest = ? ORDER BY shard, slot",
            (identity.digest,),
        ).fetchall()
    rows = {shard: ShardRow.read(*columns) for shard, *columns in shards}
    values = {shard: shelf.map(row) for shard, row in rows.items()}
    offsets = {shard: offsets_of(row.lengths) for shard, row in rows.items()}
    return [
        (
            sample,
            values[shard][offsets[shard][slot] : offsets[shard][slot + 1]],
            int(rows[shard].checksums[slot]),
        )
        for shard, slot, sample in places
    ]


def export(index: Index, shelf: Shelf, identity: Identity, file: Path) -> int:
    """Write a layer, as ``ActivationStore.export`` says."""
    slots = _slots(index, shelf, identity)
    dtype = json.loads(identity.json)["stored_as"]
    n_features = slots[0][1].shape[1]
    small = {
        "lengths": ("I64", np.array([len(rows) for _, rows, _ in slots], "<i8")),
        "samples": ("U8", np.frombuffer(b"".join(s for s, _, _ in slots), "u1").reshape(-1, 32)),
        "checksums": ("U32", np.array([c for _, _, c in slots], "<u4")),
    }
    n_rows = int(small["lengths"][1].sum())
    end = n_rows * n_features * RAW[dtype].itemsize
    header: dict[str, Any] = {
        "__metadata__": {
            "format": _FORMAT,
            "identity": identity.json,
            "model": identity.model,
            "layer": str(identity.block),
        },
        "values": {
            "dtype": _CODES[dtype],
            "shape": [n_rows, n_features],
            "data_offsets": [0, end],
        },
    }
    for name, (code, array) in small.items():
        place = [end, end + array.nbytes]
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": place}
        end += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    temporary = file.with_name(f"{file.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for _, rows, _ in slots:
                out.write(memoryview(rows.view(np.uint8).reshape(-1)))
            for _, array in small.values():
                out.write(array.tobytes())
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(file.parent)
    return len(slots)


class Imported:
    """The samples of an exported file, as a job that copies rows instead of running a model.

    Parameters
    ----------
    values : memmap of shape (n_rows, n_features)
        Raw rows.
    lengths : ndarray of shape (n_samples,)
        Rows of each sample.
    samples : sequence of bytes
        Keys of all samples.
    expected : ndarray of shape (n_samples,)
        Their checksums.
    file : Path
        For errors.
    """

    def __init__(
        self, values: Array, lengths: Array, samples: Sequence[bytes], expected: Array, file: Path
    ) -> None:
        self.values = values
        self.n_rows = self.n_tokens = lengths
        self.n_features = int(values.shape[1])
        self.samples = samples
        self.expected = expected
        self.file = file
        self.starts = offsets_of(lengths)[:-1]

    def part(self, places: list[int]) -> Job:
        """Take some of the samples."""
        rows = np.array(places)
        taken = Imported(
            self.values,
            self.n_rows[rows],
            [self.samples[i] for i in places],
            self.expected[rows],
            self.file,
        )
        taken.starts = self.starts[rows]
        return taken

    def embed(self, rows: Array, blocks: Sequence[int], sink: Sink, progress: Any) -> None:
        """Copy the rows of some samples, and check them on the way."""
        (block,) = blocks
        n_bad = 0
        for number, i in enumerate(rows.tolist()):
            length = int(self.n_rows[i])
            sample = np.array([number])
            places, (start,) = sink.room(sample)
            out = places[block][start : start + length]
            out[:] = self.values[self.starts[i] : self.starts[i] + length]
            found = checksums(out, self.n_rows[i : i + 1], [self.samples[i]])
            n_bad += int(found[0] != self.expected[i])
            sink.keep(sample)
        if n_bad:
            raise ValueError(
                f"{str(self.file)!r} is damaged: the rows of {n_bad} samples do not have their "
                "checksums. What was imported before is intact."
            )


def read_export(file: Path) -> tuple[Identity, Imported]:
    """Open a file that :func:`export` has written.

    Parameters
    ----------
    file : Path
        The file.

    Returns
    -------
    identity : Identity
        The layer.
    job : Imported
        Its samples.

    Raises
    ------
    ValueError
        If it is no such file, or truncated.
    """
    try:
        with open(file, "rb") as content:
            n_header = int.from_bytes(content.read(8), "little")
            if n_header > _LONGEST_HEADER:
                raise ValueError("its header is too long")
            header = json.loads(content.read(n_header))
        about = header["__metadata__"]
        if about["format"] != _FORMAT:
            raise ValueError(f"its format is {about['format']!r}, expected {_FORMAT!r}")
        settings = json.loads(about["identity"])
        dtype = settings["stored_as"]

        def tensor(name: str, raw: Any) -> Array:
            entry = header[name]
            shape = tuple(entry["shape"])
            start, stop = entry["data_offsets"]
            if stop - start != int(np.prod(shape)) * np.dtype(raw).itemsize:
                raise ValueError(f"{name} does not have the size its header says")
            if 8 + n_header + stop > os.path.getsize(file):
                raise ValueError("it is truncated")
            return np.memmap(file, raw, "r", 8 + n_header + start, shape)

        values = tensor("values", RAW[dtype])
        lengths = np.array(tensor("lengths", "<i8"))
        keys = [row.tobytes() for row in tensor("samples", "u1")]
        expected = np.array(tensor("checksums", "<u4"))
        if lengths.sum() != len(values) or not len(lengths) == len(keys) == len(expected):
            raise ValueError("its parts do not fit together")
        identity = Identity(
            about["identity"],
            hashlib.sha256(about["identity"].encode()).digest(),
            str(about["model"]),
            int(settings["block"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{str(file)!r} is no layer exported from a store: {error}.") from error
    return identity, Imported(values, lengths, keys, expected, file)
