"""Columns of a recording as a file gives them -> SI units and seconds."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from preprocess.source import MediaError, Source

CHANNELS = ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z")
_STANDARD_GRAVITY = 9.80665  # m/s2 in one g, by definition (3rd CGPM, 1901)
SHORTEST_S = 0.5
ACCELERATION_UNITS = {"ms2": 1.0, "mps2": 1.0, "g": _STANDARD_GRAVITY, "mg": _STANDARD_GRAVITY / 1000}
ROTATION_UNITS = {
    **dict.fromkeys(("rads", "radps", "radsec"), 1.0),
    **dict.fromkeys(("degs", "degps", "degsec", "degreess", "dps"), math.pi / 180),
}
TIME_UNITS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "millis", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "usec", "micros", "microseconds"), 1e-6),
    **dict.fromkeys(("ns", "nsec", "nanos", "nanoseconds"), 1e-9),
}


@dataclass
class RawSeries:
    """Columns as they stand in the file: `values` (T, 3 or 6); `time` (T,) from 0 in `time_unit`, or None."""

    values: np.ndarray
    acceleration_unit: str = ""
    rotation_unit: str = ""
    time: np.ndarray | None = None
    time_unit: str = ""
    notes: tuple[str, ...] = ()


def unit_key(unit: str) -> str:
    """A unit as a header writes it (`m/s^2`) -> its key in the tables of units (`ms2`)."""
    return re.sub(r"[^a-z0-9]", "", unit.lower())


def to_si(raw: RawSeries, source: Source, notes: list[str]) -> np.ndarray:
    """(T, 3 or 6) -> (T, 6) float32 in m/s2 and rad/s."""
    hints = source.hints
    acceleration = _factor(raw.acceleration_unit, hints.acceleration_unit, ACCELERATION_UNITS, "m/s2", "g", source)
    rotation = _factor(raw.rotation_unit, hints.rotation_unit, ROTATION_UNITS, "rad/s", "deg/s", source)
    values = np.zeros((len(raw.values), 6), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        values[:, :3] = raw.values[:, :3] * np.float32(acceleration)
        # A gyroscope that is off writes no number at all, in a column or in none.
        if raw.values.shape[1] == 6 and np.isfinite(raw.values[:, 3:]).any():
            values[:, 3:] = raw.values[:, 3:] * np.float32(rotation)
        else:
            notes.append("no gyroscope: rotation set to 0")
        usable = values[np.isfinite(values).all(axis=1)]
        if not len(usable):
            return values
        # A sensor at rest or in everyday motion measures gravity, 9.8 m/s2; the largest gyroscopes end at 70 rad/s.
        pull = float(np.median(np.linalg.norm(usable[:, :3], axis=1)))
        turn = float(np.percentile(np.abs(usable[:, 3:]), 99))
    if 0.8 < pull < 1.25:
        notes.append(f"acceleration, taken as m/s2, has a median magnitude of {pull:.2f}: g? Set acceleration_unit")
    if 0.8 < pull / _STANDARD_GRAVITY**2 < 1.25:
        notes.append(f"acceleration has a median magnitude of {pull:.0f} m/s2: given in m/s2, not g? Check its unit")
    if rotation == 1.0 and turn > 70:
        notes.append(f"rotation, taken as rad/s, reaches {turn:.0f}: deg/s? Set rotation_unit")
    return values


def _factor(stated: str, hint: str | None, units: dict[str, float], default: str, other: str, source: Source) -> float:
    if hint is not None and hint not in (default, other):
        raise MediaError(source.name, f"unit {hint!r}: expected {default!r} or {other!r}")
    hinted = None if hint is None else units[unit_key(hint)]
    if not stated:
        return 1.0 if hinted is None else hinted
    if hinted is not None and hinted != units[stated]:
        raise MediaError(source.name, f"its header and its hint {hint!r} give different units; remove one")
    return units[stated]


def times(raw: RawSeries, source: Source, notes: list[str]) -> np.ndarray:
    """(T,) seconds from the first row on, NaN where a row has no time."""
    rate_hz = source.hints.rate_hz
    if raw.time is None:
        if rate_hz is None:
            raise MediaError(source.name, "has no time column: say its sampling rate with the hint rate_hz")
        if not (math.isfinite(rate_hz) and rate_hz > 0):
            raise MediaError(source.name, f"hint rate_hz: expected a rate above 0, got {rate_hz}")
        return np.arange(len(raw.values)) / rate_hz
    if rate_hz is not None:
        notes.append("it has timestamps: the hint rate_hz was not used")
    if raw.time_unit:
        return raw.time * TIME_UNITS[raw.time_unit]
    steps = np.diff(raw.time)
    steps = steps[steps > 0]
    step = float(np.median(steps)) if len(steps) else 0.0
    for unit in ("s", "ms", "us", "ns"):
        # 1 to 1000 Hz, with a margin for jitter; the four ranges touch and do not overlap.
        if 0.9e-3 <= step * TIME_UNITS[unit] < 0.9:
            notes.append(f"its time column has no unit: taken as {unit} ({1 / (step * TIME_UNITS[unit]):.4g} Hz)")
            return raw.time * TIME_UNITS[unit]
    raise MediaError(
        source.name, f"its time column steps by {step:g} of no stated unit; name the unit in the header, as time [ms]"
    )
