"""A library: a folder on disk that makes other folders searchable, by anything a model can read.

>>> library = Library.open("my-library")
>>> library.index("~/media")
>>> library.search("image:dog.jpg + audio:rain.wav - text:indoors", k=10, where="folder = 'trip'")

In its folder lie `catalogue.sqlite` (the truth, see `catalogue`), `writer.lock`, `index/REVISION/`: an index over
the vectors of that revision of the catalogue, caught up when it is behind and made anew when it is damaged; and
`files/`, what `Library.add` keeps (see `serve.library.kept`).
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from bind import arithmetic
from bind.index.index import Index
from bind.modalities import revisions
from bind.model import pipeline
from bind.model.pipeline import Embedded, Failed
from bind.options import LoadOptions
from bind.owned import NotOwnedError, OwnedFolder
from bind.query import Term, parse_query
from bind.space import Embeddings, SpaceError
from preprocess.files import open_regular
from preprocess.source import Limits, MediaError, Source
from serve.engine import terms, thumbnails
from serve.library import calibration, kept
from serve.library import where as filters
from serve.library.calibration import Scale
from serve.library.catalogue import EVERYTHING, Catalogue, Entry, LibraryError, UnknownItemError, Writer
from serve.library.indexing import Embed, Progress, Report, Run
from serve.library.kept import Kept
from serve.library.originals import Originals
from serve.library.where import Where, WhereError

if TYPE_CHECKING:
    from bind.model.model import BindModel

RANK_OFFSET = 60
"""k of reciprocal rank fusion, 1 / (k + rank) (Cormack, Clarke, Buettcher: SIGIR 2009)."""
EXACT_ITEMS = 4096
"""Up to this many items that pass a filter are scored one by one, without the index."""
SAVE_SHARE = 0.02
"""The index is written again when more than this share of it changed; until then opening catches up."""
VERIFY_BYTES = 2**28
"""Vectors of an index up to this size are compared with their checksums when a library is opened; `check`: always."""
_INDEX = "index"
_KEYWORD_SEGMENTS = 4096
_QUERIES_PER_BLOCK = 256
_NEIGHBOURS = 16
_MOST_SEGMENTS_A_HIT = 64
_FETCHED_FOR_A_FILTER = 4  # times as many as are wanted, before all that pass it are listed


class OtherModelError(SpaceError):
    """A library was opened with a model of another space than it was made with."""

    def __init__(self, expected: str, got: str, advice: str = "") -> None:
        super().__init__(expected, got)
        self.advice = advice

    def __str__(self) -> str:
        return self.advice or super().__str__()

    def __reduce__(self) -> tuple[type[OtherModelError], tuple[str, str, str]]:  # type: ignore[override]
        return type(self), (self.expected, self.got, self.advice)


@dataclass(frozen=True)
class Item:
    """A file, or a timed stretch of it, in one modality (a video's sound track is an item of its own).

    `also` are the other files with the same content. Times are None where there are none. `metadata` are the free keys
    of its sidecar `NAME.json`, `caption` among them.
    """

    item_id: int
    path: str
    modality: str
    start_s: float | None
    end_s: float | None
    metadata: dict[str, Any]
    also: tuple[str, ...]


@dataclass(frozen=True)
class Hit(Item):
    """An item that was found. `score` is calibrated (see `serve.library.calibration`), `cosine` what it was made from.

    `probability` is how likely the item is what the query asks for, by looks alone: None where the model has no
    calibration for this pair of modalities, and where a query mixes several. `keyword` says whether the query's words
    occur in its name, caption or metadata. With keywords, the order of hits is that of both rankings together, else
    that of the scores.
    """

    score: float
    cosine: float
    keyword: bool
    probability: float | None = None


@dataclass(frozen=True)
class Duplicates:
    """Files that are nearly the same, or quite (`cosine` 1 between all): the least cosine that joins them."""

    paths: tuple[str, ...]
    cosine: float


class _NotYet(BaseException):
    """What is to be embedded first was noted; `incoming` is the file that it comes from."""

    incoming: Path


class _Later:
    """Notes what is to be embedded, and hands out the results when there are any."""

    def __init__(self) -> None:
        self.wanted: list[tuple[Source, str | None]] = []
        self.results: list[list[Embedded | Failed]] = []

    def __call__(self, sources: Iterator[tuple[Source, str | None]]) -> Iterator[Embedded | Failed]:
        asked = list(sources)
        if not asked:
            return
        if not self.results:
            self.wanted = asked
            raise _NotYet
        for position, results in enumerate(self.results):
            yield from (replace(result, position=position) for result in results)


@dataclass
class _Candidate:
    segment: int
    content: int
    cosine: float
    score: float
    probability: float | None


class Library:
    """An open library. Made by `Library.open`; searching may go on in several threads, and while somebody indexes."""

    def __init__(self, catalogue: Catalogue, model: BindModel, factory: str | None, device: str) -> None:
        self._catalogue = catalogue
        self._factory = factory
        self._index = Index(model.space, model.dim, factory or "Flat", device)
        self._revision = -1
        self._pending = 0
        self._stored = -1
        self._samples: dict[str, tuple[int, np.ndarray]] = {}
        self._segments_a_hit: dict[str, int] = {}
        # Held by whoever brings the index up to date or writes it. Searching takes the index as it is then.
        self._lock = threading.RLock()
        self._kept = Kept(catalogue.folder)
        self._originals = Originals()
        self._stored_indexes = OwnedFolder(catalogue.folder, _INDEX)
        self._changing = threading.Lock()
        self.model = model
        self.folder = catalogue.folder

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        model: BindModel | LoadOptions | str | os.PathLike[str] | None = None,
        factory: str | None = None,
        device: str = "cpu",
        modalities: Collection[str] | None = None,
    ) -> Library:
        """The library in a folder, made when there is none, and when all that is asked for can be had.

        `model` is one that was loaded, or what `bind.load` takes; left out (also of `LoadOptions`), it is the one the
        library was made with (`small` for a new one). `device` is where the index is searched, and a model that is
        loaded here runs; `modalities` loads only some of it. `factory` says how to search (see `bind.Index`): left out,
        as the stored index does (`Flat` for a new one); the index is made anew when another factory is asked for.
        Raises OtherModelError for a model of another space, LibraryError for a folder that cannot be used, and what
        `bind.load` and `bind.Index` raise.
        """
        folder = Path(folder).expanduser().absolute()
        facts = Catalogue.peek(folder)
        if model is None or isinstance(model, (str, os.PathLike)):
            model = LoadOptions(model, device=device, modalities=modalities)
        if isinstance(model, LoadOptions):
            model.check()
            device = model.index_device
            model = model.load(str(facts.get("model", "small")))
        if facts:
            _check_space(folder, facts, model.origin, model)
        Index(model.space, model.dim, factory or "Flat", device)  # what it refuses leaves no half-made library
        catalogue = Catalogue(folder, model.space, model.dim, model.origin, revisions(model.modalities))
        _check_space(folder, catalogue.facts, model.origin, model)
        library = cls(catalogue, model, factory, device)
        with library._lock, catalogue.snapshot():
            library._load_index()
            library._refresh()
        return library

    def close(self) -> None:
        """Ends the connection to the catalogue. Nothing has to be saved."""
        self._catalogue.close()

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """How many files can be found."""
        return self._catalogue.count_files()

    def count(self) -> dict[str, int]:
        """Modality -> number of its items."""
        return self._catalogue.count()

    def index(
        self,
        folder: str | os.PathLike[str],
        *,
        progress: Progress | None = None,
        batch_size: int = 64,
        limits: Limits | None = None,
        retry: bool = False,
        follow_links: bool = False,
    ) -> Report:
        """Brings the library up to date with a folder (or a file): idempotent, and resumable after any interruption.

        Files whose size, time and sidecar are as they were are not opened. Hidden files are left out, and so are links
        that lead out of the folder, unless `follow_links`; the report has their number.
        A file that failed before is tried again when it changed, or with `retry`. `progress` is called with the number
        of files done and of all. Raises LibraryError when there is no such folder, another process is writing, or the
        disk is full; what was stored before stays.
        """
        root = os.path.abspath(os.path.expanduser(os.fspath(folder)))
        if not os.path.exists(root):
            raise LibraryError(f"{root}: there is no such folder or file")
        if Path(os.path.realpath(root)).is_relative_to(os.path.realpath(self.folder)):
            raise LibraryError(f"{root} belongs to the library itself; index the folder with your files")
        with self._catalogue.write() as writer:
            run = Run(
                writer,
                self.model,
                root,
                self.folder,
                limits=limits or Limits(),
                batch_size=batch_size,
                retry=retry,
                progress=progress,
                follow_links=follow_links,
            )
            report = run.run()
            self._follow(writer)
            with contextlib.suppress(OSError):
                thumbnails.sweep(self.folder, self._catalogue.existing)
        return report

    def search(
        self,
        query: str | Sequence[Term | terms.Term] | Embeddings,
        k: int = 10,
        want: Sequence[str] | None = None,
        where: str | None = None,
        *,
        keywords: bool | None = None,
        calibrate: bool = True,
        every_segment: bool = False,
        min_probability: float | None = None,
    ) -> list[Hit]:
        """The k best hits for a query, best first.

        `query` is what `bind.query.parse_query` reads (a term without a modality is a file where one exists, else
        text), terms (of `bind.query` or `serve.Term`, in any mixture), or one embedding. `want` are the modalities
        to find, `where` a filter as in `library.where`. `keywords` fuses in a search over file names, captions and
        metadata for the words of the query's texts; it is on where a query consists of texts. Without `calibrate`,
        mixed results are ranked by their bare cosines. A file is found once, with its best stretch; with
        `every_segment` each stretch counts by itself. `min_probability` leaves out what is less likely, so that no hit
        at all means that nothing here looks like that; hits without a probability are left out too.

        Raises QueryError and WhereError, which point at the character, MediaError for a file of the query that cannot
        be used, ValueError for terms that cancel out, an unknown modality in `want`, k < 1, and a `min_probability` out
        of 0..1 or that the model has no calibration for.
        """
        embedding, words, modality = self._embed_query(query, keywords)
        return self.find(
            embedding,
            k,
            want,
            where,
            words=words,
            calibrate=calibrate,
            every_segment=every_segment,
            modality=modality,
            min_probability=min_probability,
        )

    def find(
        self,
        query: Embeddings,
        k: int = 10,
        want: Sequence[str] | None = None,
        where: str | None = None,
        *,
        words: str = "",
        calibrate: bool = True,
        every_segment: bool = False,
        modality: str | None = None,
        min_probability: float | None = None,
    ) -> list[Hit]:
        """As `search`, for one embedding, with the `words` to look for in names, captions and metadata.

        `modality` is what was embedded, None for a mixture: probabilities are known of one modality only.
        """
        if k < 1:
            raise ValueError(f"search: expected k >= 1, got {k}")
        if min_probability is not None and not 0 <= min_probability <= 1:
            raise ValueError(f"search: expected min_probability from 0 to 1, got {min_probability}")
        if query.space != self.model.space:
            raise SpaceError(self.model.space, query.space)
        if len(query) != 1:
            raise ValueError(f"search: expected one embedding, got {len(query)}")
        filtered = self._parse_where(where)
        index = self._searchable()
        with self._catalogue.snapshot():
            modalities = _wanted(index, want)
            samples = {name: self._sample(index, name) for name in modalities}
            counts = {name: index.count(name) for name in modalities}
            scales = calibration.scales(query.vectors[0], samples, calibration.Worth.of(self.model, modality, counts))
            if min_probability is not None and scales and not any(scale.calibrated for scale in scales.values()):
                raise ValueError(
                    f"search: model {self.model.description.name!r} has no probabilities for "
                    f"{modality or 'a mixture'} -> {', '.join(scales)}; leave out min_probability"
                )
            found: list[_Candidate] = []
            # What is further down in both rankings than this cannot come before the k best of one of them.
            depth = RANK_OFFSET + 2 * k if words else k
            passing: dict[str, np.ndarray] | None = None
            for name in modalities:
                nearest = None
                if filtered is EVERYTHING:
                    nearest = self._nearest(index, query, name, depth, None, every_segment)
                elif passing is None:
                    nearest = self._nearest_mostly(index, query, name, depth, filtered, every_segment)
                if nearest is None:
                    passing = passing if passing is not None else self._catalogue.passing(filtered)
                    allowed = passing.get(name, np.empty(0, np.int64))
                    nearest = self._nearest(index, query, name, depth, allowed, every_segment)
                found += _candidates(*nearest, scales[name])
            matched: dict[int, int] = {}
            shown: set[int] = set()
            if words:
                by_words = self._catalogue.keyword_contents(words, modalities, filtered, depth)
                matched = {content: rank for rank, content in enumerate(by_words, 1)}
                shown = set(by_words.values())
                known = {candidate.content for candidate in found}
                # One that only this ranking has reaches the k best only from a place among its first k.
                missing = [content for content in list(by_words)[:k] if content not in known]
                found += self._score(missing, query, scales, filtered)
            if min_probability is not None:
                found = [one for one in found if one.probability is not None and one.probability >= min_probability]
            ranked = _rank(found, matched, calibrate, every_segment)[:k]
            entries = self._catalogue.entries([candidate.segment for candidate in ranked], filtered)
            entries = self._catalogue.as_uploads(entries.values(), shown)
        return [
            Hit(
                **_item(entries[candidate.segment]).__dict__,
                score=candidate.score,
                cosine=candidate.cosine,
                keyword=candidate.content in matched,
                probability=candidate.probability,
            )
            for candidate in ranked
            if candidate.segment in entries
        ]

    def similar(
        self, item_id: int, k: int = 10, want: Sequence[str] | None = None, where: str | None = None
    ) -> list[Hit]:
        """The k best hits for an item of the library, its own file left out. Raises UnknownItemError."""
        own = self.item(item_id)
        hits = self.find(self.vectors([item_id]), k + 1, want, where, modality=own.modality)
        return [hit for hit in hits if hit.path != own.path and hit.path not in own.also][:k]

    def item(self, item_id: int) -> Item:
        """The item with an id that a hit told. Raises UnknownItemError when there is none (any more)."""
        with self._catalogue.snapshot():
            segment, file = self._named(item_id)
            return _item(self._entries([segment], file)[segment])

    def vectors(self, item_ids: Sequence[int]) -> Embeddings:
        """Item ids -> their vectors as Embeddings, in their order. Raises UnknownItemError for an unknown id."""
        with self._catalogue.snapshot():
            segments = [self._named(number)[0] for number in item_ids]
            ids, vectors = self._catalogue.vectors(segments)
        row = {number: position for position, number in enumerate(ids.tolist())}
        return Embeddings(vectors[[row[number] for number in segments]], self.model.space)

    def related(self, item_id: int) -> list[Item]:
        """All items of the content that an item is of, itself too: the stretches of a film, and its sound track.

        Raises UnknownItemError when there is no such item (any more).
        """
        with self._catalogue.snapshot():
            segment, file = self._named(item_id)
            content = self._catalogue.contents_of([segment])[segment]
            numbers = [number for number, _ in self._catalogue.segments_of([content])]
            return [_item(entry) for _, entry in sorted(self._entries(numbers, file).items())]

    def original(self, item_id: int) -> Path:
        """The path of a file with the content of an item, as it was indexed. Raises as `open_original`."""
        path, file = self._original(item_id)
        file.close()
        return Path(path)

    def open_original(self, item_id: int) -> BufferedReader:
        """A file with the content of an item, exactly as it was indexed, open. What is read is what was checked.

        Raises UnknownItemError when there is no such item, and when its file is gone or another one by now: what lies
        at its path then was never put into this library.
        """
        return self._original(item_id)[1]

    def _original(self, item_id: int) -> tuple[str, BufferedReader]:
        item = self.item(item_id)
        why = "is gone"
        for path in (item.path, *item.also):
            recorded = self._catalogue.recorded(path)
            if recorded is None:
                continue
            key, size_bytes, digest = recorded
            try:
                file = self._kept.open(key) if not key.startswith(b"/") else os.fdopen(open_regular(path), "rb")
            except OSError as error:
                why = "is gone" if isinstance(error, FileNotFoundError) else f"cannot be opened ({error.strerror})"
                continue
            try:
                self._originals.check(file, path, size_bytes, digest)
            except (OSError, MediaError) as error:
                file.close()
                why = error.reason if isinstance(error, MediaError) else f"could not be read ({error.strerror})"
                continue
            return path, file
        raise UnknownItemError(f"item {item_id}: its file {why}; index its folder again")

    def _named(self, item_id: int) -> tuple[int, int | None]:
        """Item id -> its segment and, of an upload's item, the id of its file. Raises UnknownItemError."""
        segment, file = self._catalogue.upload(item_id) or (item_id, None)
        if segment not in self._catalogue.contents_of([segment]):
            raise UnknownItemError(f"there is no item {item_id} in this library (any more)")
        return segment, file

    def _entries(self, segments: Sequence[int], file: int | None) -> dict[int, Entry]:
        """The entries of segments, as an upload names them where one is given."""
        entries = self._catalogue.entries(segments)
        return entries if file is None else self._catalogue.as_uploads(entries.values(), {file})

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
        return [(_item(entries[number]), vector) for number, vector in zip(ids.tolist(), vectors, strict=True)]

    @property
    def revision(self) -> int:
        """A number that grows with every change of what can be searched."""
        return self._catalogue.revision

    def add(
        self,
        content: IO[bytes],
        name: str,
        metadata: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        *,
        embed: Embed | None = None,
    ) -> list[Item]:
        """Keeps a file in the library's own folder and makes it searchable -> its items. Again changes nothing.

        `name` is what the file is called; a path in it is dropped. `metadata` is what its sidecar would say. Either
        all of it is there afterwards or, also after a power cut, nothing. Raises MediaError for a file that cannot be
        used, WriterBusyError when somebody else is writing, LibraryError when the disk is full.

        `embed` does what `pipeline.embed` does by itself, for whom reading and encoding are somebody else's to
        schedule: meanwhile others may write. `content` is read twice then, so it must be seekable.
        """
        limits = limits or Limits()
        if embed is None:
            return self._add(content, name, metadata, limits, None)
        later = _Later()
        try:
            return self._add(content, name, metadata, limits, later)
        except _NotYet as noted:
            try:
                later.results = [list(embed(iter([wanted]))) for wanted in later.wanted]
            except BaseException:
                self._kept.discard(noted.incoming)
                raise
        content.seek(0)
        return self._add(content, name, metadata, limits, later)

    def _add(
        self,
        content: IO[bytes],
        name: str,
        metadata: Mapping[str, Any] | None,
        limits: Limits,
        embed: Embed | None,
    ) -> list[Item]:
        with self._changing, self._catalogue.write() as writer:
            self._be_current()
            try:
                incoming = self._kept.put(content, name, metadata or {}, limits)
            except OSError as error:
                raise LibraryError(f"{self.folder}: {name} could not be kept: {error.strerror}") from None
            path = str(incoming)
            before = writer.file(path)
            run = Run(
                writer,
                self.model,
                path,
                self.folder,
                limits=limits,
                batch_size=64,
                retry=True,
                progress=None,
                embed=embed,
            )
            try:
                run.run()
                row = writer.file(path)
                assert row is not None
                if row.content is None:
                    raise MediaError(os.path.basename(path), row.reason or "could not be used")
            except _NotYet as noted:
                noted.incoming = incoming
                raise
            except BaseException:
                if before is None:
                    with writer.transaction():
                        writer.remove_files([number for number, _, _ in writer.files_below(path)])
                        writer.drop_orphans()
                self._kept.discard(incoming)
                raise
            try:
                self._kept.finish(incoming)
            except OSError as error:  # it can be read where it is, and is finished by the next `tidy`
                raise LibraryError(f"{self.folder}: {name} could not be kept: {error.strerror}") from None
            self._follow(writer, save=False)
            numbers = [number for number, _ in self._catalogue.segments_of([row.content])]
            entries = self._entries(numbers, row.id)
        return [_item(entry) for _, entry in sorted(entries.items())]

    def remove(self, item_id: int) -> list[Item]:
        """Forgets the file that an item is of, with all its items -> those items.

        An upload is deleted. Of a file in a folder, it and those with the same content are forgotten and not deleted:
        indexing such a folder brings them back. Neither touches the other. Raises UnknownItemError when there is no
        such item, WriterBusyError when somebody else is writing.
        """
        with self._changing, self._catalogue.write() as writer:
            self._be_current()
            items = self.related(item_id)
            _, file = self._named(item_id)
            paths = [items[0].path] if file is not None else self._of_folders(items[0])
            if not paths:
                raise UnknownItemError(f"there is no item {item_id} in this library (any more); search for it again")
            with writer.transaction():
                rows = [row for path in paths if (row := writer.file(path)) is not None]
                writer.remove_files([row.id for row in rows])
                for row in rows:
                    writer.drop_orphans(row.content)
            for path in paths:
                self._kept.drop(Path(path))
            thumbnails.forget(self.folder, [item.item_id for item in items])
            self._follow(writer, save=False)
        return items

    def _of_folders(self, item: Item) -> list[str]:
        """The files of an item that the library does not keep itself."""
        return [path for path in (item.path, *item.also) if kept.key_of(path, self.folder).startswith(b"/")]

    def tidy(self) -> None:
        """Finishes or deletes what interrupted calls of `add` left, and writes the index where it is due.

        Raises WriterBusyError.
        """
        with self._catalogue.write() as writer, contextlib.suppress(OSError):
            self._kept.sweep(lambda path: writer.file(str(path)) is not None)
            thumbnails.sweep(self.folder, self._catalogue.existing)
            self._follow(writer)

    def save_index(self) -> None:
        """Writes the index where none is stored, or too much has changed since. Raises WriterBusyError."""
        with self._catalogue.write() as writer:
            self._follow(writer)

    def read_again(self, path: str, folder: str) -> str | None:
        """Brings a file of the folder called `folder` up to date -> why it is skipped, None where it is not.

        Raises as `index` does.
        """
        skipped = dict(self.index(path).skipped)
        with self._catalogue.write() as writer, writer.transaction():
            writer.set_folder(path, folder)
        return skipped.get(path)

    def _be_current(self) -> None:
        """Brings the index up to date before a change, of whoever may write."""
        with self._lock, self._catalogue.snapshot():
            self._refresh()

    def _follow(self, writer: Writer, save: bool = True) -> None:
        """Brings the index up to date after a change, and writes it where it is due.

        One upload does not write it (`save` False): opening reads what came since, and `tidy` writes it.
        """
        with self._lock:
            with self._catalogue.snapshot():
                self._refresh(own=not save)
            if save:
                self._save_index(writer)

    def duplicates(self, threshold: float = 0.98) -> list[Duplicates]:
        """Groups of files that are the same or nearly so, largest first.

        Two files of a modality are when every stretch of one of them has one in the other at a cosine of `threshold`
        or more: so a clip is a near-duplicate of the film it was cut from. Sound tracks do not count, and only the 16
        nearest neighbours of a stretch are looked at.
        """
        index = self._searchable()
        with self._catalogue.snapshot():
            groups = _Groups()
            for modality in index.modalities:
                content_of = self._catalogue.own_segments(modality)
                matched = self._matched(index, modality, content_of, threshold)
                sizes = Counter(content_of.values())
                for (own, other), best in matched.items():
                    if len(best) == sizes[own]:
                        groups.join(own, other, min(best.values()))
            return self._groups_by_path(groups)

    def _matched(
        self, index: Index, modality: str, content_of: Mapping[int, int], threshold: float
    ) -> dict[tuple[int, int], dict[int, float]]:
        """(content, another one) -> the segments of the first that have a match in the second, with its cosine."""
        matched: dict[tuple[int, int], dict[int, float]] = {}
        segments = list(content_of)
        for start in range(0, len(segments), _QUERIES_PER_BLOCK):
            ids, vectors = self._catalogue.vectors(segments[start : start + _QUERIES_PER_BLOCK])
            scores, neighbours = index.search(Embeddings(vectors, self.model.space), _NEIGHBOURS, modality)
            for row, column in np.argwhere((scores >= threshold) & (neighbours >= 0)).tolist():
                segment = int(ids[row])
                own, other = content_of[segment], content_of.get(int(neighbours[row, column]))
                if other is not None and other != own:
                    best = matched.setdefault((own, other), {})
                    best[segment] = max(best.get(segment, -1.0), float(scores[row, column]))
        return matched

    def _groups_by_path(self, groups: _Groups) -> list[Duplicates]:
        found = []
        alone = {content: [content] for content in self._catalogue.shared_contents() if content not in groups.parent}
        for root, members in (groups.members() | alone).items():
            paths = sorted(path for content in members for path in self._catalogue.paths_of(content))
            if len(paths) > 1:
                found.append(Duplicates(tuple(paths), groups.cosine.get(root, 1.0)))
        return sorted(found, key=lambda group: (-len(group.paths), group.paths))

    def _embed_query(
        self, query: str | Sequence[Term | terms.Term] | Embeddings, keywords: bool | None
    ) -> tuple[Embeddings, str, str | None]:
        """The query as one row, the text to look for as keywords ('' for none), and its modality (None for several)."""
        if isinstance(query, Embeddings):
            return query, "", None
        given = parse_query(query) if isinstance(query, str) else list(query)
        if not given:
            raise ValueError("search: expected at least one term")
        resolved = [_resolved(term) if isinstance(term, Term) else term for term in given]
        rows = {
            place: self._ready_vector(term.content)
            for place, term in enumerate(resolved)
            if isinstance(term, terms.Term) and isinstance(term.content, (int, np.ndarray))
        }
        sources = [_as_source(term) for place, term in enumerate(resolved) if place not in rows]
        embedded = {}
        kinds = {
            self.item(term.content).modality if isinstance(term.content, int) else None
            for place, term in enumerate(resolved)
            if place in rows and isinstance(term, terms.Term)
        }
        for result in pipeline.embed(self.model, sources):
            if isinstance(result, pipeline.Failed):
                raise result.error
            embedded[result.position] = result.vector
            kinds.add(result.modality)
        waiting = iter(embedded[place] for place in range(len(sources)))
        vectors = np.stack([rows[place] if place in rows else next(waiting) for place in range(len(resolved))])
        embedding = arithmetic.combine(Embeddings(vectors, self.model.space), [term.weight for term in resolved])
        said = [(words, term.weight) for term in resolved if (words := _words(term)) is not None]
        if keywords is None:
            keywords = len(said) == len(resolved)
        wanted = " ".join(words for words, weight in said if weight > 0) if keywords else ""
        return embedding, wanted, kinds.pop() if len(kinds) == 1 else None

    def _ready_vector(self, content: int | np.ndarray) -> np.ndarray:
        if isinstance(content, int):
            row = self.vectors([content])
        else:
            row = Embeddings(np.asarray(content, np.float32)[None], self.model.space)
        vector: np.ndarray = row.vectors[0]
        return vector

    def _parse_where(self, where: str | None) -> Where:
        if where is None or not where.strip():
            return EVERYTHING
        parsed = filters.parse(where)
        if self._catalogue.count_files():
            for key, position in parsed.keys.items():
                if not self._catalogue.has_metadata(filters.json_path(key)):
                    known = ", ".join(filters.COLUMNS)
                    reason = f"no file has metadata {key!r}, and it is no column (columns: {known})"
                    raise WhereError(reason, where, position)
        return parsed

    def _nearest(
        self,
        index: Index,
        embedding: Embeddings,
        modality: str,
        depth: int,
        allowed: np.ndarray | None,
        every_segment: bool,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(n,) segment ids, cosines and contents, best first; n is `depth` where there are as many.

        `allowed` are the ids that pass the filter, None where there is none.
        """
        total = index.count(modality)
        if allowed is not None and len(allowed) <= EXACT_ITEMS:
            ids, vectors = self._catalogue.vectors(allowed.tolist())
            cosines = vectors @ embedding.vectors[0]
            order = np.lexsort((ids, -cosines))
            return self._first_of_each(ids[order], cosines[order], depth, every_segment)
        share = 1.0 if allowed is None else len(allowed) / total
        # A file may have many segments among the best; how many there are, the last search tells.
        factor = self._segments_a_hit.get(modality, 1)
        while True:
            fetch = min(int(factor * depth / share) + 1, total)
            scores, found = index.search(embedding, fetch, modality)
            kept = found[0] >= 0
            if allowed is not None:
                kept &= np.isin(found[0], allowed, assume_unique=True)
            best = self._first_of_each(found[0][kept], scores[0][kept], depth, every_segment)
            if len(best[0]) >= depth or fetch == total:
                return best
            factor *= 4
            if allowed is None and not every_segment:
                self._segments_a_hit[modality] = min(factor, _MOST_SEGMENTS_A_HIT)

    def _nearest_mostly(
        self, index: Index, embedding: Embeddings, modality: str, depth: int, where: Where, every_segment: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """As `_nearest`, of what passes a filter that most items pass: without a list of all of those.

        None where too few of the best pass, so that the list is needed.
        """
        total = index.count(modality)
        fetch = min(_FETCHED_FOR_A_FILTER * depth, total)
        scores, found = index.search(embedding, fetch, modality)
        kept = np.isin(found[0], self._catalogue.passing_of(found[0][found[0] >= 0].tolist(), where))
        best = self._first_of_each(found[0][kept], scores[0][kept], depth, every_segment)
        return best if len(best[0]) >= depth or fetch == total else None

    def _first_of_each(
        self, ids: np.ndarray, cosines: np.ndarray, depth: int, every_segment: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of ranked segments, the first `depth`, of each content only the best unless `every_segment`."""
        known = self._catalogue.contents_of(ids.tolist())
        contents = np.array([known.get(number, -1) for number in ids.tolist()], np.int64)
        kept = np.flatnonzero(contents >= 0)
        if not every_segment:
            kept = kept[np.sort(np.unique(contents[kept], return_index=True)[1])]
        kept = kept[:depth]
        return ids[kept], cosines[kept], contents[kept]

    def _score(
        self, contents: Sequence[int], embedding: Embeddings, scales: Mapping[str, Scale], where: Where
    ) -> list[_Candidate]:
        """The best segment of each content, for contents that the vector search did not bring."""
        segments = [number for number, modality in self._catalogue.segments_of(contents) if modality in scales]
        del segments[_KEYWORD_SEGMENTS:]
        entries = self._catalogue.entries(segments, where)
        ids, vectors = self._catalogue.vectors(list(entries))
        best: dict[int, _Candidate] = {}
        for number, cosine in zip(ids.tolist(), (vectors @ embedding.vectors[0]).tolist(), strict=True):
            entry = entries[number]
            score = float(scales[entry.modality].score(np.array(cosine)))
            if entry.content not in best or score > best[entry.content].score:
                (likely,) = scales[entry.modality].probability(np.array([cosine]))
                best[entry.content] = _Candidate(number, entry.content, cosine, score, likely)
        return list(best.values())

    def _sample(self, index: Index, modality: str) -> np.ndarray:
        """(n, D) vectors spread evenly over a modality's items; taken again when their number has changed much."""
        total = index.count(modality)
        known = self._samples.get(modality)
        if known is None or not 0.8 * known[0] <= total <= 1.25 * known[0] or total != known[0] < calibration.SAMPLE:
            ids = self._catalogue.ids(modality)
            chosen = ids[np.unique(np.linspace(0, len(ids) - 1, calibration.SAMPLE).round().astype(np.int64))]
            known = self._samples[modality] = (total, self._catalogue.vectors(chosen.tolist())[1])
        return known[1]

    def _load_index(self) -> None:
        """Takes the newest stored index that is whole and fits; without one, an empty one that `_refresh` fills."""
        newest = self._catalogue.revision
        for revision in sorted(self._stored_revisions(), reverse=True):
            if revision > newest:
                continue  # the catalogue was restored from a backup
            try:
                # A small one is compared with its checksums; reading a large one takes longer than people wait.
                small = sum(self._catalogue.count().values()) * self._index.dim * 4 <= VERIFY_BYTES
                loaded = Index.load(self._stored_indexes.folder(str(revision)), self._index.device, verify=small)
            except (OSError, ValueError, LookupError, RuntimeError):
                continue  # derived data: it is made anew from the catalogue
            same_space = (loaded.space, loaded.dim) == (self._index.space, self._index.dim)
            if same_space and self._factory in (None, loaded.factory):
                self._index, self._revision, self._stored, self._pending = loaded, revision, revision, 0
                return

    def _searchable(self) -> Index:
        """An index that does not change any more: of this revision or, while somebody makes that, of the one before."""
        if self._catalogue.revision != self._revision and self._lock.acquire(blocking=False):
            try:
                with self._catalogue.snapshot():
                    self._refresh()
            finally:
                self._lock.release()
        return self._index

    def _refresh(self, own: bool = False) -> None:
        """Brings the index to the revision of the catalogue, which another process may have changed.

        By whoever holds the lock, and has taken a snapshot after it. After an `own` change to a revision that it had,
        nothing can have been missed: all need not be counted.
        """
        revision = self._catalogue.revision
        if revision == self._revision:
            return
        index = self._index.fork()
        try:
            pending = self._pending + self._catch_up(index, self._revision)
            agrees = own or self._agrees(index)
        except ValueError as error:
            if isinstance(error, LibraryError):
                raise
            agrees = False
        if not agrees:
            # Changes were missed, or the stored index belongs to another history of this catalogue.
            index = Index(self._index.space, self._index.dim, self._index.factory, self._index.device)
            self._stored = -1
            pending = self._pending + self._catch_up(index, -1)
        self._index, self._revision, self._pending = index, revision, pending

    def _agrees(self, index: Index) -> bool:
        return self._catalogue.count() == {name: index.count(name) for name in index.modalities}

    def _catch_up(self, index: Index, revision: int) -> int:
        """Follows all changes after a revision -> how many there were."""
        changes = index.remove(self._catalogue.removed_since(revision))
        for modality, ids, vectors in self._catalogue.added_since(revision):
            index.add(ids, Embeddings(vectors, self.model.space), modality)
            changes += len(ids)
        return changes

    def _save_index(self, writer: Writer) -> None:
        if self._stored >= 0 and self._pending <= SAVE_SHARE * len(self._index):
            return
        name = str(self._revision)
        place = self._stored_indexes.folder(name)
        try:
            self._stored_indexes.make().delete(name)
            self._index.save(place)
            # Memory-mapped, it takes the place of the vectors that this run brought.
            self._index = Index.load(place, self._index.device)
        except OSError as error:
            raise LibraryError(
                f"{place.path}: the index could not be written: {error.strerror}. All files are in the library and "
                "can be searched, opening it only takes longer; free some space and index again"
            ) from error
        self._stored, self._pending = self._revision, 0
        for revision in self._stored_revisions():
            if revision != self._revision:
                self._stored_indexes.delete(str(revision))
        with writer.transaction():
            writer.forget_removed(self._revision)

    def _stored_revisions(self) -> list[int]:
        with contextlib.suppress(NotOwnedError):
            return [int(name) for name in self._stored_indexes.names() if name.isdecimal() and name.isascii()]
        return []


class _Groups:
    """Contents that belong together (union-find), with the least cosine that joined each group."""

    def __init__(self) -> None:
        self.parent: dict[int, int] = {}
        self.cosine: dict[int, float] = {}

    def find(self, content: int) -> int:
        while (above := self.parent.setdefault(content, content)) != content:
            self.parent[content] = content = self.parent[above]
        return content

    def join(self, one: int, other: int, cosine: float) -> None:
        first, second = sorted((self.find(one), self.find(other)))
        self.parent[second] = first
        joined = (self.cosine.get(root, 1.0) for root in (first, second))
        self.cosine[first] = min(cosine, *joined)

    def members(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for content in list(self.parent):
            found.setdefault(self.find(content), []).append(content)
        return found


def _check_space(folder: Path, facts: Mapping[str, Any], name: str, model: BindModel) -> None:
    if facts["space"] != model.space:
        made, now = json.loads(facts.get("revisions", "{}")), revisions(model.modalities)
        anew = [name for name in now if now[name] != made.get(name, 1)]
        if facts["model"] == model.origin and anew:
            told = ", ".join(f"{name}: revision {made.get(name, 1)}, now {now[name]}" for name in anew)
            raise OtherModelError(
                facts["space"],
                model.space,
                f"{folder}: this library was made with another revision of the preprocessing ({told}), so that its "
                "vectors and new ones cannot be compared; index your folders into a new library, or go on with the "
                "version of Crossbind that made it",
            )
        raise OtherModelError(
            facts["space"],
            model.space,
            f"{folder}: this library was made with model {facts['model']!r} (space {facts['space']!r}), not with "
            f"{name!r} (space {model.space!r}), and their vectors cannot be compared; open it with "
            f"model={facts['model']!r}, or index into a new library",
        )


def _wanted(index: Index, want: Sequence[str] | None) -> list[str]:
    if want is None:
        return list(index.modalities)
    if isinstance(want, str):
        raise ValueError(f"search: expected a list of modalities, got the text {want!r}; use [{want!r}]")
    from bind.modalities import specs

    if unknown := [name for name in want if name not in specs()]:
        raise ValueError(f"search: no modality {unknown[0]!r}; known: {', '.join(specs())}")
    return [name for name in index.modalities if name in want]


def modalities_of(query: str) -> set[str] | None:
    """What a model must have to embed a query; None where the content of a file tells. Raises QueryError."""
    told = [_resolved(term).modality for term in parse_query(query)]
    return None if None in told else {modality for modality in told if modality}


def _resolved(term: Term) -> Term:
    """A term without a modality: a file where there is one, else text."""
    if term.modality is not None:
        return term
    path = os.path.expanduser(term.value)
    try:
        exists = os.path.isfile(path)
    except ValueError:  # a NUL character
        exists = False
    return Term(None, path, term.weight) if exists else Term("text", term.value, term.weight)


def _as_source(term: Term | terms.Term) -> tuple[Source, str | None]:
    if isinstance(term, terms.Term):
        name = term.name or (str(term.content) if isinstance(term.content, Path) else "a term of the query")
        return Source(term.content, name, term.hints), "text" if term.is_words else term.modality
    if term.modality == "text":
        return Source(term.value, "text"), "text"
    return Source.from_path(os.path.expanduser(term.value)), term.modality


def _words(term: Term | terms.Term) -> str | None:
    if isinstance(term, terms.Term):
        return term.content if isinstance(term.content, str) else None
    return term.value if term.modality == "text" else None


def _item(entry: Entry) -> Item:
    number = entry.segment if entry.item < 0 else entry.item
    return Item(number, entry.path, entry.modality, entry.start_s, entry.end_s, entry.metadata, entry.also)


def _candidates(ids: np.ndarray, cosines: np.ndarray, contents: np.ndarray, scale: Scale) -> list[_Candidate]:
    scores, likely = scale.score(cosines).tolist(), scale.probability(cosines)
    columns = (ids.tolist(), contents.tolist(), cosines.tolist(), scores, likely)
    return [_Candidate(*row) for row in zip(*columns, strict=True)]


def _rank(
    found: list[_Candidate], matched: Mapping[int, int], calibrate: bool, every_segment: bool
) -> list[_Candidate]:
    """All candidates, best first; of each content only the best unless `every_segment`. `matched`: content -> rank."""
    ordered = sorted(found, key=lambda c: (-(c.score if calibrate else c.cosine), c.segment))
    first: dict[int, _Candidate] = {}
    for candidate in ordered:
        first.setdefault(candidate.content, candidate)
    if not every_segment:
        ordered = list(first.values())
    if not matched:
        return ordered
    fused = {}
    for rank, candidate in enumerate(ordered, 1):
        fused[candidate.segment] = 1 / (RANK_OFFSET + rank)
        if candidate.content in matched and first[candidate.content] is candidate:
            fused[candidate.segment] += 1 / (RANK_OFFSET + matched[candidate.content])
    return sorted(ordered, key=lambda c: -fused[c.segment])
