"""What of a run is done: a line for each step, written when its result lies on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from skact.files import check_link, in_one_step, read_json
from skact.journal import append_record, open_journal, read_journal

__all__ = ["Journal"]

_OF = "the paper's protocol"


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
        """File of the journal; one that leads out of the folder is refused."""
        return check_link(self.folder, self.folder / "journal.jsonl")

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
        if self.path.exists() and not resume:
            raise ValueError(
                f"{self.folder} holds a run already: --resume goes on with it, another folder "
                "begins anew."
            )
        open_journal(self.path, _OF, configuration)
        (self.folder / "steps").mkdir(exist_ok=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs out of the folder, if its file system knows locks.

        Raises
        ------
        ValueError
            If one is at work there.
        """
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise ValueError(
                f"Another run is at work in {self.folder}: wait for its end, or stop it."
            ) from error
        except (NotImplementedError, OSError):  # no reason not to run
            pass
        try:
            yield
        finally:
            lock.release()

    def configuration(self) -> dict[str, Any]:
        """Give the configuration that it was begun with."""
        configuration, _ = read_journal(self.path, _OF)
        if configuration is None:
            raise ValueError(f"{self.path} does not say what run it is of; nothing was begun.")
        return configuration

    def done(self) -> set[str]:
        """Names of the steps whose results are there."""
        return set(read_journal(self.path, _OF)[1])

    def record(self, step: str, result: Any) -> None:
        """Keep the result of a step: first the file, then the line."""
        path = self._file(step)
        path.parent.mkdir(parents=True, exist_ok=True)
        with in_one_step(path) as temporary:
            temporary.write_text(json.dumps(result), encoding="utf-8")
        append_record(self.path, step, None)

    def result(self, step: str) -> Any:
        """Read the result of a step."""
        return read_json(self._file(step))

    def _file(self, step: str) -> Path:
        return check_link(self.folder, self.folder / "steps" / f"{step}.json")
