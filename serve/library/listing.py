"""The list of a library's files without a query: in an order, page by page, and the files that are near to one."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from serve.library.catalogue import Catalogue
from serve.library.columns import Columns, Table
from serve.library.errors import CursorError as CursorError
from serve.library.items import Item, Items, item_of
from serve.library.ordering import Orders
from serve.library.where import EVERYTHING, Where

Sort = Literal["added", "date", "name", "size", "path"]
Order = Literal["asc", "desc"]
MAX_PAGE = 1000
"""The largest number of files of a page."""
_KEYS = {
    "added": ("content", "content"),
    "date": ("date", "date"),
    "name": ("name COLLATE NOCASE", "name"),
    "size": ("size_bytes", "size_bytes"),
    "path": ("shown COLLATE NOCASE", "shown"),
}
"""Order -> the first column of its index, and the column itself."""
_FEW_SHARE = 0.05
"""Where at most this share of the files passes a filter, they are sorted; else the index is walked past the others."""
EARTH_KM = 6371.0
"""The mean radius of the Earth (IUGG)."""


@dataclass(frozen=True)
class FileItem(Item):
    """A file with all its stretches as one item: that of its first stretch, without times.

    `kind` is what the file is read as, `duration_s` its length, `segments` the number of its items. Files with the same
    content are one (`also` are the others), of which the one is shown that comes first in the order of the list.
    """

    kind: str
    size_bytes: int
    duration_s: float | None
    segments: int
    favourite: bool
    hidden: bool
    albums: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """Files in an order, the `cursor` of the next ones (None at the end), and the `total` of all pages."""

    files: list[FileItem]
    cursor: str | None
    total: int


@dataclass(frozen=True)
class _Place:
    """A file in an order: the value it is sorted by, its content and its id."""

    key: Any
    content: int
    file: int


class Listing:
    """Lists the files of a catalogue; several threads may ask at once."""

    def __init__(self, catalogue: Catalogue, items: Items, columns: Columns) -> None:
        self._catalogue = catalogue
        self._items = items
        self._columns = columns
        self._orders = Orders(catalogue)

    def page(self, where: Where, sort: Sort, order: Order, limit: int, cursor: str | None, offset: int = 0) -> Page:
        """At most `limit` files that pass a filter, without the first `offset`.

        Raises ValueError (CursorError for a cursor of another list).
        """
        if sort not in get_args(Sort) or order not in get_args(Order):
            raise ValueError(f"expected an order of {', '.join(get_args(Sort))}, asc or desc; got {sort!r}, {order!r}")
        if not 1 <= limit <= MAX_PAGE:
            raise ValueError(f"expected a limit from 1 to {MAX_PAGE}, got {limit}")
        after = None if cursor is None else _read_cursor(cursor, sort, order)
        with self._catalogue.snapshot():
            table = self._columns.table()
            passing = self._columns.passing(table, where)
            total = table.total(table.rows(passing))
            if offset:
                return self._from(table, passing, where, sort, order, limit, offset, total)
            found: list[_Place] = []
            for places in self._walk(table, passing, sort, order, after, limit + 1):
                found += self._first_of_each(places, passing, sort, order)
                if len(found) > limit:
                    break
            shown = found[:limit]
            following = _cursor(shown[-1], sort, order) if len(found) > limit else None
            return Page(self.files([(one.content, one.file) for one in shown]), following, total)

    def _from(
        self,
        table: Table,
        passing: np.ndarray | None,
        where: Where,
        sort: Sort,
        order: Order,
        limit: int,
        offset: int,
        total: int,
    ) -> Page:
        indexed, column = _KEYS[sort]
        files = self._orders.files(table, passing, where, f"{indexed}, content, id", order == "desc")
        chosen = files[offset : offset + limit]
        contents = table.contents[np.searchsorted(table.files, chosen)]
        shown = self.files(list(zip(contents.tolist(), chosen.tolist(), strict=True)))
        if offset + limit >= len(files) or not shown:
            return Page(shown, None, total)
        last = int(chosen[-1])
        ((key,),) = self._catalogue.rows(f"SELECT {column} FROM files WHERE id = ?", (last,))
        return Page(shown, _cursor(_Place(key, int(contents[-1]), last), sort, order), total)

    def _walk(
        self, table: Table, passing: np.ndarray | None, sort: Sort, order: Order, after: _Place | None, limit: int
    ) -> Iterator[list[_Place]]:
        """Files that pass, in order, in blocks of growing size; of a content several may come."""
        indexed, column = _KEYS[sort]
        few = passing is not None and len(passing) <= max(_FEW_SHARE * len(table.files), limit)
        block = limit
        while True:
            condition = "content IS NOT NULL"
            values: list[Any] = []
            if few and passing is not None:
                condition += " AND id IN (SELECT value FROM json_each(?))"
                values.append(json.dumps(passing.tolist()))
            if after is not None:
                condition += f" AND ({indexed}, content, id) {'>' if order == 'asc' else '<'} (?, ?, ?)"
                values += [after.key, after.content, after.file]
            rows = self._catalogue.rows(
                f"SELECT {column}, content, id FROM files WHERE {condition} "
                f"ORDER BY {indexed} {order}, content {order}, id {order} LIMIT {block}",
                values,
            )
            places = [_Place(*row) for row in rows]
            if passing is not None and not few:
                chosen = np.isin(np.array([one.file for one in places], np.int64), passing)
                yield [one for one, passes in zip(places, chosen.tolist(), strict=True) if passes]
            else:
                yield places
            if len(rows) < block:
                return
            after, block = places[-1], min(4 * block, 50_000)

    def _first_of_each(
        self, places: Sequence[_Place], passing: np.ndarray | None, sort: Sort, order: Order
    ) -> list[_Place]:
        """The files among these that are the first of their content, of all that pass, in this order."""
        _, column = _KEYS[sort]
        rows = self._catalogue.rows(
            f"SELECT {column}, content, id FROM files WHERE content IN (SELECT value FROM json_each(?))",
            (json.dumps([one.content for one in places]),),
        )
        if passing is not None:
            rows = [row for row, passes in zip(rows, np.isin([row[2] for row in rows], passing), strict=True) if passes]
        first: dict[int, tuple[Any, int]] = {}
        better = min if order == "asc" else max
        for key, content, file in rows:
            own = (_folded(key), file)
            first[content] = better(first.get(content, own), own)
        return [one for one in places if first[one.content][1] == one.file]

    def files(self, wanted: Sequence[tuple[int, int]]) -> list[FileItem]:
        """(content, id of the file to show) -> the files, in this order."""
        facts = self._facts([content for content, _ in wanted])
        known = [(content, file) for content, file in wanted if content in facts]
        chosen = {file for _, file in known}
        entries = self._catalogue.entries([facts[content][0] for content, _ in known], EVERYTHING, chosen)
        entries = self._catalogue.as_uploads(entries.values(), chosen)
        sizes = dict(
            self._catalogue.rows(
                "SELECT id, size_bytes FROM files WHERE id IN (SELECT value FROM json_each(?))",
                (json.dumps(sorted(chosen)),),
            )
        )
        named = self._named([content for content, _ in known])
        found = []
        for content, file in known:
            segment, kind, duration_s, favourite, hidden, count = facts[content]
            item = item_of(entries[segment]).__dict__ | {"start_s": None, "end_s": None}
            marks = (bool(favourite), bool(hidden), *(tuple(named[name].get(content, ())) for name in ("album", "tag")))
            found.append(FileItem(**item, **_facts(kind, sizes[file], duration_s, count, *marks)))
        return found

    def first_files(self, contents: Sequence[int]) -> list[FileItem]:
        """The files of contents, of several with the same content the first by path."""
        rows = self._catalogue.rows(
            "SELECT w.value, (SELECT f.id FROM files f WHERE f.content = w.value ORDER BY f.path LIMIT 1) "
            "FROM json_each(?) w ORDER BY w.key",
            (json.dumps(list(contents)),),
        )
        return self.files([(content, file) for content, file in rows if file is not None])

    def _facts(self, contents: Sequence[int]) -> dict[int, tuple[Any, ...]]:
        """Content -> (first segment of its own modality, kind, length, favourite, hidden, number of segments)."""
        rows = self._catalogue.rows(
            "SELECT c.id, coalesce((SELECT min(id) FROM segments WHERE content = c.id AND modality = c.modality), "
            "(SELECT min(id) FROM segments WHERE content = c.id)), c.modality, c.duration_s, m.favourite, m.hidden, "
            "(SELECT count(*) FROM segments s WHERE s.content = c.id) FROM json_each(?) w "
            "JOIN contents c ON c.id = w.value LEFT JOIN marks m ON m.digest = c.digest",
            (json.dumps(list(contents)),),
        )
        return {row[0]: tuple(row[1:]) for row in rows if row[1] is not None}

    def _named(self, contents: Sequence[int]) -> dict[str, dict[int, list[str]]]:
        """`album` and `tag` -> content -> the names of those that it is in."""
        found: dict[str, dict[int, list[str]]] = {"album": {}, "tag": {}}
        for content, kind, name in self._catalogue.rows(
            "SELECT c.id, a.kind, a.name FROM json_each(?) w JOIN contents c ON c.id = w.value "
            "JOIN members m ON m.digest = c.digest JOIN albums a ON a.id = m.album ORDER BY a.name",
            (json.dumps(list(contents)),),
        ):
            found[kind].setdefault(content, []).append(name)
        return found

    def file(self, item_id: int) -> FileItem:
        """The file that an item belongs to. Raises UnknownItemError."""
        with self._catalogue.snapshot():
            (found,) = self.files([self._place_of(item_id)])
        return found

    def _place_of(self, item_id: int) -> tuple[int, int]:
        """The content of an item, and the id of its file: of an upload's item its own, else the first by path."""
        segment, file = self._items.segment_and_file(item_id)
        content = self._catalogue.contents_of([segment])[segment]
        if file is None:
            rows = self._catalogue.rows("SELECT id FROM files WHERE content = ? ORDER BY path LIMIT 1", (content,))
            file = rows[0][0]
        return content, int(file)

    def near_in_time(self, item_id: int, limit: int, where: Where) -> list[FileItem]:
        """The files whose dates are nearest to that of an item's file, nearest first, without that file."""
        with self._catalogue.snapshot():
            content, file = self._place_of(item_id)
            ((date,),) = self._catalogue.rows("SELECT date FROM files WHERE id = ?", (file,))
            table = self._columns.table()
            passing = self._columns.passing(table, where)
            near: list[_Place] = []
            orders: tuple[Order, Order] = ("asc", "desc")
            for order in orders:
                side: list[_Place] = []
                for places in self._walk(table, passing, "date", order, _Place(date, content, file), limit):
                    side += places
                    if len(side) >= limit:
                        break
                near += side[:limit]
            own = _seconds(date)
            near.sort(key=lambda one: abs(_seconds(one.key) - own))
            first = {one.content: one.file for one in reversed(near) if one.content != content}
            ordered = dict.fromkeys(one.content for one in near if one.content != content)
            return self.files([(one, first[one]) for one in list(ordered)[:limit]])

    def near_in_place(self, item_id: int, limit: int, where: Where) -> list[FileItem]:
        """The files that were made nearest to an item's file, nearest first; none where it has no position."""
        with self._catalogue.snapshot():
            content, _ = self._place_of(item_id)
            table = self._columns.table()
            known = np.isfinite(table.positions[:, 0])
            own = np.flatnonzero(known & (table.contents == content))  # of equal files one may have a sidecar
            rows = table.rows(self._columns.passing(table, where))
            rows = rows[known[rows] & (table.contents[rows] != content)]
            if not len(own) or not len(rows):
                return []
            distances = distances_km(table.positions[own[0]], table.positions[rows])
            rows = rows[np.argsort(distances, kind="stable")]
            rows = rows[np.sort(np.unique(table.contents[rows], return_index=True)[1])[:limit]]
            return self.files(list(zip(table.contents[rows].tolist(), table.files[rows].tolist(), strict=True)))


