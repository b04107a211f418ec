"""The reports of indexing, checking and backing up a library."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """A difference from what was written: where, what, and `action`, which was done or is to be done."""

    part: str
    what: str
    repaired: bool
    action: str


@dataclass
class CheckReport:
    """All findings, and the numbers of rows, index files, kept files and thumbnails that were checked."""

    findings: list[Finding] = field(default_factory=list)
    looked_at: dict[str, int] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether no finding is left to be repaired."""
        return all(finding.repaired for finding in self.findings)


@dataclass(frozen=True)
class MigrationReport:
    """The result of a change of model: the new `model`, the number of searchable `files`, of contents that were
    `embedded` in this run (an earlier one that was interrupted may have done the others), and the `seconds` it took.

    `dropped` are (path, reason) of files that the new model could not be given; they stay known as skipped files.
    """

    model: str
    files: int
    embedded: int
    dropped: list[tuple[str, str]]
    seconds: float


@dataclass
class IndexReport:
    """The result of a run, as numbers of files: `added` and `updated` are in the library now, `renamed` files were
    moved.

    `embedded` counts contents that were decoded and encoded (a copy of a known file needs neither). `skipped` are
    (path, reason) of files that could not be used, as no run before said; `skipped_before` those that one said already
    and that have not changed. `duplicates` are the paths of files with equal content, a group each; `left_out` the
    number of links that lead out of the folder and were not followed; `excluded` that of files and folders that a rule
    left out (see `serve.library.rules`), for each rule. What an excluded folder holds is not counted. `words` are the
    numbers of contents in which words were looked for, by `ocr` or `speech`, and `wordless` are (path, reason) of those
    that could not be read so.
    """

    added: int = 0
    updated: int = 0
    renamed: int = 0
    removed: int = 0
    unchanged: int = 0
    embedded: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    skipped_before: list[tuple[str, str]] = field(default_factory=list)
    duplicates: list[tuple[str, ...]] = field(default_factory=list)
    left_out: int = 0
    excluded: dict[str, int] = field(default_factory=dict)
    words: dict[str, int] = field(default_factory=dict)
    wordless: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    def join(self, other: IndexReport) -> None:
        """Adds what another run did."""
        for name in ("added", "updated", "renamed", "removed", "unchanged", "embedded", "left_out", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for rule, count in other.excluded.items():
            self.excluded[rule] = self.excluded.get(rule, 0) + count
        for kind, count in other.words.items():
            self.words[kind] = self.words.get(kind, 0) + count
        self.wordless += other.wordless
        self.skipped += other.skipped
        self.skipped_before += other.skipped_before
        self.duplicates += other.duplicates
