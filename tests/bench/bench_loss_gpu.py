"""InfoNCE on one GPU, D = 1,024, bf16: loss and gradients against the plain form, and the GEMM rate of the same run.

`python -m tests.bench.bench_loss_gpu [B ...]` prints a table; `run()` gives its rows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bind.loss import info_nce
from tests.bench.gpu import matrix_rate, milliseconds

DIM = 1024
SCALE = 1 / 0.07
PLAIN_UP_TO = 65_536
"""The plain form holds several (B, B) float32 matrices: 72 GiB here, beyond any GPU at twice the batch."""
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """The textbook form: a bf16 product, two cross entropies in float32."""
    logits = scale * (a @ b.T).float()
    targets = torch.arange(len(a), device=a.device)
    return (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2


def pairs(count: int, cosine: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    """(B, D) rows a, (B, D) rows b at that cosine to them, and the scale: all with gradients."""
    generator = torch.Generator("cuda").manual_seed(count)
    a, noise = (functional.normalize(torch.randn(count, DIM, device="cuda", generator=generator)) for _ in range(2))
    b = functional.normalize(cosine * a + (1 - cosine**2) ** 0.5 * noise)
    scale = torch.tensor(SCALE, device="cuda", requires_grad=True)
    return a.bfloat16().requires_grad_(), b.bfloat16().requires_grad_(), scale


def measure(loss: Loss, count: int, rounds: int) -> dict[str, float]:
    """Milliseconds (median) of loss and all gradients, and GiB of memory beyond the two inputs, gradients included.

    With no rounds the first call is timed: for batches that take seconds, where warming up costs more than it tells.
    """
    inputs = pairs(count)

    def once() -> None:
        for tensor in inputs:
            tensor.grad = None
        loss(*inputs).backward()

    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    first = milliseconds(once, warm=0, rounds=1)
    extra = torch.cuda.max_memory_allocated() - before
    return {"ms": milliseconds(once, warm=0, rounds=rounds) if rounds else first, "extra_gib": extra / 2**30}


def errors(count: int, scale: float, repeated: bool) -> dict[str, float]:
    """Relative errors (norms) of value and gradients to the plain form in float64 on the same bf16 rows."""
    a, b, _ = pairs(count, cosine=0.1)
    ids = torch.arange(count, device="cuda") // 3 if repeated else None
    results = []
    for dtype in (torch.bfloat16, torch.float64):
        x, y = (rows.detach().to(dtype).requires_grad_() for rows in (a, b))
        s = torch.tensor(
            scale, device="cuda", dtype=torch.float32 if dtype != torch.float64 else dtype, requires_grad=True
        )
        if dtype == torch.float64:
            logits = s * x @ y.T
            if ids is not None:
                same = (ids[:, None] == ids) & ~torch.eye(count, dtype=torch.bool, device="cuda")
                logits = logits.masked_fill(same, -torch.inf)
            value = (2 * logits.diagonal() - logits.logsumexp(0) - logits.logsumexp(1)).mean() / -2
        else:
            value = info_nce(x, y, s, ids=ids)
        value.backward()
        results.append([value.detach(), x.grad, y.grad, s.grad])
    names = ("loss", "a", "b", "scale")
    pairs_of = zip(names, *results, strict=True)
    return {name: float((ours.double() - exact).norm() / exact.norm()) for name, ours, exact in pairs_of}


def run(counts: tuple[int, ...] = (16_384, 65_536, 131_072)) -> list[dict[str, Any]]:
    """A row a batch size: ours, the plain form where it fits, and the share of the GEMM rate (8 B^2 D operations)."""
    rate = matrix_rate()
    rows: list[dict[str, Any]] = []
    for count in counts:
        ours = measure(info_nce, count, rounds=7 if count < 2**19 else 0)
        plainly = measure(plain, count, rounds=3) if count <= PLAIN_UP_TO else None
        achieved = 8 * count**2 * DIM / 1e9 / ours["ms"]
        rows.append(
            {
                "name": f"InfoNCE, {count} pairs",
                "ours_ms": round(ours["ms"], 2),
                "ours_extra_gib": round(ours["extra_gib"], 3),
                "peer_ms": plainly and round(plainly["ms"], 2),
                "peer_extra_gib": plainly and round(plainly["extra_gib"], 2),
                "ratio": plainly and round(plainly["ms"] / ours["ms"], 2),
                "tflops": round(achieved),
                "gemm_tflops": round(rate),
                "share": round(achieved / rate, 3),
            }
        )
    return rows


if __name__ == "__main__":
    for count, scale, repeated in [(4096, SCALE, False), (5001, SCALE, True), (5001, 100.0, True), (4096, 1e4, False)]:
        print(
            f"errors to float64, B={count} scale={scale:g} ids={repeated}:", errors(count, scale, repeated), flush=True
        )
    for row in run(*([tuple(map(int, sys.argv[1:]))] if sys.argv[1:] else [])):
        print(*(f"{key}={value}" for key, value in row.items()), sep="  ", flush=True)
