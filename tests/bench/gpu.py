"""Timing on a GPU, and the ceiling to hold figures against."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch


def milliseconds(function: Callable[[], object], *, warm: int = 2, rounds: int = 5, least_s: float = 0.0) -> float:
    """The median time of a call on the GPU after `warm` calls, over at least `rounds` calls and `least_s`."""
    for _ in range(warm):
        function()
    times: list[float] = []
    while len(times) < rounds or sum(times) < 1000 * least_s:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def matrix_rate() -> float:
    """TFLOP/s of an 8,192-cube bfloat16 product on random data: the ceiling of the day."""
    x, y = torch.randn(2, 8192, 8192, device="cuda", dtype=torch.bfloat16)
    return 2 * 8192**3 / 1e9 / milliseconds(lambda: x @ y, least_s=0.5)
