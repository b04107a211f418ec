"""Exhaustive search on a GPU: ours, a plain matmul with topk, and the matmul alone, which bounds both.

`python -m tests.bench.bench_search_gpu [ROWS]`; 2 million rows of 1,024 numbers take 4 GB.
"""

from __future__ import annotations

import statistics
import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bind.exact_gpu import top_k
from tests.bench.gpu import milliseconds

DIM, K = 1024, 10
timed = partial(milliseconds, warm=3, rounds=15)


def vectors(count: int, seed: int) -> Tensor:
    """(count, DIM) fp16 unit rows from a latent of 32 dimensions, the same latent space for every seed."""
    generator = torch.Generator("cuda").manual_seed(0)
    basis = torch.randn(32, DIM, device="cuda", generator=generator)
    generator.manual_seed(1 + seed)
    parts = []
    for start in range(0, count, 2**18):
        latent = torch.randn(min(2**18, count - start), 32, device="cuda", generator=generator)
        parts.append(torch.nn.functional.normalize(latent @ basis, dim=1).half())
    return torch.cat(parts)


def run(rows: int = 2_000_000) -> list[dict[str, Any]]:
    """A row a batch size; `recall` is the share of the float32 top 10 among ours, on up to 32 queries."""
    if not torch.cuda.is_available():
        raise SystemExit("bench_search_gpu: needs a CUDA device")
    stored = vectors(rows, 0)
    found = []
    for batch in (1, 32, 1024):
        queries = vectors(batch, 1)
        checked = queries[:32]
        ours = top_k(checked, stored, K)[1]
        exact = torch.cat([(checked.float() @ part.float().T) for part in stored.split(2**17)], 1).topk(K).indices
        recall = statistics.fmean(len(set(a) & set(b)) / K for a, b in zip(ours.tolist(), exact.tolist(), strict=True))
        blocks = stored.split(2**18)

        def plain(queries: Tensor = queries, blocks: tuple[Tensor, ...] = blocks) -> Tensor:
            best = [(queries @ block.T).topk(K).values for block in blocks]
            return torch.cat(best, 1).topk(K).values

        def matmul(queries: Tensor = queries, blocks: tuple[Tensor, ...] = blocks) -> None:
            for block in blocks:
                queries @ block.T

        def searched(queries: Tensor = queries) -> tuple[Tensor, Tensor]:
            return top_k(queries, stored, K)

        row = {"rows": rows, "batch": batch, "ours_ms": timed(searched), "matmul_topk_ms": timed(plain)}
        row["matmul_ms"] = timed(matmul)
        found.append(row | {"times_matmul": row["ours_ms"] / row["matmul_ms"], "recall": recall})
    return found


if __name__ == "__main__":
    for line in run(*map(int, sys.argv[1:])):
        print(
            "  ".join(
                f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in line.items()
            )
        )
