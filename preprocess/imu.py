"""Inertial measurements: CSV, parquet, `.npy` or array of accelerometer and gyroscope -> windows of (6, samples).

Channels are always acceleration x, y, z in m/s2, then rotation rate x, y, z in rad/s; rows are moments in time.
What is repaired or assumed (sorted rows, filled gaps, unknown units, a missing gyroscope) is said in `notes`.
"""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from preprocess.decoding.protocol import Returns, returns
from preprocess.media import Hints, Limits, MediaError, Plan, Segment, Source, csv_delimiter, sniff

if TYPE_CHECKING:
    import torch

CHANNELS = ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z")

_STANDARD_GRAVITY = 9.80665  # m/s2 in one g, by definition (3rd CGPM, 1901)
_SHORTEST_S = 0.5
_MAX_BAD_SHARE = 0.2  # of rows that may be unusable, and are left out, before the file counts as broken
_MAX_STEP_BACK_S = 1.0  # rows may be this far out of order; a larger step back is a clock that was restarted
_LARGEST_VALUE = 1e6  # in SI units; no sensor reaches it, and its square still fits a float32
_MAX_DECIMATION = 64
# A table may have so many rows (2.8 hours at 100 Hz), and one more for each byte of its file: no recording has more,
# but a run of zeros takes none. Footers of Parquet name every column of every row group.
_FREE_ROWS = 1_000_000
_MAX_FOOTER_STRING_BYTES = 2**24
_MAX_FOOTER_ENTRIES = 10_000

# How a header, lower case and with every mark turned into "_", may call a column. The rest, if any, is a unit.
_COLUMNS = (
    (0, re.compile(r"(?:imu_)?(?:a|acc|accel|acceleration|accelerometer|linear_acceleration)_?([xyz])(?:_(.+))?")),
    (
        3,
        re.compile(
            r"(?:imu_)?(?:g|w|gyr|gyro|gyroscope|omega|rotation|rotation_rate|angular_velocity)_?([xyz])(?:_(.+))?"
        ),
    ),
)
_TIME_COLUMN = re.compile(r"(?:time|timestamp|ts|t|epoch|epoc|elapsed|elapsed_time|unix_time|datetime)(?:_(.+))?")
_ACCELERATION_UNITS = {"ms2": 1.0, "mps2": 1.0, "g": _STANDARD_GRAVITY, "mg": _STANDARD_GRAVITY / 1000}
_ROTATION_UNITS = {
    **dict.fromkeys(("rads", "radps", "radsec"), 1.0),
    **dict.fromkeys(("degs", "degps", "degsec", "degreess", "dps"), math.pi / 180),
}
_TIME_UNITS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "millis", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "usec", "micros", "microseconds"), 1e-6),
    **dict.fromkeys(("ns", "nsec", "nanos", "nanoseconds"), 1e-9),
}
_COLUMN_HELP = (
    "expected a header with acc_x, acc_y, acc_z, gyro_x, gyro_y, gyro_z and a time column "
    "(units in it: acc_x [g], gyro_x [deg/s], time [ms]), or the hint rate_hz in place of the time column"
)


@dataclass(frozen=True)
class ImuConfig:
    """Preprocessing constants. ImageBind takes 6 x 2000 for 5 s (arXiv 2305.05665, app. B: Ego4D clips).

    Its normalisation is not published, so the default leaves m/s2 and rad/s as they are. `clips` windows at most
    stand for a whole recording; `max_gap_s` is the longest pause between samples that is no gap.
    """

    rate_hz: float = 400.0
    window_s: float = 5.0
    mean: tuple[float, ...] = (0.0,) * 6
    std: tuple[float, ...] = (1.0,) * 6
    max_gap_s: float = 0.2
    clips: int = 3


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


def shape(config: ImuConfig) -> tuple[int, int]:
    """(6 channels, samples of one window)."""
    return (len(CHANNELS), round(config.rate_hz * config.window_s))


def prepare(views: np.ndarray, config: ImuConfig) -> torch.Tensor:
    """Views (K, 6, samples) in m/s2 and rad/s -> float32 (x - mean) / std. Raises ValueError for another shape."""
    import torch  # decode workers import this module and need no torch

    if views.shape[1:] != shape(config):
        raise ValueError(f"imu: expected views (K, {shape(config)[0]}, {shape(config)[1]}), got {views.shape}")
    mean, std = (np.asarray(constant, dtype=np.float64)[:, None] for constant in (config.mean, config.std))
    return torch.from_numpy(np.ascontiguousarray((views - mean) / std, dtype=np.float32))


