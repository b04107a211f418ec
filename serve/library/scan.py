"""The files of a folder: the walk lists files without opening them; `probe` opens those that are new."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from bind import modalities
from preprocess import companions, sidecar
from preprocess.decoding.protocol import others_of, stands_for
from preprocess.files import IrregularFileError, open_regular
from preprocess.source import Hints, Limits, MediaError, Source
from serve.library.places import place_of
from serve.library.rules import BY_NAME, IGNORE_FILE, NO_MEDIA, FolderRules, Rules, relative

_HAS_PROC = os.path.isdir("/proc/self/fd")  # Linux names the real path of an open file
_TABLES = (".csv", ".tsv", ".parquet")
"""Ends of names of files that may be read as one with others beside them."""


@dataclass(frozen=True)
class Found:
    """A file as its folder lists it. `path` is absolute, bytes that are no UTF-8 in it as surrogate escapes.

    `folder` is relative to the indexed one ('' for that itself). The stamp of `size_bytes`, `mtime_ns` and `sidecar`
    (those of `NAME.json` and other files that describe it or are read with it, '' without one) tells if it changed.
    Where links out of a folder are left out, `inside` is that folder's real path.
    """

    path: str
    folder: str
    size_bytes: int
    mtime_ns: int
    sidecar: str
    inside: str | None = None


@dataclass(frozen=True)
class Unlisted:
    """A file or folder that could not be read, and the reason. What lies below it is unknown."""

    path: str
    reason: str


@dataclass(frozen=True)
class LeftOut:
    """A link that leads out of the indexed folder."""

    path: str


@dataclass(frozen=True)
class Excluded:
    """A file or folder that a rule (see `serve.library.rules`) leaves out."""

    path: str
    rule: str


@dataclass(frozen=True)
class Unfollowed:
    """A link to a folder that a walk over some places of a root leaves to a walk over all of it."""

    path: str


@dataclass(frozen=True)
class Probed:
    """What a file is: the SHA-256 of its bytes and of the files that are read with it, its modality, the hints and free
    metadata of its sidecars.

    `others` of the metadata are from the sidecars of other programs; `notes` say what was left out or assumed.
    `identity` (device, inode, time of change in ns) is that of the file that was hashed.
    """

    found: Found
    identity: tuple[int, int, int]
    digest: bytes
    modality: str
    hints: Hints
    metadata: dict[str, Any]
    others: dict[str, Any]
    notes: tuple[str, ...]


class TemporaryError(MediaError):
    """A file that could not be used this time; trying again may help."""


def walk(
    root: str,
    without: Path,
    follow_links: bool = True,
    rules: Rules | None = None,
    places: Sequence[str] | None = None,
) -> Iterator[Found | Unlisted | LeftOut | Excluded | Unfollowed]:
    """The absolute path of a folder (or file) -> the files below it, sidecars and `without` left out.

    Links to files stand for the files. Folders behind links come after all others; each folder is listed once, however
    many links lead to it, and one that contains `root` is not followed out of it. Without `follow_links`, those that
    lead out of `root` are left out. What the rules leave out is said and not looked into; without `rules`, the default
    ones hold. One folder's names of folders are held in memory, never its files.

    With `places` (absolute paths of files and folders in `root`) only those are looked at; the ones that do not exist
    are passed over, and so are links to folders. Raises FileNotFoundError when `root` does not exist.
    """
    status = os.stat(root)
    if not stat.S_ISDIR(status.st_mode):
        yield _found(root, "")  # the caller's word, wherever it leads
        return
    inside_of = None if follow_links else os.path.realpath(root)
    listed = {(status.st_dev, status.st_ino), *_identities(os.path.realpath(root)), *_identities(str(without))[:1]}
    top = (rules or Rules()).at(root)
    waiting: list[FolderRules] = []
    links: list[tuple[FolderRules, str]] = []
    if places is None:
        waiting.append(top)
    else:
        for place in places:
            yield from _place(place, top, inside_of, listed, waiting)
    while waiting or links:
        here = waiting.pop() if waiting else _follow(*links.pop(), listed)
        if here is None:
            continue
        inside: list[str] = []
        linked: list[str] = []
        path = os.path.join(root, here.folder)
        yield from _listed(path, here, inside_of, listed, inside, linked)
        waiting.extend(here.below(name) for name in sorted(inside, reverse=True))
        if places is None:
            links.extend((here, name) for name in linked)
        else:
            for name in linked:
                yield Unfollowed(os.path.join(path, name))


def _listed(
    path: str,
    here: FolderRules,
    inside_of: str | None,
    listed: set[tuple[int, int]],
    inside: list[str],
    linked: list[str],
) -> Iterator[Found | Unlisted | LeftOut | Excluded]:
    """The entries of one folder; the names of folders in it, and of links to folders, are noted."""
    try:
        if here.has_no_media():
            yield Excluded(path, NO_MEDIA)
            return
        left_out, by_name = here.left_out, here.is_plain
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                # Nearly all names are plain ones: only others are looked at closely.
                is_plain = by_name and name[0] != "." and name.lower() not in BY_NAME
                rule = None if is_plain else left_out(name, not by_name and _is_folder(entry))
                if rule is None:
                    yield from _entry(entry, here.folder, inside_of, listed, inside, linked)
                elif name != IGNORE_FILE:
                    yield Excluded(entry.path, rule)
    except OSError as error:
        yield Unlisted(path, f"the folder could not be listed: {error.strerror}")


def _place(
    path: str, top: FolderRules, inside_of: str | None, listed: set[tuple[int, int]], waiting: list[FolderRules]
) -> Iterator[Found | Unlisted | LeftOut | Excluded | Unfollowed]:
    """A file or folder in the root, with the rules of the folders above; a folder waits to be listed."""
    here = top
    *above, last = relative(path, top.root).split(os.sep)
    for name in (*above, last):
        entry = Named(os.path.join(top.root, here.folder, name))
        try:
            is_folder = entry.is_dir()
            if is_folder and entry.is_symlink():
                yield Unfollowed(entry.path)
                return
        except OSError:
            return
        if here.has_no_media():
            yield Excluded(entry.path, NO_MEDIA)
            return
        if name and (rule := here.left_out(name, is_folder)) is not None:
            yield Excluded(entry.path, rule)
            return
        if not is_folder:
            if os.path.lexists(entry.path):
                yield from _entry(entry, here.folder, inside_of, listed, [], [])
            return
        here = here.below(name) if name else here
    if here is not top:
        identity = _identities(os.path.join(top.root, here.folder))[:1]
        if not identity or identity[0] in listed:
            return
        listed.add(identity[0])
    waiting.append(here)


def probe(found: Found, limits: Limits) -> Probed:
    """Opens, recognises and hashes a file, reads its sidecar. Raises MediaError, a TemporaryError where it may pass."""
    own, others, notes = _sidecars(found) if found.sidecar else (sidecar.Sidecar(), {}, ())
    hints = own.hints
    try:
        file = _open(found.path, found.inside)
    except OSError as error:
        raise TemporaryError(found.path, f"could not be opened: {error.strerror}") from None
    with file:
        modality, doubts = modalities.recognise(Source(Path(found.path), found.path, hints), limits)
        if (whole := stands_for(modalities.spec(modality).read, found.path)) != found.path:
            raise MediaError(found.path, f"is a part of the recording {os.path.basename(whole)}, with which it is read")
        if modality == "video" and (still := companions.still_of(found.path)):
            raise MediaError(
                found.path, f"is the moving part of the live photo {os.path.basename(still)}, with which it is one item"
            )
        try:
            digest = hashlib.file_digest(file, "sha256").digest()
            for part in _parts(found.path):
                with _open(part, found.inside) as other:
                    digest = hashlib.sha256(digest + hashlib.file_digest(other, "sha256").digest()).digest()
        except OSError as error:
            raise TemporaryError(found.path, f"could not be read: {error.strerror}") from None
        identity = _identity(os.fstat(file.fileno()))
    return Probed(found, identity, digest, modality, hints, own.metadata, others, (*notes, *doubts))


def changed(probed: Probed) -> str | None:
    """The reason why a file is no longer the one that was hashed; None if it still is."""
    found = probed.found
    try:
        status = os.stat(found.path)
        now = _found(found.path, found.folder, status, found.inside)
    except OSError as error:
        return f"went away while it was read ({error.strerror})"
    # Its inode and its time of change, which no program can choose: nobody has put another file in between.
    return (
        None
        if now == found and _identity(status) == probed.identity
        else "changed while it was read; index again once it is complete"
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


class Named:
    """The counterpart of `os.DirEntry` for an entry of which only the path is known. Links are followed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = os.path.basename(path)

    def is_symlink(self) -> bool:
        """Whether it is a link."""
        return os.path.islink(self.path)

    def is_dir(self) -> bool:
        """Whether it is a folder, or a link to one."""
        return os.path.isdir(self.path)

    def stat(self) -> os.stat_result:
        """Its size and times. Raises OSError."""
        return os.stat(self.path)


