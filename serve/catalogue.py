"""The catalogue of a library: one SQLite file that is the truth about files, what they contain, and the vectors.

    files --content--> contents --< segments --- vectors

A *file* is a path; a *content* is what one or several equal files hold (their hash, read as one modality with the same
hints); a *segment* is a timed stretch of it (or all of it) in one modality, with one vector. Segment ids are the ids of
the index and are never given twice. They name what folders have; a file that the library keeps itself (an *upload*) has
ids of its own for the same segments, so that it can be told from a folder's file with the same content, and removed.

Vectors are rows of this database, not a file beside it, because then one commit covers a file, its segments and its
vectors: with the write-ahead log synced at every commit, a power cut at any byte leaves the last commit, whole. They
have a table of their own, which nothing reads but a query that wants vectors. Searching reads the index's copy, which
is memory-mapped, so that opening a library copies none.

SQLite notices damage to the structure of its pages, not to the values in them: so every row has a `checksum`, which is
compared wherever a result is made of it (`serve.check` compares all). What no file can tell of itself, that it is an
older copy or has lost its write-ahead log, the file `committed` tells: the last revision that was committed.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sqlite3
import threading
import uuid
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bind.files import sync
from bind.owned import NotOwnedError, OwnedFolder
from serve import fairness, kept
from serve.where import Where

FILE = "catalogue.sqlite"
LOCK = "writer.lock"
COMMITTED = "committed"
FORMAT = 2
CHECKSUMS = {
    "facts": ("key", "value"),
    "contents": ("id", "digest", "modality", "hints", "parts", "duration_s", "notes"),
    "segments": ("id", "content", "modality", "start_s", "end_s", "born"),
    "vectors": ("segment", "vector"),
    "removed": ("segment", "revision"),
    "uploads": ("id", "segment", "file"),
    "files": (
        "id", "path", "content", "size_bytes", "mtime_ns", "sidecar", "shown", "name", "folder", "date", "caption",
        "metadata", "reason", "reader",
    ),
}  # fmt: skip
"""Table -> the columns that its `checksum` covers, the key first."""
_BUSY_S = 30.0
_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")
"""The last bytes of a journal that names another one (SQLite's file format, 3.1)."""
_VECTORS_PER_READ = 4096
_VARIABLES = 500
_READERS_KEPT = 8
_STEPS_BETWEEN_LOOKS = 10_000
"""Steps of SQLite's machine, about a millisecond, after which a read looks whether anybody still waits for it."""
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
"""Errors of SQLite that say nothing of what is stored."""

_SCHEMA = """CREATE TABLE uploads (
    id INTEGER PRIMARY KEY, segment INTEGER NOT NULL REFERENCES segments, file INTEGER NOT NULL REFERENCES files,
    UNIQUE (segment, file)
);
CREATE INDEX uploads_by_file ON uploads (file)
"""
_SCHEMA = """
CREATE TABLE facts (key TEXT PRIMARY KEY, value, checksum INTEGER) WITHOUT ROWID;
CREATE TABLE contents (
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL, modality TEXT NOT NULL, hints TEXT NOT NULL,
    parts TEXT NOT NULL, duration_s REAL, notes TEXT NOT NULL, checksum INTEGER, UNIQUE (digest, modality, hints)
);
CREATE TABLE segments (
    id INTEGER PRIMARY KEY AUTOINCREMENT, content INTEGER NOT NULL REFERENCES contents, modality TEXT NOT NULL,
    start_s REAL, end_s REAL, born INTEGER NOT NULL, checksum INTEGER
);
CREATE INDEX segments_by_content ON segments (content);
CREATE INDEX segments_by_modality ON segments (modality);
CREATE INDEX segments_by_revision ON segments (born);
CREATE TABLE vectors (segment INTEGER PRIMARY KEY REFERENCES segments, vector BLOB NOT NULL, checksum INTEGER);
CREATE TABLE removed (segment INTEGER PRIMARY KEY, revision INTEGER NOT NULL, checksum INTEGER);
CREATE TABLE files (
    id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, content INTEGER REFERENCES contents,
    size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sidecar TEXT NOT NULL,
    shown TEXT NOT NULL, name TEXT NOT NULL, folder TEXT NOT NULL, date TEXT NOT NULL, caption TEXT NOT NULL,
    metadata TEXT NOT NULL, reason TEXT, reader TEXT, checksum INTEGER
);
CREATE INDEX files_by_content ON files (content);
CREATE TABLE uploads (
    id INTEGER PRIMARY KEY, segment INTEGER NOT NULL REFERENCES segments, file INTEGER NOT NULL REFERENCES files,
    checksum INTEGER, UNIQUE (segment, file)
);
CREATE INDEX uploads_by_file ON uploads (file);
CREATE VIRTUAL TABLE words USING fts5 (name, caption, metadata, tokenize = 'porter unicode61 remove_diacritics 2');
"""
_JOIN = "segments s JOIN contents c ON c.id = s.content JOIN files f ON f.content = c.id"
EVERYTHING = Where("1", ())
"""The filter that everything passes."""

# Words of English that say nothing about what is wanted: a match of theirs alone would fill the keyword ranking.
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by for from has in into is it its of on or that the their this to was were with "
        "photo picture image",
    )
)


class LibraryError(ValueError):
    """A library that cannot be used or written: the message says what happened and what to do."""


