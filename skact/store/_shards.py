"""The folder of shards.

A shard is a safetensors file (``_format``) that is written once and never changed. It is filled
under a temporary name in the same folder, brought to the disk, and renamed; a file that has its
final name is complete. The index says where in it which sample lies, and what it says of itself
serves to verify it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from skact.rows import Array
from skact.store._entries import Held
from skact.store._format import LayerFile, read_layer
from skact.store._records import SHARD_NAME, ShardRow
from skact.tokens import same_shapes

__all__ = ["ShardFolder"]

# Which slots of a shard had their checksums, by its path, as long as the file stays as it is.
_CHECKED: dict[Path, tuple[tuple[int, ...], Array]] = {}


class ShardFolder:
    """The folder of shards; maps each file once per process as long as somebody reads it.

    Only plain files with the names of shards are read or removed, whatever the index says.

    Parameters
    ----------
    path : Path
        The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mapped: WeakValueDictionary[str, Any] = WeakValueDictionary()

    def refuse_link(self) -> None:
        """Raise ValueError if the folder is a link: its files may be another store's."""
        if self.path.is_symlink():
            raise ValueError(
                f"{str(self.path)!r} is a link; the shards of a store must lie in its own folder. "
                "Make a link to the whole store instead."
            )

    def names(self) -> list[str]:
        """List the files that writers of this store have made; refuses a link."""
        self.refuse_link()
        if not self.path.is_dir():
            return []
        return sorted(n for n in os.listdir(self.path) if SHARD_NAME.fullmatch(n))

    def _state(self, name: str) -> tuple[int, ...] | None:
        """Say what tells a file from one that has its name later; None if there is none."""
        self.refuse_link()
        try:
            status = os.lstat(self.path / name)
        except FileNotFoundError:
            return None
        said = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        return (*said, status.st_ctime_ns) if stat.S_ISREG(status.st_mode) else ()

    def layers(self) -> Iterator[tuple[str, LayerFile | None]]:
        """Open what has the name of a sealed shard, one by one; None for what cannot be read."""
        for name in self.names():
            if name.endswith(".safetensors") and self._state(name):
                try:
                    yield name, read_layer(self.path / name)
                except FileNotFoundError:
                    continue
                except (OSError, ValueError):
                    yield name, None

    def problem(self, row: ShardRow) -> str | None:
        """Say what is wrong with the length of a file, None if nothing."""
        path, state = str(self.path / row.name), self._state(row.name)
        if state is None:
            return f"{path!r} is missing"
        if not state:
            return f"{path!r} is a link or no file, and not followed"
        if state[2] != row.n_bytes:
            return f"{path!r} has {state[2]} bytes instead of {row.n_bytes}"
        return None

    def look(self, held: Held, digest: bytes) -> tuple[LayerFile | None, str | None, list[int]]:
        """Open a shard, and compare what the index says of it with what it says of itself.

        Parameters
        ----------
        held : Held
            What the index says.
        digest : bytes
            Of the layer.

        Returns
        -------
        layer : LayerFile or None
            The shard, if it can be opened.
        problem : str or None
            What is wrong with it as a whole.
        bad : list of int
            Slots that do not hold what they should. Rows are not read.
        """
        row, every = held.row, list(held.samples)
        if problem := self.problem(row):
            return None, problem, every
        path = self.path / row.name
        try:
            layer = read_layer(path)
        except FileNotFoundError:
            return None, f"{str(path)!r} is missing", every
        except OSError as error:
            return None, f"{str(path)!r} cannot be read ({error.strerror})", every
        except ValueError:
            return None, None, every
        values = layer.values
        fits = (
            (layer.identity.digest, layer.dtype) == (digest, row.dtype)
            and (values.offset, values.shape) == (row.start, row.shape)
            and np.array_equal(layer.lengths, row.lengths)
            and same_shapes(layer.shapes, row.shapes)
        )
        bad = [
            slot
            for slot, key in held.samples.items()
            if not (fits and 0 <= slot < len(layer.keys) and layer.keys[slot].tobytes() == key)
        ]
        return layer, None, bad

    def open(self, held: Held, digest: bytes, *, check: bool) -> LayerFile:
        """Open a shard to read samples of it.

        Parameters
        ----------
        held : Held
            What the index says of it and of the samples.
        digest : bytes
            Of the layer.
        check : bool
            Whether to compare the checksums of the samples, once as long as the file stays as it
            is. That the slots belong to the samples and the layer is always asked.

        Returns
        -------
        layer : LayerFile
            Its values are not writable.

        Raises
        ------
        OSError
            If the shard is missing or damaged.
        """
        path, state = self.path / held.row.name, self._state(held.row.name)
        layer, problem, bad = self.look(held, digest)
        if layer is not None and not bad and check:
            known = _CHECKED.get(path)
            if known is None or known[0] != state:
                known = (state or ()), np.zeros(len(layer.keys), bool)
            slots = np.array(list(held.samples), np.int64)
            bad = layer.damaged(slots[~known[1][slots]])
            if not bad:
                known[1][slots] = True
                _CHECKED[path] = known
        if problem or bad or layer is None:
            raise OSError(
                f"the shard {problem or said_damaged(path, held, bad)}. verify(repair=True) takes "
                "what it held out of the index; it is then embedded again."
            )
        return layer

    def map(self, held: Held, digest: bytes, *, check: bool) -> tuple[Array, Array | None]:
        """Map the values of a shard, float32, float16 or uint16, with their segments or None.

        See :meth:`open`.
        """
        layer = self.open(held, digest, check=check)
        values: Array = layer.values
        mapped = self._mapped.get(held.row.name)
        if mapped is None or mapped.inode != values.inode:  # type: ignore[attr-defined]
            self._mapped[held.row.name] = mapped = values
        return mapped, layer.segments

    def remove(self, names: Iterable[str]) -> int:
        """Remove files that no row names, nor will name.

        Parameters
        ----------
        names : iterable of str
            Those that are no names of shards are left alone.

        Returns
        -------
        n_bytes : int
            What they took.
        """
        n_bytes = 0
        for name in set(self.names()).intersection(names):
            path = self.path / name
            try:
                size = path.lstat().st_size
                path.unlink()
            except FileNotFoundError:  # another process was faster
                continue
            _CHECKED.pop(path, None)
            n_bytes += size
        return n_bytes


def said_damaged(path: Path, held: Held, bad: list[int]) -> str:
    """Say in how many samples a shard is damaged."""
    return f"{str(path)!r} is damaged in {len(bad)} of {len(held.samples)} samples"
