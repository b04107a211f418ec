"""Data sets -> manifests. One file of `datasets/` is one data set with one `BUILDER`; the folder is the registry.

A builder turns the official download layout into manifests and downloads nothing. To add a data set, write
`data_manifests/datasets/NAME.py` with a `BUILDER` (see `Builder`); `shared/` has parts that several builders use. A
data set may also live in a package of your own, which names its builder as an entry point of the group
`crossbind.datasets`.
"""

from __future__ import annotations

import csv
import importlib
import itertools
import json
import os
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from data_manifests import datasets
from preprocess import manifest
from preprocess.extras import MissingExtra

Entry = dict[str, Any]
"""One event, as it stands in a line of a manifest."""

_MOST_EXAMPLES = 5
"""Names that are given as examples for each kind of missing file; the rest is counted."""


class BuildError(ValueError):
    """Nothing can be built of a data set.

    The message says what was expected, what was found, and where to get the data.
    """


@dataclass(frozen=True)
class Split:
    """One manifest to write: `events` may be a generator, as it is read once.

    `name` is '' where a data set has only one manifest. Paths in `events` are relative to `base`, or to the download
    where `base` is None. A class may have several names joined by ' | '; its score is then that of the best name.
    """

    name: str
    events: Iterable[Entry]
    classes: Sequence[str] = ()
    templates: Sequence[str] = ()
    about: str = ""
    base: Path | None = None


@dataclass(frozen=True)
class Builder:
    """The way from one data set to manifests: `splits` reads the download and yields the manifests to write.

    `obtain` says where a person gets the data; `layout` says which files the folder must then have.
    """

    title: str
    license: str
    obtain: str
    layout: str
    splits: Callable[[Download], Iterator[Split]]


@dataclass(frozen=True)
class Missing:
    """Something that was expected and not found: how often, and the first few names."""

    what: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.what}: {self.count:,} ({', '.join(self.examples)}{more})"


@dataclass(frozen=True)
class Report:
    """The result of `build`: the files it wrote, the number of events by split ('all' without splits), and missing
    parts.
    """

    written: tuple[Path, ...]
    events: Mapping[str, int]
    missing: tuple[Missing, ...]


class Download:
    """The folder (or archive file) that a data set was obtained as. It records what a builder did not find.

    `path` is the path of the download. `made` is a folder beside the manifests for files that a builder has to write;
    the builder creates it. `common` contains both, for manifests that point into both.
    """

    def __init__(self, path: Path, made: Path) -> None:
        self.path = path.resolve()
        self.made = made.resolve()
        self._missing: dict[str, tuple[int, tuple[str, ...]]] = {}

    @property
    def common(self) -> Path:
        """The deepest folder that contains both the download and the written files."""
        return Path(os.path.commonpath([self.path, self.made]))

    @property
    def missing(self) -> tuple[Missing, ...]:
        """All missing parts so far, in the order of their first appearance."""
        return tuple(Missing(what, count, examples) for what, (count, examples) in self._missing.items())

    def lacks(self, what: str, name: str) -> None:
        """Records that `what` is missing (or not usable) for `name`."""
        count, examples = self._missing.get(what, (0, ()))
        self._missing[what] = (count + 1, examples if count >= _MOST_EXAMPLES else (*examples, name))

    def has(self, relative: str, what: str) -> bool:
        """Whether a non-empty file lies at `relative` below this folder; if not, the file is recorded as a missing
        `what`.
        """
        pure = PurePosixPath(relative)
        if not pure.is_absolute() and ".." not in pure.parts and is_filled(self.path / pure):
            return True
        self.lacks(what, relative)
        return False

    def table(self, relative: str, columns: Sequence[str]) -> Iterator[dict[str, str]]:
        """The rows of a CSV file with a header line. Rows that are too short are recorded as missing and left out.

        Raises BuildError where a column is missing or the file is not UTF-8.
        """
        path = self.path / relative
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            try:
                if lost := [name for name in columns if name not in (reader.fieldnames or ())]:
                    raise BuildError(f"{path}: expected the columns {list(columns)}, {lost} are not there")
                for row in reader:
                    if any(row[name] is None for name in columns):
                        self.lacks(f"complete row in {relative}", f"line {reader.line_num}")
                        continue
                    yield row
            except (UnicodeDecodeError, csv.Error) as error:
                raise BuildError(f"{path}: could not be read as CSV in UTF-8: {error}") from None

    def json(self, relative: str) -> Any:
        """The value of a JSON file. Raises BuildError where the file is not JSON."""
        path = self.path / relative
        try:
            return json.loads(path.read_bytes())
        except ValueError as error:
            raise BuildError(f"{path}: is not JSON: {error}") from None


def is_filled(path: Path) -> bool:
    """Whether a path is a regular file with at least one byte."""
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False


ENTRY_POINTS = "crossbind.datasets"
"""The group of entry points through which another package adds data sets: `name = "module:BUILDER"`."""


