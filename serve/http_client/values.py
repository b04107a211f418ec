"""What the server answers, as the client returns it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from preprocess.readers.lines import Line


class ApiError(Exception):
    """The server answered with an error: `status` is the HTTP status, `code` is for programs, the message for
    people.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code


@dataclass(frozen=True)
class FoundItem:
    """An item of the library as the server describes it; see `serve.library.items.Item`.

    `path` is a path of the server.
    """

    id: int
    modality: str
    path: str
    also: tuple[str, ...]
    start_s: float | None
    end_s: float | None
    metadata: Mapping[str, Any]
    at: str | None
    notes: tuple[str, ...]
    date: str
    date_source: str


@dataclass(frozen=True)
class FoundHit(FoundItem):
    """An item that a search found; see `serve.library.items.Hit`."""

    score: float
    cosine: float
    keyword: bool
    probability: float | None
    likely: bool
    lines: tuple[Line, ...]


class FoundHits(list[FoundHit]):
    """A page of hits with `next` and `nothing`, as `serve.library.items.Hits`."""

    def __init__(self, hits: Iterable[FoundHit], next: str | None, nothing: bool) -> None:
        super().__init__(hits)
        self.next = next
        self.nothing = nothing


@dataclass(frozen=True)
class FoundFile(FoundItem):
    """A file of the library as the server describes it; see `serve.library.listing.FileItem`."""

    kind: str
    size_bytes: int
    duration_s: float | None
    segments: int
    favourite: bool
    hidden: bool
    albums: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class FoundPage:
    """Files in an order, the `cursor` of the next ones (None at the end), and the `total` of all pages."""

    files: list[FoundFile]
    cursor: str | None
    total: int


@dataclass(frozen=True)
class FoundAlbum:
    """An album or tag as the server describes it; see `serve.library.albums.Album`."""

    id: int
    name: str
    query: str | None
    where: str | None
    min_probability: float | None
    count: int | None


def album_of(row: Mapping[str, Any]) -> FoundAlbum:
    """The JSON of an album -> the album."""
    return FoundAlbum(**{key: value for key, value in row.items() if key != "object"})


def item_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of an item -> the fields of a `FoundItem`."""
    keys = ("id", "modality", "path", "start_s", "end_s", "metadata", "at", "date", "date_source")
    return {key: row[key] for key in keys} | {key: tuple(row[key]) for key in ("also", "notes")}


def file_of(row: Mapping[str, Any]) -> FoundFile:
    """The JSON of a file -> the file."""
    keys = ("kind", "size_bytes", "duration_s", "segments", "favourite", "hidden")
    lists: dict[str, Any] = {key: tuple(row[key]) for key in ("albums", "tags")}
    return FoundFile(**item_fields(row), **{key: row[key] for key in keys}, **lists)
