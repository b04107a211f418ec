"""Parity and memory of our full-size ImageBind towers, in a folder that `make_imagebind_golden.py huge FOLDER` filled.

python -m tests.bind.imagebind_parity convert FOLDER    # .pth -> one safetensors file a tower; prints peak memory
python -m tests.bind.imagebind_parity load FOLDER       # the audio tower alone, then one input; prints peak memory
python -m tests.bind.imagebind_parity compare FOLDER    # prints the differences, exits 1 where one is too large
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from bind.encoders import imagebind
from tests.bind.make_imagebind_golden import TOWER_OF, inputs


def file_of(folder: Path, modality: str) -> Path:
    return folder / f"{modality}.safetensors"


@contextmanager
def peak_memory() -> Iterator[None]:
    """Prints the seconds of its body, and how far memory rose: in all, and without pages of mapped files.

    Pages of mapped files can be dropped at any time; the kernel keeps no peak of the rest, so that is sampled.
    """
    start, anonymous, done = time.monotonic(), _status_mb("RssAnon"), threading.Event()
    resident = _status_mb("VmRSS")
    peaks = [anonymous]

    def sample() -> None:
        while not done.wait(0.005):
            peaks.append(_status_mb("RssAnon"))

    thread = threading.Thread(target=sample)
    thread.start()
    yield
    peaks.append(_status_mb("RssAnon"))
    done.set()
    thread.join()
    print(
        f"{time.monotonic() - start:.1f} s; peak of the process {_status_mb('VmHWM')} MB, {resident} MB of it before; "
        f"without mapped files {max(peaks)} MB, {anonymous} MB of it before"
    )


def _status_mb(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) // 1024


def load(folder: Path, modality: str) -> tuple[Any, Tensor]:
    """The encoder in eval mode and the weight of its head, memory-mapped."""
    weights = load_file(file_of(folder, modality))
    head = weights.pop("head.weight")
    with torch.device("meta"):
        encoder = imagebind.build(imagebind.HUGE[modality]).eval()
    encoder.load_state_dict({name.removeprefix("encoder."): weight for name, weight in weights.items()}, assign=True)
    return encoder, head


def compare(folder: Path) -> bool:
    """Prints the largest difference and smallest cosine of every input; whether all are within the bounds."""
    golden = load_file(folder / "imagebind_huge_outputs.safetensors")
    within = True
    for name, value in inputs(batch=2, clips=15).items():
        encoder, head = load(folder, TOWER_OF.get(name, name))
        views = value.flatten(0, 1) if name in ("audio", "video") else value
        with torch.inference_mode():
            vectors = torch.cat([F.normalize(encoder(view[None]) @ head.T, dim=-1) for view in views])
        vectors = F.normalize(vectors.view(len(value), -1, len(head)).mean(1), dim=-1)
        difference = (vectors - golden[name]).abs().max().item()
        cosine = F.cosine_similarity(vectors.double(), golden[name].double()).min().item()
        print(f"{name:12} max difference {difference:.2e}  cosine {cosine:.9f}", flush=True)
        within = within and difference <= 1e-5 and cosine >= 0.99999
    return within


def main() -> int:
    """Runs one step, see the module's text."""
    step, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(2)
    if step == "convert":
        with peak_memory():
            imagebind.convert(folder / "imagebind_huge.pth", {name: file_of(folder, name) for name in imagebind.HUGE})
    elif step == "load":
        with peak_memory():
            encoder, head = load(folder, "audio")
        with peak_memory(), torch.inference_mode():
            print(f"encoded: {tuple((encoder(torch.zeros(1, 1, 128, 204)) @ head.T).shape)}")
    else:
        return int(not compare(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
