"""Exhaustive inner-product search on a GPU: fp16 rows, fp32 accumulation, top k in one pass over the rows.

`bind.kernels.exact` does the pass where Triton is installed and the rows suit it; otherwise torch does it in chunks.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

_GROUP = 32
"""Rows of which first only the best is looked for; the rows of the best groups are then scored again."""
_QUERIES_PER_BLOCK = 1024
"""Queries that are scored in one matrix product, enough to keep the tensor cores busy."""
_SCORES_PER_CHUNK = 2**26
"""Scores of one chunk: 128 MiB in fp16.

Larger chunks were no faster on an H200 (2M vectors, 1,024 queries: 10.3 ms).
"""
_GATHERED_PER_STEP = 2**28
"""Numbers that are gathered at a time to score the rows of the best groups again: 512 MiB in fp16."""


class HalfRows:
    """(N, D) fp16 rows on a device, to which rows can be appended; the search skips rows that were removed."""

    def __init__(self, dim: int, device: str) -> None:
        self._rows = torch.empty((0, dim), dtype=torch.float16, device=device)
        self._count = 0
        self._dead = torch.empty(0, dtype=torch.int64, device=device)

    def append(self, vectors: npt.NDArray[np.float32]) -> None:
        """Copies (n, D) float32 rows to the end."""
        needed = self._count + len(vectors)
        if needed > len(self._rows):
            grown = self._rows.new_empty((max(needed, self._count * 3 // 2), self._rows.shape[1]))
            grown[: self._count] = self._rows[: self._count]
            self._rows = grown
        self._rows[self._count : needed] = torch.from_numpy(vectors.astype(np.float16))
        self._count = needed

    def remove(self, rows: npt.NDArray[np.int64]) -> None:
        """Marks rows, given by number, as removed."""
        self._dead = torch.cat([self._dead, torch.from_numpy(rows).to(self._dead.device)])

    def search(self, queries: npt.NDArray[np.float32], k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """(Q, D) -> the best (Q, k) scores, descending, and row numbers; -inf and -1 where there are fewer than
        k rows.
        """
        rows = self._rows[: self._count]
        # This copies, because torch warns about read-only arrays, which Embeddings hold.
        half = torch.from_numpy(queries.astype(np.float16)).to(rows.device)
        # Triton launches on the current device; -1 leaves the current device as it is, for rows on a CPU.
        with torch.cuda.device(rows.device.index if rows.is_cuda else -1):
            scores, found = top_k(half, rows, k, self._dead)
        return scores.cpu().numpy(), found.cpu().numpy()


@torch.inference_mode()
def top_k(
    queries: Tensor, vectors: Tensor, k: int, dead: Tensor | None = None, chunk_rows: int | None = None
) -> tuple[Tensor, Tensor]:
    """fp16 (Q, D) and (N, D), unit rows -> fp32 (Q, k) inner products, descending, and int64 (Q, k) row numbers.

    The search is exhaustive: every row is scored, except the `dead` ones (int64 row numbers); -inf and -1 fill up the
    result. A first pass keeps the best score of each group of rows. A second pass scores the rows of the best groups
    again in fp32. The k best rows lie in the k best groups, because a group with a better row has a better maximum.

    With `bind.kernels.exact` the scores are exact for the fp16 rows. In torch the first pass rounds scores to fp16, by
    1e-3 at most and 5e-5 as a rule, and rows closer than that may change places. `chunk_rows` selects torch, with
    chunks of that many rows.
    """
    kernels = _kernels() if queries.is_cuda and chunk_rows is None else None
    if kernels and k and len(queries) and len(vectors) and kernels.takes(queries, vectors):
        is_dead = None
        if dead is not None and len(dead):
            is_dead = torch.zeros(len(vectors), dtype=torch.bool, device=vectors.device)
            is_dead[dead] = True
        scores, rows = kernels.top_k(queries, vectors, min(k, len(vectors)), is_dead)
        missing = (0, k - scores.shape[1])
        if not missing[1]:
            return scores, rows
        return functional.pad(scores, missing, value=-torch.inf), functional.pad(rows, missing, value=-1)
    if dead is None:
        dead = torch.empty(0, dtype=torch.int64, device=queries.device)
    step = max((chunk_rows or _SCORES_PER_CHUNK // min(max(len(queries), 1), _QUERIES_PER_BLOCK)) // _GROUP, 1) * _GROUP
    blocks = [_top_k(block, vectors, k, dead, step) for block in queries.split(_QUERIES_PER_BLOCK)]
    return torch.cat([scores for scores, _ in blocks]), torch.cat([rows for _, rows in blocks])


@cache
def _kernels() -> ModuleType | None:
    try:
        from bind.kernels import exact as exact_kernels  # Triton exists on Linux with CUDA only
    except ImportError:
        return None
    return exact_kernels


def _top_k(queries: Tensor, vectors: Tensor, k: int, dead: Tensor, step: int) -> tuple[Tensor, Tensor]:
    groups = len(vectors) // _GROUP
    # The k best rows lie in the k best groups; some more groups are taken because fp16 rounds the maxima.
    wanted = k + k // 4 + 4
    rest = torch.arange(groups * _GROUP, len(vectors), device=vectors.device)
    if groups <= 2 * wanted:
        rows = torch.arange(len(vectors), device=vectors.device).expand(len(queries), -1)
    else:
        chosen = (
            _group_maxima(queries, vectors[: groups * _GROUP], dead, step).topk(wanted, dim=1, sorted=False).indices
        )
        members = _members(chosen, groups, step // _GROUP)
        rows = torch.cat([members, rest.expand(len(queries), -1)], dim=1)
    scores = _scores(queries, vectors, rows).masked_fill_(torch.isin(rows, dead), -torch.inf)
    best, places = scores.topk(min(k, rows.shape[1]), dim=1)
    found = rows.gather(1, places).masked_fill_(best == -torch.inf, -1)
    missing = (0, k - best.shape[1])
    return functional.pad(best, missing, value=-torch.inf), functional.pad(found, missing, value=-1)


def _group_maxima(queries: Tensor, vectors: Tensor, dead: Tensor, step: int) -> Tensor:
    """(Q, D) and (G * GROUP, D) -> fp16 (Q, G), the best score of each group of rows.

    The rows of a group lie far apart within their chunk (see `_members`), so that the maximum is taken over a dimension
    that is not the last one. Such a maximum runs at the speed of memory.
    """
    maxima = queries.new_empty((len(queries), len(vectors) // _GROUP))
    for start in range(0, len(vectors), step):
        chunk = queries @ vectors[start : start + step].T
        if len(dead):
            chunk.index_fill_(1, dead[(dead >= start) & (dead < start + chunk.shape[1])] - start, -torch.inf)
        width = chunk.shape[1] // _GROUP
        first = start // _GROUP
        torch.amax(chunk.view(len(queries), _GROUP, width), dim=1, out=maxima[:, first : first + width])
    return maxima


def _members(chosen: Tensor, groups: int, groups_per_chunk: int) -> Tensor:
    """(Q, W) group numbers -> (Q, W * GROUP) row numbers: group g of a chunk of w groups has the rows g + j w."""
    chunk = chosen // groups_per_chunk
    width = (groups - chunk * groups_per_chunk).clamp(max=groups_per_chunk)
    first = chunk * groups_per_chunk * _GROUP + chosen % groups_per_chunk
    steps = torch.arange(_GROUP, device=chosen.device)
    return (first[:, :, None] + steps * width[:, :, None]).flatten(1)


def _scores(queries: Tensor, vectors: Tensor, rows: Tensor) -> Tensor:
    """(Q, D), (N, D) and (Q, M) row numbers -> fp32 (Q, M) inner products."""
    at_once = max(_GATHERED_PER_STEP // max(rows.shape[1] * vectors.shape[1], 1), 1)
    parts = []
    for query, numbers in zip(queries.split(at_once), rows.split(at_once), strict=True):
        gathered, columns = vectors[numbers], query[:, :, None]
        if query.is_cuda:
            parts.append(torch.bmm(gathered, columns, out_dtype=torch.float32))
        else:  # out_dtype exists on CUDA only
            parts.append(torch.bmm(gathered.float(), columns.float()))
    return torch.cat(parts)[:, :, 0]
