"""Nearest neighbours over unit vectors: one shelf a modality, exact or through FAISS, on disk in a folder.

The only module that imports faiss, and only where a factory needs it. The exact vectors are always kept (memory-mapped
after a load, so loading copies none). "Flat" searches them directly; every other factory only proposes candidates,
which are ranked by their exact scores. So scores are exact cosines, and equal ones are ordered by id.
"""

from __future__ import annotations

import copy
import importlib
import json
import math
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bind.index import exact
from bind.index.exact import Floats, Integers, Rows
from bind.index.generations import CorruptFile, Generation, NewGeneration, write_generation
from bind.owned import OwnedFolder
from bind.space import Embeddings, SpaceError
from preprocess.extras import check_faiss, needs

CANDIDATES = 64
"""A factory proposes this many candidates for each wanted result, and 128 at least."""
GRAPH_CANDIDATES = 16
"""Likewise for graphs over the full vectors, which rank them right themselves."""
MINIMUM_CANDIDATES = 128
PROBES = 8
"""An inverted file with L lists looks into `PROBES` * sqrt(L) of them (FAISS's default is one)."""
EXACT_BELOW = 39 * 256
"""Smaller shelves are searched exactly whatever the factory: that is as fast, and a graph of a few misses some."""
EXACT_ABOVE = 1 / 8
"""Likewise when a search would rank more than this share of a shelf as candidates, which a large k asks for."""
TRAINING_ROWS_LEAST = 39
"""Vectors a centroid below which FAISS's k-means warns (`ClusteringParameters.min_points_per_centroid`)."""
TRAINING_ROWS_MOST = 64
"""Vectors a centroid that training looks at; FAISS would take 256, four times as slow for the same recall here."""
REBUILD_SHARE = 0.25
"""Removed vectors stay in a FAISS index as tombstones until they are more than this share; then it is refilled."""
FORKED_SHARE = 0.02
"""A fork copies its FAISS index, to add to it, when it has more new rows than this share of it."""
GPU_CANDIDATES = 2048
CAGRA_CANDIDATES = 512
"""The most results one query may ask of a FAISS GPU index, and of a CAGRA graph at full speed; for more: exactly."""

_FORMAT = 1
_ROWS_PER_ADD = 65_536


class IndexCorrupt(CorruptFile):
    """A stored index that is damaged or incomplete; `path` is the file at fault."""


class DeviceError(ValueError, RuntimeError):
    """A GPU that is not there."""


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
        _check_device(self.factory, device)
        if self.factory != "Flat":
            _new_faiss(self.factory, dim)  # an unusable factory fails here, not after the first million vectors
        self._shelves: dict[str, _Shelf] = {}

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
                shelf.adopt(_read_faiss(generation, f"{name}.faiss"), positions, entry["indexed"])
            shelf.absorb()
        return index

    def _shelf(self, modality: str, rows: Rows, ids: Integers | None = None) -> _Shelf:
        shelf = _Shelf(self.factory, self.device, rows, np.empty(0, np.int64) if ids is None else ids)
        self._shelves[modality] = shelf
        return shelf

    def _check(self, embeddings: Embeddings) -> None:
        if embeddings.space != self.space:
            raise SpaceError(self.space, embeddings.space)
        if embeddings.dim != self.dim:
            raise ValueError(f"index: expected vectors of dim {self.dim}, got {embeddings.dim}")


