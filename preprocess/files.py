"""Regular files, opened without waiting for a pipe or a device, and the one error for bad media."""

from __future__ import annotations

import errno
import os
import stat


class MediaError(ValueError):
    """A medium that cannot be used: `path` names it, `reason` says what was expected, what came, and the way out."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[MediaError], tuple[str, str]]:
        return type(self), (self.path, self.reason)


class OrdinaryPictureError(MediaError):
    """What was to be read as a depth map or a thermal image is a picture like any other: its name was no more."""


class IrregularFileError(OSError):
    """What was to be opened is a directory, a pipe or a device."""


def open_regular(path: str | os.PathLike[str]) -> int:
    """A descriptor of the regular file at `path`, opened for reading, without ever waiting for a writer.

    Raises IrregularFileError for a directory, pipe, socket or device; OSError and ValueError as `os.open` does.
    """
    # Non-blocking: a named pipe in a folder must not stop the run before it is recognised as one.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IrregularFileError(errno.EINVAL, "is not a regular file (a directory, pipe or device)", os.fspath(path))
    return descriptor
