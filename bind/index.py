"""Nearest neighbours over unit vectors: one shelf a modality, exact or through FAISS, on disk in a folder.

The only module that imports faiss, and only where a factory needs it. The exact vectors are always kept (memory-mapped
after a load, so loading copies none). "Flat" searches them directly; every other factory only proposes candidates,
which are ranked by their exact scores. So scores are exact cosines, and equal ones are ordered by id.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from bind.space import Embeddings, SpaceError

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

CANDIDATES = 16
"""A factory proposes this many candidates for each wanted result, and 128 at least."""
MINIMUM_CANDIDATES = 128
TRAINING_ROWS_PER_CENTROID = 39
"""FAISS's own minimum (`ClusteringParameters.min_points_per_centroid`); below it k-means warns."""
MINIMUM_CENTROIDS = 256
REBUILD_SHARE = 0.25
"""Removed vectors stay in a FAISS index as tombstones until they are more than this share; then it is refilled."""
GPU_CANDIDATES = 2048
"""The most results one query may ask of a FAISS GPU index (its documented limit)."""

_FORMAT = 1
_QUERIES_PER_BLOCK = 256
_ROWS_PER_BLOCK = 8192
_SLACK = np.float32(2e-5)
"""More than two float32 matrix products of unit rows can differ by rounding: nothing within it is dropped early."""


