"""The change of a library's model: all contents are embedded with the new model beside the old vectors, then switched.

In `.migration/` of the library's folder lies a catalogue of the new space, which is filled from the files that the
library knows. It is a catalogue like any other, committed in steps, so an interrupted migration goes on where it was.
Until the switch nothing in the library changes, and everybody may search it and write to it. The switch is one
transaction of the library's catalogue: vectors, segments and the facts that name the model. So a process that is killed
at any moment leaves the old library or the new one, whole. What is left of `.migration/` then is derived data.

Items keep their ids where the new model cuts a file into the same stretches as the old one, so uploads, thumbnails and
links stay. Whoever has the library open goes on searching with the old model's index until it is opened again, and can
no longer write to it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bind.index.index import Index
from bind.modalities import revisions
from bind.owned import OwnedFolder
from preprocess.source import Limits
from serve.library import uploads
from serve.library.backup import backup
from serve.library.catalogue import Catalogue
from serve.library.connections import connect
from serve.library.errors import DamagedError, LibraryError, WriterBusyError
from serve.library.indexing import Progress, Run
from serve.library.live_index import LiveIndex
from serve.library.records import ContentKey, NewSegment
from serve.library.reports import MigrationReport
from serve.library.roots import Scope
from serve.library.scan import Found
from serve.library.schema import FILE, checksum, is_whole
from serve.library.uploads import Uploads
from serve.library.writer import Writer

if TYPE_CHECKING:
    from bind.model.model import BindModel

FOLDER = ".migration"
"""The folder of a library in which its next catalogue is made."""
_CONTENTS_PER_READ = 500
"""Contents of one read of the old catalogue, so that other processes can write between two of them."""
_CHANGED = "is not there as it was indexed; index its folder again"
"""Why a content whose file has changed is not embedded by the new model."""


@dataclass
class _Migration:
    """A migration on its way: the library's catalogue, and what it needs to fill the one of the new space."""

    catalogue: Catalogue
    model: BindModel
    limits: Limits
    batch_size: int
    progress: Progress | None
    embedded: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    def fill(self, new: Writer) -> None:
        """Embeds every content of the library that the new catalogue lacks."""
        folder = self.catalogue.folder
        scope = Scope(str(folder), positions=False)
        run = Run(
            new,
            self.model,
            scope,
            folder,
            limits=self.limits,
            batch_size=self.batch_size,
            retry=True,
            progress=self.progress,
            files=lambda: (found for _, key, found in self._contents() if not self._has(new, key)),
        )
        report = run.run()
        self.embedded += report.embedded
        self.failures = dict(report.skipped + report.skipped_before)

    def lacking(self, new: Writer) -> dict[int, tuple[str, str]]:
        """Content id -> (path, reason) of the contents that could not be embedded with the new model."""
        missing = [(number, found) for number, key, found in self._contents() if not self._has(new, key)]
        return {number: (found.path, self.failures.get(found.path, _CHANGED)) for number, found in missing}

    def switch(self, writer: Writer, new: Writer, drop: Mapping[int, tuple[str, str]]) -> None:
        """Puts the new vectors in place of the old ones, in one transaction."""
        with writer.transaction():
            for number, (_, reason) in drop.items():
                writer.drop_contents([number], reason)
            for number, key, _ in self._contents():
                if number not in drop:
                    _replace(writer, number, key, new)
            for name, value in _facts(self.model).items():
                writer.set_fact(name, value)

    def _contents(self) -> Iterator[tuple[int, ContentKey, Found]]:
        """(id, key, a file that has it) of every content, in the order of their ids."""
        folder, last = self.catalogue.folder, -1
        with closing(connect(folder / FILE)) as connection:
            query = f"SELECT id, digest, modality, hints, {is_whole('contents')} FROM contents WHERE id > ? ORDER BY id"
            while rows := connection.execute(f"{query} LIMIT {_CONTENTS_PER_READ}", (last,)).fetchall():
                for number, digest, modality, hints, whole in rows:
                    if not whole:
                        raise DamagedError(folder, f"content {number} does not match its checksum")
                    files = connection.execute(
                        "SELECT path, folder, size_bytes, mtime_ns, sidecar FROM files WHERE content = ? ORDER BY path",
                        (number,),
                    ).fetchall()
                    copies = [Found(uploads.path_of(path, folder), *rest) for path, *rest in files]
                    if copies:
                        found = next(filter(_is_there, copies), copies[0])
                        yield number, ContentKey(digest, modality, hints), found
                last = rows[-1][0]

    def _has(self, new: Writer, key: ContentKey) -> bool:
        stored = new.content(key)
        parts = {key.modality} | ({"audio"} if key.modality == "video" and "audio" in self.model.modalities else set())
        return stored is not None and parts <= set(stored[1])


