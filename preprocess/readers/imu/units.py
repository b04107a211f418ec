"""Columns of a recording as a file gives them -> SI units and seconds."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import numpy as np

from preprocess.source import MediaError, Source

CHANNELS = ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z")
"""The order of the channels everywhere: acceleration in m/s2, then rotation in rad/s."""
STANDARD_GRAVITY = 9.80665  # m/s2 in one g, by definition (3rd CGPM, 1901)
SHORTEST_S = 0.5
"""Seconds of motion that a recording needs at least: a tenth of the window of 5 s for which ImageBind's encoder was
made."""
_ACCELERATION_UNITS = {
    **dict.fromkeys(("ms2", "mps2", "mss", "mpss"), 1.0),
    "cms2": 1e-2,
    "mms2": 1e-3,
    "fts2": 0.3048,
    **dict.fromkeys(("g", "gs", "gn", "gforce"), STANDARD_GRAVITY),
    **dict.fromkeys(("mg", "millig"), STANDARD_GRAVITY / 1000),
}
"""Unit, as `_plain` writes it -> m/s2 in one of it."""
_ROTATION_UNITS = {
    **dict.fromkeys(("rads", "rads1", "radps"), 1.0),
    "mrads": 1e-3,
    **dict.fromkeys(("degs", "degs1", "degps", "dps", "ds"), math.pi / 180),
    **dict.fromkeys(("mdps", "mdegs"), math.pi / 180_000),
}
"""Unit, as `_plain` writes it -> rad/s in one of it."""
_TIME_UNITS = {
    "s": 1.0,
    **dict.fromkeys(("ms", "millis"), 1e-3),
    **dict.fromkeys(("us", "micros"), 1e-6),
    **dict.fromkeys(("ns", "nanos"), 1e-9),
    "100us": 1e-4,
}
"""Unit, as `_plain` writes it -> seconds in one of it."""
_UNITS = {"rotation": _ROTATION_UNITS, "time": _TIME_UNITS}
"""Kind of column -> its units; columns of any other kind hold acceleration."""
_WORDS = (
    (re.compile("milli(?=[a-z])"), "m"),
    (re.compile("micro(?=[a-z])"), "u"),
    (re.compile("nano(?=[a-z])"), "n"),
    (re.compile("met(?:er|re)s?"), "m"),
    (re.compile("sec(?:ond)?s?"), "s"),
    (re.compile("deg(?:ree)?s?(?!$)"), "deg"),
    (re.compile("rad(?:ian)?s?(?=.*s)"), "rad"),
    (re.compile("squared"), "2"),
    (re.compile("per"), ""),
)
"""Units in words -> as they are written in short."""
_CYRILLIC = str.maketrans("мсрадг", "msradg")
"""The letters of the Russian units for m/s2, rad/s and g, in Latin ones."""

_EPOCH = (("s", 1e9), ("ms", 1e12), ("us", 1e15), ("ns", 1e18))
"""A number of 1 to 10 times that, in its unit, is a moment from 2001 to 2286."""
_SLOWEST_HZ, _FASTEST_HZ = 0.4, 10_000.0
"""Rates in Hz that a recording of motion may have; a unit of time that leads to another rate is not the right one."""
# Numbers without a unit. What lasts in a recording with gravity is gravity; a person turns once a second, not more,
# for most of a recording, and gyroscopes of phones end at 2000 deg/s, which are 35 rad/s. Who writes acceleration in g
# writes degrees as a rule.
_STEADY_S = 2.0
_ENOUGH_ROWS = 50_000
_LASTS_IN_G = (0.5, 1.6)
_PULLS_IN_G = (0.8, 2.0)
_MOST_LASTING = 100.0
"""In m/s2: what lasts is gravity, so that no number without a unit may last above it."""
_LARGEST_COUNT = 2.0**24
"""What no converter of 24 bits counts up to; larger numbers are damage, and their rows are left out."""
_TURNS = {"m/s2": (2 * math.pi, 35.0), "g": (5.5, 25.0)}
"""Unit of the acceleration -> median and 99th percentile above which rotation is in deg/s."""


@dataclass
class Measured:
    """Three columns: `values` (T, 3) as in the file, the `unit` that is stated, else what is `usual` ('': unknown)."""

    values: np.ndarray
    unit: str = ""
    usual: str = ""


@dataclass
class Table:
    """One file's columns as they stand in it: `groups` as in the layouts; `time` (T,) from 0 in `time_unit`, or None.

    `origin` is the first time as the file has it; `rate_hz` is what stands above the header.
    """

    name: str
    layout: str = "any"
    groups: dict[str, Measured] = field(default_factory=dict)
    time: np.ndarray | None = None
    time_unit: str = ""
    origin: float = 0.0
    is_clock: bool = False
    rate_hz: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """T."""
        return max(len(group.values) for group in self.groups.values())


def unit_key(unit: str) -> str:
    """A unit as a header writes it (`m/s^2`) -> its key in the tables of units (`ms2`)."""
    unit = re.sub("[°˚º]", "deg", re.sub("[µμ]", "u", unit.strip().lower())).replace("²", "2")
    unit = unit.translate(_CYRILLIC)  # phyphox writes them in Cyrillic letters too
    for word, short in _WORDS:
        unit = word.sub(short, unit)
    return re.sub(r"[^a-z0-9]", "", unit)


def is_unit(unit: str, group: str) -> bool:
    """Whether a key is a unit of acceleration, rotation or time, or ''."""
    return unit == "" or unit in _UNITS.get(group, _ACCELERATION_UNITS)


def period_of(time_s: np.ndarray) -> float:
    """The usual step of times (T,), 0 where there is none."""
    steps = np.diff(time_s)
    steps = steps[steps > 0]
    return float(np.median(steps)) if len(steps) else 0.0


def acceleration_in_si(
    group: Measured, has_gravity: bool, layout: str, period_s: float, source: Source, notes: list[str]
) -> tuple[np.ndarray, str]:
    """Acceleration -> (T, 3) float32 in m/s2, and the unit it was in (`m/s2` or `g`)."""
    units, stated = _ACCELERATION_UNITS, group.unit or _hint(source, source.hints.acceleration_unit, ("m/s2", "g"))
    factor = _factor(group, source.hints.acceleration_unit, units, source)
    usable = _usable(group.values)
    pull = _median_length(usable)
    if not stated and not group.usual and has_gravity:
        steady = _steady(group.values, period_s)
        if _LASTS_IN_G[0] < steady < _LASTS_IN_G[1] and _PULLS_IN_G[0] < pull < _PULLS_IN_G[1]:
            notes.append(f"acceleration has no unit and a lasting magnitude of {steady:.2f}: taken as g")
            factor = STANDARD_GRAVITY
        elif 1000 * _LASTS_IN_G[0] < steady < 1000 * _LASTS_IN_G[1] and 800 < pull < 2000:
            notes.append(f"acceleration has no unit and a lasting magnitude of {steady:.0f}: taken as mg")
            factor = STANDARD_GRAVITY / 1000
        elif _MOST_LASTING < steady < _LARGEST_COUNT:
            raise MediaError(
                source.name,
                f"its acceleration has no unit and a lasting magnitude of {steady:,.0f}: counts of a sensor? "
                "Divide them by those of 1 g, or write the unit into the header",
            )
    elif not stated and group.usual and units[group.usual] != 1.0:
        notes.append(f"acceleration has no unit: taken as {group.usual}, as {layout} writes it")
    elif has_gravity and factor == 1.0 and 0.8 < pull < 1.25:
        notes.append(f"acceleration, taken as m/s2, has a median magnitude of {pull:.2f}: g? Set acceleration_unit")
    if has_gravity and 0.8 < pull * factor / STANDARD_GRAVITY**2 < 1.25:
        notes.append(
            f"acceleration has a median magnitude of {pull * factor:.0f} m/s2: given in m/s2, not g? Check its unit"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        return group.values * np.float32(factor), "m/s2" if factor == 1.0 else "g"


def rotation_in_si(group: Measured, beside: str, layout: str, source: Source, notes: list[str]) -> np.ndarray:
    """The rate of rotation -> (T, 3) float32 in rad/s; `beside` is the unit of the acceleration."""
    units, stated = _ROTATION_UNITS, group.unit or _hint(source, source.hints.rotation_unit, ("rad/s", "deg/s"))
    factor = _factor(group, source.hints.rotation_unit, units, source)
    usable = _usable(group.values)
    turn = float(np.percentile(np.abs(usable), 99)) if len(usable) else 0.0
    usual = _median_length(usable)
    most_usual, most = _TURNS[beside]
    if not stated and not group.usual:
        if usual > most_usual or turn > most:
            notes.append(f"rotation has no unit, a median of {usual:.3g} and reaches {turn:.3g}: taken as deg/s")
            factor = units["degs"]
    elif not stated and group.usual and units[group.usual] != 1.0:
        notes.append(f"rotation has no unit: taken as {group.usual[:3]}/s, as {layout} writes it")
    elif factor == 1.0 and turn > 70:
        notes.append(f"rotation, taken as rad/s, reaches {turn:.0f}: deg/s? Set rotation_unit")
    with np.errstate(over="ignore", invalid="ignore"):
        return group.values * np.float32(factor)


def lacks_gravity(group: Measured, period_s: float) -> bool:
    """Whether acceleration of a known unit is so small, in all and in what lasts, that gravity was removed from it."""
    unit = group.unit or group.usual
    if not unit or not len(usable := _usable(group.values)):
        return False
    in_g = _ACCELERATION_UNITS[unit] / STANDARD_GRAVITY
    return _steady(group.values, period_s) * in_g < 0.3 and _median_length(usable) * in_g < 0.7


def _usable(values: np.ndarray) -> np.ndarray:
    """(T, 3) -> its finite rows, of a long recording evenly spread ones."""
    spread = values[:: max(1, len(values) // _ENOUGH_ROWS)]
    finite: np.ndarray = spread[np.isfinite(spread).all(axis=1)]
    return finite


def _median_length(values: np.ndarray) -> float:
    with np.errstate(over="ignore"):  # numbers that no sensor writes are left out later
        return float(np.median(np.linalg.norm(values, axis=1))) if len(values) else 0.0


def _steady(values: np.ndarray, period_s: float) -> float:
    """(T, 3) -> the median length of what is left of it when two seconds are averaged."""
    values = values[np.isfinite(values).all(axis=1)]
    rows = max(1, min(len(values), round(_STEADY_S / period_s) if period_s else 64))
    whole = len(values) // rows * rows
    if not whole:
        return 0.0
    means = values[:whole].reshape(-1, rows, 3).mean(axis=1, dtype=np.float64)
    return float(np.median(np.linalg.norm(means, axis=1)))


def _hint(source: Source, hint: str | None, expected: tuple[str, str]) -> str:
    if hint is not None and hint not in expected:
        raise MediaError(source.name, f"unit {hint!r}: expected {expected[0]!r} or {expected[1]!r}")
    return hint or ""


def _factor(group: Measured, hint: str | None, units: dict[str, float], source: Source) -> float:
    hinted = None if hint is None else units[unit_key(hint)]
    if group.unit:
        if hinted is not None and hinted != units[group.unit]:
            raise MediaError(source.name, f"its header and its hint {hint!r} give different units; remove one")
        return units[group.unit]
    if hinted is not None:
        return hinted
    return units[group.usual] if group.usual else 1.0


def times(table: Table, source: Source, notes: list[str]) -> tuple[np.ndarray, float]:
    """(T,) seconds from the first row on, NaN where a row has no time; and the first in seconds of the file's clock."""
    rate_hz = source.hints.rate_hz
    if table.time is None:
        if rate_hz is None and table.rate_hz:
            rate_hz = table.rate_hz
            notes.append(f"it has no time column: {rate_hz:g} Hz, as its first lines say")
        if rate_hz is None:
            raise MediaError(source.name, "has no time column: say its sampling rate with the hint rate_hz")
        if not (math.isfinite(rate_hz) and rate_hz > 0):
            raise MediaError(source.name, f"hint rate_hz: expected a rate above 0, got {rate_hz}")
        return np.arange(table.rows) / rate_hz, 0.0
    if rate_hz is not None:
        notes.append("it has timestamps: the hint rate_hz was not used")
    unit = table.time_unit
    if unit not in _TIME_UNITS:
        unit = _unit_of_rate(table, source, notes)
    return table.time * _TIME_UNITS[unit], table.origin * _TIME_UNITS[unit]


