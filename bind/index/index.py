"""Nearest neighbours over unit vectors: one shelf for each modality, exact or through FAISS, stored in a folder.

A shelf holds the vectors of one modality. The exact vectors are always kept; after a load they are memory-mapped, so
that loading copies none. The factory "Flat" searches these vectors directly. Every other factory only proposes
candidates, which are then ranked by their exact scores. So scores are exact cosines, and items of equal score are
ordered by id.
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
"""The version of the folder's layout; an index of another version is refused."""


class IndexCorrupt(CorruptFile):
    """A stored index that is damaged or incomplete; `path` is the file at fault."""


class Index:
    """(N, dim) unit rows of one space under int64 ids, searchable by modality.

    A shelf (the vectors of one modality) is searched exactly until it holds enough vectors: 9,984, and 39 for each
    centroid that the factory trains. Then its FAISS index is trained and filled.

    Several threads may search an index on the CPU at the same time. A change needs the index to itself: where searches
    go on in the meantime, change a `fork` and search the fork from then on.

    Args:
        space: the identity of the space of all vectors, as `BindModel.space` has it.
        dim: the dimension D of the vectors.
        factory: a FAISS factory string ("Flat", "HNSW32", "IVF256,PQ64", "LSH", "RaBitQ", ...), or "CAGRA".
        device: "cpu", "cuda" or "cuda:N". On a GPU, "Flat" keeps fp16 rows (scores are rounded, see
            `bind.index.exact_gpu`) and other factories use FAISS's GPU indexes.

    Raises:
        ValueError: FAISS does not know the factory or cannot run it on the device, or `dim` is below 1.
        DeviceError: the GPU does not exist (a RuntimeError too).

    Example:
        >>> index = bind.Index(space=model.space, dim=model.dim)
        >>> index.add([7, 8], model.embed(["dog.jpg", "cat.png"]), modality="image")
        >>> scores, ids = index.search(model.embed(["text:a cat"]), k=1)
        >>> int(ids[0, 0])
        8
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
        """A copy of the index that can be changed while this index is searched; this index must not change from then
        on.

        Both share the vectors. They share a FAISS index too, until the fork has so many new rows that it makes one of
        its own; until then the new rows are searched exactly.
        """
        new = copy.copy(self)
        new._shelves = {name: shelf.fork() for name, shelf in self._shelves.items()}
        return new

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that have vectors, sorted."""
        return tuple(sorted(name for name, shelf in self._shelves.items() if shelf.live))

    def count(self, modality: str) -> int:
        """The number of vectors of a modality (0 for one that was never added)."""
        return self._shelves[modality].live if modality in self._shelves else 0

    def add(self, ids: npt.ArrayLike, embeddings: Embeddings, modality: str) -> None:
        """Stores N embeddings of a modality under (N,) ids. Either all of them are stored or none.

        Args:
            ids: (N,) integers >= 0, unique over all modalities.
            embeddings: (N, dim) unit rows of the index's space.
            modality: the name under which `search` finds these vectors.

        Raises:
            SpaceError: the embeddings are of another space (a ValueError too).
            ValueError: the dimension is another, `ids` are not N non-negative integers, or an id is given twice or
                taken.

        Example:
            >>> index = bind.Index(space=model.space, dim=model.dim)
            >>> index.add([1, 2], model.embed(["dog.jpg", "cat.png"]), modality="image")
            >>> len(index), index.modalities
            (2, ('image',))
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
        """Removes (N,) ids -> how many of them were in the index. The next `save` frees their disk space."""
        given = _as_ids(ids)
        return sum(shelf.remove(given) for shelf in self._shelves.values())

    def ids(self, modality: str) -> Integers:
        """The (N,) int64 ids of a modality, ascending."""
        if modality not in self._shelves:
            return np.empty(0, np.int64)
        known = self._shelves[modality].ids
        return np.sort(known[known >= 0])

    def vectors(self, ids: npt.ArrayLike) -> tuple[Integers, Floats]:
        """(N,) ids -> the (n,) ids among them that are in the index, ascending, and their (n, dim) vectors."""
        given = np.unique(_as_ids(ids))
        found = [shelf.vectors(given) for shelf in self._shelves.values()]
        numbers = np.concatenate([np.empty(0, np.int64), *(part[0] for part in found)])
        rows = np.concatenate([np.empty((0, self.dim), np.float32), *(part[1] for part in found)])
        order = np.argsort(numbers)
        return numbers[order], rows[order]

    def search(
        self, queries: Embeddings, k: int = 10, modality: str | Sequence[str] | None = None
    ) -> tuple[Floats, Integers]:
        """(Q, D) queries -> (Q, k) cosines, descending, and (Q, k) ids; equal cosines are ordered by ascending id.

        The exact search takes O(Q N D) time. Where a shelf has a FAISS index, only its candidates are ranked.

        Args:
            queries: Q embeddings of the index's space.
            k: the number of results for each query, at least 1.
            modality: one name, several, or None for all; a modality without vectors has no results.

        Returns:
            Float32 scores and int64 ids; where there are fewer than k results, the score is -inf and the id -1.

        Raises:
            SpaceError: the queries are of another space (a ValueError too).
            ValueError: the dimension is another, or k < 1.

        Example:
            >>> index = bind.Index(space=model.space, dim=model.dim)
            >>> index.add([1, 2], model.embed(["dog.jpg", "cat.png"]), modality="image")
            >>> scores, ids = index.search(model.embed(["text:a cat"]), k=3, modality="image")
            >>> ids.tolist()
            [[2, 1, -1]]
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
        """Writes the index as a new generation inside `folder`, then makes it the current one in one atomic step.

        A crash or a full disk at any moment leaves the previous generation in place and readable. One process may save
        to a folder at a time.

        Args:
            folder: the folder of the index; it is created where it is missing.

        Raises:
            OSError: writing fails.

        Example:
            >>> index = bind.Index(space=model.space, dim=model.dim)
            >>> index.add([1], model.embed(["dog.jpg"]), modality="image")
            >>> index.save("my-index")
            >>> len(bind.Index.load("my-index"))
            1
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
        """The current generation in `folder` -> an index whose vectors are memory-mapped.

        The sizes of all files are always checked, and the hashes of all files but the vectors; FAISS reads no file
        before its hash matched.

        Args:
            folder: a folder that `save` wrote.
            device: where the index is searched, as in `Index`.
            verify: whether the hashes of the vectors are checked too, which reads all of them once.

        Raises:
            FileNotFoundError: there is no index in the folder.
            IndexCorrupt: a file is damaged or missing.
            ValueError: the format is of a newer version, or `Index` refuses the factory on this device.

        Example:
            >>> bind.Index(space=model.space, dim=model.dim).save("my-index")
            >>> bind.Index.load("my-index", verify=True).dim
            384
        """
        try:
            while True:
                generation = Generation(_owned(folder))
                try:
                    return cls._load_generation(generation, device, verify)
                except FileNotFoundError:
                    if generation.is_current():
                        raise
                    # A writer has switched generations in the meantime: read the new one.
        except CorruptFile as error:
            raise IndexCorrupt(error.path, f"{error.reason}; build the index again") from None

    @staticmethod
    def verify(folder: str | os.PathLike[str] | OwnedFolder) -> tuple[str, int]:
        """The current generation in `folder` -> its space and dim, after every hash was compared. No device is needed.

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
                # This makes a plain array of the mapping: numpy's memmap type would make every result a memmap too.
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
