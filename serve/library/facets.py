"""Facets: how many files of a library are of each kind, folder, month, camera, place, album and tag."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serve.library.catalogue import Catalogue
from serve.library.columns import NAMES, Columns
from serve.library.where import Where


@dataclass(frozen=True)
class Facets:
    """The number of files, and (value, number) of each facet, the most frequent first; months and folders in order.

    Equal files count once. `months` are as 2024-05.
    """

    total: int
    kinds: list[tuple[str, int]]
    folders: list[tuple[str, int]]
    months: list[tuple[str, int]]
    cameras: list[tuple[str, int]]
    places: list[tuple[str, int]]
    albums: list[tuple[str, int]]
    tags: list[tuple[str, int]]
    favourites: int
    hidden: int


def count(catalogue: Catalogue, columns: Columns, where: Where, limit: int) -> Facets:
    """The facets of the files that pass a filter, at most `limit` values each; `hidden` counts in the whole library."""
    with catalogue.snapshot():
        table = columns.table()
        rows = table.rows(columns.passing(table, where))
        counted = {name: table.counts(name, rows) for name in NAMES}
        marked = _marked(catalogue, table.contents[rows])
        hidden = len(catalogue.hidden_contents() & set(table.contents.tolist())) if catalogue.has_hidden() else 0
    often = {name: sorted(pairs, key=lambda pair: (-pair[1], pair[0])) for name, pairs in (counted | marked).items()}
    return Facets(
        total=table.total(rows),
        kinds=often["kind"][:limit],
        folders=sorted(counted["folder"])[:limit],
        months=sorted(table.newest(rows), reverse=True)[:limit],
        cameras=often["camera"][:limit],
        places=often["place"][:limit],
        albums=often["album"][:limit],
        tags=often["tag"][:limit],
        favourites=sum(number for _, number in marked["favourite"]),
        hidden=hidden,
    )


def _marked(catalogue: Catalogue, contents: np.ndarray) -> dict[str, list[tuple[str, int]]]:
    """The numbers of favourites, and of each album and tag, among some contents (n,)."""
    found: dict[str, list[tuple[str, int]]] = {"album": [], "tag": [], "favourite": []}
    members: dict[tuple[str, str], list[int]] = {}
    for kind, name, content in catalogue.rows(
        "SELECT a.kind, a.name, c.id FROM albums a JOIN members m ON m.album = a.id "
        "JOIN contents c ON c.digest = m.digest "
        "UNION SELECT 'favourite', '', c.id FROM marks m JOIN contents c ON c.digest = m.digest WHERE m.favourite"
    ):
        members.setdefault((kind, name), []).append(content)
    passing = set(contents.tolist()) if members else set()
    for (kind, name), numbers in members.items():
        if number := len(passing & set(numbers)):
            found[kind].append((name, number))
    return found
