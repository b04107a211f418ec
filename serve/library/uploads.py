"""Uploads: files in the library's own folder. Each has a folder of its own, which appears complete or not at all.

A file is written to `files/.incoming-ID/`, entered into the catalogue as `files/ID/NAME`, and only then does its folder
get that name. So a folder that is still called `.incoming-` and is not in the catalogue was never finished, and only
such folders are deleted. Paths in the catalogue are relative to the library, which may be moved, copied or reached
through a link.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sqlite3
import unicodedata
import uuid
from collections.abc import Callable, Mapping
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from bind.owned import NotOwnedError, OwnedFolder
from preprocess.sidecar import MAX_SIDECAR_BYTES, Hints
from preprocess.source import Limits, MediaError

FOLDER = "files"
"""The folder of a library that holds what was uploaded."""
_INCOMING = ".incoming-"
"""What names of uploads begin with until they are committed."""
_ID = re.compile(r"[0-9a-f]{32}")
"""The random name of an upload's folder, which cannot be guessed or chosen."""
_CHUNK_BYTES = 2**20
"""Bytes of an upload that are read and hashed in one go."""
_NAME_BYTES = 180
"""The largest length of a name: file systems allow 255 bytes, and the sidecar's suffix and more must fit."""


def safe_name(name: str) -> str:
    r"""What somebody calls a file -> a name without folders, that no system takes for anything else.

    >>> safe_name("../../etc/passwd"), safe_name("C:\\x\\my dog.jpg"), safe_name("..")
    ('passwd', 'my dog.jpg', 'file')
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    clean = "".join(c for c in last if c.isprintable() and c not in '<>:"|?*').strip(" .") or "file"
    stem, suffix = os.path.splitext(clean)
    encoded, end = stem.encode("utf-8", "ignore"), suffix.encode("utf-8", "ignore")[:16]
    return (encoded[: _NAME_BYTES - len(end)] + end).decode("utf-8", "ignore") or "file"


def key_of(path: str, library: Path) -> bytes:
    """The absolute path of a file -> its key in the catalogue, which is relative to the library for an upload."""
    inside = os.path.relpath(path, library).split(os.sep) if path.startswith(f"{library}{os.sep}") else []
    if len(inside) == 3 and inside[0] == FOLDER:
        return os.fsencode("/".join((FOLDER, inside[1].removeprefix(_INCOMING), inside[2])))
    return os.fsencode(path)


def path_of(key: bytes, library: Path) -> str:
    """A key that `key_of` made -> the absolute path, where the library lies now."""
    return os.fsdecode(key) if key.startswith(b"/") else os.path.join(library, os.fsdecode(key))


class Uploads:
    """The uploads of the library in the folder `library`. One writer at a time."""

    def __init__(self, library: Path) -> None:
        self.folder = library / FOLDER
        self._owned = OwnedFolder(library, FOLDER)

    def put(self, content: IO[bytes], name: str, metadata: Mapping[str, Any], limits: Limits) -> Path:
        """Stores a file with its sidecar -> its path until `finish`, which is the same for the same file, name and
        metadata.

        Raises MediaError for a file that is empty, above `limits.max_bytes` or has unusable metadata; OSError.
        """
        name = safe_name(name)
        sidecar = _sidecar(name, metadata)
        Hints.from_mapping(dict(metadata), name)  # said on purpose: what is wrong with it is no matter of a note
        aside = f"{_INCOMING}{uuid.uuid4().hex}.part"
        place = self._owned.make().folder(aside).make()
        try:
            digest = hashlib.sha256(name.encode() + b"\0" + sidecar + b"\0")
            size = 0
            with place.create(name) as file:
                while block := content.read(_CHUNK_BYTES):
                    size += len(block)
                    if size > limits.max_bytes:
                        raise MediaError(name, f"has more than {limits.max_bytes:,} bytes (max_bytes)")
                    digest.update(block)
                    file.write(block)
                _sync(file)
            if size == 0:
                raise MediaError(name, "is empty (0 bytes)")
            if sidecar:
                with place.create(f"{name}.json") as file:
                    file.write(sidecar)
                    _sync(file)
            place.sync()
            incoming = f"{_INCOMING}{digest.hexdigest()[:32]}"
            self._owned.delete(incoming)
            self._owned.replace(aside, self._owned, incoming)
            self._owned.sync()
        finally:
            self._owned.delete(aside)
        return self.folder / incoming / name

    def finish(self, incoming: Path) -> Path:
        """Gives what `put` stored, and the catalogue has now, its name -> its path. Raises OSError."""
        name = incoming.parent.name.removeprefix(_INCOMING)
        self._owned.delete(name)  # an earlier copy may be damaged
        self._owned.replace(incoming.parent.name, self._owned, name)
        self._owned.sync()
        return self.folder / name / incoming.name

    def open(self, key: bytes) -> BufferedReader:
        """The key of an upload in the catalogue -> its open file. Raises OSError, also for any other key."""
        try:
            folder, place, name = os.fsdecode(key).split("/")
            if folder != FOLDER:
                raise ValueError
            try:
                return self._owned.folder(place).open(name)
            except FileNotFoundError:  # the upload is committed, and not yet renamed
                return self._owned.folder(_INCOMING + place).open(name)
        except ValueError:
            raise FileNotFoundError(f"{os.fsdecode(key)} is no file that the library keeps") from None

    def drop(self, path: Path) -> None:
        """Deletes an upload with its sidecar; a path that is not an upload's is not touched."""
        if path.parent.parent == self.folder:
            name = path.parent.name.removeprefix(_INCOMING)
            for place in (name, _INCOMING + name):
                self._owned.delete(place)

    def discard(self, incoming: Path) -> None:
        """Deletes a file that `put` stored and that was not entered into the catalogue."""
        if incoming.parent.parent == self.folder and incoming.parent.name.startswith(_INCOMING):
            self._owned.delete(incoming.parent.name)

    def sweep(self, is_wanted: Callable[[Path], bool]) -> None:
        """Finishes or deletes what interrupted calls left unfinished; nothing else is touched. Raises OSError."""
        for place in self._owned.names():
            if not place.startswith(_INCOMING):
                continue
            name = place.removeprefix(_INCOMING)
            files: list[str] = []
            if _ID.fullmatch(name):
                with contextlib.suppress(NotOwnedError):
                    files = self._owned.folder(place).names()
            if any(is_wanted(self.folder / name / file) for file in files):
                self.finish(self.folder / place / "x")
            else:
                self._owned.delete(place)


