"""Who is writing what at this moment, so that no two processes embed the same sample.

A claim holds while its owner lives. An owner writes the time into the index every few seconds; one
that is silent for a minute, or whose process is gone, is dead, and its claims fall to the next who
asks. An owner that was taken for dead and goes on finds its row gone, and may not commit.
"""

from __future__ import annotations

import os
import secrets
import socket
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from skact.store._entries import add_shards, row_ids
from skact.store._index import Index
from skact.store._records import Identity, ShardRow

__all__ = ["Owner", "forget_the_dead", "live_owners"]

_BEAT, _SILENCE = 10.0, 60.0  # seconds


def _host() -> str:
    """Name the machine, or the container, within which process numbers mean something."""
    space = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {os.readlink(space) if space.exists() else ''}".strip()


def _runs(pid: int) -> bool:
    if os.name != "posix":
        return True  # asking there would be a signal that ends it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    with suppress(OSError):
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def live_owners(connection: sqlite3.Connection) -> set[str]:
    """Tell which owners live.

    Parameters
    ----------
    connection : Connection
        Of :meth:`Index.reading` or :meth:`Index.writing`.

    Returns
    -------
    owners : set of str
        Their names.
    """
    owners = connection.execute("SELECT id, host, pid, beat FROM owners").fetchall()
    return {owner for owner, *signs in owners if _lives(*signs)}


def _lives(host: object, pid: object, beat: object) -> bool:
    # A clock ahead of ours must not keep an owner alive for ever.
    silent = not isinstance(beat, float) or not abs(time.time() - beat) <= _SILENCE
    if host == _host() and isinstance(pid, int) and 0 < pid < 2**31:
        return not silent and _runs(pid)
    return not silent


def forget_the_dead(connection: sqlite3.Connection) -> set[str]:
    """Remove dead owners and their claims from the index, and tell which live."""
    living = live_owners(connection)
    for (owner,) in connection.execute("SELECT id FROM owners").fetchall():
        if owner not in living:
            connection.execute("DELETE FROM owners WHERE id = ?", (owner,))
    connection.execute("DELETE FROM claims WHERE owner NOT IN (SELECT id FROM owners)")
    return living


class Owner:
    """One run that writes into a store; a context manager.

    Parameters
    ----------
    index : Index
        The index of the store.

    Attributes
    ----------
    name : str
        Random; the names of its shards begin with it.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self.name = secrets.token_hex(8)
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        with self.index.writing() as connection:
            connection.execute(
                "INSERT INTO owners VALUES (?, ?, ?, ?)",
                (self.name, _host(), os.getpid(), time.time()),
            )
        self._heart.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._heart.join()
        # If even this fails, the claims lapse by themselves.
        with suppress(ValueError, OSError), self.index.writing() as connection:
            connection.execute("DELETE FROM claims WHERE owner = ?", (self.name,))
            connection.execute("DELETE FROM owners WHERE id = ?", (self.name,))

    def _beat(self) -> None:
        while not self._stop.wait(_BEAT):
            with suppress(ValueError, OSError), self.index.writing() as connection:
                connection.execute(
                    "UPDATE owners SET beat = ? WHERE id = ?", (time.time(), self.name)
                )

    def free(self, samples: Sequence[bytes], identities: Mapping[int, Identity]) -> list[int]:
        """Tell what :meth:`claim` would take now.

        Parameters
        ----------
        samples, identities
            As there.

        Returns
        -------
        places : list of int
            The samples, ascending.
        """
        with self.index.writing(samples) as connection:
            return [place for place, _ in self._free(connection, row_ids(connection, identities))]

    def claim(self, samples: Sequence[bytes], identities: Mapping[int, Identity]) -> list[int]:
        """Take what is missing and nobody has taken.

        Parameters
        ----------
        samples : sequence of bytes
            Keys of samples.
        identities : mapping of int to Identity
            By block; a sample is taken in all of these layers or in none.

        Returns
        -------
        places : list of int
            The samples that are ours now, ascending; none for an owner taken for dead.
        """
        with self.index.writing(samples) as connection:
            ids = row_ids(connection, identities)
            free = self._free(connection, ids)
            connection.executemany(
                "INSERT INTO claims VALUES (?, ?, ?)",
                ((i, sample, self.name) for i in ids.values() for _, sample in free),
            )
        return [place for place, _ in free]

    def _free(
        self, connection: sqlite3.Connection, ids: Mapping[int, int]
    ) -> list[tuple[int, bytes]]:
        """Place and key of what is missing and not taken, among the samples looked up."""
        if self.name not in forget_the_dead(connection):
            return []
        among = ", ".join(map(str, ids.values()))
        return connection.execute(
            "SELECT place, sample FROM wanted WHERE NOT EXISTS (SELECT 1 FROM claims WHERE "
            f"identity IN ({among}) AND sample = wanted.sample) AND NOT EXISTS (SELECT 1 FROM "
            f"entries WHERE identity IN ({among}) AND sample = wanted.sample) ORDER BY place"
        ).fetchall()

    def commit(
        self,
        rows: Mapping[int, ShardRow],
        samples: Sequence[bytes],
        identities: Mapping[int, Identity],
    ) -> bool:
        """Enter sealed shards into the index; from then on they exist.

        Parameters
        ----------
        rows : mapping of int to ShardRow
            The shards by block.
        samples : sequence of bytes
            Keys of the samples in their slots.
        identities : mapping of int to Identity
            By block.

        Returns
        -------
        done : bool
            False if this owner was taken for dead meanwhile, and its files perhaps for litter.
        """
        with self.index.writing() as connection:
            if connection.execute("SELECT 1 FROM owners WHERE id = ?", (self.name,)).fetchone():
                ids = row_ids(connection, identities)
                add_shards(connection, ids, rows, samples)
                connection.executemany(
                    "DELETE FROM claims WHERE identity = ? AND sample = ?",
                    ((i, sample) for i in ids.values() for sample in samples),
                )
                return True
        return False
