"""The index of a store: which sample of which layer lies where, in SQLite.

A row of ``entries`` is the commit record: what has none does not exist. It points at a slot of a
shard; the shard's row holds where in the file the values begin and how many rows each slot has.

``claims`` say what some live process is about to write, and ``owners`` who is alive. Claims only
save work: two processes that write the same sample do no harm, since the first row stays.

The numbers of its rows are never given out twice. What it says is believed as far as the shards
say the same: they hold all that is needed to make it again (:meth:`Index.replace`).

A connection lives as long as one transaction, so threads, forks and pickles share none. SQLite
in a child would believe in the locks of a connection that was open when its parent forked, so a
fork waits for the end of transactions in other threads.
"""

from __future__ import annotations

import errno
import os
import random
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import WeakSet

__all__ = ["DamagedIndexError", "Index", "is_writable", "make_folder"]

_FORMAT = 4
_APPLICATION = 0x736B6163  # "skac", in the header of the file
_PATIENCE = 120.0  # seconds to wait for the lock of another process
_FORK = threading.RLock()
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
# What a reader may meet where it cannot write, while somebody else does; seconds until it is so.
_UNCLEAR = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_CLEAR = 1.0
# What SQLite meets on a full disk when it makes the memory that processes share.
_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)

_SCHEMA = (
    """CREATE TABLE identities (
        id INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL UNIQUE, json TEXT NOT NULL,
        model TEXT NOT NULL, block INTEGER NOT NULL)""",
    """CREATE TABLE shards (
        id INTEGER PRIMARY KEY AUTOINCREMENT, identity INTEGER NOT NULL, name TEXT NOT NULL UNIQUE,
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


class _Connection(sqlite3.Connection):
    """Gives its locks up when it is closed, even if a traceback that somebody keeps has cursors."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._cursors: WeakSet[sqlite3.Cursor] = WeakSet()

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """Run a statement with a cursor that :meth:`close` knows."""
        cursor = self.cursor()
        self._cursors.add(cursor)
        return cursor.execute(*args)

    def close(self) -> None:
        """Close the cursors, roll back, and close."""
        for cursor in list(self._cursors):
            cursor.close()
        with suppress(sqlite3.Error):
            self.rollback()
        super().close()


class DamagedIndexError(ValueError):
    """The index is not what a store has written."""

    def __init__(self, path: Path, why: object) -> None:
        super().__init__(
            f"the index {str(path)!r} is damaged: {why}. verify(repair=True) repairs it; what it "
            "cannot save is embedded again."
        )


def _unwrapped(error: sqlite3.Error, path: Path) -> Exception:
    """Say in plain words what SQLite met."""
    code = _code(error)
    if code == sqlite3.SQLITE_FULL:
        return OSError(
            errno.ENOSPC,
            "no space left for the index of the store; what was committed before is intact, and "
            "prune() makes room",
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
    if code in _BUSY:
        return TimeoutError(
            errno.ETIMEDOUT,
            f"others have locked the index of the store for {_PATIENCE:.0f} s; try again when "
            "they are done",
            str(path),
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return PermissionError(
            errno.EACCES, "the index of the store cannot be written here", str(path)
        )
    return DamagedIndexError(path, error)


def _code(error: BaseException) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _tables(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return sorted(sql for (sql,) in rows if "sqlite_sequence" not in str(sql))


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
            raise _unwrapped(error, self.path) from error

    def _patiently(self, begin: str, samples: Sequence[bytes], write: bool) -> sqlite3.Connection:
        """Open and begin; SQLite itself does not wait in every case in which waiting helps."""
        start = time.monotonic()
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
                waited, code = time.monotonic() - start, _code(error)
                unclear = code in _UNCLEAR and not (write or is_writable(self.folder))
                if waited > (_PATIENCE if code in _BUSY else _CLEAR if unclear else -1.0):
                    raise
            time.sleep(random.uniform(0.005, 0.05))

    def _open(self, write: bool) -> sqlite3.Connection:
        if self.path.is_symlink():
            raise ValueError(
                f"{str(self.path)!r} is a link; the index of a store must be a file in its folder."
            )
        if write:
            make_folder(self.folder)
            return self._without_room("rwc")
        if not self.path.exists():
            return self._connect("memory")
        if is_writable(self.folder):
            return self._without_room("rw")
        if any(Path(f"{self.path}-{log}").exists() for log in ("wal", "journal")):
            # The log of a writer that lives can be read; the file alone would not do.
            return self._connect("ro")
        return self._connect("ro&immutable=1")

    def _without_room(self, mode: str) -> sqlite3.Connection:
        """Open; on a full disk alone, for there SQLite cannot make the memory that is shared."""
        try:
            return self._connect(mode)
        except sqlite3.Error as error:
            if _code(error) not in _NO_ROOM or not self.path.exists():
                raise
            return self._connect(mode, alone=True)

    def _connect(self, mode: str, *, alone: bool = False) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(
            uri, uri=True, timeout=_PATIENCE, isolation_level=None, factory=_Connection
        )
        # Of a text that is damaged whatever can be read is read, and compared.
        connection.text_factory = lambda raw: raw.decode(errors="backslashreplace")
        try:
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("PRAGMA secure_delete = ON")  # for what is to be forgotten
            if alone:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
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
        if (application, version) == (_APPLICATION, _FORMAT):
            return
        if _tables(connection) == sorted(_SCHEMA):
            raise DamagedIndexError(self.path, "its header is not that of a store")
        if application != _APPLICATION:
            raise ValueError(f"{str(self.path)!r} is no index of an ActivationStore.")
        about = (
            f"the store in {str(self.folder)!r} has an index of format {version}; this version of "
            f"skact reads format {_FORMAT}."
        )
        if version > _FORMAT:
            raise ValueError(f"{about} Update skact, or use another folder.")
        raise DamagedIndexError(self.path, f"it is of format {version}, not {_FORMAT}")

    @staticmethod
    def _versions(connection: sqlite3.Connection) -> tuple[int, int]:
        read = (connection.execute(f"PRAGMA {p}") for p in ("application_id", "user_version"))
        application, version = (int(row.fetchone()[0]) for row in read)
        return application, version

    def problem(self) -> str | None:
        """Say what is wrong with the file as such, None if nothing.

        Raises
        ------
        OSError, ValueError
            If it cannot be read, or is that of another program or a newer version.
        """
        try:
            with self.reading() as connection:
                (state,) = connection.execute("PRAGMA integrity_check(1)").fetchall()[0]
                if _tables(connection) != sorted(_SCHEMA):
                    state = "its tables are not those of a store"
        except DamagedIndexError as error:
            return str(error)
        return None if state == "ok" else str(DamagedIndexError(self.path, state))

    def empty_log(self) -> None:
        """Bring what SQLite keeps beside the index into it, as far as nobody reads it."""
        with suppress(sqlite3.Error), _FORK, closing(self._open(write=True)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def replace(self, fill: Callable[[sqlite3.Connection], None]) -> None:
        """Make the index anew, in its place, so that others who have it open see the new one.

        A file that SQLite cannot read at all is put aside under a name of its own.

        Parameters
        ----------
        fill : callable
            Puts into a connection to an empty index what it shall hold.
        """
        make_folder(self.folder)
        try:
            with _FORK, closing(self._connect("memory")) as fresh:
                fresh.execute("BEGIN")
                fill(fresh)
                fresh.execute("COMMIT")
                try:
                    self._overwrite(fresh)
                except sqlite3.Error as error:
                    if _code(error) in (*_BUSY, sqlite3.SQLITE_FULL):
                        raise
                    self._put_aside()
                    self._overwrite(fresh)
        except sqlite3.Error as error:
            raise _unwrapped(error, self.path) from error

    def _overwrite(self, fresh: sqlite3.Connection) -> None:
        target = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
        with closing(target):
            fresh.backup(target)
            target.execute(f"PRAGMA journal_mode = {self.journal}").fetchall()
            if target.execute("PRAGMA integrity_check(1)").fetchall() != [("ok",)]:
                raise sqlite3.DatabaseError("the new index cannot be read")

    def _put_aside(self) -> None:
        aside = self.folder / f"{self.path.name}.damaged-{secrets.token_hex(8)}"
        for log in ("-wal", "-shm", "-journal"):
            Path(f"{self.path}{log}").unlink(missing_ok=True)
        os.replace(self.path, aside)
