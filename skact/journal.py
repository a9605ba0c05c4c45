"""A journal of what a run has made, by which one that was broken off goes on where it was.

It is a JSON Lines file: the first line says what the run is, each further one holds a record. A
line is appended in one write and never changed. One that a crash tore is passed over, so that at
most one record is lost.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from skact.files import append_lines, check_folder, parse_json

__all__ = ["append_record", "open_journal", "read_journal"]

_HEAD, _RECORD = '{"journal of": ', '{"key": '


def open_journal(
    path: str | os.PathLike[str], of: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Go on with the journal of a run, or begin it.

    Parameters
    ----------
    path : path-like
        The file; made if there is none, in a folder that exists.
    of : str
        What it is a journal of, such as "augmentation".
    settings : mapping of str to object
        All that the records depend on, as JSON takes it.

    Returns
    -------
    records : dict of str to object
        What was kept before, by key; of one key the last.

    Raises
    ------
    ValueError
        If the file is no such journal, or that of a run with other settings, which are named; then
        nothing is written to it.
    FileNotFoundError, IsADirectoryError
        If there is no folder for it, or it is one.
    """
    check_folder(path)
    mine = json.loads(json.dumps(settings))
    theirs, records = read_journal(path, of)
    if theirs is None:
        append_lines(Path(path), [json.dumps({"journal of": of, "settings": mine})])
    elif theirs != mine:
        raise ValueError(
            f"{_said(path)} is that of a run with another "
            f"{', another '.join(_differences('', theirs, mine))}. Begin elsewhere, or run with "
            "the settings that it was begun with."
        )
    return records


def append_record(path: str | os.PathLike[str], key: str, record: Any) -> None:
    """Have a record on the disk before returning.

    Parameters
    ----------
    path : path-like
        File of the journal.
    key : str
        Name of the record; a later one of the same name takes its place.
    record : object
        As JSON takes it.
    """
    append_lines(Path(path), [json.dumps({"key": key, "record": record})])


def read_journal(
    path: str | os.PathLike[str], of: str
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Read what a journal holds.

    Parameters
    ----------
    path : path-like
        The file.
    of : str
        What it is a journal of.

    Returns
    -------
    settings : dict of str to object, or None
        Of the run; None if there is no whole line.
    records : dict of str to object
        What was kept, by key.

    Raises
    ------
    ValueError
        If it is no such journal, naming the line.
    """
    settings: dict[str, Any] | None = None
    records: dict[str, Any] = {}
    for number, line in _lines(Path(path)):
        begun = settings is not None
        try:
            content = parse_json(line, _said(path))
        except ValueError:
            whole = _RECORD if begun else _HEAD
            if not (line.startswith(whole) or whole.startswith(line)):
                _refuse(path, number, line, begun)
            continue
        fits = {"key", "record"} if begun else {"journal of", "settings"}
        if not isinstance(content, dict) or set(content) != fits:
            _refuse(path, number, line, begun)
        if begun and not isinstance(content["key"], str):
            _refuse(path, number, line, begun)
        if begun:
            records[content["key"]] = content["record"]
        elif content["journal of"] != of:
            raise ValueError(
                f"{_said(path)} is a journal of {content['journal of']!r}, not of {of!r}."
            )
        elif not isinstance(content["settings"], dict):
            _refuse(path, number, line, begun)
        else:
            settings = content["settings"]
    return settings, records


def _lines(path: Path) -> list[tuple[int, str]]:
    """Lines that are not empty, with their numbers."""
    content = path.read_bytes() if path.exists() else b""
    lines = content.decode("ascii", errors="replace").split("\n")
    return [(number, line) for number, line in enumerate(lines, 1) if line]


def _said(path: str | os.PathLike[str]) -> str:
    return f"journal={os.fspath(path)!r}"


def _refuse(path: str | os.PathLike[str], number: int, line: str, begun: bool) -> NoReturn:
    what = f"line {number} is no record" if begun else "it is no journal"
    raise ValueError(f"{_said(path)}: {what}: {line[:40]!r}. Nothing was written to it.")


def _differences(name: str, before: Any, now: Any) -> Iterator[str]:
    """Name what differs, with its values where they are short."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from _differences(f"{name}.{key}" if name else key, before.get(key), now.get(key))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for place, pair in enumerate(zip(before, now, strict=True)):
            yield from _differences(f"{name}[{place}]", *pair)
    elif before != now:
        said = [json.dumps(value) for value in (before, now)]
        yield f"{name} ({said[0]}, now {said[1]})" if max(map(len, said)) < 40 else name
