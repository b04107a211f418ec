"""The example queries that the page offers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from serve.library.text import shown, words_of
from serve.page.names import name_of, printable

if TYPE_CHECKING:
    from serve.library.items import Item

Answer = dict[str, Any]
_FIRST = ("image", "video", "audio", "depth", "thermal", "imu")
"""The order of examples by modality: what most people know comes first."""
PICTURED = ("image", "video")
"""Modalities that a small picture shows better than words."""


def examples(items: Sequence[Item], understood: Sequence[str]) -> list[Answer]:
    """Items of a library and the modalities of its model -> example queries that they can answer.

    The queries have the form that the page takes: `terms`, and the modality to `want`.
    """
    by_modality: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda item: _FIRST.index(item.modality) if item.modality in _FIRST else len(_FIRST)):
        by_modality.setdefault(item.modality, []).append(item)
    if not by_modality:
        return []
    kind, (first, *_) = next(iter(by_modality.items()))
    named = [(label, item) for item in by_modality[kind] if (label := label_of(item))] if "text" in understood else []
    found: list[Answer] = []
    if named:
        found.append(_example(None, words_term(named[0][0])))
    for modality, (item, *_) in by_modality.items():
        wanted = next((name for name in by_modality if name != modality and name != "text"), None)
        if modality != "text":
            found.append(_example(wanted, item_term(item)))
    others = [label for label, item in named if item.path != first.path]
    if others:
        found.append(_example(None, item_term(first), words_term(others[0])))
        found.append(_example(kind, item_term(first), words_term(others[-1], -0.5)))
    return found


def _example(want: str | None, *terms: Answer) -> Answer:
    return {"terms": terms, "want": want}


def label_of(item: Item) -> str:
    """A person's name for an item: its caption, else the words of its file name, '' where those say nothing."""
    caption = item.metadata.get("caption")
    if isinstance(caption, str) and 0 < len(caption) <= 60:
        return printable(caption)
    words = words_of(shown(PurePath(item.path).stem))
    return " ".join(words) if words and all(len(word) > 3 and word.isalpha() for word in words) else ""


def words_term(words: str, weight: float = 1.0) -> Answer:
    """Words -> a term as the page takes it."""
    return {"words": words, "weight": weight}


def item_term(item: Item) -> Answer:
    """An item -> a term as the page takes it."""
    name = name_of(item) if item.modality in PICTURED else label_of(item) or name_of(item)
    return {"item": item.item_id, "name": name, "modality": item.modality, "weight": 1.0}
