"""What the API and the page do, over one library and its model. Knows no HTTP and no page."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeVar

import numpy as np

from bind import arithmetic
from bind.modalities import specs
from bind.space import NORM_TOLERANCE, Embeddings
from preprocess.media import Source
from serve import plane, thumbnails
from serve.batching import Batcher, Busy, Embedded, ItemError, LateError
from serve.catalogue import UnknownItemError, WriterBusyError, shown
from serve.library import Hit, Item, Library
from serve.metrics import Metrics
from serve.settings import Settings
from serve.terms import Term

__all__ = [
    "About",
    "Busy",
    "Embedded",
    "LateError",
    "PictureError",
    "Point",
    "Service",
    "TermError",
    "UnknownItemError",
]

_SEARCH_THREADS = 2  # searching one library is serial but for the index itself
_MAX_SEARCHES = 256
_MAX_WRITES = 16
_WRITE_RETRY_S = 2

P = ParamSpec("P")
T = TypeVar("T")


class TermError(ValueError):
    """The term at `index` of a query cannot be used, for `reason`."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"term {index}: {reason}")
        self.index = index
        self.reason = reason


class PictureError(LookupError):
    """An item of which there is no picture, and why."""


@dataclass(frozen=True)
class Point:
    """An item on the map of the library: x and y lie in -1..1."""

    item_id: int
    x: float
    y: float
    modality: str
    name: str


@dataclass(frozen=True)
class About:
    """What is served: the model, its space, the library's size. `missing` are modalities without an encoder."""

    model: str
    about: str
    license: str
    modalities: tuple[str, ...]
    missing: tuple[str, ...]
    dim: int
    space: str
    version: str
    files: int
    items: Mapping[str, int]


