"""The values that a library returns (items, hits, duplicates), and reading items from the catalogue."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BufferedReader
from typing import Any

import numpy as np

from bind.space import Embeddings
from preprocess.files import open_regular
from preprocess.readers.lines import Line
from preprocess.source import MediaError
from serve.library.catalogue import Catalogue
from serve.library.errors import UnknownItemError
from serve.library.records import Entry
from serve.library.uploads import Uploads
from serve.library.verified_files import VerifiedFiles
from serve.library.where import Where


@dataclass(frozen=True)
class Item:
    """A file, or a timed stretch of it, in one modality (a video's sound track is an item of its own).

    `also` are the other files with the same content. Times are None for an item without times. `metadata` is what the
    medium says of itself (see `preprocess.metadata`) and the free keys of its sidecars, `caption` among them; a
    sidecar's word counts more. `at` is the part of a picture or document (`page 3`), `notes` say what was assumed or
    repaired, `date_source` where the `date` is from (see `serve.library.dates.date_of`).
    """

    item_id: int
    path: str
    modality: str
    start_s: float | None
    end_s: float | None
    metadata: dict[str, Any]
    also: tuple[str, ...]
    at: str | None
    notes: tuple[str, ...]
    date: str
    date_source: str


@dataclass(frozen=True)
class Hit(Item):
    """An item that was found.

    `score` is calibrated (see `serve.library.calibration`), `cosine` is the cosine behind it. Within one revision of
    the library an item has the same score for a query, whatever else is asked for.

    `probability` is the probability that the item is what the query asks for, judged by vectors alone. It is None where
    the model has no calibration for this pair of modalities, and where a query mixes several. `keyword` says whether
    the query's words occur in the item's name, caption, metadata or lines. `lines` are those lines, of a picture or of
    speech, with their places; the line that has the most of the words comes first.

    `likely` says whether the item is probably what was asked for: its vector stands out, or it has all words of the
    query (`serve.library.ranking` says how hits are ordered).
    """

    score: float
    cosine: float
    keyword: bool
    probability: float | None = None
    lines: tuple[Line, ...] = ()
    likely: bool = False


class Hits(list[Hit]):
    """The hits of one page of a search, best first; likely hits come before all others.

    `next` is the cursor of the page after it, None where there is no more. `nothing` says that no hit of the whole
    search is likely: nothing in the library looks like the query.
    """

    def __init__(self, hits: Iterable[Hit] = (), next: str | None = None, nothing: bool = True) -> None:
        super().__init__(hits)
        self.next = next
        self.nothing = nothing

    @property
    def likely(self) -> int:
        """The number of likely hits of this page, which are its first ones."""
        return sum(hit.likely for hit in self)


@dataclass(frozen=True)
class Duplicates:
    """Files that are the same or nearly so: `cosine` is the least cosine that joins them, 1 for equal files."""

    paths: tuple[str, ...]
    cosine: float


def item_of(entry: Entry) -> Item:
    """A row of the catalogue -> its item."""
    number = entry.segment if entry.item < 0 else entry.item
    place = (number, entry.path, entry.modality, entry.start_s, entry.end_s, entry.metadata, entry.also)
    return Item(*place, entry.at, entry.notes, entry.date, entry.date_source)


class Items:
    """The items of a library by their ids, with their vectors and their files."""

    def __init__(self, catalogue: Catalogue, space: str, uploads: Uploads) -> None:
        self._catalogue = catalogue
        self._space = space
        self._uploads = uploads
        self._verified_files = VerifiedFiles()

    def item(self, item_id: int) -> Item:
        """The item with this id, as a hit has it. Raises UnknownItemError when there is no such item (any more)."""
        with self._catalogue.snapshot():
            segment, file = self.segment_and_file(item_id)
            return item_of(self.entries([segment], file)[segment])

    def vectors(self, item_ids: Sequence[int]) -> Embeddings:
        """Item ids -> their vectors as Embeddings, in their order. Raises UnknownItemError for an unknown id."""
        with self._catalogue.snapshot():
            segments = [self.segment_and_file(number)[0] for number in item_ids]
            ids, vectors = self._catalogue.vectors(segments)
        row = {number: position for position, number in enumerate(ids.tolist())}
        if missing := [number for number in segments if number not in row]:  # items of a model that came later
            raise UnknownItemError(f"there is no vector of item {missing[0]} in this space; open the library again")
        return Embeddings(vectors[[row[number] for number in segments]], self._space)

    def lines(self, item_id: int) -> tuple[Line, ...]:
        """All words that were read in an item's picture or heard in its sound. Raises UnknownItemError."""
        with self._catalogue.snapshot():
            segment, _ = self.segment_and_file(item_id)
            return self._catalogue.lines_of(self._catalogue.contents_of([segment])[segment])

    def related(self, item_id: int) -> list[Item]:
        """All items of the content of an item, itself included: the stretches of a film, and its sound track.

        Raises UnknownItemError when there is no such item (any more).
        """
        with self._catalogue.snapshot():
            segment, file = self.segment_and_file(item_id)
            content = self._catalogue.contents_of([segment])[segment]
            numbers = [number for number, _ in self._catalogue.segments_of([content])]
            return [item_of(entry) for _, entry in sorted(self.entries(numbers, file).items())]

    def open_original(self, item_id: int) -> BufferedReader:
        """An open file with the content of an item, exactly as it was indexed; the bytes that are read are those
        checked.

        Raises UnknownItemError when there is no such item, and when its file is gone or has changed, because the file
        that now lies at its path was never added to this library.
        """
        return self.open_with_path(item_id)[1]

    def open_with_path(self, item_id: int) -> tuple[str, BufferedReader]:
        """The path of the file that `open_original` opens, and the open file. Raises as `open_original`."""
        item = self.item(item_id)
        why = "is gone"
        for path in (item.path, *item.also):
            recorded = self._catalogue.recorded(path)
            if recorded is None:
                continue
            key, size_bytes, digest = recorded
            try:
                file = self._uploads.open(key) if not key.startswith(b"/") else os.fdopen(open_regular(path), "rb")
            except OSError as error:
                why = "is gone" if isinstance(error, FileNotFoundError) else f"cannot be opened ({error.strerror})"
                continue
            try:
                self._verified_files.check(file, path, size_bytes, digest)
            except (OSError, MediaError) as error:
                file.close()
                why = error.reason if isinstance(error, MediaError) else f"could not be read ({error.strerror})"
                continue
            return path, file
        raise UnknownItemError(f"item {item_id}: its file {why}; index its folder again")

    def segment_and_file(self, item_id: int) -> tuple[int, int | None]:
        """Item id -> its segment and, of an upload's item, the id of its file. Raises UnknownItemError."""
        segment, file = self._catalogue.upload(item_id) or (item_id, None)
        if segment not in self._catalogue.contents_of([segment]):
            raise UnknownItemError(f"there is no item {item_id} in this library (any more)")
        return segment, file

    def entries(self, segments: Sequence[int], file: int | None) -> dict[int, Entry]:
        """The entries of segments, under an upload's ids where its file is given."""
        entries = self._catalogue.entries(segments)
        return entries if file is None else self._catalogue.as_uploads(entries.values(), {file})

    def page(self, after: int, limit: int, where: Where) -> tuple[list[Item], int | None]:
        """At most `limit` items of segments above `after` that pass a filter; the last segment if there are more."""
        with self._catalogue.snapshot():
            ids = self._catalogue.ids_after(after, limit + 1, where)
            found = self._catalogue.as_uploads(self._catalogue.entries(ids[:limit], where).values())
        return [item_of(found[number]) for number in ids[:limit]], ids[limit - 1] if len(ids) > limit else None

    def sample(self, limit: int) -> list[tuple[Item, np.ndarray]]:
        """At most `limit` items, spread evenly over each modality, with their vectors (D,)."""
        with self._catalogue.snapshot():
            counts = self._catalogue.count()
            share = min(1.0, limit / max(1, sum(counts.values())))
            chosen: list[int] = []
            for modality, count in counts.items():
                places = np.linspace(0, count - 1, max(1, int(count * share))).round().astype(np.int64)
                chosen += self._catalogue.ids(modality)[np.unique(places)].tolist()
            entries = self._catalogue.entries(chosen[:limit])
            ids, vectors = self._catalogue.vectors(list(entries))
        return [(item_of(entries[number]), vector) for number, vector in zip(ids.tolist(), vectors, strict=True)]
