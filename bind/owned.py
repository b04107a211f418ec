"""A folder whose content may come from somebody else: only its own regular files and folders are touched.

Everything below the root is reached by descriptors, one name at a time, and no link is followed: a library or an index
that was received as an archive cannot lead to a file outside of it. The root itself is the caller's word, and may be
reached through links.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Non-blocking: a named pipe is recognised as one, and not waited for.
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_IRREGULAR = "is no regular file or folder of its own (a link, pipe or device?)"


class NotOwnedError(OSError):
    """A name inside an owned folder that is a link, a pipe, a device, a hard link, or belongs to another user."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(errno.EPERM, reason, str(path))
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[NotOwnedError], tuple[Path, str]]:
        return type(self), (self.path, self.reason)


class OwnedFolder:
    """A folder below (or at) a root. Nothing is opened before it is asked for, so that one need not exist.

    Names are single: no separator, no `.` and no `..` (ValueError). What belongs to the folder belongs to the user who
    owns the root, to the one who runs this process, or to the superuser. All methods raise OSError: NotOwnedError for
    what is no regular file or folder of its own, FileNotFoundError for what is not there.
    """

    def __init__(self, root: str | os.PathLike[str], *below: str) -> None:
        self._root = Path(root)
        self._below = below
        for name in below:
            _check_name(name)

    @property
    def path(self) -> Path:
        """Where it lies, for messages and for those who only look."""
        return self._root.joinpath(*self._below)

    def folder(self, name: str) -> OwnedFolder:
        """A folder inside."""
        return OwnedFolder(self._root, *self._below, name)

    def make(self) -> OwnedFolder:
        """Makes the folder, and those above it, where they are missing."""
        self._root.mkdir(parents=True, exist_ok=True)
        with self._descriptor(make=True):
            return self

    def names(self) -> list[str]:
        """The names inside, sorted. Nothing where the folder is missing."""
        with contextlib.suppress(FileNotFoundError), self._descriptor() as descriptor:
            return sorted(os.listdir(descriptor))
        return []

    def check(self, name: str) -> os.stat_result | None:
        """What is known of a regular file of its own, None where there is nothing of this name."""
        with contextlib.suppress(FileNotFoundError), self._descriptor() as descriptor:
            status = os.stat(_check_name(name), dir_fd=descriptor, follow_symlinks=False)
            _check(self.path / name, status, self._owners(), stat.S_ISREG)
            return status
        return None

    def open(self, name: str) -> BufferedReader:
        """A file, to be read."""
        return os.fdopen(self._open(name, os.O_RDONLY), "rb")

    def create(self, name: str) -> BinaryIO:
        """A new file, to be written. Raises FileExistsError."""
        return os.fdopen(self._open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb")

    def update(self, name: str) -> BinaryIO:
        """A file, made where it is missing, to be read and written; what it has stays."""
        return os.fdopen(self._open(name, os.O_RDWR | os.O_CREAT), "r+b", buffering=0)

    def replace(self, name: str, other: OwnedFolder, new: str) -> None:
        """Moves a name into another folder (or this one), in place of a file of that name, in one step."""
        with self._descriptor() as source, other._descriptor() as target:
            os.replace(_check_name(name), _check_name(new), src_dir_fd=source, dst_dir_fd=target)

    def delete(self, name: str) -> None:
        """Removes a file, a link (and not what it leads to), or a folder with all inside; nothing where it is missing.

        What cannot be removed stays.
        """
        with contextlib.suppress(OSError), self._descriptor() as descriptor:
            try:
                os.unlink(_check_name(name), dir_fd=descriptor)
            except FileNotFoundError:
                pass
            except OSError:  # a folder
                shutil.rmtree(name, ignore_errors=True, dir_fd=descriptor)

    def sync(self) -> None:
        """Waits until the list of names is on the disk."""
        with self._descriptor() as descriptor:
            os.fsync(descriptor)

    def _open(self, name: str, flags: int) -> int:
        with self._descriptor() as folder:
            try:
                descriptor = os.open(_check_name(name), flags | _FILE, 0o644, dir_fd=folder)
            except OSError as error:
                raise _explained(self.path / name, error) from None
        try:
            _check(self.path / name, os.fstat(descriptor), self._owners(), stat.S_ISREG)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    @contextmanager
    def _descriptor(self, make: bool = False) -> Iterator[int]:
        """The folder, opened; each on the way to it is checked."""
        descriptor = os.open(self._root, _FOLDER)
        path = self._root
        try:
            owners = self._owners()
            for name in self._below:
                path = path / name
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, dir_fd=descriptor)
                try:
                    inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
                except OSError as error:
                    raise _explained(path, error) from None
                os.close(descriptor)
                descriptor = inner
                _check(path, os.fstat(descriptor), owners, stat.S_ISDIR)
            yield descriptor
        finally:
            os.close(descriptor)

    def _owners(self) -> set[int]:
        return {os.stat(self._root).st_uid, os.geteuid(), 0}


def _check(path: Path, status: os.stat_result, owners: set[int], is_kind: Callable[[int], bool]) -> None:
    if not is_kind(status.st_mode):
        raise NotOwnedError(path, _IRREGULAR)
    if status.st_uid not in owners:
        raise NotOwnedError(path, f"belongs to another user ({status.st_uid}) than the folder it lies in")
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        raise NotOwnedError(path, "has other names too (hard links), which may lie elsewhere")


def _explained(path: Path, error: OSError) -> OSError:
    """An error of `os.open` with the whole path; one that a link, pipe or folder caused says so."""
    if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENOTDIR, errno.ENXIO, errno.EISDIR):
        return NotOwnedError(path, _IRREGULAR)
    error.filename = str(path)
    return error


def _check_name(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"expected a name without folders, got {name!r}")
    return name