class Service:
    """Searching, embedding and changing a library for many callers at once. `close` finishes what was taken.

    All that waits is `async`; the other methods answer at once. Terms of a query are as in `serve.terms`.
    """

    def __init__(self, library: Library, settings: Settings | None = None) -> None:
        self.library = library
        self.model = library.model
        self.settings = settings or Settings()
        self.limits = self.settings.limits
        self.metrics = Metrics()
        self._batcher = Batcher(
            library.model,
            self.metrics,
            max_batch=self.settings.max_batch,
            max_waiting=self.settings.max_waiting,
            limits=self.limits,
        )
        self._searching = _Threads("search", _SEARCH_THREADS, _MAX_SEARCHES)
        self._drawing = _Threads("draw", _SEARCH_THREADS, _MAX_SEARCHES)
        self._writing = _Threads("write", 1, _MAX_WRITES)
        self._points: tuple[int, list[Point]] | None = None
        self._laying_out = asyncio.Lock()
        self._closed = False
        self.metrics.watch(lambda: self._batcher.waiting, self.counts)
        with contextlib.suppress(WriterBusyError):  # whoever writes to it now will not be disturbed
            library.tidy()

    @property
    def is_ready(self) -> bool:
        """Whether it takes work."""
        return not self._closed

    def close(self) -> None:
        """Takes nothing more and finishes what was taken. Safe to call twice. The library stays open."""
        self._closed = True
        self._batcher.close()
        for threads in (self._searching, self._drawing, self._writing):
            threads.close()

    async def embed(self, terms: Sequence[Term], *, deadline_s: float | None = None) -> list[Embedded]:
        """Terms -> one unit vector each, in their order; their weights do not count here.

        Raises TermError for a term that cannot be used, UnknownItemError, Busy when too much is waiting, LateError
        after `deadline_s` seconds (the settings' when None).
        """
        deadline_s = self.settings.deadline_s if deadline_s is None else deadline_s
        found: dict[int, Embedded] = {}
        sources: list[tuple[Source, str | None]] = []
        places: list[int] = []
        for place, term in enumerate(terms):
            if isinstance(term.content, int):
                found[place] = await self._stored(term.content)
            elif isinstance(term.content, np.ndarray):
                found[place] = self._checked(place, term.content)
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
        """Terms -> their weighted sum, Embeddings (1, D). Raises as `embed`; ValueError if they cancel out."""
        return self.combined(await self.embed(terms, deadline_s=deadline_s), terms)

    def combined(self, parts: Sequence[Embedded], terms: Sequence[Term]) -> Embeddings:
        """What `embed` made of some terms -> their weighted sum (1, D). Raises ValueError for terms that cancel out."""
        vectors = np.stack([part.vector for part in parts])
        return arithmetic.combine(Embeddings(vectors, self.model.space), [term.weight for term in terms])

    async def search(
        self,
        terms: Sequence[Term],
        *,
        k: int = 10,
        want: Sequence[str] | None = None,
        where: str | None = None,
        deadline_s: float | None = None,
    ) -> list[Hit]:
        """The k best hits for a query, best first; `want` and `where` as in `Library.search`.

        Words are also looked for in names, captions and metadata where a query has nothing but words. Files of items
        that the query adds are left out of its hits. Raises as `embed`; WhereError, which points at the character;
        ValueError for terms that cancel out, no terms, an unknown modality in `want` and k out of 1..`max_hits`.
        """
        if not terms:
            raise ValueError("search: expected at least one term")
        if not 1 <= k <= self.settings.max_hits:
            raise ValueError(f"search: expected k from 1 to {self.settings.max_hits}, got {k}")
        said = [term for term in terms if isinstance(term.content, str)]
        words = " ".join(str(term.content) for term in said if term.weight > 0) if len(said) == len(terms) else ""
        own = [term.content for term in terms if isinstance(term.content, int) and term.weight > 0]
        try:
            async with asyncio.timeout(self.settings.deadline_s if deadline_s is None else deadline_s):
                query = await self.compose(terms, deadline_s=deadline_s)
                return await self._searching.run(self._find, query, k, want, where, words, own)
        except TimeoutError:
            raise LateError from None

    def item(self, item_id: int) -> Item:
        """The item with an id. Raises UnknownItemError."""
        return self.library.item(item_id)

    def related(self, item_id: int) -> list[Item]:
        """All items of the same content: the stretches of a film, and its sound track. Raises UnknownItemError."""
        return self.library.related(item_id)

    async def original(self, item_id: int) -> Path:
        """The file of an item, as it was indexed. Raises UnknownItemError, also when it is gone or another by now."""
        return await self._drawing.run(self.library.original, item_id)

    async def open_original(self, item_id: int) -> IO[bytes]:
        """As `original`, open: what is read is what was checked, whatever lies at its path by then."""
        return await self._drawing.run(self.library.open_original, item_id)

    async def thumbnail(self, item_id: int) -> bytes:
        """A small JPEG of an item, made when first asked for. Raises UnknownItemError, PictureError."""
        item = self.item(item_id)
        if item.modality not in thumbnails.MODALITIES:
            raise PictureError(f"{item.modality} has no picture; these have: {', '.join(thumbnails.MODALITIES)}")
        made = await self._drawing.run(thumbnails.make, self.library, [item], self.limits)
        if item_id not in made:
            raise PictureError("its file is gone or can no longer be read; index its folder again")
        return await self._drawing.run(thumbnails.read, self.library, item_id)

    async def add(self, content: IO[bytes], name: str, metadata: Mapping[str, Any]) -> list[Item]:
        """Keeps a file in the library and makes it searchable -> its items.

        Raises MediaError for a file that cannot be used, Busy when too much is waiting or another process is writing.
        """
        return await self._writing.run(self._write, self.library.add, content, name, metadata, self.limits)

    async def remove(self, item_id: int) -> list[Item]:
        """Forgets the content of an item (see `Library.remove`) -> its items. Raises UnknownItemError, and Busy."""
        return await self._writing.run(self._write, self.library.remove, item_id)

    def counts(self) -> dict[str, int]:
        """Modality -> number of its items."""
        return self.library.count()

    def about(self) -> About:
        """What is served."""
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
        )

    async def points(self, limit: int = 2000) -> list[Point]:
        """At most `limit` items on a plane, near where they are alike (see `serve.plane`); made once a revision."""
        async with self._laying_out:
            revision = self.library.revision
            if self._points is None or self._points[0] != revision:
                self._points = revision, await self._drawing.run(_plane, self.library, limit)
            return self._points[1]

    def _find(
        self,
        query: Embeddings,
        k: int,
        want: Sequence[str] | None,
        where: str | None,
        words: str,
        own: Sequence[int],
    ) -> list[Hit]:
        paths = {path for number in own for item in [self.item(number)] for path in (item.path, *item.also)}
        hits = self.library.find(query, k + len(own), want, where, words=words)
        return [hit for hit in hits if hit.path not in paths][:k]

    async def _stored(self, item_id: int) -> Embedded:
        item = self.item(item_id)
        vectors = await self._searching.run(self.library.vectors, [item_id])
        return Embedded(vectors.vectors[0], item.modality)

    def _checked(self, place: int, vector: np.ndarray) -> Embedded:
        vector = np.asarray(vector, np.float32)
        if vector.shape != (self.model.dim,) or not abs(float(np.linalg.norm(vector)) - 1) <= NORM_TOLERANCE:
            raise TermError(place, f"expected a vector of {self.model.dim} numbers and norm 1, got {vector.shape}")
        return Embedded(vector, "")

    def _write(self, change: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        try:
            return change(*arguments, **named)
        except WriterBusyError:
            raise Busy(_WRITE_RETRY_S, "another process is writing to the library") from None


class _Threads:
    """A few threads, and a bound on what waits for them."""

    def __init__(self, name: str, count: int, most: int) -> None:
        self._pool = ThreadPoolExecutor(count, name)
        self._room = threading.Semaphore(most)

    async def run(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """What a call returns, made in one of the threads. Raises Busy when too many are waiting."""
        if not self._room.acquire(blocking=False):
            raise Busy(1)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*arguments, **named))
        finally:
            self._room.release()

    def close(self) -> None:
        self._pool.shutdown()


def _source(place: int, term: Term) -> tuple[Source, str | None]:
    """Words, bytes or a Path -> what the batcher takes. Errors name the term, never a path of this machine."""
    if isinstance(term.content, str):
        return Source(term.content, "text"), "text"
    name = term.name or (term.content.name if isinstance(term.content, Path) else f"term {place}")
    return Source(term.content, name, term.hints), term.modality


def _plane(library: Library, limit: int) -> list[Point]:
    sample = library.sample(limit)
    if not sample:
        return []
    items = [item for item, _ in sample]
    places = plane.lay_out(np.stack([vector for _, vector in sample]), [item.modality for item in items])
    return [
        Point(item.item_id, float(x), float(y), item.modality, shown(Path(item.path).name))
        for item, (x, y) in zip(items, places, strict=True)
    ]
