"""Marks that people give to files: favourite and hidden.

A mark belongs to what a file holds (its SHA-256), and not to its path or to a row that indexing makes. So it stays
where a file is moved, indexed again, forgotten and brought back, or embedded by another model. A file that was edited
keeps the marks that its path had.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING

from serve.library.schema import sign

if TYPE_CHECKING:
    from serve.library.writer import Writer


def put(writer: Writer, digests: Sequence[bytes], favourite: bool | None, hidden: bool | None) -> None:
    """Sets the marks of contents that are not None; the others stay as they were. It needs a transaction."""
    for digest in digests:
        writer.connection.execute(
            "INSERT INTO marks (digest, favourite, hidden) VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE SET "
            "favourite = coalesce(?, favourite), hidden = coalesce(?, hidden)",
            (digest, bool(favourite), bool(hidden), favourite, hidden),
        )
        sign(writer.connection, "marks", "digest = ?", (digest,))
    writer.connection.execute("DELETE FROM marks WHERE NOT favourite AND NOT hidden")
    writer.touch()


def carry_over(connection: sqlite3.Connection, earlier: int, content: int) -> None:
    """Gives a content the marks and albums of the one that its path had before, where it has none of its own."""
    if earlier == content:
        return
    (before,), (digest,) = (
        connection.execute("SELECT digest FROM contents WHERE id = ?", (number,)).fetchone()
        for number in (earlier, content)
    )
    if before == digest:
        return
    connection.execute(
        "INSERT OR IGNORE INTO marks (digest, favourite, hidden) SELECT ?, favourite, hidden FROM marks "
        "WHERE digest = ?",
        (digest, before),
    )
    connection.execute(
        "INSERT OR IGNORE INTO members (album, digest, probability) SELECT album, ?, probability FROM members "
        "WHERE digest = ?",
        (digest, before),
    )
    for table in ("marks", "members"):
        sign(connection, table, "digest = ?", (digest,))
