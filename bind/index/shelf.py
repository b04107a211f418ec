"""A shelf: the vectors of one modality as exact rows, and a FAISS index that proposes candidates among them."""

from __future__ import annotations

import copy
import sys
from typing import Any

import numpy as np

from bind.index import exact, factories
from bind.index.exact import Floats, Integers, Rows
from bind.index.generations import NewGeneration

CANDIDATES = 64
"""A factory proposes this many candidates for each wanted result, and at least 128."""
GRAPH_CANDIDATES = 16
"""The same for graphs over the full vectors, whose own ranking of candidates is right."""
MINIMUM_CANDIDATES = 128
"""Candidates of a query for a small k, for which a multiple of k would be too few to be sure of the best ones."""
EXACT_BELOW = 39 * 256
"""Smaller shelves are searched exactly whatever the factory: that is as fast, and a small graph misses neighbours."""
EXACT_ABOVE = 1 / 8
"""A shelf is searched exactly when more than this share of it would be ranked as candidates, as for a large k."""
TRAINING_ROWS_LEAST = 39
"""The least training vectors for a centroid: below, FAISS warns (`ClusteringParameters.min_points_per_centroid`)."""
TRAINING_ROWS_MOST = 64
"""The most training vectors for a centroid. FAISS's default, 256, took four times as long for the same recall."""
REBUILD_SHARE = 0.25
"""The share of removed vectors (tombstones) in a FAISS index above which the index is filled anew."""
FORKED_SHARE = 0.02
"""A fork copies its FAISS index, to add rows to it, when its new rows are more than this share of the index."""
GPU_CANDIDATES = 2048
"""The most candidates that one query may ask of a FAISS GPU index (its k-selection); beyond it, search is exact."""
CAGRA_CANDIDATES = 512
"""The most candidates that one query may ask of a FAISS GPU index; a query that needs more is searched exactly."""

_ROWS_PER_ADD = 65_536
"""Rows that are handed to FAISS at a time, 100 MB of 384 float32: whatever it copies stays small."""


