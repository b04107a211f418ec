"""Which entries of a folder are media of the user: rules by name, the user's patterns, and ignore files.

The first of these that says anything of an entry decides: the `.crossbindignore` of its folder, those of the folders
above, the patterns of `exclude`, the default rules. A pattern that starts with `!` takes in what the next ones would
leave out. All patterns are those of a `.gitignore`, which the package `pathspec` reads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore import GitIgnorePatternError

from preprocess.files import open_regular
from serve.library.errors import LibraryError

IGNORE_FILE = ".crossbindignore"
"""The file whose patterns, in the form of a `.gitignore`, leave out what matches in its folder."""
NO_MEDIA = ".nomedia"
"""The file that leaves its folder out, as on Android."""
HIDDEN = "hidden"
"""The reason for files and folders whose names begin with a dot."""
EXCLUDED = "--exclude"
"""The reason for what matches a pattern of `--exclude`."""
NOT_INCLUDED = "--include"
"""The reason for what matches no pattern of `--include`."""
BY_NAME = frozenset(
    {
        "#recycle", "#snapshot", "$recycle.bin", "@eadir", "@recycle", "@tmp", "__macosx", "albumartsmall.jpg",
        "desktop.ini", "ehthumbs.db", "found.000", "lost+found", "recycler", "system volume information", "thumbs.db",
    }
)  # fmt: skip
"""What storage devices, operating systems and players put beside media, in lower case. Hidden names need no entry."""
_MOST_BYTES = 2**20
"""Bytes of a file of patterns that are read: untrusted folders may hold a large one."""
_MOST_STARS = 4
"""In a part of a pattern between slashes: the time to compare grows with this power of a name's length."""


@dataclass(frozen=True)
class Rules:
    """What a user says of a root: patterns to leave out, and the only ones to take (none: all).

    Raises LibraryError for a pattern that cannot be read.
    """

    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for option, patterns in (("exclude", self.exclude), ("include", self.include)):
            for pattern in patterns:
                if not _is_readable(pattern):
                    raise LibraryError(f"{option}: {pattern!r} is no pattern of a .gitignore")

    @cached_property
    def _excluding(self) -> GitIgnoreSpec | None:
        return GitIgnoreSpec.from_lines(self.exclude) if self.exclude else None

    @cached_property
    def _including(self) -> GitIgnoreSpec | None:
        return GitIgnoreSpec.from_lines(self.include) if self.include else None

    def at(self, root: str) -> FolderRules:
        """The rules of the root itself, an absolute path."""
        return FolderRules(root, "", self, ()).with_own_file()


@dataclass(frozen=True)
class FolderRules:
    """The rules for the entries of one folder, `folder` relative to `root` ('' for that itself)."""

    root: str
    folder: str
    rules: Rules
    files: tuple[tuple[str, GitIgnoreSpec], ...]
    """(folder, patterns) of the ignore files that hold here, the nearest first."""

    def below(self, name: str) -> FolderRules:
        """The rules of a folder in this one."""
        return FolderRules(self.root, os.path.join(self.folder, name), self.rules, self.files).with_own_file()

    def with_own_file(self) -> FolderRules:
        """These rules and, first, those of the folder's own ignore file."""
        lines = _lines(os.path.join(self.root, self.folder, IGNORE_FILE))
        if lines is None:
            return self
        spec = GitIgnoreSpec.from_lines(line for line in lines if _is_readable(line))
        return FolderRules(self.root, self.folder, self.rules, ((self.folder, spec), *self.files))

    @cached_property
    def is_plain(self) -> bool:
        """Whether nothing but the default rules holds here."""
        return not (self.files or self.rules.exclude or self.rules.include)

    def left_out(self, name: str, is_folder: bool) -> str | None:
        """The rule that leaves an entry out, None where it is taken."""
        by_default = HIDDEN if name[0] == "." else None
        if (lower := name.lower()) in BY_NAME or lower in _NAMED_HIDDEN:
            by_default = name
        if self.is_plain:
            return by_default
        # What is no UTF-8 is compared as what is shown of it.
        path = os.fsencode(os.path.join(self.folder, name)).decode("utf-8", "replace") + ("/" if is_folder else "")
        for folder, spec in self.files:
            found = spec.check_file(path[len(folder) + 1 :] if folder else path).include
            if found is not None:
                return IGNORE_FILE if found else self._not_included(path, is_folder)
        if self.rules._excluding is not None:
            found = self.rules._excluding.check_file(path).include
            if found is not None:
                return EXCLUDED if found else self._not_included(path, is_folder)
        return by_default or self._not_included(path, is_folder)

    def _not_included(self, path: str, is_folder: bool) -> str | None:
        """Folders are looked into: what is wanted may lie below."""
        including = self.rules._including
        return None if including is None or is_folder or including.match_file(path) else NOT_INCLUDED

    def has_no_media(self) -> bool:
        """Whether the folder says itself that it holds no media; the root never does, as the user named it."""
        if not self.folder or not os.path.lexists(os.path.join(self.root, self.folder, NO_MEDIA)):
            return False
        return self.is_plain or self.left_out(NO_MEDIA, False) is not None


_NAMED_HIDDEN = frozenset(
    {".@__thumb", ".appledouble", ".ds_store", ".fseventsd", ".nomedia", ".spotlight-v100", ".thumbnails", ".trashes"}
)
"""Hidden names that are counted by themselves."""


def _lines(path: str) -> list[str] | None:
    """The lines of an ignore file, None where there is none. Only a regular file is read, and not much of it."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return file.read(_MOST_BYTES).decode("utf-8-sig", "replace").splitlines()
    except OSError:
        return None


def _is_readable(line: str) -> bool:
    """Whether a line is a pattern (git leaves out others, too) that can be compared with a name in a short time."""
    if any(part.count("*") > _MOST_STARS for part in line.split("/")) or line.count("*") > 3 * _MOST_STARS:
        return False
    try:
        GitIgnoreSpec.from_lines([line])
    except GitIgnorePatternError:
        return False
    return True


def remembered(given: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """What holds: the patterns that are given (empty ones only clear what was known), else those that were known."""
    return tuple(known) if given is None else tuple(pattern for pattern in given if pattern.strip())


def relative(path: str, root: str) -> str:
    """An absolute path in a root -> relative to it, '' for the root itself."""
    inside = Path(path).relative_to(root)
    return "" if inside == Path() else str(inside)
