"""`make bench`: every benchmark of this folder that needs no GPU, ours beside its peer, as one table and one JSON.

`python -m tests.bench NAME...` runs those whose names contain one of the words; `gpu` (`make bench-gpu`) and names that
end in it run on a GPU.
"""

from __future__ import annotations

import pkgutil
import sys
from pathlib import Path


def main(words: list[str]) -> None:
    """Runs the chosen benchmarks; `bench_*_gpu` only when named."""
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    names = [name for name in names if name.startswith("bench_")]
    on_gpu = [name for name in names if name.endswith("_gpu") and any(word in name for word in words)]
    if on_gpu:
        from tests.bench import gpu  # torch is needed on a GPU only

        sys.exit(gpu.report(on_gpu))
    from tests.bench import cpu

    on_cpu = [name for name in names if not name.endswith("_gpu")]
    sys.exit(cpu.report([name for name in on_cpu if not words or any(word in name for word in words)]))


if __name__ == "__main__":
    main(sys.argv[1:])
