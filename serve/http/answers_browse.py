"""Values of a library that is browsed -> answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serve.http.answers import item_json
from serve.library.albums import Album
from serve.library.browsing import FileGroup
from serve.library.facets import Facets
from serve.library.items import Item
from serve.library.listing import FileItem
from serve.library.text import shown

_OWN = ("kind", "size_bytes", "duration_s", "segments", "favourite", "hidden")
"""What a file has beside its item."""


def file_json(file: FileItem, root: str) -> dict[str, Any]:
    """A file -> a `FileAnswer`, of a server whose addresses begin with `root`."""
    own = {name: getattr(file, name) for name in _OWN}
    return item_json(file, root) | own | {"albums": list(file.albums), "tags": list(file.tags)}


def details_json(item: Item, file: FileItem, related: Sequence[Item], root: str) -> dict[str, Any]:
    """An item, its file and all items of that -> `Details`."""
    stretches = [
        {"id": one.item_id, "modality": one.modality, "start_s": one.start_s, "end_s": one.end_s, "at": one.at}
        for one in related
    ]
    return file_json(file, root) | item_json(item, root) | {"related": stretches}


def facets_json(facets: Facets) -> dict[str, Any]:
    """The facets of a library -> a `FacetsAnswer`."""

    def counts(pairs: Sequence[tuple[str, int]], key: str = "name") -> list[dict[str, Any]]:
        return [{key: shown(value), "count": number} for value, number in pairs]

    return {
        "object": "facets",
        "total": facets.total,
        "kinds": counts(facets.kinds),
        "folders": counts(facets.folders, "path"),
        "months": counts(facets.months, "month"),
        "cameras": counts(facets.cameras),
        "places": counts(facets.places),
        "albums": counts(facets.albums),
        "tags": counts(facets.tags),
        "favourites": facets.favourites,
        "hidden": facets.hidden,
    }


def group_json(group: FileGroup, root: str) -> dict[str, Any]:
    """A group -> a `GroupAnswer`, of a server whose addresses begin with `root`."""
    return {
        "name": shown(group.name),
        "words": [shown(word) for word in group.words],
        "count": group.count,
        "ids": list(group.item_ids),
        "examples": [file_json(file, root) for file in group.examples],
    }


def album_json(album: Album) -> dict[str, Any]:
    """An album or tag -> an `AlbumAnswer`."""
    return {
        "object": album.kind,
        "id": album.album_id,
        "name": album.name,
        "query": album.query,
        "where": album.where,
        "min_probability": album.min_probability,
        "count": album.count,
    }
