"""The index of a store: which sample of which layer lies where, in SQLite.

A row of ``entries`` is the commit record: what has none does not exist. It points at a slot of a
shard; the shard's row holds how many rows each slot has, and a checksum of each slot that covers
the sample's key too, so that an entry that points at another sample's rows is found out.

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skact.rows import Array

__all__ = ["Identity", "Index", "ShardRow", "make_folder", "missing", "row_ids"]

_FORMAT = 1
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
        lengths BLOB NOT NULL, checksums BLOB NOT NULL, created REAL NOT NULL)""",
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


@dataclass(frozen=True)
class Identity:
    """All that decides the numbers of a layer, except the sample.

    Parameters
    ----------
    json : str
        In canonical JSON: keys sorted, no spaces, ASCII only.
    digest : bytes
        Its SHA-256.
    model : str
        Name of the model, for people; it does not enter the digest.
    block : int
        The transformer block.
    """

    json: str
    digest: bytes
    model: str
    block: int


@dataclass(frozen=True)
class ShardRow:
    """What the index knows of a shard.

    Parameters
    ----------
    name : str
        File name.
    dtype : {"float32", "float16", "bfloat16"}
        Of the values.
    n_features : int
        Columns.
    lengths : ndarray of shape (n_slots,), dtype int64
        Rows of each slot, one after another.
    checksums : ndarray of shape (n_slots,), dtype uint32
        CRC-32 of the sample's key and of the bytes of its rows.
    """

    name: str
    dtype: str
    n_features: int
    lengths: Array
    checksums: Array

    COLUMNS = "shards.name, shards.dtype, shards.n_features, shards.lengths, shards.checksums"

    @classmethod
    def read(cls, name: str, dtype: str, width: int, lengths: bytes, checksums: bytes) -> ShardRow:
        """Make one of the columns of a row."""
        return cls(
            name, dtype, width, np.frombuffer(lengths, "<i8"), np.frombuffer(checksums, "<u4")
        )

    @property
    def n_rows(self) -> int:
        """Rows of all slots."""
        return int(self.lengths.sum())

    @property
    def n_bytes(self) -> int:
        """Length of the file."""
        return self.n_rows * self.n_features * (4 if self.dtype == "float32" else 2)


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
        if version > _FORMAT:
            raise ValueError(
                f"the store in {str(self.folder)!r} has an index of format {version}; this version "
                f"of skact reads formats up to {_FORMAT}. Update skact, or use another folder."
            )

    @staticmethod
    def _versions(connection: sqlite3.Connection) -> tuple[int, int]:
        read = (connection.execute(f"PRAGMA {p}") for p in ("application_id", "user_version"))
        application, version = (int(found.fetchone()[0]) for found in read)
        return application, version


def row_ids(connection: sqlite3.Connection, identities: Mapping[int, Identity]) -> dict[int, int]:
    """Find the rows of identities, and make those that are not there.

    Parameters
    ----------
    connection : Connection
        Of :meth:`Index.writing`.
    identities : mapping of int to Identity
        By block.

    Returns
    -------
    ids : dict of int to int
        Row by block.
    """
    ids = {}
    for block, identity in identities.items():
        connection.execute(
            "INSERT OR IGNORE INTO identities (digest, json, model, block) VALUES (?, ?, ?, ?)",
            (identity.digest, identity.json, identity.model, identity.block),
        )
        found = connection.execute("SELECT id FROM identities WHERE digest = ?", (identity.digest,))
        ids[block] = int(found.fetchone()[0])
    return ids


def missing(index: Index, samples: Sequence[bytes], identities: Mapping[int, Identity]) -> Array:
    """Tell what is not in the store.

    Parameters
    ----------
    index : Index
        The index.
    samples : sequence of bytes
        Keys of samples.
    identities : mapping of int to Identity
        By block.

    Returns
    -------
    missing : ndarray of shape (n_samples, n_blocks), dtype bool
        Columns in the order of the mapping.
    """
    lacking = np.ones((len(samples), len(identities)), bool)
    with index.reading(samples) as connection:
        for column, identity in enumerate(identities.values()):
            found = connection.execute(
                "SELECT place FROM wanted JOIN identities ON digest = ? "
                "JOIN entries ON identity = identities.id AND entries.sample = wanted.sample",
                (identity.digest,),
            )
            places = [place for (place,) in found]
            lacking[places, column] = False
    return lacking
