"""A library in one file: a tar archive of its catalogue, the files that it keeps and their checksums.

The index and the thumbnails are derived data, so they are made again and not copied. Nobody has to wait for a backup:
the catalogue is copied as it was at one moment (SQLite's backup). A kept file that is deleted while the backup runs is
left out of the copied catalogue too.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sqlite3
import tarfile
import tempfile
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from bind.files import SUMS, format_sums, parse_sums, sha256, sync
from bind.owned import OwnedFolder
from serve.library import integrity, uploads
from serve.library.catalogue import Catalogue
from serve.library.connections import connect
from serve.library.errors import LibraryError
from serve.library.schema import COMMITTED, FILE
from serve.library.upload_digests import folder_name_of
from serve.library.writer import Writer

_MTIME = "CROSSBIND.mtime_ns"
"""The header of a member that has its file's time of change in nanoseconds; tar itself has seconds."""


@dataclass(frozen=True)
class BackupReport:
    """The numbers of files that the library knows and that it keeps, the `revision` that was copied, and the size in
    bytes.
    """

    files: int
    kept: int
    revision: int
    size_bytes: int


def backup(folder: Path, out: Path) -> BackupReport:
    """Copies a library, in use or not, to a file, which appears complete or not at all. Raises LibraryError, OSError.

    An earlier file of that name is replaced.
    """
    if os.path.lexists(out) and not out.is_file():
        raise LibraryError(f"{out} is no regular file; name a new file for the backup")
    facts = Catalogue.peek(folder)
    if not facts:
        raise LibraryError(f"there is no library in {folder}")
    # this migrates the catalogue, and checks that it is not behind its commits
    Catalogue(folder, facts["space"], facts["dim"], facts["model"]).close()
    descriptor, name = tempfile.mkstemp(prefix=f".{out.name}-", dir=out.absolute().parent)
    aside = Path(name)
    try:
        with tempfile.TemporaryDirectory(prefix="crossbind-backup-") as temporary, os.fdopen(descriptor, "wb") as file:
            copy = Path(temporary)
            _copy_catalogue(folder, copy)
            sums: dict[str, str] = {}
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                copied = _add_uploads(folder, archive, sums)
                report = _finish_catalogue(copy, copied)
                for member in (FILE, COMMITTED):
                    archive.add(copy / member, member)
                    sums[member] = sha256(copy / member)
                listing = format_sums(sums)
                info = tarfile.TarInfo(SUMS)
                info.size = len(listing)
                archive.addfile(info, io.BytesIO(listing))
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, out)
        sync(out.absolute().parent)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return BackupReport(report[0], len({name.split("/")[1] for name in copied}), report[1], out.stat().st_size)


