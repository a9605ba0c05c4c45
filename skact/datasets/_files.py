"""What the readers of labelled folders share: JSON lines, splits, concepts and target matrices."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils._param_validation import StrOptions

from skact.arguments import PATH, check_concepts, checked
from skact.files import parse_json, read_text

SPLITS = ("train", "cal", "test")


def open_folder(folder: str | os.PathLike[str]) -> Path:
    """Return `folder` as an absolute path, or say that there is none."""
    path = Path(os.path.abspath(os.fspath(folder)))
    if not path.is_dir():
        raise FileNotFoundError(f"There is no folder {path}.")
    return path


def read_description(folder: Path) -> str:
    """Return the text of the folder's README.md, empty if there is none."""
    path = folder / "README.md"
    return read_text(path) if path.is_file() else ""


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


def get_string(record: dict[str, Any], key: str, where: str) -> str:
    """Return the string under `key`."""
    value = record.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{where}: {key!r} must be a string, got {value!r}.")
    return value


def get_list(record: dict[str, Any], key: str, where: str) -> list[Any]:
    """Return the list under `key`."""
    value = record.get(key)
    if not isinstance(value, list):
        raise ValueError(f"{where}: {key!r} must be a list, got {value!r}.")
    return value


def get_split(record: dict[str, Any], where: str) -> str:
    """Return the record's split."""
    value = get_string(record, "split", where)
    if value not in SPLITS:
        raise ValueError(f"{where}: 'split' must be one of {', '.join(SPLITS)}, got {value!r}.")
    return value


def check_new_id(identifier: str, seen: dict[str, str], where: str) -> None:
    """Refuse an id that an earlier record has; note it in `seen` otherwise."""
    if identifier in seen:
        raise ValueError(f"{where}: id {identifier!r} is that of {seen[identifier]} already.")
    seen[identifier] = where


#: Of those that read a folder; names of concepts are compared with it when it is open.
reads_a_folder = checked(
    folder=[PATH], split=[StrOptions(set(SPLITS)), None], concepts="no_validation"
)


def select_concepts(concepts: Iterable[str] | None, names: Sequence[str], path: Path) -> list[str]:
    """Return the wanted concepts in the order asked for, all of `names` if `concepts` is None."""
    if concepts is None:
        return list(names)
    wanted = check_concepts(concepts)
    for name in wanted:
        if name not in names:
            raise ValueError(f"{path} has no concept {name!r}; it has {', '.join(names)}.")
    return wanted


def select_rows(splits: Sequence[str], split: str | None, path: Path) -> list[int]:
    """Return the rows of a split, all rows if `split` is None."""
    rows = [row for row, own in enumerate(splits) if split is None or own == split]
    if not rows:
        raise ValueError(f"{path} has no sample with split {split!r}.")
    return rows


def indicator(labels: Sequence[Collection[str]], names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the (n_samples, n_concepts) matrix of 0 and 1 that says who carries which label."""
    columns = {name: column for column, name in enumerate(names)}
    matrix = np.zeros((len(labels), len(names)), np.int64)
    for row, own in zip(matrix, labels, strict=True):
        for name in own:
            if name in columns:
                row[columns[name]] = 1
    return matrix
