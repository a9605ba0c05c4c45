"""A file of drafts, batch by batch, by which a run that was broken off goes on where it was.

The first line says what the run is, each further one holds the drafts of a batch in their order.
A line is written whole or, where a crash tears it, not read: at most one batch is lost.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skact.files import append_lines, check_folder, parse_json

__all__ = ["Journal"]


class Journal:
    """Drafts of one run.

    Parameters
    ----------
    path : str or path-like
        The file; made if there is none, in a folder that exists.
    settings : mapping of str to object
        All that the drafts depend on, as JSON.

    Raises
    ------
    ValueError
        If the file is no such journal, or that of a run with other settings, which are named.
    FileNotFoundError, IsADirectoryError
        If there is no such folder, or `path` is one.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        check_folder(path)
        self.path = Path(path)
        self.drafts: list[list[str]] = []
        settings = json.loads(json.dumps(settings))
        lines = self._lines()
        head = json.dumps({"augmentation": settings})
        records = [parsed for line in lines if (parsed := self._parse(line)) is not None]
        if not records:
            if any(not '{"augmentation": '.startswith(line[:17]) for line in lines):
                raise ValueError(f"journal={str(path)!r} is no journal of augmentation.")
            append_lines(self.path, [head])
            return
        known = records[0].get("augmentation")
        if not isinstance(known, dict):
            raise ValueError(f"journal={str(path)!r} is no journal of augmentation.")
        names = sorted({*known, *settings})
        other = [name for name in names if known.get(name) != settings.get(name)]
        if other:
            raise ValueError(
                f"journal={str(path)!r} is that of a run with another {', another '.join(other)}. "
                "Name another file, or run with the settings that it was begun with."
            )
        self.drafts = [record["drafts"] for record in records[1:] if "drafts" in record]

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        return self.path.read_bytes().decode("ascii", errors="replace").splitlines()

    @staticmethod
    def _parse(line: str) -> Any:
        """Record of a line; None for one that a crash tore."""
        try:
            record = parse_json(line, "it")
        except ValueError:
            return None
        return record if isinstance(record, dict) else None

    def batch(self, number: int, n_drafts: int) -> list[str]:
        """Drafts of a batch; ValueError if they are not so many strings."""
        drafts = self.drafts[number]
        fits = isinstance(drafts, list) and len(drafts) == n_drafts
        if not fits or not all(isinstance(draft, str) for draft in drafts):
            raise ValueError(
                f"journal={str(self.path)!r}: batch {number} does not hold {n_drafts} drafts; the "
                "file was changed. Name another one."
            )
        return drafts

    def append(self, drafts: list[str]) -> None:
        """Keep the drafts of the next batch before returning."""
        append_lines(self.path, [json.dumps({"drafts": drafts})])
        self.drafts.append(drafts)