def restore(file: Path, folder: Path) -> None:
    """Restores a library from a backup in a folder that must not exist yet; it appears complete or not at all.

    Raises LibraryError for a file that is damaged or no backup, and for an existing folder; OSError.
    """
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise LibraryError(f"{folder} is there already; name a new folder to restore into")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        try:
            found = _extract(file, aside)
        except (tarfile.TarError, ValueError, EOFError) as error:
            raise LibraryError(f"{file} is damaged or no backup of a library: {error}") from None
        sums = parse_sums(found.pop(SUMS, b""))
        wrong = sorted(name for name in {*sums, *found} if name not in found or sha256(aside / name) != sums.get(name))
        if FILE not in sums or wrong:
            raise LibraryError(f"{file} is damaged: {wrong[0] if wrong else SUMS} does not match its checksum")
        for place in {aside, *(path.parent for path in map(aside.joinpath, found))}:
            sync(place)
        aside.chmod(0o755)
        os.replace(aside, folder)  # an empty folder may be there
        sync(folder.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _copy_catalogue(folder: Path, copy: Path) -> None:
    (copy / FILE).touch()
    try:
        with closing(connect(folder / FILE)) as source, closing(connect(copy / FILE)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode = WAL")
    except sqlite3.DatabaseError as error:
        raise LibraryError(f"{folder / FILE} could not be copied: {error}; run crossbind check {folder}") from None


def _add_uploads(folder: Path, archive: tarfile.TarFile, sums: dict[str, str]) -> set[str]:
    """Adds the kept files -> their names, as `files/ID/NAME`. A file that is deleted in the meantime is left out."""
    place = OwnedFolder(folder, uploads.FOLDER)
    copied: set[str] = set()
    not_whole = []
    for name in place.names():
        if name.startswith("."):
            continue
        if folder_name_of(place.folder(name)) == name:
            copied |= _add_folder(place.folder(name), name, archive, sums)
        else:
            not_whole.append(name)
    # Such a file is about to be deleted, and then nobody knows it any more, or it is damaged, which is no reason to
    # leave it out.
    with closing(connect(folder / FILE)) as connection:
        known = b"\0".join(row[0] for row in connection.execute("SELECT path FROM files"))
    for name in not_whole:
        if os.fsencode(f"{uploads.FOLDER}/{name}/") in known:
            copied |= _add_folder(place.folder(name), name, archive, sums)
    return copied


def _add_folder(place: OwnedFolder, folder: str, archive: tarfile.TarFile, sums: dict[str, str]) -> set[str]:
    """Adds one kept file and its sidecar -> their names; nothing where the file is deleted in the meantime."""
    with ExitStack() as stack:
        try:
            contents = {
                f"{uploads.FOLDER}/{folder}/{name}": stack.enter_context(place.open(name)) for name in place.names()
            }
        except OSError:
            return set()
        for name, content in contents.items():
            info = archive.gettarinfo(arcname=name, fileobj=content)
            # A tar's own time is a float, which is too coarse to recognise the file by.
            info.pax_headers = {_MTIME: str(os.fstat(content.fileno()).st_mtime_ns)}
            sums[name] = hashlib.file_digest(content, "sha256").hexdigest()
            content.seek(0)
            archive.addfile(info, content)
        return set(contents)


def _finish_catalogue(copy: Path, copied: set[str]) -> tuple[int, int]:
    """Removes files from the copied catalogue that were deleted before they could be copied -> (files, revision)."""
    with closing(connect(copy / FILE)) as connection:
        writer = Writer(connection, copy)
        gone = []
        for number, key in connection.execute("SELECT id, path FROM files").fetchall():
            if not key.startswith(b"/") and os.fsdecode(key) not in copied:
                gone.append(number)
        if gone:
            with writer.transaction():
                writer.remove_files(gone)
                writer.drop_orphans()
        facts = dict(connection.execute("SELECT key, value FROM facts"))
        (count,) = connection.execute("SELECT count(*) FROM files WHERE content IS NOT NULL").fetchone()
    integrity.note_commit(copy, facts["library"], facts["revision"])
    return count, facts["revision"]


def _extract(file: Path, aside: Path) -> dict[str, bytes]:
    """Writes a backup's members below a folder -> their names, and the content of the list of checksums."""
    found: dict[str, bytes] = {}
    with tarfile.open(file, "r:") as archive:
        for member in archive:
            parts = member.name.split("/")
            inside = member.name in (FILE, COMMITTED, SUMS) or (len(parts) == 3 and parts[0] == uploads.FOLDER)
            if not (inside and member.isreg() and not {"", ".", ".."} & set(parts) and member.name not in found):
                raise ValueError(f"{member.name!r} is no part of a library")
            content = archive.extractfile(member)
            assert content is not None
            if member.name == SUMS:
                found[SUMS] = content.read(2**30)
                continue
            target = aside / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "xb") as out:
                shutil.copyfileobj(content, out, 2**20)
                out.flush()
                os.fsync(out.fileno())
            if parts[0] == uploads.FOLDER:
                changed_ns = int(member.pax_headers.get(_MTIME, int(member.mtime) * 10**9))
                os.utime(target, ns=(changed_ns, changed_ns))
            found[member.name] = b""
    return found