class Shelf:
    """The vectors of one modality, by row number.

    `ids[row]` is -1 for a removed row. The first `indexed` rows are in the FAISS index, if there is one; its position p
    holds the row `positions[p]`. The rows after them are searched exactly. On a GPU, "Flat" has its rows in `half`.
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
        self._proposed = (
            GRAPH_CANDIDATES if factory != "Flat" and factories.is_full_graph(factory, rows.dim) else CANDIDATES
        )
        self._most = sys.maxsize if device == "cpu" else CAGRA_CANDIDATES if factory == "CAGRA" else GPU_CANDIDATES
        self._half: Any = None
        if device != "cpu" and factory == "Flat":
            from bind.index.exact_gpu import HalfRows  # imported here, because only a GPU needs torch

            self._half = HalfRows(rows.dim, device)
            for _, block in rows.blocks():
                self._half.append(block)

    def fork(self) -> Shelf:
        """A shelf of the same vectors that can be changed while this one is searched."""
        new = copy.copy(self)
        # Both may use the same spare room behind their last row, because only the fork ever fills it.
        new.rows, new._half = copy.copy(self.rows), copy.copy(self._half)
        new._is_shared = self._faiss is not None
        self._row_of = None  # from now on it belongs to the fork
        return new

    def first_known(self, ids: Integers) -> int | None:
        """The first of the ids that is on this shelf already, or None."""
        row_of = self._rows_by_id()
        return next((number for number in ids.tolist() if number in row_of), None)

    def vectors(self, ids: Integers) -> tuple[Integers, Floats]:
        """(N,) ids -> the (n,) ids that are on this shelf, in the order of its rows, and their (n, D) vectors."""
        rows = np.flatnonzero(np.isin(self.ids, ids) & (self.ids >= 0))
        return self.ids[rows], self.rows.take(rows)

    def add(self, ids: Integers, vectors: Floats) -> None:
        """Stores (N,) ids and (N, D) unit rows behind the others."""
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
        """Removes (N,) ids -> how many of them were on this shelf."""
        row_of = self._rows_by_id()
        gone = [row for row in (row_of.pop(number, None) for number in ids.tolist()) if row is not None]
        if not gone:
            return 0
        self.ids = self.ids.copy()  # a fork may share the array
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
        # The rows outside of the FAISS index are searched in full; best() below drops those that the candidates beat.
        scores, ids = exact.search(queries, self.rows, self.ids, k, self.indexed)
        proposed, proposed_ids = exact.nothing(len(queries), k)
        for place, rows in enumerate(candidates):
            exact.rank(queries[place], self.rows, self.ids, rows[rows >= 0], proposed[place], proposed_ids[place])
        scores, ids = exact.best([(proposed, proposed_ids), (scores, ids)], len(queries), k)
        # Tombstones, few probed lists or a large k can leave a query with too few candidates.
        available = len(self.positions) - self._tombstones()
        short = (candidates >= 0).sum(axis=1) < min(max(min(wanted, self._most) // 2, k), available)
        if short.any():
            scores[short], ids[short] = exact.search(queries[short], self.rows, self.ids, k)
        return scores, ids

    def absorb(self) -> None:
        """Moves the rows after `indexed` into the FAISS index, if there is one or if one can be made now."""
        if self.factory == "Flat":
            return
        waiting = np.flatnonzero(self.ids[self.indexed :] >= 0) + self.indexed
        if self._faiss is None:
            if self.live >= self._needed:
                self._build()
        elif factories.grows(self.factory):
            if self._is_shared:
                if len(waiting) <= FORKED_SHARE * len(self.positions):
                    return
                if self.device != "cpu":
                    self._build()
                    return
                self._faiss, self._is_shared = factories.faiss_module().clone_index(self._faiss), False
            self._fill(self._faiss, waiting)
        elif len(waiting) > REBUILD_SHARE * len(self.positions):
            self._build()

    def adopt(self, faiss_index: Any, positions: Integers, indexed: int) -> None:
        """Takes over a FAISS index that was read from a file."""
        self.positions = positions
        self.indexed = indexed
        self._faiss = factories.on_device(faiss_index, self.device)

    def write(self, new: NewGeneration, name: str) -> int:
        """Writes NAME.vectors, NAME.ids and, with a FAISS index, NAME.positions and NAME.faiss -> the new `indexed`.

        Removed rows are not written. A CAGRA graph is not written either, because loading builds it again.
        """
        alive = self.ids >= 0
        with new.file(f"{name}.vectors") as out:
            for start, block in self.rows.blocks():
                live = alive[start : start + len(block)]
                if live.any():
                    out.write((block if live.all() else block[live]).data.cast("B"))
        with new.file(f"{name}.ids") as out:
            out.write(self.ids[alive].tobytes())
        if self._faiss is None or self.factory == "CAGRA":
            return 0
        # The rows after a removed one move up; positions that pointed at a removed row become -1.
        moved = np.append(np.where(alive, np.cumsum(alive) - 1, -1), -1)
        with new.file(f"{name}.positions") as out:
            out.write(moved[self.positions].astype(np.int64).tobytes())
        faiss = factories.faiss_module()
        with new.file(f"{name}.faiss") as out:
            # The file is written through Python and not by FAISS, because a path need not be UTF-8.
            faiss.write_index(factories.on_cpu(self._faiss, self.device), faiss.PyCallbackIOWriter(out.write))
        return int(alive[: self.indexed].sum())

    def _build(self) -> None:
        """Makes the FAISS index anew from the live rows, without tombstones; none where there are too few rows."""
        self._faiss, self.positions, self.indexed = None, np.empty(0, np.int64), 0
        self._is_shared = False
        alive = np.flatnonzero(self.ids >= 0)
        if not len(alive) or len(alive) < self._needed:
            return
        if self.factory == "CAGRA":
            built = factories.build_cagra(self.rows.take(alive), self.device)
            self.positions, self.indexed = alive, int(alive[-1]) + 1
        else:
            built = factories.new_index(self.factory, self.rows.dim)
            if not built.is_trained:
                # The training rows are evenly spaced, so that the result depends on the rows alone.
                most = min(len(alive), self._needed * TRAINING_ROWS_MOST // TRAINING_ROWS_LEAST)
                built.train(self.rows.take(alive[np.linspace(0, len(alive) - 1, most).astype(np.int64)]))
            built = factories.on_device(built, self.device)
            self._fill(built, alive)
        self._faiss = built

    def _fill(self, faiss_index: Any, rows: Integers) -> None:
        step = _ROWS_PER_ADD if factories.grows(self.factory) else max(len(rows), 1)
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            faiss_index.add(self.rows.take(block))
            self.positions = np.concatenate([self.positions, block])
            self.indexed = int(block[-1]) + 1

    def _candidates(self, queries: Floats, wanted: int) -> Integers:
        """(Q, D) -> (Q, F) rows that FAISS proposes; -1 where it proposes nothing or a tombstone."""
        fetch = min(wanted + min(self._tombstones(), wanted), len(self.positions), self._most)
        places = self._faiss.search(queries, fetch, params=factories.search_parameters(self._faiss, fetch))[1]
        rows = np.where(places >= 0, self.positions[places], -1)
        rows[(rows >= 0) & (self.ids[rows] < 0)] = -1
        return rows

    def _tombstones(self) -> int:
        alive = self.live - int((self.ids[self.indexed :] >= 0).sum())
        return len(self.positions) - alive

    def _rows_by_id(self) -> dict[int, int]:
        if self._row_of is None:  # the table is made for the first change: searching a loaded index does not need it
            alive = np.flatnonzero(self.ids >= 0)
            self._row_of = dict(zip(self.ids[alive].tolist(), alive.tolist(), strict=True))
        return self._row_of


def _rows_needed(factory: str, dim: int) -> int:
    """The number of live vectors from which on a shelf has a FAISS index."""
    core = factories.core_of(factories.new_index(factory, dim))
    centroids = max(getattr(core, "nlist", 0), core.pq.ksub if hasattr(core, "pq") else 0)
    return max(EXACT_BELOW, TRAINING_ROWS_LEAST * centroids)
