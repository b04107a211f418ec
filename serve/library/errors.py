"""What a library raises."""

from __future__ import annotations

from pathlib import Path

from serve.library.schema import FILE


class LibraryError(ValueError):
    """A library that cannot be used or written: the message says what happened and what to do."""


class DamagedError(LibraryError):
    """What is stored in a catalogue is not what was written."""

    def __init__(self, folder: Path, what: str) -> None:
        super().__init__(
            f"{folder / FILE} is damaged: {what}; `crossbind check {folder} --repair` repairs what can be derived, "
            "else restore a backup or index into a new library"
        )
        self.folder = folder
        self.what = what

    def __reduce__(self) -> tuple[type[DamagedError], tuple[Path, str]]:
        return type(self), (self.folder, self.what)


class WriterBusyError(LibraryError):
    """Another process, or another thread of this one, is writing to the library."""


class UnknownItemError(LibraryError, LookupError):
    """There is no such item in the library (any more), or its file is not the one that was indexed any more."""
