"""The check of a library: everything in its folder is compared with its checksum, and repaired where possible.

Derived data is made again: the index, thumbnails, the words of names and captions, and the indexes of SQLite. Rows that
were read from a file are read again where the file has not changed. The report names all other damage, and says what to
do about it.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bind.index.index import Index
from bind.owned import OwnedFolder
from serve.engine import thumbnails
from serve.library import integrity, texts, uploads
from serve.library.catalogue import Catalogue
from serve.library.connections import connect, transaction
from serve.library.errors import LibraryError
from serve.library.integrity import read_facts, refuse_damage
from serve.library.reports import CheckReport, Finding
from serve.library.schema import CHECKSUMS, COMMITTED, FILE, FORMAT, is_whole
from serve.library.upload_digests import folder_digest, folder_name_of
from serve.library.writer import Writer

if TYPE_CHECKING:
    from serve.library.library import Library

OpenLibrary = Callable[[], "Library"]
"""The function that opens the library with its model, for a repair that has to embed contents again."""
_RECORDS = {
    "removed": "dropped", "uploads": "given a new id", "texts": "dropped; index --ocr or --speech reads again",
    "marks": "dropped", "albums": "dropped", "members": "dropped"}  # fmt: skip
"""Table of records of one row each -> what is done about a damaged one."""
_MOST_OF_SQLITE = 20
"""The largest number of faults in the database's structure that are listed."""


def check(folder: Path, repair: bool = False, open_library: OpenLibrary | None = None) -> CheckReport:
    """Checks a library, and repairs it with `repair` -> the findings.

    `open_library` opens the library with its model. It is called only where something has to be embedded again; without
    it, such contents stay damaged. Raises WriterBusyError for `repair` while another process writes, and
    FileNotFoundError where there is no library.
    """
    if not folder.is_dir() or not any(os.path.lexists(folder / name) for name in (FILE, COMMITTED)):
        raise FileNotFoundError(f"there is no library in {folder}")
    run = _Check(folder, repair, open_library)
    run.all()
    return run.report


