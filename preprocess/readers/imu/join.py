"""The files of one recording -> times and channels in SI units, rotation and gravity at the same moments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from preprocess.readers.imu.layouts import BY_UNITS
from preprocess.readers.imu.units import (
    STANDARD_GRAVITY,
    Measured,
    Table,
    acceleration_in_si,
    lacks_gravity,
    period_of,
    rotation_in_si,
    times,
)
from preprocess.source import MediaError, Source

_LEAST_COMMON = 0.5
"""Of the time of the acceleration that another file must cover."""
_HAS_GRAVITY = 0.5
"""Of g: a recording whose average pull is larger has gravity in it, whatever its layout says."""


def assemble(tables: Sequence[Table], source: Source, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Tables of one recording, its own first -> (T,) seconds from its first row on, (T, 6) float32 in SI units.

    Acceleration is the best there is: with gravity, else without it and gravity added, from a file of its own or
    along z. Raises MediaError where there is none.
    """
    kind = "acceleration" if any("acceleration" in table.groups for table in tables) else "linear"
    base = next((table for table in tables if kind in table.groups), None)
    if base is None:
        raise MediaError(source.name, "has no acceleration among its columns, and no file beside it has")
    notes.extend(base.notes)
    if base is not tables[0]:
        notes.append(f"its acceleration is that of {_base(base.name)}")
    time_s, origin_s = times(base, source, notes)
    has_gravity = kind == "acceleration"
    if has_gravity and base.layout in _SAYING_LITTLE and lacks_gravity(base.groups[kind], period_of(time_s)):
        kind, has_gravity = "linear", False
        base.groups[kind] = base.groups.pop("acceleration")
    values = np.zeros((len(time_s), 6), dtype=np.float32)
    values[:, :3], unit = acceleration_in_si(
        base.groups[kind], has_gravity, base.layout, period_of(time_s), source, notes
    )
    at = (time_s, origin_s, base)
    if not has_gravity:
        _add_gravity(values, tables, at, source, notes)
    _add_rotation(values, tables, at, unit, source, notes)
    if _takes_turns(base):
        own = np.isfinite(values[:, :3]).all(axis=1)
        return time_s[own], values[own]
    return time_s, values


def _takes_turns(table: Table) -> bool:
    """Whether rows have acceleration or rotation, and few have both, as where the events of sensors are written."""
    kinds = [group for name, group in table.groups.items() if name in ("acceleration", "linear")]
    rotation = table.groups.get("rotation")
    if rotation is None or not kinds:
        return False
    moved, turned = (np.isfinite(group.values).all(axis=1) for group in (kinds[0], rotation))
    return bool(moved.any() and turned.any() and (moved & turned).sum() < _LEAST_COMMON * turned.sum())


_SAYING_LITTLE = ("any", "one sensor a file", BY_UNITS)
"""Layouts whose titles of acceleration do not say whether gravity is in it."""
_Moments = tuple[np.ndarray, float, Table]
"""The times that others are brought to: from the first row on, the first one, and whose they are."""


def _add_gravity(values: np.ndarray, tables: Sequence[Table], at: _Moments, source: Source, notes: list[str]) -> None:
    base = at[2]
    for table in tables:
        if (group := table.groups.get("gravity")) is not None:
            gravity, unit = acceleration_in_si(group, True, table.layout, 0.0, source, [])
            linear = base.groups["linear"]
            if unit == "g" and table is base and not (linear.unit or linear.usual):  # one program, one unit
                values[:, :3] *= np.float32(STANDARD_GRAVITY)
            if (found := _brought(gravity, table, at, source, notes)) is not None:
                values[:, :3] += found
                notes.append(f"{base.layout}: gravity, recorded apart from the acceleration, was added to it")
                return
    usable = values[np.isfinite(values).all(axis=1), :3]
    if len(usable) and np.linalg.norm(usable.mean(axis=0)) > _HAS_GRAVITY * STANDARD_GRAVITY:
        return
    values[:, 2] += np.float32(STANDARD_GRAVITY)
    notes.append(
        f"{base.layout}: acceleration without gravity; 9.81 m/s2 were added along z, as if the device had lain flat"
    )


def _add_rotation(
    values: np.ndarray, tables: Sequence[Table], at: _Moments, unit: str, source: Source, notes: list[str]
) -> None:
    for table in tables:
        group = table.groups.get("rotation")
        # A gyroscope that is off writes no number at all, in a column or in none.
        if group is None or not np.isfinite(group.values).any():
            continue
        rotation = rotation_in_si(group, unit, table.layout, source, notes)
        if (found := _brought(rotation, table, at, source, notes)) is not None:
            values[:, 3:] = found
            return
    notes.append("no gyroscope: rotation set to 0")


def _brought(values: np.ndarray, table: Table, at: _Moments, source: Source, notes: list[str]) -> np.ndarray | None:
    """Values (T', 3) of a table at the moments of another (T, 3); None, and a note, where it covers other times."""
    time_s, origin_s, base = at
    if table is base and not _takes_turns(table):
        return values
    own_s, own_origin_s = times(table, source, [])
    if table.is_clock == base.is_clock and not (table.time is None or base.time is None):
        own_s = own_s + (own_origin_s - origin_s)
    good = np.isfinite(own_s) & np.isfinite(values).all(axis=1)
    own_s, values = own_s[good], values[good]
    order = np.argsort(own_s, kind="stable")
    own_s, values = own_s[order], values[order]
    finite_s = time_s[np.isfinite(time_s)]
    share = 0.0
    if len(own_s) > 1 and len(finite_s):
        step = period_of(own_s)
        share = float(np.mean((finite_s >= own_s[0] - step) & (finite_s <= own_s[-1] + step)))
    if share < _LEAST_COMMON:
        notes.append(f"{_base(table.name)} covers other times: it was not joined")
        return None
    if table is not base and base.layout == table.layout:
        notes.append(f"{base.layout}: joined with {_base(table.name)}")
    return np.stack([np.interp(time_s, own_s, values[:, axis]) for axis in range(3)], axis=1).astype(np.float32)


def _base(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def of_array(values: np.ndarray, name: str) -> Table:
    """An array (T, 3) or (T, 6) in the order of the channels -> a table without times."""
    groups = {"acceleration": Measured(values[:, :3])}
    if values.shape[1] == 6:
        groups["rotation"] = Measured(values[:, 3:])
    return Table(name, groups=groups)
