"""InfoNCE on one GPU, D = 1,024, bf16: loss and gradients against the plain form, and the GEMM rate of the same run.

`python -m tests.bench loss_gpu`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bind.loss.contrastive import info_nce
from tests.bench.gpu import matrix_rate, milliseconds, result

DIM = 1024
SCALE = 1 / 0.07
PLAIN_UP_TO = 65_536
"""The plain form holds several (B, B) float32 matrices: 72 GiB here, beyond any GPU at twice the batch."""
GOALS = {65_536: (60, 0.6), 131_072: (240, 1.2), 1_048_576: (18_000, 6)}
"""Pairs: milliseconds, GiB."""
CHECKED = ((4096, SCALE, False), (5001, SCALE, True), (5001, 100.0, True), (4096, 1e4, False))
"""Pairs, scale, repeated items: compared with float64."""
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


def run() -> list[dict[str, Any]]:
    """A row a batch size; 8 B^2 D operations at the GEMM rate are the ceiling."""
    rate = matrix_rate()
    worst = max(max(errors(*case).values()) for case in CHECKED)
    rows: list[dict[str, Any]] = []
    for count, (goal_ms, goal_gib) in GOALS.items():
        ours = measure(info_nce, count, rounds=7 if count < 2**19 else 0)
        plainly = measure(plain, count, rounds=3) if count <= PLAIN_UP_TO else {}
        least = 8 * count**2 * DIM / 1e9 / rate
        rows.append(
            result(
                f"InfoNCE, {count:,} pairs, loss and gradients",
                "ms",
                ours["ms"],
                peer=plainly.get("ms"),
                peer_is="the plain form" if plainly else "(the plain form does not fit)",
                ceiling=least,
                ceiling_is=f"8 B^2 D operations at {rate:.0f} TFLOP/s",
                goal=f"<= {goal_ms:,} ms, <= {goal_gib} GiB",
                met=ours["ms"] <= goal_ms and ours["extra_gib"] <= goal_gib,
                note=f"{ours['extra_gib']:.3f} GiB extra"
                + (f" (plain {plainly['extra_gib']:.0f})" if plainly else "")
                + f"; share {least / ours['ms']:.2f}; worst error to float64 {worst:.1e}",
            )
        )
    return rows
