"""What the readers of labelled folders share: folders, JSON lines and what stands in them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skact.arguments import PATH, checked
from skact.datasets._gather import ASKED, SPLITS
from skact.files import check_link, parse_json, read_text


def open_folder(folder: str | os.PathLike[str]) -> Path:
    """Return `folder` as an absolute path, or say that there is none."""
    path = Path(os.path.abspath(os.fspath(folder)))
    if not path.is_dir():
        raise FileNotFoundError(f"There is no folder {path}.")
    return path


def read_description(folder: Path) -> str:
    """Return the text of the folder's README.md, empty if there is none."""
    path = check_link(folder, folder / "README.md")
    return read_text(path) if path.is_file() else ""


def found_in(folder: Path, pattern: str) -> list[Path]:
    """List what fits a pattern in a folder, sorted; a link out of the folder is refused."""
    return [check_link(folder, path) for path in sorted(folder.glob(pattern))]


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a file of one JSON object per line, one after the other.

    Parameters
    ----------
    path : Path
        The file. Empty lines are passed over.

    Yields
    ------
    where : str
        Where a record stands ("PATH, line 3"), for error messages.
    record : dict
        The record.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    is_empty = True
    # Only line feeds end a line: JSON strings may hold the other line separators of Unicode.
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{where} is not UTF-8: {error}.") from error
            record = parse_json(text, where)
            if not isinstance(record, dict):
                raise ValueError(f"{where}: expected a JSON object, got {type(record).__name__}.")
            is_empty = False
            yield where, record
    if is_empty:
        raise ValueError(f"{path} holds no samples.")


def is_number(text: str) -> bool:
    """Tell whether a text is a whole number, not of so many digits that Python reads it no more."""
    return text.isdecimal() and len(text) < 19


def get_string(record: dict[str, Any], key: str, where: str) -> str:
    """Return the string under `key`."""
    value = record.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{where}: {key!r} must be a string, got {value!r:.80}.")
    return value


def get_list(record: dict[str, Any], key: str, where: str) -> list[Any]:
    """Return the list under `key`."""
    value = record.get(key)
    if not isinstance(value, list):
        raise ValueError(f"{where}: {key!r} must be a list, got {value!r:.80}.")
    return value


def get_split(record: dict[str, Any], where: str) -> str:
    """Return the record's split."""
    value = get_string(record, "split", where)
    if value not in SPLITS:
        raise ValueError(f"{where}: 'split' must be one of {', '.join(SPLITS)}, got {value!r:.80}.")
    return value


def get_group(record: dict[str, Any], where: str) -> str | None:
    """Return the record's group, None if it has none."""
    value = record.get("group")
    if value is not None and type(value) not in (str, int):
        raise ValueError(f"{where}: 'group' must be a string or an integer, got {value!r:.80}.")
    return None if value is None else str(value)


#: Of those that read a folder.
reads_a_folder = checked(folder=[PATH], **ASKED)
