"""Folders that change in one atomic step: files are written to a new generation, and then a pointer is switched to it.

- FOLDER/CURRENT                    the current generation's name and the SHA-256 of its SHA256SUMS
- FOLDER/generation-…/SHA256SUMS    one line for each file, as `sha256sum --check` reads it
- FOLDER/generation-…/…             the files
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from bind.files import SUMS, format_sums, parse_sums
from bind.owned import NotOwnedError, OwnedFolder

_POINTER = "CURRENT"
"""The file that names the current generation; a switch replaces it in one step."""
_PREFIX = "generation-"
"""What names of generations begin with; nothing else in the folder is ever deleted."""


class CorruptFile(ValueError):
    """A stored file that is damaged or missing: `path` names it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[CorruptFile], tuple[Path, str]]:
        return type(self), (self.path, self.reason)


class HashedFile:
    """A binary file that is being written, with the SHA-256 of the bytes written so far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        """Appends bytes."""
        self.digest.update(data)
        self._file.write(data)


class NewGeneration:
    """A generation that is being written, inside a `write_generation` block."""

    def __init__(self, folder: OwnedFolder) -> None:
        self.folder = folder
        self.sums: dict[str, str] = {}

    @contextmanager
    def file(self, name: str) -> Iterator[HashedFile]:
        """A new file; when the block ends, the file is on the disk and not only in the system's cache."""
        with self.folder.create(name) as file:
            out = HashedFile(file)
            yield out
            file.flush()
            os.fsync(file.fileno())
        self.sums[name] = out.digest.hexdigest()


@contextmanager
def write_generation(folder: OwnedFolder) -> Iterator[NewGeneration]:
    """A block that writes the files of a new generation; when it ends, they become current and older generations go.

    An exception, a crash or a full disk at any moment leaves the previous generation current and complete. Only the
    last step, syncing the folder, comes after the switch. One process may write at a time. Raises OSError.
    """
    folder.make()
    name = f"{_PREFIX}{uuid.uuid4().hex}"
    new = NewGeneration(folder.folder(name).make())
    try:
        yield new
        listing = format_sums(new.sums)
        with new.file(SUMS) as out:
            out.write(listing)
        with new.file(_POINTER) as out:
            out.write(f"{name} {hashlib.sha256(listing).hexdigest()}\n".encode())
        new.folder.sync()
        new.folder.replace(_POINTER, folder, _POINTER)
    except BaseException:
        folder.delete(name)
        raise
    folder.sync()
    for old in folder.names():
        if old.startswith(_PREFIX) and old != name:
            folder.delete(old)  # a reader that has a file open or mapped keeps it


class Generation:
    """The current generation of a folder. Raises FileNotFoundError without one, CorruptFile for a damaged listing.

    Reading a missing file raises CorruptFile. It raises FileNotFoundError where a writer has replaced the generation in
    the meantime; `is_current` is then False, and the caller opens the folder again.
    """

    def __init__(self, folder: OwnedFolder) -> None:
        self._folder = folder
        self._pointer = _read_pointer(folder)
        name, _, digest = self._pointer.strip().partition(" ")
        if not name.startswith(_PREFIX) or Path(name).name != name:
            raise CorruptFile(folder.path / _POINTER, "does not name a generation")
        self._inside = folder.folder(name)
        self._sums = {SUMS: digest}
        self._sums |= parse_sums(self.read(SUMS))  # the digest of SHA256SUMS itself matched

    def is_current(self) -> bool:
        """Whether this is still the generation that the folder points to."""
        return _read_pointer(self._folder) == self._pointer

    @contextmanager
    def sized(self, name: str, size: int) -> Iterator[BinaryIO]:
        """A file of `size` bytes, open; its content is not checked. Raises CorruptFile for another size."""
        with self._opened(name) as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                raise CorruptFile(self._inside.path / name, f"has {found} bytes, expected {size}")
            yield file

    @contextmanager
    def open(self, name: str) -> Iterator[BufferedReader]:
        """A file whose hash matched, open at its start, so that nobody can exchange it after the check.

        Raises CorruptFile.
        """
        with self._opened(name) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != self._sums.get(name):
                raise CorruptFile(self._inside.path / name, "its SHA-256 is not the recorded one")
            file.seek(0)
            yield file

    def verify(self) -> None:
        """Compares the hashes of all files. Raises CorruptFile."""
        for name in self._sums:
            with self.open(name):
                pass

    def read(self, name: str) -> bytes:
        """The bytes of a file whose hash matched. Raises CorruptFile."""
        with self.open(name) as file:
            return file.read()

    def _opened(self, name: str) -> BufferedReader:
        path = self._inside.path / name
        try:
            return self._inside.open(name)
        except NotOwnedError as error:
            raise CorruptFile(path, error.reason) from None
        except FileNotFoundError:
            if not self.is_current():
                raise
            raise CorruptFile(path, "is missing") from None


def _read_pointer(folder: OwnedFolder) -> str:
    try:
        with folder.open(_POINTER) as file:
            return file.read(1024).decode("ascii")
    except NotOwnedError as error:
        raise CorruptFile(error.path, error.reason) from None
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{folder.path}: nothing is stored here (no file {_POINTER})") from None
    except UnicodeDecodeError:
        raise CorruptFile(folder.path / _POINTER, "does not name a generation") from None
