"""The folder of shards.

A shard is a safetensors file (``_format``) that is written once and never changed. It is filled
under a temporary name in the same folder, brought to the disk, and renamed; a file that has its
final name is complete. The index says where in it which sample lies, and what it says of itself
serves to verify it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from skact.rows import Array, FileRows
from skact.store._format import RAW, LayerFile, read_layer
from skact.store._records import ShardRow

__all__ = ["SHARD_NAME", "ShardFolder"]

SHARD_NAME = re.compile(r"[0-9a-f]+-[0-9]+-[0-9]+\.(safetensors|tmp)")


class ShardFolder:
    """The folder of shards; maps each file once per process as long as somebody reads it.

    Parameters
    ----------
    path : Path
        The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mapped: WeakValueDictionary[str, Any] = WeakValueDictionary()

    def problem(self, row: ShardRow) -> str | None:
        """Say what is wrong with the length of a file, None if nothing."""
        path = self.path / row.name
        if not path.exists():
            return f"{str(path)!r} is missing"
        size = path.stat().st_size
        if size != row.n_bytes:
            return f"{str(path)!r} has {size} bytes instead of {row.n_bytes}"
        return None

    def _check(self, row: ShardRow) -> None:
        problem = self.problem(row)
        if problem:
            raise OSError(
                f"the shard {problem}. verify(repair=True) takes what it held out of the index; "
                "it is then embedded again."
            )

    def map(self, row: ShardRow) -> Array:
        """Map the values of a shard to read them.

        Parameters
        ----------
        row : ShardRow
            What the index knows of it.

        Returns
        -------
        values : FileRows of shape (n_rows, n_features), dtype float32, float16 or uint16
            Not writable.

        Raises
        ------
        OSError
            If the file is missing or does not have its length.
        """
        self._check(row)
        values = self._mapped.get(row.name)
        if values is None:
            values = FileRows(self.path / row.name, RAW[row.dtype], row.shape, row.start)
            self._mapped[row.name] = values
        return values

    def open(self, row: ShardRow) -> LayerFile:
        """Open a shard for all that it says of itself, where :meth:`map` trusts the index."""
        self._check(row)
        return read_layer(self.path / row.name)

    def remove(self, names: Sequence[str]) -> int:
        """Remove files.

        Parameters
        ----------
        names : sequence of str
            Files of this folder.

        Returns
        -------
        n_bytes : int
            What they took.
        """
        n_bytes = 0
        for name in names:
            with suppress(FileNotFoundError):
                n_bytes += (self.path / name).stat().st_size
                (self.path / name).unlink()
        return n_bytes
