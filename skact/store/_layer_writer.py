"""Write a file of a store sample by sample.

The safetensors library writes only what fits into memory, but rows come batch by batch while a
model runs. How many is known before the first of them, so the header is written first, and the
small tensors last. Spaces fill the header up: the values begin at a block of the disk, as it is
best for reading them past the page cache.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from skact.rows import BLOCK, Array
from skact.store._format import CODES, FORMAT, KEY_BYTES, LayerFile
from skact.store._records import RAW, Identity

__all__ = ["LayerWriter", "copy_layer", "sync_folder"]

# Bytes to write at a time: for more, the system looks for large pages of its cache, which can take
# twice as long as all the rest.
_PIECE = 2**16


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _naming_a_full_disk(path: Path, n_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            error.errno,
            f"no space left for {n_bytes / 2**20:.0f} MiB of activations; what was committed "
            "before is intact. Make room, and run again",
            str(path),
        ) from error


def _header(identity: Identity, tensors: dict[str, tuple[str, list[int], int]]) -> bytes:
    """Head of a safetensors file: the length of the JSON in 8 bytes, and the JSON."""
    header: dict[str, Any] = {
        "__metadata__": {
            "format": FORMAT,
            "identity": identity.json,
            "model": identity.model,
            "layer": str(identity.block),
        }
    }
    end = 0
    for name, (code, shape, n_bytes) in tensors.items():
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [end, end + n_bytes]}
        end += n_bytes
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % BLOCK)
    return len(text).to_bytes(8, "little") + text


class LayerWriter:
    """Writes a new file, one sample after the other.

    Parameters
    ----------
    path : Path
        The file, which must not exist.
    identity : Identity
        The layer.
    dtype : {"float32", "float16", "bfloat16"}
        Of the values.
    n_samples, n_rows, n_features : int
        What will be written.
    has_shapes : bool, default=False
        Whether samples are grids, whose shapes will be written too.
    has_segments : bool, default=False
        Whether some samples have gaps, so that the run of each row will be written too.

    Attributes
    ----------
    start : int
        Byte at which the values begin.
    n_bytes : int
        Length of the file.

    Raises
    ------
    OSError
        If the disk is full; here already where the system can reserve space.
    """

    def __init__(
        self,
        path: Path,
        identity: Identity,
        dtype: str,
        *,
        n_samples: int,
        n_rows: int,
        n_features: int,
        has_shapes: bool = False,
        has_segments: bool = False,
    ) -> None:
        n_bytes = n_rows * n_features * RAW[dtype].itemsize
        tensors = {
            "values": (CODES[dtype], [n_rows, n_features], n_bytes),
            "lengths": ("I64", [n_samples], 8 * n_samples),
            "samples": ("U8", [n_samples, KEY_BYTES], KEY_BYTES * n_samples),
            "checksums": ("U32", [n_samples], 4 * n_samples),
        }
        if has_shapes:
            tensors["shapes"] = ("I64", [n_samples, 2], 16 * n_samples)
        if has_segments:
            tensors["segments"] = ("I32", [n_rows], 4 * n_rows)
        header = _header(identity, tensors)
        self.path = path
        self.start = len(header)
        self.n_bytes = self.start + sum(n_bytes for _, _, n_bytes in tensors.values())
        self._lengths: list[Array] = []
        self._samples: list[bytes] = []
        self._checksums: list[Array] = []
        self._shapes: list[Array] = []
        self._segments: list[Array] = []
        self._has_segments = has_segments
        with _naming_a_full_disk(path, self.n_bytes):
            self._file = open(path, "xb")  # noqa: SIM115
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(self._file.fileno(), 0, self.n_bytes)
                self._file.write(header)
            except OSError:
                self.close()
                path.unlink()
                raise

    def write(
        self,
        rows: Array,
        lengths: Array,
        samples: Sequence[bytes],
        sums: Array,
        shapes: Array | None = None,
        segments: Array | None = None,
    ) -> None:
        """Append samples.

        Parameters
        ----------
        rows : ndarray of shape (n_new_rows, n_features)
            C-contiguous; their bytes are written as they are.
        lengths : ndarray of shape (n_new,)
            Rows of each sample, one after another.
        samples : sequence of bytes
            Their keys.
        sums : ndarray of shape (n_new,)
            Their checksums.
        shapes : ndarray of shape (n_new, 2) or None, default=None
            Their grids, where samples have some.
        segments : ndarray of shape (n_new_rows,) or None, default=None
            Their runs; None where these have no gaps.
        """
        content = memoryview(rows.reshape(-1).view(np.uint8))
        with _naming_a_full_disk(self.path, self.n_bytes):
            for start in range(0, len(content), _PIECE):
                self._file.write(content[start : start + _PIECE])
        self._lengths.append(lengths)
        self._samples += samples
        self._checksums.append(sums)
        self._shapes += [] if shapes is None else [shapes]
        if self._has_segments:
            self._segments.append(np.zeros(len(rows)) if segments is None else segments)

    def finish(self) -> None:
        """Write what is left, and bring the file to the disk.

        Raises
        ------
        RuntimeError
            If it is not what was announced.
        """
        with _naming_a_full_disk(self.path, self.n_bytes), self._file:
            self._file.write(np.concatenate(self._lengths).astype("<i8").tobytes())
            self._file.write(b"".join(self._samples))
            self._file.write(np.concatenate(self._checksums).astype("<u4").tobytes())
            for shapes in self._shapes:
                self._file.write(shapes.astype("<i8").tobytes())
            for segments in self._segments:
                self._file.write(segments.astype("<i4").tobytes())
            if self._file.tell() != self.n_bytes:
                raise RuntimeError(f"{str(self.path)!r} did not get all of its samples.")
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Give the file up."""
        with suppress(OSError):  # it cannot be flushed where the disk is full
            self._file.close()


def copy_layer(
    temporary: Path,
    file: Path,
    parts: Sequence[tuple[Sequence[int], LayerFile]],
    identity: Identity | None = None,
) -> LayerWriter:
    """Write samples of files of one layer into a new file.

    Parameters
    ----------
    temporary : Path
        Name of the file until it is complete, in the same folder.
    file : Path
        Its name, replaced if there is one.
    parts : sequence of (list of int, LayerFile)
        Numbers of samples in a file, and the file.
    identity : Identity or None, default=None
        Name of the layer; None takes that of the files.

    Returns
    -------
    writer : LayerWriter
        What has written it.

    Raises
    ------
    OSError
        If the disk is full.
    """
    first = parts[0][1]
    writer = LayerWriter(
        temporary,
        identity or first.identity,
        first.dtype,
        n_samples=sum(len(slots) for slots, _ in parts),
        n_rows=sum(int(layer.lengths[list(slots)].sum()) for slots, layer in parts),
        n_features=int(first.values.shape[1]),
        has_shapes=first.shapes is not None,
        has_segments=any(layer.segments is not None for _, layer in parts),
    )
    try:
        for slots, layer in parts:
            for i in slots:
                one = slice(i, i + 1)  # with its checksum as it is, so that damage shows
                writer.write(
                    layer.rows(i),
                    layer.lengths[one],
                    layer.samples[one],
                    layer.checksums[one],
                    None if layer.shapes is None else layer.shapes[one],
                    layer.runs([i]),
                )
        writer.finish()
        os.replace(temporary, file)
    finally:
        writer.close()
        temporary.unlink(missing_ok=True)
    sync_folder(file.parent)
    return writer