@cache
def builders() -> dict[str, Builder]:
    """Every builder by the name of its data set, in alphabetical order: ours and those of installed packages.

    Raises BuildError where a package's entry point has the name of another data set, or is no `Builder`.
    """
    names = [module.name for module in pkgutil.iter_modules(datasets.__path__)]
    found = {name: importlib.import_module(f"{datasets.__name__}.{name}").BUILDER for name in names}
    for name, point in entry_points().items():
        if name in found:
            raise BuildError(f"two data sets are called {name!r}: {datasets.__name__}.{name} and {_named(point)}")
        builder = point.load()
        if not isinstance(builder, Builder):
            raise BuildError(f"data set {name!r}: expected a Builder at {_named(point)}, got {type(builder).__name__}")
        found[name] = builder
    return dict(sorted(found.items()))


def entry_points() -> dict[str, metadata.EntryPoint]:
    """The data sets that installed packages add, by name, without importing them.

    Raises BuildError for a clash of names.
    """
    found: dict[str, metadata.EntryPoint] = {}
    for point in metadata.entry_points(group=ENTRY_POINTS):
        other = found.setdefault(point.name, point)
        if other != point:
            raise BuildError(f"two data sets are called {point.name!r}: {_named(other)} and {_named(point)}")
    return found


def _named(point: metadata.EntryPoint) -> str:
    owner = f" of package {point.dist.name}" if point.dist else ""
    return f"{point.value}{owner}"


def build(kind: str, root: str | os.PathLike[str], out: str | os.PathLike[str]) -> Report:
    """The download of data set `kind` in `root` -> `OUT.jsonl`, or `OUT-SPLIT.jsonl` for each of its splits.

    Events whose media are missing are left out and counted in the report, and so is a split without events. Files that
    a data set stores in archives of its own are written to the folder `OUT-files`.

    Args:
        kind: the name of a data set; `builders()` lists them.
        root: the folder (or archive file) with the official download.
        out: the beginning of the manifests' paths; a final `.jsonl` is ignored, and missing folders are created.

    Raises:
        BuildError: the data set is unknown, or the download has not one event.

    Example:
        >>> report = build("roadscene", "RoadScene-download", "manifests/roadscene")
        >>> report.events
        {'all': 2}
        >>> [file.name for file in report.written]
        ['roadscene.jsonl']
    """
    builder = builders().get(kind)
    if builder is None:
        raise BuildError(f"no data set {kind!r}; known: {', '.join(builders())}")
    root, out = Path(root), Path(out)
    if out.suffix == ".jsonl":
        out = out.with_suffix("")
    out.parent.mkdir(parents=True, exist_ok=True)
    download = Download(root, out.with_name(f"{out.name}-files"))
    written: list[Path] = []
    events: dict[str, int] = {}
    try:
        for split in builder.splits(download) if root.exists() else ():
            entries = iter(split.events)
            first = next(entries, None)
            if first is None:
                continue
            path = out.with_name(f"{out.name}-{split.name}.jsonl" if split.name else f"{out.name}.jsonl")
            header = _header(kind, builder, split, _root(split.base or download.path, path.parent))
            whole = _without_repeats(itertools.chain([first], entries), download)
            events[split.name or "all"] = manifest.write(path, header, whole)
            written.append(path)
    except (BuildError, MissingExtra):
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise BuildError(
            f"{root}: something in it is laid out differently from {builder.layout}: {type(error).__name__}: {error}"
        ) from error
    if not written:
        found = "it does not exist" if not root.exists() else "; ".join(map(str, download.missing)) or "nothing of it"
        raise BuildError(
            f"{root}: expected {builder.title} as {builder.layout}; missing: {found}. To get it: {builder.obtain}"
        )
    return Report(tuple(written), events, download.missing)


def _header(kind: str, builder: Builder, split: Split, root: str) -> Entry:
    """The first line of the manifest of a split; `root` is the folder of its media."""
    header: Entry = {
        "name": f"{kind}-{split.name}" if split.name else kind,
        "license": builder.license,
        "root": root,
        "about": " ".join(filter(None, (builder.title, split.about))),
    }
    if split.classes:
        header["classes"] = list(split.classes)
    if split.templates:
        header["templates"] = list(split.templates)
    return header


def _without_repeats(entries: Iterator[Entry], download: Download) -> Iterator[Entry]:
    """Events without repeated ids: a table may list a clip twice, and `manifest.read` would refuse that."""
    seen: set[str] = set()
    for entry in entries:
        if entry["id"] in seen:
            download.lacks("an id of its own", entry["id"])
            continue
        seen.add(entry["id"])
        yield entry


def _root(base: Path, folder: Path) -> str:
    """`base` as a header names it: relative where it lies below the manifest's folder, so that both can be moved."""
    base, folder = base.resolve(), folder.resolve()
    return base.relative_to(folder).as_posix() if base.is_relative_to(folder) else str(base)
