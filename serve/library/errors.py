"""The errors of a library."""

from __future__ import annotations

from pathlib import Path

from serve.library.schema import FILE


class LibraryError(ValueError):
    """A library cannot be used or written: the message says what happened and what to do."""


class DamagedError(LibraryError):
    """The stored data of a catalogue differs from what was written."""

    def __init__(self, folder: Path, what: str) -> None:
        super().__init__(
            f"{folder / FILE} is damaged: {what}; `crossbind check {folder} --repair` repairs what can be derived, "
            "else restore a backup or index into a new library"
        )
        self.folder = folder
        self.what = what

    def __reduce__(self) -> tuple[type[DamagedError], tuple[Path, str]]:
        return type(self), (self.folder, self.what)


class MigratedError(LibraryError):
    """A library got another model after it was opened. It can still be searched, but not be changed, until it is opened
    again.
    """

    def __init__(self, folder: Path, model: str) -> None:
        super().__init__(
            f"{folder}: this library was migrated to the model {model!r} after it was opened here; open it again (or "
            "restart the server)"
        )
        self.folder = folder
        self.model = model

    def __reduce__(self) -> tuple[type[MigratedError], tuple[Path, str]]:
        return type(self), (self.folder, self.model)


class WriterBusyError(LibraryError):
    """Another process, or another thread of this one, is writing to the library."""


class UnknownItemError(LibraryError, LookupError):
    """An item does not exist (any more), or its file is no longer the one that was indexed."""


class UnknownAlbumError(UnknownItemError):
    """An album or tag does not exist (any more)."""


class CursorError(ValueError):
    """A cursor is none, or it belongs to a page of another search."""
