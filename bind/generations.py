"""Folders that change in one atomic step: files written aside with their hashes, and a pointer to the current set.

- FOLDER/CURRENT                    the current generation's name and the SHA-256 of its SHA256SUMS
- FOLDER/generation-…/SHA256SUMS    one line a file, as `sha256sum --check` reads it
- FOLDER/generation-…/…             the files
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bind.files import SUMS, format_sums, parse_sums, sync

_POINTER = "CURRENT"
_PREFIX = "generation-"


class CorruptFile(ValueError):
    """A stored file that is damaged or missing: `path` names it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[CorruptFile], tuple[Path, str]]:
        return type(self), (self.path, self.reason)


class HashedFile:
    """A binary file being written, and the SHA-256 of what was."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        """Appends bytes."""
        self.digest.update(data)
        self._file.write(data)


class NewGeneration:
    """A generation being written, inside `write_generation`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sums: dict[str, str] = {}

    @contextmanager
    def file(self, name: str) -> Iterator[HashedFile]:
        """A new file that is on the disk, not only in its cache, when the block ends."""
        with open(self.path / name, "xb") as file:
            out = HashedFile(file)
            yield out
            file.flush()
            os.fsync(file.fileno())
        self.sums[name] = out.digest.hexdigest()


@contextmanager
def write_generation(folder: Path) -> Iterator[NewGeneration]:
    """A block that writes files aside; when it ends they become current in one step and older generations go.

    An exception, a crash or a full disk at any moment leaves the previous generation current and complete (only the
    very last step, syncing the folder, comes after the switch). Raises OSError. One process may write at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    new = NewGeneration(folder / f"{_PREFIX}{uuid.uuid4().hex}")
    new.path.mkdir()
    try:
        yield new
        listing = format_sums(new.sums)
        with new.file(SUMS) as out:
            out.write(listing)
        with new.file(_POINTER) as out:
            out.write(f"{new.path.name} {hashlib.sha256(listing).hexdigest()}\n".encode())
        sync(new.path)
        os.replace(new.path / _POINTER, folder / _POINTER)
    except BaseException:
        shutil.rmtree(new.path, ignore_errors=True)
        raise
    sync(folder)
    for old in folder.glob(f"{_PREFIX}*"):
        if old != new.path:
            shutil.rmtree(old, ignore_errors=True)  # a reader that has a file open or mapped keeps it


class Generation:
    """The current generation of a folder. Raises FileNotFoundError without one, CorruptFile for a damaged listing.

    A file that is missing raises CorruptFile, or FileNotFoundError when a writer has replaced the generation
    meanwhile (`is_current` is then False: open the folder again).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pointer = _read_pointer(folder)
        name, _, digest = self._pointer.strip().partition(" ")
        if not name.startswith(_PREFIX) or Path(name).name != name:
            raise CorruptFile(folder / _POINTER, "does not name a generation")
        self._path = folder / name
        self._sums = {SUMS: digest}
        self._sums |= parse_sums(self.read(SUMS))  # its own digest matched

    def is_current(self) -> bool:
        """Whether this is still the generation that the folder points to."""
        return _read_pointer(self._folder) == self._pointer

    def path(self, name: str, size: int) -> Path:
        """The path of a file that has `size` bytes, its content not checked. Raises CorruptFile for another size."""
        path = self._path / name
        with self._missing_is_corrupt(path):
            found = path.stat().st_size
        if found != size:
            raise CorruptFile(path, f"has {found} bytes, expected {size}")
        return path

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """A file whose hash matched, open at its start: nobody can exchange it after the check. Raises CorruptFile."""
        path = self._path / name
        with self._missing_is_corrupt(path):
            file = open(path, "rb")  # noqa: SIM115 (closed below; only its opening may fail as missing)
        with file:
            if hashlib.file_digest(file, "sha256").hexdigest() != self._sums.get(name):
                raise CorruptFile(path, "its SHA-256 is not the recorded one")
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

    @contextmanager
    def _missing_is_corrupt(self, path: Path) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            if not self.is_current():
                raise
            raise CorruptFile(path, "is missing") from None


def _read_pointer(folder: Path) -> str:
    try:
        return (folder / _POINTER).read_text(encoding="ascii")
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{folder}: nothing is stored here (no file {_POINTER})") from None
    except UnicodeDecodeError:
        raise CorruptFile(folder / _POINTER, "does not name a generation") from None
