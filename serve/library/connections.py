"""Connections to the SQLite file of a catalogue: opening, readers, the lock of the writer, transactions."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bind.owned import OwnedFolder
from serve.engine import fairness
from serve.library.errors import DamagedError, LibraryError, WriterBusyError
from serve.library.schema import FILE, LOCK, checksum, is_object, is_texts
from serve.library.text import fold

_BUSY_S = 30.0
"""Seconds that SQLite waits for another process's transaction."""
_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")
"""The last bytes of a journal that names another journal (SQLite's file format, section 3.1)."""
_READERS_KEPT = 8
"""Idle connections that are kept open: as many as threads read at once."""
_STEPS_BETWEEN_LOOKS = 10_000
"""The number of steps of SQLite's virtual machine, about a millisecond, after which a read checks whether it should
end.
"""
_NO_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)
"""The errors of SQLite that say nothing about stored data."""


def connect(file: Path) -> sqlite3.Connection:
    """A connection to an existing catalogue, for any thread (one at a time), without automatic transactions.

    In its SQL, `checksum(...)` is that of a row's values, `is_object(...)` says whether a text is a JSON object, and
    `fold(...)` is a text as names are compared. Raises LibraryError where the file, or one that SQLite keeps beside it,
    is no regular file of the library's own.
    """
    refuse_foreign_files(file.parent)
    connection = sqlite3.connect(
        f"{file.absolute().as_uri()}?mode=rw", timeout=_BUSY_S, isolation_level=None, check_same_thread=False, uri=True
    )
    connection.create_function("checksum", -1, checksum, deterministic=True)
    connection.create_function("is_object", 1, is_object, deterministic=True)
    connection.create_function("is_texts", 1, is_texts, deterministic=True)
    connection.create_function("fold", 1, fold, deterministic=True)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA trusted_schema = OFF")  # a library may come from somebody else
    connection.execute("PRAGMA synchronous = FULL")  # in WAL mode, this syncs at every commit
    return connection


def refuse_foreign_files(folder: Path) -> None:
    """Raises LibraryError for links, pipes and the like among SQLite's files, which SQLite would open by name.

    SQLite deletes a second journal that a journal names, wherever it lies; a library's journal never names one.
    """
    owned = OwnedFolder(folder)
    try:
        for suffix in ("", "-wal", "-shm", "-journal"):
            owned.check(FILE + suffix)
        if owned.check(f"{FILE}-journal"):
            with owned.open(f"{FILE}-journal") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - len(_SUPER_JOURNAL)))
                if file.read() == _SUPER_JOURNAL:
                    raise LibraryError(f"{folder}: {FILE}-journal names another journal, which no library's does")
    except OSError as error:
        raise LibraryError(
            f"{error.filename}: {error.strerror}; a library has its files in its own folder, with one name each: "
            "copy it to a new folder with `cp -rL`, if you trust where it comes from"
        ) from None


class Readers:
    """Connections for reading, one for each thread that reads: readers wait neither for each other nor for a writer.

    A read ends early where `serve.engine.fairness.is_over` says that it should.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._free: list[sqlite3.Connection] = []
        self._closed = False
        self._own = threading.local()

    @property
    def has_snapshot(self) -> bool:
        """Whether this thread reads from a snapshot."""
        return getattr(self._own, "connection", None) is not None

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """A connection that only this thread uses until the end of the block."""
        if self.has_snapshot:
            yield self._own.connection
            return
        with self._lock:
            if self._closed:
                raise LibraryError(f"{self._file.parent}: the library was closed")
            taken = self._free.pop() if self._free else None
        if taken is None:
            taken = connect(self._file)
            taken.set_progress_handler(fairness.is_over, _STEPS_BETWEEN_LOOKS)
        try:
            yield taken
        finally:
            with self._lock:
                reusable = not self._closed and len(self._free) < _READERS_KEPT
                if reusable:
                    self._free.append(taken)
            if not reusable:
                taken.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """A block in which all reads of this thread come from one state."""
        with self.connection() as taken:
            self._own.connection = taken
            taken.execute("BEGIN")
            try:
                yield
            finally:
                self._own.connection = None
                taken.execute("COMMIT")

    def close(self) -> None:
        """Closes the free connections now, and the others when they are given back."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
        for connection in free:
            connection.close()


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """A block with the right to write, which one process and thread has at a time.

    Raises WriterBusyError unless `wait`.
    """
    try:
        lock = OwnedFolder(folder).update(LOCK)
    except OSError as error:
        raise LibraryError(f"{folder / LOCK}: {error.strerror}") from None
    with lock:
        descriptor = lock.fileno()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise WriterBusyError(
                f"{folder}: another process is writing to this library (process {holder}); wait until it is done, or "
                "stop it. Searching works meanwhile"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A block that commits all of its writes, or none of them. Raises LibraryError when the disk is full."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError):
            raise LibraryError(
                f"the library could not be written: {error}; what was stored before is safe. Free some space (or make "
                "the folder writable) and index again"
            ) from error
        raise


def shorten_log(connection: sqlite3.Connection) -> None:
    """Moves the write-ahead log into the database, and empties the log where no reader needs it."""
    with suppress(sqlite3.Error):  # the data stays in the log, where it is as safe
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def explained(folder: Path, error: sqlite3.DatabaseError) -> LibraryError:
    """An error of SQLite -> the error of the library that explains it."""
    code = getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR
    if code & 0xFF in _NO_DAMAGE:
        return LibraryError(f"{folder / FILE} could not be used: {error}")
    return DamagedError(folder, str(error))
