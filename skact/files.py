"""Files of others, read within limits, errors with their place; our own, written in one step."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = [
    "append_lines",
    "check_folder",
    "check_link",
    "check_size",
    "in_one_step",
    "inside",
    "parse_json",
    "read_json",
    "read_text",
]

# What Python itself takes depends on how deep it stands already when it begins to read.
_DEPTH = 100
# Settings, not data: whole files of JSON are small.
_MOST = 2**26
_LONGEST_NAME = 4096  # characters of a path, as systems have it
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[][{}]|\d{4301,}', re.DOTALL)


def read_text(path: Path) -> str:
    """Read a UTF-8 file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    text : str
        What it holds.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is larger than 64 MiB or not UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.stat().st_size > _MOST:
        raise ValueError(f"{path} takes {path.stat().st_size} bytes, more than {_MOST}.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}.") from error


def read_json(path: Path) -> Any:
    """Read a file of one JSON value; errors are those of `read_text` and `parse_json`."""
    return parse_json(read_text(path), str(path))


def parse_json(text: str, where: str) -> Any:
    """Read JSON that may be anything.

    Parameters
    ----------
    text : str
        The JSON.
    where : str
        Where it stands, for errors.

    Returns
    -------
    value : object
        What it says.

    Raises
    ------
    ValueError
        If it is no JSON, nested more than 100 deep, or has a number of too many digits, naming line
        and column.
    """
    # As many brackets in a text are harmless; only the slow way tells them apart.
    if text.count("[") + text.count("{") > _DEPTH:
        _refuse_excess(text, where)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = _place(text, error.pos)
        raise ValueError(f"{where}: not JSON ({error.msg}), at {at}.") from error
    except ValueError as error:  # Python reads no integer of so many digits
        _refuse_excess(text, where)
        raise ValueError(f"{where}: not JSON ({error}).") from error


def _place(text: str, position: int) -> str:
    column = f"column {position - text.rfind(chr(10), 0, position)}"
    line = f"line {text.count(chr(10), 0, position) + 1} "
    return line + column if "\n" in text.rstrip() else column


def _refuse_excess(text: str, where: str) -> None:
    """Raise where lists and objects are too deep, or a number too long."""
    depth = 0
    for token in _TOKEN.finditer(text):
        first = token[0][0]
        depth += (first in "[{") - (first in "]}")
        if depth > _DEPTH or first.isdigit():
            digits = f"a number of {len(token[0])} digits"
            problem = digits if first.isdigit() else f"nested more than {_DEPTH} deep"
            raise ValueError(f"{where}: {problem}, at {_place(text, token.start())}.")


def check_size(size: int, n_bytes: int, most: int) -> None:
    """Refuse what a file says that it becomes in memory, if so few bytes cannot mean so much.

    Parameters
    ----------
    size : int
        Bytes or pixels that it claims.
    n_bytes : int
        Bytes that it has.
    most : int
        How many times as much is believed; up to 16 Mi are always.

    Raises
    ------
    ValueError
        If it claims more.
    """
    if size > max(2**24, most * n_bytes):
        raise ValueError(f"{n_bytes} bytes claim a size of {size}, over {most} times as much")


def inside(root: Path, name: str, where: str) -> str:
    """Find a file that another one names, and that must lie in a folder.

    Parameters
    ----------
    root : Path
        The folder, absolute.
    name : str
        Path from there.
    where : str
        Where it is named, for errors.

    Returns
    -------
    path : str
        Absolute.

    Raises
    ------
    ValueError
        If the path is absolute, or ``..`` or a link leads out of the folder.
    FileNotFoundError
        If there is no such file.
    """
    if "\0" in name or len(name) > _LONGEST_NAME or not _can_be_named(name):
        raise ValueError(f"{where} must be a path inside the folder, got {name!r:.80}.")
    path = os.path.normpath(root / name)
    real, folder = Path(os.path.realpath(path)), Path(os.path.realpath(root))
    lies_in = Path(path).is_relative_to(root) and real.is_relative_to(folder)
    if os.path.isabs(name) or not lies_in or real == folder:
        leads = "" if str(real) == path else f", which leads to {str(real)!r}"
        raise ValueError(f"{where} must be a path inside the folder, got {name!r}{leads}.")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{where}: there is no file {path}.")
    return path


def _can_be_named(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def check_link(root: Path, path: Path) -> Path:
    """Refuse what was found in a folder if a link leads out of it.

    Parameters
    ----------
    root : Path
        The folder.
    path : Path
        A file or folder in it, which need not be there.

    Returns
    -------
    path : Path
        The same.

    Raises
    ------
    ValueError
        If it is a link that leads out of the folder, or lies behind one.
    """
    real = os.path.realpath(path)
    if not Path(real).is_relative_to(os.path.realpath(root)):
        raise ValueError(f"{path} leads out of the folder {root}, to {real!r}; it is not read.")
    return path


def check_folder(path: str | os.PathLike[str]) -> None:
    """Refuse a file to be written where there is no folder for it, before long work begins.

    Parameters
    ----------
    path : str or path-like
        The file.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        If there is no such folder, or the path is one.
    """
    if os.path.isdir(path):
        raise IsADirectoryError(f"path must name a file, and {os.fspath(path)!r} is a folder.")
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"path names a file in {folder}, and there is no such folder.")


def append_lines(path: Path, lines: Sequence[str]) -> None:
    """Append lines to a file, and have them on the disk before returning.

    Parameters
    ----------
    path : Path
        The file; made if there is none. A line that a crash tore is ended first.
    lines : sequence of str
        The lines, ASCII, without their ends.
    """
    data = "".join(line + "\n" for line in lines).encode("ascii")
    # Unbuffered, so that all is one write and two writers do not mix their lines.
    with open(path, "ab+", buffering=0) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            data = data if file.read(1) == b"\n" else b"\n" + data
        while data:
            data = data[file.write(data) or 0 :]
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def in_one_step(path: Path) -> Iterator[Path]:
    """Write a file so that nobody ever reads half of it.

    Parameters
    ----------
    path : Path
        The file; one that is there is replaced when all is written, and stays after an error.

    Yields
    ------
    temporary : Path
        An empty file beside it, to be written.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    try:
        yield Path(name)
        with open(name, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
