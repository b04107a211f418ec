"""Filters of a library: parsed, and their names looked for in what the files of this library have."""

from __future__ import annotations

from serve.library import where as filters
from serve.library.catalogue import Catalogue
from serve.library.where import EVERYTHING, Where, WhereError

_VISIBLE = "c.digest NOT IN (SELECT digest FROM marks WHERE hidden)"
"""The condition of files that nobody has hidden."""


def checked_filter(catalogue: Catalogue, where: str | None, *, hidden: bool = False) -> Where:
    """A filter as it is typed -> its condition. Raises WhereError, also for metadata that no file has.

    What is marked as hidden does not pass, unless it is asked for with `hidden`, or the filter speaks of it.
    """
    parsed = _parsed(catalogue, where)
    if hidden or "hidden" in parsed.names or not catalogue.has_hidden():
        return parsed
    if parsed is EVERYTHING:
        return Where(_VISIBLE, ())
    return Where(f"({parsed.sql} AND {_VISIBLE})", parsed.values, parsed.keys, parsed.names)


def _parsed(catalogue: Catalogue, where: str | None) -> Where:
    if where is None or not where.strip():
        return EVERYTHING
    parsed = filters.parse(where, catalogue.filters_of_albums() if "album" in where else None)
    if catalogue.count_files():
        for key, position in parsed.keys.items():
            if not catalogue.has_metadata(filters.json_path(key)):
                known = ", ".join((*filters.COLUMNS, *filters.MEMBERSHIPS))
                reason = f"no file has metadata {key!r}, and it is no column (columns: {known})"
                raise WhereError(reason, where, position)
    return parsed
