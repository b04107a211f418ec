"""The search for words: what of a catalogue shares them with a text, in names, captions, metadata and lines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from serve.library.text import fold, is_file_name, name_phrase, query_terms
from serve.library.where import EVERYTHING, Where

Rows = Callable[[str, Sequence[Any]], list[Any]]
"""Runs SQL with values on a catalogue -> its rows."""
_MOST_TERMS = 500
"""Words of a query that are searched for; SQLite's expressions have a limit."""
_NAMED = 100
"""Files of one name that are compared by their paths."""
_WEIGHT_OF_LINES = 0.5
"""Of the score (BM25) of words in a picture or in speech, beside that of a name or a caption, which is about it."""


@dataclass(frozen=True)
class Match:
    """A content with words of a text: the id of the `file` that has them, and how much they say, from 0 to 1.

    `is_whole` says whether all words of the text are there, `is_about` whether they are in name, caption or metadata,
    and not only in a picture or in speech. `place` is the place among contents whose whole name the text is, None for
    all others.
    """

    file: int
    weight: float
    is_whole: bool
    is_about: bool
    place: int | None = None


@dataclass(frozen=True)
class _Found:
    """The contents that an expression finds: their scores, the file of each, and those that name or caption tell of."""

    scores: dict[int, float]
    files: dict[int, int]
    about: set[int]


def matches(
    rows: Rows, text: str, modalities: Collection[str], every_modality: bool, where: Where, limit: int
) -> dict[int, Match]:
    """Contents whose file name, caption, metadata or lines share words with the text -> what they share, best first.

    The score of a content is that of BM25: the sum of that of a file's own words and, with less weight, of its lines.
    The weight is score / (1 + score): rare words say more than words that most files have. Of more than `limit`
    contents the best are taken.
    """
    wanted = query_terms(text)[:_MOST_TERMS]
    if not wanted or not modalities:
        return {}
    some = whole = _found(rows, " OR ".join(wanted), modalities, every_modality, where, limit)
    if len(wanted) > 1:
        whole = _found(rows, " AND ".join(wanted), modalities, every_modality, where, limit)
    scores, files = whole.scores | some.scores, some.files | whole.files
    best = sorted(files, key=lambda content: -scores[content])[:limit]
    weights = {content: scores[content] / (1 + scores[content]) for content in best}
    return {one: Match(files[one], weights[one], one in whole.files, one in whole.about) for one in best}


def _found(
    rows: Rows, expression: str, modalities: Collection[str], every_modality: bool, where: Where, limit: int
) -> _Found:
    restricted, values = _restriction(modalities, every_modality, where)
    about = rows(
        "SELECT f.content, f.id, w.rank FROM "
        f"(SELECT rowid, rank FROM words WHERE words MATCH ?{restricted} ORDER BY rank LIMIT ?) w "
        "JOIN files f ON f.id = w.rowid ORDER BY w.rank, f.path",
        (expression, *values, limit),
    )
    restricted, values = _restriction(modalities, every_modality, where, of_lines=True)
    lines = rows(
        "SELECT f.content, f.id, w.rank FROM "
        f"(SELECT rowid, rank FROM written WHERE written MATCH ?{restricted} ORDER BY rank LIMIT ?) w "
        "JOIN texts t ON t.id = w.rowid JOIN files f ON f.content = t.content ORDER BY w.rank, f.path",
        (expression, *values, limit),
    )
    scores: dict[int, float] = {}
    for weight, found in ((1.0, about), (_WEIGHT_OF_LINES, lines)):
        first = {content: rank for content, _, rank in reversed(found) if content is not None}
        for content, rank in first.items():  # BM25 of SQLite: the lower the better
            scores[content] = scores.get(content, 0.0) + weight * max(-rank, 0.0)
    of_about = _first_of_each(about)
    return _Found(scores, _first_of_each(lines) | of_about, set(of_about))


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


def _restriction(
    modalities: Collection[str], every_modality: bool, where: Where, of_lines: bool = False
) -> tuple[str, list[Any]]:
    """SQL that keeps the matches whose file passes a filter and has one of the modalities, and its values."""
    if where is EVERYTHING and every_modality:
        return "", []
    # Looked up for each match: there are fewer of them than files that pass most filters.
    marks = ", ".join("?" * len(modalities))
    files = "texts t CROSS JOIN files f ON f.content = t.content" if of_lines else "files f"
    row = "t.id = written.rowid" if of_lines else "f.id = words.rowid"
    sql = (
        f" AND EXISTS (SELECT 1 FROM {files} CROSS JOIN contents c ON c.id = f.content "
        "CROSS JOIN segments s ON s.content = c.id "
        f"WHERE {row} AND s.modality IN ({marks}) AND {where.sql})"
    )
    return sql, [*modalities, *where.values]


def _first_of_each(rows: Sequence[Sequence[Any]]) -> dict[int, int]:
    found: dict[int, int] = {}
    for content, file, *_ in rows:
        if content is not None:
            found.setdefault(content, file)
    return found