def make_upload_paths_relative(connection: sqlite3.Connection, folder: Path) -> None:
    """Makes absolute paths of uploads in catalogues of format 1 relative, wherever the library lay then.

    A row is an upload's when the library still has its file. The caller has begun a transaction.
    """
    owned = OwnedFolder(folder, FOLDER)
    for number, path in connection.execute("SELECT id, path FROM files WHERE substr(path, 1, 1) = X'2F'").fetchall():
        parts = os.fsdecode(path).split("/")[-3:]
        if len(parts) < 3 or parts[0] != FOLDER or not _ID.fullmatch(parts[1]):
            continue
        try:
            if owned.folder(parts[1]).check(parts[2]) is None:
                continue
        except (OSError, ValueError):
            continue
        key = "/".join(parts)
        stored = os.fsencode(key)
        if connection.execute("SELECT 1 FROM files WHERE path = ?", (stored,)).fetchone():
            # The library was moved and the same file was uploaded again: one of them is enough.
            connection.execute("DELETE FROM words WHERE rowid = ?", (number,))
            connection.execute("DELETE FROM files WHERE id = ?", (number,))
            continue
        shown = stored.decode("utf-8", "replace")
        connection.execute("UPDATE files SET path = ?, shown = ? WHERE id = ?", (stored, shown, number))


def _sidecar(name: str, metadata: Mapping[str, Any]) -> bytes:
    if not metadata:
        return b""
    try:
        written = json.dumps(dict(metadata), sort_keys=True, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise MediaError(name, f"its metadata cannot be written as JSON: {error}") from None
    if len(written) > MAX_SIDECAR_BYTES:
        raise MediaError(name, f"its metadata has more than {MAX_SIDECAR_BYTES:,} bytes")
    return written


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
