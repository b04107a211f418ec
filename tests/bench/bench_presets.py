"""The size of each preset with random weights, and the memory that loading it takes.

    python -m tests.bench.bench_presets [NAME ...]

Each model is built in a process of its own. Models that have no random weights here (folders of a hub) are built from
the configuration that transformers has for them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

_PROBE = """
import json, resource, sys, warnings
warnings.simplefilter("ignore")
import torch, transformers, bind
name, kind = sys.argv[1:]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if kind:
    model = getattr(transformers, kind + "Model")(getattr(transformers, kind + "Config")())
else:
    model = bind.load(name, weights="random" if name != "small" else None)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(p.numel() for p in model.parameters())
memory = {"before_mb": before // 1024, "peak_mb": after // 1024}
print(json.dumps({"name": name, "parameters_m": round(count / 1e6, 1)} | memory))
"""
_KINDS = {
    "small": "",
    "clip-MobileCLIP2-S0:dfndr2b": "",
    "clip-ViT-B-16-SigLIP2:webli": "",
    "clip-PE-Core-B-16:meta": "",
    "imagebind-huge": "",
    "embeddinggemma-2": "EmbeddingGemma2",
    "clap-general": "Clap",
}


def measure(name: str) -> dict[str, Any]:
    """The size and the peak of memory of a model, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, name, _KINDS[name]], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    for wanted in sys.argv[1:] or _KINDS:
        print(measure(wanted), flush=True)
