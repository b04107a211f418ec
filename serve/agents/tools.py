"""What an agent can do with a library: search, look, locate, add, describe. It knows nothing of the protocol.

An agent may be told by a stranger's file what to do. So it sees only what is in the library, and adds only files of
folders that its user named.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bind.model import locating
from preprocess.files import open_regular
from preprocess.source import Limits, Source
from serve.engine import thumbnails
from serve.engine.terms import Term
from serve.library.items import Hit, Item
from serve.library.library import Library
from serve.library.listing import FileItem
from serve.library.text import shown

MAX_HITS = 100
"""The largest number of hits of one search, because an agent reads all of them."""
_MOST_LINES = 5
"""Lines of text of one hit: more would fill an agent's context."""
_FACETS = 20
"""Rows of each table of `describe`."""


class Tools:
    """The tools over one library; `sources` are the folders whose files may be added."""

    def __init__(self, library: Library, sources: Sequence[Path] = ()) -> None:
        self._library = library
        self._sources = [Path(os.path.realpath(folder)) for folder in sources]

    def search(
        self,
        query: str,
        k: int = 10,
        want: list[str] | None = None,
        where: str | None = None,
        like: int | None = None,
        min_probability: float | None = None,
    ) -> list[dict[str, Any]]:
        """The k best hits for words, and with `like` for what an item of the library shows too.

        Raises ValueError for what cannot be searched, with a sentence that says why.
        """
        if not 1 <= k <= MAX_HITS:
            raise ValueError(f"k: expected 1 to {MAX_HITS}, got {k}")
        terms = [Term(query)] if query.strip() else []
        terms += [] if like is None else [Term(like)]
        if not terms:
            raise ValueError("expected words to search for, or the id of an item in `like`")
        hits = self._library.search(terms, k, want, where, min_probability=min_probability)
        return [_hit(hit) for hit in hits]

    def look(self, item_id: int) -> tuple[bytes, dict[str, Any]]:
        """A small JPEG of an item, and the facts about it. Raises ValueError for sound and text, which have none."""
        item = self._library.item(item_id)
        if item.modality not in thumbnails.MODALITIES:
            raise ValueError(f"{item.modality} has no picture; these have: {', '.join(thumbnails.MODALITIES)}")
        if item_id not in thumbnails.make(self._library, [item]):
            raise ValueError("its file is gone or can no longer be read")
        return thumbnails.read(self._library, item_id), _item(item)

    def locate(self, item_id: int, query: str) -> dict[str, Any]:
        """Where the picture of an item shows what words ask for: boxes in its pixels, best first."""
        model = self._library.model
        source = Source.from_path(self._library.original(item_id))
        picture = locating.read(model, source, self._library.item(item_id).modality, Limits())
        found = locating.search(model, picture, model.embed([query], modality="text").vectors[0])
        keys = ("x0", "y0", "x1", "y1", "score")
        boxes = [dict(zip(keys, map(float, box), strict=True)) for box in found.boxes]
        return {"width": found.width, "height": found.height, "boxes": boxes}

    def add(self, path: str, caption: str = "") -> list[dict[str, Any]]:
        """Copies a file of one of the named folders into the library -> its items."""
        place = Path(os.path.realpath(os.path.expanduser(path)))
        if not any(place.is_relative_to(folder) for folder in self._sources):
            named = ", ".join(map(str, self._sources)) or "none: start `crossbind mcp` with --add-from FOLDER"
            raise ValueError(f"only files of the folders that the user named can be added ({named})")
        with os.fdopen(open_regular(str(place)), "rb") as file:
            items = self._library.add(file, place.name, {"caption": caption} if caption else None)
        return [_item(item) for item in items]

    def describe(self, item_id: int | None = None) -> dict[str, Any]:
        """All that is known of an item and its file, or of the library: its model, and its files by kind and so on."""
        if item_id is not None:
            item, file, related = self._library.details(item_id)
            return _item(item) | _file(file) | {"related": [one.item_id for one in related]}
        facets = self._library.facets(limit=_FACETS)
        model = self._library.model
        return {
            "files": facets.total,
            "model": model.description.name,
            "modalities": list(model.modalities),
            **{
                name: {shown(value): number for value, number in getattr(facets, name)}
                for name in ("kinds", "folders", "months", "cameras", "places", "albums", "tags")
            },
        }


def _item(item: Item) -> dict[str, Any]:
    """An item -> its facts; what it has none of is left out."""
    facts: dict[str, Any] = {
        "id": item.item_id,
        "path": shown(item.path),
        "modality": item.modality,
        "date": item.date,
        "start_s": item.start_s,
        "end_s": item.end_s,
        "at": item.at,
        "metadata": item.metadata,
    }
    return {name: value for name, value in facts.items() if value not in (None, {}, "")}


def _hit(hit: Hit) -> dict[str, Any]:
    lines = [line.text for line in hit.lines[:_MOST_LINES]]
    facts = {"score": round(hit.score, 3), "likely": hit.likely, "probability": hit.probability, "lines": lines or None}
    return _item(hit) | {name: value for name, value in facts.items() if value is not None}


def _file(file: FileItem) -> dict[str, Any]:
    names = ("kind", "size_bytes", "duration_s", "favourite", "hidden", "albums", "tags")
    return {name: getattr(file, name) for name in names}
