"""The folders that a library was told to index, its *roots*: what is remembered of them, and what of them is there.

They are a fact of the catalogue (`roots`), so that every copy and backup of it has them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from serve.library import uploads
from serve.library.catalogue import Catalogue
from serve.library.errors import LibraryError
from serve.library.rules import Rules
from serve.library.text import shown
from serve.library.writer import Writer

FACT = "roots"
"""The key of the catalogue's table of facts under which the roots are stored."""


@dataclass(frozen=True)
class Root:
    """A folder (or file) that was indexed: its absolute path, its patterns, and when a run over it last ended (UTC).

    `positions` says whether it is stored where its pictures and films were taken, `ocr` whether words in its pictures
    are read, and `speech` with which model words in its sounds and films are ("" for not).
    """

    path: str
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    last_run: str = ""
    positions: bool = True
    ocr: bool = False
    speech: str = ""

    @property
    def rules(self) -> Rules:
        """Its patterns as rules."""
        return Rules(self.exclude, self.include)


@dataclass(frozen=True)
class RootState(Root):
    """A root with the number of its searchable `files`, of its `skipped` ones, and whether it `is_there` now."""

    files: int = 0
    skipped: int = 0
    is_there: bool = False


@dataclass(frozen=True)
class Scope:
    """What a run looks at: a root, or only some `places` (absolute paths) in it, and what it may do there."""

    root: str
    rules: Rules = field(default_factory=Rules)
    places: tuple[str, ...] | None = None
    follow_links: bool = True
    allow_removal: bool = False
    is_remembered: bool = True
    """The root is recorded after a run over all of it."""
    positions: bool = True
    """It is stored where pictures and films were taken."""
    ocr: bool = False
    """Words in pictures are read."""
    speech: str = ""
    """The model with which words in sounds and films are read; "" for not."""
    is_watched: bool = False
    """The places are what has changed just now: nothing is done that takes time for all of a library."""


def stored(value: object) -> list[Root]:
    """The fact, as the catalogue has it -> the roots. Catalogues that are older than roots have none."""
    rows = json.loads(value) if isinstance(value, str) else []
    return [
        Root(
            row["path"],
            tuple(row["exclude"]),
            tuple(row["include"]),
            row["last_run"],
            # Earlier versions remembered less.
            row.get("positions", True),
            row.get("ocr", False),
            row.get("speech", ""),
        )
        for row in rows
    ]


def of(catalogue: Catalogue) -> list[Root]:
    """The roots of a library, by path."""
    return stored(catalogue.fact(FACT))


def containing(roots: Iterable[Root], path: str) -> Root | None:
    """The root that a path is or lies in."""
    return next((root for root in roots if Path(path).is_relative_to(root.path)), None)


def record(writer: Writer, scope: Scope) -> None:
    """Remembers a root after a run over all of it, inside of a transaction.

    Roots inside of it belong to it from now on. Others that are gone, and of which the library knows nothing any more,
    are forgotten: they were moved.
    """
    kept = [
        root
        for root in stored(writer.fact(FACT))
        if not Path(root.path).is_relative_to(scope.root)
        and (os.path.lexists(root.path) or next(writer.files_below(root.path), None) is not None)
    ]
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    rules = scope.rules
    root = Root(scope.root, rules.exclude, rules.include, now, scope.positions, scope.ocr, scope.speech)
    _write(writer, [*kept, root])


def states(catalogue: Catalogue) -> list[RootState]:
    """Each root of a library with what is known of it and whether it is there."""
    found = []
    for root in of(catalogue):
        files, skipped = catalogue.count_below(root.path)
        found.append(RootState(**asdict(root), files=files, skipped=skipped, is_there=os.path.exists(root.path)))
    return found


def forget(writer: Writer, folder: str, library: Path) -> int:
    """Forgets every file in a folder, and the folder as a root -> how many searchable files that were.

    Nothing on disk changes. Raises LibraryError for a folder of which the library knows nothing.
    """
    roots = stored(writer.fact(FACT))
    rows = [row for row in writer.files_below(folder) if uploads.key_of(row[1], library).startswith(b"/")]
    kept = [root for root in roots if not Path(root.path).is_relative_to(folder)]
    if not rows and len(kept) == len(roots):
        known = ", ".join(shown(root.path) for root in roots) or "none"
        raise LibraryError(f"{folder}: the library knows no file of it; its roots: {known}")
    with writer.transaction():
        writer.remove_files([number for number, _, _ in rows])
        writer.drop_orphans()
        _write(writer, kept)
    return sum(content is not None for _, _, content in rows)


def skipped_by_root(roots: Sequence[Root], paths: Iterable[str]) -> dict[Root, list[str]]:
    """Root -> those of some paths that lie in it. A path of no root is one by itself."""
    groups: dict[Root, list[str]] = {}
    for path in paths:
        groups.setdefault(containing(roots, path) or Root(path), []).append(path)
    return groups


def _write(writer: Writer, roots: Iterable[Root]) -> None:
    ordered = sorted((replace(root) for root in roots), key=lambda root: root.path)
    writer.set_fact(FACT, json.dumps([asdict(root) for root in ordered]))