class DamagedError(LibraryError):
    """What is stored in a catalogue is not what was written."""

    def __init__(self, folder: Path, what: str) -> None:
        super().__init__(
            f"{folder / FILE} is damaged: {what}; `crossbind check {folder} --repair` repairs what can be derived, "
            "else restore a backup or index into a new library"
        )
        self.folder = folder
        self.what = what

    def __reduce__(self) -> tuple[type[DamagedError], tuple[Path, str]]:
        return type(self), (self.folder, self.what)


class WriterBusyError(LibraryError):
    """Another process, or another thread of this one, is writing to the library."""


class UnknownItemError(LibraryError, LookupError):
    """There is no such item in the library (any more), or its file is not the one that was indexed any more."""


@dataclass(frozen=True)
class FileRow:
    """What is known of a path. `content` is None for a file that could not be used, for `reason`, by `reader`."""

    id: int
    content: int | None
    stamp: tuple[int, int, str]
    modality: str
    parts: tuple[str, ...]
    reason: str | None
    reader: str | None
    caption: str
    metadata: str


@dataclass(frozen=True)
class Entry:
    """A segment together with one of the files that contain it (`also` are the others)."""

    segment: int
    content: int
    path: str
    also: tuple[str, ...]
    modality: str
    start_s: float | None
    end_s: float | None
    metadata: dict[str, Any]
    item: int = -1
    """The id of an upload's item; -1 where it is that of the segment."""


@dataclass(frozen=True)
class NewFile:
    """The columns of a file to be written. `content` and `reason` as in `FileRow`."""

    path: str
    folder: str
    stamp: tuple[int, int, str]
    content: int | None = None
    date: str = ""
    caption: str = ""
    metadata: str = "{}"
    reason: str | None = None
    reader: str | None = None


@dataclass(frozen=True)
class NewSegment:
    """A segment to be written: `vector` (D,) float32 of norm 1."""

    modality: str
    start_s: float | None
    end_s: float | None
    vector: np.ndarray


@dataclass(frozen=True)
class ContentKey:
    """What makes two files the same content: SHA-256, the modality they are read as, their hints as JSON."""

    digest: bytes
    modality: str
    hints: str


def connect(file: Path) -> sqlite3.Connection:
    """A connection to a catalogue that exists, for any thread (one at a time). Transactions are begun by hand.

    `checksum(...)` in its SQL is that of a row's values. Raises LibraryError where the file, or one that SQLite keeps
    beside it, is no regular file of the library's own.
    """
    refuse_foreign_files(file.parent)
    connection = sqlite3.connect(
        f"{file.absolute().as_uri()}?mode=rw", timeout=_BUSY_S, isolation_level=None, check_same_thread=False, uri=True
    )
    connection.create_function("checksum", -1, checksum, deterministic=True)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA trusted_schema = OFF")  # a library may come from somebody else
    connection.execute("PRAGMA synchronous = FULL")  # in WAL mode, a sync at every commit
    return connection


def checksum(*values: Any) -> int:
    """A row's values as SQLite gives them -> CRC-32, which finds every change of up to 32 neighbouring bits."""
    if len(values) == 2 and isinstance(values[1], bytes):
        return zlib.crc32(values[1], zlib.crc32(repr(values[0]).encode()))  # a vector: not written out as text
    return zlib.crc32(repr(values).encode("utf-8", "surrogatepass"))


def signature(table: str, alias: str = "") -> str:
    """SQL of the checksum that the row of a table should have."""
    return f"checksum({', '.join(f'{alias}{column}' for column in CHECKSUMS[table])})"


def sign(connection: sqlite3.Connection, table: str, condition: str = "1", values: Sequence[Any] = ()) -> None:
    """Stores the checksums of rows that were written."""
    connection.execute(f"UPDATE {table} SET checksum = {signature(table)} WHERE {condition}", values)


def refuse_foreign_files(folder: Path) -> None:
    """SQLite opens its files by name, so they are looked at before. Raises LibraryError for links, pipes and the like.

    A journal that names a second one makes SQLite delete that, wherever it lies; a library's never does.
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


def encode_path(path: str) -> bytes:
    """A path as the file system has it: the key of a file, whatever its encoding."""
    return os.fsencode(path)


def shown(path: str) -> str:
    """A path as valid text, with replacement characters for bytes that are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")


def words_of(text: str) -> list[str]:
    """`IMG_beachSunset2.jpg` -> [IMG, beach, Sunset, 2, jpg]: cut at marks, digits and capitals inside a word."""
    return re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-zß-ÿ])(?=[A-ZÀ-ÖØ-Þ])", " ", text))


class _Readers:
    """Connections for reading, one to each thread that reads: readers wait neither for each other nor for a writer.

    A read ends early where `serve.fairness.is_over` says that it should.
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
        """A connection that is this thread's alone until the end of the block."""
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
                kept = not self._closed and len(self._free) < _READERS_KEPT
                if kept:
                    self._free.append(taken)
            if not kept:
                taken.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All that this thread reads inside comes from one state."""
        with self.connection() as taken:
            self._own.connection = taken
            taken.execute("BEGIN")
            try:
                yield
            finally:
                self._own.connection = None
                taken.execute("COMMIT")

    def close(self) -> None:
        """Ends those that are free now, and the others when they are given back."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
        for connection in free:
            connection.close()


