"""Exact search in numpy: rows that grow and may be memory-mapped, ranked by cosine, with ties in order of their ids."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

_QUERIES_PER_BLOCK = 256
"""Queries that are scored in one matrix product."""
_ROWS_PER_BLOCK = 8192
"""Rows that are scored in one matrix product: 8 MiB of scores with `_QUERIES_PER_BLOCK`, about a core's cache."""
_SLACK = np.float32(2e-5)
"""Two float32 matrix products of unit rows differ by less than this through rounding; closer rows are not dropped
early.
"""


class Rows:
    """(N, D) float32 rows: a base that is never copied (often memory-mapped) and a tail that grows."""

    def __init__(self, base: Floats) -> None:
        self._base = base
        self._tail = np.empty((0, base.shape[1]), np.float32)
        self._count = len(base)
        self.dim = base.shape[1]

    def __len__(self) -> int:
        return self._count

    def append(self, vectors: Floats) -> None:
        """Copies (n, D) to the end."""
        used = self._count - len(self._base)
        needed = used + len(vectors)
        if needed > len(self._tail):
            grown = np.empty((max(needed, 2 * used), self.dim), np.float32)
            grown[:used] = self._tail[:used]
            self._tail = grown
        self._tail[used:needed] = vectors
        self._count += len(vectors)

    def take(self, rows: Integers) -> Floats:
        """(M,) row numbers -> (M, D), a copy."""
        split = len(self._base)
        if self._count == split:
            return self._base[rows]
        taken = np.empty((len(rows), self.dim), np.float32)
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


def nothing(queries: int, k: int) -> tuple[Floats, Integers]:
    """(Q, k) scores of -inf and ids of -1: an empty result."""
    return np.full((queries, k), -np.inf, np.float32), np.full((queries, k), -1, np.int64)


def search(queries: Floats, rows: Rows, ids: Integers, k: int, start: int = 0) -> tuple[Floats, Integers]:
    """(Q, D) queries against the live rows from `start` on -> the best (Q, k) scores and ids, ties in order of ids.

    The search takes two steps. Matrix products, one block of rows at a time, find all rows whose score lies within
    rounding error of the k best. `rank` then computes one dot product for each of these rows and sorts them. The memory
    needed does not depend on N; the time is O(Q N D).
    """
    scores, found = nothing(len(queries), k)
    for first in range(0, len(queries), _QUERIES_PER_BLOCK):
        block = queries[first : first + _QUERIES_PER_BLOCK]
        floor = np.full((len(block), 1), -np.inf, np.float32)
        candidates: list[tuple[Floats, Integers]] = [(np.empty(0, np.float32), np.empty(0, np.int64))] * len(block)
        for at, vectors in rows.blocks(start):
            with _blas_threads(len(block)):
                products = block @ vectors.T
            removed = np.flatnonzero(ids[at : at + len(vectors)] < 0)
            if removed.size:
                products[:, removed] = -np.inf
            above = products > floor
            for place in np.flatnonzero(above.any(axis=1)):
                hits = np.flatnonzero(above[place])
                values = np.concatenate([candidates[place][0], products[place, hits]])
                numbers = np.concatenate([candidates[place][1], hits + at])
                if len(values) > k:
                    floor[place] = np.partition(values, -k)[-k] - _SLACK
                    near = values > floor[place]
                    values, numbers = values[near], numbers[near]
                candidates[place] = values, numbers
        for query, (_, numbers) in enumerate(candidates, start=first):
            rank(queries[query], rows, ids, numbers, scores[query], found[query])
    return scores, found


class _OneThread:
    """A context in which numpy's BLAS uses one thread, as long as at least one search is inside.

    The limit holds for the process, not for a thread. If each search set and restored the limit by itself, it could
    restore the limit that another search had set.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limiter: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limiter = _blas().limit(limits=1)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limiter.restore_original_limits()


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(internal_api="openblas")


_one_thread = _OneThread()


def _blas_threads(queries: int) -> AbstractContextManager[object]:
    # One query is bound by memory bandwidth, and BLAS threads would contend with those of an encoder that has just run.
    return _one_thread if queries == 1 else nullcontext()


def rank(query: Floats, rows: Rows, ids: Integers, numbers: Integers, scores: Floats, found: Integers) -> None:
    """Writes the best of the rows `numbers` into `scores` and `found` (k,), ordered by exact score, then by id.

    einsum adds in the same order for every row, which a matrix product does not. So equal vectors get equal scores,
    wherever they are stored.
    """
    exact = np.empty(len(numbers), np.float32)
    for at in range(0, len(numbers), _ROWS_PER_BLOCK):
        chosen = rows.take(numbers[at : at + _ROWS_PER_BLOCK])
        exact[at : at + len(chosen)] = np.einsum("md,d->m", chosen, query)
    order = np.lexsort((ids[numbers], -exact))[: len(scores)]
    scores[: len(order)] = exact[order]
    found[: len(order)] = ids[numbers[order]]


def best(parts: Sequence[tuple[Floats, Integers]], queries: int, k: int) -> tuple[Floats, Integers]:
    """Several pairs of (Q, any) scores and ids -> the best (Q, k) of all, ties by id, filled up with -inf and -1."""
    parts = [*parts, nothing(queries, k)]
    scores = np.concatenate([part[0] for part in parts], axis=1)
    ids = np.concatenate([part[1] for part in parts], axis=1)
    order = np.lexsort((ids, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)
