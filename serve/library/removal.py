"""Which known files a run may forget: those that were moved or are gone, unless so many are that a share is missing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from serve.library import scan
from serve.library.errors import LibraryError
from serve.library.roots import Scope
from serve.library.writer import Writer

MOST_GONE = 10
"""So many gone files, and more than half of a root, are never forgotten without being asked."""


class RemovalError(LibraryError):
    """A run would forget so much that a folder that is not mounted is likelier than files that were deleted."""


@dataclass
class Plan:
    """The ids of files to forget, the contents they had, and how many were `renamed` and `removed`."""

    files: list[int] = field(default_factory=list)
    contents: set[int] = field(default_factory=set)
    renamed: int = 0
    removed: int = 0


def plan(
    writer: Writer,
    scope: Scope,
    library: Path,
    seen: Collection[int],
    arrived: Counter[int],
    is_hidden: Callable[[str], bool],
) -> Plan:
    """What a run that saw the files `seen` forgets. `arrived`: known content -> how many new paths it was found under.

    Raises RemovalError, as `refuse_mass_removal` says.
    """
    made = Plan()
    missing = 0
    for place in scope.places if scope.places is not None else (scope.root,):
        for number, path, content in writer.files_below(place):
            if number in seen or is_hidden(path):
                continue
            if content is not None and arrived[content] > 0:
                arrived[content] -= 1
                made.renamed += 1
            elif content is not None:
                made.removed += 1
                missing += is_gone(path)  # others are left out by a rule now
            made.files.append(number)
            made.contents.update(() if content is None else (content,))
    refuse_mass_removal(writer, scope, library, missing)
    _moved_from_elsewhere(writer, made, seen, arrived)
    return made


def _moved_from_elsewhere(writer: Writer, made: Plan, seen: Collection[int], arrived: Counter[int]) -> None:
    """Dead paths, anywhere, of contents that arrived under new ones."""
    planned = set(made.files)
    for content in [content for content, count in arrived.items() if count > 0]:
        for number, path in writer.files_with(content):
            if number in seen or number in planned or not is_gone(path):
                continue
            made.files.append(number)
            made.contents.add(content)
            made.renamed += arrived[content] > 0
            made.removed += arrived[content] <= 0
            arrived[content] -= 1


def refuse_mass_removal(writer: Writer, scope: Scope, library: Path, missing: int) -> None:
    """Raises RemovalError where `missing` files are gone and their root is missing, empty or nearly so.

    Of a root that is watched each removal was seen, so that only its own absence counts.
    """
    if not missing or scope.allow_removal:
        return
    known = writer.count_below(scope.root)
    if not os.path.exists(scope.root):
        state = "there is no such folder or file"
    elif not _has_files(scope, library):
        state = "nothing is in this folder"
    elif scope.places is None and missing >= MOST_GONE and 2 * missing > known:
        state = "most of this folder is gone"
    else:
        return
    raise refusal(scope.root, state, missing, known)


def refusal(root: str, state: str, missing: int, known: int) -> RemovalError:
    """The sentence for a root whose files are not there."""
    return RemovalError(
        f"{root}: {state}; of the {known:,} files that the library has of it, {missing:,} are missing. Nothing was "
        "removed, and what was added stays: is a drive or a share not mounted? If the files are to leave the library, "
        f"use --allow-removal (allow_removal=True) or `crossbind forget {root}`"
    )


def is_gone(path: str) -> bool:
    """Whether there is surely nothing at a path; what may not be looked at is not gone."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _has_files(scope: Scope, library: Path) -> bool:
    found = scan.walk(scope.root, library, scope.follow_links, scope.rules)
    return any(isinstance(one, (scan.Found, scan.Unlisted)) for one in found)
