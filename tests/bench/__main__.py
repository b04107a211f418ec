"""`make bench`: every benchmark of this folder that needs no GPU, ours beside its peer, as tables.

`python -m tests.bench NAME...` runs those whose names contain one of the words.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table


def main(words: list[str]) -> None:
    """Runs the chosen benchmarks; `bench_*_gpu` only when named."""
    console = Console(width=160)
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        name = module.name
        chosen = any(word in name for word in words) if words else not name.endswith("_gpu")
        if not name.startswith("bench_") or not chosen:
            continue
        start = time.perf_counter()
        rows = importlib.import_module(f"tests.bench.{name}").run()
        columns = list(dict.fromkeys(key for row in rows for key in row))
        table = Table(*columns, title=f"{name} ({time.perf_counter() - start:.0f} s)")
        for row in rows:
            values = (row.get(column, "") for column in columns)
            table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values))
        console.print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
