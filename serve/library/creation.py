"""The making of an empty catalogue."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from bind.files import sync
from serve.library.connections import connect, locked, transaction
from serve.library.errors import DamagedError, LibraryError
from serve.library.integrity import note_commit
from serve.library.schema import COMMITTED, FILE, FORMAT, LOCK, sign, statements_of
from serve.library.text import WORDS_REVISION


def create(folder: Path, facts: Mapping[str, Any]) -> None:
    """An empty catalogue, which appears with all that is in it or never. Raises LibraryError for a folder of others."""
    if (folder / COMMITTED).exists():
        raise DamagedError(folder, "the file is missing, though something was committed to it")
    other = next((name for name in os.listdir(folder) if not name.startswith(".") and name != LOCK), None)
    if other is not None:
        raise LibraryError(f"{folder} is no library and not empty (it has {other}); name a new folder for the library")
    with locked(folder, wait=True):
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
                made = {"format": FORMAT, "library": uuid.uuid4().hex, "revision": 0, "words_revision": WORDS_REVISION}
                every = made | dict(facts)
                connection.executemany("INSERT INTO facts (key, value) VALUES (?, ?)", list(every.items()))
                sign(connection, "facts")
            connection.execute("PRAGMA journal_mode = WAL")
        sync(aside)
        os.replace(aside, folder / FILE)
        sync(folder)
        note_commit(folder, str(every["library"]), 0)
