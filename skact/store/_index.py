"""The index of a store: which sample of which layer lies where, in SQLite.

A row of ``entries`` is the commit record: what has none does not exist. It points at a slot of a
shard; the shard's row holds where in the file the values begin and how many rows each slot has.

``claims`` say what some live process is about to write, and ``owners`` who is alive. Claims only
save work: two processes that write the same sample do no harm, since the first row stays.

A connection lives as long as one transaction, so threads, forks and pickles share none. SQLite
in a child would believe in the locks of a connection that was open when its parent forked, so a
fork waits for the end of transactions in other threads.
"""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

__all__ = ["Index", "is_writable", "make_folder"]

_FORMAT = 3
_APPLICATION = 0x736B6163  # "skac", in the header of the file
_PATIENCE = 120.0  # seconds to wait for the lock of another process
_FORK = threading.RLock()
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)

_SCHEMA = (
    """CREATE TABLE identities (
        id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, json TEXT NOT NULL,
        model TEXT NOT NULL, block INTEGER NOT NULL)""",
    """CREATE TABLE shards (
        id INTEGER PRIMARY KEY, identity INTEGER NOT NULL, name TEXT NOT NULL UNIQUE,
        dtype TEXT NOT NULL, n_features INTEGER NOT NULL, n_rows INTEGER NOT NULL,
        start INTEGER NOT NULL, n_bytes INTEGER NOT NULL, lengths BLOB NOT NULL, shapes BLOB,
        created REAL NOT NULL)""",
    """CREATE TABLE entries (
        identity INTEGER NOT NULL, sample BLOB NOT NULL, shard INTEGER NOT NULL,
        slot INTEGER NOT NULL, PRIMARY KEY (identity, sample)) WITHOUT ROWID""",
    """CREATE TABLE owners (
        id TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, beat REAL NOT NULL)""",
    """CREATE TABLE claims (
        identity INTEGER NOT NULL, sample BLOB NOT NULL, owner TEXT NOT NULL,
        PRIMARY KEY (identity, sample)) WITHOUT ROWID""",
)
_WANTED = "CREATE TEMP TABLE wanted (place INTEGER PRIMARY KEY, sample BLOB NOT NULL)"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_FORK.acquire, after_in_parent=_FORK.release, after_in_child=_FORK.release
    )


def is_writable(folder: Path) -> bool:
    """Tell whether this process may write into a folder that exists."""
    return os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def make_folder(folder: Path) -> None:
    """Make a folder that can be written to.

    Parameters
    ----------
    folder : Path
        The folder; parents are made as well.

    Raises
    ------
    PermissionError
        If it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(
            error.errno, f"the folder of the store cannot be made ({error.strerror})", str(folder)
        ) from error
    if not is_writable(folder):
        raise PermissionError(
            errno.EACCES,
            "the store is read-only here, so samples that it does not hold cannot be embedded",
            str(folder),
        )


def _unwrapped(error: sqlite3.Error, path: Path) -> Exception:
    """Say in plain words what SQLite met."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return ValueError(f"{str(path)!r} is no index of an ActivationStore, or damaged: {error}.")
    if code == sqlite3.SQLITE_FULL:
        return OSError(
            errno.ENOSPC,
            "no space left for the index of the store; what was committed before is intact",
            str(path),
        )
    if code == sqlite3.SQLITE_IOERR:
        return OSError(
            errno.EIO, f"the index of the store cannot be read or written ({error})", str(path)
        )
    if code == sqlite3.SQLITE_CANTOPEN:
        return OSError(
            f"the index {str(path)!r} cannot be opened. If its folder is read-only, a writer has "
            "died in it: open the store once where it can be written."
        )
    return error


