"""Nearest neighbours over unit vectors: one shelf a modality, exact or through FAISS, on disk in a folder.

The exact vectors are always kept (memory-mapped after a load, so loading copies none). "Flat" searches them directly;
every other factory only proposes candidates, which are ranked by their exact scores. So scores are exact cosines, and
equal ones are ordered by id.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bind.index import exact, factories
from bind.index.exact import Floats, Integers, Rows
from bind.index.generations import CorruptFile, Generation, write_generation
from bind.index.shelf import Shelf
from bind.owned import OwnedFolder
from bind.space import Embeddings, SpaceError

_FORMAT = 1


class IndexCorrupt(CorruptFile):
    """A stored index that is damaged or incomplete; `path` is the file at fault."""


class Index:
    """(N, dim) unit rows of one space under int64 ids, searchable per modality.

    `factory` is any FAISS factory string ("Flat", "HNSW32", "IVF256,PQ64", "LSH", "RaBitQ", ...), or "CAGRA". A shelf
    is searched exactly until it holds enough vectors (9,984, and 39 for each centroid that the factory trains); then
    its FAISS index is trained and filled. `device` "cuda" keeps "Flat" as fp16 on the GPU (scores rounded: see
    `bind.index.exact_gpu`) and moves others to FAISS's GPU indexes.

    Raises ValueError for a factory that FAISS does not know or cannot run on the device, DeviceError (also a
    RuntimeError) for a GPU that is not there. Searches may run in several threads on the CPU; changes need the index
    to themselves: where searches go on meanwhile, change a `fork` and search that one from then on.
    """

    def __init__(self, space: str, dim: int, factory: str = "Flat", device: str = "cpu") -> None:
        if dim < 1:
            raise ValueError(f"index: expected dim >= 1, got {dim}")
        if not re.fullmatch(r"cpu|cuda(:\d{1,4})?", device):
            raise ValueError(f"index: expected device 'cpu', 'cuda' or 'cuda:N', got {device!r}")
        self.space = space
        self.dim = dim
        self.factory = factory.strip()
        self.device = device
        factories.check_device(self.factory, device)
        if self.factory != "Flat":
            factories.new_index(
                self.factory, dim
            )  # an unusable factory fails here, not after the first million vectors
        self._shelves: dict[str, Shelf] = {}

    def __len__(self) -> int:
        return sum(shelf.live for shelf in self._shelves.values())

    def fork(self) -> Index:
        """An index of the same vectors that can be changed while this one is searched. This one must not change then.

        Vectors are shared, and FAISS indexes until the fork has so many new rows that it makes one of its own; until
        then these are searched exactly.
        """
        new = copy.copy(self)
        new._shelves = {name: shelf.fork() for name, shelf in self._shelves.items()}
        return new

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that have vectors, sorted."""
        return tuple(sorted(name for name, shelf in self._shelves.items() if shelf.live))

    def count(self, modality: str) -> int:
        """How many vectors this modality has (0 for one that was never added)."""
        return self._shelves[modality].live if modality in self._shelves else 0

    def add(self, ids: npt.ArrayLike, embeddings: Embeddings, modality: str) -> None:
        """(N,) int64 ids >= 0, unique over all modalities, and N embeddings -> stored. All of them or none.

        Raises SpaceError for another space, ValueError for another dim, ids that are not N non-negative integers,
        and an id that is given twice or is there already.
        """
        given = _as_ids(ids)
        self._check(embeddings)
        if not modality:
            raise ValueError("index: expected the name of a modality, got an empty one")
        if len(given) != len(embeddings):
            raise ValueError(f"index: expected one id for each of {len(embeddings)} embeddings, got {len(given)}")
        if given.size and given.min() < 0:
            raise ValueError(f"index: expected ids >= 0 (-1 means no result), got {given.min()}")
        ordered = np.sort(given)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        if twice.size:
            raise ValueError(f"index: id {twice[0]} is given twice")
        for name, shelf in self._shelves.items():
            if (known := shelf.first_known(given)) is not None:
                raise ValueError(f"index: id {known} is there already (modality {name!r}); remove it first")
        if len(given):
            shelf = self._shelves.get(modality) or self._shelf(modality, Rows(np.empty((0, self.dim), np.float32)))
            shelf.add(given, embeddings.vectors)

    def remove(self, ids: npt.ArrayLike) -> int:
        """(N,) ids -> how many of them were there and are gone. Their disk space is freed by the next `save`."""
        given = _as_ids(ids)
        return sum(shelf.remove(given) for shelf in self._shelves.values())

    def search(
        self, queries: Embeddings, k: int = 10, modality: str | Sequence[str] | None = None
    ) -> tuple[Floats, Integers]:
        """(Q, D) queries -> (Q, k) cosines, descending, equal ones by ascending id, and (Q, k) ids.

        `modality` is one, several, or None for all; one without vectors finds nothing. Where there are fewer than k
        results the score is -inf and the id -1. Raises SpaceError for another space, ValueError for another dim and
        for k < 1.
        """
        self._check(queries)
        if k < 1:
            raise ValueError(f"index: expected k >= 1, got {k}")
        wanted = self.modalities if modality is None else (modality,) if isinstance(modality, str) else modality
        shelves = [self._shelves[name] for name in dict.fromkeys(wanted) if self.count(name)]
        vectors = np.ascontiguousarray(queries.vectors)
        found = [shelf.search(vectors, min(k, shelf.live)) for shelf in shelves]
        return exact.best(found, len(queries), k)

    def save(self, folder: str | os.PathLike[str] | OwnedFolder) -> None:
        """Writes a new generation inside `folder`, then makes it the current one in one atomic step.

        A crash or a full disk at any moment leaves the previous generation in place and readable. Raises OSError when
        writing fails. One process may save to a folder at a time.
        """
        shelves = []
        with write_generation(_owned(folder)) as new:
            for number, name in enumerate(self.modalities):
                shelf = self._shelves[name]
                shelves.append({"modality": name, "count": shelf.live, "indexed": shelf.write(new, str(number))})
            meta = {"format": _FORMAT, "space": self.space, "dim": self.dim, "factory": self.factory}
            with new.file("index.json") as out:
                out.write(json.dumps(meta | {"shelves": shelves}, indent=1).encode())

    @classmethod
    def load(cls, folder: str | os.PathLike[str] | OwnedFolder, device: str = "cpu", verify: bool = False) -> Index:
        """The current generation in `folder` -> Index, its vectors memory-mapped.

        Every file's size and the hashes of all but the vectors are checked always (FAISS reads none of its files
        before its hash matched); `verify` checks the hashes of the vectors as well, which reads them once.
        Raises FileNotFoundError when there is no index, IndexCorrupt when it is damaged, else what `Index` raises.
        """
        try:
            while True:
                generation = Generation(_owned(folder))
                try:
                    return cls._load_generation(generation, device, verify)
                except FileNotFoundError:
                    if generation.is_current():
                        raise
                    # A writer has switched generations meanwhile: read the new one.
        except CorruptFile as error:
            raise IndexCorrupt(error.path, f"{error.reason}; build the index again") from None

    @staticmethod
    def verify(folder: str | os.PathLike[str] | OwnedFolder) -> tuple[str, int]:
        """The current generation in `folder`, every hash compared -> its space and dim. It needs no device.

        Raises FileNotFoundError when there is no index, IndexCorrupt when it is damaged.
        """
        try:
            generation = Generation(_owned(folder))
            generation.verify()
            meta = json.loads(generation.read("index.json"))
        except CorruptFile as error:
            raise IndexCorrupt(error.path, f"{error.reason}; build the index again") from None
        return meta["space"], meta["dim"]

    @classmethod
    def _load_generation(cls, generation: Generation, device: str, verify: bool) -> Index:
        meta = json.loads(generation.read("index.json"))
        if meta["format"] != _FORMAT:
            raise ValueError(f"index: expected format {_FORMAT}, got {meta['format']}; update crossbind")
        index = cls(meta["space"], meta["dim"], meta["factory"], device)
        for number, entry in enumerate(meta["shelves"]):
            name, count = str(number), entry["count"]
            if verify:
                with generation.open(f"{name}.vectors"):
                    pass  # opening checks the hash
            with generation.sized(f"{name}.vectors", count * index.dim * 4) as file:
                # A plain array over the mapping: numpy's memmap type makes every result a memmap again.
                vectors = np.asarray(np.memmap(file, dtype="<f4", mode="r", shape=(count, index.dim)))
            shelf = index._shelf(entry["modality"], Rows(vectors), _read_integers(generation, f"{name}.ids"))
            if entry["indexed"]:
                positions = _read_integers(generation, f"{name}.positions")
                shelf.adopt(factories.read_index(generation, f"{name}.faiss"), positions, entry["indexed"])
            shelf.absorb()
        return index

    def _shelf(self, modality: str, rows: Rows, ids: Integers | None = None) -> Shelf:
        shelf = Shelf(self.factory, self.device, rows, np.empty(0, np.int64) if ids is None else ids)
        self._shelves[modality] = shelf
        return shelf

    def _check(self, embeddings: Embeddings) -> None:
        if embeddings.space != self.space:
            raise SpaceError(self.space, embeddings.space)
        if embeddings.dim != self.dim:
            raise ValueError(f"index: expected vectors of dim {self.dim}, got {embeddings.dim}")


def _owned(folder: str | os.PathLike[str] | OwnedFolder) -> OwnedFolder:
    return folder if isinstance(folder, OwnedFolder) else OwnedFolder(folder)


def _as_ids(ids: npt.ArrayLike) -> Integers:
    given = np.asarray(ids)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise ValueError(f"index: expected ids as (N,) integers, got shape {given.shape} of {given.dtype}")
    if given.dtype == np.uint64 and given.size and given.max() > np.iinfo(np.int64).max:
        raise ValueError(f"index: expected ids that fit int64, got {given.max()}")
    return given.astype(np.int64)


def _read_integers(generation: Generation, name: str) -> Integers:
    return np.frombuffer(generation.read(name), dtype="<i8").copy()