class IndexCorrupt(ValueError):
    """A stored index that is damaged or incomplete; `path` is the file at fault. Build the index again."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}; build the index again")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[IndexCorrupt], tuple[Path, str]]:
        return type(self), (self.path, self.reason)


class Index:
    """(N, dim) unit rows of one space under int64 ids, searchable per modality.

    `factory` is any FAISS factory string ("Flat", "HNSW32", "IVF256,PQ64", "LSH", "RaBitQ", ...), or "CAGRA". What needs
    training is trained once a shelf holds 39 vectors a centroid and 9,984 at least; until then the shelf is searched
    exactly. `device` "cuda" keeps "Flat" as fp16 on the GPU (scores rounded: see `bind.exact_gpu`) and moves others
    to FAISS's GPU indexes.

    Raises ValueError for a factory that FAISS does not know or cannot run on the device, RuntimeError when "cuda" is
    asked for and there is no GPU. Searches may run in several threads on the CPU; changes need the index to themselves.
    """

    def __init__(self, space: str, dim: int, factory: str = "Flat", device: str = "cpu") -> None:
        if dim < 1:
            raise ValueError(f"index: expected dim >= 1, got {dim}")
        if device not in ("cpu", "cuda"):
            raise ValueError(f"index: expected device 'cpu' or 'cuda', got {device!r}")
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
            shelf = self._shelves.get(modality) or self._shelf(modality, _Rows(np.empty((0, self.dim), np.float32)))
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
        results the score is -inf and the id -1. Raises SpaceError for another space, ValueError for another dim or k < 1.
        """
        self._check(queries)
        if k < 1:
            raise ValueError(f"index: expected k >= 1, got {k}")
        wanted = self.modalities if modality is None else (modality,) if isinstance(modality, str) else modality
        shelves = [self._shelves[name] for name in dict.fromkeys(wanted) if self.count(name)]
        vectors = np.ascontiguousarray(queries.vectors)
        found = [shelf.search(vectors, min(k, shelf.live)) for shelf in shelves]
        return _best(found, len(queries), k)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes a new generation inside `folder`, then makes it the current one in one atomic step.

        A crash or a full disk at any moment leaves the previous generation in place and readable. Raises OSError when
        writing fails. One process may save to a folder at a time.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        generation = folder / f"generation-{uuid.uuid4().hex}"
        generation.mkdir()
        try:
            sums = self._write(generation)
            listing = "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()
            with _written(generation / "SHA256SUMS") as out:
                out.write(listing)
            _sync_folder(generation)
            pointer = generation / "CURRENT"
            with _written(pointer) as out:
                out.write(f"{generation.name} {hashlib.sha256(listing).hexdigest()}\n".encode())
            os.replace(pointer, folder / "CURRENT")
        except BaseException:
            shutil.rmtree(generation, ignore_errors=True)
            raise
        _sync_folder(folder)
        for old in folder.glob("generation-*"):
            if old != generation:
                shutil.rmtree(old, ignore_errors=True)  # a reader that has it mapped keeps it until it closes it

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str = "cpu", verify: bool = False) -> Index:
        """The current generation in `folder` -> Index, its vectors memory-mapped.

        Every file's size and the hashes of all but the vectors are checked always (FAISS reads none of its files
        before its hash matched); `verify` checks the hashes of the vectors as well, which reads them once.
        Raises FileNotFoundError when there is no index, IndexCorrupt when it is damaged, else what `Index` raises.
        """
        folder = Path(folder)
        while True:
            current = _read_current(folder)
            try:
                return cls._load_generation(folder, current, device, verify)
            except FileNotFoundError as error:
                # A writer may have switched generations between the two steps; then there is a new one to read.
                if _read_current(folder) == current:
                    raise IndexCorrupt(Path(error.filename), "is missing") from None

    @classmethod
    def _load_generation(cls, folder: Path, current: str, device: str, verify: bool) -> Index:
        name, _, digest = current.strip().partition(" ")
        if not name.startswith("generation-") or Path(name).name != name:
            raise IndexCorrupt(folder / "CURRENT", "does not name a generation")
        generation = folder / name
        listing = _read_checked(generation / "SHA256SUMS", digest).decode()
        sums = {line[66:]: line[:64] for line in listing.splitlines()}
        meta = json.loads(_read_checked(generation / "index.json", sums.get("index.json", "")))
        if meta["format"] != _FORMAT:
            raise ValueError(f"{generation}: expected index format {_FORMAT}, got {meta['format']}; update crossbind")
        index = cls(meta["space"], meta["dim"], meta["factory"], device)
        for number, entry in enumerate(meta["shelves"]):
            part = _Part(generation, number, sums)
            rows = _Rows(part.vectors(entry["count"], index.dim, verify))
            shelf = index._shelf(entry["modality"], rows, part.integers("ids"))
            if entry["indexed"]:
                shelf.adopt(part.faiss(), part.integers("positions"), entry["indexed"])
            shelf.absorb()
        return index

    def _write(self, generation: Path) -> dict[str, str]:
        """All files but the listing -> their SHA-256 by name."""
        sums: dict[str, str] = {}
        entries = []
        for number, name in enumerate(self.modalities):
            shelf = self._shelves[name]
            alive = shelf.ids >= 0
            with _written(generation / f"{number}.vectors", sums) as out:
                for start, block in shelf.rows.blocks():
                    kept = alive[start : start + len(block)]
                    out.write(block if kept.all() else block[kept])
            with _written(generation / f"{number}.ids", sums) as out:
                out.write(shelf.ids[alive])
            stored = shelf.stored()
            if stored is not None:
                faiss_index, positions = stored
                with _written(generation / f"{number}.positions", sums) as out:
                    # Removed rows are not written: the others move up, and tombstones point at none.
                    out.write(np.where(alive, np.cumsum(alive) - 1, -1)[positions].astype(np.int64))
                with _written(generation / f"{number}.faiss", sums) as out:
                    _write_faiss(faiss_index, out.write)
            indexed = int(alive[: shelf.indexed].sum()) if stored is not None else 0
            entries.append({"modality": name, "count": shelf.live, "indexed": indexed})
        meta = {"format": _FORMAT, "space": self.space, "dim": self.dim, "factory": self.factory, "shelves": entries}
        with _written(generation / "index.json", sums) as out:
            out.write(json.dumps(meta, indent=1).encode())
        return sums

    def _shelf(self, modality: str, rows: _Rows, ids: Integers | None = None) -> _Shelf:
        shelf = _Shelf(self.factory, self.device, rows, np.empty(0, np.int64) if ids is None else ids)
        self._shelves[modality] = shelf
        return shelf

    def _check(self, embeddings: Embeddings) -> None:
        if embeddings.space != self.space:
            raise SpaceError(self.space, embeddings.space)
        if embeddings.dim != self.dim:
            raise ValueError(f"index: expected vectors of dim {self.dim}, got {embeddings.dim}")


