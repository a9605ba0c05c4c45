"""A journal of what a run has made, by which one that was broken off goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skact.files import append_lines, check_folder, parse_json

__all__ = ["Journal"]

_HEAD, _RECORD = '{"journal of": ', '{"key": '


class Journal:
    """Records of one run by key, in a JSON Lines file.

    The first line says what the run is, each further one holds a record. A line is appended in one
    write, and never changed. One that a crash tore is passed over: at most one record is lost.

    Parameters
    ----------
    path : path-like
        The file; made if there is none, in a folder that exists.
    of : str
        What it is a journal of, such as "augmentation".
    settings : mapping of str to object
        All that the records depend on, as JSON takes it.

    Attributes
    ----------
    records : dict of str to object
        What is kept, in its order.

    Raises
    ------
    ValueError
        If the file is no such journal, or that of a run with other settings, which are named; then
        nothing is written to it.
    FileNotFoundError, IsADirectoryError
        If there is no folder for it, or it is one.
    """

    def __init__(self, path: str | os.PathLike[str], of: str, settings: Mapping[str, Any]) -> None:
        check_folder(path)
        self.path = Path(path)
        self.records: dict[str, Any] = {}
        self._said = f"journal={str(path)!r}"
        head = {"journal of": of, "settings": json.loads(json.dumps(settings))}
        begun = False
        for number, line in self._lines():
            try:
                content = parse_json(line, self._said)
            except ValueError:
                self._check_torn(number, line, begun)
                continue
            if begun:
                self._take(number, line, content)
            else:
                self._check_head(content, head)
                begun = True
        if not begun:
            append_lines(self.path, [json.dumps(head)])

    def _lines(self) -> list[tuple[int, str]]:
        """Lines that are not empty, with their numbers."""
        content = self.path.read_bytes() if self.path.exists() else b""
        lines = content.decode("ascii", errors="replace").split("\n")
        return [(number, line) for number, line in enumerate(lines, 1) if line]

    def _check_torn(self, number: int, line: str, begun: bool) -> None:
        whole = _RECORD if begun else _HEAD
        if not (line.startswith(whole) or whole.startswith(line)):
            self._refuse(number, line, begun)

    def _refuse(self, number: int, line: str, begun: bool) -> None:
        what = f"line {number} is no record" if begun else "it is no journal"
        raise ValueError(f"{self._said}: {what}: {line[:40]!r}. Nothing was written to it.")

    def _check_head(self, content: Any, mine: dict[str, Any]) -> None:
        if not isinstance(content, dict) or set(content) != set(mine):
            self._refuse(1, json.dumps(content), False)
        if content["journal of"] != mine["journal of"]:
            raise ValueError(
                f"{self._said} is a journal of {content['journal of']!r}, not of "
                f"{mine['journal of']!r}. Name another file."
            )
        theirs, ours = content["settings"], mine["settings"]
        if theirs == ours:
            return
        other = [
            _changed(name, theirs.get(name), ours.get(name))
            for name in dict.fromkeys([*theirs, *ours])
            if theirs.get(name) != ours.get(name)
        ]
        raise ValueError(
            f"{self._said} is that of a run with another {', another '.join(other)}. Name another "
            "file, or run with the settings that it was begun with."
        )

    def _take(self, number: int, line: str, content: Any) -> None:
        if not isinstance(content, dict) or set(content) != {"key", "record"}:
            self._refuse(number, line, True)
        self.records[str(content["key"])] = content["record"]

    def keep(self, key: str, record: Any) -> None:
        """Have a record on the disk before returning.

        Parameters
        ----------
        key : str
            Its name; a later record of the same name takes its place.
        record : object
            As JSON takes it.
        """
        append_lines(self.path, [json.dumps({"key": key, "record": record})])
        self.records[key] = record


def _changed(name: str, before: Any, now: Any) -> str:
    """Name a setting, with its values where they are short."""
    said = [json.dumps(value) for value in (before, now)]
    return f"{name} ({said[0]}, now {said[1]})" if max(map(len, said)) < 40 else name
