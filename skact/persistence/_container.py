"""One safetensors file: arrays as tensors, all else as JSON in its header, a checksum over both.

The checksum is the SHA-256 of the whole file in which its own 64 digits are zeros, so that no byte
of a file can change unseen. It guards against damage, not against whoever writes files on purpose;
against those stands that a file holds data only.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

from skact.files import in_one_step, parse_json
from skact.rows import Array

__all__ = ["DTYPES", "FORMAT", "Content", "read_file", "write_file"]

#: Raised when older versions of this package would misread a file.
FORMAT = 1
#: Number formats of tensors.
DTYPES = {
    "BOOL": "bool",
    **{f"F{n}": f"float{n}" for n in (16, 32, 64)},
    **{f"I{n}": f"int{n}" for n in (8, 16, 32, 64)},
    **{f"U{n}": f"uint{n}" for n in (8, 16, 32, 64)},
}
_KEY = "skact"
_ZEROS = "0" * 64
# Names and settings, and short arrays; whatever is longer is a tensor.
_LONGEST_HEADER = 2**26
_PIECE = 2**22
_DIMENSIONS, _LARGEST = 32, 2**48


class Content(NamedTuple):
    """What a file holds.

    Parameters
    ----------
    about : dict
        The JSON of its header.
    tensors : dict of str to ndarray
        Its arrays by name; empty where they were not asked for.
    n_bytes : int
        Length of the file.
    """

    about: dict[str, Any]
    tensors: dict[str, Array]
    n_bytes: int


def write_file(path: Path, about: Mapping[str, Any], tensors: dict[str, Array]) -> None:
    """Write a file in one step.

    Parameters
    ----------
    path : Path
        The file; one that is there is replaced.
    about : dict
        For JSON.
    tensors : dict of str to ndarray
        C-contiguous and little-endian.

    Raises
    ------
    ValueError
        If the JSON takes more than 64 MiB.
    """
    said = json.dumps({"checksum": _ZEROS, "format": FORMAT, **about}, allow_nan=False)
    if 2 * len(said) > _LONGEST_HEADER:
        raise ValueError(f"names and settings take {len(said)} bytes, more than 32 MiB.")
    with in_one_step(path) as temporary:
        save_file(tensors, temporary, {_KEY: said})
        with open(temporary, "rb+") as file:
            start = file.read(4096).index(_ZEROS.encode())
            file.seek(0)
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(start)
            file.write(checksum.encode())


def read_file(path: Path, *, with_tensors: bool) -> Content:
    """Read a file, every byte of it once, and compare the checksum.

    Parameters
    ----------
    path : Path
        The file.
    with_tensors : bool
        Whether to keep the arrays.

    Returns
    -------
    content : Content
        As it was written.

    Raises
    ------
    ValueError
        If it is no such file, of a newer format, or damaged; before memory is taken for what it
        claims to hold.
    """
    with open(path, "rb") as file:
        n_bytes = os.fstat(file.fileno()).st_size
        first = file.read(8)
        n_header = int.from_bytes(first, "little")
        if not 8 <= n_header <= min(n_bytes - 8, _LONGEST_HEADER):
            raise ValueError("it is no safetensors file, or its beginning is damaged")
        raw = file.read(n_header)
        about, layout = _read_header(raw)
        _check_layout(layout, n_bytes - 8 - n_header)
        checksum = about.pop("checksum", None)
        if not isinstance(checksum, str) or not re.fullmatch("[0-9a-f]{64}", checksum):
            raise ValueError("its checksum is missing or damaged")
        digest = hashlib.sha256(first + raw.replace(checksum.encode(), _ZEROS.encode(), 1))
        tensors = {}
        for name, (dtype, shape, length) in layout.items():
            array = np.empty(length, np.uint8) if with_tensors else np.empty(0, np.uint8)
            _read_bytes(file, length, digest, array)
            if with_tensors:
                tensors[name] = _as_tensor(array, dtype, shape)
    if digest.hexdigest() != checksum:
        raise ValueError("its content does not have its checksum, so it is damaged")
    return Content(about, tensors, n_bytes)


def _read_header(raw: bytes) -> tuple[dict[str, Any], dict[str, tuple[str, list[int], int]]]:
    """Read the JSON, and of each tensor its dtype, shape and where it ends, in their order."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"its header is no text ({error})") from error
    header = parse_json(text, "its header")
    metadata = header.pop("__metadata__", None) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not isinstance(metadata.get(_KEY), str):
        raise ValueError("it was not written by skact.save")
    about = parse_json(metadata[_KEY], "what its header says")
    if not isinstance(about, dict) or type(about.get("format")) is not int:
        raise ValueError("it was not written by skact.save")
    if about["format"] > FORMAT:
        raise ValueError(
            f"it has format {about['format']} of skact {str(about.get('version'))[:20]}, and this "
            f"version reads formats up to {FORMAT}; a newer skact reads it"
        )
    if about["format"] < 1:
        raise ValueError(f"it has format {about['format']}, which no version of skact writes")
    entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    layout, end = {}, 0
    for name, entry in entries:
        layout[name] = _read_entry(name, entry, end)
        end += layout[name][2]
    return about, layout


def _read_entry(name: str, entry: Any, start: int) -> tuple[str, list[int], int]:
    if not re.fullmatch("[0-9]{1,9}", name):
        raise ValueError(f"a tensor has the name {name[:60]!r}, where numbers are expected")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if code not in DTYPES:
        raise ValueError(
            f"tensor {name} has the number format {str(code)[:20]!r}, which is unknown"
        )
    if not all(type(n) is int and 0 <= n <= _LARGEST for n in [*shape, *offsets]):
        raise ValueError(f"tensor {name} has an impossible shape or place")
    n_bytes = math.prod(shape) * np.dtype(DTYPES[code]).itemsize
    if len(shape) > _DIMENSIONS or offsets != [start, start + n_bytes]:
        raise ValueError(
            f"tensor {name} of shape {str(shape)[:60]} does not lie where it must, at {start} to "
            f"{start + n_bytes}"
        )
    return code, shape, n_bytes


def _check_layout(layout: dict[str, tuple[str, list[int], int]], n_bytes: int) -> None:
    """Refuse tensors that are longer than the file, or leave some of it out."""
    claimed = sum(length for *_, length in layout.values())
    if claimed != n_bytes:
        raise ValueError(f"its arrays claim {claimed} bytes, and there are {n_bytes}")


def _read_bytes(file: IO[bytes], length: int, digest: Any, into: Array) -> None:
    """Read the next bytes into an array, if it has room, and into a checksum."""
    piece = bytearray(0 if len(into) else min(length, _PIECE))
    for start in range(0, length, _PIECE):
        n = min(length - start, _PIECE)
        view = memoryview(into)[start : start + n] if len(into) else memoryview(piece)[:n]
        if file.readinto(view) != n:  # type: ignore[attr-defined]
            raise ValueError("it became shorter while it was read")
        digest.update(view)


def _as_tensor(array: Array, code: str, shape: list[int]) -> Array:
    if code == "BOOL" and (array > 1).any():
        raise ValueError("it holds truth values other than 0 and 1")
    return array.view(np.dtype(DTYPES[code]).newbyteorder("<")).reshape(shape)