class Catalogue:
    """Reading a library's catalogue, from any thread. Made when missing; `write` is the only way to change it.

    Raises LibraryError for one of a newer format, and a folder that holds something else; DamagedError for one that is
    empty, damaged, or behind what was committed to it.
    """

    def __init__(
        self, folder: Path, space: str, dim: int, model: str, revisions: Mapping[str, int] | None = None
    ) -> None:
        self.folder = folder
        self._readers = _Readers(folder / FILE)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(folder / FILE):
                facts = {"space": space, "dim": dim, "model": model, "revisions": json.dumps(dict(revisions or {}))}
                _create(folder, facts)
            refuse_damage(folder)
            self._connection = connect(folder / FILE)
            try:
                self.facts: Mapping[str, Any] = read_facts(self._connection, folder)
                if self.facts["format"] < FORMAT:
                    from serve import migrations  # it needs what is defined here

                    with self.write() as writer:
                        migrations.migrate(writer.connection, folder)
                    self.facts = read_facts(self._connection, folder)
                _refuse_lost_commits(self._connection, folder)
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.DatabaseError as error:
            raise _explained(folder, error) from None
        except OSError as error:
            raise LibraryError(f"{folder}: the library could not be opened: {error.strerror}") from None

    @staticmethod
    def peek(folder: Path) -> Mapping[str, Any]:
        """The facts (`space`, `dim`, `model`) of the library in a folder, nothing where there is none.

        Raises LibraryError as opening it does.
        """
        if not os.path.lexists(folder / FILE):
            return {}
        refuse_damage(folder)
        try:
            with closing(connect(folder / FILE)) as connection:
                return read_facts(connection, folder)
        except sqlite3.DatabaseError as error:
            raise _explained(folder, error) from None

    def close(self) -> None:
        """Ends the connections."""
        self._readers.close()
        self._connection.close()

    @contextmanager
    def write(self) -> Iterator[Writer]:
        """The right to change the catalogue, for one process and thread at a time.

        Raises WriterBusyError when somebody else has it. The kernel takes it back from a process that dies.
        """
        with _locked(self.folder):
            connection = connect(self.folder / FILE)
            try:
                yield Writer(connection, self.folder)
            except sqlite3.DatabaseError as error:
                raise _explained(self.folder, error) from error
            finally:
                _shorten_log(connection)
                connection.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All reads of this thread inside see one state, whatever is committed meanwhile."""
        if self._readers.has_snapshot:
            yield
            return
        with self._readers.snapshot():
            yield

    @property
    def revision(self) -> int:
        """The number of the last commit that changed what can be searched."""
        return int(self._rows("SELECT value FROM facts WHERE key = 'revision'")[0][0])

    def count(self) -> dict[str, int]:
        """Modality -> number of its segments."""
        return dict(self._rows("SELECT modality, count(*) FROM segments GROUP BY modality ORDER BY modality"))

    def _modalities(self) -> list[str]:
        """Those that have segments. The index leads from one name to the next, so that no rows are counted."""
        found: list[str] = []
        while rows := self._rows(
            "SELECT min(modality) FROM segments WHERE modality > ?", (found[-1] if found else "",)
        ):
            if rows[0][0] is None:
                break
            found.append(rows[0][0])
        return found

    def count_files(self) -> int:
        """How many files can be found."""
        return int(self._rows("SELECT count(*) FROM files WHERE content IS NOT NULL")[0][0])

    def added_since(self, revision: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """(modality, ids (n,) int64, vectors (n, D)) blocks of all segments that were added after a revision."""
        rows = self._rows("SELECT min(+id) FROM segments WHERE born > ?", (revision,))  # + : by the index on `born`
        last = -1 if rows[0][0] is None else rows[0][0] - 1
        while last >= 0 and (
            rows := self._rows(
                # Ids grow with revisions, so walking along the ids reads every row once.
                "SELECT s.id, v.vector, s.modality, v.checksum, s.checksum IS " + signature("segments", "s.") + " "
                "FROM segments s JOIN vectors v ON v.segment = s.id WHERE s.id > ? ORDER BY s.id LIMIT ?",
                (last, _VECTORS_PER_READ),
            )
        ):
            last = rows[-1][0]
            self._check("segment", ((row[0], row[4]) for row in rows))
            for modality in dict.fromkeys(row[2] for row in rows):
                yield modality, *self._arrays([row for row in rows if row[2] == modality])

    def removed_since(self, revision: int) -> np.ndarray:
        """(n,) int64 ids that were removed after a revision."""
        sql = f"SELECT segment, checksum IS {signature('removed')} FROM removed WHERE revision > ?"
        rows = self._rows(sql, (revision,))
        self._check("record of the removed segment", rows)
        return np.array([row[0] for row in rows], np.int64)

    def vectors(self, ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Segment ids -> the (n,) ids that exist, ascending, and their (n, D) vectors."""
        rows = self._rows(
            "SELECT segment, vector, NULL, checksum FROM vectors WHERE segment IN (SELECT value FROM json_each(?)) "
            "ORDER BY segment",
            (json.dumps([int(number) for number in ids]),),
        )
        return self._arrays(rows)

    def ids(self, modality: str) -> np.ndarray:
        """(n,) int64 ids, ascending, of a modality's segments."""
        rows = self._rows("SELECT id FROM segments WHERE modality = ? ORDER BY id", (modality,))
        return np.array([row[0] for row in rows], np.int64)

    def passing_of(self, ids: Sequence[int], where: Where) -> np.ndarray:
        """Of these segment ids, the (n,) that pass a filter, ascending."""
        rows = self._rows(
            f"SELECT DISTINCT s.id FROM {_JOIN} WHERE s.id IN (SELECT value FROM json_each(?)) AND {where.sql} "
            "ORDER BY s.id",
            (json.dumps([int(number) for number in ids]), *where.values),
        )
        return np.array([row[0] for row in rows], np.int64)

    def passing(self, where: Where) -> dict[str, np.ndarray]:
        """Modality -> (n,) int64 ids, ascending, of its segments that pass a filter."""
        found: dict[str, list[int]] = {}
        for number, modality in self._rows(f"SELECT s.id, s.modality FROM {_JOIN} WHERE {where.sql}", where.values):
            found.setdefault(modality, []).append(number)
        return {modality: np.unique(np.array(numbers, np.int64)) for modality, numbers in found.items()}

    def contents_of(self, ids: Sequence[int]) -> dict[int, int]:
        """Segment id -> content id, of those that exist and are in a file."""
        return dict(
            self._rows(
                "SELECT id, content FROM segments s WHERE id IN (SELECT value FROM json_each(?)) "
                "AND EXISTS (SELECT 1 FROM files f WHERE f.content = s.content)",
                (json.dumps([int(number) for number in ids]),),
            )
        )

    def segments_of(self, contents: Sequence[int]) -> list[tuple[int, str]]:
        """(segment id, modality) of all segments of some contents, those of the first one first."""
        return self._rows(
            "SELECT s.id, s.modality FROM json_each(?) wanted JOIN segments s ON s.content = wanted.value "
            "ORDER BY wanted.key, s.id",
            (json.dumps([int(content) for content in contents]),),
        )

    def own_segments(self, modality: str) -> dict[int, int]:
        """Segment id -> content id, ascending, of contents that are of this modality themselves (no sound tracks)."""
        return dict(
            self._rows(
                "SELECT s.id, s.content FROM segments s JOIN contents c ON c.id = s.content "
                "WHERE s.modality = ? AND c.modality = s.modality ORDER BY s.id",
                (modality,),
            )
        )

    def shared_contents(self) -> list[int]:
        """The contents that several files have."""
        rows = self._rows(
            "SELECT content FROM files WHERE content IS NOT NULL GROUP BY content HAVING count(*) > 1 ORDER BY content"
        )
        return [row[0] for row in rows]

    def paths_of(self, content: int) -> list[str]:
        """The files that have a content."""
        rows = self._rows("SELECT path FROM files WHERE content = ?", (content,))
        return [kept.path_of(row[0], self.folder) for row in rows]

    def recorded(self, path: str) -> tuple[bytes, int, bytes] | None:
        """The key, size in bytes and SHA-256 that a searchable file had; None for an unknown one."""
        rows = self._rows(
            "SELECT f.path, f.size_bytes, c.digest FROM files f JOIN contents c ON c.id = f.content WHERE f.path = ?",
            (kept.key_of(path, self.folder),),
        )
        return tuple(rows[0]) if rows else None

    def stamp(self, path: str) -> tuple[int, int] | None:
        """Size in bytes and time of the last change in ns that a searchable file had; None for an unknown one."""
        rows = self._rows(
            "SELECT size_bytes, mtime_ns FROM files WHERE path = ? AND content IS NOT NULL",
            (kept.key_of(path, self.folder),),
        )
        return tuple(rows[0]) if rows else None

    def entries(self, ids: Sequence[int], where: Where = EVERYTHING) -> dict[int, Entry]:
        """Segment id -> its entry, for ids that exist and have a file that passes the filter (the first by path)."""
        found: dict[int, Entry] = {}
        whole = " AND ".join(
            f"{alias}.checksum IS {signature(table, f'{alias}.')}"
            for table, alias in (("segments", "s"), ("contents", "c"), ("files", "f"))
        )
        rows = self._rows(
            f"SELECT s.id, c.id, f.path, s.modality, s.start_s, s.end_s, f.metadata, f.caption, {whole} FROM {_JOIN} "
            f"WHERE s.id IN (SELECT value FROM json_each(?)) AND {where.sql} ORDER BY f.path",
            (json.dumps([int(number) for number in ids]), *where.values),
        )
        self._check("segment, or the file it is of,", ((row[0], row[-1]) for row in rows))
        for segment, content, path, modality, start_s, end_s, metadata, caption, _ in rows:
            path = kept.path_of(path, self.folder)
            known = found.get(segment)
            if known is not None:
                found[segment] = Entry(**{**known.__dict__, "also": (*known.also, path)})
                continue
            values = json.loads(metadata) | ({"caption": caption} if caption else {})
            found[segment] = Entry(segment, content, path, (), modality, start_s, end_s, values)
        return found

    def as_uploads(self, entries: Iterable[Entry], wanted: Collection[int] = ()) -> dict[int, Entry]:
        """Segment id -> its entry as the file it shows names it: an upload under its own id, others as they are.

        Of the files of an entry the first is shown, unless one of them is among the `wanted` file ids.
        """
        found = {entry.segment: entry for entry in entries}
        for number, segment, file, key, metadata, caption in self._rows(
            "SELECT u.id, u.segment, f.id, f.path, f.metadata, f.caption FROM uploads u JOIN files f ON f.id = u.file "
            "WHERE u.segment IN (SELECT value FROM json_each(?)) ORDER BY f.path DESC",
            (json.dumps(list(found)),),
        ):
            entry, path = found[segment], kept.path_of(key, self.folder)
            if path == entry.path:
                found[segment] = replace(entry, item=number)
            elif file in wanted and path in entry.also:
                also = tuple(sorted({entry.path, *entry.also} - {path}))
                values = json.loads(metadata) | ({"caption": caption} if caption else {})
                found[segment] = replace(entry, item=number, path=path, also=also, metadata=values)
        return found

    def upload(self, item: int) -> tuple[int, int] | None:
        """The (segment id, file id) of an upload's item; None for an item that is none of an upload."""
        rows = self._rows("SELECT segment, file FROM uploads WHERE id = ?", (item,))
        return (rows[0][0], rows[0][1]) if rows else None

    def existing(self, items: Sequence[int]) -> set[int]:
        """Those of some item ids that are in use."""
        wanted = "IN (SELECT value FROM json_each(?))"
        given = json.dumps([int(number) for number in items])
        rows = self._rows(
            f"SELECT id FROM segments WHERE id {wanted} UNION SELECT id FROM uploads WHERE id {wanted}", (given, given)
        )
        return {row[0] for row in rows}

    def keyword_contents(self, text: str, modalities: Sequence[str], where: Where, limit: int) -> dict[int, int]:
        """Contents whose file name, caption or metadata share words with the text, best first (BM25) -> that file."""
        wanted = list(dict.fromkeys(word.lower() for word in words_of(text)))
        wanted = [word for word in wanted if word not in _STOP_WORDS][:_VARIABLES]
        if not wanted or not modalities:
            return {}
        restricted: str = ""
        values: list[Any] = []
        if where is not EVERYTHING or set(modalities) < set(self._modalities()):
            # Looked up for each match: there are fewer of them than files that pass most filters.
            marks = ", ".join("?" * len(modalities))
            restricted = (
                " AND EXISTS (SELECT 1 FROM files f CROSS JOIN contents c ON c.id = f.content "
                "CROSS JOIN segments s ON s.content = c.id "
                f"WHERE f.id = words.rowid AND s.modality IN ({marks}) AND {where.sql})"
            )
            values = [*modalities, *where.values]
        rows = self._rows(
            "SELECT f.content, f.id FROM "
            f"(SELECT rowid, rank FROM words WHERE words MATCH ?{restricted} ORDER BY rank LIMIT ?) w "
            "JOIN files f ON f.id = w.rowid ORDER BY w.rank, f.path",
            (" OR ".join(f'"{word}"' for word in wanted), *values, limit),
        )
        found: dict[int, int] = {}
        for content, file in rows:
            if content is not None:
                found.setdefault(content, file)
        return found

    def has_metadata(self, key_path: str) -> bool:
        """Whether any file has this metadata key (a JSON path)."""
        return bool(self._rows("SELECT 1 FROM files WHERE json_type(metadata, ?) IS NOT NULL LIMIT 1", (key_path,)))

    def _arrays(self, rows: Sequence[Sequence[Any]]) -> tuple[np.ndarray, np.ndarray]:
        """Rows of (segment id, vector, anything, checksum) -> (n,) ids and (n, D) vectors."""
        self._check("vector", ((row[0], row[3] == checksum(row[0], row[1])) for row in rows))
        ids = np.array([row[0] for row in rows], np.int64)
        vectors = np.frombuffer(b"".join(row[1] for row in rows), "<f4").astype(np.float32, copy=False)
        return ids, vectors.reshape(len(rows), int(self.facts["dim"]))

    def _check(self, what: str, rows: Iterable[tuple[Any, Any]]) -> None:
        """Raises DamagedError where one of (number, is whole) is not whole."""
        for number, is_whole in rows:
            if not is_whole:
                raise DamagedError(self.folder, f"{what} {number} does not match its checksum")

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._readers.connection() as connection:
            try:
                return connection.execute(sql, values).fetchall()
            except sqlite3.DatabaseError as error:
                if fairness.is_over():
                    raise fairness.StoppedError from None
                raise _explained(self.folder, error) from error