def distances_km(place: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(2,) and (n, 2) latitudes and longitudes in degrees -> (n,) distances on the sphere (haversine), in km."""
    one, many = np.radians(place), np.radians(others)
    half = np.sin((many - one) / 2) ** 2
    found: np.ndarray = 2 * EARTH_KM * np.arcsin(np.sqrt(half[:, 0] + np.cos(one[0]) * np.cos(many[:, 0]) * half[:, 1]))
    return found


def _facts(kind: str, size_bytes: int, duration_s: float | None, segments: int, *marks: Any) -> dict[str, Any]:
    favourite, hidden, albums, tags = marks
    return {
        "kind": kind, "size_bytes": size_bytes, "duration_s": duration_s, "segments": segments,
        "favourite": favourite, "hidden": hidden, "albums": albums, "tags": tags,
    }  # fmt: skip


def _folded(key: Any) -> Any:
    """A value as SQLite's NOCASE compares it: ASCII letters without case."""
    return key.translate(_LOWER) if isinstance(key, str) else key


_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
"""ASCII's capitals -> small letters, as SQLite's NOCASE folds them."""


def _seconds(date: str) -> float:
    """A date as the catalogue has it, whole or in part -> seconds, to compare; 0 for what is none."""
    text = date[:19]
    text += "0000-01-01T00:00:00"[len(text) :]
    try:
        return float(np.datetime64(text, "s").astype(np.int64))
    except ValueError:
        return 0.0


def _cursor(place: _Place, sort: Sort, order: Order) -> str:
    told = json.dumps([sort, order, place.key, place.content, place.file], ensure_ascii=False).encode()
    return base64.urlsafe_b64encode(told).decode().rstrip("=")


def _read_cursor(cursor: str, sort: Sort, order: Order) -> _Place:
    """What `_cursor` made -> the place of the last file. Raises CursorError."""
    try:
        told = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        made_for, made_order, key, content, file = told
        str(key).encode()  # a lone surrogate is no text of a catalogue
    except (ValueError, TypeError, RecursionError):
        raise CursorError("expected the `cursor` of the page before, as it was given") from None
    is_number = sort in ("added", "size")
    fits = type(key) is int if is_number else isinstance(key, str)
    if (made_for, made_order) != (sort, order) or not fits or type(content) is not int or type(file) is not int:
        raise CursorError(f"expected a cursor of this list ({sort}, {order}); begin again without one")
    if not all(-(2**63) <= one < 2**63 for one in (key, content, file) if isinstance(one, int)):
        raise CursorError("expected the `cursor` of the page before, as it was given")
    return _Place(key, content, file)