def _declare(config: ImuConfig, limits: Limits, plan: Plan) -> Returns:
    if plan == "whole":
        return Returns("float32", shape(config), config.clips)
    return Returns("float32", shape(config), 1, 1 + math.ceil(limits.max_duration_s / config.window_s))


@returns(_declare)
def read(source: Source, config: ImuConfig, limits: Limits, plan: Plan) -> list[Segment]:
    """A recording -> views (K, 6, samples) float32 in m/s2 and rad/s at `rate_hz`, K windows of `window_s`.

    Content: CSV or TSV with a header, parquet, `.npy`, or an array (T, 6) or (T, 3) in memory; see `read_imu`. Windows
    follow one another and the last one ends with the recording (so it may overlap the one before). `whole`: up to `clips`
    of them, evenly spaced; `segments`: each is a segment. Windows that are mostly gap are left out; shorter gaps are
    interpolated. A recording shorter than a window is mirrored back and forth to fill it. `hints.start_s` and `end_s`
    confine all this to a part.

    Raises MediaError for what `read_imu` refuses, less than 0.5 s, more than `max_duration_s`, and a rate below
    1 / `max_gap_s`.
    """
    series = read_imu(source, limits)
    if series.period_s > config.max_gap_s:
        raise MediaError(
            source.name,
            f"is sampled at {1 / series.period_s:.3g} Hz; expected at least {1 / config.max_gap_s:.3g} Hz"
            " (raise max_gap_s to allow it)",
        )
    begin_s, end_s = _stretch(source, series, limits)
    spans = _spans(begin_s, end_s, config.window_s, series.period_s)
    gaps = _Gaps(series.time_s, config.max_gap_s)
    kept = [span for span in spans if gaps.between(*span) <= 0.5 * (span[1] - span[0])]
    if not kept:
        raise MediaError(source.name, f"is mostly gaps: {gaps.describe(begin_s, end_s)[0]}; record it again or cut it")
    notes = series.notes
    if len(kept) < len(spans):
        notes += (f"{len(spans) - len(kept)} of {len(spans)} windows were mostly gap: left out",)
    if end_s - begin_s < config.window_s - series.period_s:
        notes += (f"{end_s - begin_s:.2f} s do not fill the {config.window_s:g} s window: mirrored to fill it",)
    if plan == "segments":
        return [
            Segment(
                _view(series, first_s, last_s, config)[None], first_s, last_s, notes + gaps.describe(first_s, last_s)
            )
            for first_s, last_s in kept
        ]
    chosen = np.linspace(0, len(kept) - 1, min(config.clips, len(kept))).round().astype(int)
    views = np.stack([_view(series, kept[i][0], kept[i][1], config) for i in chosen])
    return [Segment(views, begin_s, end_s, notes + gaps.describe(begin_s, end_s))]


def read_imu(source: Source, limits: Limits) -> ImuSeries:
    """A recording -> all its samples in SI units, with times from the first one on.

    Tables (CSV, TSV, parquet) name their columns; spellings such as `acc_x`, `accX [g]`, `ax`,
    `Acceleration x (m/s^2)`, `gyro_x_deg_s`, `wx`, `angular_velocity.x`, `timestamp_ns` are understood, other columns
    are ignored. Times come from the first time column, else from `hints.rate_hz`. A time column without a unit is taken
    in the unit (s, ms, us or ns) that makes its median rate 1 to 1000 Hz. `.npy` and arrays in memory are
    (T, 6) in the order of `CHANNELS`, or (T, 3) without gyroscope, and need `hints.rate_hz`. Units come from the header
    or the hints; the default is m/s2 and rad/s. Without a gyroscope, or of one without finite values, it is 0.

    Raises MediaError for another layout, contradictory or unknown units, more than a fifth of the rows unusable,
    timestamps that are too coarse or restart, and more than `max_rows`.
    """
    if source.is_encoded:
        found = sniff(source, limits)
        with source.open(limits) as file:
            if found.name == "csv":
                raw = _read_csv(file, source.name, limits)
            elif found.name == "parquet":
                raw = _read_parquet(file, source.name, limits)
            elif found.name == "npy":
                raw = _read_npy(file, source.name, limits)
            else:
                raise MediaError(source.name, f"expected CSV, TSV, parquet or .npy, got {found.name}")
    elif isinstance(source.content, np.ndarray):
        _check_array(source.content.shape, source.content.dtype, source.name, limits)
        raw = _Raw(_as_float32(source.content))
    else:
        raise MediaError(source.name, f"expected an array (T, 6), got {type(source.content).__name__}")
    notes = list(raw.notes)
    values = _to_si(raw, source, notes)
    time_s = _times(raw, source, notes)
    return _clean(time_s, values, source.name, notes)


