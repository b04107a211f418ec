"""A library: a folder on disk that makes other folders searchable, by anything a model can read.

>>> library = Library.open("my-library")
>>> library.index("~/media")
>>> library.search("image:dog.jpg + audio:rain.wav - text:indoors", k=10, where="folder = 'trip'")

In its folder lie `catalogue.sqlite` (the truth, see `catalogue`), `writer.lock`, `index/REVISION/`: an index over
the vectors of that revision of the catalogue, caught up when it is behind and made anew when it is damaged; and
`files/`, what `Library.add` keeps (see `serve.library.uploads`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from bind.index.index import Index
from bind.modalities import revisions
from bind.options import LoadOptions
from bind.query import Term as ParsedTerm
from bind.space import Embeddings
from preprocess.source import Limits
from serve.engine import thumbnails
from serve.engine.terms import Term
from serve.library.catalogue import Catalogue
from serve.library.errors import LibraryError
from serve.library.indexing import Embed, Progress, Run
from serve.library.model_check import check_space
from serve.library.reports import IndexReport
from serve.library.uploads import Uploads

if TYPE_CHECKING:
    from bind.model.model import BindModel
from serve.library import duplicates as near_duplicates
from serve.library import query as queries
from serve.library.changes import Changes
from serve.library.items import Duplicates, Hit, Item, Items
from serve.library.live_index import LiveIndex
from serve.library.search import Search


class Library:
    """An open library, made by `Library.open`. Several threads may search it, also while another thread indexes."""

    def __init__(self, catalogue: Catalogue, model: BindModel, factory: str | None, device: str) -> None:
        self._catalogue = catalogue
        self._live_index = LiveIndex(catalogue, model.space, model.dim, factory, device)
        uploads = Uploads(catalogue.folder)
        self._items = Items(catalogue, model.space, uploads)
        self._search = Search(catalogue, model, self._live_index)
        self._changes = Changes(catalogue, model, self._items, uploads, self._live_index)
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
        """Opens the library in a folder, and makes it when there is none.

        A folder is made only when everything that is asked for can be had.

        Args:
            folder: The library's folder.
            model: A loaded model, or what `bind.load` takes. Left out (also of `LoadOptions`), it is the model that
                the library was made with; for a new library it is `small`.
            factory: How to search, as a FAISS factory string (see `bind.Index`). Left out, it is that of the stored
                index; for a new library it is `Flat`. Another factory than before makes the index anew.
            device: Where the index is searched, and where a model runs that is loaded here.
            modalities: Only these modalities of the model are loaded.

        Raises:
            OtherModelError: The model has another space than the library.
            LibraryError: The folder cannot be used.
            ValueError: What `bind.load` or `bind.Index` refuses.

        Example:
            >>> library = Library.open("my-library", model="small")
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
            check_space(folder, facts, model.origin, model)
        Index(model.space, model.dim, factory or "Flat", device)  # what it refuses leaves no half-made library
        catalogue = Catalogue(folder, model.space, model.dim, model.origin, revisions(model.modalities))
        check_space(folder, catalogue.facts, model.origin, model)
        library = cls(catalogue, model, factory, device)
        library._live_index.open()
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
        positions: bool = True,
    ) -> IndexReport:
        """Brings the library up to date with a folder (or a file): idempotent, and resumable after any interruption.

        A file whose size, time and sidecar are unchanged is not opened. Hidden files are left out.

        Args:
            folder: The folder (or file) to make searchable.
            progress: Is called with the number of files that are done, and of all files.
            batch_size: How many views the model encodes together.
            limits: Bounds on a file: bytes, pixels, duration, time to decode.
            retry: Files that failed before are tried again although they did not change.
            follow_links: Links that lead out of the folder are followed; otherwise the report has their number.
            positions: Where pictures and films were taken is kept, and looked up by name; False leaves it out.

        Returns:
            The numbers of added, updated, removed and unchanged files, and each skipped file with its reason.

        Raises:
            LibraryError: There is no such folder, another process is writing, or the disk is full. What was stored
                before stays.

        Example:
            >>> report = library.index("~/media")
            >>> report.added, report.skipped
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
                positions=positions,
            )
            report = run.run()
            self._live_index.follow(writer)
            with contextlib.suppress(OSError):
                thumbnails.sweep(self.folder, self._catalogue.existing)
        return report

    def search(
        self,
        query: str | Sequence[ParsedTerm | Term] | Embeddings,
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

        Args:
            query: A line that `bind.query.parse_query` reads (a term without a modality is a file where one
                exists, else text), a sequence of terms (of `bind.query` or `serve.Term`, in any mixture), or one
                embedding.
            k: How many hits, at most.
            want: The modalities to find; None means all.
            where: A filter on columns and metadata, as in `serve.library.where`.
            keywords: Whether the words of the query's texts are also looked for in file names, captions and metadata;
                both rankings are fused. None means: where a query consists of texts.
            calibrate: Whether modalities are compared by calibrated scores; without, by their bare cosines.
            every_segment: Each segment of a file is a hit of its own; otherwise a file is found once, with its best
                segment.
            min_probability: Hits that are less likely, or have no probability, are left out. Then no hit at all means
                that nothing in the library looks like the query.

        Raises:
            QueryError: The query cannot be read; the message points at the character.
            WhereError: The filter cannot be read; the message points at the character.
            MediaError: A file of the query cannot be used.
            ValueError: The terms cancel out, `want` has an unknown modality, k < 1, or `min_probability` is not in
                0..1 or the model has no calibration for it.

        Example:
            >>> hits = library.search("image:dog.jpg + audio:rain.wav - text:indoors", k=10, want=["video"])
            >>> hits[0].path, hits[0].score
        """
        embedding, words, modality = queries.embed(self.model, self._items, query, keywords)
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
        return self._search.find(
            query,
            k,
            want,
            where,
            words=words,
            calibrate=calibrate,
            every_segment=every_segment,
            modality=modality,
            min_probability=min_probability,
        )

    def similar(
        self, item_id: int, k: int = 10, want: Sequence[str] | None = None, where: str | None = None
    ) -> list[Hit]:
        """The k best hits for an item of the library, its own file left out. Raises UnknownItemError."""
        own = self.item(item_id)
        hits = self.find(self.vectors([item_id]), k + 1, want, where, modality=own.modality)
        return [hit for hit in hits if hit.path != own.path and hit.path not in own.also][:k]

    def item(self, item_id: int) -> Item:
        """The item with an id that a hit told. Raises UnknownItemError when there is none (any more)."""
        return self._items.item(item_id)

    def vectors(self, item_ids: Sequence[int]) -> Embeddings:
        """Item ids -> their vectors as Embeddings, in their order. Raises UnknownItemError for an unknown id."""
        return self._items.vectors(item_ids)

    def related(self, item_id: int) -> list[Item]:
        """All items of the content that an item is of, itself too: the stretches of a film, and its sound track.

        Raises UnknownItemError when there is no such item (any more).
        """
        return self._items.related(item_id)

    def original(self, item_id: int) -> Path:
        """The path of a file with the content of an item, as it was indexed. Raises as `open_original`."""
        path, file = self._items.open_with_path(item_id)
        file.close()
        return Path(path)

    def open_original(self, item_id: int) -> BufferedReader:
        """A file with the content of an item, exactly as it was indexed, open. What is read is what was checked.

        Raises UnknownItemError when there is no such item, and when its file is gone or another one by now: what lies
        at its path then was never put into this library.
        """
        return self._items.open_original(item_id)

    def sample(self, limit: int) -> list[tuple[Item, np.ndarray]]:
        """At most `limit` items, spread evenly over each modality, with their vectors (D,)."""
        return self._items.sample(limit)

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
        """Copies a file into the library and makes it searchable -> its items. Adding it again changes nothing.

        Either all of the file is there afterwards or, also after a power cut, nothing of it.

        Args:
            content: The open file. With `embed` it is read twice, so it must be seekable.
            name: What the file is called; a path in the name is dropped.
            metadata: What the file's sidecar would say.
            limits: Bounds on the file.
            embed: Reads and encodes in place of `pipeline.embed`, where that is scheduled elsewhere; others may write
                meanwhile.

        Raises:
            MediaError: The file cannot be used.
            WriterBusyError: Another process or thread is writing.
            LibraryError: The disk is full.

        Example:
            >>> with open("dog.jpg", "rb") as file:
            ...     items = library.add(file, "dog.jpg", {"caption": "a dog on the beach"})
        """
        return self._changes.add(content, name, metadata, limits, embed=embed)

    def remove(self, item_id: int) -> list[Item]:
        """Removes the file that an item belongs to, with all its items -> those items.

        An upload is deleted. A file of a folder, and the files with the same content, are forgotten and not deleted:
        indexing the folder again brings them back. Removing an upload leaves a folder's file with the same content
        alone, and vice versa.

        Args:
            item_id: The id of any item of the file.

        Raises:
            UnknownItemError: There is no such item.
            WriterBusyError: Another process or thread is writing.

        Example:
            >>> library.remove(hits[0].item_id)
        """
        return self._changes.remove(item_id)

    def tidy(self) -> None:
        """Finishes or deletes what interrupted calls of `add` left, and writes the index where it is due.

        Raises WriterBusyError.
        """
        self._changes.tidy()

    def save_index(self) -> None:
        """Writes the index where none is stored, or too much has changed since. Raises WriterBusyError."""
        with self._catalogue.write() as writer:
            self._live_index.follow(writer)

    def read_again(self, path: str, folder: str) -> str | None:
        """Brings a file of the folder called `folder` up to date -> why it is skipped, None where it is not.

        Raises as `index` does.
        """
        skipped = dict(self.index(path).skipped)
        with self._catalogue.write() as writer, writer.transaction():
            writer.set_folder(path, folder)
        return skipped.get(path)

    def duplicates(self, threshold: float = 0.98) -> list[Duplicates]:
        """Groups of files that are the same or nearly so, largest first.

        Two files of a modality are when every stretch of one of them has one in the other at a cosine of `threshold`
        or more: so a clip is a near-duplicate of the film it was cut from. Sound tracks do not count, and only the 16
        nearest neighbours of a stretch are looked at.
        """
        return near_duplicates.find(self._catalogue, self._live_index.current(), threshold)