def migrate(
    folder: Path,
    model: BindModel,
    *,
    keep: Path | None = None,
    allow_removal: bool = False,
    progress: Progress | None = None,
    batch_size: int = 64,
    limits: Limits | None = None,
) -> MigrationReport:
    """Changes the model of the library in a folder; see `Library.migrate`."""
    started = time.monotonic()
    facts = Catalogue.peek(folder)
    if not facts:
        raise LibraryError(f"there is no library in {folder}")
    if keep is not None and not (keep.is_file() or (not os.path.lexists(keep) and keep.absolute().parent.is_dir())):
        raise LibraryError(f"{keep}: expected the name of a new file, in a folder that exists, for the old library")
    with closing(Catalogue(folder, facts["space"], facts["dim"], facts["model"])) as catalogue:
        migration = _Migration(catalogue, model, limits or Limits(), batch_size, progress)
        dropped: dict[int, tuple[str, str]] = {}
        if facts["space"] == model.space:
            with catalogue.write() as writer:  # an earlier run was killed after its switch, or there is nothing to do
                index = LiveIndex(catalogue, model.space, model.dim, None, "cpu")
                index.open()
                index.follow(writer)
                clear(catalogue)
        else:
            live = LiveIndex(catalogue, facts["space"], facts["dim"], None, "cpu")
            live.open()
            factory = live.index.factory
            Index(model.space, model.dim, factory)  # raises ValueError where this dimension does not fit the factory
            with closing(_staging(folder, model)) as staging, staging.write() as new:
                migration.fill(new)
                dropped = _finish(migration, new, factory, keep, allow_removal)
    with closing(Catalogue(folder, model.space, model.dim, model.origin)) as catalogue:
        files = catalogue.count_files()
    return MigrationReport(model.origin, files, migration.embedded, list(dropped.values()), time.monotonic() - started)


def _finish(
    migration: _Migration, new: Writer, factory: str, keep: Path | None, allow_removal: bool
) -> dict[int, tuple[str, str]]:
    """Embeds what came to the library meanwhile, switches, and makes the new index -> what was dropped."""
    catalogue, model = migration.catalogue, migration.model
    folder = catalogue.folder
    with catalogue.write() as writer:
        with suppress(OSError):
            Uploads(folder).sweep(lambda path: writer.file(str(path)) is not None)
        migration.fill(new)
        lacking = migration.lacking(new)
        if lacking and not allow_removal:
            path, reason = next(iter(lacking.values()))
            raise LibraryError(
                f"{len(lacking)} files of {folder} could not be embedded with {model.origin!r}, the first is {path}: "
                f"{reason}. The library is as it was, and the next run goes on from here; index the folders again, or "
                "allow the removal of such files (--allow-removal)"
            )
        if keep is not None:
            backup(folder, keep)
        migration.switch(writer, new, lacking)
        with closing(Catalogue(folder, model.space, model.dim, model.origin)) as now:
            LiveIndex(now, model.space, model.dim, factory, "cpu").follow(writer)
            clear(now)
    return lacking


def clear(catalogue: Catalogue) -> None:
    """Deletes what a migration to the model that the library has by now left behind; only for the writer."""
    with suppress(LibraryError):
        if Catalogue.peek(catalogue.folder / FOLDER).get("space", "") not in ("", catalogue.facts["space"]):
            return  # this is a migration on its way to another model
    OwnedFolder(catalogue.folder).delete(FOLDER)


def _staging(folder: Path, model: BindModel) -> Catalogue:
    """The catalogue of the new space beside that of the library. One of yet another model is deleted."""
    try:
        place = OwnedFolder(folder, FOLDER).make().path
        with suppress(DamagedError):
            facts = Catalogue.peek(place)
            if facts and facts["space"] != model.space:
                with closing(Catalogue(place, facts["space"], facts["dim"], facts["model"])) as other, other.write():
                    pass  # raises WriterBusyError where that migration is running
                facts = {"space": ""}
            if not facts or facts["space"] == model.space:
                return Catalogue(place, model.space, model.dim, model.origin, revisions(model.modalities))
        OwnedFolder(folder).delete(FOLDER)
        OwnedFolder(folder, FOLDER).make()
    except WriterBusyError as error:
        raise WriterBusyError(f"{folder}: another migration is running. {error}") from None
    except OSError as error:
        raise LibraryError(f"{error.filename}: {error.strerror}") from None
    return Catalogue(place, model.space, model.dim, model.origin, revisions(model.modalities))


def _replace(writer: Writer, number: int, key: ContentKey, new: Writer) -> None:
    """Gives a content of the library the segments and vectors that it has in the new catalogue."""
    row = new.connection.execute(
        f"SELECT id, parts, notes, {is_whole('contents')} FROM contents WHERE (digest, modality, hints) = (?, ?, ?)",
        (key.digest, key.modality, key.hints),
    ).fetchone()
    rows = new.connection.execute(
        "SELECT s.modality, s.start_s, s.end_s, s.at, v.vector, v.checksum, v.segment FROM segments s "
        "JOIN vectors v ON v.segment = s.id WHERE s.content = ? ORDER BY s.id",
        (row[0],),
    ).fetchall()
    if not row[3] or any(sum_ != checksum(segment, blob) for *_, blob, sum_, segment in rows):
        raise LibraryError(
            f"the new vectors of the migration are damaged; delete the folder {FOLDER} and migrate again"
        )
    before = {tuple(old[1:]): old[0] for old in _segments(writer.connection, number)}
    after = {tuple(one[:4]): one[4] for one in rows}
    if before.keys() == after.keys() and len(after) == len(rows):
        writer.put_vectors(number, row[1], {before[place]: blob for place, blob in after.items()})
        return
    segments = [
        NewSegment(modality, start_s, end_s, np.frombuffer(blob, "<f4"), at)
        for modality, start_s, end_s, at, blob, *_ in rows
    ]
    writer.put_content(key, row[1].split(","), segments, json.loads(row[2]), writer.media_facts(number))


def _segments(connection: sqlite3.Connection, content: int) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT id, modality, start_s, end_s, at FROM segments WHERE content = ? ORDER BY id", (content,)
    ).fetchall()


def _facts(model: BindModel) -> dict[str, Any]:
    return {
        "space": model.space,
        "dim": model.dim,
        "model": model.origin,
        "revisions": json.dumps(dict(revisions(model.modalities))),
    }


def _is_there(found: Found) -> bool:
    try:
        status = os.stat(found.path)
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (found.size_bytes, found.mtime_ns)
