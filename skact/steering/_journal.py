"""A file of what a report has measured, so that one that was cut off goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skact.files import append_lines, check_folder, parse_json

__all__ = ["Journal"]

_HEAD, _START = '{"configuration": ', '{"cell": '


class Journal:
    """Records of cells by key, in a JSON Lines file; lines are appended and never changed.

    A line that a crash tore is passed over.

    Parameters
    ----------
    path : path-like or None
        The file; None keeps nothing.
    configuration : mapping
        All that the cells have in common, as JSON takes it.

    Raises
    ------
    ValueError
        If the file is of another configuration, or no journal.
    FileNotFoundError, IsADirectoryError
        If there is no folder for it, or it is one.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, configuration: Mapping[str, Any]
    ) -> None:
        self.path = None if path is None else Path(path)
        self.records: dict[str, dict[str, Any]] = {}
        if self.path is None:
            return
        check_folder(self.path)
        lines = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        lines = [line for line in lines if line]
        if lines:
            self._check_head(lines[0], json.loads(json.dumps(configuration)))
            for number, line in enumerate(lines[1:], start=2):
                self._read(number, line.decode("ascii", errors="replace"))
        else:
            append_lines(self.path, [json.dumps({"configuration": configuration})])

    def _check_head(self, line: bytes, mine: dict[str, Any]) -> None:
        text = line.decode("ascii", errors="replace")
        if not text.startswith(_HEAD):
            raise ValueError(
                f"journal={str(self.path)!r} is no journal of a steering report: it begins with "
                f"{text[:40]!r}. Nothing was written to it."
            )
        theirs = parse_json(text, f"journal={str(self.path)!r}")["configuration"]
        for name in dict.fromkeys([*theirs, *mine]):
            if theirs.get(name) != mine.get(name):
                raise ValueError(
                    f"journal={str(self.path)!r} is of another configuration: its {name} is "
                    f"{_short(theirs.get(name))}, not {_short(mine.get(name))}. Name another file."
                )

    def _read(self, number: int, text: str) -> None:
        try:
            record = parse_json(text, "it")
            self.records[record["cell"]] = record
        except (ValueError, TypeError, KeyError) as error:
            if not (text.startswith(_START) or _START.startswith(text)):
                raise ValueError(
                    f"journal={str(self.path)!r}: line {number} is no record: {text[:40]!r}."
                ) from error

    def keep(self, cell: str, record: Mapping[str, Any]) -> dict[str, Any]:
        """Write a record to the disk before returning it."""
        kept = {"cell": cell, **record}
        self.records[cell] = kept
        if self.path is not None:
            append_lines(self.path, [json.dumps(kept)])
        return kept


def _short(value: Any) -> str:
    said = json.dumps(value)
    return said if len(said) < 60 else f"{said[:57]}..."
