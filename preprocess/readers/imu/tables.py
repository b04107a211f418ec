"""CSV, parquet and `.npy` files -> the columns of acceleration, rotation and time, as they stand in the file."""

from __future__ import annotations

import math
from typing import Any, BinaryIO

import numpy as np

from preprocess.extras import needs
from preprocess.readers.imu.clock import ISO, seconds
from preprocess.readers.imu.heads import look
from preprocess.readers.imu.layouts import Columns, match_header, no_layout
from preprocess.readers.imu.units import CHANNELS, Measured, Table
from preprocess.source import Limits, MediaError

MAX_BAD_SHARE = 0.2  # of rows that may be unusable, and are left out, before the file counts as broken
# A table may have so many rows (2.8 hours at 100 Hz), and one more for each byte of its file: no recording has more,
# but a run of zeros takes none. Footers of Parquet name every column of every row group.
_FREE_ROWS = 1_000_000
_MAX_FOOTER_STRING_BYTES = 2**24
_MAX_FOOTER_ENTRIES = 10_000


def read_csv(file: BinaryIO, name: str, limits: Limits) -> Table:
    """A text file with a table in it -> its columns. Raises MediaError for what is no table of numbers."""
    with needs("sensors", "an IMU recording in CSV"):
        import pyarrow as pa  # slow to import, and only tables need it
        from pyarrow import csv as arrow_csv

    head = look(file, name)
    columns = head.columns
    types = {str(i): pa.float64() for i in columns.used}
    if head.stamp:
        iso = ISO.fullmatch(head.stamp)
        types[str(columns.time)] = pa.timestamp("ns", "UTC" if iso[1] else None) if iso else pa.string()
    skipped = 0

    def skip(row: Any) -> str:
        nonlocal skipped
        skipped += 1
        return "skip"

    if head.file is file:
        file.seek(head.offset)
    else:
        head.file.read(head.offset)
    batches = []
    rows = 0
    try:
        with arrow_csv.open_csv(
            head.file,
            # Columns go by position: a header may name two columns alike.
            read_options=arrow_csv.ReadOptions(column_names=[str(i) for i in range(head.fields)], use_threads=False),
            parse_options=arrow_csv.ParseOptions(delimiter=head.delimiter, invalid_row_handler=skip),
            convert_options=arrow_csv.ConvertOptions(
                column_types=types,
                include_columns=[str(i) for i in columns.used],
                decimal_point="," if head.decimal_comma else ".",
                null_values=[*arrow_csv.ConvertOptions().null_values, "-", "--", "None", "none", "n/a", "NONE", "?"],
            ),
        ) as reader:
            for batch in reader:
                rows += batch.num_rows
                _check_rows(rows, name, limits)
                batches.append(batch)
    except (pa.ArrowException, KeyError) as error:
        raise MediaError(name, f"could not be read as a table of numbers: {error}") from None
    if skipped > MAX_BAD_SHARE * (rows + skipped):
        raise MediaError(
            name, f"{skipped:,} of {rows + skipped:,} rows have not the {head.fields} fields of the header"
        )
    notes = head.notes
    if skipped:
        notes += (f"{skipped:,} of {rows + skipped:,} rows had a wrong number of fields: left out",)
    return _from_table(pa.Table.from_batches(batches), columns, name, notes, head.rate_hz)


def read_parquet(file: BinaryIO, name: str, limits: Limits) -> Table:
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
        columns = match_header(header, name)
        if columns is None:
            raise no_layout(header, name)
        for i in columns.used:
            if not (pa.types.is_integer(kind := schema.types[i]) or pa.types.is_floating(kind) or _is_time(kind)):
                raise MediaError(name, f"its column {header[i]!r} holds {kind}, expected numbers")
        titles = [header[i] for i in columns.used]
        table = table_file.read(titles, use_threads=False)
        return _from_table(table.select(titles), columns, name, ())
    except (pa.ArrowException, OSError) as error:
        raise MediaError(name, f"could not be read as a parquet table of numbers: {error}") from None


def _is_time(kind: Any) -> bool:
    import pyarrow as pa  # slow to import, and only tables need it

    return bool(pa.types.is_timestamp(kind) or pa.types.is_decimal(kind))


def _from_table(table: Any, columns: Columns, name: str, notes: tuple[str, ...], rate_hz: float | None = None) -> Table:
    """A pyarrow table whose columns are those of `columns.used`, in that order."""
    import pyarrow as pa  # slow to import, and only tables need it

    if table.num_rows == 0:
        raise MediaError(name, "has no rows")
    found = Table(name, columns.layout, notes=notes, rate_hz=rate_hz)
    for number, (kind, group) in enumerate(columns.groups.items()):
        values = np.empty((table.num_rows, 3), dtype=np.float32)
        for axis in range(3):
            values[:, axis] = as_float32(table.column(3 * number + axis).cast(pa.float64()).to_numpy())
        found.groups[kind] = Measured(values, group.unit, group.usual)
    if columns.time is not None:
        first = 3 * len(columns.groups)
        found.time_unit = columns.time_unit
        _read_time(found, table.column(first), name)
        if columns.nanoseconds is not None and found.time is not None:
            found.time = found.time + np.nan_to_num(table.column(first + 1).to_numpy()) / 1e9
    return found


def _read_time(found: Table, column: Any, name: str) -> None:
    """Sets `time` (from its first row on), `origin` and, for clocks, `time_unit`."""
    import pyarrow as pa  # slow to import, and only tables need it

    if pa.types.is_string(column.type):
        found.time, found.time_unit, found.is_clock = seconds(column, name), "s", True
    elif pa.types.is_timestamp(column.type):
        clock = column.cast(pa.timestamp("ns", column.type.tz)).to_numpy()
        first = _first(clock, np.isnat(clock))
        found.time, found.time_unit = (clock - first) / np.timedelta64(1, "s"), "s"
        found.origin = float(np.datetime64(first, "ns").astype(np.int64)) / 1e9
        found.is_clock = True
    else:
        # Integers (nanoseconds since 1970) are subtracted as such: float64 would round them.
        stamps = column.to_numpy()
        if stamps.dtype.kind not in "iuf":
            raise MediaError(name, f"its time column holds {column.type}, expected numbers or timestamps")
        stamps = stamps.astype(np.int64) if stamps.dtype.kind in "iu" else stamps.astype(np.float64)
        first = _first(stamps, ~np.isfinite(stamps))
        found.time, found.origin = (stamps - first).astype(np.float64), float(first)


def _first(stamps: np.ndarray, bad: np.ndarray) -> Any:
    good = np.flatnonzero(~bad)
    return stamps[good[0] if len(good) else 0]


def read_npy(file: BinaryIO, name: str, limits: Limits) -> np.ndarray:
    """A `.npy` file of shape (T, 6) -> its columns (T, 3 or 6) float32. Raises MediaError for another content."""
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
    return as_float32(np.load(file, allow_pickle=False))


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