def statements_of(table: str = "") -> list[str]:
    """The statements that make a table and its indexes, or the whole schema."""
    statements = [statement for statement in _SCHEMA.split(";\n") if statement.strip()]
    return [s for s in statements if not table or re.search(rf"(TABLE|ON) {table}\b", s)]


def _create(folder: Path, facts: Mapping[str, Any]) -> None:
    """An empty catalogue, which appears with all that is in it or never. Raises LibraryError for a folder of others."""
    if (folder / COMMITTED).exists():
        raise DamagedError(folder, "the file is missing, though something was committed to it")
    other = next((name for name in os.listdir(folder) if not name.startswith(".") and name != LOCK), None)
    if other is not None:
        raise LibraryError(f"{folder} is no library and not empty (it has {other}); name a new folder for the library")
    with _locked(folder, wait=True):
        if os.path.lexists(folder / FILE):
            return  # somebody else was faster
        aside = folder / f".new-{FILE}"
        for suffix in ("", "-wal", "-shm", "-journal"):  # of a process that was killed here
            Path(f"{aside}{suffix}").unlink(missing_ok=True)
        aside.touch()
        with closing(connect(aside)) as connection:
            with transaction(connection):
                for statement in statements_of():
                    connection.execute(statement)
                every = {"format": FORMAT, "library": uuid.uuid4().hex, "revision": 0, **facts}
                connection.executemany("INSERT INTO facts (key, value) VALUES (?, ?)", list(every.items()))
                sign(connection, "facts")
            connection.execute("PRAGMA journal_mode = WAL")
        sync(aside)
        os.replace(aside, folder / FILE)
        sync(folder)
        note_commit(folder, every["library"], 0)


