"""Whether a catalogue is whole and is the one that was last written: its facts, and the note of its last commit."""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path
from typing import Any

from bind.owned import NotOwnedError, OwnedFolder
from serve.library.errors import DamagedError, LibraryError
from serve.library.schema import CHECKSUMS, COMMITTED, FILE, FORMAT, SINCE, signature


def refuse_damage(folder: Path) -> None:
    """Raises DamagedError for files that SQLite would take for a new database, or would wait for."""
    file = folder / FILE
    if not file.is_file():
        raise DamagedError(folder, "it is no regular file")
    if file.stat().st_size == 0:
        raise DamagedError(folder, "the file is empty (0 bytes)")


def read_facts(connection: sqlite3.Connection, folder: Path) -> dict[str, Any]:
    """The facts of a catalogue, after their checksums were compared.

    Raises LibraryError for another or damaged file.
    """
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
    old = {table for table, since in SINCE.items() if facts["format"] < since}
    if missing := sorted({*CHECKSUMS} - tables - old):
        raise DamagedError(folder, f"it lacks the table {missing[0]}")
    return facts


def note_commit(folder: Path, library: str, revision: int) -> None:
    """Notes outside of the database which revision was committed, because a file that lost its log shows it nowhere
    else.
    """
    text = f"{library} {revision}"
    owned, aside = OwnedFolder(folder), f".new-{COMMITTED}"
    owned.delete(aside)
    with owned.create(aside) as file:
        file.write(f"{text} {zlib.crc32(text.encode()):08x}\n".encode())
    owned.replace(aside, owned, COMMITTED)


def committed(folder: Path) -> tuple[str, int] | None:
    """(the library's identity, its last committed revision), or None without a note.

    Raises ValueError for a damaged note.
    """
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
    """The evidence that a catalogue is not the one that was last written, or None."""
    try:
        noted = committed(folder)  # read first, because a commit is noted after it was made
    except ValueError:
        return None  # `serve.library.check` reports it
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


def refuse_lost_commits(connection: sqlite3.Connection, folder: Path) -> None:
    """Raises DamagedError where `lost_commits` gives a reason."""
    if reason := lost_commits(connection, folder):
        raise DamagedError(folder, reason)