@dataclass
class _Raw:
    """Columns as they stand in the file: `values` (T, 3 or 6); `time` (T,) from 0 in `time_unit`, or None."""

    values: np.ndarray
    acceleration_unit: str = ""
    rotation_unit: str = ""
    time: np.ndarray | None = None
    time_unit: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Columns:
    """Where in a table the channels (3 or 6) and the time are, with the units the header states ('' where none)."""

    channels: tuple[int, ...]
    acceleration_unit: str
    rotation_unit: str
    time: int | None
    time_unit: str

    @property
    def used(self) -> list[int]:
        return [*self.channels, *([] if self.time is None else [self.time])]


def _columns(header: list[str], name: str) -> _Columns:
    found: dict[int, tuple[int, str]] = {}
    time: tuple[int, str] | None = None
    for position, title in enumerate(header):
        key = _key(title)
        for first, pattern in _COLUMNS:
            units = _ROTATION_UNITS if first else _ACCELERATION_UNITS
            match = pattern.fullmatch(key)
            if match and (unit := _squeeze(match[2] or "")) in ("", *units):
                channel = first + "xyz".index(match[1])
                if channel in found:
                    both = f"{header[found[channel][0]]!r} and {title!r}"
                    raise MediaError(name, f"columns {both} both look like {CHANNELS[channel]}; rename one")
                found[channel] = (position, unit)
        if time is None:
            match = _TIME_COLUMN.fullmatch(key)
            if key == "seconds_elapsed":
                time = (position, "s")
            elif match and (unit := _squeeze(match[1] or "")) in ("", *_TIME_UNITS):
                time = (position, unit)
    missing = [CHANNELS[i] for i in range(6) if i not in found]
    if missing and missing != list(CHANNELS[3:]):
        if all(_is_number(title) for title in header):
            raise MediaError(name, f"has no header line; {_COLUMN_HELP}")
        titles = ", ".join(title.strip() for title in header[:20])
        raise MediaError(name, f"has no {', '.join(missing)} among its columns ({titles}); {_COLUMN_HELP}")
    stated = []
    for first in (0, 3):
        units_found = {found[i][1] for i in range(first, first + 3) if i in found}
        if len(units_found) > 1:
            raise MediaError(name, f"gives {CHANNELS[first][:-2]} x, y and z different units; use one unit")
        stated.append(units_found.pop() if units_found else "")
    position_of_time, time_unit = time or (None, "")
    return _Columns(tuple(found[i][0] for i in sorted(found)), stated[0], stated[1], position_of_time, time_unit)


def _key(title: str) -> str:
    # The micro sign must not get lost: "time (µs)" is not "time (s)".
    title = re.sub("[µμ]", "u", title).replace("²", "2").replace("°", "deg")
    title = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", title)
    return re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")


