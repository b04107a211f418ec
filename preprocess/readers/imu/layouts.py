"""The table of layouts of motion logs (`layouts.toml`), and which of them a header or a first row is written in."""

from __future__ import annotations

import os
import re
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from preprocess.files import MediaError
from preprocess.readers.imu.units import CHANNELS, is_unit, unit_key

GROUPS = ("acceleration", "linear", "gravity", "rotation")
"""What three columns may be: with gravity, without, gravity alone, the rate of rotation."""
COLUMN_HELP = (
    "expected a header with acc_x, acc_y, acc_z, gyro_x, gyro_y, gyro_z and a time column "
    "(units in it: acc_x [g], gyro_x [deg/s], time [ms]), or the hint rate_hz in place of the time column"
)
"""The end of each error about columns: what a table without a known layout has to look like."""
_CLOCK = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}[T ]+\d{1,2}[:-]\d{2}.*")
"""A date and a time in any of the orders in which loggers write them; only its shape is looked at."""
_NOT_A_LETTER = re.compile(r"[\W_]+")
"""What titles of columns have between their words."""

Titles = tuple[tuple[re.Pattern[str], str], ...]
"""(a title with its unit as the last group, the unit where none is stated), the best first."""


@dataclass(frozen=True)
class Layout:
    """One row of the table; see the head of `layouts.toml`."""

    name: str
    about: str
    titles: Mapping[str, Titles] = field(default_factory=dict)
    marks: tuple[re.Pattern[str], ...] = ()
    preamble: str = ""
    row: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Three columns x, y, z by their positions; `unit` as the header states it, else the layout's `usual` one."""

    positions: tuple[int, ...]
    unit: str = ""
    usual: str = ""


@dataclass(frozen=True)
class Columns:
    """What stands where in a table, by the names of `GROUPS`."""

    layout: str
    groups: Mapping[str, Group]
    time: int | None = None
    time_unit: str = ""
    nanoseconds: int | None = None

    @property
    def used(self) -> list[int]:
        """The positions of all columns that are read: those of the groups, then the times."""
        times = [place for place in (self.time, self.nanoseconds) if place is not None]
        return [*(place for group in self.groups.values() for place in group.positions), *times]


def key_of(title: str) -> str:
    """`Gyroscope x (°/s)` -> `gyroscope_x_deg_s`: lower case, no accents, every run of other characters as `_`."""
    # The micro sign must not get lost: "time (µs)" is not "time (s)".
    title = re.sub("[µμ]", "u", title)
    title = re.sub("[°˚º]", "deg", title)
    title = "".join(mark for mark in unicodedata.normalize("NFKD", title) if not unicodedata.combining(mark))
    title = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", title)
    return _NOT_A_LETTER.sub("_", title.lower()).strip("_")


@cache
def layouts() -> tuple[Layout, ...]:
    """All rows of the table, in their order."""
    table = tomllib.loads(Path(__file__).with_name("layouts.toml").read_text(encoding="utf-8"))
    return tuple(_layout(row) for row in table["layout"])


def _layout(row: Mapping[str, Any]) -> Layout:
    titles = {group: _titles(row[group]) for group in (*GROUPS, "time") if group in row}
    if files := row.get("files", {}):
        titles["axes"] = _titles({row.get("axes", "AXIS"): ""})
    return Layout(
        row["name"],
        row["about"],
        titles,
        tuple(re.compile(mark) for mark in row.get("marks", ())),
        row.get("preamble", ""),
        tuple(row.get("row", ())),
        files,
        row.get("units", {}),
    )


def _titles(entries: Mapping[str, str]) -> Titles:
    return tuple(
        (re.compile(rf"(?:{title.replace('AXIS', '([xyz])')})(?:_(.+))?"), unit) for title, unit in entries.items()
    )


def match_header(header: Sequence[str], name: str, preamble: str = "") -> Columns | None:
    """Titles -> the columns by the first layout that knows x, y and z of something, with a time if one does.

    Raises MediaError where two columns are called alike.
    """
    keys = [key_of(title) for title in header]
    timeless = None
    for layout in layouts():
        if layout.row or layout.preamble not in preamble:
            continue
        if not all(any(mark.fullmatch(key) for key in keys) for mark in layout.marks):
            continue
        groups = _groups(layout, header, keys, name)
        if not groups or not (groups.keys() & {"acceleration", "linear"} or _is_a_part(layout, name)):
            continue
        time, unit = _time(layout, keys)
        columns = Columns(layout.name, groups, time, unit)
        if time is not None:
            return columns
        timeless = timeless or columns
    return timeless


def match_row(fields: Sequence[str]) -> Columns | None:
    """The first row of a table without a header -> its columns, where a layout has such rows."""
    for layout in layouts():
        if layout.row and len(layout.row) == len(fields) and all(map(_fits, layout.row, fields)):
            place = {what: position for position, what in enumerate(layout.row)}
            groups = {}
            for group, first in (("acceleration", 0), ("rotation", 3)):
                if CHANNELS[first] in place:
                    x, y, z = (place[channel] for channel in CHANNELS[first : first + 3])
                    groups[group] = Group((x, y, z), usual=unit_key(layout.units.get(group, "")))
            time = next(place[what] for what in ("time", "t", "seconds") if what in place)
            return Columns(layout.name, groups, time, layout.units["time"], place.get("nanoseconds"))
    return None


def _fits(what: str, text: str) -> bool:
    if what == "":
        return True
    if what == "a":
        return re.fullmatch(r"[A-Za-z][A-Za-z _-]*", text.strip()) is not None
    return _CLOCK.fullmatch(text.strip()) is not None if what == "t" else is_number(text)


