"""The vector index of a library, updated to each revision of its catalogue, and written to its folder."""

from __future__ import annotations

import contextlib
import threading

from bind.index.index import Index
from bind.owned import NotOwnedError, OwnedFolder
from bind.space import Embeddings
from serve.library.catalogue import Catalogue
from serve.library.errors import LibraryError, MigratedError
from serve.library.writer import Writer

SAVE_SHARE = 0.02
"""The index is written again when more than this share of it changed; until then, opening replays the changes."""
VERIFY_BYTES = 2**28
"""The largest size of an index whose vectors are compared with their checksums on opening; `check` compares all."""
_INDEX = "index"
"""The folder of a library that holds its index, which can always be made anew from the catalogue."""


class LiveIndex:
    """An index that follows a catalogue. Searching takes `current`; whoever writes calls `follow` after a change."""

    def __init__(self, catalogue: Catalogue, space: str, dim: int, factory: str | None, device: str) -> None:
        self._catalogue = catalogue
        self._space = space
        self._factory = factory
        self.index = Index(space, dim, factory or "Flat", device)
        self._revision = -1
        self._pending = 0
        self._stored = -1
        # Whoever updates or writes the index holds this lock. Searching takes the index as it is, without the lock.
        self.lock = threading.RLock()
        self._folders = OwnedFolder(catalogue.folder, _INDEX)
        catalogue.earlier_vectors = lambda ids: self.index.vectors(ids)

    def open(self) -> None:
        """Loads the newest stored index that fits, and updates it to the revision of the catalogue."""
        with self.lock, self._catalogue.snapshot():
            self._load()
            self._refresh()
            if self._catalogue.is_migrated():
                raise MigratedError(self._catalogue.folder, str(self._catalogue.fact("model")))

    def _load(self) -> None:
        """Takes the newest stored index that is whole and fits; without one, an empty one that `_refresh` fills."""
        newest = self._catalogue.revision
        for revision in sorted(self._stored_revisions(), reverse=True):
            if revision > newest:
                continue  # the catalogue was restored from a backup
            try:
                # A small index is compared with its checksums; reading a large one would take longer than people wait.
                small = sum(self._catalogue.count().values()) * self.index.dim * 4 <= VERIFY_BYTES
                loaded = Index.load(self._folders.folder(str(revision)), self.index.device, verify=small)
            except (OSError, ValueError, LookupError, RuntimeError):
                continue  # the index is derived data, so it is made again from the catalogue
            same_space = (loaded.space, loaded.dim) == (self.index.space, self.index.dim)
            if same_space and self._factory in (None, loaded.factory):
                self.index, self._revision, self._stored, self._pending = loaded, revision, revision, 0
                return

    def current(self) -> Index:
        """An index that does not change any more: of this revision or, while it is being updated, of the one before."""
        if self._catalogue.revision != self._revision and self.lock.acquire(blocking=False):
            try:
                with self._catalogue.snapshot():
                    self._refresh()
            finally:
                self.lock.release()
        return self.index

    def refresh(self) -> None:
        """Updates the index before a change; only for the process that may write."""
        with self.lock, self._catalogue.snapshot():
            self._refresh()

    def follow(self, writer: Writer, save: bool = True) -> None:
        """Updates the index after a change, and writes it where it is due.

        One upload does not write it (`save` False): opening replays the changes, and `tidy` writes the index.
        """
        with self.lock:
            with self._catalogue.snapshot():
                self._refresh(own=not save)
            if save:
                self._save(writer)

    def _refresh(self, own: bool = False) -> None:
        """Updates the index to the revision of the catalogue, which another process may have changed.

        The caller holds the lock and has taken a snapshot after that. After an `own` change to a revision that the
        index had, no change can have been missed, so the items need not be counted.
        """
        revision = self._catalogue.revision
        if revision == self._revision or self._catalogue.is_migrated():
            return  # vectors of another model cannot be added: this index goes on as it is until it is opened again
        index = self.index.fork()
        try:
            pending = self._pending + self._catch_up(index, self._revision)
            agrees = own or self._agrees(index)
        except ValueError as error:
            if isinstance(error, LibraryError):
                raise
            agrees = False
        if not agrees:
            # Changes were missed, or the stored index belongs to another history of this catalogue.
            index = Index(self.index.space, self.index.dim, self.index.factory, self.index.device)
            self._stored = -1
            pending = self._pending + self._catch_up(index, -1)
        self.index, self._revision, self._pending = index, revision, pending

    def _agrees(self, index: Index) -> bool:
        return self._catalogue.count() == {name: index.count(name) for name in index.modalities}

    def _catch_up(self, index: Index, revision: int) -> int:
        """Applies all changes after a revision to an index -> their number."""
        changes = index.remove(self._catalogue.removed_since(revision))
        for modality, ids, vectors in self._catalogue.added_since(revision):
            index.add(ids, Embeddings(vectors, self._space), modality)
            changes += len(ids)
        return changes

    def _save(self, writer: Writer) -> None:
        if self._stored >= 0 and self._pending <= SAVE_SHARE * len(self.index):
            return
        name = str(self._revision)
        place = self._folders.folder(name)
        try:
            self._folders.make().delete(name)
            self.index.save(place)
            # A memory-mapped index takes the place of the vectors that this run brought.
            self.index = Index.load(place, self.index.device)
        except OSError as error:
            raise LibraryError(
                f"{place.path}: the index could not be written: {error.strerror}. All files are in the library and "
                "can be searched, opening it only takes longer; free some space and index again"
            ) from error
        self._stored, self._pending = self._revision, 0
        for revision in self._stored_revisions():
            if revision != self._revision:
                self._folders.delete(str(revision))
        with writer.transaction():
            writer.forget_removed(self._revision)

    def _stored_revisions(self) -> list[int]:
        with contextlib.suppress(NotOwnedError):
            return [int(name) for name in self._folders.names() if name.isdecimal() and name.isascii()]
        return []
