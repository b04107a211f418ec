"""Changes to a library: a file is added or removed, and the remains of an interrupted change are cleared up."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bind.model.pipeline import Embedded, Failed
from preprocess.source import Limits, MediaError, Source
from serve.engine import thumbnails
from serve.library import model_change, reading, roots, uploads
from serve.library.catalogue import Catalogue
from serve.library.errors import LibraryError, UnknownItemError
from serve.library.indexing import Embed, Run
from serve.library.reading import Channel
from serve.library.records import FileRow
from serve.library.roots import Scope
from serve.library.uploads import Uploads
from serve.library.writer import Writer

if TYPE_CHECKING:
    from bind.model.model import BindModel
from serve.library.items import Item, Items, item_of
from serve.library.live_index import LiveIndex


class _EmbeddingPending(BaseException):
    """Ends the first pass over a file, because its contents must be embedded before the second; `incoming` is
    the file.
    """

    incoming: Path


class _DeferredEmbedding:
    """Records in a first pass what is to be embedded, and returns the results in a second pass."""

    def __init__(self) -> None:
        self.wanted: list[tuple[Source, str | None]] = []
        self.results: list[list[Embedded | Failed]] = []

    def __call__(self, sources: Iterator[tuple[Source, str | None]]) -> Iterator[Embedded | Failed]:
        requested = list(sources)
        if not requested:
            return
        if not self.results:
            self.wanted = requested
            raise _EmbeddingPending
        for position, results in enumerate(self.results):
            yield from (replace(result, position=position) for result in results)


class Changes:
    """Adds files to a library's own folder, and removes files from the library."""

    def __init__(
        self, catalogue: Catalogue, model: BindModel, items: Items, uploads: Uploads, index: LiveIndex
    ) -> None:
        self._catalogue = catalogue
        self._model = model
        self._items = items
        self._uploads = uploads
        self._index = index
        self._changing = threading.Lock()

    def add(
        self,
        content: IO[bytes],
        name: str,
        metadata: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        *,
        embed: Embed | None = None,
        positions: bool = True,
        words: bool = True,
    ) -> list[Item]:
        """Adds a file -> its items; see `Library.add`.

        With `embed`, a first pass only records what is to be embedded, so that others may write during the embedding; a
        second pass stores the results. Words are read last, while others may write.
        """
        limits = limits or Limits()
        items = self._embedded(content, name, metadata, limits, embed, positions)
        for channel in self._channels() if words else ():
            self._read_words(items[0].path, channel, limits)
        return items

    def _channels(self) -> list[Channel]:
        """What is read in an upload: what is read in any root."""
        known = roots.of(self._catalogue)
        speech = next((root.speech for root in known if root.speech), "")
        return reading.channels(any(root.ocr for root in known), speech)[0]

    def _read_words(self, path: str, channel: Channel, limits: Limits) -> None:
        """Reads the words of an upload by one channel, and stores them."""
        with self._catalogue.write() as writer:
            missing = reading.missing(writer, self._catalogue.folder, channel, (path,), retry=False)
        with reading.pool(channel) as pool:
            done = [one for unread in missing if (one := reading.read(pool, channel, unread, limits))]
        with self._changing, self._catalogue.write() as writer:
            with writer.transaction():
                for one in done:
                    reading.store(writer, channel, one)
            self._index.follow(writer, save=False)

    def _embedded(
        self,
        content: IO[bytes],
        name: str,
        metadata: Mapping[str, Any] | None,
        limits: Limits,
        embed: Embed | None,
        positions: bool,
    ) -> list[Item]:
        if embed is None:
            return self._add(content, name, metadata, limits, None, positions)
        deferred = _DeferredEmbedding()
        try:
            return self._add(content, name, metadata, limits, deferred, positions)
        except _EmbeddingPending as pending:
            try:
                deferred.results = [list(embed(iter([wanted]))) for wanted in deferred.wanted]
            except BaseException:
                self._uploads.discard(pending.incoming)
                raise
        content.seek(0)
        return self._add(content, name, metadata, limits, deferred, positions)

    def _add(
        self,
        content: IO[bytes],
        name: str,
        metadata: Mapping[str, Any] | None,
        limits: Limits,
        embed: Embed | None,
        positions: bool,
    ) -> list[Item]:
        """One pass of `add`: afterwards all of the file is in the library, or nothing of it."""
        with self._changing, self._catalogue.write() as writer:
            self._index.refresh()
            try:
                incoming = self._uploads.put(content, name, metadata or {}, limits)
            except OSError as error:
                raise LibraryError(f"{self._catalogue.folder}: {name} could not be kept: {error.strerror}") from None
            path = str(incoming)
            before = writer.file(path)
            run = Run(
                writer,
                self._model,
                Scope(path, positions=positions),
                self._catalogue.folder,
                limits=limits,
                batch_size=64,
                retry=True,
                progress=None,
                embed=embed,
            )
            row = self._run(run, writer, incoming, is_new=before is None)
            try:
                self._uploads.finish(incoming)
            except OSError as error:  # the file can be read where it is, and the next `tidy` finishes it
                raise LibraryError(f"{self._catalogue.folder}: {name} could not be kept: {error.strerror}") from None
            self._index.follow(writer, save=False)
            numbers = [number for number, _ in self._catalogue.segments_of([row.content or 0])]
            entries = self._items.entries(numbers, row.id)
        return [item_of(entry) for _, entry in sorted(entries.items())]

    def _run(self, run: Run, writer: Writer, incoming: Path, *, is_new: bool) -> FileRow:
        """Indexes a file that was put aside -> its row. A failure removes the file, and its row if it `is_new`."""
        path = str(incoming)
        try:
            run.run()
            row = writer.file(path)
            assert row is not None
            if row.content is None:
                raise MediaError(os.path.basename(path), row.reason or "could not be used")
        except _EmbeddingPending as pending:
            pending.incoming = incoming
            raise
        except BaseException:
            if is_new:
                with writer.transaction():
                    writer.remove_files([number for number, _, _ in writer.files_below(path)])
                    writer.drop_orphans()
            self._uploads.discard(incoming)
            raise
        return row

    def remove(self, item_id: int) -> list[Item]:
        """Removes the file that an item belongs to -> its items; see `Library.remove`."""
        with self._changing, self._catalogue.write() as writer:
            self._index.refresh()
            items = self._items.related(item_id)
            _, file = self._items.segment_and_file(item_id)
            paths = [items[0].path] if file is not None else self._of_folders(items[0])
            if not paths:
                raise UnknownItemError(f"there is no item {item_id} in this library (any more); search for it again")
            with writer.transaction():
                rows = [row for path in paths if (row := writer.file(path)) is not None]
                writer.remove_files([row.id for row in rows])
                for row in rows:
                    writer.drop_orphans(row.content)
            for path in paths:
                self._uploads.drop(Path(path))
            thumbnails.forget(self._catalogue.folder, [item.item_id for item in items])
            self._index.follow(writer, save=False)
        return items

    def _of_folders(self, item: Item) -> list[str]:
        """The paths of an item's files that the library does not keep itself."""
        folder = self._catalogue.folder
        return [path for path in (item.path, *item.also) if uploads.key_of(path, folder).startswith(b"/")]

    def tidy(self) -> None:
        """Finishes or deletes what interrupted calls of `add` left, and writes the index where it is due.

        Raises WriterBusyError.
        """
        with self._catalogue.write() as writer, contextlib.suppress(OSError):
            self._uploads.sweep(lambda path: writer.file(str(path)) is not None)
            thumbnails.sweep(self._catalogue.folder, self._catalogue.existing)
            self._index.follow(writer)
            model_change.clear(self._catalogue)
