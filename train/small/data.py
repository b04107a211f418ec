"""A folder of manifests -> the real data sets in it, filtered by licence, and their folds.

    python -m train.small.data DATA [free]        # prints which sets are there, which are left out, and why

`data.toml` states the use and the licence of each set. Manifests are found by the name in their header, so they may lie
anywhere below the folder. Recipes ask for a set and a part:

    data = find("DATA", licence="free")
    data.events("wisdm", "train")                       # () where the set is not there or not free
    for train, test in data.folds("esc10", "urbansound"):
        ...                                             # {"esc10": events, "urbansound": events}, each
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter

from preprocess import manifest
from preprocess.manifest import Event, Manifest

Licence = Literal["all", "free"]
Part = Literal["train", "dev", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
"""The roles that a manifest can have in the making of the model."""
_TABLE = Path(__file__).with_suffix(".toml")
"""The table of data sets: each one's manifests by role, and its licence."""
_LONGEST_HEADER = 1 << 20
"""Bytes of a manifest's first line that are read; headers with a thousand classes are shorter."""
_FREE = re.compile(r"\b(CC0|CC[ -]BY(?![ -](NC|ND|SA))|MIT|Apache|Pixabay)\b", re.IGNORECASE)
"""Licences with which a data set may be used freely; not those with NC, ND or SA."""


class Terms(BaseModel):
    """A licence in words, and whether it is stated and free (CC0, CC BY, MIT, Apache, Pixabay)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    license: str
    free: bool


class Dataset(Terms):
    """One table of `data.toml`, which explains the keys."""

    about: str
    modalities: tuple[str, ...]
    train: tuple[str, ...] = ()
    dev: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    fold: Literal["group", "manifest"] = "group"
    groups: dict[str, Terms] = {}
    overlaps: tuple[str, ...] = ()

    def terms(self, event: Event) -> Terms:
        """The licence of one event: that of its group, where the table has one for it."""
        return self.groups.get(event.group, self)

    def part(self, name: str) -> Part | None:
        """The part that a manifest of this name (in its header) is, or None where it is not of this set."""
        patterns: dict[Part, tuple[str, ...]] = {"train": self.train, "dev": self.dev, "test": self.test}
        return next((part for part in PARTS if any(fnmatchcase(name, one) for one in patterns[part])), None)


@cache
def datasets() -> dict[str, Dataset]:
    """Every data set of `data.toml` by its name."""
    return TypeAdapter(dict[str, Dataset]).validate_python(tomllib.loads(_TABLE.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Data:
    """The data sets in a folder: `manifests` by set and part, only with rows of the wanted licence.

    `left_out` has one sentence for each set that was not taken.
    """

    manifests: Mapping[tuple[str, Part], tuple[Manifest, ...]]
    left_out: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The sets that have at least one row, in the order of `data.toml`."""
        return tuple(name for name in datasets() if any((name, part) in self.manifests for part in PARTS))

    def manifest(self, name: str, part: Part = "train") -> Manifest | None:
        """One part of a set as one manifest (several are joined), or None where there are no rows."""
        found = self.manifests.get((name, part))
        if not found:
            return None
        if len(found) == 1:
            return found[0]
        return replace(
            found[0],
            name=f"{name}-{part}",
            events=tuple(event for one in found for event in one.events),
            classes=tuple(dict.fromkeys(label for one in found for label in one.classes)),
            sha256=hashlib.sha256("".join(one.sha256 for one in found).encode()).hexdigest(),
        )

    def events(self, name: str, part: Part = "train") -> tuple[Event, ...]:
        """The rows of one part of a set, () where there are none. Raises KeyError for an unknown set."""
        datasets()[name]
        found = self.manifest(name, part)
        return found.events if found else ()

    def folds(
        self, *names: str, k: int = 5, part: Part = "train"
    ) -> Iterator[tuple[dict[str, tuple[Event, ...]], dict[str, tuple[Event, ...]]]]:
        """Sets -> k times (train, test), each a table of events by set; a group is never on both sides.

        Groups of the same name in different sets (one Freesound recording) stay together. A single set whose table
        says `fold = "manifest"` has one fold a manifest, whatever `k` is.

        Raises KeyError for an unknown set, ValueError where there are fewer than two folds.
        """
        rows = {name: self.events(name, part) for name in names}
        if len(names) == 1 and datasets()[names[0]].fold == "manifest":
            parts = self.manifests.get((names[0], part), ())
            number = {id(event): fold for fold, one in enumerate(parts) for event in one.events}
            fold_of = [[number[id(event)] for event in rows[name]] for name in names]
            k = len(parts)
        else:
            keys = [[group_of(name, event) for event in rows[name]] for name in names]
            assigned = _balanced([key for one in keys for key in one], k)
            fold_of = [[assigned[key] for key in one] for one in keys]
            k = min(k, len(assigned))
        if k < 2:
            raise ValueError(f"{', '.join(names)}: too few groups for folds; expected two or more, found {k}")
        for held_out in range(k):
            sides = tuple(
                {
                    name: tuple(
                        event for event, fold in zip(rows[name], of, strict=True) if (fold == held_out) is tested
                    )
                    for name, of in zip(names, fold_of, strict=True)
                }
                for tested in (False, True)
            )
            yield sides[0], sides[1]


