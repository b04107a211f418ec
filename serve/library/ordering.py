"""All files of a library in an order, by their place: for whoever jumps into the middle of a list.

A cursor finds the next page of a list, and nothing else. A page that shows a scroll bar over 200,000 files needs those
from place 120,000 on. So the ids of all files are held in an order, made once for a revision, an order and a filter.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from serve.library.columns import Table
from serve.library.where import Where

if TYPE_CHECKING:
    from serve.library.catalogue import Catalogue

_KEPT = 6
"""The number of lists in memory, of 8 bytes a file each."""


class Orders:
    """The lists of a catalogue's newest revision; several threads may ask at once."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[object, ...], np.ndarray] = OrderedDict()

    def files(
        self, table: Table, passing: np.ndarray | None, where: Where, columns: str, descending: bool
    ) -> np.ndarray:
        """(n,) ids of the files of a table that pass a filter, in the order of SQL `columns`; of copies the first."""
        key = (table.revision, columns, descending, where.sql, where.values)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        files = self._all(table, columns)
        if passing is not None:
            files = files[np.isin(files, passing, assume_unique=True)]
        if descending:
            files = files[::-1]
        rows = np.searchsorted(table.files, files)
        if table.shared[rows].any():
            files = files[np.sort(np.unique(table.contents[rows], return_index=True)[1])]
        self._keep(key, files)
        return files

    def _all(self, table: Table, columns: str) -> np.ndarray:
        key = (table.revision, columns)
        with self._lock:
            if key in self._kept:
                return self._kept[key]
        rows = self._catalogue.rows(f"SELECT id FROM files WHERE content IS NOT NULL ORDER BY {columns}")
        found = np.fromiter((row[0] for row in rows), np.int64, len(rows))
        self._keep(key, found)
        return found

    def _keep(self, key: tuple[object, ...], files: np.ndarray) -> None:
        with self._lock:
            self._kept[key] = files
            for old in [old for old in self._kept if old[0] != key[0]]:
                del self._kept[old]  # of an earlier revision
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
