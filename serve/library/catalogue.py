"""The catalogue of a library: one SQLite file that is the truth about files, their contents, and the vectors.

    files --content--> contents --< segments --- vectors

A *file* is a path. A *content* is what one or several equal files hold: their hash, read as one modality with the same
hints. A *segment* is a timed stretch of a content (or all of it) in one modality, with one vector. Segment ids are the
ids of the index and are never used twice. They name the items of folders' files. A file that the library keeps itself
(an *upload*) has ids of its own for the same segments, so that it can be removed without removing a folder's file that
has the same content.

Vectors are rows of this database and not a file beside it, so that one commit covers a file, its segments and its
vectors. The write-ahead log is synced at every commit, so a power cut at any byte leaves the last commit complete.
Vectors have a table of their own, which only queries for vectors read. Searching reads the index's copy, which is
memory-mapped, so that opening a library copies no vectors.

SQLite notices damage to the structure of its pages, but not to the values in them. So every row has a `checksum`, which
is compared wherever a result is made of the row (`library.check` compares all rows). A file cannot show that it is an
older copy or has lost its write-ahead log. The file `committed` shows that: it holds the last revision that was
committed.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.readers.lines import Line
from serve.engine import fairness
from serve.library import keywords, migrations, texts, uploads
from serve.library.connections import Readers, connect, explained, locked, shorten_log
from serve.library.creation import create
from serve.library.errors import DamagedError, LibraryError, MigratedError
from serve.library.integrity import read_facts, refuse_damage, refuse_lost_commits
from serve.library.keywords import Match
from serve.library.records import Entry
from serve.library.schema import FILE, FORMAT, checksum, is_whole, signature
from serve.library.text import WORDS_REVISION, encode_path
from serve.library.where import EVERYTHING, Where
from serve.library.writer import Writer

_VECTORS_PER_READ = 4096
"""Vectors of one read: 6 MB of 384 float32, and a transaction of milliseconds."""
_JOIN = "segments s JOIN contents c ON c.id = s.content JOIN files f ON f.content = c.id"
"""From segments to the files that show them, for filters."""


class Catalogue:
    """Reads a library's catalogue, from any thread, and makes it when missing; `write` is the only way to change it.

    Raises LibraryError for a catalogue of a newer format, and for a folder that holds something else. Raises
    DamagedError for a catalogue that is empty, damaged, or behind what was committed to it.
    """

    def __init__(
        self, folder: Path, space: str, dim: int, model: str, revisions: Mapping[str, int] | None = None
    ) -> None:
        self.folder = folder
        self.earlier_vectors: Callable[[Sequence[int]], tuple[np.ndarray, np.ndarray]] | None = None
        """Vectors by id, as `vectors` returns them, for the time after another process has changed the model."""
        self._readers = Readers(folder / FILE)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(folder / FILE):
                facts = {"space": space, "dim": dim, "model": model, "revisions": json.dumps(dict(revisions or {}))}
                create(folder, facts)
            refuse_damage(folder)
            self._connection = connect(folder / FILE)
            try:
                self.facts: Mapping[str, Any] = read_facts(self._connection, folder)
                if self.facts["format"] < FORMAT:
                    with self.write() as writer:
                        migrations.migrate(writer.connection, folder)
                    self.facts = read_facts(self._connection, folder)
                refuse_lost_commits(self._connection, folder)
                if self.facts.get("words_revision") != WORDS_REVISION:
                    self._renew_words()
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.DatabaseError as error:
            raise explained(folder, error) from None
        except OSError as error:
            raise LibraryError(f"{folder}: the library could not be opened: {error.strerror}") from None

    @staticmethod
    def peek(folder: Path) -> Mapping[str, Any]:
        """The facts (`space`, `dim`, `model`) of the library in a folder; empty where there is none.

        Raises LibraryError as opening it does.
        """
        if not os.path.lexists(folder / FILE):
            return {}
        refuse_damage(folder)
        try:
            with closing(connect(folder / FILE)) as connection:
                return read_facts(connection, folder)
        except sqlite3.DatabaseError as error:
            raise explained(folder, error) from None

    def _renew_words(self) -> None:
        """Makes the search for words anew that an older program made; a later opening does it where it cannot be."""
        with suppress(LibraryError), self.write() as writer, writer.transaction():
            writer.rebuild_words()

    def close(self) -> None:
        """Closes the connections."""
        self._readers.close()
        self._connection.close()

    @contextmanager
    def write(self) -> Iterator[Writer]:
        """A block with the right to change the catalogue, which one process and thread has at a time.

        Raises WriterBusyError when another has it (the kernel takes it back from a process that dies); MigratedError.
        """
        with locked(self.folder):
            if self.is_migrated():
                raise MigratedError(self.folder, str(self.fact("model")))
            connection = connect(self.folder / FILE)
            try:
                yield Writer(connection, self.folder)
            except sqlite3.DatabaseError as error:
                raise explained(self.folder, error) from error
            finally:
                shorten_log(connection)
                connection.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """A block in which all reads of this thread see one state, whatever is committed in the meantime."""
        if self._readers.has_snapshot:
            yield
            return
        with self._readers.snapshot():
            yield

    def is_migrated(self) -> bool:
        """Whether the library got a model of another space after it was opened here."""
        return bool(self.fact("space") != self.facts["space"])

    @property
    def revision(self) -> int:
        """The number of the last commit that changed what can be searched."""
        return int(self._rows("SELECT value FROM facts WHERE key = 'revision'")[0][0])

    def count(self) -> dict[str, int]:
        """Modality -> the number of its segments."""
        return dict(self._rows("SELECT modality, count(*) FROM segments GROUP BY modality ORDER BY modality"))

    def _modalities(self) -> list[str]:
        """The modalities that have segments. The index leads from one name to the next, so that no rows are counted."""
        found: list[str] = []
        while rows := self._rows(
            "SELECT min(modality) FROM segments WHERE modality > ?", (found[-1] if found else "",)
        ):
            if rows[0][0] is None:
                break
            found.append(rows[0][0])
        return found

    def count_files(self) -> int:
        """The number of files that can be found."""
        return int(self._rows("SELECT count(*) FROM files WHERE content IS NOT NULL")[0][0])

    def added_since(self, revision: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """(modality, ids (n,) int64, vectors (n, D)) blocks of all segments that were added after a revision."""
        # "+" makes SQLite use the index on `born`
        rows = self._rows("SELECT min(+id) FROM segments WHERE born > ?", (revision,))
        last = -1 if rows[0][0] is None else rows[0][0] - 1
        while last >= 0 and (
            rows := self._rows(
                # Ids grow with revisions, so walking along the ids reads every row once.
                "SELECT s.id, v.vector, s.modality, v.checksum, " + is_whole("segments", "s.") + " "
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
            "SELECT segment, vector, (SELECT value FROM facts WHERE key = 'space'), checksum FROM vectors "
            "WHERE segment IN (SELECT value FROM json_each(?)) ORDER BY segment",
            (json.dumps([int(number) for number in ids]),),
        )
        if rows and rows[0][2] != self.facts["space"]:
            if self.earlier_vectors is None:
                raise MigratedError(self.folder, str(self.fact("model")))
            return self.earlier_vectors(ids)
        return self._arrays(rows)

    def ids(self, modality: str) -> np.ndarray:
        """(n,) int64 ids, ascending, of a modality's segments."""
        rows = self._rows("SELECT id FROM segments WHERE modality = ? ORDER BY id", (modality,))
        return np.array([row[0] for row in rows], np.int64)

    def ids_after(self, after: int, limit: int, where: Where) -> list[int]:
        """The first `limit` segment ids above `after` that pass a filter, ascending."""
        sql = f"SELECT DISTINCT s.id FROM {_JOIN} WHERE s.id > ? AND {where.sql} ORDER BY s.id LIMIT ?"
        return [row[0] for row in self._rows(sql, (after, *where.values, limit))]

    def passing_of(self, ids: Sequence[int], where: Where) -> np.ndarray:
        """The ids among these segment ids that pass a filter, (n,), ascending."""
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

    def passing_files(self, where: Where) -> np.ndarray:
        """(n,) int64 ids, ascending, of the files that pass a filter, or of which a segment passes it."""
        join = _JOIN if where.is_of_segments else "files f JOIN contents c ON c.id = f.content"
        rows = self._rows(f"SELECT DISTINCT f.id FROM {join} WHERE {where.sql}", where.values)
        return np.sort(np.array([row[0] for row in rows], np.int64))

    def first_segments(self, where: Where) -> tuple[np.ndarray, dict[int, str]]:
        """(n,) ids, ascending, of the first segment of each content that passes a filter; and their modalities."""
        contents = "SELECT DISTINCT c.id FROM " + (
            _JOIN if where.is_of_segments else "files f JOIN contents c ON c.id = f.content"
        )
        rows = self._rows(
            f"SELECT min(s.id), s.modality FROM segments s JOIN contents o ON o.id = s.content "
            f"WHERE s.modality = o.modality AND s.content IN ({contents} WHERE {where.sql}) GROUP BY s.content",
            where.values,
        )
        return np.array(sorted(row[0] for row in rows), np.int64), dict(rows)

    def names_and_captions(self, limit: int) -> list[str]:
        """The captions of searchable files, or the names of those without one, of at most `limit` files."""
        rows = self._rows(
            "SELECT CAST(CASE WHEN caption <> '' THEN caption ELSE name END AS BLOB) FROM files "
            "WHERE content IS NOT NULL ORDER BY id LIMIT ?",
            (limit,),
        )
        return [row[0].decode("utf-8", "replace")[:500] for row in rows]

    def digests(self, segments: Sequence[int]) -> list[bytes]:
        """The SHA-256 of the files of segments, without repetition, in this order."""
        rows = self._rows(
            "SELECT c.digest FROM json_each(?) w JOIN segments s ON s.id = w.value JOIN contents c ON c.id = s.content "
            "ORDER BY w.key",
            (json.dumps([int(number) for number in segments]),),
        )
        return list(dict.fromkeys(row[0] for row in rows))

    def contents_of(self, ids: Sequence[int]) -> dict[int, int]:
        """Segment id -> content id, for segments that exist and belong to a file."""
        return dict(
            self._rows(
                "SELECT id, content FROM segments s WHERE id IN (SELECT value FROM json_each(?)) "
                "AND EXISTS (SELECT 1 FROM files f WHERE f.content = s.content)",
                (json.dumps([int(number) for number in ids]),),
            )
        )

    def segments_of(self, contents: Sequence[int]) -> list[tuple[int, str]]:
        """(segment id, modality) of all segments of some contents, in the order of the contents."""
        return self._rows(
            "SELECT s.id, s.modality FROM json_each(?) wanted JOIN segments s ON s.content = wanted.value "
            "ORDER BY wanted.key, s.id",
            (json.dumps([int(content) for content in contents]),),
        )

    def own_segments(self, modality: str) -> dict[int, int]:
        """Segment id -> content id, ascending, of contents that are of this modality themselves (not sound tracks)."""
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

    def fact(self, key: str) -> Any:
        """A fact as it is stored now, None where there is none of this name."""
        rows = self._rows("SELECT value FROM facts WHERE key = ?", (key,))
        return rows[0][0] if rows else None

    def skipped(self) -> list[tuple[str, str]]:
        """(path, reason) of every file that could not be used, by path."""
        rows = self._rows("SELECT path, reason FROM files WHERE content IS NULL ORDER BY path")
        return [(uploads.path_of(path, self.folder), reason or "") for path, reason in rows]

    def count_below(self, folder: str) -> tuple[int, int]:
        """How many files that can be found, and how many that could not be used, lie in a folder or are it."""
        below = encode_path(folder).rstrip(b"/") + b"/"
        rows = self._rows(
            "SELECT count(content), count(*) FROM files WHERE path = ? OR (path >= ? AND path < ?)",
            (encode_path(folder), below, below[:-1] + b"0"),
        )
        return rows[0][0], rows[0][1] - rows[0][0]

    def paths_of(self, content: int) -> list[str]:
        """The paths of the files that have a content."""
        rows = self._rows("SELECT path FROM files WHERE content = ?", (content,))
        return [uploads.path_of(row[0], self.folder) for row in rows]

    def recorded(self, path: str) -> tuple[bytes, int, bytes] | None:
        """The key, size in bytes and SHA-256 of a searchable file when it was indexed; None for an unknown file."""
        rows = self._rows(
            "SELECT f.path, f.size_bytes, c.digest FROM files f JOIN contents c ON c.id = f.content WHERE f.path = ?",
            (uploads.key_of(path, self.folder),),
        )
        return tuple(rows[0]) if rows else None

    def entries(self, ids: Sequence[int], where: Where = EVERYTHING, wanted: Collection[int] = ()) -> dict[int, Entry]:
        """Segment id -> its entry, for ids that exist and have a file that passes the filter.

        The file is one of the `wanted` file ids where it can be, else the first by path.
        """
        found: dict[int, Entry] = {}
        whole = " AND ".join(
            is_whole(table, f"{alias}.") for table, alias in (("segments", "s"), ("contents", "c"), ("files", "f"))
        )
        rows = self._rows(
            "SELECT s.id, c.id, f.path, s.modality, s.start_s, s.end_s, f.metadata, f.caption, c.metadata, s.at, "
            f"c.notes, f.date, f.date_source, {whole} FROM {_JOIN} "
            f"WHERE s.id IN (SELECT value FROM json_each(?)) AND {where.sql} "
            "ORDER BY f.id NOT IN (SELECT value FROM json_each(?)), f.path",
            (json.dumps([int(number) for number in ids]), *where.values, json.dumps(list(wanted))),
        )
        self._check("segment, or the file it is of,", ((row[0], row[-1]) for row in rows))
        for segment, content, path, modality, start_s, end_s, metadata, caption, media_facts, at, *rest in rows:
            path = uploads.path_of(path, self.folder)
            known = found.get(segment)
            if known is not None:
                found[segment] = Entry(**{**known.__dict__, "also": (*known.also, path)})
                continue
            values = json.loads(media_facts) | json.loads(metadata) | ({"caption": caption} if caption else {})
            notes, date, date_source = tuple(json.loads(rest[0])), rest[1], rest[2]
            place = (segment, content, path, (), modality, start_s, end_s)
            found[segment] = Entry(*place, values, at, notes, date, date_source)
        return found

    def as_uploads(self, entries: Iterable[Entry], wanted: Collection[int] = ()) -> dict[int, Entry]:
        """Segment id -> its entry under the id of the file that it shows: an upload's own id, other entries unchanged.

        The first of an entry's files is shown, unless one of the files is among the `wanted` file ids.
        """
        found = {entry.segment: entry for entry in entries}
        for number, segment, file, key, metadata, caption, media_facts in self._rows(
            "SELECT u.id, u.segment, f.id, f.path, f.metadata, f.caption, c.metadata FROM uploads u "
            "JOIN files f ON f.id = u.file JOIN contents c ON c.id = f.content "
            "WHERE u.segment IN (SELECT value FROM json_each(?)) ORDER BY f.path DESC",
            (json.dumps(list(found)),),
        ):
            entry, path = found[segment], uploads.path_of(key, self.folder)
            if path == entry.path:
                found[segment] = replace(entry, item=number)
            elif file in wanted and path in entry.also:
                also = tuple(sorted({entry.path, *entry.also} - {path}))
                values = json.loads(media_facts) | json.loads(metadata) | ({"caption": caption} if caption else {})
                found[segment] = replace(entry, item=number, path=path, also=also, metadata=values)
        return found

    def upload(self, item: int) -> tuple[int, int] | None:
        """The (segment id, file id) of an upload's item; None for an item that is no upload's."""
        rows = self._rows("SELECT segment, file FROM uploads WHERE id = ?", (item,))
        return (rows[0][0], rows[0][1]) if rows else None

    def existing(self, items: Sequence[int]) -> set[int]:
        """The item ids among these that are in use."""
        wanted = "IN (SELECT value FROM json_each(?))"
        given = json.dumps([int(number) for number in items])
        rows = self._rows(
            f"SELECT id FROM segments WHERE id {wanted} UNION SELECT id FROM uploads WHERE id {wanted}", (given, given)
        )
        return {row[0] for row in rows}

    def matches(self, text: str, modalities: Sequence[str], where: Where, limit: int) -> dict[int, Match]:
        """Contents that share words with a text, those whose whole file name it is and at most `limit` others -> what
        they share.
        """
        every = set(modalities) >= set(self._modalities())
        found = keywords.matches(self._rows, text, modalities, every, where, limit)
        named = keywords.named(self._rows, text, modalities, every, where)
        return found | {
            content: Match(file, 1.0, True, True, place) for place, (content, file) in enumerate(named.items())
        }

    def matching_lines(self, text: str, contents: Collection[int]) -> dict[int, tuple[Line, ...]]:
        """Content -> its lines, read in a picture or heard in speech, that share the most words with a text."""
        return texts.matching(self._rows, self.folder, text, contents)

    def lines_of(self, content: int) -> tuple[Line, ...]:
        """All lines that were read in a content."""
        return texts.lines_of(self._rows, self.folder, content)

    def has_metadata(self, key_path: str) -> bool:
        """Whether any file has this metadata key (a JSON path)."""
        of = "SELECT 1 FROM {} WHERE json_type(metadata, ?) IS NOT NULL LIMIT 1"
        return any(self._rows(of.format(table), (key_path,)) for table in ("files", "contents"))

    def has_hidden(self) -> bool:
        """Whether anything is marked as hidden."""
        return bool(self._rows("SELECT 1 FROM marks WHERE hidden LIMIT 1"))

    def hidden_contents(self) -> set[int]:
        """The contents that are marked as hidden."""
        return {
            row[0] for row in self._rows("SELECT c.id FROM marks m JOIN contents c ON c.digest = m.digest WHERE hidden")
        }

    def filters_of_albums(self) -> dict[str, str | None]:
        """The names of the albums that are no lists: of a filter the filter, of a saved query None."""
        rows = self._rows(
            f"SELECT id, name, CASE WHEN query IS NULL THEN filter END, {is_whole('albums')} FROM albums "
            "WHERE kind = 'album' AND (filter IS NOT NULL OR query IS NOT NULL)"
        )
        self._check("album", ((row[0], row[3]) for row in rows))
        return {row[1]: row[2] for row in rows}

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows of a query, for the rooms that ask questions of their own (`listing`, `facets`, `albums`)."""
        return self._rows(sql, values)

    def check_rows(self, what: str, rows: Iterable[tuple[Any, Any]]) -> None:
        """Raises DamagedError where a row of (number, whether it is whole) is not whole."""
        self._check(what, rows)

    def _arrays(self, rows: Sequence[Sequence[Any]]) -> tuple[np.ndarray, np.ndarray]:
        """Rows of (segment id, vector, anything, checksum) -> (n,) ids and (n, D) vectors."""
        self._check("vector", ((row[0], row[3] == checksum(row[0], row[1])) for row in rows))
        ids = np.array([row[0] for row in rows], np.int64)
        vectors = np.frombuffer(b"".join(row[1] for row in rows), "<f4").astype(np.float32, copy=False)
        return ids, vectors.reshape(len(rows), int(self.facts["dim"]))

    def _check(self, what: str, rows: Iterable[tuple[Any, Any]]) -> None:
        """Raises DamagedError where a row of (number, whether it is whole) is not whole."""
        for number, whole in rows:
            if not whole:
                wrong = "does not match its checksum, or has a value of another type"
                raise DamagedError(self.folder, f"{what} {number} {wrong}")

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._readers.connection() as connection:
            try:
                return connection.execute(sql, values).fetchall()
            except sqlite3.DatabaseError as error:
                if fairness.is_over():
                    raise fairness.StoppedError from None
                raise explained(self.folder, error) from error