def _follow(here: FolderRules, link: str, listed: set[tuple[int, int]]) -> FolderRules | None:
    """The rules behind a link when the folder there is still to be listed."""
    identity = _identities(os.path.join(here.root, here.folder, link))[:1]
    if not identity or identity[0] in listed:
        return None
    listed.add(identity[0])
    return here.below(link)


def _entry(
    entry: os.DirEntry[str] | Named,
    folder: str,
    inside_of: str | None,
    listed: set[tuple[int, int]],
    inside: list[str],
    links: list[str],
) -> Iterator[Found | Unlisted | LeftOut]:
    try:
        if entry.is_symlink() and _leads_out(entry.path, inside_of):
            yield LeftOut(entry.path)
            return
        status = entry.stat()
        if stat.S_ISDIR(status.st_mode):
            identity = (status.st_dev, status.st_ino)
            if entry.is_symlink():
                links.append(entry.name)  # its turn, and the check of `listed`, come when all real folders are known
            elif identity not in listed:
                listed.add(identity)
                inside.append(entry.name)
        elif not stat.S_ISREG(status.st_mode):
            yield Unlisted(entry.path, "is not a regular file (a pipe, socket or device)")
        elif not companions.describes_another(entry.path):
            yield _found(entry.path, folder, status, inside_of)
    except OSError as error:
        broken = entry.is_symlink() and isinstance(error, FileNotFoundError)
        yield Unlisted(entry.path, "is a link to a missing file" if broken else f"could not be read: {error.strerror}")