@contextmanager
def _locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """The right to write, which one process and thread at a time has. Raises WriterBusyError unless it may `wait`."""
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


def _explained(folder: Path, error: sqlite3.DatabaseError) -> LibraryError:
    """What SQLite's error means for a library."""
    code = getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR
    if code & 0xFF in _NO_DAMAGE:
        return LibraryError(f"{folder / FILE} could not be used: {error}")
    return DamagedError(folder, str(error))


def refuse_damage(folder: Path) -> None:
    """Raises DamagedError for what SQLite would take for a new database, or wait for."""
    file = folder / FILE
    if not file.is_file():
        raise DamagedError(folder, "it is no regular file")
    if file.stat().st_size == 0:
        raise DamagedError(folder, "the file is empty (0 bytes)")


def read_facts(connection: sqlite3.Connection, folder: Path) -> dict[str, Any]:
    """The facts of a catalogue, its checksums compared. Raises LibraryError where it is no (whole) catalogue."""
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "facts" not in tables:
        raise LibraryError(
            f"{folder / FILE} is an SQLite database, but no catalogue of Crossbind; restore a backup, or index into a "
            "new library"
        )
    facts = dict(connection.execute("SELECT key, value FROM facts"))
    needed = {"format": int, "space": str, "dim": int, "model": str, "revision": int}
    for key, kind in needed.items():
        if not isinstance(facts.get(key), kind):
            raise DamagedError(folder, f"its fact {key!r} is {facts.get(key)!r}, expected {kind.__name__}")
    if facts["format"] > FORMAT:
        raise LibraryError(f"{folder}: expected format {FORMAT}, got {facts['format']}; update crossbind")
    if facts["format"] >= 2:
        damaged = connection.execute(f"SELECT key FROM facts WHERE checksum IS NOT {signature('facts')}").fetchall()
        if damaged:
            raise DamagedError(folder, f"its fact {damaged[0][0]!r} does not match its checksum")
    old = {"uploads"} if facts["format"] < 2 else set()
    if missing := sorted({*CHECKSUMS} - tables - old):
        raise DamagedError(folder, f"it lacks the table {missing[0]}")
    return facts


