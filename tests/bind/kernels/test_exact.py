"""The search kernels against numpy: interpreted on the CPU, and on a GPU where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bind.index.exact_gpu import top_k

ROOT = Path(__file__).parents[3]
TOLERANCE = 2e-6
# Queries, rows, dimensions, k: one query, few and many; rows that fill no group; k beyond the rows that are left.
CASES = [(1, 700, 64, 10), (1, 130, 40, 5), (5, 1000, 96, 10), (70, 700, 64, 10), (130, 300, 72, 100), (3, 50, 64, 50)]


def inputs(queries: int, rows: int, dim: int, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """fp16 unit queries and rows, and a third of the rows' numbers."""
    generator = torch.Generator().manual_seed(rows)
    vectors = torch.nn.functional.normalize(torch.randn(queries + rows, dim, generator=generator)).half().to(device)
    dead = torch.randperm(rows, generator=generator)[: rows // 3].to(device)
    return vectors[:queries], vectors[queries:].contiguous(), dead


def worst(scores: Tensor, rows: Tensor, queries: Tensor, vectors: Tensor, dead: Tensor | None) -> float:
    """The largest error of the scores, and of the scores of the rows named, to the best in float64."""
    products = queries.double() @ vectors.double().T
    if dead is not None:
        products[:, dead] = -torch.inf
    expected = products.topk(scores.shape[1]).values
    named = torch.where(rows >= 0, products.gather(1, rows.clamp(min=0)), -torch.inf)
    there = expected > -torch.inf
    if not torch.equal(there, scores > -torch.inf) or not torch.equal(there, rows >= 0):
        return float("inf")
    return max(float((part.double() - expected)[there].abs().max()) for part in (scores, named))


def interpreted() -> None:
    """In the child: what `takes` allows, then every case."""
    from bind.kernels import exact as exact_kernels

    for queries, rows, dim, k in CASES:
        some, vectors, dead = inputs(queries, rows, dim)
        assert exact_kernels.takes(some, vectors)
        for gone in (None, dead):
            mask = None if gone is None else torch.zeros(rows, dtype=torch.bool).index_fill_(0, gone, True)
            found = exact_kernels.top_k(some, vectors, k, mask)
            assert worst(*found, some, vectors, gone) < TOLERANCE, (queries, rows, dim, k)
    # The check sees what is wrong: dead rows that were not left out, another row's score.
    assert worst(*exact_kernels.top_k(some, vectors, k), some, vectors, dead) > TOLERANCE
    vectors[3] = some[0]
    assert worst(*found, some, vectors, dead) > TOLERANCE
    assert not exact_kernels.takes(some.float(), vectors)
    assert not exact_kernels.takes(some[:, :60], vectors[:, :60])


@pytest.mark.slow
def test_kernels_equal_numpy_in_tritons_interpreter() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "1"}
    code = "from tests.bind.kernels.test_exact import interpreted; interpreted()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize(("queries", "rows", "dim", "k"), [*CASES, (1, 300_001, 1024, 10), (300, 70_000, 1024, 64)])
def test_kernels_equal_float64_on_a_gpu(queries: int, rows: int, dim: int, k: int) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    some, vectors, dead = inputs(queries, rows, dim, "cuda")
    for gone in (None, dead):
        assert worst(*top_k(some, vectors, k, gone), some, vectors, gone) < TOLERANCE
