"""The tables of a catalogue, and the checksums of their rows."""

from __future__ import annotations

import json
import re
import sqlite3
import zlib
from collections.abc import Sequence
from typing import Any

FILE = "catalogue.sqlite"
"""The catalogue's file in the library's folder."""
LOCK = "writer.lock"
"""The file on which the process that writes has a lock."""
COMMITTED = "committed"
"""The file with the number of the last transaction, by which a catalogue that was replaced by an older one is found."""
FORMAT = 4
"""The version of the tables; older ones are brought up when they are opened, newer ones are refused."""
CHECKSUMS = {
    "facts": ("key", "value"),
    "contents": ("id", "digest", "modality", "hints", "parts", "duration_s", "notes", "metadata"),
    "segments": ("id", "content", "modality", "start_s", "end_s", "at", "born"),
    "vectors": ("segment", "vector"),
    "removed": ("segment", "revision"),
    "uploads": ("id", "segment", "file"),
    "texts": ("id", "content", "kind", "recogniser", "note", "lines"),
    "marks": ("id", "digest", "favourite", "hidden"),
    "albums": ("id", "kind", "name", "query", "filter", "min_probability"),
    "members": ("id", "album", "digest", "probability"),
    "files": (
        "id", "path", "content", "size_bytes", "mtime_ns", "sidecar", "shown", "name", "folder", "date", "caption",
        "metadata", "reason", "reader", "date_source", "changed",
    ),
}  # fmt: skip
"""Table -> the columns that its `checksum` covers, the key first."""
SINCE = {"uploads": 2, "texts": 3, "marks": 4, "albums": 4, "members": 4}
"""Table -> the first format that has it; all others were there from the beginning."""
_TIME = "({0} IS NULL OR (typeof({0}) = 'real' AND abs({0}) < 1e300))"
"""The check of a column of seconds: a number that is neither infinite nor NaN, or none."""
_TYPES = {
    "contents": "typeof({0}modality) = 'text' AND typeof({0}parts) = 'text' AND is_texts({0}notes) "
    "AND is_object({0}metadata)",
    "segments": "typeof({0}modality) = 'text' AND ({0}at IS NULL OR typeof({0}at) = 'text') AND "
    + " AND ".join(_TIME.format("{0}" + x) for x in ("start_s", "end_s")),
    "texts": "typeof({0}note) = 'text' AND typeof({0}lines) = 'text'",
    "marks": "typeof({0}digest) = 'blob' AND {0}favourite IN (0, 1) AND {0}hidden IN (0, 1)",
    "albums": "{0}kind IN ('album', 'tag') AND typeof({0}name) = 'text' "
    "AND ({0}query IS NULL OR typeof({0}query) = 'text') AND ({0}filter IS NULL OR typeof({0}filter) = 'text') "
    "AND ({0}min_probability IS NULL OR typeof({0}min_probability) = 'real')",
    "members": "typeof({0}digest) = 'blob' AND ({0}probability IS NULL OR typeof({0}probability) = 'real')",
    "files": "typeof({0}path) = 'blob' AND typeof({0}name) = 'text' AND typeof({0}caption) = 'text' "
    "AND is_object({0}metadata)",
}
"""Table -> SQL that checks the types of a row.

SQLite does not enforce them, and a library's maker could sign any row.
"""
_SCHEMA = """
CREATE TABLE facts (key TEXT PRIMARY KEY, value, checksum INTEGER) WITHOUT ROWID;
CREATE TABLE contents (
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL, modality TEXT NOT NULL, hints TEXT NOT NULL,
    parts TEXT NOT NULL, duration_s REAL, notes TEXT NOT NULL, checksum INTEGER,
    metadata TEXT NOT NULL DEFAULT '{}', UNIQUE (digest, modality, hints)
);
CREATE TABLE segments (
    id INTEGER PRIMARY KEY AUTOINCREMENT, content INTEGER NOT NULL REFERENCES contents, modality TEXT NOT NULL,
    start_s REAL, end_s REAL, born INTEGER NOT NULL, checksum INTEGER, at TEXT
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
    metadata TEXT NOT NULL, reason TEXT, reader TEXT, checksum INTEGER, date_source TEXT NOT NULL DEFAULT '',
    changed INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX files_by_content ON files (content);
CREATE INDEX files_by_change ON files (changed);
CREATE INDEX files_by_date ON files (date, content);
CREATE INDEX files_by_name ON files (name COLLATE NOCASE, content);
CREATE INDEX files_by_size ON files (size_bytes, content);
CREATE INDEX files_by_shown ON files (shown COLLATE NOCASE, content);
CREATE INDEX files_by_folder ON files (folder, content);
CREATE TABLE uploads (
    id INTEGER PRIMARY KEY, segment INTEGER NOT NULL REFERENCES segments, file INTEGER NOT NULL REFERENCES files,
    checksum INTEGER, UNIQUE (segment, file)
);
CREATE INDEX uploads_by_file ON uploads (file);
CREATE TABLE texts (
    id INTEGER PRIMARY KEY, content INTEGER NOT NULL REFERENCES contents, kind TEXT NOT NULL, recogniser TEXT NOT NULL,
    note TEXT NOT NULL, lines TEXT NOT NULL, checksum INTEGER, UNIQUE (content, kind)
);
CREATE TABLE marks (
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, favourite INTEGER NOT NULL, hidden INTEGER NOT NULL,
    checksum INTEGER
);
CREATE TABLE albums (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, name TEXT NOT NULL, query TEXT, filter TEXT,
    min_probability REAL, checksum INTEGER, UNIQUE (kind, name)
);
CREATE TABLE members (
    id INTEGER PRIMARY KEY, album INTEGER NOT NULL REFERENCES albums, digest BLOB NOT NULL, probability REAL,
    checksum INTEGER, UNIQUE (album, digest)
);
CREATE INDEX members_by_digest ON members (digest);
CREATE VIRTUAL TABLE words USING fts5 (
    name, caption, metadata, tokenize = "porter unicode61 remove_diacritics 2 categories 'L* N* Co Mn Mc'"
);
CREATE VIRTUAL TABLE written USING fts5 (
    lines, tokenize = "porter unicode61 remove_diacritics 2 categories 'L* N* Co Mn Mc'"
);
"""
"""The tables of a new catalogue."""