class _Rows:
    """(N, D) float32 rows: a base that is never copied (often memory-mapped) and a tail that grows."""

    def __init__(self, base: Floats) -> None:
        self._base = base
        self._tail = np.empty((0, base.shape[1]), np.float32)
        self._count = len(base)

    def __len__(self) -> int:
        return self._count

    def append(self, vectors: Floats) -> None:
        used = self._count - len(self._base)
        needed = used + len(vectors)
        if needed > len(self._tail):
            grown = np.empty((max(needed, 2 * used), self._tail.shape[1]), np.float32)
            grown[:used] = self._tail[:used]
            self._tail = grown
        self._tail[used:needed] = vectors
        self._count += len(vectors)

    def take(self, rows: Integers) -> Floats:
        """(M,) row numbers -> (M, D), a copy."""
        split = len(self._base)
        if self._count == split:
            return self._base[rows]
        taken = np.empty((len(rows), self._tail.shape[1]), np.float32)
        in_base = rows < split
        taken[in_base] = self._base[rows[in_base]]
        taken[~in_base] = self._tail[rows[~in_base] - split]
        return taken

    def blocks(self, start: int = 0) -> Iterator[tuple[int, Floats]]:
        """Views of up to `_ROWS_PER_BLOCK` rows each, with the number of their first row."""
        split = len(self._base)
        for part, offset, count in ((self._base, 0, split), (self._tail, split, self._count - split)):
            for at in range(max(start - offset, 0), count, _ROWS_PER_BLOCK):
                yield offset + at, part[at : min(at + _ROWS_PER_BLOCK, count)]


