"""The bodies of requests and answers about a library that is browsed, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from serve.http.schemas import MAX_ID, ItemAnswer, Strict
from serve.library.albums import MAX_NAME

MAX_IDS = 10_000
"""The largest number of items of one request."""
Ids = Annotated[list[Annotated[int, Field(ge=1, le=MAX_ID)]], Field(max_length=MAX_IDS)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]


class FileAnswer(ItemAnswer):
    """A file with all its stretches as one entry: `id` is that of its first item, `segments` the number of them.

    `kind` is what the file is read as. `also` are files with the same content.
    """

    kind: str
    size_bytes: int
    duration_s: float | None
    segments: int
    favourite: bool
    hidden: bool
    albums: list[str]
    tags: list[str]


class Stretch(BaseModel):
    """One of the items of a file: a timed stretch, or the sound track of a film."""

    id: int
    modality: str
    start_s: float | None
    end_s: float | None
    at: str | None


class Details(FileAnswer):
    """An item with all that is known of its file; `related` are all items of the file, itself among them."""

    related: list[Stretch]


class ItemsPage(BaseModel):
    """Items, or with `files` files, in an order.

    Of items, `next` is the `after` of the next ones; of files, `cursor` is that of the next ones, and `total` the
    number of all pages. Both are null at the end.
    """

    object: Literal["list"]
    data: list[FileAnswer | ItemAnswer]
    has_more: bool
    next: int | None
    cursor: str | None
    total: int | None


class Files(BaseModel):
    """Files, nearest first."""

    object: Literal["list"]
    data: list[FileAnswer]


class Count(BaseModel):
    """How many files have a value."""

    name: str
    count: int


class FolderCount(BaseModel):
    """How many files lie in a folder, whose path is relative to the folder that was indexed."""

    path: str
    count: int


class MonthCount(BaseModel):
    """How many files are of a month, as 2024-05."""

    month: str
    count: int


class FacetsAnswer(BaseModel):
    """How many files pass the filter, and how many of them there are of each kind, folder and so on.

    Files with the same content count once. `hidden` counts in the whole library.
    """

    object: Literal["facets"]
    total: int
    kinds: list[Count]
    folders: list[FolderCount]
    months: list[MonthCount]
    cameras: list[Count]
    places: list[Count]
    albums: list[Count]
    tags: list[Count]
    favourites: int
    hidden: int


class DuplicatesGroup(BaseModel):
    """Files that are nearly the same, or one whose `also` are the same; `cosine` is the least that joins them."""

    cosine: float
    files: list[FileAnswer]


class DuplicatesPage(BaseModel):
    """Groups of duplicates, largest first; `next` is the `after` of the next ones, null at the end."""

    object: Literal["list"]
    data: list[DuplicatesGroup]
    has_more: bool
    next: int | None
    total: int


class GroupAnswer(BaseModel):
    """Files that are alike. `ids` are items of its files, the most typical first; `examples` are the first of these."""

    name: str
    words: list[str]
    count: int
    ids: list[int]
    examples: list[FileAnswer]


class Groups(BaseModel):
    """Groups, largest first."""

    object: Literal["list"]
    data: list[GroupAnswer]


class MarksRequest(Strict):
    """The items whose files are marked; a mark that is null stays as it is."""

    ids: Annotated[Ids, Field(min_length=1)]
    favourite: bool | None = None
    hidden: bool | None = None


class Marked(BaseModel):
    """How many files were marked."""

    object: Literal["marks"]
    files: int


class AlbumRequest(Strict):
    """A new album: a list of `ids`, or a saved `query`, a filter `where`, or both of these."""

    name: Name
    query: Annotated[str | None, Field(min_length=1, max_length=10_000)] = None
    where: Annotated[str | None, Field(min_length=1, max_length=10_000)] = None
    ids: Ids = Field(default_factory=list)


class AlbumChange(Strict):
    """A new `name`, and the items whose files are added to the list or removed from it."""

    name: Name | None = None
    add: Ids = Field(default_factory=list)
    remove: Ids = Field(default_factory=list)


class AlbumAnswer(BaseModel):
    """An album or tag. Of a saved query or filter, `count` is null. `min_probability` is that of a tag's files."""

    object: Literal["album", "tag"]
    id: int
    name: str
    query: str | None
    where: str | None
    min_probability: float | None
    count: int | None


class Albums(BaseModel):
    """Albums or tags, by name."""

    object: Literal["list"]
    data: list[AlbumAnswer]


class Deleted(BaseModel):
    """What was deleted: an album or a tag, and no file."""

    object: Literal["deleted"]
    id: int


class TagsRequest(Strict):
    """Words to tag files with, and the least probability with which a file gets a word."""

    words: Annotated[list[Name], Field(min_length=1, max_length=100)]
    min_probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    want: Annotated[list[str] | None, Field(max_length=32)] = None


class FolderRequest(Strict):
    """A folder of the server's machine."""

    path: Annotated[str, Field(min_length=1, max_length=4096)]


class FolderAnswer(BaseModel):
    """A folder that was indexed: its numbers of files, whether it is there now, and when a run over it last ended."""

    path: str
    files: int
    skipped: int
    is_there: bool
    last_run: str


class Folders(BaseModel):
    """The folders of the library, and those in which the server adds folders."""

    object: Literal["list"]
    data: list[FolderAnswer]
    allowed: list[str]


class SkippedFile(BaseModel):
    """A file that could not be used, and why."""

    path: str
    reason: str


class SkippedPage(BaseModel):
    """Skipped files by path; `next` is the `after` of the next ones, null at the end."""

    object: Literal["list"]
    data: list[SkippedFile]
    has_more: bool
    next: int | None
    total: int


class ReportAnswer(BaseModel):
    """What a run did, as numbers of files; `first` are the first skipped ones with the reasons."""

    added: int
    updated: int
    renamed: int
    removed: int
    unchanged: int
    seconds: float
    skipped: int
    first: list[SkippedFile]


class IndexingAnswer(BaseModel):
    """What is being indexed: `path` is null for what was skipped before, `rate` is in files a second.

    `state` is idle, waiting, running, done or failed; `waiting` is the number of folders behind this one. `report` is
    that of the last run that ended.
    """

    object: Literal["indexing"]
    number: int
    state: str
    path: str | None
    done: int
    total: int
    rate: float
    left_s: float | None
    waiting: int
    report: ReportAnswer | None
    error: str | None
