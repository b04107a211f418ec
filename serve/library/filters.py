"""Filters of a library: parsed, and their names looked for in what the files of this library have."""

from __future__ import annotations

from serve.library import where as filters
from serve.library.catalogue import Catalogue
from serve.library.where import EVERYTHING, Where, WhereError


def checked_filter(catalogue: Catalogue, where: str | None) -> Where:
    """A filter as it is typed -> its condition. Raises WhereError, also for metadata that no file has."""
    if where is None or not where.strip():
        return EVERYTHING
    parsed = filters.parse(where)
    if catalogue.count_files():
        for key, position in parsed.keys.items():
            if not catalogue.has_metadata(filters.json_path(key)):
                known = ", ".join(filters.COLUMNS)
                reason = f"no file has metadata {key!r}, and it is no column (columns: {known})"
                raise WhereError(reason, where, position)
    return parsed
