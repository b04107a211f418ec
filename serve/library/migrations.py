"""Migrations: catalogues of older formats are brought to the present one, one step from each format to the next.

All steps of a migration are one transaction, so that a library has the old format or the new one, completely.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path

from serve.library import uploads
from serve.library.connections import transaction
from serve.library.integrity import note_commit
from serve.library.schema import CHECKSUMS, FORMAT, SINCE, sign, statements_of
from serve.library.writer import Writer

Step = Callable[[sqlite3.Connection, Path], None]
"""(connection inside of a transaction, the library's folder) -> the catalogue is of the next format."""


def migrate(connection: sqlite3.Connection, folder: Path) -> None:
    """Applies the steps that a catalogue lacks; its writer calls this. Raises LibraryError when the disk is full."""
    with transaction(connection):
        (found,) = connection.execute("SELECT value FROM facts WHERE key = 'format'").fetchone()
        for step in range(found, FORMAT):
            STEPS[step](connection, folder)
        connection.execute("UPDATE facts SET value = ? WHERE key = 'format'", (FORMAT,))
        for table in CHECKSUMS:  # checksums are signed after all steps, so that no step has to do it
            sign(connection, table)
        Writer(connection, folder).rebuild_words()  # from rows that are whole, which signed ones are
        facts = dict(connection.execute("SELECT key, value FROM facts"))
    note_commit(folder, facts["library"], facts["revision"])


def _version_2(connection: sqlite3.Connection, folder: Path) -> None:
    """1 -> 2: rows get checksums, kept files relative paths, uploads items of their own, and the library an identity.

    Uploads also answer to their old item ids.
    """
    uploads.make_upload_paths_relative(connection, folder)
    for table in CHECKSUMS:
        if table not in SINCE:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN checksum INTEGER")
    for statement in statements_of("uploads"):
        connection.execute(statement)
    new = {"library": uuid.uuid4().hex, "revisions": json.dumps({})}
    connection.executemany("INSERT INTO facts (key, value) VALUES (?, ?)", list(new.items()))
    Writer(connection, folder).name_all_uploads()


def _version_3(connection: sqlite3.Connection, folder: Path) -> None:
    """2 -> 3: contents have what the media say of themselves, segments their part of a picture or document, files the
    source of their date, and there are tables for the words in pictures and in speech. What is in the
    library already has none of these until it is read again.
    """
    for table, column in (
        ("contents", "metadata TEXT NOT NULL DEFAULT '{}'"),
        ("segments", "at TEXT"),
        ("files", "date_source TEXT NOT NULL DEFAULT ''"),
    ):
        connection.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
    for table in ("texts", "written"):
        for statement in statements_of(table):
            connection.execute(statement)


def _version_4(connection: sqlite3.Connection, folder: Path) -> None:
    """3 -> 4: there are marks, albums and tags, and the indexes by which files are listed in order. Files
    have the revision in which their row was written last.
    """
    connection.execute("ALTER TABLE files ADD COLUMN changed INTEGER NOT NULL DEFAULT 0")
    indexes = [one for one in statements_of("files") if "INDEX" in one and "files_by_content" not in one]
    tables = [one for table in ("marks", "albums", "members") for one in statements_of(table)]
    for statement in indexes + tables:
        connection.execute(statement)


STEPS: dict[int, Step] = {1: _version_2, 2: _version_3, 3: _version_4}
"""Format -> the step from it to the next."""