class Index:
    """The SQLite file of a store.

    Parameters
    ----------
    folder : Path
        Folder of the store. Nothing is made before the first write.
    journal : {"wal", "delete"}, default="wal"
        Journal mode of SQLite for an index that is yet to be made.
    """

    def __init__(self, folder: Path, journal: str = "wal") -> None:
        self.folder = folder
        self.journal = journal
        self.path = folder / "index.sqlite"

    @contextmanager
    def reading(self, samples: Sequence[bytes] = ()) -> Iterator[sqlite3.Connection]:
        """Open one consistent view; that of an empty index where there is none.

        Parameters
        ----------
        samples : sequence of bytes, default=()
            Keys to look up, as ``sample`` by ``place`` in the temporary table ``wanted``.

        Yields
        ------
        connection : Connection
            Inside a transaction that only reads.
        """
        yield from self._transaction("BEGIN", samples, write=False)

    @contextmanager
    def writing(self, samples: Sequence[bytes] = ()) -> Iterator[sqlite3.Connection]:
        """Open a transaction that is on disk after the block, or rolled back by an exception.

        Parameters
        ----------
        samples : sequence of bytes, default=()
            As in :meth:`reading`.

        Yields
        ------
        connection : Connection
            Nobody else writes meanwhile.
        """
        yield from self._transaction("BEGIN IMMEDIATE", samples, write=True)

    def _transaction(
        self, begin: str, samples: Sequence[bytes], *, write: bool
    ) -> Iterator[sqlite3.Connection]:
        try:
            with _FORK, closing(self._patiently(begin, samples, write)) as connection:
                yield connection
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            better = _unwrapped(error, self.path)
            if better is error:
                raise
            raise better from error

    def _patiently(self, begin: str, samples: Sequence[bytes], write: bool) -> sqlite3.Connection:
        """Open and begin; SQLite itself does not wait in every case in which waiting helps."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            connection = None
            try:
                connection = self._open(write)
                connection.execute("BEGIN")
                connection.execute(_WANTED)
                connection.executemany("INSERT INTO wanted VALUES (?, ?)", enumerate(samples))
                connection.execute("COMMIT")
                connection.execute(begin)
                return connection
            except BaseException as error:
                if connection is not None:
                    connection.close()
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code not in _BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0.005, 0.05))

    def _open(self, write: bool) -> sqlite3.Connection:
        if write:
            make_folder(self.folder)
            connection = self._connect("rwc")
        elif not self.path.exists():
            connection = self._connect("memory")
        elif is_writable(self.folder):
            connection = self._connect("rw")
        elif any(Path(f"{self.path}-{log}").exists() for log in ("wal", "journal")):
            # The log of a writer that lives can be read; the file alone would not do.
            connection = self._connect("ro")
        else:
            connection = self._connect("ro&immutable=1")
        return connection

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None)
        try:
            connection.execute("PRAGMA temp_store = MEMORY")
            if not mode.startswith("ro"):
                self._create(connection)
            self._check_format(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _create(self, connection: sqlite3.Connection) -> None:
        if self._versions(connection) != (0, 0):
            return
        connection.execute(f"PRAGMA journal_mode = {self.journal}")
        connection.execute("BEGIN IMMEDIATE")
        if self._versions(connection) == (0, 0):  # no other process was faster
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise ValueError(f"{str(self.path)!r} is no index of an ActivationStore.")
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {_FORMAT}")
        connection.execute("COMMIT")

    def _check_format(self, connection: sqlite3.Connection) -> None:
        application, version = self._versions(connection)
        if application != _APPLICATION:
            raise ValueError(f"{str(self.path)!r} is no index of an ActivationStore.")
        if version != _FORMAT:
            advice = (
                "Update skact, or use another folder"
                if version > _FORMAT
                else "Remove the folder, or use another one; samples are then embedded again"
            )
            raise ValueError(
                f"the store in {str(self.folder)!r} has an index of format {version}; this version "
                f"of skact reads format {_FORMAT}. {advice}."
            )

    @staticmethod
    def _versions(connection: sqlite3.Connection) -> tuple[int, int]:
        read = (connection.execute(f"PRAGMA {p}") for p in ("application_id", "user_version"))
        application, version = (int(row.fetchone()[0]) for row in read)
        return application, version
