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
import json
import os
from collections.abc import Collection, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from bind.arithmetic import Term
from bind.index.index import Index
from bind.modalities import revisions
from bind.options import LoadOptions
from bind.space import Embeddings, SpaceError
from preprocess.source import Limits
from serve.engine import terms, thumbnails
from serve.library.catalogue import Catalogue
from serve.library.errors import LibraryError
from serve.library.indexing import Embed, Progress, Report, Run
from serve.library.uploads import Uploads

if TYPE_CHECKING:
    from bind.model.model import BindModel
from serve.library import duplicates as near_duplicates
from serve.library import query as queries
from serve.library.changes import Changes
from serve.library.items import Duplicates, Hit, Item, Items
from serve.library.live_index import LiveIndex
from serve.library.search import Search


class OtherModelError(SpaceError):
    """A library was opened with a model of another space than it was made with."""

    def __init__(self, expected: str, got: str, advice: str = "") -> None:
        super().__init__(expected, got)
        self.advice = advice

    def __str__(self) -> str:
        return self.advice or super().__str__()

    def __reduce__(self) -> tuple[type[OtherModelError], tuple[str, str, str]]:  # type: ignore[override]
        return type(self), (self.expected, self.got, self.advice)


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
            self._live_index.follow(writer)
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

        `query` is what `bind.arithmetic.parse_query` reads (a term without a modality is a file where one exists, else
        text), terms (of `bind.arithmetic` or `serve.Term`, in any mixture), or one embedding. `want` are the modalities
        to find, `where` a filter as in `library.where`. `keywords` fuses in a search over file names, captions and
        metadata for the words of the query's texts; it is on where a query consists of texts. Without `calibrate`,
        mixed results are ranked by their bare cosines. A file is found once, with its best stretch; with
        `every_segment` each stretch counts by itself. `min_probability` leaves out what is less likely, so that no hit
        at all means that nothing here looks like that; hits without a probability are left out too.

        Raises QueryError and WhereError, which point at the character, MediaError for a file of the query that cannot
        be used, ValueError for terms that cancel out, an unknown modality in `want`, k < 1, and a `min_probability` out
        of 0..1 or that the model has no calibration for.
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
        """Keeps a file in the library's own folder and makes it searchable -> its items. Again changes nothing.

        `name` is what the file is called; a path in it is dropped. `metadata` is what its sidecar would say. Either
        all of it is there afterwards or, also after a power cut, nothing. Raises MediaError for a file that cannot be
        used, WriterBusyError when somebody else is writing, LibraryError when the disk is full.

        `embed` does what `pipeline.embed` does by itself, for whom reading and encoding are somebody else's to
        schedule: meanwhile others may write. `content` is read twice then, so it must be seekable.
        """
        return self._changes.add(content, name, metadata, limits, embed=embed)

    def remove(self, item_id: int) -> list[Item]:
        """Forgets the file that an item is of, with all its items -> those items.

        An upload is deleted. Of a file in a folder, it and those with the same content are forgotten and not deleted:
        indexing such a folder brings them back. Neither touches the other. Raises UnknownItemError when there is no
        such item, WriterBusyError when somebody else is writing.
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


def _check_space(folder: Path, facts: Mapping[str, Any], name: str, model: BindModel) -> None:
    if facts["space"] != model.space:
        made, now = json.loads(facts.get("revisions", "{}")), revisions(model.modalities)
        anew = [name for name in now if now[name] != made.get(name, 1)]
        if facts["model"] == model.origin and anew:
            changed = ", ".join(f"{name}: revision {made.get(name, 1)}, now {now[name]}" for name in anew)
            raise OtherModelError(
                facts["space"],
                model.space,
                f"{folder}: this library was made with another revision of the preprocessing ({changed}), so that its "
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
