"""What all files of a library are counted by, in memory: kind, folder, month, camera, place and position.

Counting 200,000 files by SQL takes a second, because cameras and places stand in the JSON of metadata. Here each of
them is a column of small numbers. A new revision of the catalogue reads only the files that changed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from serve.library.catalogue import Catalogue
from serve.library.where import EVERYTHING, Where

_FILTERS_KEPT = 8
"""Filters whose passing files are remembered: a person has few at a time."""


def _fact(name: str) -> str:
    """The SQL of a key of metadata: of a file's sidecar, else of what the medium says of itself."""
    beside = f"CASE WHEN f.metadata <> '{{}}' THEN json_extract(f.metadata, '$.{name}') END"
    return f"coalesce({beside}, json_extract(c.metadata, '$.{name}'))"


# Texts are read as bytes, because JSON may hold halves of characters, which are no text of SQLite.
_QUERY = (
    "SELECT f.id, f.content, CAST(c.modality AS BLOB), CAST(f.folder AS BLOB), CAST(substr(f.date, 1, 7) AS BLOB), "
    f"CAST({_fact('camera')} AS BLOB), CAST({_fact('place')} AS BLOB), {_fact('latitude')}, {_fact('longitude')} "
    "FROM files f JOIN contents c ON c.id = f.content"
)
NAMES = ("kind", "folder", "month", "camera", "place")
"""What files are counted by."""


@dataclass(frozen=True)
class Column:
    """One value for each of n files: `codes` (n,) int32 are places in `values`, -1 for a file without one."""

    codes: np.ndarray
    values: list[str]


@dataclass(frozen=True)
class Table:
    """All searchable files of one revision, by id: (n,) int64 `files` and `contents`, and their columns.

    `positions` (n, 2) float64 are latitude and longitude in degrees, NaN where nobody knows. `shared` (n,) says which
    files have a content that others have too.
    """

    revision: int
    files: np.ndarray
    contents: np.ndarray
    columns: dict[str, Column]
    positions: np.ndarray
    shared: np.ndarray

    def rows(self, passing: np.ndarray | None) -> np.ndarray:
        """(m,) the rows of these file ids, ascending; of all files for None."""
        return np.arange(len(self.files)) if passing is None else np.searchsorted(self.files, passing)

    def total(self, rows: np.ndarray) -> int:
        """The number of different contents of rows."""
        shared = self.shared[rows]
        return len(rows) - int(shared.sum()) + len(np.unique(self.contents[rows[shared]]))

    def newest(self, rows: np.ndarray) -> list[tuple[str, int]]:
        """(month, number of different contents) among rows; a content counts in the month of its newest file."""
        column, contents = self.columns["month"], self.contents[rows]
        ranks = np.argsort(np.argsort(np.array(column.values, np.str_))) if column.values else np.empty(0, np.int64)
        codes = column.codes[rows]
        order = np.lexsort((np.where(codes >= 0, ranks[codes] if len(ranks) else -1, -1), contents))
        last = np.append(contents[order][1:] != contents[order][:-1], True) if len(order) else np.empty(0, bool)
        codes = codes[order][last].astype(np.int64)
        numbers = np.bincount(codes[codes >= 0], minlength=len(column.values))
        return [(value, number) for value, number in zip(column.values, numbers.tolist(), strict=True) if number]

    def counts(self, name: str, rows: np.ndarray) -> list[tuple[str, int]]:
        """(value, number of different contents) of a column among rows."""
        column = self.columns[name]
        codes, shared = column.codes[rows], self.shared[rows]
        several = np.unique(np.stack([codes[shared], self.contents[rows[shared]]]), axis=1)[0] if shared.any() else []
        codes = np.concatenate([codes[~shared], several]).astype(np.int64)
        numbers = np.bincount(codes[codes >= 0], minlength=len(column.values))
        return [(value, number) for value, number in zip(column.values, numbers.tolist(), strict=True) if number]


