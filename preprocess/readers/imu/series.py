"""One recording of a file or an array, in SI units: unusable rows are dropped, rows are sorted by time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from preprocess.formats import sniff
from preprocess.readers.imu.join import assemble, of_array
from preprocess.readers.imu.tables import MAX_BAD_SHARE, as_float32, check_array, read_csv, read_npy, read_parquet
from preprocess.readers.imu.units import SHORTEST_S, Table
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

    Tables (CSV, TSV, parquet) name their columns; `layouts.toml` has what the programs and data sets that write them
    call them, and other columns are ignored. Times come from the layout's time column, else from `hints.rate_hz` or
    the rate above the header. A time column without a unit is taken in the unit (s, ms, us or ns) that makes its
    numbers a date or its median rate 1 to 1000 Hz. `.npy` and arrays in memory are (T, 6) in the order of `CHANNELS`,
    or (T, 3) without gyroscope, and need `hints.rate_hz`. Units come from the header, a row below it, the hints or the
    layout; without any, the numbers tell m/s2 from g and rad/s from deg/s, and a note says so. Acceleration without
    gravity gets it back from a file or columns of its own, else along z. Files of one recording (`source.parts`) are
    joined. Without a gyroscope, or where it has no finite value, rotation is 0.

    Raises MediaError for another layout, contradictory or unknown units, more than a fifth of the rows unusable,
    timestamps that are too coarse or restart, and more than `max_rows`.
    """
    tables = [_read_table(source, limits)]
    notes: list[str] = []
    if not {"acceleration", "rotation"} <= tables[0].groups.keys():
        for part in source.parts:
            try:
                tables.append(_read_table(part, limits))
            except MediaError as error:
                notes.append(f"{part.name.rpartition('/')[2]} beside it was not joined: {error.reason}")
    time_s, values = assemble(tables, source, notes)
    return _clean(time_s, values, source.name, notes)


def _read_table(source: Source, limits: Limits) -> Table:
    if not source.is_encoded:
        if not isinstance(source.content, np.ndarray):
            raise MediaError(source.name, f"expected an array (T, 6), got {type(source.content).__name__}")
        check_array(source.content.shape, source.content.dtype, source.name, limits)
        return of_array(as_float32(source.content), source.name)
    found = sniff(source, limits)
    with source.open(limits) as file:
        if found.name in ("csv", "text"):  # text: where the caller says that a .txt is a recording
            return read_csv(file, source.name, limits)
        if found.name == "parquet":
            return read_parquet(file, source.name, limits)
        if found.name == "npy":
            return of_array(read_npy(file, source.name, limits), source.name)
    raise MediaError(source.name, f"expected CSV, TSV, parquet or .npy, got {found.name}")


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
