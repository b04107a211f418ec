"""Times of day as loggers write them -> seconds: ISO 8601 with any zone, day or month first, `HH:MM:SS:mmm`."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from preprocess.source import MediaError

ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(Z|[+-]\d\d:?\d\d)?")
"""What Arrow parses by itself; the group is its zone."""
_DAY_S = 86_400
"""Seconds of a day. Clocks without a date begin anew at midnight."""
_FORM = (
    r"^\s*(?:(?P<a>\d{1,4})[-/.](?P<b>\d{1,2})[-/.](?P<c>\d{1,4})[T_, /]+)?"
    r"(?P<h>\d{1,2})[:-](?P<m>\d{1,2})[:-](?P<s>\d{1,2})(?:[.,:_](?P<f>\d{1,9}))?\s*"
    r"(?P<p>[AaPp]\.?[Mm]\.?)?\s*(?P<z>Z|UTC|GMT|[+-]\d{2}:?\d{2})?\s*$"
)
"""In the syntax of RE2, which takes linear time."""
_IS_CLOCK = re.compile(_FORM)
"""`_FORM`, compiled for single values; columns as a whole are read by PyArrow."""


def is_clock(text: str) -> bool:
    """Whether a field is a time of day, with or without a date."""
    return _IS_CLOCK.match(text) is not None


def seconds(column: Any, name: str) -> np.ndarray:
    """An Arrow column (T,) of texts -> (T,) float64 seconds from its first time on, NaN for what is no time.

    Times without a date go on past midnight. Raises MediaError where not one is a time.
    """
    import pyarrow.compute as pc  # slow to import, and only tables need it

    parts = pc.extract_regex(column, pattern=_FORM)
    good = pc.is_valid(parts).to_numpy(zero_copy_only=False)
    if not good.any():
        raise MediaError(name, "its time column holds no times of day that can be read; write ISO 8601 or numbers")

    def texts(part: str) -> Any:
        return pc.fill_null(pc.struct_field(parts, part), "")

    def numbers(part: str) -> np.ndarray:
        found: np.ndarray = pc.cast(pc.if_else(pc.equal(texts(part), ""), "0", texts(part)), "int64").to_numpy()
        return found

    hours = numbers("h")
    half = pc.utf8_lower(pc.utf8_slice_codeunits(texts("p"), 0, 1)).to_numpy(zero_copy_only=False)
    hours = np.where(half == "p", hours % 12 + 12, np.where(half == "a", hours % 12, hours))
    fraction = pc.cast(pc.utf8_rpad(texts("f"), 9, padding="0"), "int64").to_numpy()
    nanoseconds = ((hours * 60 + numbers("m")) * 60 + numbers("s")) * 10**9 + fraction
    if good.all() and len(bare := pc.unique(texts("a")).to_pylist()) == 1 and bare == [""]:
        return _past_midnight(nanoseconds) / 1e9
    days = _days(numbers("a"), numbers("b"), numbers("c"))
    first = int(np.flatnonzero(good)[0])
    found = (days - days[first]) * float(_DAY_S) + (nanoseconds - nanoseconds[first]) / 1e9
    return np.where(good, found, np.nan)


def _past_midnight(nanoseconds: np.ndarray) -> np.ndarray:
    back = np.diff(nanoseconds, prepend=nanoseconds[:1]) < -(_DAY_S // 2) * 10**9
    elapsed: np.ndarray = nanoseconds - nanoseconds[0] + np.cumsum(back) * (_DAY_S * 10**9)
    return elapsed


def _days(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Three numbers of dates -> days since 1970: year first, or the order of day and month in which they lie closer."""
    if a.max() > 31:
        return _days_of(a, b, c)
    orders = [_days_of(c, month, day) for day, month in ((a, b), (b, a)) if month.max() <= 12]
    return min(orders, key=np.ptp) if orders else _days_of(c, b, a)


def _days_of(year: np.ndarray, month: np.ndarray, day: np.ndarray) -> np.ndarray:
    year = np.where(year < 100, year + 2000, year).clip(1, 9999)
    start = (year - 1970).astype("datetime64[Y]").astype("datetime64[M]") + (month.clip(1, 12) - 1)
    days: np.ndarray = start.astype("datetime64[D]").astype(np.int64) + day - 1
    return days
