"""The writer of a catalogue."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.readers.lines import Line
from serve.library import marks, texts, uploads
from serve.library.connections import transaction
from serve.library.integrity import note_commit
from serve.library.records import ContentKey, FileRow, NewFile, NewSegment
from serve.library.schema import checksum, is_whole, sign, statements_of
from serve.library.text import WORDS_REVISION, encode_path, search_texts, shown

_NEXT = "(SELECT value + 1 FROM facts WHERE key = 'revision')"
"""The revision that a change is part of."""
_WHOLE = f"{is_whole('files', 'f.')} AND {is_whole('contents', 'c.')}"
"""The rows of files and contents that have the checksums that they should have."""


class Writer:
    """Changes a catalogue, inside of `with writer.transaction()`. `Catalogue.write` returns it."""

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self.connection = connection
        self._folder = folder
        self._changed = False

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A block whose writes are committed together, with a new revision where they change what can be searched."""
        self._changed = False
        with transaction(self.connection):
            yield
            if self._changed:
                self._execute("UPDATE facts SET value = value + 1 WHERE key = 'revision'")
                sign(self.connection, "facts", "key = 'revision'")
        if self._changed:
            facts = dict(self._execute("SELECT key, value FROM facts WHERE key IN ('library', 'revision')").fetchall())
            note_commit(self._folder, facts["library"], facts["revision"])

    def touch(self) -> None:
        """Gives the transaction a new revision, because it changes what can be listed."""
        self._changed = True

    def file(self, path: str) -> FileRow | None:
        """The row of a path, or None for an unknown path."""
        row = self._one(
            "SELECT f.id, f.content, f.size_bytes, f.mtime_ns, f.sidecar, c.modality, c.parts, f.reason, f.reader, "
            "f.caption, f.metadata FROM files f LEFT JOIN contents c ON c.id = f.content WHERE f.path = ?",
            (uploads.key_of(path, self._folder),),
        )
        if row is None:
            return None
        parts = tuple((row[6] or "").split(","))
        return FileRow(row[0], row[1], (row[2], row[3], row[4]), row[5] or "", parts, *row[7:])

    def content(self, key: ContentKey) -> tuple[int, tuple[str, ...]] | None:
        """The id of a stored content, and the modalities that it was read as."""
        row = self._one(
            "SELECT id, parts FROM contents WHERE digest = ? AND modality = ? AND hints = ?",
            (key.digest, key.modality, key.hints),
        )
        return None if row is None else (row[0], tuple(row[1].split(",")))

    def put_content(
        self,
        key: ContentKey,
        parts: Sequence[str],
        segments: Sequence[NewSegment],
        notes: Sequence[str],
        media_facts: str = "{}",
    ) -> int:
        """Stores a content with all its segments, in place of earlier ones, and what it says of itself -> its id."""
        ends = [segment.end_s for segment in segments if segment.end_s is not None]
        content = self._one(
            "INSERT INTO contents (digest, modality, hints, parts, duration_s, notes, metadata) "
            "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (digest, modality, hints) DO UPDATE SET parts = excluded.parts, "
            "notes = excluded.notes, duration_s = excluded.duration_s, metadata = excluded.metadata RETURNING id",
            (*key.__dict__.values(), ",".join(parts), max(ends, default=None), json.dumps(list(notes)), media_facts),
        )[0]
        sign(self.connection, "contents", "id = ?", (content,))
        self._drop_segments("content = ?", (content,))
        for segment in segments:
            number = self._execute(
                "INSERT INTO segments (content, modality, start_s, end_s, at, born) VALUES (?, ?, ?, ?, ?, "
                "(SELECT value + 1 FROM facts WHERE key = 'revision'))",
                (content, segment.modality, segment.start_s, segment.end_s, segment.at),
            ).lastrowid
            blob = np.ascontiguousarray(segment.vector, "<f4").tobytes()
            self._execute("INSERT INTO vectors VALUES (?, ?, ?)", (number, blob, checksum(number, blob)))
        sign(self.connection, "segments", "content = ?", (content,))
        self._name_uploads(content)
        self._changed = True
        return int(content)

    def put_lines(self, content: int, kind: str, recogniser: str, lines: Sequence[Line], note: str) -> None:
        """Stores the words that were read in a content, in place of earlier ones of this kind; see `texts`."""
        texts.put(self.connection, content, kind, recogniser, lines, note)
        self._changed = True

    def media_facts(self, content: int) -> str:
        """What a stored content says of itself, as JSON."""
        return str(self._one("SELECT metadata FROM contents WHERE id = ?", (content,))[0])

    def put_file(self, file: NewFile) -> int:
        """Stores a file under its path, in place of its earlier row -> its id."""
        name = os.path.basename(file.path)
        path = uploads.key_of(file.path, self._folder)
        text = {"shown": shown(os.fsdecode(path)), "name": shown(name), "folder": shown(file.folder), "date": file.date}
        values = (
            path,
            file.content,
            *file.stamp,
            *(value.encode("utf-8", "replace").decode() for value in (*text.values(), file.caption)),
            file.metadata,
            file.reason,
            file.reader,
            file.date_source,
        )
        columns = (
            "content, size_bytes, mtime_ns, sidecar, shown, name, folder, date, caption, metadata, reason, reader, "
            "date_source"
        )
        updates = ", ".join(f"{column} = excluded.{column}" for column in columns.split(", "))
        earlier = self._one("SELECT content FROM files WHERE path = ?", (path,))
        number = self._one(
            f"INSERT INTO files (path, {columns}, changed) VALUES ({', '.join('?' * len(values))}, {_NEXT}) "
            f"ON CONFLICT (path) DO UPDATE SET {updates}, changed = excluded.changed RETURNING id",
            values,
        )[0]
        sign(self.connection, "files", "id = ?", (number,))
        self._execute("DELETE FROM words WHERE rowid = ?", (number,))
        if file.content is not None:
            self._put_words(number, str(values[6]), str(values[9]), file.metadata, self.media_facts(file.content))
        if not path.startswith(b"/"):
            self._name_uploads(file.content)
        if earlier is not None and earlier[0] is not None and file.content is not None:
            marks.carry_over(self.connection, earlier[0], file.content)
        self._changed = True
        return int(number)

    def _put_words(self, number: int, *texts: str) -> None:
        row = (number, *search_texts(*texts))
        self._execute("INSERT INTO words (rowid, name, caption, metadata) VALUES (?, ?, ?, ?)", row)

    def wrong_words(self) -> list[str]:
        """The names of (a few) files whose words in the search for keywords differ from their rows, or are missing."""
        rows = self._execute(
            "SELECT f.name, f.caption, f.metadata, c.metadata, w.rowid, w.name, w.caption, w.metadata FROM files f "
            f"JOIN contents c ON c.id = f.content LEFT JOIN words w ON w.rowid = f.id WHERE {_WHOLE}"
        )
        wrong = (
            name for name, *texts, number, a, b, c in rows if number is None or search_texts(name, *texts) != (a, b, c)
        )
        found = list(islice(wrong, 5))
        extra = "SELECT rowid FROM words WHERE rowid NOT IN (SELECT id FROM files WHERE content IS NOT NULL) LIMIT 5"
        found += [f"file {row[0]}, which is not there" for row in self._execute(extra)]
        return [*found, *texts.wrong(self.connection)]

    def rebuild_words(self) -> None:
        """Makes the search for keywords anew from the files' rows."""
        self._execute("DROP TABLE words")
        for statement in statements_of("words"):
            self._execute(statement)
        query = (
            "SELECT f.id, f.name, f.caption, f.metadata, c.metadata FROM files f JOIN contents c ON c.id = f.content"
        )
        for row in self._execute(f"{query} WHERE {_WHOLE}").fetchall():
            self._put_words(*row)
        texts.rebuild(self.connection)
        self.set_fact("words_revision", WORDS_REVISION)

    def drop_contents(self, numbers: Sequence[int], reason: str) -> None:
        """Removes contents with their segments; their files stay, as files that cannot be used for this reason."""
        chosen = f"({', '.join(str(int(number)) for number in numbers)})"
        self._drop_segments(f"content IN {chosen}", ())
        texts.drop(self.connection, f"content IN {chosen}")
        self._execute(f"DELETE FROM words WHERE rowid IN (SELECT id FROM files WHERE content IN {chosen})")
        files = [row[0] for row in self._execute(f"SELECT id FROM files WHERE content IN {chosen}").fetchall()]
        for number in files:
            self._execute("UPDATE files SET content = NULL, reason = ?, reader = '' WHERE id = ?", (reason, number))
            sign(self.connection, "files", "id = ?", (number,))
        self._changed |= bool(self._execute(f"DELETE FROM contents WHERE id IN {chosen}").rowcount)

    def set_folder(self, path: str, folder: str) -> None:
        """Records which folder a file is in, as the run that indexed that folder does."""
        change = f"UPDATE files SET folder = ?, changed = {_NEXT} WHERE path = ?"
        self._execute(change, (folder, encode_path(path)))
        self._changed = True
        sign(self.connection, "files", "path = ?", (encode_path(path),))

    def files_below(self, folder: str) -> Iterator[tuple[int, str, int | None]]:
        """(id, path, content) of every known file in a folder or below it, and of the path itself."""
        key = uploads.key_of(folder, self._folder)
        below = key.rstrip(b"/") + b"/"
        query = "SELECT id, path, content FROM files WHERE path = ? OR (path >= ? AND path < ?)"
        for number, path, content in self._execute(query, (key, below, below[:-1] + b"0")):
            yield number, uploads.path_of(path, self._folder), content

    def files_with(self, content: int) -> list[tuple[int, str]]:
        """(id, path) of the files with a content that the library does not keep itself."""
        rows = self._execute("SELECT id, path FROM files WHERE content = ? AND substr(path, 1, 1) = X'2F'", (content,))
        return [(number, uploads.path_of(path, self._folder)) for number, path in rows]

    def count_below(self, folder: str) -> int:
        """How many searchable files lie in a folder, or are it."""
        return sum(content is not None for _, _, content in self.files_below(folder))

    def fact(self, key: str) -> Any:
        """A fact of the catalogue, None where it has none of this name."""
        row = self._one("SELECT value FROM facts WHERE key = ?", (key,))
        return None if row is None else row[0]

    def set_fact(self, key: str, value: Any) -> None:
        """Stores a fact, in place of what it was."""
        self._execute("INSERT OR REPLACE INTO facts (key, value) VALUES (?, ?)", (key, value))
        sign(self.connection, "facts", "key = ?", (key,))

    def put_vectors(self, content: int, parts: str, vectors: Mapping[int, bytes]) -> None:
        """Stores segment id -> vector (little-endian float32) in place of all vectors of a content, and its parts."""
        self._execute("UPDATE contents SET parts = ? WHERE id = ?", (parts, content))
        sign(self.connection, "contents", "id = ?", (content,))
        rows = [(blob, checksum(number, blob), number) for number, blob in vectors.items()]
        self.connection.executemany("UPDATE vectors SET vector = ?, checksum = ? WHERE segment = ?", rows)
        self._changed = True

    def remove_files(self, numbers: Iterable[int]) -> None:
        """Removes files. `drop_orphans` removes their contents."""
        for number in numbers:
            self._execute("DELETE FROM uploads WHERE file = ?", (number,))
            self._execute("DELETE FROM words WHERE rowid = ?", (number,))
            self._execute("DELETE FROM files WHERE id = ?", (number,))
            self._changed = True

    def drop_orphans(self, among: int | None = None) -> None:
        """Removes contents that no file has any more, with their segments and vectors: all such contents, or
        this one.
        """
        orphans = "SELECT c.id FROM contents c WHERE NOT EXISTS (SELECT 1 FROM files f WHERE f.content = c.id)"
        values = () if among is None else (among,)
        orphans += "" if among is None else " AND c.id = ?"
        self._drop_segments(f"content IN ({orphans})", values)
        texts.drop(self.connection, f"content IN ({orphans})", values)
        if self._execute(f"DELETE FROM contents WHERE id IN ({orphans})", values).rowcount:
            self._changed = True

    def _name_uploads(self, content: int | None) -> None:
        """Gives the uploads of a content an id for each of its segments, from the sequence of segment ids."""
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
        """Gives items to every upload that has none."""
        kept_ones = "SELECT DISTINCT content FROM files WHERE content IS NOT NULL AND substr(path, 1, 1) <> X'2F'"
        for (content,) in self._execute(kept_ones).fetchall():
            self._name_uploads(content)

    def duplicates(self, folder: str) -> Iterator[tuple[str, ...]]:
        """The paths, sorted, of each content that several files have, at least one of them below the folder."""
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
            group.append(uploads.path_of(path, self._folder))
        if group:
            yield tuple(group)

    def forget_removed(self, revision: int) -> None:
        """Deletes the record of removals that the stored index, made at this revision, contains already."""
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
        rows = self._execute(sql, values).fetchall()  # a RETURNING clause is finished only when all its rows are read
        return rows[0] if rows else None