def is_number(text: str) -> bool:
    """Whether a field is a number, with either decimal sign."""
    try:
        float(text.strip().replace(",", "."))
    except ValueError:
        return False
    return True


def _groups(layout: Layout, header: Sequence[str], keys: Sequence[str], name: str) -> dict[str, Group]:
    """The groups of a layout in a header; none where one of them lacks an axis."""
    if layout.files:
        kind = layout.files.get(_end_of(layout, name), "")
        found = _three(layout.titles["axes"], header, keys, name, kind) if kind else None
        return (
            {kind: Group(found.positions, found.unit, unit_key(layout.units.get(kind, "")))}
            if found and found.positions
            else {}
        )
    groups = {kind: _three(layout.titles[kind], header, keys, name, kind) for kind in GROUPS if kind in layout.titles}
    if any(group is not None and not group.positions for group in groups.values()):
        return {}
    return {kind: group for kind, group in groups.items() if group is not None}


def _three(titles: Titles, header: Sequence[str], keys: Sequence[str], name: str, group: str) -> Group | None:
    """x, y and z under the first title that all three have; without positions where only some of them are there."""
    some = False
    for pattern, usual in titles:
        found: dict[str, tuple[int, str]] = {}
        for position, key in enumerate(keys):
            if (match := pattern.fullmatch(key)) and is_unit(unit := unit_key(match.groups()[-1] or ""), group):
                axis = next(axis for axis in match.groups()[:-1] if axis)
                if axis in found:
                    both = f"{header[found[axis][0]]!r} and {header[position]!r}"
                    what = CHANNELS["xyz".index(axis) + 3 * (group == "rotation")]
                    raise MediaError(name, f"columns {both} both look like {what}; rename one")
                found[axis] = (position, unit)
        if len(found) == 3:
            units = {unit for _, unit in found.values()}
            if len(units) > 1:
                what = "gyro" if group == "rotation" else "acc"
                raise MediaError(name, f"gives {what} x, y and z different units; use one unit")
            return Group((found["x"][0], found["y"][0], found["z"][0]), units.pop(), unit_key(usual))
        some = some or bool(found)
    return Group(()) if some else None


def _time(layout: Layout, keys: Sequence[str]) -> tuple[int | None, str]:
    for pattern, usual in layout.titles.get("time", ()):
        for position, key in enumerate(keys):
            if (match := pattern.fullmatch(key)) and is_unit(unit := unit_key(match.groups()[-1] or ""), "time"):
                return position, unit or usual
    return None, ""


def no_layout(header: Sequence[str], name: str) -> MediaError:
    """Why a table without a known layout cannot be read."""
    if all(is_number(title) for title in header):
        return MediaError(name, f"has no header line; {COLUMN_HELP}")
    found = set()
    general = layouts()[-1]
    for group, first in (("acceleration", 0), ("rotation", 3)):
        for pattern, _ in general.titles[group]:
            for key in map(key_of, header):
                if (match := pattern.fullmatch(key)) and is_unit(unit_key(match.groups()[-1] or ""), group):
                    found.add(CHANNELS[first + "xyz".index(next(axis for axis in match.groups() if axis))])
    missing = [channel for channel in CHANNELS if channel not in found]
    titles = ", ".join(title.strip() for title in header[:20])
    return MediaError(name, f"has no {', '.join(missing)} among its columns ({titles}); {COLUMN_HELP}")


# Recordings in several files


def _is_a_part(layout: Layout, name: str) -> bool:
    return _end_of(layout, name) != ""


def _end_of(layout: Layout, name: str) -> str:
    """How a file's name ends, of the ends that a layout knows; '' where it is none of them."""
    stem = re.sub(r"[\W_]+", "", os.path.splitext(os.path.basename(name))[0]).lower()
    return max((end for end in layout.files if stem.endswith(end.lower())), key=len, default="")


def recording_of(path: str | os.PathLike[str]) -> list[str]:
    """A file -> all files of its recording that lie beside it and are no links, the best acceleration first.

    One path, its own, where the name is none of a recording in several files or the others are not there.
    """
    path = os.fspath(path)
    folder, file = os.path.split(path)
    stem, suffix = os.path.splitext(file)
    for layout in layouts():
        end = _end_of(layout, file)
        # Its spelling here (`accelerometer`, `Accelerometer`) is that of the others.
        if not end or not stem.lower().endswith(end.lower()):
            continue
        begin, own = stem[: len(stem) - len(end)], stem[len(stem) - len(end) :]
        spell = str.lower if own.islower() else str.upper if own.isupper() else str
        names = [own if other == end else spell(other) for other in layout.files]
        others = [os.path.join(folder, begin + name + suffix) for name in names]
        found = [other for other in others if other == path or _is_file(other)]
        if len(found) > 1:
            return found
    return [path]


def _is_file(path: str) -> bool:
    try:
        return os.path.isfile(path) and not os.path.islink(path)
    except (OSError, ValueError):
        return False


def unit_row(row: Sequence[str], columns: Columns) -> Columns | None:
    """A row below the header -> the columns with the units that it states; None where it states none."""
    if any(place >= len(row) for place in columns.used):
        return None
    stated = {}
    for name, group in columns.groups.items():
        units = {unit_key(row[place]) for place in group.positions}
        if len(units) > 1 or not is_unit(unit := units.pop(), name) or not unit:
            return None
        stated[name] = Group(group.positions, unit, group.usual)
    unit = "" if columns.time is None else unit_key(row[columns.time])
    known = bool(unit) and is_unit(unit, "time")
    return Columns(columns.layout, stated, columns.time, unit if known else columns.time_unit, columns.nanoseconds)
