"""The head of a table in text: its encoding, separator and decimal sign, the lines before the header, the units below.

`look` finds where the numbers begin and what their columns are.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from preprocess.encodings import encoding_of, spelled
from preprocess.formats import csv_delimiter
from preprocess.readers.imu.clock import is_clock
from preprocess.readers.imu.layouts import (
    COLUMN_HELP,
    Columns,
    is_number,
    match_header,
    match_row,
    no_layout,
    unit_row,
)
from preprocess.source import MediaError

_HEAD_BYTES = 1 << 16
"""The header of a table lies in its first 64 KiB; the rest of the file is read in pieces of that size."""
_MOST_LINES = 120  # before the header; ActiGraph has ten, GENEActiv a hundred
_MOST_ROWS_OF_WORDS = 4  # between the header and the numbers; Shimmer has two
_COMMENT = re.compile(r"\s*(?:#|//|%|;)+\s?")
"""The marks that begin a line of comment in the files of loggers."""
_SEPARATOR = re.compile(r'"?sep=(.|\\t)"?\s*', re.IGNORECASE)
"""`sep=;`, the line that tells Excel what separates the columns."""
_RATE = re.compile(
    r"(?:(?:sampl\w*|update|output|data)[ _]*(?:rate|freq\w*)\D{0,20}?|\bat )(\d+(?:\.\d+)?) ?(?:hz|$)", re.IGNORECASE
)
"""A rate in Hz in a comment: `Sample Rate: 100 Hz`, `sampling frequency 50`, `... at 30 Hz`."""
_MOST_FIELDS = 10_000
"""Columns of a line that are looked at, far more than any logger writes."""
_MINUS = "\N{MINUS SIGN}"
"""How spreadsheets in Sweden, Norway and elsewhere write it."""


@dataclass(frozen=True)
class Head:
    """What a table in text is: its numbers begin at byte `offset` of `file`, in UTF-8 with `fields` fields a row."""

    file: BinaryIO
    offset: int
    delimiter: str
    fields: int
    columns: Columns
    decimal_comma: bool
    stamp: str
    rate_hz: float | None
    notes: tuple[str, ...]


class _Recoded(io.RawIOBase):
    """A text file in any encoding, as UTF-8, with plain signs of minus and without some characters.

    It can be read from its beginning only.
    """

    def __init__(self, file: BinaryIO, encoding: str, without: str = "") -> None:
        self._file, self._encoding, self._without = file, encoding, str.maketrans(_MINUS, "-", without)
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            chunk = self._file.read(_HEAD_BYTES)
            text = self._decoder.decode(chunk, final=not chunk)
            self._ready = text.translate(self._without).encode("utf-8", "replace")
            if not chunk:
                break
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


def _as_utf8(file: BinaryIO, encoding: str, without: str = "") -> BinaryIO:
    file.seek(0)
    if encoding.startswith("utf-8") and not without and _MINUS.encode() not in file.read(_HEAD_BYTES):
        file.seek(0)
        return file
    file.seek(0)
    return io.BufferedReader(_Recoded(file, encoding, without), _HEAD_BYTES)


def look(file: BinaryIO, name: str) -> Head:
    """A file that holds a table -> what its first 64 KiB say of it. Raises MediaError for what is none."""
    encoding = encoding_of(file.read(_HEAD_BYTES))
    if encoding is None:
        raise MediaError(name, "is no text: a table has numbers in letters")
    notes = () if encoding.startswith("utf-8") else (f"its text is {spelled(encoding)}",)
    raw = _as_utf8(file, encoding).read(_HEAD_BYTES)
    # Lines end as Arrow sees it; `str.splitlines` knows more marks.
    lines = [line.decode("utf-8", "replace") for line in raw.splitlines(keepends=True)]
    begin, delimiter, columns, titles, preamble = _find_columns(lines, name)
    begin, first, columns = _first_numbers(lines, begin, delimiter, columns, name)
    if columns.time is None and (at := next((i for i, text in enumerate(first) if is_clock(text)), None)) is not None:
        columns = replace(columns, time=at, time_unit="")  # whatever its title is
    # WISDM closes its rows with a semicolon.
    closed = delimiter != ";" and lines[begin].rstrip().endswith(";")
    if closed:
        first = [*first[:-1], first[-1].rstrip().removesuffix(";")]
    times = [first[place].strip() for place in (columns.time,) if place is not None and place < len(first)]
    stamp = times[0] if times and is_clock(times[0]) else ""
    comma = any(re.fullmatch(r"\s*-?\d*,\d+(?:[eE][-+]?\d+)?\s*", text) for text in first)
    rates = [float(match[1]) for line in preamble if (match := _RATE.search(line))]
    skipped = sum(len(line.encode()) for line in lines[:begin])
    if closed:
        skipped -= "".join(lines[:begin]).count(";")
    return Head(
        _as_utf8(file, encoding, ";" if closed else ""),
        skipped,
        delimiter,
        _count(titles, first),
        columns,
        comma,
        stamp,
        rates[0] if rates else None,
        notes,
    )


def _count(titles: Sequence[str], first: Sequence[str]) -> int:
    """Fields of a row. A separator too many at the end of the header, or of the rows, is no field."""
    longer = max(titles, first, key=len)
    return len(first) if len(titles) + len(first) == 2 * len(longer) - 1 and not longer[-1].strip() else len(titles)


def _find_columns(lines: Sequence[str], name: str) -> tuple[int, str, Columns, list[str], list[str]]:
    """Lines -> (the line after the header, the separator, the columns, the titles, the lines up to the header).

    Without a header, the titles are the fields of the first row.
    """
    stated, preamble = "", list[str]()
    for number, text in _lines(lines):
        if match := _SEPARATOR.fullmatch(text.lstrip("\ufeff")):
            stated = match[1].replace(r"\t", "\t")
            continue
        if not text.strip():
            continue
        bare = _COMMENT.sub("", text.lstrip("\ufeff"), count=1) if _COMMENT.match(text) else text.lstrip("\ufeff")
        for delimiter in (stated, csv_delimiter(bare)) if stated else (csv_delimiter(bare),):
            fields = _fields(bare, delimiter)
            if columns := match_header(fields, name, "\n".join(preamble)):
                return number + 1, delimiter, columns, fields, [*preamble, text]
            row = [*fields[:-1], fields[-1].rstrip().removesuffix(";")]
            if not _has_titles(preamble, delimiter, row) and (columns := match_row(row, "\n".join(preamble))):
                return number, delimiter, columns, fields, preamble
        preamble.append(text)
    # The first line that has as many fields as any was meant as the header, also in a comment.
    rows = [_fields(_COMMENT.sub("", text, count=1), csv_delimiter(text)) for text in preamble]
    header = next((fields for fields in rows if len(fields) == max(map(len, rows))), [])
    if len(rows) < 2:
        raise MediaError(name, f"has no rows below a header line; {COLUMN_HELP}")
    raise no_layout(header, name)


def _has_titles(preamble: Sequence[str], delimiter: str, row: Sequence[str]) -> bool:
    """Whether a line above a row names its columns, in words that are not known."""
    titles = [fields for text in preamble if len(fields := _fields(text, delimiter)) == len(row) > 1]
    return any(not any(is_number(text) for text in fields) for fields in titles)


def _lines(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines[:_MOST_LINES]):
        yield number, line.rstrip("\r\n")


def _fields(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])[:_MOST_FIELDS] or [""]
    except csv.Error:  # a field of more than 128 KiB
        return [""]


def _first_numbers(
    lines: Sequence[str], begin: int, delimiter: str, columns: Columns, name: str
) -> tuple[int, list[str], Columns]:
    """The line after the header -> (the line of the first numbers, its fields, the columns with the units between)."""
    words = 0
    for number in range(begin, len(lines)):
        text = lines[number].rstrip("\r\n")
        bare = _COMMENT.sub("", text, count=1) if _COMMENT.match(text) else text
        if not bare.strip():
            continue
        fields = _fields(bare, delimiter)
        if found := unit_row(fields, columns):
            columns = found
        elif not any(text.strip() for text in fields) or not _is_words(fields, columns):
            if not _COMMENT.match(text):
                return number, fields, columns
        elif (words := words + 1) > _MOST_ROWS_OF_WORDS:
            return number, fields, columns
    raise MediaError(name, f"has no rows below a header line; {COLUMN_HELP}")


def _is_words(fields: Sequence[str], columns: Columns) -> bool:
    """Whether a row has words, and no number, where x, y and z should be."""
    places = [place for group in columns.groups.values() for place in group.positions]
    texts = [fields[place].strip() for place in places if place < len(fields)]
    return bool(texts) and not any(is_number(text) or not text for text in texts)