def _unit_of_rate(table: Table, source: Source, notes: list[str]) -> str:
    assert table.time is not None
    step = period_of(table.time)
    candidates = table.time_unit.split("|") if table.time_unit else ["s", "ms", "us", "ns"]
    if table.rate_hz:
        candidates.sort(key=lambda unit: abs(math.log(max(step, 1e-12) * _TIME_UNITS[unit] * (table.rate_hz or 1))))
        if 0.5 < step * _TIME_UNITS[candidates[0]] * table.rate_hz < 2:
            return candidates[0]
    for unit, least in _EPOCH:
        rate_hz = 1 / (step * _TIME_UNITS[unit]) if step else 0.0
        if unit in candidates and least <= table.origin < 10 * least and _SLOWEST_HZ <= rate_hz <= _FASTEST_HZ:
            notes.append(f"its time column has no unit: taken as {unit} ({rate_hz:.4g} Hz)")
            return unit
    for unit in candidates:
        # 1 to 1000 Hz, with a margin for jitter; the four ranges touch and do not overlap.
        if 0.9e-3 <= step * _TIME_UNITS[unit] < 0.9:
            notes.append(f"its time column has no unit: taken as {unit} ({1 / (step * _TIME_UNITS[unit]):.4g} Hz)")
            return unit
    raise MediaError(
        source.name, f"its time column steps by {step:g} of no stated unit; name the unit in the header, as time [ms]"
    )