class Columns:
    """The table of a catalogue's newest revision, and which files pass a filter; several threads may ask at once."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._table: Table | None = None
        self._passing: OrderedDict[tuple[str, tuple[object, ...]], np.ndarray] = OrderedDict()

    def table(self) -> Table:
        """The files of the revision that this thread sees."""
        revision = self._catalogue.revision
        with self._lock:
            if self._table is None or self._table.revision != revision:
                if self._table is not None and self._table.revision > revision:
                    return _read(self._catalogue, revision, None)  # of a snapshot that was taken before
                self._table = _read(self._catalogue, revision, self._table)
                self._passing.clear()
            return self._table

    def passing(self, table: Table, where: Where) -> np.ndarray | None:
        """The (m,) ids, ascending, of files that pass a filter, or some of their segments; None: every file does."""
        if where is EVERYTHING:
            return None
        key = (where.sql, where.values)
        with self._lock:
            if self._table is table and key in self._passing:
                self._passing.move_to_end(key)
                return self._passing[key]
        found = self._catalogue.passing_files(where)
        with self._lock:
            if self._table is table:
                self._passing[key] = found
                while len(self._passing) > _FILTERS_KEPT:
                    self._passing.popitem(last=False)
        return found


def _read(catalogue: Catalogue, revision: int, old: Table | None) -> Table:
    """The table of this revision: what changed since the `old` one is read, and put in its place."""
    since = -1 if old is None else old.revision
    rows = catalogue.rows(f"{_QUERY} WHERE f.changed > ?", (since,))
    if old is not None and not rows and catalogue.count_files() == len(old.files):
        return replace(old, revision=revision)
    files, contents, *texts, latitudes, longitudes = zip(*rows, strict=True) if rows else ((),) * 9
    new = np.array(files, np.int64)
    positions = np.array([*map(_position, latitudes, longitudes)], np.float64).reshape(len(rows), 2)
    if old is None:
        kept = np.empty(0, np.int64)
        old = Table(0, kept, kept, {name: Column(kept.astype(np.int32), []) for name in NAMES}, positions[:0], kept > 0)
    kept = np.flatnonzero(~np.isin(old.files, new))
    if len(kept) + len(new) != catalogue.count_files():
        left = np.array([row[0] for row in catalogue.rows("SELECT id FROM files WHERE content IS NOT NULL")], np.int64)
        kept = kept[np.isin(old.files[kept], left)]
    all_files = np.concatenate([old.files[kept], new])
    order = np.argsort(all_files)
    all_contents = np.concatenate([old.contents[kept], np.array(contents, np.int64)])[order]
    columns = {name: _column(values, old.columns[name], kept, order) for name, values in zip(NAMES, texts, strict=True)}
    _, place, counts = np.unique(all_contents, return_inverse=True, return_counts=True)
    all_positions = np.concatenate([old.positions[kept], positions])[order]
    return Table(revision, all_files[order], all_contents, columns, all_positions, counts[place] > 1)


def _position(latitude: Any, longitude: Any) -> tuple[float, float]:
    """Facts of metadata -> degrees; NaN for what a foreign file may say."""
    if type(latitude) not in (int, float) or type(longitude) not in (int, float):
        return np.nan, np.nan
    return (latitude, longitude) if abs(latitude) <= 90 and abs(longitude) <= 180 else (np.nan, np.nan)


def _column(values: Sequence[bytes | None], old: Column, kept: np.ndarray, order: np.ndarray) -> Column:
    """The `kept` rows of a column and the rows of new values behind them, in an order."""
    texts = list(old.values)
    known = {value.encode(): code for code, value in enumerate(texts)}
    for value in dict.fromkeys(values):
        if value is not None and value not in known:
            with suppress(UnicodeDecodeError):
                texts.append(value.decode())
                known[value] = len(texts) - 1
    codes = [-1 if value is None else known.get(value, -1) for value in values]
    return Column(np.concatenate([old.codes[kept], np.array(codes, np.int32)])[order], texts)
