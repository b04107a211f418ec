"""What the GPU benchmarks share: a stop-watch, the day's ceilings, the form of a result, and `make bench-gpu`."""

from __future__ import annotations

import importlib
import json
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tests.bench import table

COLUMNS = ("what", "unit", "ours", "peer", "peer_is", "times_peer", "ceiling", "ceiling_is", "goal", "met", "note")


def milliseconds(function: Callable[[], Any], *, warm: int = 2, rounds: int = 5, least_s: float = 0.0) -> float:
    """The median of at least `rounds` calls and `least_s` seconds, after `warm` calls that are not counted."""
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


def copy_rate() -> float:
    """Bytes/s that a copy of 4 GiB reads and writes together: the day's memory bandwidth."""
    source = torch.empty(2**32, device="cuda", dtype=torch.uint8).random_()
    target = torch.empty_like(source)
    return 2 * len(source) * 1000 / milliseconds(lambda: target.copy_(source), rounds=15)


def result(
    what: str,
    unit: str,
    ours: float,
    *,
    peer: float | None = None,
    peer_is: str = "",
    ceiling: float | None = None,
    ceiling_is: str = "",
    goal: str = "",
    met: bool | None = None,
    note: str = "",
) -> dict[str, Any]:
    """A row of the table. `times_peer` is how many times as good as the peer ours is (of "ms", less is better)."""
    times = None if peer is None else peer / ours if unit == "ms" else ours / peer
    values = (what, unit, ours, peer, peer_is, times, ceiling, ceiling_is, goal, met, note)
    return dict(zip(COLUMNS, values, strict=True))


def report(names: Sequence[str]) -> int:
    """Runs the modules `tests.bench.NAME`, prints one markdown table and one JSON; the number of those that failed."""
    if not torch.cuda.is_available():
        print("bench-gpu: needs a CUDA device", file=sys.stderr)
        return 2
    rows: list[dict[str, Any]] = []
    seconds: dict[str, float] = {}
    failed = 0
    for name in names:
        start = time.perf_counter()
        try:
            found = importlib.import_module(f"tests.bench.{name}").run()
        except Exception:  # the others are still worth having; the exit status tells
            failed += 1
            traceback.print_exc()
            found = [result(name, "", float("nan"), note="failed")]
        rows += found
        torch.cuda.empty_cache()
        seconds[name] = round(time.perf_counter() - start, 1)
        # As they come: the table below needs all of them.
        print(
            f"{name}: {seconds[name]} s",
            *(table.line(row, COLUMNS) for row in found),
            sep="\n",
            file=sys.stderr,
            flush=True,
        )
    machine = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "seconds": seconds,
    }
    print(json.dumps({"machine": machine, "rows": rows}))
    print(table.head(COLUMNS))
    for row in rows:
        print(table.line(row, COLUMNS))
    return failed
