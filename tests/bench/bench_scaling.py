"""Time and memory of add, save, load and search from 10,000 to a million vectors, with their growth exponents.

`python -m tests.bench.bench_scaling` measures all sizes (2 minutes, 5 GB of memory, 2 GB of disk), writes
`scaling.svg` beside this file, which the README shows, and prints the table; `python -m tests.bench scaling` stops at
100,000 vectors. A growth exponent is the slope of log(cost) over log(number): 1 is linear. Each size runs in a process
of its own, so that its memory is its own.
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.cpu import result

DIM = 384
SIZES = (10_000, 32_000, 100_000, 320_000, 1_000_000)
LARGEST_IN_BENCH = 100_000
BLOCK = 10_000
PLOT = Path(__file__).with_name("scaling.svg")


def measure(count: int) -> dict[str, float]:
    """Costs of one exact index of `count` vectors: seconds of each step, MB that add keeps and that a load maps."""
    import bind
    from bind.space import Embeddings, unit

    rng = np.random.default_rng(0)
    empty_mb = _resident_mb()
    index = bind.Index("bench", DIM)
    spent = 0.0
    for start in range(0, count, BLOCK):
        rows = min(BLOCK, count - start)
        block = Embeddings(unit(rng.standard_normal((rows, DIM), np.float32)), "bench")
        spent += _seconds(
            lambda start=start, rows=rows, block=block: index.add(np.arange(start, start + rows), block, "image")
        )  # type: ignore[misc]
    added_mb = _resident_mb() - empty_mb
    queries = [Embeddings(unit(rng.standard_normal((1, DIM), np.float32)), "bench") for _ in range(12)]
    with tempfile.TemporaryDirectory() as folder:
        save_s = _seconds(lambda: index.save(folder))
        index = bind.Index("bench", DIM)  # lets the vectors go
        before_mb = _resident_mb(mapped=True)
        started = time.perf_counter()
        index = bind.Index.load(folder)
        load_s = time.perf_counter() - started
        index.search(queries[0])
        search_s = sorted(_seconds(lambda query=query: index.search(query)) for query in queries)[6]  # type: ignore[misc]
    return {
        "count": count,
        "add, s": spent,
        "save, s": save_s,
        "load, s": load_s,
        "search, s": search_s,
        "memory after add, MB": added_mb,
        "mapped after load and search, MB": _resident_mb(mapped=True) - before_mb,
    }


def exponent(counts: Sequence[float], costs: Sequence[float]) -> float:
    """The least-squares slope of log(cost) over log(count)."""
    return float(np.polyfit(np.log(counts), np.log(costs), 1)[0])


def curves(sizes: Sequence[int]) -> list[dict[str, float]]:
    """`measure` of each size, in a new process each."""
    rows = []
    for size in sizes:
        line = [sys.executable, "-m", "tests.bench.bench_scaling", "--one", str(size)]
        done = subprocess.run(line, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    return rows


def plot(rows: Sequence[dict[str, float]], file: Path) -> None:
    """The curves as two panels, seconds and MB, both axes logarithmic."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams["svg.fonttype"] = "none"
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    counts = [row["count"] for row in rows]
    for name in rows[0]:
        if name == "count":
            continue
        costs = [row[name] for row in rows]
        what, unit = name.rsplit(", ", 1)
        axes = left if unit == "s" else right
        axes.loglog(counts, costs, marker="o", markersize=4, label=f"{what}, exponent {exponent(counts, costs):.2f}")
        axes.set(xlabel=f"vectors of {DIM} dimensions", ylabel={"s": "seconds", "MB": "megabytes"}[unit])
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(file, metadata={"Date": None})


def run(sizes: Sequence[int] = tuple(size for size in SIZES if size <= LARGEST_IN_BENCH)) -> list[dict[str, Any]]:
    """A row for each cost, its value at the largest size and its growth exponent."""
    rows = curves(sizes)
    counts = [row["count"] for row in rows]
    table = []
    for name in rows[0]:
        if name != "count":
            costs = [row[name] for row in rows]
            what, unit = name.rsplit(", ", 1)
            shown = "; ".join(f"{count:,.0f}: {cost:.3g}" for count, cost in zip(counts, costs, strict=True))
            slope = exponent(counts, costs)
            largest = f"{what}, {counts[-1]:,.0f} vectors of {DIM}"
            table.append(result(largest, unit, costs[-1], note=f"{shown}; exponent {slope:.2f}"))
    return table


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _resident_mb(mapped: bool = False) -> float:
    """What this process holds in memory, with the files it has mapped or without."""
    resident, shared = (int(field) for field in Path("/proc/self/statm").read_text().split()[1:3])
    return (resident - (0 if mapped else shared)) * resource.getpagesize() / 1e6


def main(words: Sequence[str]) -> None:
    """Measures all sizes, plots and prints them; `--one N` measures one size and prints JSON."""
    if words[:1] == ["--one"]:
        print(json.dumps(measure(int(words[1]))))
        return
    rows = curves(SIZES)
    plot(rows, PLOT)
    for name in rows[0]:
        costs = [row[name] for row in rows]
        slope = "" if name == "count" else f"exponent {exponent([row['count'] for row in rows], costs):.2f}"
        print(f"{name:>24}", *(f"{cost:12.4g}" for cost in costs), slope)
    assert all(math.isfinite(cost) for row in rows for cost in row.values())


if __name__ == "__main__":
    main(sys.argv[1:])
