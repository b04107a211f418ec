"""A library: a folder on disk that makes other folders searchable, by anything that a model can read.

>>> library = Library.open("my-library")
>>> report = library.index("media")
>>> hits = library.search("image:dog.jpg + audio:rain.wav - text:indoors", k=10, where="folder = 'trip'")

In its folder lie `catalogue.sqlite` (the truth, see `catalogue`), `writer.lock`, `index/REVISION/`: an index over the
vectors of that revision of the catalogue, updated when it is behind and made anew when it is damaged; and `files/`, the
files that `Library.add` keeps (see `serve.library.uploads`).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from bind.index.index import Index
from bind.modalities import revisions
from bind.options import LoadOptions
from bind.space import Embeddings
from preprocess.readers.lines import Line
from preprocess.source import Limits
from serve.library.browsing import Browsing
from serve.library.catalogue import Catalogue
from serve.library.filters import checked_filter
from serve.library.finding import Finding
from serve.library.indexing import Embed, Progress
from serve.library.model_check import check_space
from serve.library.reports import MigrationReport
from serve.library.uploads import Uploads

if TYPE_CHECKING:
    from bind.model.model import BindModel
from serve.library import model_change
from serve.library.changes import Changes
from serve.library.items import Item, Items
from serve.library.live_index import LiveIndex


class Library(Finding, Browsing):
    """An open library, which `Library.open` returns.

    Several threads may search it, also while another thread indexes.
    """

    def __init__(self, catalogue: Catalogue, model: BindModel, factory: str | None, device: str) -> None:
        live_index = LiveIndex(catalogue, model.space, model.dim, factory, device)
        uploads = Uploads(catalogue.folder)
        super().__init__(catalogue, model, live_index, Items(catalogue, model.space, uploads))
        self._begin_browsing(self._items)
        self._changes = Changes(catalogue, model, self._items, uploads, live_index)

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        model: BindModel | LoadOptions | str | os.PathLike[str] | None = None,
        factory: str | None = None,
        device: str = "cpu",
        modalities: Collection[str] | None = None,
    ) -> Library:
        """Opens the library in a folder, or makes one where there is none.

        A folder is made only when the model and the factory are usable.

        Args:
            folder: The library's folder.
            model: A loaded model, or what `bind.load` takes. Left out (also of `LoadOptions`), it is the model that the
                library was made with; for a new library it is `small`.
            factory: A FAISS factory string (see `bind.Index`). Left out, it is that of the stored index; for a new
                library it is `Flat`. Another factory than before makes the index anew.
            device: The device for the index, and for a model that is loaded here.
            modalities: Only these modalities of the model are loaded.

        Raises:
            OtherModelError: The model has another space than the library.
            LibraryError: The folder cannot be used.
            ValueError: What `bind.load` or `bind.Index` refuses.

        Example:
            >>> with Library.open("new-library", model="small") as library:
            ...     len(library)
            0
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
        # what the index refuses leaves no incomplete library behind
        Index(model.space, model.dim, factory or "Flat", device)
        catalogue = Catalogue(folder, model.space, model.dim, model.origin, revisions(model.modalities))
        check_space(folder, catalogue.facts, model.origin, model)
        library = cls(catalogue, model, factory, device)
        library._live_index.open()
        return library

    @staticmethod
    def migrate(
        folder: str | os.PathLike[str],
        model: BindModel | LoadOptions | str | os.PathLike[str],
        *,
        keep: str | os.PathLike[str] | None = None,
        allow_removal: bool = False,
        progress: Progress | None = None,
        batch_size: int = 64,
        limits: Limits | None = None,
    ) -> MigrationReport:
        """Changes the model of the library in a folder, while it is searched and written to.

        Every file is embedded with the new model beside the old vectors, then both are exchanged in one step. A run
        that was interrupted, at whatever moment, leaves a whole library, and the next one goes on where it was.
        Items keep their ids where both models cut their file alike. An open `Library` goes on searching with the old
        model, and raises MigratedError when it is to be changed, until it is opened again.

        Args:
            folder: The library's folder.
            model: The new model, or what `bind.load` takes.
            keep: A file that gets a backup of the library as it was before the switch (see `crossbind backup`).
            allow_removal: Files that the new model cannot be given (they are gone, or of a modality that it lacks)
                become skipped files. Otherwise they are an error, and the library stays as it was.
            progress: A function that is called with the number of finished files, and of all files to embed.
            batch_size: The number of views that the model encodes together.
            limits: Bounds on a file: bytes, pixels, duration, time to decode.

        Returns:
            The new model's name, and the numbers of files and of contents that this run embedded.

        Raises:
            LibraryError: There is no library, it cannot be written, or files could not be embedded.
            ValueError: What `bind.load` refuses, or the index's factory does not fit the new dimension.

        Example:
            >>> report = Library.migrate(library.folder, "small")
            >>> report.model, report.embedded
            ('small', 0)
        """
        if not isinstance(model, (str, os.PathLike, LoadOptions)):
            loaded = model
        else:
            options = model if isinstance(model, LoadOptions) else LoadOptions(model)
            options.check()
            loaded = options.load()
        return model_change.migrate(
            Path(folder).expanduser().absolute(),
            loaded,
            keep=None if keep is None else Path(keep).expanduser(),
            allow_removal=allow_removal,
            progress=progress,
            batch_size=batch_size,
            limits=limits,
        )

    def close(self) -> None:
        """Closes the connection to the catalogue. Nothing has to be saved."""
        self._catalogue.close()

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """The number of files that can be found."""
        return self._catalogue.count_files()

    def count(self) -> dict[str, int]:
        """Modality -> the number of its items."""
        return self._catalogue.count()

    def item(self, item_id: int) -> Item:
        """The item with the id of a hit. Raises UnknownItemError when there is none (any more)."""
        return self._items.item(item_id)

    def lines(self, item_id: int) -> tuple[Line, ...]:
        """All lines that were read in an item's picture or heard in its sound, see `index(ocr=..., speech=...)`.

        Raises UnknownItemError when there is no such item (any more).
        """
        return self._items.lines(item_id)

    def page(
        self, after: int = 0, limit: int = 100, where: str | None = None, *, hidden: bool = False
    ) -> tuple[list[Item], int | None]:
        """At most `limit` items in the order they were added, and the next page's `after` (None: no more).

        `where` is a filter as of `search`. Hidden files have items only with `hidden`. Raises WhereError.
        """
        return self._items.page(after, limit, checked_filter(self._catalogue, where, hidden=hidden))

    def vectors(self, item_ids: Sequence[int]) -> Embeddings:
        """Item ids -> their vectors as Embeddings, in their order. Raises UnknownItemError for an unknown id."""
        return self._items.vectors(item_ids)

    def related(self, item_id: int) -> list[Item]:
        """All items of the content of an item, itself included: the stretches of a film, and its sound track.

        Raises UnknownItemError when there is no such item (any more).
        """
        return self._items.related(item_id)

    def original(self, item_id: int) -> Path:
        """The path of a file with the content of an item, as it was indexed. Raises as `open_original`."""
        path, file = self._items.open_with_path(item_id)
        file.close()
        return Path(path)

    def open_original(self, item_id: int) -> BufferedReader:
        """As `Items.open_original`: the open file of an item, exactly as it was indexed. Raises UnknownItemError."""
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
        positions: bool = True,
        words: bool = True,
    ) -> list[Item]:
        """Copies a file into the library, wholly or (after a power cut) not at all -> its items; again changes nothing.

        Args:
            content: The open file. With `embed` it is read twice, so it must be seekable.
            name: The name of the file; a path in the name is dropped.
            metadata: The keys that the file's sidecar would have.
            limits: Bounds on the file.
            embed: Reads and encodes in place of `pipeline.embed`; others may write meanwhile.
            positions: Whether it is stored where a picture or film was taken.
            words: Whether words in pictures and speech are read where `index` reads them in one of the folders.

        Raises:
            MediaError: The file cannot be used.
            WriterBusyError: Another process or thread is writing.
            LibraryError: The disk is full.

        Example:
            >>> with open("cat.png", "rb") as file:
            ...     (item,) = library.add(file, "cat.png", {"caption": "a cat"})
            >>> item.modality, item.metadata["caption"]
            ('image', 'a cat')
        """
        return self._changes.add(content, name, metadata, limits, embed=embed, positions=positions, words=words)

    def remove(self, item_id: int) -> list[Item]:
        """Removes the file that an item belongs to, with all its items -> those items.

        An upload is deleted. A file of a folder, and the files with the same content, are removed from the library and
        not deleted: indexing the folder again brings them back. Removing an upload does not affect a folder's file with
        the same content, and vice versa.

        Args:
            item_id: The id of any item of the file.

        Raises:
            UnknownItemError: There is no such item.
            WriterBusyError: Another process or thread is writing.

        Example:
            >>> hit = library.search("a dog", k=1)[0]
            >>> library.remove(hit.item_id)[0].path == hit.path
            True
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
