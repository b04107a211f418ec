"""The service: what the API and the page do with one library and its model. It depends on neither HTTP nor the page."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeVar

import numpy as np

from bind import arithmetic
from bind.modalities import specs
from bind.model import locating, pipeline
from bind.space import NORM_TOLERANCE, Embeddings
from preprocess.decoding.protocol import Read
from preprocess.source import Limits, Segment, Source
from serve.engine import fairness, thumbnails
from serve.engine.batching import Batcher
from serve.engine.decoding import Decoder
from serve.engine.fairness import StoppedError
from serve.engine.folder_jobs import FolderJobs
from serve.engine.jobs import Busy, EncodedSegment, ItemError, LateError
from serve.engine.metrics import Metrics
from serve.engine.settings import Settings
from serve.engine.terms import Term
from serve.engine.threads import Threads, stopped_after
from serve.engine.values import About, PictureError, Point, TermError
from serve.library import projection
from serve.library.errors import WriterBusyError
from serve.library.items import Hits, Item
from serve.library.library import Library
from serve.library.query import Asked
from serve.library.search import SearchOptions
from serve.library.text import shown

_SEARCH_THREADS = 2  # searches run in numpy and FAISS, which use several cores each
_READ_THREADS = 4  # reads of the catalogue take milliseconds, and SQLite reads in several threads at once
_DRAW_THREADS = 4  # these threads wait for decode workers most of the time
_ADD_THREADS = 8  # these too
_ADDS_EACH = 2  # of one client at a time, so that others' uploads get their turn
QUICK_SEARCH_S = 0.3
"""Processor seconds after which a search starts again in the queue of slow searches, which run one after the other."""
_MAX_READS = 1024  # requests that wait for their turn; more are refused with 429 and a time to wait
_MAX_SEARCHES = 256  # the same for searches
_MAX_WRITES = 16  # the same for uploads and removals, whose bodies wait in memory or on the disk
_WRITE_RETRY_S = 2  # a client is asked to wait so long while another process writes
_LOOK_S = 0.1  # between two looks at whether anybody still waits for the answer

P = ParamSpec("P")
T = TypeVar("T")


class Service:
    """Searches, embeds and changes a library for many callers at once. `close` finishes accepted work.

    All methods that wait are `async`. Terms of a query are as in `serve.engine.terms`.
    """

    def __init__(self, library: Library, settings: Settings | None = None) -> None:
        self.library = library
        self.model = library.model
        self.settings = settings or Settings()
        self.limits = self.settings.limits
        self.library_limits = self.settings.library_limits
        self.metrics = Metrics()
        self._decoder = Decoder(pipeline.shared_pool())
        self._batcher = Batcher(
            library.model,
            self.metrics,
            max_batch=self.settings.max_batch,
            max_waiting=self.settings.max_waiting,
            max_waiting_each=self.settings.max_waiting_each,
            limits=self.limits,
            decoder=self._decoder,
        )
        share = self.settings.client_share
        self._reading = Threads("read", _READ_THREADS, _MAX_READS, share)
        self._searching = Threads("search", _SEARCH_THREADS, _MAX_SEARCHES, share)
        self._searching_long = Threads("search-long", 1, _MAX_SEARCHES, share, is_background=True)
        self._drawing = Threads("draw", _DRAW_THREADS, _MAX_SEARCHES, share)
        self._adding = Threads("add", _ADD_THREADS, _MAX_WRITES, share, each=_ADDS_EACH)
        self._removing = Threads("remove", 1, _MAX_WRITES, share)
        self.folder_jobs = FolderJobs(library, self.settings.allow_folders)
        self._points: tuple[int, list[Point]] | None = None
        self._laying_out = asyncio.Lock()
        self._closed = False
        self.metrics.watch(lambda: self._batcher.waiting, self.counts)
        with contextlib.suppress(WriterBusyError):  # another process that writes to the library is not disturbed
            library.tidy()

    @property
    def is_ready(self) -> bool:
        """Whether the service accepts work."""
        return not self._closed

    def close(self) -> None:
        """Accepts nothing more and finishes accepted work. It can be called twice. The library stays open."""
        self._closed = True
        self.folder_jobs.close()
        self._adding.close()  # closed first, because these threads still submit to the batcher
        self._batcher.close()
        for threads in (self._reading, self._searching, self._searching_long, self._drawing, self._removing):
            threads.close()

    async def embed(self, terms: Sequence[Term], *, deadline_s: float | None = None) -> list[EncodedSegment]:
        """Terms -> one unit vector for each, in their order; their weights have no effect here.

        Raises TermError for a term that cannot be used, UnknownItemError, Busy when too much work is waiting, and
        LateError after `deadline_s` seconds (None: the settings').
        """
        deadline_s = self.settings.deadline_s if deadline_s is None else deadline_s
        found: dict[int, EncodedSegment] = {}
        sources: list[tuple[Source, str | None]] = []
        places: list[int] = []
        for place, term in enumerate(terms):
            if isinstance(term.content, int):
                found[place] = await self._stored(term.content)
            elif isinstance(term.content, np.ndarray):
                found[place] = self._checked(place, term.content, term.modality)
            else:
                sources.append(_source(place, term))
                places.append(place)
        if sources:
            try:
                async with asyncio.timeout(deadline_s):
                    results = await asyncio.wrap_future(self._batcher.submit(sources, deadline_s))
            except TimeoutError:
                raise LateError from None
            except ItemError as error:
                raise TermError(places[error.index], error.error.reason) from None
            found.update(zip(places, results, strict=True))
        return [found[place] for place in range(len(terms))]

    async def compose(self, terms: Sequence[Term], *, deadline_s: float | None = None) -> Embeddings:
        """Terms -> their weighted sum, Embeddings (1, D).

        Raises as `embed`, and ValueError where the terms cancel out.
        """
        return self.combined(await self.embed(terms, deadline_s=deadline_s), terms)

    def combined(self, parts: Sequence[EncodedSegment], terms: Sequence[Term]) -> Embeddings:
        """Embedded terms, as `embed` returns them -> their weighted sum (1, D).

        Raises ValueError where they cancel out.
        """
        vectors = np.stack([part.vector for part in parts])
        return arithmetic.combine(Embeddings(vectors, self.model.space), [term.weight for term in terms])

    async def search(
        self,
        terms: Sequence[Term],
        *,
        k: int = 10,
        want: Sequence[str] | None = None,
        where: str | None = None,
        every_segment: bool = False,
        min_score: float | None = None,
        min_probability: float | None = None,
        cursor: str | None = None,
        deadline_s: float | None = None,
    ) -> Hits:
        """The k best hits for a query, best first, with the cursor of the next page; the options are as in
        `Library.search`.

        A query that consists of words also searches names, captions and metadata. Hits do not include the files of
        items that the query adds. Raises as `embed`. Raises WhereError, which points at the character, CursorError, and
        ValueError for terms that cancel out, no terms, an unknown modality in `want` and k out of 1..`max_hits`.
        """
        if not 1 <= k <= self.settings.max_hits:
            raise ValueError(f"search: expected k from 1 to {self.settings.max_hits}, got {k}")
        options = SearchOptions(k, want, where, True, every_segment, min_score, min_probability, cursor)
        return await self.answer(terms, functools.partial(self.library.answer, options), deadline_s)

    async def answer(self, terms: Sequence[Term], find: Callable[[Asked], T], deadline_s: float | None = None) -> T:
        """Runs a search of the library for embedded terms in a thread -> its result; slow ones wait for each other.

        Raises as `search`.
        """
        if not terms:
            raise ValueError("search: expected at least one term")
        deadline_s = self.settings.deadline_s if deadline_s is None else deadline_s
        try:
            async with asyncio.timeout(deadline_s):
                parts = await self.embed(terms, deadline_s=deadline_s)
                asked = Asked.of(terms, [part.modality for part in parts], self.combined(parts, terms))
                work = functools.partial(find, asked)
                with contextlib.suppress(StoppedError):
                    return await stopped_after(QUICK_SEARCH_S, self._searching.run, work, time.thread_time)
                return await stopped_after(deadline_s, self._searching_long.run, work)
        except (TimeoutError, StoppedError):
            raise LateError from None

    async def item(self, item_id: int) -> Item:
        """The item with an id. Raises UnknownItemError."""
        return await self.read(self.library.item, item_id)

    async def related(self, item_id: int) -> list[Item]:
        """All items of the same content: the stretches of a film, and its sound track. Raises UnknownItemError."""
        return await self.read(self.library.related, item_id)

    async def sample(self, limit: int) -> list[Item]:
        """At most `limit` items, spread evenly over the library."""
        return [item for item, _ in await self.read(self.library.sample, limit)]

    async def revision(self) -> int:
        """A number that grows with every change of what can be searched."""
        return await self.read(lambda: self.library.revision)

    async def original(self, item_id: int) -> Path:
        """The path of an item's file as it was indexed. Raises UnknownItemError where it is gone or has changed."""
        return await self._drawing.run(functools.partial(self.library.original, item_id))

    async def open_original(self, item_id: int) -> IO[bytes]:
        """The open file of an item, checked as by `original`: the bytes that are read are the bytes that were
        checked.
        """
        return await self._drawing.run(functools.partial(self.library.open_original, item_id))

    async def thumbnail(self, item_id: int) -> bytes:
        """A small JPEG of an item, made when first asked for. Raises UnknownItemError, PictureError."""
        item = await self.item(item_id)
        if item.modality not in thumbnails.MODALITIES:
            raise PictureError(f"{item.modality} has no picture; these have: {', '.join(thumbnails.MODALITIES)}")
        draw = functools.partial(thumbnails.make, self.library, [item], self.library_limits, self._decoder)
        made = await self._drawing.run(draw)
        if item_id not in made:
            raise PictureError("its file is gone or can no longer be read; index its folder again")
        return await self._drawing.run(functools.partial(thumbnails.read, self.library, item_id))

    async def add(self, content: IO[bytes], name: str, metadata: Mapping[str, Any]) -> list[Item]:
        """Copies a file into the library and makes it searchable -> its items.

        Raises MediaError for a file that cannot be used, and Busy for too much work, or while another process writes.
        """

        def add() -> list[Item]:
            kept: dict[str, Any] = {"positions": self.settings.positions, "words": self.settings.words}
            add_to = functools.partial(self.library.add, embed=self._embed_for_adding, **kept)
            return self.written(add_to, content, name, metadata, self.limits)

        try:
            return await stopped_after(self.settings.add_deadline_s, self._adding.run, add)
        except StoppedError:
            raise LateError from None

    async def remove(self, item_id: int) -> list[Item]:
        """Removes the content of an item (see `Library.remove`) -> its items. Raises UnknownItemError, and Busy."""
        return await self.change(self.library.remove, item_id)

    async def change(self, change: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Runs a short change of the catalogue, one after the other -> its result. Raises Busy."""
        return await self._removing.run(functools.partial(self.written, change, *arguments, **named))

    async def take_time(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Runs a call in the queue of slow searches -> its result. Raises Busy, and LateError."""
        return await self._in_time(self._searching_long, functools.partial(work, *arguments, **named))

    async def figure(self, read: Read, source: Source, config: Any = None) -> Segment:
        """A file of the library -> its one segment, read by a decode worker in this client's turn.

        Raises MediaError.
        """
        reading = self._decoder.submit(read, source, config, self.library_limits, "whole")
        return (await asyncio.wrap_future(reading))[0]

    async def read_whole(self, source: Source, modality: str | None, limits: Limits) -> locating.Picture:
        """A picture to look for places in, read as by `figure`. Raises MediaError."""
        read = functools.partial(locating.read, self.model, source, modality, limits, self._decoder.submit)
        return await self._drawing.run(read)

    async def look(self, picture: locating.Picture, vector: np.ndarray) -> locating.Located:
        """Where the picture shows what a vector (D,) stands for, computed in the queue of slow searches."""
        return await self._searching_long.run(functools.partial(locating.search, self.model, picture, vector))

    def counts(self) -> dict[str, int]:
        """Modality -> the number of its items. This reads the catalogue, so the event loop must not call it."""
        return self.library.count()

    def about(self) -> About:
        """The facts about the served model and library.

        This reads the catalogue, so the event loop must not call it.
        """
        description = self.model.description
        return About(
            description.name,
            description.about,
            description.license,
            self.model.modalities,
            tuple(name for name in specs() if name not in self.model.modalities),
            self.model.dim,
            self.model.space,
            metadata.version("crossbind"),
            len(self.library),
            self.counts(),
            self.model.description.shorter,
        )

    async def points(self, limit: int = 2000) -> list[Point]:
        """At most `limit` items as points, similar items near each other; computed once for each revision."""
        async with self._laying_out:
            revision = await self.revision()
            if self._points is None or self._points[0] != revision:
                self._points = revision, await self._drawing.run(functools.partial(_points, self.library, limit))
            return self._points[1]

    async def _stored(self, item_id: int) -> EncodedSegment:
        def stored() -> EncodedSegment:
            item = self.library.item(item_id)
            return EncodedSegment(self.library.vectors([item_id]).vectors[0], item.modality)

        return await self.read(stored)

    async def read(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Runs a call that reads the catalogue in a thread -> its result. Raises Busy, and LateError."""
        return await self._in_time(self._reading, functools.partial(work, *arguments, **named))

    async def _in_time(self, threads: Threads, work: Callable[[], T]) -> T:
        try:
            return await stopped_after(self.settings.deadline_s, threads.run, work)
        except StoppedError:
            raise LateError from None

    def _embed_for_adding(
        self, sources: Iterator[tuple[Source, str | None]]
    ) -> Iterator[pipeline.Embedded | pipeline.Failed]:
        """As `bind.model.pipeline.embed`, with the decode workers and batches that all callers share.

        Raises StoppedError.
        """
        for position, (source, modality) in enumerate(sources):
            future = self._batcher.submit_segments(source, modality, self.settings.add_deadline_s, self.limits)
            try:
                while True:
                    if fairness.is_over():
                        raise StoppedError
                    with contextlib.suppress(TimeoutError):
                        (parts,) = future.result(_LOOK_S)
                        break
            except ItemError as error:
                yield pipeline.Failed(position, error.error)
                continue
            except LateError:
                raise StoppedError from None
            finally:
                future.cancel()
            for part in parts:
                times, facts = (part.start_s, part.end_s), (part.metadata, part.at)
                last = part is parts[-1]
                yield pipeline.Embedded(position, part.modality, part.vector, *times, part.notes, last, *facts)

    def _checked(self, place: int, vector: np.ndarray, modality: str | None) -> EncodedSegment:
        vector = np.asarray(vector, np.float32)
        if vector.shape != (self.model.dim,) or not abs(float(np.linalg.norm(vector)) - 1) <= NORM_TOLERANCE:
            raise TermError(place, f"expected a vector of {self.model.dim} numbers and norm 1, got {vector.shape}")
        return EncodedSegment(vector, modality or "")

    def written(self, change: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Changes the library in this thread -> the result. Raises Busy where another process writes."""
        try:
            return change(*arguments, **named)
        except WriterBusyError:
            raise Busy(_WRITE_RETRY_S, "another process is writing to the library") from None


def _source(place: int, term: Term) -> tuple[Source, str | None]:
    """Words, bytes or a Path -> a source for the batcher. Errors name the term and never a path of this machine."""
    if isinstance(term.content, str):
        return Source(term.content, "text"), "text"
    name = term.name or (term.content.name if isinstance(term.content, Path) else f"term {place}")
    return Source(term.content, name, term.hints), term.modality


def _points(library: Library, limit: int) -> list[Point]:
    sample = library.sample(limit)
    if not sample:
        return []
    items = [item for item, _ in sample]
    places = projection.lay_out(np.stack([vector for _, vector in sample]), [item.modality for item in items])
    return [
        Point(item.item_id, float(x), float(y), item.modality, shown(Path(item.path).name))
        for item, (x, y) in zip(items, places, strict=True)
    ]
