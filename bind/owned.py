"""A folder whose content may come from somebody else, of which only its own regular files and folders are touched.

Everything below the root is opened through descriptors, one name at a time, and no link is followed. So a library or an
index that was received as an archive cannot lead to a file outside of it. The root itself is given by the caller and
may be reached through links.
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
"""Flags to open a folder, so that paths below it are resolved from its descriptor and not from its name."""
# O_NONBLOCK: opening a named pipe returns at once, so that the pipe can be recognised and refused.
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
    """A folder below (or at) a root. It is opened only when something is asked of it, so it need not exist.

    Names are single: a separator, `.` and `..` raise ValueError. Everything in the folder must belong to the user who
    owns the root, to the user who runs this process, or to the superuser. All methods raise OSError: NotOwnedError for
    something that is no regular file or folder of its own, FileNotFoundError for something that is missing.
    """

    def __init__(self, root: str | os.PathLike[str], *below: str) -> None:
        self._root = Path(root)
        self._below = below
        for name in below:
            _check_name(name)

    @property
    def path(self) -> Path:
        """The path of the folder, for messages and for callers that only look."""
        return self._root.joinpath(*self._below)

    def folder(self, name: str) -> OwnedFolder:
        """The folder of this name inside."""
        return OwnedFolder(self._root, *self._below, name)

    def make(self) -> OwnedFolder:
        """Creates the folder, and the folders above it, where they are missing."""
        self._root.mkdir(parents=True, exist_ok=True)
        with self._descriptor(make=True):
            return self

    def names(self) -> list[str]:
        """The names inside, sorted; an empty list where the folder is missing."""
        with contextlib.suppress(FileNotFoundError), self._descriptor() as descriptor:
            return sorted(os.listdir(descriptor))
        return []

    def check(self, name: str) -> os.stat_result | None:
        """The status of a regular file of the folder, or None where nothing has this name."""
        with contextlib.suppress(FileNotFoundError), self._descriptor() as descriptor:
            status = os.stat(_check_name(name), dir_fd=descriptor, follow_symlinks=False)
            _check(self.path / name, status, self._owners(), stat.S_ISREG)
            return status
        return None

    def open(self, name: str) -> BufferedReader:
        """A file, open for reading."""
        return os.fdopen(self._open(name, os.O_RDONLY), "rb")

    def create(self, name: str) -> BinaryIO:
        """A new file, open for writing. Raises FileExistsError."""
        return os.fdopen(self._open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb")

    def update(self, name: str) -> BinaryIO:
        """A file, open for reading and writing, created where it is missing; its content is kept."""
        return os.fdopen(self._open(name, os.O_RDWR | os.O_CREAT), "r+b", buffering=0)

    def replace(self, name: str, other: OwnedFolder, new: str) -> None:
        """Moves a file into another folder (or this one) in one step, in place of a file that has the new name."""
        with self._descriptor() as source, other._descriptor() as target:
            os.replace(_check_name(name), _check_name(new), src_dir_fd=source, dst_dir_fd=target)

    def delete(self, name: str) -> None:
        """Removes a file, a link (not its target), or a folder with its content; does nothing where the name is
        missing.

        Entries that cannot be removed stay.
        """
        with contextlib.suppress(OSError), self._descriptor() as descriptor:
            try:
                os.unlink(_check_name(name), dir_fd=descriptor)
            except FileNotFoundError:
                pass
            except OSError:  # it is a folder
                shutil.rmtree(name, ignore_errors=True, dir_fd=descriptor)

    def sync(self) -> None:
        """Waits until the disk has the folder's list of names."""
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
        """A descriptor of the folder; each folder on the way to it is checked."""
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
    """An error of `os.open` -> the error with the whole path, and with the cause where it was a link, pipe or
    folder.
    """
    if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENOTDIR, errno.ENXIO, errno.EISDIR):
        return NotOwnedError(path, _IRREGULAR)
    error.filename = str(path)
    return error


def _check_name(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"expected a name without folders, got {name!r}")
    return name
