"""The search for words in file names, captions and metadata: what of the catalogue shares words with a text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from serve.library.text import fold, is_file_name, name_phrase, query_terms
from serve.library.where import EVERYTHING, Where

Rows = Callable[[str, Sequence[Any]], list[Any]]
"""Runs SQL with values on a catalogue -> its rows."""
_MOST_TERMS = 500
_NAMED = 100


def contents(
    rows: Rows, text: str, modalities: Collection[str], every_modality: bool, where: Where, limit: int
) -> dict[int, int]:
    """Contents whose file name, caption or metadata share words with the text, best first (BM25) -> that file."""
    wanted = query_terms(text)[:_MOST_TERMS]
    if not wanted or not modalities:
        return {}
    restricted, values = _restriction(modalities, every_modality, where)
    found = rows(
        "SELECT f.content, f.id FROM "
        f"(SELECT rowid, rank FROM words WHERE words MATCH ?{restricted} ORDER BY rank LIMIT ?) w "
        "JOIN files f ON f.id = w.rowid ORDER BY w.rank, f.path",
        (" OR ".join(wanted), *values, limit),
    )
    return _first_of_each(found)


def named(rows: Rows, text: str, modalities: Collection[str], every_modality: bool, where: Where) -> dict[int, int]:
    """Contents of files whose whole name the text is, after folders or not -> that file; those of the folders first.

    Nothing for a text that is no file name.
    """
    path = fold(text.strip().replace("\\", "/"))
    name = path.rpartition("/")[2]
    phrase = name_phrase(name) if is_file_name(name) else None
    if phrase is None or not modalities:
        return {}
    restricted, values = _restriction(modalities, every_modality, where)
    found = rows(
        "SELECT f.content, f.id, f.shown FROM words JOIN files f ON f.id = words.rowid "
        f"WHERE words MATCH ?{restricted} AND fold(f.name) = ? ORDER BY f.path LIMIT ?",
        (phrase, *values, name, _NAMED),
    )
    tail = f"/{path.lstrip('./~')}"
    return _first_of_each(sorted(found, key=lambda row: not f"/{fold(row[2])}".endswith(tail)))


def _restriction(modalities: Collection[str], every_modality: bool, where: Where) -> tuple[str, list[Any]]:
    """SQL that keeps the files that pass a filter and have one of the modalities, and its values."""
    if where is EVERYTHING and every_modality:
        return "", []
    # Looked up for each match: there are fewer of them than files that pass most filters.
    marks = ", ".join("?" * len(modalities))
    sql = (
        " AND EXISTS (SELECT 1 FROM files f CROSS JOIN contents c ON c.id = f.content "
        "CROSS JOIN segments s ON s.content = c.id "
        f"WHERE f.id = words.rowid AND s.modality IN ({marks}) AND {where.sql})"
    )
    return sql, [*modalities, *where.values]


def _first_of_each(rows: Sequence[Sequence[Any]]) -> dict[int, int]:
    found: dict[int, int] = {}
    for content, file, *_ in rows:
        if content is not None:
            found.setdefault(content, file)
    return found
