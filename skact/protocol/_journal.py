"""What of a run is done: a line for each step, written when its result lies on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skact.files import append_lines, in_one_step, parse_json, read_json

__all__ = ["Journal"]


@dataclass(frozen=True)
class Journal:
    """A folder of results, and the file that says which are there.

    Parameters
    ----------
    folder : Path
        Where ``journal.jsonl`` and ``steps`` lie.
    """

    folder: Path

    @property
    def path(self) -> Path:
        """File of the journal."""
        return self.folder / "journal.jsonl"

    def start(self, configuration: dict[str, Any], *, resume: bool) -> None:
        """Begin, or go on with what was begun.

        Parameters
        ----------
        configuration : dict
            Of the run, as JSON holds it.
        resume : bool
            Whether to go on.

        Raises
        ------
        ValueError
            If there is a journal and it is not to be gone on with, or it is of another
            configuration.
        """
        if self.path.exists():
            if not resume:
                raise ValueError(
                    f"{self.folder} holds a run already: --resume goes on with it, another folder "
                    "begins anew."
                )
            self._drop_half_a_line()
            lines = self._lines()
            if lines:
                self._compare(lines[0].get("configuration", {}), configuration)
                return
        (self.folder / "steps").mkdir(parents=True, exist_ok=True)
        self._append({"configuration": configuration})

    def _compare(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        for key in {**before, **now}:
            if before.get(key) != now.get(key):
                raise ValueError(
                    f"{self.folder} holds the run of another configuration: {key} was "
                    f"{before.get(key)!r}, and is {now.get(key)!r}; give another folder."
                )

    def configuration(self) -> dict[str, Any]:
        """Give the configuration that it was begun with."""
        configuration: dict[str, Any] = self._lines()[0]["configuration"]
        return configuration

    def done(self) -> set[str]:
        """Names of the steps whose results are there."""
        return {line["step"] for line in self._lines() if "step" in line}

    def record(self, step: str, result: Any) -> None:
        """Keep the result of a step: first the file, then the line."""
        path = self._file(step)
        path.parent.mkdir(parents=True, exist_ok=True)
        with in_one_step(path) as temporary:
            temporary.write_text(json.dumps(result), encoding="utf-8")
        self._append({"step": step})

    def result(self, step: str) -> Any:
        """Read the result of a step."""
        return read_json(self._file(step))

    def _file(self, step: str) -> Path:
        return self.folder / "steps" / f"{step}.json"

    def _lines(self) -> list[dict[str, Any]]:
        text = self.path.read_text(encoding="utf-8")
        return [
            parse_json(line, f"{self.path}, line {n}")
            for n, line in enumerate(text.split("\n")[:-1], 1)
        ]

    def _append(self, line: dict[str, Any]) -> None:
        append_lines(self.path, [json.dumps(line)])

    def _drop_half_a_line(self) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with in_one_step(self.path) as temporary:
                temporary.write_bytes(whole)
