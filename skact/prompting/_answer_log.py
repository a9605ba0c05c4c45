"""A file of answers that survives whatever ends the run that writes it.

One JSON object per line, ASCII only, appended and never changed. A line that a crash tore is
passed over when the file is read, and the next append starts on a line of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from skact.files import append_lines, parse_json

__all__ = ["AnswerLog"]

_START = '{"key": "'


class AnswerLog:
    """Answers by key, in a JSON Lines file.

    Parameters
    ----------
    path : str or Path
        The file; made on the first append. Its folder must exist.

    Raises
    ------
    ValueError
        If the folder does not exist, or the path is a folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        if self.path.is_dir():
            raise ValueError(f"log={str(path)!r} is a folder; it must name a file.")
        if not self.path.parent.is_dir():
            raise ValueError(f"log={str(path)!r}: the folder of this file does not exist.")

    def read(self) -> dict[str, str]:
        """Read all answers.

        Returns
        -------
        answers : dict of str to str
            Answer by key; the last one where a key occurs twice.

        Raises
        ------
        ValueError
            If the file holds a line that this class cannot have written, not even in part.
        """
        if not self.path.exists():
            return {}
        answers = {}
        lines = self.path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, start=1):
            text = line.decode("ascii", errors="replace")
            try:
                record = parse_json(text, "it")
                key, answer = record["key"], record["answer"]
                if not isinstance(key, str) or not isinstance(answer, str):
                    raise TypeError("keys and answers are texts")
                answers[key] = answer
            except (ValueError, TypeError, KeyError) as error:
                is_torn = text.startswith(_START) or _START.startswith(text)
                if not is_torn:
                    raise ValueError(
                        f"log={str(self.path)!r} is no log of answers: line {number} is "
                        f"{text[:60]!r}. Nothing was written to it."
                    ) from error
        return answers

    def append(self, answers: Mapping[str, str], concepts: Mapping[str, str]) -> None:
        """Write answers to the disk before returning.

        Parameters
        ----------
        answers : mapping of str to str
            Answer by key.
        concepts : mapping of str to str
            Concept by key, for people who read the file.
        """
        rows = [
            json.dumps({"key": key, "concept": concepts[key], "answer": answer})
            for key, answer in answers.items()
        ]
        append_lines(self.path, rows)
