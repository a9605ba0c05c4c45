"""Arrays in files that somebody else wrote: npz and safetensors, within limits, without pickle."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from safetensors import safe_open

from skact.files import check_size, parse_json
from skact.rows import Array

__all__ = ["ArrayEntry", "open_arrays"]

# Number formats of safetensors: their names, and how they are read.
_CODES = {
    "BF16": ("bfloat16", "<u2"),
    "BOOL": ("bool", "?"),
    **{f"F{8 * n}": (f"float{8 * n}", f"<f{n}") for n in (2, 4, 8)},
    **{f"I{8 * n}": (f"int{8 * n}", f"<i{n}") for n in (1, 2, 4, 8)},
    **{f"U{8 * n}": (f"uint{8 * n}", f"<u{n}") for n in (1, 2, 4, 8)},
}
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
# Numbers that were learnt or measured hardly shrink; a few biases of zero do.
_EXPANSION = 100


class ArrayEntry(NamedTuple):
    """What a file says of one of its arrays, and how to read it.

    Parameters
    ----------
    dtype : str
        Name of the number format, such as "float32", "bfloat16" or "int64".
    shape : tuple of int
        Its shape.
    read : callable
        Returns the array in the byte order of this machine; bfloat16 as float32.
    place : int or None
        Bytes of the file before the first number; None where they are packed.
    """

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], Array]
    place: int | None


def open_arrays(file: Path) -> dict[str, Callable[[], ArrayEntry]]:
    """List the arrays of a file, and read none.

    Parameters
    ----------
    file : Path
        Ends in ``.npz`` or ``.safetensors``.

    Returns
    -------
    entries : dict of str to callable
        Each returns the ArrayEntry of its name; shapes and sizes that cannot be are refused then.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it has another ending, or is no such file; the file is named.

    Examples
    --------
    >>> import os, tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from skact.array_files import open_arrays
    >>> path = Path(tempfile.mkdtemp(), "a.npz")
    >>> np.savez(path, values=np.zeros((2, 3)))
    >>> open_arrays(path)["values"]().shape
    (2, 3)
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {str(file)!r}.")
    if file.suffix == ".npz":
        return _open_npz(file)
    if file.suffix == ".safetensors":
        return _open_safetensors(file)
    raise ValueError(
        f"{file}: arrays are read from .npz and .safetensors files only. Other formats are "
        "unpickled, which runs whatever code they hold; convert them first."
    )


@contextmanager
def _reading(file: Path, what: str) -> Iterator[None]:
    # Damage is told by whatever error it leads to, deep in zip, zlib or numpy.
    try:
        yield
    except Exception as error:
        raise ValueError(f"{file} is no readable {what}: {str(error)[:200]}") from error


def _open_npz(file: Path) -> dict[str, Callable[[], ArrayEntry]]:
    with _reading(file, "npz archive of arrays"), zipfile.ZipFile(file) as archive:
        return {
            info.filename.removesuffix(".npy"): partial(_npz_entry, file, info)
            for info in archive.infolist()
        }


def _npz_entry(file: Path, info: zipfile.ZipInfo) -> ArrayEntry:
    with _reading(file, f"npz archive of arrays, {info.filename!r}"):
        n_packed = min(info.compress_size, file.stat().st_size)
        check_size(info.file_size, n_packed, _EXPANSION)
        with zipfile.ZipFile(file) as archive, archive.open(info) as member:
            shape, _, dtype = _HEADERS[npy.read_magic(member)](member)
            n_bytes = info.file_size - member.tell()
        if dtype.hasobject:
            raise ValueError("it is an array of objects, which are a pickle")
        if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != n_bytes:
            raise ValueError(f"shape {shape} of dtype {dtype} does not take {n_bytes} bytes")
        return ArrayEntry(dtype.name, shape, partial(_npz_array, file, info), None)


def _npz_array(file: Path, info: zipfile.ZipInfo) -> Array:
    with (
        _reading(file, f"npz archive of arrays, {info.filename!r}"),
        zipfile.ZipFile(file) as archive,
        archive.open(info) as member,
    ):
        array = np.asarray(npy.read_array(member, allow_pickle=False))
        return array.astype(array.dtype.newbyteorder("="), copy=False)


def _open_safetensors(file: Path) -> dict[str, Callable[[], ArrayEntry]]:
    with _reading(file, "safetensors file"):
        with safe_open(file, framework="np"):  # verifies that header, shapes and length fit
            pass
        with file.open("rb") as opened:
            n_header = int.from_bytes(opened.read(8), "little")
            header = parse_json(opened.read(n_header).decode("utf-8"), "its header")
        header.pop("__metadata__", None)
        return {
            key: partial(_safetensors_entry, file, 8 + n_header, about)
            for key, about in header.items()
        }


def _safetensors_entry(file: Path, start: int, about: Mapping[str, Any]) -> ArrayEntry:
    code, shape, (begin, _) = about["dtype"], tuple(about["shape"]), about["data_offsets"]
    dtype, raw = _CODES.get(code, (code, None))

    def read() -> Array:
        if raw is None:
            raise ValueError(f"{file}: the number format {code!r} cannot be read.")
        values = np.fromfile(file, raw, math.prod(shape), offset=start + begin)
        # numpy has no bfloat16: it is the upper half of a float32.
        values = (values.astype("<u4") << 16).view("<f4") if code == "BF16" else values
        return np.asarray(values.reshape(shape))

    return ArrayEntry(dtype, shape, read, start + begin)