class _Shelf:
    """The vectors of one modality, by row number.

    `ids[row]` is -1 for a removed row. The first `indexed` rows are in the FAISS index (if any), whose position p holds
    row `positions[p]`; rows after them are searched exactly. On a GPU, "Flat" has its rows in `half`.
    """

    def __init__(self, factory: str, device: str, rows: _Rows, ids: Integers) -> None:
        self.factory = factory
        self.device = device
        self.rows = rows
        self.ids = ids
        self.live = len(ids)
        self.indexed = 0
        self.positions: Integers = np.empty(0, np.int64)
        self._faiss: Any = None
        self._cpu_faiss: Any = None
        self._row_of: dict[int, int] | None = None
        self._half: Any = None
        if device == "cuda" and factory == "Flat":
            from bind.exact_gpu import HalfRows  # here: torch is needed on a GPU only

            self._half = HalfRows(rows.take(np.empty(0, np.int64)).shape[1], device)
            for _, block in rows.blocks():
                self._half.append(block)

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
            return _best([(scores, np.where(rows >= 0, self.ids[rows], -1))], len(queries), k)
        if self._faiss is None:
            return _exact(queries, self.rows, self.ids, k)
        proposed = self._rerank(queries, self._candidates(queries, k), k)
        return _best([proposed, _exact(queries, self.rows, self.ids, k, self.indexed)], len(queries), k)

    def absorb(self) -> None:
        """Moves rows after `indexed` into the FAISS index, where there can be one and they are enough for it."""
        if self.factory == "Flat":
            return
        waiting = np.flatnonzero(self.ids[self.indexed :] >= 0) + self.indexed
        if self._faiss is None:
            if self.live and self.live >= _rows_needed(self.factory, self._dim()):
                self._build()
        elif not _grows(self.factory):
            if len(waiting) > REBUILD_SHARE * len(self.positions):
                self._build()
        elif len(waiting):
            self._fill(self._faiss, waiting)

    def adopt(self, faiss_index: Any, positions: Integers, indexed: int) -> None:
        """Takes a FAISS index that was read from a file."""
        self.positions = positions
        self.indexed = indexed
        self._faiss = _on_device(faiss_index, self.device)

    def stored(self) -> tuple[Any, Integers] | None:
        """What a file keeps of the FAISS index: None where there is none, and for CAGRA, which is built after a load."""
        if self._faiss is None or self.factory == "CAGRA":
            return None
        return _on_cpu(self._faiss, self.device), self.positions

    def _build(self) -> None:
        """Makes the FAISS index from the live rows: the first time, without tombstones, or because it cannot grow."""
        alive = np.flatnonzero(self.ids >= 0)
        self._faiss, self.positions, self.indexed = None, np.empty(0, np.int64), 0
        if not len(alive):
            return
        if self.factory == "CAGRA":
            built = _build_cagra(self.rows.take(alive))
            self._faiss, self.positions, self.indexed = built, alive, len(self.rows)
            return
        built = _new_faiss(self.factory, self._dim())
        if not built.is_trained:
            # FAISS uses 256 rows a centroid at most; evenly spaced ones make the result depend on the rows alone.
            most = _rows_needed(self.factory, self._dim()) * 256 // TRAINING_ROWS_PER_CENTROID
            built.train(self.rows.take(alive[np.linspace(0, len(alive) - 1, min(most, len(alive))).astype(np.int64)]))
        built = _on_device(built, self.device)
        self._fill(built, alive)
        self._faiss = built

    def _fill(self, faiss_index: Any, rows: Integers) -> None:
        step = len(rows) if not _grows(self.factory) else 8 * _ROWS_PER_BLOCK
        for start in range(0, len(rows), step):
            faiss_index.add(self.rows.take(rows[start : start + step]))
        self.positions = np.concatenate([self.positions, rows])
        self.indexed = len(self.rows)

    def _candidates(self, queries: Floats, k: int) -> Integers:
        """(Q, D) -> (Q, F) rows that FAISS proposes, -1 where there is none or a tombstone."""
        wanted = max(CANDIDATES * k, MINIMUM_CANDIDATES)
        most = len(self.positions) if self.device == "cpu" else min(len(self.positions), GPU_CANDIDATES)
        fetch = min(wanted + min(self._tombstones(), wanted), most)
        enough = min(k, len(self.positions) - self._tombstones())
        while True:
            places = self._faiss.search(queries, fetch)[1]
            rows = np.where(places >= 0, self.positions[places], -1)
            rows[(rows >= 0) & (self.ids[rows] < 0)] = -1
            # Only a query whose list is full of tombstones can gain by asking for more.
            short = ((rows >= 0).sum(axis=1) < enough) & (places[:, -1] >= 0)
            if fetch == most or not short.any():
                return rows
            fetch = min(4 * fetch, most)

    def _rerank(self, queries: Floats, candidates: Integers, k: int) -> tuple[Floats, Integers]:
        scores, ids = _nothing(len(queries), k)
        for place, (query, rows) in enumerate(zip(queries, candidates, strict=True)):
            _rank(query, self.rows, self.ids, rows[rows >= 0], scores[place], ids[place])
        return scores, ids

    def _tombstones(self) -> int:
        alive = self.live - int((self.ids[self.indexed :] >= 0).sum())
        return len(self.positions) - alive

    def _rows_by_id(self) -> dict[int, int]:
        if self._row_of is None:  # made for the first change: a search of a loaded index needs none
            alive = np.flatnonzero(self.ids >= 0)
            self._row_of = dict(zip(self.ids[alive].tolist(), alive.tolist(), strict=True))
        return self._row_of

    def _dim(self) -> int:
        return int(self.rows.take(np.empty(0, np.int64)).shape[1])


# Exact search


def _nothing(queries: int, k: int) -> tuple[Floats, Integers]:
    return np.full((queries, k), -np.inf, np.float32), np.full((queries, k), -1, np.int64)


def _exact(queries: Floats, rows: _Rows, ids: Integers, k: int, start: int = 0) -> tuple[Floats, Integers]:
    """(Q, D) against the live rows from `start` on -> the best (Q, k) scores and ids, ties by id.

    Matrix products choose, block by block, all rows within rounding of the k best; one dot product each ranks them.
    """
    scores, found = _nothing(len(queries), k)
    for first in range(0, len(queries), _QUERIES_PER_BLOCK):
        block = queries[first : first + _QUERIES_PER_BLOCK]
        floor = np.full((len(block), 1), -np.inf, np.float32)
        kept: list[tuple[Floats, Integers]] = [(np.empty(0, np.float32), np.empty(0, np.int64))] * len(block)
        for at, vectors in rows.blocks(start):
            products = block @ vectors.T
            removed = np.flatnonzero(ids[at : at + len(vectors)] < 0)
            if removed.size:
                products[:, removed] = -np.inf
            above = products > floor
            for place in np.flatnonzero(above.any(axis=1)):
                hits = np.flatnonzero(above[place])
                values = np.concatenate([kept[place][0], products[place, hits]])
                numbers = np.concatenate([kept[place][1], hits + at])
                if len(values) > k:
                    floor[place] = np.partition(values, -k)[-k] - _SLACK
                    near = values > floor[place]
                    values, numbers = values[near], numbers[near]
                kept[place] = values, numbers
        for place, (_, numbers) in enumerate(kept):
            _rank(block[place], rows, ids, numbers, scores[first + place], found[first + place])
    return scores, found


