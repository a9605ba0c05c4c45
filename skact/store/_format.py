"""The files of a store: safetensors files of some samples at one layer.

A file holds the tensor ``values`` (n_rows, n_features), the rows of one sample after the other, and
for each sample its number of rows in ``lengths``, the 32 bytes of its key in ``samples``, and the
CRC-32 of its key and rows in ``checksums``. Where samples are grids, ``shapes`` (n_samples, 2)
tells their rows and columns; where some have gaps, ``segments`` (n_rows,) tells the run of adjacent
rows that each lies in, and the checksum of such a sample goes on with its segments. The metadata
say in ``identity`` what the numbers are. Shards and exports are such files;
``safetensors.safe_open`` reads both.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from safetensors import SafetensorError, safe_open

from skact.cached import cached_property
from skact.files import parse_json
from skact.rows import Array, FileRows, offsets_of, rows_of, runs
from skact.store._records import RAW, Identity

__all__ = ["CODES", "FORMAT", "KEY_BYTES", "LayerFile", "checksums", "read_layer"]

FORMAT = "skact activations 2"
CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
KEY_BYTES = 32  # bytes of the name of a sample
_PIECE = 2**24  # bytes to compare at a time
_UNFIT = (
    SafetensorError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
)


def checksums(
    values: Array, lengths: Array, samples: Sequence[bytes], segments: Array | None = None
) -> Array:
    """CRC-32 of each sample's key followed by its rows, and by its segments if it has gaps.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_features)
        C-contiguous.
    lengths : ndarray of shape (n_samples,)
        Rows of each sample, one after another.
    samples : sequence of bytes
        The keys.
    segments : ndarray of shape (n_rows,), dtype int32, or None, default=None
        Run of each row; None where no sample has a gap.

    Returns
    -------
    checksums : ndarray of shape (n_samples,), dtype uint32
        The checksums.
    """
    offsets = offsets_of(lengths).tolist()
    raw, runs = values.view(np.uint8), None if segments is None else segments.astype("<i4")
    sums = []
    for (start, end), sample in zip(pairwise(offsets), samples, strict=True):
        sums.append(crc32(raw[start:end], crc32(sample)))
        if runs is not None and runs[start:end].any():
            sums[-1] = crc32(runs[start:end], sums[-1])
    return np.array(sums, "<u4")


@dataclass(frozen=True)
class LayerFile:
    """What a file holds.

    Parameters
    ----------
    path : Path
        The file.
    identity : Identity
        The layer.
    dtype : {"float32", "float16", "bfloat16"}
        Of the values.
    values : FileRows of shape (n_rows, n_features), dtype float32, float16 or uint16
        Not writable.
    lengths : ndarray of shape (n_samples,), dtype int64
        Rows of each sample, one after another.
    keys : ndarray of shape (n_samples, 32), dtype uint8
        Their keys.
    checksums : ndarray of shape (n_samples,), dtype uint32
        Their checksums, as they are written.
    shapes : ndarray of shape (n_samples, 2), dtype int64, or None
        Their grids; None where they are runs.
    segments : ndarray of shape (n_rows,), dtype int32, or None
        Run of each row; None where no sample has a gap.
    """

    path: Path
    identity: Identity
    dtype: str
    values: Any
    lengths: Array
    keys: Array
    checksums: Array
    shapes: Array | None
    segments: Array | None

    @cached_property
    def samples(self) -> list[bytes]:
        """The keys."""
        return [key.tobytes() for key in self.keys]

    @cached_property
    def _offsets(self) -> Array:
        return offsets_of(self.lengths)

    def rows(self, i: int) -> Array:
        """Show the rows of a sample."""
        rows: Array = self.values[self._offsets[i] : self._offsets[i + 1]]
        return rows

    def runs(self, samples: Sequence[int] | Array) -> Array | None:
        """Give the segments of some samples, one after another; None where none has a gap."""
        if self.segments is None:
            return None
        return self.segments[rows_of(self._offsets, np.asarray(samples, np.int64))]

    def damaged(self, samples: Sequence[int] | Array) -> list[int]:
        """Give the numbers of those samples whose rows do not have their checksums.

        The file is read, not its mapping, which would end the process if the file became shorter.

        Raises
        ------
        FileNotFoundError
            If another file has its name by now, or none.
        """
        file = self.values.open(0)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, "the file is gone", str(self.path))
        numbers, width = np.sort(np.asarray(samples, np.int64)), self.values.shape[1]
        apart = np.flatnonzero(np.diff(numbers) != 1) + 1
        bad: list[int] = []
        with file:
            for side_by_side in np.split(numbers, apart):
                n_bytes = self.lengths[side_by_side] * width * self.values.itemsize
                for part in runs(n_bytes, _PIECE):
                    chosen = side_by_side[part]
                    first = self._offsets[chosen[0]] * width * self.values.itemsize
                    file.seek(self.values.place + int(first))
                    bad += self._compare(chosen, file.read(int(n_bytes[part].sum()))).tolist()
        return bad

    def _compare(self, samples: Array, content: bytes) -> Array:
        """Give those of neighbouring samples to which these bytes do not belong."""
        lengths, width = self.lengths[samples], self.values.shape[1]
        if len(content) < lengths.sum() * width * self.values.itemsize:
            return samples
        rows = np.frombuffer(content, self.values.dtype).reshape(-1, width)
        keys = [self.keys[i].tobytes() for i in samples]
        sums = checksums(rows, lengths, keys, self.runs(samples))
        return samples[sums != self.checksums[samples]]


def _read_layer(path: Path) -> LayerFile:
    with open(path, "rb") as file:
        n_header = int.from_bytes(file.read(8), "little")
        with safe_open(path, "numpy") as content:  # verifies that header and length fit
            about = content.metadata() or {}
            if about["format"] != FORMAT:
                raise ValueError(f"its format is {about['format']!r}, expected {FORMAT!r}")
            lengths, samples, sums = map(content.get_tensor, ("lengths", "samples", "checksums"))
            names = set(content.keys())
            shapes, segments = (
                content.get_tensor(name) if name in names else None
                for name in ("shapes", "segments")
            )
        entry = parse_json(file.read(n_header).decode(), "the header")["values"]
    settings = parse_json(about["identity"], "the identity")
    dtype, shape = settings["stored_as"], tuple(entry["shape"])
    n = len({key.tobytes() for key in samples})
    if (
        (entry["dtype"], len(shape)) != (CODES[dtype], 2)
        or (lengths.shape, samples.shape, sums.shape) != ((n,), (n, KEY_BYTES), (n,))
        or lengths.min() < 1
        or lengths.sum() != shape[0]
        or (shapes is not None and (shapes.shape != (n, 2) or (shapes.prod(1) != lengths).any()))
        or (segments is not None and (segments.shape, segments.dtype) != (shape[:1], np.int32))
    ):
        raise ValueError("its parts do not fit together")
    identity = Identity(
        about["identity"],
        hashlib.sha256(about["identity"].encode()).digest(),
        about["model"],
        int(settings["block"]),
    )
    start = 8 + n_header + entry["data_offsets"][0]
    values = FileRows(path, RAW[dtype], shape, start)
    return LayerFile(path, identity, dtype, values, lengths, samples, sums, shapes, segments)


def read_layer(path: Path) -> LayerFile:
    """Open a file of this format.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    layer : LayerFile
        Its values are mapped and not read.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is no such file, or truncated.
    """
    try:
        return _read_layer(path)
    except _UNFIT as error:
        raise ValueError(
            f"{str(path)!r} holds no layer of a store, or is damaged: {error}."
        ) from error
