"""The table of layouts of motion logs (`layouts.toml`), and which of them a header or a first row is written in."""

from __future__ import annotations

import os
import re
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
BY_UNITS = "titles with units"
"""The layout of columns that only end in x, y, z and a unit, in whatever language they begin."""
_CLOCK = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}[T ]+\d{1,2}[:-]\d{2}.*")
"""A date and a time in any of the orders in which loggers write them; only its shape is looked at."""
_NOT_A_LETTER = re.compile(r"[\W_]+")
"""What titles of columns have between their words."""
_WITH_UNIT = re.compile(r"(.*?)(?<![a-z])([xyz])(?:_axis)?_(.+)")
"""A title that ends in an axis and a unit."""
_MAGNETIC = re.compile(r"mag|compass|field")
"""How titles of magnetometers begin, whose gauss (G) look like the g of acceleration."""
_WORDS = re.compile(r"[A-Z][a-z]*")
"""The words of the end of a file's name (`LinearAcceleration`)."""
_AXES = {"0": "x", "1": "y", "2": "z"}
"""The axes of drones' logs, which number them."""

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
        (re.compile(rf"(?:{title.replace('AXIS', '([xyz])').replace('INDEX', '([012])')})(?:_(.+))?"), unit)
        for title, unit in entries.items()
    )


def match_header(header: Sequence[str], name: str, preamble: str = "") -> Columns | None:
    """Titles -> the columns by the first layout that knows x, y and z of something, with a time if one does.

    Where none does, the units in the titles tell. Raises MediaError where two columns are called alike.
    """
    keys = [key_of(title) for title in header]
    timeless = turnless = None
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
        if turnless and "rotation" in groups:
            return replace(turnless, groups={"rotation": groups["rotation"], **turnless.groups})
        if turnless or (time is None and not layout.preamble):
            timeless = timeless or columns
        elif "rotation" in groups or layout.files:
            return columns
        else:
            turnless = columns  # another layout may know what rotation is called
    united = _by_units(keys)
    if turnless:
        return replace(turnless, groups={**united.groups, **turnless.groups} if united else turnless.groups)
    best = timeless or united
    return None if best is None else replace(best, **_any_time(keys))


def _by_units(keys: Sequence[str]) -> Columns | None:
    """Titles that end in x, y and z with a unit of acceleration, or of rotation -> the first three of each."""
    found: dict[tuple[str, str, str], dict[str, int]] = {}
    for position, key in enumerate(keys):
        match = _WITH_UNIT.fullmatch(key)
        if match and not _MAGNETIC.match(match[1]) and (unit := unit_key(match[3])):
            for group in ("acceleration", "rotation"):
                if is_unit(unit, group):
                    found.setdefault((group, match[1], unit), {})[match[2]] = position
    groups: dict[str, Group] = {}
    for (group, _, unit), axes in found.items():
        if len(axes) == 3:
            groups.setdefault(group, Group((axes["x"], axes["y"], axes["z"]), unit))
    return Columns(BY_UNITS, groups) if "acceleration" in groups else None


def _any_time(keys: Sequence[str]) -> dict[str, Any]:
    """The column of time by any word for it, else by its unit."""
    place, unit = _time(layouts()[-1], keys, any_unit=True)
    if place is None:
        for position, key in enumerate(keys):
            unit = unit_key(key.rpartition("_")[2])
            if "_" in key and unit and is_unit(unit, "time") and not _WITH_UNIT.fullmatch(key):
                return {"time": position, "time_unit": unit}
    return {"time": place, "time_unit": unit}


def match_row(fields: Sequence[str], preamble: str = "") -> Columns | None:
    """The first row of a table without a header -> its columns, where a layout has such rows."""
    for layout in layouts():
        if (
            layout.row
            and layout.preamble in preamble
            and len(layout.row) == len(fields)
            and all(map(_fits, layout.row, fields))
        ):
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
                axis = _AXES.get(axis, axis)
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


def _time(layout: Layout, keys: Sequence[str], any_unit: bool = False) -> tuple[int | None, str]:
    """The position of the time and its unit; with `any_unit`, also where the title goes on with something else."""
    for known in (True, False) if any_unit else (True,):
        for pattern, usual in layout.titles.get("time", ()):
            for position, key in enumerate(keys):
                if match := pattern.fullmatch(key):
                    unit = unit_key(match.groups()[-1] or "")
                    if is_unit(unit, "time") or not known:
                        return position, (unit if known else "") or usual
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
    return max((end for end in layout.files if _match_end(end, name)), key=len, default="")


def _match_end(end: str, name: str) -> re.Match[str] | None:
    """A name that ends so, in any spelling, before numbers (`Accelerometer_100.000Hz_1.5.4`): (begin, end, numbers)."""
    words = r"[\W_]*".join(_WORDS.findall(end))
    stem = os.path.splitext(os.path.basename(name))[0]
    return re.fullmatch(rf"(.*?)({words})((?:[\W_]*t?\d[\d.]*(?:[\W_]*hz)?)*[\W_]*)", stem, re.IGNORECASE)


def recording_of(path: str | os.PathLike[str]) -> list[str]:
    """A file -> all files of its recording that lie beside it and are no links, the best acceleration first.

    One path, its own, where the name is none of a recording in several files or the others are not there.
    """
    path = os.fspath(path)
    folder, file = os.path.split(path)
    suffix = os.path.splitext(file)[1]
    for layout in layouts():
        end = _end_of(layout, file)
        match = _match_end(end, file) if end else None
        if match is None:
            continue
        begin, own, tail = match.groups()
        found = []
        for other in layout.files:
            spelled = [path] if other == end else [f"{begin}{name}{tail}{suffix}" for name in _spellings(other, own)]
            candidates = (one if one == path else os.path.join(folder, one) for one in spelled)
            found += [one for one in candidates if one == path or _is_file(one)][:1]
        if len(found) > 1:
            return found
    return [path]


def _spellings(end: str, like: str) -> list[str]:
    """`LinearAcceleration` as another file is spelled: small or large letters, its words apart or together."""
    words = _WORDS.findall(end)
    if like.islower() or like.isupper():
        words = [word.lower() if like.islower() else word.upper() for word in words]
    return [mark.join(words) for mark in (("", "_", " ", "-") if len(words) > 1 else ("",))]


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