class _Shelf:
    """The vectors of one modality, by row number.

    `ids[row]` is -1 for a removed row. The first `indexed` rows are in the FAISS index (if any), whose position p holds
    row `positions[p]`; rows after them are searched exactly. On a GPU, "Flat" has its rows in `half`.
    """

    def __init__(self, factory: str, device: str, rows: Rows, ids: Integers) -> None:
        self.factory = factory
        self.device = device
        self.rows = rows
        self.ids = ids
        self.live = len(ids)
        self.indexed = 0
        self.positions: Integers = np.empty(0, np.int64)
        self._faiss: Any = None
        self._cpu_faiss: Any = None
        self._is_shared = False
        self._row_of: dict[int, int] | None = None
        self._needed = 0 if factory == "Flat" else _rows_needed(factory, rows.dim)
        self._proposed = GRAPH_CANDIDATES if factory != "Flat" and _is_full_graph(factory, rows.dim) else CANDIDATES
        self._most = sys.maxsize if device == "cpu" else CAGRA_CANDIDATES if factory == "CAGRA" else GPU_CANDIDATES
        self._half: Any = None
        if device != "cpu" and factory == "Flat":
            from bind.index.exact_gpu import HalfRows  # here: torch is needed on a GPU only

            self._half = HalfRows(rows.dim, device)
            for _, block in rows.blocks():
                self._half.append(block)

    def fork(self) -> _Shelf:
        new = copy.copy(self)
        # Both may use the same spare room behind their last row, which only the fork ever fills.
        new.rows, new._half = copy.copy(self.rows), copy.copy(self._half)
        new._is_shared = self._faiss is not None
        self._row_of = None  # the fork's from now on
        return new

    def first_known(self, ids: Integers) -> int | None:
        row_of = self._rows_by_id()
        return next((number for number in ids.tolist() if number in row_of), None)

    def add(self, ids: Integers, vectors: Floats) -> None:
        row_of = self._rows_by_id()
        first = len(self.rows)
        self.rows.append(vectors)
        self.ids = np.concatenate([self.ids, ids])
        row_of.update(zip(ids.tolist(), range(first, first + len(ids)), strict=True))
        self.live += len(ids)
        if self._half is not None:
            self._half.append(vectors)
        self.absorb()

    def remove(self, ids: Integers) -> int:
        row_of = self._rows_by_id()
        gone = [row for row in (row_of.pop(number, None) for number in ids.tolist()) if row is not None]
        if not gone:
            return 0
        self.ids = self.ids.copy()  # a fork may have the same
        self.ids[gone] = -1
        self.live -= len(gone)
        if self._half is not None:
            self._half.remove(np.array(gone, np.int64))
        if self._faiss is not None and self._tombstones() > REBUILD_SHARE * len(self.positions):
            self._build()
        return len(gone)

    def search(self, queries: Floats, k: int) -> tuple[Floats, Integers]:
        """(Q, D) -> (Q, k) scores and ids; k is at most the number of live rows."""
        if self._half is not None:
            scores, rows = self._half.search(queries, k)
            return exact.best([(scores, np.where(rows >= 0, self.ids[rows], -1))], len(queries), k)
        wanted = max(self._proposed * k, MINIMUM_CANDIDATES)
        if self._faiss is None or wanted > EXACT_ABOVE * self.live:
            return exact.search(queries, self.rows, self.ids, k)
        candidates = self._candidates(queries, wanted)
        # Rows that are not in the FAISS index, in full; best() below drops what the candidates beat.
        scores, ids = exact.search(queries, self.rows, self.ids, k, self.indexed)
        proposed, proposed_ids = exact.nothing(len(queries), k)
        for place, rows in enumerate(candidates):
            exact.rank(queries[place], self.rows, self.ids, rows[rows >= 0], proposed[place], proposed_ids[place])
        scores, ids = exact.best([(proposed, proposed_ids), (scores, ids)], len(queries), k)
        # Tombstones, few probed lists or a large k can leave a query with too few to choose from.
        available = len(self.positions) - self._tombstones()
        short = (candidates >= 0).sum(axis=1) < min(max(min(wanted, self._most) // 2, k), available)
        if short.any():
            scores[short], ids[short] = exact.search(queries[short], self.rows, self.ids, k)
        return scores, ids

    def absorb(self) -> None:
        """Moves rows after `indexed` into the FAISS index, if there is one or can be one now."""
        if self.factory == "Flat":
            return
        waiting = np.flatnonzero(self.ids[self.indexed :] >= 0) + self.indexed
        if self._faiss is None:
            if self.live >= self._needed:
                self._build()
        elif _grows(self.factory):
            if self._is_shared:
                if len(waiting) <= FORKED_SHARE * len(self.positions):
                    return
                if self.device != "cpu":
                    self._build()
                    return
                self._faiss, self._is_shared = _faiss().clone_index(self._faiss), False
            self._fill(self._faiss, waiting)
        elif len(waiting) > REBUILD_SHARE * len(self.positions):
            self._build()

    def adopt(self, faiss_index: Any, positions: Integers, indexed: int) -> None:
        """Takes a FAISS index that was read from a file."""
        self.positions = positions
        self.indexed = indexed
        self._faiss = _on_device(faiss_index, self.device)

    def write(self, new: NewGeneration, name: str) -> int:
        """Writes NAME.vectors, NAME.ids and, with a FAISS index, NAME.positions and NAME.faiss -> the new `indexed`.

        Removed rows are left out. A CAGRA graph is not written either: it is built again after a load.
        """
        alive = self.ids >= 0
        with new.file(f"{name}.vectors") as out:
            for start, block in self.rows.blocks():
                kept = alive[start : start + len(block)]
                if kept.any():
                    out.write((block if kept.all() else block[kept]).data.cast("B"))
        with new.file(f"{name}.ids") as out:
            out.write(self.ids[alive].tobytes())
        if self._faiss is None or self.factory == "CAGRA":
            return 0
        # The rows after a removed one move up, and what pointed at it (or at none before) points at none: -1.
        moved = np.append(np.where(alive, np.cumsum(alive) - 1, -1), -1)
        with new.file(f"{name}.positions") as out:
            out.write(moved[self.positions].astype(np.int64).tobytes())
        faiss = _faiss()
        with new.file(f"{name}.faiss") as out:
            # Through Python, not by name: a name need not be UTF-8.
            faiss.write_index(_on_cpu(self._faiss, self.device), faiss.PyCallbackIOWriter(out.write))
        return int(alive[: self.indexed].sum())

    def _build(self) -> None:
        """Makes the FAISS index anew from the live rows, without tombstones; none where they are too few."""
        self._faiss, self.positions, self.indexed = None, np.empty(0, np.int64), 0
        self._is_shared = False
        alive = np.flatnonzero(self.ids >= 0)
        if not len(alive) or len(alive) < self._needed:
            return
        if self.factory == "CAGRA":
            built = _build_cagra(self.rows.take(alive), self.device)
            self.positions, self.indexed = alive, int(alive[-1]) + 1
        else:
            built = _new_faiss(self.factory, self.rows.dim)
            if not built.is_trained:
                # Evenly spaced rows, so that the result depends on the rows alone.
                most = min(len(alive), self._needed * TRAINING_ROWS_MOST // TRAINING_ROWS_LEAST)
                built.train(self.rows.take(alive[np.linspace(0, len(alive) - 1, most).astype(np.int64)]))
            built = _on_device(built, self.device)
            self._fill(built, alive)
        self._faiss = built

    def _fill(self, faiss_index: Any, rows: Integers) -> None:
        step = _ROWS_PER_ADD if _grows(self.factory) else max(len(rows), 1)
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            faiss_index.add(self.rows.take(block))
            self.positions = np.concatenate([self.positions, block])
            self.indexed = int(block[-1]) + 1

    def _candidates(self, queries: Floats, wanted: int) -> Integers:
        """(Q, D) -> (Q, F) rows that FAISS proposes, -1 where there is none or a tombstone."""
        fetch = min(wanted + min(self._tombstones(), wanted), len(self.positions), self._most)
        places = self._faiss.search(queries, fetch, params=_search_parameters(self._faiss, fetch))[1]
        rows = np.where(places >= 0, self.positions[places], -1)
        rows[(rows >= 0) & (self.ids[rows] < 0)] = -1
        return rows

    def _tombstones(self) -> int:
        alive = self.live - int((self.ids[self.indexed :] >= 0).sum())
        return len(self.positions) - alive

    def _rows_by_id(self) -> dict[int, int]:
        if self._row_of is None:  # made for the first change: a search of a loaded index needs none
            alive = np.flatnonzero(self.ids >= 0)
            self._row_of = dict(zip(self.ids[alive].tolist(), alive.tolist(), strict=True))
        return self._row_of


def _owned(folder: str | os.PathLike[str] | OwnedFolder) -> OwnedFolder:
    return folder if isinstance(folder, OwnedFolder) else OwnedFolder(folder)


def _as_ids(ids: npt.ArrayLike) -> Integers:
    given = np.asarray(ids)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise ValueError(f"index: expected ids as (N,) integers, got shape {given.shape} of {given.dtype}")
    if given.dtype == np.uint64 and given.size and given.max() > np.iinfo(np.int64).max:
        raise ValueError(f"index: expected ids that fit int64, got {given.max()}")
    return given.astype(np.int64)


# FAISS


def gpu_count() -> int:
    """How many GPUs the installed FAISS can use."""
    return int(_faiss().get_num_gpus())


def _faiss() -> Any:
    """The library, loaded when first needed; untyped, because its stubs lack many of its names. Raises MissingExtra."""
    check_faiss()
    with needs("cpu", "an index that is not Flat"):
        return importlib.import_module("faiss")


def _check_device(factory: str, device: str) -> None:
    if device == "cpu":
        if factory == "CAGRA":
            raise ValueError("index: factory 'CAGRA' runs on a GPU only; use device='cuda', or factory 'HNSW32'")
        return
    if factory == "Flat":
        import torch  # here: torch is needed on a GPU only

        present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    else:
        faiss = _faiss()

        present = gpu_count()
        if factory == "CAGRA" and not hasattr(faiss, "GpuIndexCagra"):
            raise ValueError(
                "index: the installed FAISS has no CAGRA (a build with cuVS has); use 'Flat' or 'IVF1024,Flat'"
            )
        if "HNSW" in factory or "NSG" in factory:
            raise ValueError(
                f"index: FAISS has no GPU form of {factory!r}; use device='cpu', or 'CAGRA', 'Flat' or 'IVF...'"
            )
    if _number(device) >= present:
        raise DeviceError(
            f"index: device={device!r}, but {present or 'no'} CUDA device(s) can be used here; use device='cpu'"
        )


def _number(device: str) -> int:
    """`cuda:1` -> 1, `cuda` -> 0."""
    return int(device.partition(":")[2] or 0)


def _new_faiss(factory: str, dim: int) -> Any:
    """A factory string -> an empty FAISS index. Raises ValueError with FAISS's reason."""
    faiss = _faiss()

    if factory == "CAGRA":
        return None
    if not factory.isascii():
        raise ValueError(f"index: FAISS cannot make {factory!r}: expected ASCII")
    try:
        try:
            made = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
        except RuntimeError:
            # LSH knows L2 only; over unit rows it proposes the same neighbours.
            made = faiss.index_factory(dim, factory, faiss.METRIC_L2)
    except RuntimeError as error:
        raise ValueError(f"index: FAISS cannot make {factory!r} for dim {dim}: {str(error).splitlines()[-1]}") from None
    if isinstance(made, faiss.IndexIDMap):
        raise ValueError(f"index: {factory!r} maps ids, which Index does itself; leave IDMap out")
    core = _core(made)
    if isinstance(core, faiss.IndexIVF):
        core.nprobe = min(core.nlist, math.ceil(PROBES * math.sqrt(core.nlist)))
        coarse = faiss.downcast_index(core.quantizer)
        if isinstance(coarse, faiss.IndexHNSW):
            coarse.hnsw.efSearch = 2 * core.nprobe
    if hasattr(core, "do_polysemous_training"):
        core.do_polysemous_training = False  # it takes most of the training time, and only polysemous search gains
    return made


def _core(faiss_index: Any) -> Any:
    """The index inside transforms and refinements; valid as long as the outer one is."""
    faiss = _faiss()

    while isinstance(faiss_index, (faiss.IndexPreTransform, faiss.IndexRefine)):
        inner = faiss_index.index if isinstance(faiss_index, faiss.IndexPreTransform) else faiss_index.base_index
        faiss_index = faiss.downcast_index(inner)
    return faiss_index


def _search_parameters(faiss_index: Any, fetch: int) -> Any:
    """What makes a graph look at `fetch` nodes at least: FAISS's default is 16, however many results are wanted."""
    faiss = _faiss()

    if isinstance(faiss_index, faiss.IndexPreTransform):
        inner = _search_parameters(faiss.downcast_index(faiss_index.index), fetch)
        return inner and faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(faiss_index, faiss.IndexRefine):
        inner = _search_parameters(faiss.downcast_index(faiss_index.base_index), fetch)
        return inner and faiss.IndexRefineSearchParameters(k_factor=faiss_index.k_factor, base_index_params=inner)
    if isinstance(faiss_index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=fetch)
    if hasattr(faiss, "GpuIndexCagra") and isinstance(faiss_index, faiss.GpuIndexCagra):
        return faiss.SearchParametersCagra(itopk_size=fetch)
    return None


def _rows_needed(factory: str, dim: int) -> int:
    """How many live vectors a shelf needs before its FAISS index is made."""
    core = _core(_new_faiss(factory, dim))
    centroids = max(getattr(core, "nlist", 0), core.pq.ksub if hasattr(core, "pq") else 0)
    return max(EXACT_BELOW, TRAINING_ROWS_LEAST * centroids)


def _is_full_graph(factory: str, dim: int) -> bool:
    faiss = _faiss()
    return factory == "CAGRA" or isinstance(_new_faiss(factory, dim), (faiss.IndexHNSWFlat, faiss.IndexNSGFlat))


def _grows(factory: str) -> bool:
    """Whether vectors can be added to a FAISS index that has some; graphs built in one go cannot."""
    return factory != "CAGRA" and "NSG" not in factory


def _on_device(faiss_index: Any, device: str) -> Any:
    if device == "cpu":
        return faiss_index
    faiss = _faiss()

    options = faiss.GpuClonerOptions()
    options.useFloat16LookupTables = True  # 64 sub-quantizers of 8 bits do not fit the shared memory otherwise
    try:
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), _number(device), faiss_index, options)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1]
        raise ValueError(f"index: FAISS cannot put this factory on a GPU ({reason}); use device='cpu'") from None


def _on_cpu(faiss_index: Any, device: str) -> Any:
    if device == "cpu":
        return faiss_index
    faiss = _faiss()

    return faiss.index_gpu_to_cpu(faiss_index)


def _build_cagra(vectors: Floats, device: str) -> Any:
    faiss = _faiss()

    config = faiss.GpuIndexCagraConfig()
    config.device = _number(device)
    built = faiss.GpuIndexCagra(faiss.StandardGpuResources(), vectors.shape[1], faiss.METRIC_INNER_PRODUCT, config)
    built.train(vectors)  # builds the graph and keeps the vectors
    return built


def _read_faiss(generation: Generation, name: str) -> Any:
    faiss = _faiss()

    with generation.open(name) as file:
        return faiss.read_index(faiss.PyCallbackIOReader(file.read))


def _read_integers(generation: Generation, name: str) -> Integers:
    return np.frombuffer(generation.read(name), dtype="<i8").copy()