def note_commit(folder: Path, library: str, revision: int) -> None:
    """Writes down outside of the database what was committed to it. A file's loss of its log shows nowhere else."""
    text = f"{library} {revision}"
    owned, aside = OwnedFolder(folder), f".new-{COMMITTED}"
    owned.delete(aside)
    with owned.create(aside) as file:
        file.write(f"{text} {zlib.crc32(text.encode()):08x}\n".encode())
    owned.replace(aside, owned, COMMITTED)


def committed(folder: Path) -> tuple[str, int] | None:
    """(the library's identity, the last revision that was committed), None without. Raises ValueError for damage."""
    try:
        with OwnedFolder(folder).open(COMMITTED) as file:
            content = file.read()
    except FileNotFoundError:
        return None
    except NotOwnedError as error:
        raise ValueError(str(error)) from None
    text, _, sum_ = content.decode("ascii", "replace").rstrip("\n").rpartition(" ")
    library, _, revision = text.rpartition(" ")
    if not content.endswith(b"\n") or sum_ != f"{zlib.crc32(text.encode()):08x}" or not revision.isdigit():
        raise ValueError("does not match its checksum")
    return library, int(revision)


def lost_commits(connection: sqlite3.Connection, folder: Path) -> str | None:
    """What tells that a catalogue is not the one that was last written, None where nothing does."""
    try:
        noted = committed(folder)  # read first: a commit is noted after it was made
    except ValueError:
        return None  # `serve.check` names it
    if noted is None:
        return None
    facts = dict(connection.execute("SELECT key, value FROM facts WHERE key IN ('library', 'revision')"))
    if noted[0] != facts.get("library"):
        return "it is the catalogue of another library"
    if noted[1] > facts["revision"]:
        return (
            f"it holds revision {facts['revision']}, but {noted[1]} was committed: {FILE}-wal is lost or damaged, or "
            "an older copy is in its place. Put the right files back if you have them: repairing accepts what is left"
        )
    return None


def _refuse_lost_commits(connection: sqlite3.Connection, folder: Path) -> None:
    if reason := lost_commits(connection, folder):
        raise DamagedError(folder, reason)


