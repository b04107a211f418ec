"""CSV, parquet and `.npy` files -> the columns of acceleration, rotation and time, as they stand in the file."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from preprocess.extras import needs
from preprocess.formats import csv_delimiter
from preprocess.readers.imu.units import ACCELERATION_UNITS, CHANNELS, ROTATION_UNITS, TIME_UNITS, RawSeries, unit_key
from preprocess.source import Limits, MediaError

MAX_BAD_SHARE = 0.2  # of rows that may be unusable, and are left out, before the file counts as broken
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
_COLUMN_HELP = (
    "expected a header with acc_x, acc_y, acc_z, gyro_x, gyro_y, gyro_z and a time column "
    "(units in it: acc_x [g], gyro_x [deg/s], time [ms]), or the hint rate_hz in place of the time column"
)


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
            units = ROTATION_UNITS if first else ACCELERATION_UNITS
            match = pattern.fullmatch(key)
            if match and (unit := unit_key(match[2] or "")) in ("", *units):
                channel = first + "xyz".index(match[1])
                if channel in found:
                    both = f"{header[found[channel][0]]!r} and {title!r}"
                    raise MediaError(name, f"columns {both} both look like {CHANNELS[channel]}; rename one")
                found[channel] = (position, unit)
        if time is None:
            match = _TIME_COLUMN.fullmatch(key)
            if key == "seconds_elapsed":
                time = (position, "s")
            elif match and (unit := unit_key(match[1] or "")) in ("", *TIME_UNITS):
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


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_csv(file: BinaryIO, name: str, limits: Limits) -> RawSeries:
    """A CSV or TSV file with a header line -> its columns. Raises MediaError for what is no table of numbers."""
    with needs("sensors", "an IMU recording in CSV"):
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
    if skipped > MAX_BAD_SHARE * (rows + skipped):
        raise MediaError(
            name, f"{skipped:,} of {rows + skipped:,} rows have not the {len(header)} fields of the header"
        )
    notes = (f"{skipped:,} of {rows + skipped:,} rows had a wrong number of fields: left out",) if skipped else ()
    return _from_table(pa.Table.from_batches(batches), columns, name, notes)


def read_parquet(file: BinaryIO, name: str, limits: Limits) -> RawSeries:
    """A parquet file -> its columns. Raises MediaError for what is no table of numbers."""
    with needs("sensors", "an IMU recording in parquet"):
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


def _from_table(table: Any, columns: _Columns, name: str, notes: tuple[str, ...]) -> RawSeries:
    """A pyarrow table whose columns are those of `columns.used`, in that order."""
    import pyarrow as pa  # slow to import, and only tables need it

    if table.num_rows == 0:
        raise MediaError(name, "has no rows")
    count = len(columns.channels)
    values = np.empty((table.num_rows, count), dtype=np.float32)
    for i in range(count):
        values[:, i] = as_float32(table.column(i).cast(pa.float64()).to_numpy())
    raw = RawSeries(values, columns.acceleration_unit, columns.rotation_unit, notes=notes)
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


def read_npy(file: BinaryIO, name: str, limits: Limits) -> RawSeries:
    """A `.npy` file of shape (T, 6) -> its columns. Raises MediaError for another content."""
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
    check_array(sizes, dtype, name, limits)
    wanted = file.tell() + math.prod(sizes) * dtype.itemsize
    size = file.seek(0, 2)
    if size < wanted:
        raise MediaError(name, f"is truncated: its header announces {wanted:,} bytes, it has {size:,}")
    file.seek(0)
    return RawSeries(as_float32(np.load(file, allow_pickle=False)))


def check_array(sizes: tuple[int, ...], dtype: np.dtype[Any], name: str, limits: Limits) -> None:
    """Raises MediaError unless shape and type are those of numbers (T, 6) within the limits."""
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


def as_float32(values: np.ndarray) -> np.ndarray:
    """Numbers -> float32; a number that is too large for float32 becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows becomes inf, and is left out below
        return values.astype(np.float32)