def _squeeze(unit: str) -> str:
    return re.sub(r"[^a-z0-9]", "", unit.lower())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_csv(file: BinaryIO, name: str, limits: Limits) -> _Raw:
    import pyarrow as pa  # slow to import, and only tables need it
    from pyarrow import csv as arrow_csv

    head = file.read(1 << 16)
    header_line, newline, rest = head.partition(b"\n")
    if not newline or not rest.strip():
        raise MediaError(name, f"has no rows below a header line; {_COLUMN_HELP}")
    line = header_line.decode("utf-8-sig")
    delimiter = csv_delimiter(line)
    header = next(csv.reader([line], delimiter=delimiter), [])
    columns = _columns(header, name)
    first_row = rest.lstrip().split(b"\n", 1)[0].decode()
    fields = next(csv.reader([first_row], delimiter=delimiter))
    types = {str(i): pa.float64() for i in columns.channels}
    # Where a semicolon separates fields, a comma is the decimal mark (German and French exports).
    decimal_comma = delimiter == ";" and "," in first_row
    if columns.time is not None:
        stamp = fields[columns.time].strip() if columns.time < len(fields) else ""
        is_clock = ":" in stamp
        zone = "UTC" if re.search(r"(Z|[+-]\d\d:?\d\d)$", stamp) else None
        types[str(columns.time)] = pa.timestamp("ns", zone) if is_clock else pa.float64()
    skipped = 0

    def skip(row: Any) -> str:
        nonlocal skipped
        skipped += 1
        return "skip"

    file.seek(len(header_line) + 1)
    batches = []
    rows = 0
    try:
        with arrow_csv.open_csv(
            file,
            # Columns go by position: a header may name two columns alike.
            read_options=arrow_csv.ReadOptions(column_names=[str(i) for i in range(len(header))], use_threads=False),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter, invalid_row_handler=skip),
            convert_options=arrow_csv.ConvertOptions(
                column_types=types,
                include_columns=[str(i) for i in columns.used],
                decimal_point="," if decimal_comma else ".",
            ),
        ) as reader:
            for batch in reader:
                rows += batch.num_rows
                _check_rows(rows, name, limits)
                batches.append(batch)
    except pa.ArrowException as error:
        raise MediaError(name, f"could not be read as a table of numbers: {error}") from None
    if skipped > _MAX_BAD_SHARE * (rows + skipped):
        raise MediaError(
            name, f"{skipped:,} of {rows + skipped:,} rows have not the {len(header)} fields of the header"
        )
    notes = (f"{skipped:,} of {rows + skipped:,} rows had a wrong number of fields: left out",) if skipped else ()
    return _from_table(pa.Table.from_batches(batches), columns, name, notes)


def _read_parquet(file: BinaryIO, name: str, limits: Limits) -> _Raw:
    import pyarrow as pa  # slow to import, and only tables need it
    from pyarrow import parquet

    try:
        table_file = parquet.ParquetFile(
            file,
            thrift_string_size_limit=_MAX_FOOTER_STRING_BYTES,
            thrift_container_size_limit=_MAX_FOOTER_ENTRIES,
        )
        metadata, schema = table_file.metadata, table_file.schema_arrow
        _check_rows(metadata.num_rows, name, limits)
        size = file.seek(0, 2)
        if metadata.num_rows > _FREE_ROWS + size:
            raise MediaError(
                name, f"announces {metadata.num_rows:,} rows in {size:,} bytes: no recording is so uniform"
            )
        header = list(schema.names)
        columns = _columns(header, name)
        for i in columns.used:
            if not (pa.types.is_integer(kind := schema.types[i]) or pa.types.is_floating(kind) or _is_time(kind)):
                raise MediaError(name, f"its column {header[i]!r} holds {kind}, expected numbers")
        table = table_file.read([header[i] for i in columns.used], use_threads=False)
        return _from_table(table.select([header[i] for i in columns.used]), columns, name, ())
    except (pa.ArrowException, OSError) as error:
        raise MediaError(name, f"could not be read as a parquet table of numbers: {error}") from None


def _is_time(kind: Any) -> bool:
    import pyarrow as pa  # slow to import, and only tables need it

    return bool(pa.types.is_timestamp(kind) or pa.types.is_decimal(kind))


def _from_table(table: Any, columns: _Columns, name: str, notes: tuple[str, ...]) -> _Raw:
    """A pyarrow table whose columns are those of `columns.used`, in that order."""
    import pyarrow as pa  # slow to import, and only tables need it

    if table.num_rows == 0:
        raise MediaError(name, "has no rows")
    count = len(columns.channels)
    values = np.empty((table.num_rows, count), dtype=np.float32)
    for i in range(count):
        values[:, i] = _as_float32(table.column(i).cast(pa.float64()).to_numpy())
    raw = _Raw(values, columns.acceleration_unit, columns.rotation_unit, notes=notes)
    if columns.time is None:
        return raw
    column = table.column(count)
    if pa.types.is_timestamp(column.type):
        clock = column.cast(pa.timestamp("ns", column.type.tz)).to_numpy()
        raw.time, raw.time_unit = (clock - _first(clock, np.isnat(clock))) / np.timedelta64(1, "s"), "s"
    else:
        # Integers (nanoseconds since 1970) are subtracted as such: float64 would round them.
        stamps = column.to_numpy()
        if stamps.dtype.kind not in "iuf":
            raise MediaError(name, f"its time column holds {column.type}, expected numbers or timestamps")
        stamps = stamps.astype(np.int64) if stamps.dtype.kind in "iu" else stamps.astype(np.float64)
        raw.time, raw.time_unit = (stamps - _first(stamps, ~np.isfinite(stamps))).astype(np.float64), columns.time_unit
    return raw