def _rank(query: Floats, rows: _Rows, ids: Integers, numbers: Integers, scores: Floats, found: Integers) -> None:
    """Writes the best of the rows `numbers` into `scores` and `found` (k,), by exact score, then by id.

    einsum adds in the same order for every row, unlike a matrix product: equal vectors get equal scores, wherever
    they are stored.
    """
    exact = np.einsum("md,d->m", rows.take(numbers), query)
    order = np.lexsort((ids[numbers], -exact))[: len(scores)]
    scores[: len(order)] = exact[order]
    found[: len(order)] = ids[numbers[order]]


def _best(parts: Sequence[tuple[Floats, Integers]], queries: int, k: int) -> tuple[Floats, Integers]:
    """Several (Q, any) scores and ids -> the best (Q, k) of all, ties by id, filled up with -inf and -1."""
    parts = [*parts, _nothing(queries, k)]
    scores = np.concatenate([part[0] for part in parts], axis=1)
    ids = np.concatenate([part[1] for part in parts], axis=1)
    order = np.lexsort((ids, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)


def _as_ids(ids: npt.ArrayLike) -> Integers:
    given = np.asarray(ids)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise ValueError(f"index: expected ids as (N,) integers, got shape {given.shape} of {given.dtype}")
    if given.dtype == np.uint64 and given.size and given.max() > np.iinfo(np.int64).max:
        raise ValueError(f"index: expected ids that fit int64, got {given.max()}")
    return given.astype(np.int64)


# FAISS


def _check_device(factory: str, device: str) -> None:
    if device == "cpu":
        if factory == "CAGRA":
            raise ValueError("index: factory 'CAGRA' runs on a GPU only; use device='cuda', or factory 'HNSW32'")
        return
    if factory == "Flat":
        import torch  # here: torch is needed on a GPU only

        present = torch.cuda.is_available()
    else:
        import faiss

        present = faiss.get_num_gpus() > 0
        if factory == "CAGRA" and not hasattr(faiss, "GpuIndexCagra"):
            raise ValueError(
                "index: the installed FAISS has no CAGRA (a build with cuVS has); use 'Flat' or 'IVF1024,Flat'"
            )
        if "HNSW" in factory or "NSG" in factory:
            raise ValueError(
                f"index: FAISS has no GPU form of {factory!r}; use device='cpu', or 'CAGRA', 'Flat' or 'IVF...'"
            )
    if not present:
        raise RuntimeError("index: device='cuda', but no CUDA device can be used here; use device='cpu'")


def _new_faiss(factory: str, dim: int) -> Any:
    """A factory string -> an empty FAISS index. Raises ValueError with FAISS's reason."""
    import faiss

    if factory == "CAGRA":
        return None
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
        core.nprobe = min(core.nlist, math.ceil(2 * math.sqrt(core.nlist)))  # FAISS's default is one list
    return made


def _core(faiss_index: Any) -> Any:
    """The index inside transforms and refinements; valid as long as the outer one is."""
    import faiss

    while isinstance(faiss_index, (faiss.IndexPreTransform, faiss.IndexRefine)):
        inner = faiss_index.index if isinstance(faiss_index, faiss.IndexPreTransform) else faiss_index.base_index
        faiss_index = faiss.downcast_index(inner)
    return faiss_index


def _rows_needed(factory: str, dim: int) -> int:
    """How many live vectors a shelf needs before its FAISS index is made."""
    made = _new_faiss(factory, dim)
    if made is not None and made.is_trained and _grows(factory):
        return 0
    core = _core(made)
    centroids = max(MINIMUM_CENTROIDS, getattr(core, "nlist", 0), core.pq.ksub if hasattr(core, "pq") else 0)
    return max(TRAINING_ROWS_PER_CENTROID * centroids, dim)


def _grows(factory: str) -> bool:
    """Whether vectors can be added to a FAISS index that has some; graphs built in one go cannot."""
    return factory != "CAGRA" and "NSG" not in factory


def _on_device(faiss_index: Any, device: str) -> Any:
    if device == "cpu":
        return faiss_index
    import faiss

    options = faiss.GpuClonerOptions()
    options.useFloat16LookupTables = True  # 64 sub-quantizers of 8 bits do not fit the shared memory otherwise
    try:
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, faiss_index, options)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1]
        raise ValueError(f"index: FAISS cannot put this factory on a GPU ({reason}); use device='cpu'") from None