def group_of(name: str, event: Event) -> str:
    """The name that must stay on one side of a split: the event's group, or else the event itself."""
    return event.group or f"{name}/{event.id}"


def find(folder: str | os.PathLike[str], licence: Licence = "all") -> Data:
    """A folder -> its known data sets. With `licence="free"`, only rows whose licence is stated and free.

    Raises ManifestError for a manifest of a known set that breaks the format, OSError, and ValueError for an unknown
    licence.
    """
    if licence not in get_args(Licence):
        raise ValueError(f"licence is {licence!r}, expected one of {', '.join(get_args(Licence))}")
    taken: dict[tuple[str, Part], list[Manifest]] = {}
    left_out: list[str] = []
    seen: dict[str, Path] = {}
    for path, header in _headers(Path(folder)):
        where = path.relative_to(folder)
        known = [(name, part) for name, one in datasets().items() if (part := one.part(header))]
        if not known:
            left_out.append(f"{where}: no data set of {_TABLE.name} has a manifest of the name {header!r}")
            continue
        if header in seen:
            left_out.append(f"{where}: {seen[header]} is the manifest {header!r} already")
            continue
        seen[header] = where
        name, part = known[0]
        dataset = datasets()[name]
        if licence == "free" and not dataset.free and not any(terms.free for terms in dataset.groups.values()):
            left_out.append(f"{where}: licence of {name}: {dataset.license}")
            continue
        found = manifest.read(path)
        if licence == "free" and not _FREE.search(found.license):
            left_out.append(f"{where}: its own header says of the licence: {found.license}")
            continue
        if licence == "free":
            free_events = tuple(event for event in found.events if dataset.terms(event).free)
            if lost := len(found.events) - len(free_events):
                left_out.append(
                    f"{where}: {lost:,} of {len(found.events):,} rows: licence of {name}: {dataset.license}"
                )
            found = replace(found, events=free_events)
        if found.events:
            taken.setdefault((name, part), []).append(found)
    lacking = [name for name, one in datasets().items() if not any(map(one.part, seen))]
    if lacking:
        left_out.append(f"not in {folder}: {', '.join(lacking)}")
    return Data({place: tuple(found) for place, found in taken.items()}, tuple(left_out))


def _headers(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every manifest below a folder and the name in its header, in the order of their paths. Raises OSError."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: expected a folder with manifests")
    for path in sorted(folder.rglob("*.jsonl")):
        with path.open("rb") as file:
            line = file.readline(_LONGEST_HEADER)
        try:
            header = json.loads(line)
        except ValueError:
            continue
        if isinstance(header, dict) and header.get("manifest") == 1 and isinstance(header.get("name"), str):
            yield path, header["name"]


def _balanced(keys: Sequence[str], k: int) -> dict[str, int]:
    """The group of each row -> the fold of each group: large groups first, each to the fold with the fewest rows.

    Groups of one size come in the order of their hashes, so that neighbours in a file do not share a fold.
    """
    sizes: dict[str, int] = {}
    for key in keys:
        sizes[key] = sizes.get(key, 0) + 1
    rows = [0] * k
    assigned = {}
    for key in sorted(sizes, key=lambda key: (-sizes[key], hashlib.sha256(key.encode()).digest())):
        fold = min(range(k), key=lambda fold: rows[fold])
        assigned[key] = fold
        rows[fold] += sizes[key]
    return assigned


def command(
    parser: argparse.ArgumentParser, arguments: Sequence[str], *, space: str, folds: str
) -> tuple[argparse.Namespace, Data]:
    """The command line of an experiment that binds a sensor -> its arguments, and the data sets of `data`.

    It takes the folders `data` and `packages`, the model `space`, the folder `out`, `--licence` and `--folds`; `space`
    and `folds` are the help of two of them. What was left out of the data is told on stderr.
    """
    parser.add_argument("data", type=Path)
    parser.add_argument("packages", type=Path)
    parser.add_argument("space", help=space)
    parser.add_argument("out", type=Path)
    parser.add_argument("--licence", choices=get_args(Licence), default="all")
    parser.add_argument("--folds", action="store_true", help=folds)
    parsed = parser.parse_args(arguments)
    found = find(parsed.data, parsed.licence)
    for reason in found.left_out:
        print(f"left out: {reason}", file=sys.stderr)
    return parsed, found


def main() -> None:
    """Prints the sets of the folder named on the command line; with `free` behind it, only the free ones."""
    folder, *rest = sys.argv[1:]
    data = find(folder, licence="free" if rest == ["free"] else "all")
    print("| set | rows: train, dev, test | modalities | licence |\n|---|---|---|---|")
    for name in data.names:
        one = datasets()[name]
        counts = ", ".join(f"{len(data.events(name, part)):,}" for part in PARTS)
        print(f"| {name} | {counts} | {', '.join(one.modalities)} | {one.license} |")
    for reason in data.left_out:
        print(f"left out: {reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