def _first(stamps: np.ndarray, bad: np.ndarray) -> Any:
    good = np.flatnonzero(~bad)
    return stamps[good[0] if len(good) else 0]


def _read_npy(file: BinaryIO, name: str, limits: Limits) -> _Raw:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(file)
        if version not in readers:
            raise MediaError(name, f"is .npy version {version}, expected 1.0 or 2.0")
        sizes, _, dtype = readers[version](file)
    except MediaError:
        raise
    except Exception as error:  # the header is a Python literal: its parser raises many things
        raise MediaError(name, f"has a damaged .npy header: {error}") from None
    if dtype.hasobject:
        raise MediaError(
            name, "holds pickled Python objects, which could run code when opened; save an array of floats with np.save"
        )
    _check_array(sizes, dtype, name, limits)
    wanted = file.tell() + math.prod(sizes) * dtype.itemsize
    size = file.seek(0, 2)
    if size < wanted:
        raise MediaError(name, f"is truncated: its header announces {wanted:,} bytes, it has {size:,}")
    file.seek(0)
    return _Raw(_as_float32(np.load(file, allow_pickle=False)))


def _check_array(sizes: tuple[int, ...], dtype: np.dtype[Any], name: str, limits: Limits) -> None:
    if dtype.kind not in "iuf":
        raise MediaError(name, f"expected an array of numbers, got {dtype}")
    if len(sizes) == 2 and sizes[0] in (3, 6) and sizes[1] not in (3, 6):
        # Never a reshape: that would mix the channels.
        raise MediaError(name, f"expected an array (T, 6) whose rows are moments, got {sizes}; pass its transpose")
    if len(sizes) != 2 or sizes[1] not in (3, 6):
        raise MediaError(
            name, f"expected an array (T, 6) of {', '.join(CHANNELS)}, or (T, 3) without gyroscope, got {sizes}"
        )
    if sizes[0] == 0:
        raise MediaError(name, "has no rows")
    _check_rows(sizes[0], name, limits)


def _check_rows(rows: int, name: str, limits: Limits) -> None:
    if rows > limits.max_rows:
        raise MediaError(name, f"has {rows:,} rows or more, the limit is {limits.max_rows:,} (max_rows)")