def statements_of(table: str = "") -> list[str]:
    """The statements that make a table and its indexes, or the whole schema."""
    statements = [statement for statement in _SCHEMA.split(";\n") if statement.strip()]
    return [s for s in statements if not table or re.search(rf"(TABLE|ON) {table}\b", s)]


def checksum(*values: Any) -> int:
    """A row's values as SQLite returns them -> CRC-32, which detects every change of up to 32 neighbouring bits."""
    if len(values) == 2 and isinstance(values[1], bytes):
        return zlib.crc32(values[1], zlib.crc32(repr(values[0]).encode()))  # a vector is added as bytes and not as text
    return zlib.crc32(repr(values).encode("utf-8", "surrogatepass"))


def signature(table: str, alias: str = "") -> str:
    """The SQL of the checksum that a table's row should have."""
    return f"checksum({', '.join(f'{alias}{column}' for column in CHECKSUMS[table])})"


def is_whole(table: str, alias: str = "") -> str:
    """The SQL that is true for a row that matches its checksum and whose values have their types."""
    types = f" AND {_TYPES[table].format(alias)}" if table in _TYPES else ""
    return f"({alias}checksum IS {signature(table, alias)}{types})"


def is_object(text: Any) -> bool:
    """Whether a value is the text of a JSON object of finite numbers."""
    try:
        values = json.loads(text)
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return isinstance(values, dict)


def is_texts(text: Any) -> bool:
    """Whether a value is a JSON text of a list of texts."""
    try:
        values = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return False
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def sign(connection: sqlite3.Connection, table: str, condition: str = "1", values: Sequence[Any] = ()) -> None:
    """Stores the checksums of rows that were written."""
    connection.execute(f"UPDATE {table} SET checksum = {signature(table)} WHERE {condition}", values)
