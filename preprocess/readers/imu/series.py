"""One recording of a file or an array, in SI units: unusable rows are dropped, rows are sorted by time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from preprocess.formats import sniff
from preprocess.readers.imu.tables import MAX_BAD_SHARE, as_float32, check_array, read_csv, read_npy, read_parquet
from preprocess.readers.imu.units import SHORTEST_S, RawSeries, times, to_si
from preprocess.source import Limits, MediaError, Source

_MAX_STEP_BACK_S = 1.0  # rows may be this far out of order; a larger step back is a clock that was restarted
_LARGEST_VALUE = 1e6  # in SI units; no sensor reaches it, and its square still fits a float32


@dataclass(frozen=True)
class ImuSeries:
    """A recording as sampled: `time_s` (T,) increases strictly from 0, `values` (T, 6) are float32 in SI units."""

    time_s: np.ndarray
    values: np.ndarray
    notes: tuple[str, ...]

    @cached_property
    def period_s(self) -> float:
        """The usual time between two samples (the median)."""
        return float(np.median(np.diff(self.time_s)))

    @cached_property
    def duration_s(self) -> float:
        """From the first sample to the end of the last one's period: 2000 samples at 400 Hz last 5 s."""
        return float(self.time_s[-1]) + self.period_s


def read_imu(source: Source, limits: Limits) -> ImuSeries:
    """A recording -> all its samples in SI units, with times from the first one on.

    Tables (CSV, TSV, parquet) name their columns; spellings such as `acc_x`, `accX [g]`, `ax`,
    `Acceleration x (m/s^2)`, `gyro_x_deg_s`, `wx`, `angular_velocity.x`, `timestamp_ns` are understood, other columns
    are ignored. Times come from the first time column, else from `hints.rate_hz`. A time column without a unit is taken
    in the unit (s, ms, us or ns) that makes its median rate 1 to 1000 Hz. `.npy` and arrays in memory are
    (T, 6) in the order of `CHANNELS`, or (T, 3) without gyroscope, and need `hints.rate_hz`. Units come from the header
    or the hints; the default is m/s2 and rad/s. Without a gyroscope, or where it has no finite value, rotation is 0.

    Raises MediaError for another layout, contradictory or unknown units, more than a fifth of the rows unusable,
    timestamps that are too coarse or restart, and more than `max_rows`.
    """
    if source.is_encoded:
        found = sniff(source, limits)
        with source.open(limits) as file:
            if found.name == "csv":
                raw = read_csv(file, source.name, limits)
            elif found.name == "parquet":
                raw = read_parquet(file, source.name, limits)
            elif found.name == "npy":
                raw = read_npy(file, source.name, limits)
            else:
                raise MediaError(source.name, f"expected CSV, TSV, parquet or .npy, got {found.name}")
    elif isinstance(source.content, np.ndarray):
        check_array(source.content.shape, source.content.dtype, source.name, limits)
        raw = RawSeries(as_float32(source.content))
    else:
        raise MediaError(source.name, f"expected an array (T, 6), got {type(source.content).__name__}")
    notes = list(raw.notes)
    values = to_si(raw, source, notes)
    time_s = times(raw, source, notes)
    return _clean(time_s, values, source.name, notes)


def _clean(time_s: np.ndarray, values: np.ndarray, name: str, notes: list[str]) -> ImuSeries:
    """Drops unusable rows, sorts and drops repeated times. Raises MediaError where too little is left."""
    count = len(time_s)
    usable = np.isfinite(time_s) & (np.abs(values) <= _LARGEST_VALUE).all(axis=1)
    bad = count - int(usable.sum())
    if bad > MAX_BAD_SHARE * count:
        raise MediaError(
            name, f"{bad:,} of {count:,} rows have missing, infinite or impossible values; at most a fifth may"
        )
    if bad:
        notes.append(f"{bad:,} of {count:,} rows had missing, infinite or impossible values: left out")
    time_s, values = time_s[usable], values[usable]
    back = np.diff(time_s) < 0
    if back.any():
        drop_s = np.maximum.accumulate(time_s) - time_s
        worst = int(np.argmax(drop_s))
        if drop_s[worst] > _MAX_STEP_BACK_S:
            raise MediaError(
                name, f"its clock steps back by {drop_s[worst]:.2f} s at row {worst + 1:,}; split it there"
            )
        notes.append(f"{int(back.sum()):,} of {count:,} rows were out of order in time: sorted")
        order = np.argsort(time_s, kind="stable")
        time_s, values = time_s[order], values[order]
    first_of_time = np.diff(time_s, prepend=-np.inf) > 0
    repeated = len(time_s) - int(first_of_time.sum())
    if 2 * repeated > len(time_s):
        raise MediaError(
            name,
            f"only {len(time_s) - repeated:,} of {len(time_s):,} rows have a time of their own;"
            " if its clock is too coarse, remove the time column and give the hint rate_hz",
        )
    if repeated:
        notes.append(f"{repeated:,} of {count:,} rows repeated a time: left out")
        time_s, values = time_s[first_of_time], values[first_of_time]
    if len(time_s) < 2:
        raise MediaError(name, f"has {len(time_s)} usable rows, expected at least {SHORTEST_S} s of them")
    return ImuSeries(time_s - time_s[0], values, tuple(notes))