def _as_float32(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows becomes inf, and is left out below
        return values.astype(np.float32)


def _to_si(raw: _Raw, source: Source, notes: list[str]) -> np.ndarray:
    """(T, 3 or 6) -> (T, 6) float32 in m/s2 and rad/s."""
    hints = source.hints
    acceleration = _factor(raw.acceleration_unit, hints.acceleration_unit, _ACCELERATION_UNITS, "m/s2", "g", source)
    rotation = _factor(raw.rotation_unit, hints.rotation_unit, _ROTATION_UNITS, "rad/s", "deg/s", source)
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
    hinted = None if hint is None else units[_squeeze(hint)]
    if not stated:
        return 1.0 if hinted is None else hinted
    if hinted is not None and hinted != units[stated]:
        raise MediaError(source.name, f"its header and its hint {hint!r} give different units; remove one")
    return units[stated]


def _times(raw: _Raw, source: Source, notes: list[str]) -> np.ndarray:
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
        return raw.time * _TIME_UNITS[raw.time_unit]
    steps = np.diff(raw.time)
    steps = steps[steps > 0]
    step = float(np.median(steps)) if len(steps) else 0.0
    for unit in ("s", "ms", "us", "ns"):
        # 1 to 1000 Hz, with a margin for jitter; the four ranges touch and do not overlap.
        if 0.9e-3 <= step * _TIME_UNITS[unit] < 0.9:
            notes.append(f"its time column has no unit: taken as {unit} ({1 / (step * _TIME_UNITS[unit]):.4g} Hz)")
            return raw.time * _TIME_UNITS[unit]
    raise MediaError(
        source.name, f"its time column steps by {step:g} of no stated unit; name the unit in the header, as time [ms]"
    )


def _clean(time_s: np.ndarray, values: np.ndarray, name: str, notes: list[str]) -> ImuSeries:
    """Drops unusable rows, sorts and drops repeated times. Raises MediaError where too little is left."""
    count = len(time_s)
    usable = np.isfinite(time_s) & (np.abs(values) <= _LARGEST_VALUE).all(axis=1)
    bad = count - int(usable.sum())
    if bad > _MAX_BAD_SHARE * count:
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
        raise MediaError(name, f"has {len(time_s)} usable rows, expected at least {_SHORTEST_S} s of them")
    return ImuSeries(time_s - time_s[0], values, tuple(notes))


def _stretch(source: Source, series: ImuSeries, limits: Limits) -> tuple[float, float]:
    """The part to use, in seconds."""
    hints: Hints = source.hints
    begin_s = max(0.0, 0.0 if hints.start_s is None else hints.start_s)
    end_s = min(series.duration_s, math.inf if hints.end_s is None else hints.end_s)
    if not end_s - begin_s >= _SHORTEST_S:
        which = "lasts" if (begin_s, end_s) == (0.0, series.duration_s) else "has between start_s and end_s only"
        raise MediaError(source.name, f"{which} {max(0.0, end_s - begin_s):.3f} s, expected at least {_SHORTEST_S} s")
    if end_s - begin_s > limits.max_duration_s:
        raise MediaError(
            source.name,
            f"lasts {end_s - begin_s:,.0f} s, the limit is {limits.max_duration_s:,.0f} s (max_duration_s); "
            "choose a stretch with start_s and end_s",
        )
    return begin_s, end_s


def _spans(begin_s: float, end_s: float, window_s: float, period_s: float) -> list[tuple[float, float]]:
    """Windows that cover all of it; the last one ends with it. A rest shorter than a sample's period is no window."""
    count = max(1, math.ceil((end_s - begin_s - 0.999 * period_s) / window_s))
    last_s = max(begin_s, end_s - window_s)
    starts = [min(begin_s + i * window_s, last_s) for i in range(count)]
    return [(start_s, min(start_s + window_s, end_s)) for start_s in starts]


class _Gaps:
    """The pauses longer than `max_gap_s` between samples."""

    def __init__(self, time_s: np.ndarray, max_gap_s: float) -> None:
        before = np.flatnonzero(np.diff(time_s) > max_gap_s)
        self._edges = np.stack([time_s[before], time_s[before + 1]], axis=1)
        lengths = self._edges[:, 1] - self._edges[:, 0]
        self._passed = np.stack([np.cumsum(lengths) - lengths, np.cumsum(lengths)], axis=1)

    def between(self, begin_s: float, end_s: float) -> float:
        """Seconds of gap in a stretch."""
        if not len(self._edges):
            return 0.0
        begun, ended = np.interp([begin_s, end_s], self._edges.reshape(-1), self._passed.reshape(-1))
        return float(ended - begun)

    def describe(self, begin_s: float, end_s: float) -> tuple[str, ...]:
        """One note that names the first gaps of a stretch, or none."""
        inside = self._edges[(self._edges[:, 1] > begin_s) & (self._edges[:, 0] < end_s)]
        if not len(inside):
            return ()
        named = ", ".join(f"{first:.2f}-{last:.2f} s" for first, last in inside[:5])
        more = f" and {len(inside) - 5} more" if len(inside) > 5 else ""
        return (f"gaps without samples, interpolated: {named}{more}",)


def _view(series: ImuSeries, begin_s: float, end_s: float, config: ImuConfig) -> np.ndarray:
    """(6, samples) float32 at `rate_hz` from `begin_s` on: interpolated linearly, low-passed if that is slower."""
    samples = shape(config)[1]
    wanted = min(samples, max(2, round((end_s - begin_s) * config.rate_hz)))
    # Interpolate on a grid at least as fine as the samples, then low-pass and keep every `step`-th of it. A rate
    # that is a few per cent above, by jitter, is taken as equal.
    step = min(_MAX_DECIMATION, max(1, math.ceil(1 / (series.period_s * config.rate_hz) - 0.05)))
    margin = 16 if step > 1 else 0  # the filter of resample_poly reaches 10 output samples to either side
    grid = begin_s + np.arange(-margin * step, (wanted + margin) * step) / (config.rate_hz * step)
    first, last = np.searchsorted(series.time_s, grid[[0, -1]])
    near = slice(max(0, int(first) - 1), int(last) + 1)
    times, values = series.time_s[near], series.values[near]
    view = np.stack([np.interp(grid, times, values[:, i]) for i in range(values.shape[1])])
    if step > 1:
        from scipy.signal import resample_poly  # slow to import, and needed by fast sensors only

        view = resample_poly(view, 1, step, axis=1, padtype="line")[:, margin : margin + wanted]
    # Mirrored, not repeated: a jump where the end meets the start would look like a blow.
    return np.pad(view, ((0, 0), (0, samples - wanted)), mode="reflect").astype(np.float32)