class _Check:
    def __init__(self, folder: Path, repair: bool, open_library: OpenLibrary | None) -> None:
        self.folder = folder
        self.report = CheckReport()
        self._repair = repair
        self._open_library = open_library
        # Path of a file to be read again -> what was damaged, and the folder that its row named.
        self._again: dict[str, tuple[str, str]] = {}

    def all(self) -> None:
        facts = self._facts()
        if facts is None:
            return
        try:
            opened = Catalogue(self.folder, facts["space"], facts["dim"], facts["model"])
        except LibraryError as error:  # the format is newer than this program, or cannot be migrated
            self._found("catalogue", str(error), "see there")
            return
        with closing(opened):
            if self._repair:
                with opened.write() as writer:
                    usable = self._catalogue(writer)
            else:
                with closing(connect(self.folder / FILE)) as connection:
                    usable = self._catalogue(Writer(connection, self.folder))
            self._indexes(facts)
            self._upload_files(opened)
            self._thumbnails()
        if self._repair and usable:
            self._read_again()
            self._rebuild_index()

    def _found(self, part: str, what: str, action: str, *, repaired: bool = False) -> None:
        if repaired and not self._repair:
            action = f"with --repair: {action}"
        self.report.findings.append(Finding(part, what, repaired and self._repair, action))

    # The catalogue

    def _facts(self) -> dict[str, Any] | None:
        """The facts of a catalogue that can be opened, after a repair accepted the differences that it accepts."""
        try:
            noted = integrity.committed(self.folder)
        except ValueError as error:
            self._found(COMMITTED, f"the file {error}", "written anew", repaired=True)
            noted = None
        try:
            refuse_damage(self.folder)
            with closing(connect(self.folder / FILE)) as connection:
                facts = read_facts(connection, self.folder)
                if facts["format"] >= FORMAT and (lost := integrity.lost_commits(connection, self.folder)):
                    self._found(FILE, lost, "what is left is accepted; index your folders again", repaired=True)
                    if not self._repair:
                        return None
                if self._repair and "library" in facts and noted != (facts["library"], facts["revision"]):
                    integrity.note_commit(self.folder, facts["library"], facts["revision"])
        except (LibraryError, sqlite3.DatabaseError) as error:
            self._found(FILE, str(error), "restore a backup, or index into a new library")
            return None
        return facts

    def _catalogue(self, writer: Writer) -> bool:
        """Checks and repairs the database -> whether it is whole now, as far as it can be."""
        connection = writer.connection
        try:
            faults = self._structure(connection)
            if faults and self._repair:
                with transaction(connection):
                    connection.execute("REINDEX")
                left = self._structure(connection)
                for fault in faults:
                    self._named(fault, repaired=fault not in left)
                if left:
                    return False
            elif faults:
                for fault in faults:
                    self._named(fault, repaired=False)
                return False
            self._words(writer)
            if not self._repair:
                connection.execute("BEGIN")  # all reads see one state, whatever is written in the meantime
            self._rows(writer)
            self._orphans(writer)
        except (sqlite3.DatabaseError, LibraryError) as error:
            self._named(str(error), repaired=False)
            return False
        return True

    def _named(self, fault: str, *, repaired: bool) -> None:
        action = "put in order again" if repaired else "restore a backup, or index into a new library"
        self._found(FILE, fault, action, repaired=repaired)

    def _structure(self, connection: sqlite3.Connection) -> list[str]:
        """The faults that SQLite finds in its pages."""
        try:
            rows = connection.execute(f"PRAGMA integrity_check({_MOST_OF_SQLITE})").fetchall()
            return [row[0] for row in rows if row[0] != "ok"]
        except sqlite3.DatabaseError as error:
            return [str(error)]

    def _rows(self, writer: Writer) -> None:
        """Finds rows that differ from what was written.

        Their files are read again, because their values cannot be trusted.
        """
        connection = writer.connection
        damaged = {table: self._damaged(connection, table) for table in CHECKSUMS}
        again: set[int] = set()
        for table, action in _RECORDS.items():
            for number in damaged[table]:
                self._found(FILE, f"the record {number} of {table} is damaged", action, repaired=True)
        again.update(damaged["contents"])
        for table in ("segments", "vectors"):
            for number in damaged[table]:
                owner = connection.execute("SELECT content FROM segments WHERE id = ?", (number,)).fetchone()
                if owner is not None:
                    again.add(owner[0])
                else:
                    self._found(
                        FILE, f"{table}: row {number} is damaged and belongs to nothing", "dropped", repaired=True
                    )
        missing = (
            "SELECT DISTINCT s.content FROM segments s LEFT JOIN vectors v ON v.segment = s.id WHERE v.segment IS NULL"
        )
        again.update(row[0] for row in connection.execute(missing))
        incomplete = (
            "SELECT id FROM contents c WHERE NOT EXISTS (SELECT 1 FROM segments s WHERE s.content = c.id) "
            "UNION SELECT content FROM segments s WHERE NOT EXISTS (SELECT 1 FROM contents c WHERE c.id = s.content) "
            "UNION SELECT content FROM files f WHERE content IS NOT NULL "
            "AND NOT EXISTS (SELECT 1 FROM contents c WHERE c.id = f.content)"
        )
        again.update(row[0] for row in connection.execute(incomplete))
        for content in sorted(again):
            self._note(connection, "content = ?", content, "its vectors, or what is known of them, are damaged")
        for number in damaged["files"]:
            self._note(connection, "id = ?", number, "what is known of it is damaged")
        if not self._repair:
            for path, (what, _) in self._again.items():
                self._found(FILE, f"{path}: {what}", "read again from its file", repaired=True)
            return
        with writer.transaction():
            connection.executemany("DELETE FROM members WHERE album = ?", [(one,) for one in damaged["albums"]])
            for table in [table for table in _RECORDS if table != "texts"]:
                one = f"DELETE FROM {table} WHERE {CHECKSUMS[table][0]} = ?"
                connection.executemany(one, [(number,) for number in damaged[table]])
            texts.drop(connection, f"id IN ({', '.join(map(str, damaged['texts']))})")
            writer.drop_contents(sorted(again), "its vectors were damaged")
            writer.remove_files(damaged["files"])
            connection.execute("DELETE FROM vectors WHERE segment NOT IN (SELECT id FROM segments)")
            writer.drop_orphans()
            writer.name_all_uploads()

    def _damaged(self, connection: sqlite3.Connection, table: str) -> list[Any]:
        """The keys of a table's rows that do not match their checksums, or have values of another type."""
        key = CHECKSUMS[table][0]
        wrong = f"SELECT {key} FROM {table} WHERE NOT {is_whole(table)}"
        self.report.looked_at[table] = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        try:
            return [row[0] for row in connection.execute(wrong)]
        except sqlite3.OperationalError:  # a text is no valid text
            found = []
            for (number,) in connection.execute(f"SELECT {key} FROM {table}").fetchall():
                try:
                    whole = not connection.execute(f"{wrong} AND {key} = ?", (number,)).fetchall()
                except sqlite3.OperationalError:
                    whole = False
                if not whole:
                    found.append(number)
            return found

    def _note(self, connection: sqlite3.Connection, condition: str, value: int, what: str) -> None:
        """Remembers the files of some rows, which are to be read again."""
        rows = connection.execute(
            f"SELECT CAST(path AS BLOB), CAST(folder AS BLOB) FROM files WHERE {condition}", (value,)
        ).fetchall()
        for key, folder in rows:
            # paths of kept files may be relative to the library
            path = os.path.join(self.folder, os.fsdecode(key or b""))
            self._again[path] = (what, os.fsdecode(folder or b""))
        if not rows:
            self._found(FILE, f"content {value}: {what}, and no file has it", "dropped", repaired=True)

    def _words(self, writer: Writer) -> None:
        """Compares the search over names and captions with the files that it is made from."""
        connection = writer.connection
        try:
            connection.execute("SAVEPOINT words")
            try:
                for table in ("words", "written"):
                    connection.execute(f"INSERT INTO {table} ({table}) VALUES ('integrity-check')")
            finally:
                connection.execute("ROLLBACK TO words")
                connection.execute("RELEASE words")
            wrong = writer.wrong_words()
        except sqlite3.DatabaseError as error:
            wrong = [str(error)]
        if not wrong:
            return
        what = f"the words of names, captions and lines are damaged ({wrong[0]})"
        self._found(FILE, what, "made anew", repaired=True)
        if self._repair:
            with writer.transaction():
                writer.rebuild_words()

    def _orphans(self, writer: Writer) -> None:
        """Finds rows that point to rows that do not exist."""
        for table, number, parent, _ in writer.connection.execute("PRAGMA foreign_key_check").fetchall():
            self._found(FILE, f"{table}: row {number} belongs to no row of {parent}", "see the other findings")

    # The files beside the catalogue

    def _indexes(self, facts: dict[str, Any]) -> None:
        place = OwnedFolder(self.folder, "index")
        names = [name for name in self._names(place) if name.isdigit()]
        self.report.looked_at["indexes"] = len(names)
        for name in names:
            try:
                if Index.verify(place.folder(name)) != (facts["space"], facts["dim"]):
                    raise ValueError("is of another space")
            except (OSError, ValueError, LookupError, RuntimeError, TypeError) as error:
                self._found(f"index/{name}", str(error), "made anew from the catalogue", repaired=True)
                if self._repair:
                    place.delete(name)

    def _upload_files(self, opened: Catalogue) -> None:
        """Compares the files that the library keeps with the digests that name their folders."""
        place = OwnedFolder(self.folder, uploads.FOLDER)
        names = [name for name in self._names(place) if not name.startswith(".")]
        for name in names:
            inside = place.folder(name)
            if folder_name_of(inside) == name or not self._is_known(name):
                continue
            part = f"{uploads.FOLDER}/{name}"
            sidecar = self._sidecar(inside, name)
            if sidecar is None:
                what = "a kept file or its sidecar is damaged or missing"
                self._found(part, what, "restore a backup, or add the file again")
                continue
            self._found(part, "the sidecar is damaged or missing", "written again from the catalogue", repaired=True)
            if self._repair:
                inside.delete(sidecar[0])
                with inside.create(sidecar[0]) as file:
                    file.write(sidecar[1])
        self.report.looked_at["kept files"] = len(names)

    def _is_known(self, name: str) -> bool:
        """Whether the catalogue has an upload in this folder; other folders were deleted or are being added at the
        moment.
        """
        with closing(connect(self.folder / FILE)) as connection, suppress(sqlite3.DatabaseError):
            prefix = os.fsencode(f"{uploads.FOLDER}/{name}/")
            return bool(connection.execute("SELECT 1 FROM files WHERE instr(path, ?)", (prefix,)).fetchall())
        return True

    def _sidecar(self, place: OwnedFolder, name: str) -> tuple[str, bytes] | None:
        """The name and the bytes of an upload's sidecar as the catalogue has it, where that sidecar makes the folder
        whole.
        """
        with closing(connect(self.folder / FILE)) as connection, suppress(sqlite3.DatabaseError, ValueError, OSError):
            rows = connection.execute(
                "SELECT f.path, f.caption, f.metadata, c.hints FROM files f JOIN contents c ON c.id = f.content "
                "WHERE instr(f.path, ?)",
                (os.fsencode(f"{uploads.FOLDER}/{name}/"),),
            ).fetchall()
            for key, caption, metadata, hints in rows:
                values = json.loads(metadata) | json.loads(hints) | ({"caption": caption} if caption else {})
                file, sidecar = os.path.basename(os.fsdecode(key)), json.dumps(values, sort_keys=True).encode()
                if folder_digest(place, file, sidecar) == name:
                    return f"{file}.json", sidecar
        return None

    def _thumbnails(self) -> None:
        place = OwnedFolder(self.folder, thumbnails.FOLDER)
        names = [name for name in self._names(place) if name.endswith(".jpg")]
        for name in names:
            try:
                with place.open(name) as file:
                    what = "" if thumbnails.is_whole(file.read()) else "the picture does not match its checksum"
            except OSError as error:
                what = str(error.strerror)
            if what:
                part = f"{thumbnails.FOLDER}/{name}"
                self._found(part, what, "deleted; made again when it is wanted", repaired=True)
                if self._repair:
                    place.delete(name)
        self.report.looked_at["thumbnails"] = len(names)

    def _names(self, place: OwnedFolder) -> list[str]:
        """The names in one of the library's folders. A folder that is a link, or no folder, is a finding."""
        try:
            return place.names()
        except OSError as error:
            self._found(place.path.name, str(error.strerror), "remove it: nothing in it is opened")
            return []

    # Repairs that need the whole library

    def _read_again(self) -> None:
        """Embeds the contents of damaged rows again, where their files exist."""
        if not self._again:
            return
        if self._open_library is None:
            for path, (what, _) in self._again.items():
                self._found(FILE, f"{path}: {what}", "forgotten; index its folder again")
            return
        with self._open_library() as library:
            for path, (what, folder) in self._again.items():
                reason = _read(library, path, folder)
                action = (
                    "read again from its file" if reason is None else f"forgotten ({reason}); index its folder again"
                )
                self._found(FILE, f"{path}: {what}", action, repaired=reason is None)

    def _rebuild_index(self) -> None:
        """Writes the index again where an index was damaged."""
        if self._open_library is not None and any(f.part.startswith("index/") for f in self.report.findings):
            with self._open_library() as library:
                library.save_index()


def _read(library: Library, path: str, folder: str) -> str | None:
    """Makes a file searchable again, as a file of the indexed folder `folder` -> the reason where that fails, else
    None.
    """
    try:
        if not os.path.isfile(path):
            return "the file is gone, or its path is damaged"
        key = uploads.key_of(path, library.folder)
        if key.startswith(b"/"):
            return library.read_again(path, folder)
        _, place, name = os.fsdecode(key).split("/")
        inside = OwnedFolder(library.folder, uploads.FOLDER).folder(place)
        if folder_name_of(inside) != place:
            return "the kept file is damaged"
        metadata = {}
        if inside.check(f"{name}.json"):
            with inside.open(f"{name}.json") as sidecar:
                metadata = json.loads(sidecar.read())
        with inside.open(name) as content:
            library.add(content, name, metadata)
        return None
    except (ValueError, OSError) as error:
        return str(error)