def _shorten_log(connection: sqlite3.Connection) -> None:
    """Moves what the write-ahead log holds into the database, and empties it where no reader needs it."""
    with suppress(sqlite3.Error):  # it stays in the log, as safe
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of what is written inside is committed, or none of it. Raises LibraryError when the disk is full."""
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


class Writer:
    """Changes to a catalogue, made inside of `with writer.transaction()`. Given out by `Catalogue.write`."""

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self.connection = connection
        self._folder = folder
        self._changed = False

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commits what is written inside as one, with a new revision where it changed what can be searched."""
        self._changed = False
        with transaction(self.connection):
            yield
            if self._changed:
                self._execute("UPDATE facts SET value = value + 1 WHERE key = 'revision'")
                sign(self.connection, "facts", "key = 'revision'")
        if self._changed:
            facts = dict(self._execute("SELECT key, value FROM facts WHERE key IN ('library', 'revision')").fetchall())
            note_commit(self._folder, facts["library"], facts["revision"])

    def file(self, path: str) -> FileRow | None:
        """What the catalogue knows of a path."""
        row = self._one(
            "SELECT f.id, f.content, f.size_bytes, f.mtime_ns, f.sidecar, c.modality, c.parts, f.reason, f.reader, "
            "f.caption, f.metadata FROM files f LEFT JOIN contents c ON c.id = f.content WHERE f.path = ?",
            (kept.key_of(path, self._folder),),
        )
        if row is None:
            return None
        parts = tuple((row[6] or "").split(","))
        return FileRow(row[0], row[1], (row[2], row[3], row[4]), row[5] or "", parts, *row[7:])

    def content(self, key: ContentKey) -> tuple[int, tuple[str, ...]] | None:
        """The id of a stored content, and the modalities it was looked at for."""
        row = self._one(
            "SELECT id, parts FROM contents WHERE digest = ? AND modality = ? AND hints = ?",
            (key.digest, key.modality, key.hints),
        )
        return None if row is None else (row[0], tuple(row[1].split(",")))

    def put_content(
        self, key: ContentKey, parts: Sequence[str], segments: Sequence[NewSegment], notes: Sequence[str]
    ) -> int:
        """Stores a content with all its segments (in place of the ones it had) -> its id."""
        ends = [segment.end_s for segment in segments if segment.end_s is not None]
        content = self._one(
            "INSERT INTO contents (digest, modality, hints, parts, duration_s, notes) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (digest, modality, hints) DO UPDATE SET parts = excluded.parts, notes = excluded.notes, "
            "duration_s = excluded.duration_s RETURNING id",
            (*key.__dict__.values(), ",".join(parts), max(ends, default=None), json.dumps(list(notes))),
        )[0]
        sign(self.connection, "contents", "id = ?", (content,))
        self._drop_segments("content = ?", (content,))
        for segment in segments:
            number = self._execute(
                "INSERT INTO segments (content, modality, start_s, end_s, born) VALUES (?, ?, ?, ?, "
                "(SELECT value + 1 FROM facts WHERE key = 'revision'))",
                (content, segment.modality, segment.start_s, segment.end_s),
            ).lastrowid
            blob = np.ascontiguousarray(segment.vector, "<f4").tobytes()
            self._execute("INSERT INTO vectors VALUES (?, ?, ?)", (number, blob, checksum(number, blob)))
        sign(self.connection, "segments", "content = ?", (content,))
        self._name_uploads(content)
        self._changed = True
        return int(content)

    def put_file(self, file: NewFile) -> int:
        """Stores a file under its path, in place of what was known of it -> its id."""
        name = os.path.basename(file.path)
        path = kept.key_of(file.path, self._folder)
        text = {"shown": shown(os.fsdecode(path)), "name": shown(name), "folder": shown(file.folder), "date": file.date}
        values = (
            path,
            file.content,
            *file.stamp,
            *(value.encode("utf-8", "replace").decode() for value in (*text.values(), file.caption)),
            file.metadata,
            file.reason,
            file.reader,
        )
        columns = "content, size_bytes, mtime_ns, sidecar, shown, name, folder, date, caption, metadata, reason, reader"
        updates = ", ".join(f"{column} = excluded.{column}" for column in columns.split(", "))
        number = self._one(
            f"INSERT INTO files (path, {columns}) VALUES ({', '.join('?' * len(values))}) "
            f"ON CONFLICT (path) DO UPDATE SET {updates} RETURNING id",
            values,
        )[0]
        sign(self.connection, "files", "id = ?", (number,))
        self._execute("DELETE FROM words WHERE rowid = ?", (number,))
        if file.content is not None:
            self._put_words(number, str(values[6]), str(values[9]), file.metadata)
        if not path.startswith(b"/"):
            self._name_uploads(file.content)
        self._changed = True
        return int(number)

    def _put_words(self, number: int, *texts: str) -> None:
        row = (number, *_search_texts(*texts))
        self._execute("INSERT INTO words (rowid, name, caption, metadata) VALUES (?, ?, ?, ?)", row)

    def wrong_words(self) -> list[str]:
        """The names of (a few) files that the search for words has otherwise than their rows say, or not at all."""
        rows = self._execute(
            "SELECT f.name, f.caption, f.metadata, w.rowid, w.name, w.caption, w.metadata FROM files f "
            "LEFT JOIN words w ON w.rowid = f.id "
            f"WHERE f.content IS NOT NULL AND f.checksum IS {signature('files', 'f.')}"
        )
        wrong = (
            name for name, *texts, number, a, b, c in rows if number is None or _search_texts(name, *texts) != (a, b, c)
        )
        found = list(islice(wrong, 5))
        extra = "SELECT rowid FROM words WHERE rowid NOT IN (SELECT id FROM files WHERE content IS NOT NULL) LIMIT 5"
        return [*found, *(f"file {row[0]}, which is not there" for row in self._execute(extra))]

    def rebuild_words(self) -> None:
        """Makes the search for words anew from the files' rows."""
        self._execute("DROP TABLE words")
        for statement in statements_of("words"):
            self._execute(statement)
        whole = f"content IS NOT NULL AND checksum IS {signature('files')}"
        for row in self._execute(f"SELECT id, name, caption, metadata FROM files WHERE {whole}").fetchall():
            self._put_words(*row)

    def drop_contents(self, numbers: Sequence[int], reason: str) -> None:
        """Removes contents with their segments; their files stay, as ones that cannot be used for this reason."""
        chosen = f"({', '.join(str(int(number)) for number in numbers)})"
        self._drop_segments(f"content IN {chosen}", ())
        self._execute(f"DELETE FROM words WHERE rowid IN (SELECT id FROM files WHERE content IN {chosen})")
        files = [row[0] for row in self._execute(f"SELECT id FROM files WHERE content IN {chosen}").fetchall()]
        for number in files:
            self._execute("UPDATE files SET content = NULL, reason = ?, reader = '' WHERE id = ?", (reason, number))
            sign(self.connection, "files", "id = ?", (number,))
        self._changed |= bool(self._execute(f"DELETE FROM contents WHERE id IN {chosen}").rowcount)

    def set_folder(self, path: str, folder: str) -> None:
        """Says of a file which folder it is in, as the run that indexed that folder did."""
        self._execute("UPDATE files SET folder = ? WHERE path = ?", (folder, encode_path(path)))
        sign(self.connection, "files", "path = ?", (encode_path(path),))

    def files_below(self, folder: str) -> Iterator[tuple[int, str, int | None]]:
        """(id, path, content) of every known file in a folder or below it, and of the path itself."""
        key = kept.key_of(folder, self._folder)
        below = key.rstrip(b"/") + b"/"
        query = "SELECT id, path, content FROM files WHERE path = ? OR (path >= ? AND path < ?)"
        for number, path, content in self._execute(query, (key, below, below[:-1] + b"0")):
            yield number, kept.path_of(path, self._folder), content

    def remove_files(self, numbers: Iterable[int]) -> None:
        """Forgets files. Their contents go with `drop_orphans`."""
        for number in numbers:
            self._execute("DELETE FROM uploads WHERE file = ?", (number,))
            self._execute("DELETE FROM words WHERE rowid = ?", (number,))
            self._execute("DELETE FROM files WHERE id = ?", (number,))
            self._changed = True

    def drop_orphans(self, among: int | None = None) -> None:
        """Removes contents that no file has any more, with their segments and vectors: all of them, or this one."""
        orphans = "SELECT c.id FROM contents c WHERE NOT EXISTS (SELECT 1 FROM files f WHERE f.content = c.id)"
        values = () if among is None else (among,)
        orphans += "" if among is None else " AND c.id = ?"
        self._drop_segments(f"content IN ({orphans})", values)
        if self._execute(f"DELETE FROM contents WHERE id IN ({orphans})", values).rowcount:
            self._changed = True

    def _name_uploads(self, content: int | None) -> None:
        """Gives the uploads of a content an id for each of its segments, from the same sequence as theirs."""
        nameless = self._execute(
            "SELECT s.id, f.id FROM files f JOIN segments s ON s.content = f.content "
            "LEFT JOIN uploads u ON u.segment = s.id AND u.file = f.id "
            "WHERE f.content = ? AND substr(f.path, 1, 1) <> X'2F' AND u.id IS NULL ORDER BY f.id, s.id",
            (content,),
        ).fetchall()
        for segment, file in nameless:
            number = self._one("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'segments' RETURNING seq")[0]
            row = (number, segment, file)
            self._execute("INSERT INTO uploads VALUES (?, ?, ?, ?)", (*row, checksum(*row)))

    def name_all_uploads(self) -> None:
        """Gives every upload that has none its items."""
        kept_ones = "SELECT DISTINCT content FROM files WHERE content IS NOT NULL AND substr(path, 1, 1) <> X'2F'"
        for (content,) in self._execute(kept_ones).fetchall():
            self._name_uploads(content)

    def duplicates(self, folder: str) -> Iterator[tuple[str, ...]]:
        """The paths, sorted, of each content that several files have, one of them at least below the folder."""
        below = encode_path(folder).rstrip(b"/") + b"/"
        query = (
            "SELECT content, path FROM files WHERE content IN (SELECT content FROM files WHERE content IS NOT NULL "
            "GROUP BY content HAVING count(*) > 1 AND max(path >= ? AND path < ?)) ORDER BY content, path"
        )
        group: list[str] = []
        current = None
        for content, path in self._execute(query, (below, below[:-1] + b"0")):
            if content != current and group:
                yield tuple(group)
                group = []
            current = content
            group.append(kept.path_of(path, self._folder))
        if group:
            yield tuple(group)

    def forget_removed(self, revision: int) -> None:
        """Drops the record of removals that the stored index, made at this revision, has followed."""
        self._execute("DELETE FROM removed WHERE revision <= ?", (revision,))

    def _drop_segments(self, condition: str, values: Sequence[Any]) -> None:
        chosen = f"SELECT id FROM segments WHERE {condition}"
        revision = "(SELECT value + 1 FROM facts WHERE key = 'revision')"
        logged = self._execute(
            f"INSERT INTO removed SELECT id, {revision}, checksum(id, {revision}) FROM segments WHERE {condition}",
            values,
        )
        if logged.rowcount:
            self._execute(f"DELETE FROM uploads WHERE segment IN ({chosen})", values)
            self._execute(f"DELETE FROM vectors WHERE segment IN ({chosen})", values)
            self._execute(f"DELETE FROM segments WHERE {condition}", values)
            self._changed = True

    def _execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self.connection.execute(sql, values)

    def _one(self, sql: str, values: Sequence[Any] = ()) -> Any:
        rows = self._execute(sql, values).fetchall()  # a RETURNING clause is only done when all its rows are read
        return rows[0] if rows else None


def _search_texts(name: str, caption: str, metadata: str) -> tuple[str, str, str]:
    """A file's columns -> what the search for words has of them."""
    texts = (name, caption, _flat(json.loads(metadata)))
    return tuple(" ".join(words_of(text)) for text in texts)  # type: ignore[return-value]


def _flat(values: Any) -> str:
    """All words of a JSON value: keys and values alike."""
    found: list[str] = []
    waiting = [values]
    while waiting:  # a deep one must not meet the recursion limit
        value = waiting.pop()
        if isinstance(value, dict):
            found.extend(value)
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif value is not None:
            found.append(str(value))
    return " ".join(found).encode("utf-8", "replace").decode()