def _on_cpu(faiss_index: Any, device: str) -> Any:
    if device == "cpu":
        return faiss_index
    import faiss

    return faiss.index_gpu_to_cpu(faiss_index)


def _build_cagra(vectors: Floats) -> Any:
    import faiss

    built = faiss.GpuIndexCagra(faiss.StandardGpuResources(), vectors.shape[1], faiss.METRIC_INNER_PRODUCT)
    built.train(vectors)  # builds the graph and keeps the vectors
    return built


def _write_faiss(faiss_index: Any, write: Callable[[bytes], None]) -> None:
    import faiss

    faiss.write_index(faiss_index, faiss.PyCallbackIOWriter(write))  # through Python: names need not be UTF-8


# Files


class _Output:
    """A binary file that hashes what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes | npt.NDArray[Any]) -> None:
        view = memoryview(np.ascontiguousarray(data)).cast("B") if isinstance(data, np.ndarray) else data
        self.digest.update(view)
        self._file.write(view)


@contextmanager
def _written(path: Path, sums: dict[str, str] | None = None) -> Iterator[_Output]:
    """A new file that is on the disk, not only in its cache, when the block ends; its hash goes into `sums`."""
    with open(path, "xb") as file:
        out = _Output(file)
        yield out
        file.flush()
        os.fsync(file.fileno())
    if sums is not None:
        sums[path.name] = out.digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read_current(folder: Path) -> str:
    try:
        return (folder / "CURRENT").read_text(encoding="ascii")
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{folder}: there is no index here (no file CURRENT)") from None
    except UnicodeDecodeError:
        raise IndexCorrupt(folder / "CURRENT", "does not name a generation") from None


def _read_checked(path: Path, digest: str) -> bytes:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise IndexCorrupt(path, "its SHA-256 is not the recorded one")
    return data


class _Part:
    """Reads the files of one shelf."""

    def __init__(self, generation: Path, number: int, sums: dict[str, str]) -> None:
        self._generation = generation
        self._number = number
        self._sums = sums

    def vectors(self, count: int, dim: int, verify: bool) -> Floats:
        path, digest = self._file("vectors")
        expected, size = count * dim * 4, path.stat().st_size
        if size != expected:
            raise IndexCorrupt(path, f"has {size} bytes, expected {expected}")
        if verify:
            with open(path, "rb") as file:
                self._check(file, path, digest)
        # A plain array over the mapping: arithmetic on numpy's memmap type is slower and gives memmaps again.
        return np.asarray(np.memmap(path, dtype="<f4", mode="r", shape=(count, dim)))

    def integers(self, kind: str) -> Integers:
        path, digest = self._file(kind)
        return np.frombuffer(_read_checked(path, digest), dtype="<i8").copy()

    def faiss(self) -> Any:
        import faiss

        path, digest = self._file("faiss")
        with open(path, "rb") as file:
            # The hash and FAISS read the same open file: it cannot be exchanged in between.
            self._check(file, path, digest)
            file.seek(0)
            return faiss.read_index(faiss.PyCallbackIOReader(file.read))

    def _file(self, kind: str) -> tuple[Path, str]:
        name = f"{self._number}.{kind}"
        return self._generation / name, self._sums.get(name, "")

    def _check(self, file: BinaryIO, path: Path, digest: str) -> None:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise IndexCorrupt(path, "its SHA-256 is not the recorded one")
