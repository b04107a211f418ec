"""The API under load: 64 clients for a minute at the default model, against batches of one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from serve.library.library import Library
from tests.bench.cpu import result
from tests.serve.load import in_turns

CLIENTS = 64
SECONDS = 60.0
TURNS = 6


def run() -> list[dict[str, Any]]:
    """Rows of the benchmark table."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "library"
        Library.open(place, "small").close()
        alone, together = in_turns(place, CLIENTS, SECONDS, TURNS)
    ratio = together.per_second / alone.per_second
    p50, p99 = (1000 * together.quantile_s(share) for share in (0.5, 0.99))
    others = {status: count for status, count in together.statuses.items() if status != 200}
    title = f"API, {CLIENTS} clients, texts of 4 to 16 words, `small`"
    return [
        result(
            f"{title}: throughput",
            "requests/s",
            together.per_second,
            peer=alone.per_second,
            peer_is="the same server with batches of 1, in turns",
            ratio=ratio,
            goal=">= 2",
            met=ratio >= 2,
            note=f"other answers than 200: {others or 'none'}",
        ),
        result(f"{title}: latency p50", "ms", p50, peer=1000 * alone.quantile_s(0.5), peer_is="batches of 1"),
        result(f"{title}: latency p99", "ms", p99, peer=1000 * alone.quantile_s(0.99), peer_is="batches of 1"),
        result(
            f"{title}: memory, last quarter of the minute to the second",
            "ratio",
            together.growth(),
            goal="< 1.05",
            met=together.growth() < 1.05,
        ),
    ]