def _found(path: str, folder: str, status: os.stat_result | None = None, inside: str | None = None) -> Found:
    status = status or os.stat(path)
    stamps = []
    for place, other in enumerate((path + ".json", *companions.beside(path), *_parts(path))):
        with contextlib.suppress(OSError):
            side = os.stat(other)
            if not _leads_out(other, inside):
                name = f"{os.path.basename(other)}:" if place else ""
                stamps.append(f"{name}{side.st_mtime_ns}:{side.st_size}")
    return Found(path, folder, status.st_size, status.st_mtime_ns, "|".join(stamps), inside)


def _parts(path: str) -> list[str]:
    """The other files of the recording that a file belongs to by its name."""
    if not path.lower().endswith(_TABLES):
        return []
    return [part for spec in modalities.specs().values() for part in others_of(spec.read, path)]


def _leads_out(path: str, inside: str | None) -> bool:
    """Whether a path, with all links followed, leads out of a folder."""
    return inside is not None and not Path(os.path.realpath(path)).is_relative_to(inside)


def _open(path: str, inside: str | None) -> BufferedReader:
    """Opens a regular file. Raises OSError, and IrregularFileError, also for a file that lies outside of `inside`."""
    file = os.fdopen(open_regular(path), "rb")
    try:
        # Where the descriptor leads, not where the path does by now.
        real = os.readlink(f"/proc/self/fd/{file.fileno()}") if _HAS_PROC else os.path.realpath(path)
        if inside is not None and not Path(real).is_relative_to(inside):
            raise IrregularFileError(errno.EPERM, "became a link that leads out of the folder", path)
    except BaseException:
        file.close()
        raise
    return file


def _identities(path: str) -> list[tuple[int, int]]:
    """(device, inode) of a folder and of those above it."""
    found = []
    for folder in (Path(path), *Path(path).parents):
        try:
            status = os.stat(folder)
        except OSError:
            continue
        found.append((status.st_dev, status.st_ino))
    return found


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_dev, status.st_ino, status.st_ctime_ns


def _sidecars(found: Found) -> tuple[sidecar.Sidecar, dict[str, Any], tuple[str, ...]]:
    """The content of the files beside a medium: our sidecar, sidecars of other programs, and notes on both."""
    path = found.path
    for other in (f"{path}.json", *companions.beside(path)):
        if _leads_out(other, found.inside):
            raise TemporaryError(
                path, f"{os.path.basename(other)} beside it became a link that leads out of the folder"
            )
    try:
        own = sidecar.read(path)
        others, notes = companions.read(path)
        foreign = companions.of_json(own.metadata)
    except OSError as error:
        name = os.path.basename(str(error.filename or f"{path}.json"))
        raise TemporaryError(path, f"its sidecar {name} could not be read: {error.strerror}") from None
    if place := place_of(foreign or others):
        others = others | {"place": place}
    if foreign is not None:  # Takeout's has the name of ours
        return sidecar.Sidecar(own.hints), foreign | others, notes
    return own, others, (*own.notes, *notes)
