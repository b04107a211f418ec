"""What the CPU benchmarks share: contenders that take turns, and the form of a result."""

from __future__ import annotations

import importlib
import json
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any, TypeVar

from preprocess.decoding.cores import available_cores
from tests.bench import table

Part = TypeVar("Part")
VERSIONS = ("torch", "torchaudio", "pillow", "av", "open_clip_torch", "sentence-transformers", "transformers")
COLUMNS = ("what", "unit", "ours", "peer", "peer_is", "ratio", "goal", "met", "note")


def in_turns(contenders: Mapping[str, Callable[[Part], object]], parts: Sequence[Part]) -> dict[str, list[float]]:
    """Seconds that each contender takes for each part; all do a part before any does the next.

    So what else goes on on the machine meets all of them. The order changes with every part.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number, part in enumerate(parts):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started = time.perf_counter()
            contenders[name](part)
            seconds[name].append(time.perf_counter() - started)
    return seconds


def medians_ms(actions: Mapping[str, Callable[[], object]], rounds: int, warm: int = 3) -> dict[str, float]:
    """The median milliseconds of each action, taken in turns."""
    for _ in range(warm):
        for action in actions.values():
            action()
    seconds = in_turns({name: lambda _, act=action: act() for name, action in actions.items()}, range(rounds))  # type: ignore[misc]
    return {name: 1000 * statistics.median(times) for name, times in seconds.items()}


def ratio(ours: Sequence[float], *peers: Sequence[float]) -> float:
    """How many times as long the best peer took: the median over the parts."""
    return statistics.median(min(theirs) / own for own, *theirs in zip(ours, *peers, strict=True))


def result(
    what: str,
    unit: str,
    ours: float,
    *,
    peer: float | None = None,
    peer_is: str = "",
    ratio: float | None = None,
    goal: str = "",
    met: bool | None = None,
    note: str = "",
) -> dict[str, Any]:
    """A row of the table. `ratio` is ours to the peer's as the goal says it; `met` is None where there is no goal."""
    return dict(zip(COLUMNS, (what, unit, ours, peer, peer_is, ratio, goal, met, note), strict=True))


def report(names: Sequence[str]) -> int:
    """Runs the modules `tests.bench.NAME`, prints one markdown table and one JSON; the number of those that failed."""
    rows: list[dict[str, Any]] = []
    seconds: dict[str, float] = {}
    failed = 0
    for name in names:
        started = time.perf_counter()
        try:
            rows += importlib.import_module(f"tests.bench.{name}").run()
        except Exception:  # the others are still worth having; the exit status tells
            failed += 1
            traceback.print_exc()
            rows.append(result(name, "", float("nan"), met=False, note="failed"))
        seconds[name] = round(time.perf_counter() - started, 1)
        print(f"{name}: {seconds[name]} s", file=sys.stderr, flush=True)
    machine = {
        "processor": _processor(),
        "cores": available_cores(),
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in VERSIONS},
        "seconds": seconds,
    }
    print(json.dumps({"machine": machine, "rows": rows}))
    print(table.head(COLUMNS))
    for row in rows:
        print(table.line(row, COLUMNS))
    return failed


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as facts:
            return next(line.split(":", 1)[1].strip() for line in facts if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
