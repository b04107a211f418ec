"""Exhaustive inner-product search in torch, for a GPU: fp16 rows, fp32 accumulation, top k while streaming over chunks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_GROUP = 64
_SCORES_PER_CHUNK = 2**26
"""256 MiB of float32 scores at a time: enough for full GEMM speed, small beside the vectors."""


class HalfRows:
    """(N, D) fp16 rows on a device that grow by appending; `dead` rows are skipped by the search."""

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
        """Marks row numbers as dead."""
        self._dead = torch.cat([self._dead, torch.from_numpy(rows).to(self._dead.device)]).sort().values

    def search(self, queries: npt.NDArray[np.float32], k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """(Q, D) -> the best (Q, k) scores, descending, and row numbers (-inf and -1 where there are no more)."""
        rows = self._rows[: self._count]
        # A copy: torch warns about the read-only arrays that Embeddings hold.
        half = torch.from_numpy(queries.astype(np.float16)).to(rows.device)
        scores, found = top_k(half, rows, k, self._dead)
        return scores.cpu().numpy(), found.cpu().numpy()


@torch.inference_mode()
def top_k(
    queries: Tensor, vectors: Tensor, k: int, dead: Tensor | None = None, chunk_rows: int | None = None
) -> tuple[Tensor, Tensor]:
    """fp16 (Q, D) and (N, D), unit rows -> fp32 (Q, k) inner products, descending, and int64 (Q, k) row numbers.

    Exhaustive: every row is scored, `dead` ones (int64, sorted) excepted; -inf and -1 fill up. Rounding to fp16 moves
    a score by 1e-3 at most and about 1e-5 as a rule; rows closer than that may change places.
    """
    count = len(vectors)
    scores = queries.new_full((len(queries), k), -torch.inf, dtype=torch.float32)
    rows = torch.full((len(queries), k), -1, dtype=torch.int64, device=queries.device)
    step = chunk_rows or max(_SCORES_PER_CHUNK // max(len(queries), 1), _GROUP)
    for start in range(0, count if len(queries) else 0, step):
        chunk = _inner_products(queries, vectors[start : start + step])
        if dead is not None and len(dead):
            low, high = torch.searchsorted(dead, torch.tensor([start, start + step], device=dead.device)).tolist()
            chunk.index_fill_(1, dead[low:high] - start, -torch.inf)
        best, columns = _best_columns(chunk, k)
        merged = torch.cat([scores, best], dim=1)
        scores, order = merged.topk(k, dim=1)
        rows = torch.cat([rows, columns + start], dim=1).gather(1, order)
    return scores, rows.masked_fill(scores == -torch.inf, -1)


def _inner_products(queries: Tensor, vectors: Tensor) -> Tensor:
    if queries.is_cuda:
        return torch.mm(queries, vectors.T, out_dtype=torch.float32)
    return queries.float() @ vectors.float().T  # out_dtype exists on CUDA only


def _best_columns(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(Q, C) -> the best k (or C) values and their columns; one cheap pass of maxima replaces a topk over all of C.

    The k best values lie in the k groups with the largest maxima, so a topk over those groups is exact.
    """
    groups = scores.shape[1] // _GROUP
    if groups <= 2 * k:
        best, columns = scores.topk(min(k, scores.shape[1]), dim=1)
        return best, columns
    grouped = scores[:, : groups * _GROUP].unflatten(1, (groups, _GROUP))
    chosen = grouped.amax(dim=2).topk(k, dim=1).indices
    values = grouped.gather(1, chosen[:, :, None].expand(-1, -1, _GROUP)).flatten(1)
    places = (chosen[:, :, None] * _GROUP + torch.arange(_GROUP, device=scores.device)).flatten(1)
    rest = torch.arange(groups * _GROUP, scores.shape[1], device=scores.device).expand(len(scores), -1)
    values = torch.cat([values, scores[:, groups * _GROUP :]], dim=1)
    best, order = values.topk(k, dim=1)
    return best, torch.cat([places, rest], dim=1).gather(1, order)
