"""Words in pictures and in speech, as a catalogue stores them: one row of lines for each content and kind.

`texts` has the lines with their places, and says of a content that it was read, also where no words were found or it
could not be read. `written` is the search over them, one row a row of `texts`: the terms of a line, then a line break.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from preprocess.readers.lines import Line, dumped, parsed
from serve.library.errors import DamagedError
from serve.library.schema import checksum, is_whole, statements_of
from serve.library.text import query_terms, terms_of
from serve.library.uploads import key_of, path_of

Rows = Callable[[str, Sequence[Any]], list[Any]]
"""Runs SQL with values on a catalogue -> its rows."""
_MOST_TERMS = 500
"""Words of a query that are searched for; SQLite's expressions have a limit."""
_MOST_SHOWN = 3
"""Lines that are shown of one item."""
_MARK = "\x02"
"""What SQLite writes in front of each match: a control character, which is no part of a word."""


@dataclass(frozen=True)
class Unread:
    """A content that lacks a channel: its hints as JSON and, of each of its files, the path, size and time."""

    content: int
    hints: str
    files: tuple[tuple[str, int, int], ...]


def unread(
    connection: sqlite3.Connection,
    library: Path,
    kind: str,
    recogniser: str,
    modalities: Collection[str],
    places: Sequence[str],
    retry: bool,
) -> list[Unread]:
    """The contents of files in some folders (or files) that were not read by this recogniser; with `retry` also those
    that could not be read.
    """
    of_modality = ", ".join("?" * len(modalities))
    query = (
        "SELECT c.id, c.hints, f.path, f.size_bytes, f.mtime_ns FROM files f JOIN contents c ON c.id = f.content "
        f"WHERE c.modality IN ({of_modality}) AND (f.path = ? OR (f.path >= ? AND f.path < ?)) AND NOT EXISTS ("
        "SELECT 1 FROM texts t WHERE t.content = c.id AND t.kind = ? AND t.recogniser = ? "
        "AND (t.note = '' OR t.lines <> '[]' OR NOT ?)) ORDER BY c.id, f.path"
    )
    found: dict[int, tuple[str, list[tuple[str, int, int]]]] = {}
    for place in places:
        key = key_of(place, library)
        below = key.rstrip(b"/") + b"/"
        values = (*modalities, key, below, below[:-1] + b"0", kind, recogniser, retry)
        for content, hints, path, size_bytes, mtime_ns in connection.execute(query, values):
            found.setdefault(content, (hints, []))[1].append((path_of(path, library), size_bytes, mtime_ns))
    return [Unread(content, hints, tuple(files)) for content, (hints, files) in found.items()]


def put(
    connection: sqlite3.Connection, content: int, kind: str, recogniser: str, lines: Sequence[Line], note: str
) -> None:
    """Stores what was read of a content, in place of an earlier reading; nothing for a content that is gone."""
    drop(connection, "content = ? AND kind = ?", (content, kind))
    values = (content, kind, recogniser, note, dumped(lines))
    number = connection.execute(
        "INSERT INTO texts (content, kind, recogniser, note, lines) SELECT ?, ?, ?, ?, ? "
        "WHERE EXISTS (SELECT 1 FROM contents WHERE id = ?)",
        (*values, content),
    )
    if number.rowcount:
        row = (number.lastrowid, *values)
        connection.execute("UPDATE texts SET checksum = ? WHERE id = ?", (checksum(*row), number.lastrowid))
        _put_terms(connection, row[0], lines)


def drop(connection: sqlite3.Connection, condition: str, values: Sequence[Any] = ()) -> None:
    """Deletes the readings that a condition on `texts` chooses."""
    connection.execute(f"DELETE FROM written WHERE rowid IN (SELECT id FROM texts WHERE {condition})", values)
    connection.execute(f"DELETE FROM texts WHERE {condition}", values)


def wrong(connection: sqlite3.Connection) -> list[str]:
    """What (a few) rows of the search are of, whose terms differ from their lines or are missing."""
    rows = connection.execute(
        "SELECT t.id, t.content, t.lines, w.lines FROM texts t LEFT JOIN written w ON w.rowid = t.id "
        f"WHERE {is_whole('texts', 't.')}"
    )
    found = list(islice((f"content {row[1]}" for row in rows if _terms(row[2]) != row[3]), 5))
    extra = "SELECT rowid FROM written WHERE rowid NOT IN (SELECT id FROM texts) LIMIT 5"
    return [*found, *(f"reading {row[0]}, which is not there" for row in connection.execute(extra))]


def rebuild(connection: sqlite3.Connection) -> None:
    """Makes the search over lines anew from the rows of `texts`."""
    connection.execute("DROP TABLE written")
    for statement in statements_of("written"):
        connection.execute(statement)
    for number, lines in connection.execute(f"SELECT id, lines FROM texts WHERE {is_whole('texts')}").fetchall():
        _put_terms(connection, number, parsed(lines))


def lines_of(rows: Rows, library: Path, content: int) -> tuple[Line, ...]:
    """All lines of a content, those of pictures first. Raises DamagedError."""
    found = rows(f"SELECT id, lines, {is_whole('texts')} FROM texts WHERE content = ? ORDER BY kind", (content,))
    return tuple(line for row in found for line in _read(library, *row))


def matching(rows: Rows, library: Path, text: str, contents: Collection[int]) -> dict[int, tuple[Line, ...]]:
    """Content -> its (at most three) lines that share the most words with a text, the best first.

    Contents without such lines are left out. Raises DamagedError.
    """
    wanted = query_terms(text)[:_MOST_TERMS]
    if not wanted or not contents:
        return {}
    found = rows(
        f"SELECT t.content, t.id, t.lines, {is_whole('texts', 't.')}, highlight(written, 0, '{_MARK}', '') "
        "FROM written JOIN texts t ON t.id = written.rowid WHERE written MATCH ? "
        "AND t.content IN (SELECT value FROM json_each(?)) ORDER BY t.content, t.kind",
        (" OR ".join(wanted), json.dumps(list(contents))),
    )
    best: dict[int, list[tuple[int, Line]]] = {}
    for content, number, lines, whole, marked in found:
        marks = [line.count(_MARK) for line in marked.split("\n")]
        own = list(_read(library, number, lines, whole))
        if len(own) != max(len(marks), 1) and own:
            raise DamagedError(library, f"the search has other words than the lines of content {content}")
        shown = zip(marks, own, strict=False)
        best.setdefault(content, []).extend((count, line) for count, line in shown if count)
    order = {content: sorted(lines, key=lambda one: -one[0])[:_MOST_SHOWN] for content, lines in best.items()}
    return {content: tuple(line for _, line in lines) for content, lines in order.items()}


def _read(library: Path, number: int, lines: str, whole: bool) -> Iterator[Line]:
    if not whole:
        raise DamagedError(library, f"words {number} do not match their checksum, or have a value of another type")
    try:
        yield from parsed(lines)
    except ValueError as error:
        raise DamagedError(library, f"words {number} are no lines: {error}") from None


def _put_terms(connection: sqlite3.Connection, number: int | None, lines: Sequence[Line]) -> None:
    terms = "\n".join(" ".join(terms_of(line.text)) for line in lines)
    connection.execute("INSERT INTO written (rowid, lines) VALUES (?, ?)", (number, terms))


def _terms(lines: str) -> str | None:
    """The terms that the search should have of some lines; None for what is no lines."""
    try:
        return "\n".join(" ".join(terms_of(line.text)) for line in parsed(lines))
    except ValueError:
        return None
