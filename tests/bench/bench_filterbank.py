"""Our batched log-mel filterbank against a loop of torchaudio's: equality and time.

`python -m tests.bench.bench_filterbank` prints a table; `run()` gives its rows.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torchaudio.compliance import kaldi

from preprocess.filterbank import log_mel

# What ImageBind's data.py passes to kaldi.fbank.
REFERENCE: dict[str, Any] = {
    "htk_compat": True,
    "sample_frequency": 16_000,
    "use_energy": False,
    "window_type": "hanning",
    "num_mel_bins": 128,
    "dither": 0.0,
    "frame_length": 25,
    "frame_shift": 10,
}


def reference(waveforms: torch.Tensor) -> torch.Tensor:
    """(B, T) -> (B, frames, 128), one clip after the other."""
    return torch.stack([kaldi.fbank(waveform[None], **REFERENCE) for waveform in waveforms])


def run(clips: int = 64, seconds: float = 2.0, rounds: int = 25, threads: int = 2) -> list[dict[str, Any]]:
    """One row: milliseconds of both on noise (medians of alternating rounds), their ratio, their largest difference."""
    waveforms = torch.randn(clips, round(16_000 * seconds), generator=torch.Generator().manual_seed(0)) * 0.1
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        times_ms: dict[Callable[[torch.Tensor], torch.Tensor], list[float]] = {log_mel: [], reference: []}
        difference = float((log_mel(waveforms) - reference(waveforms)).abs().max())
        for _ in range(rounds):
            for function, taken in times_ms.items():
                started = time.perf_counter()
                function(waveforms)
                taken.append((time.perf_counter() - started) * 1000)
    finally:
        torch.set_num_threads(before)
    ours, peer = (statistics.median(taken) for taken in times_ms.values())
    return [
        {
            "name": f"log-mel, {clips} clips of {seconds:g} s, {threads} CPU threads",
            "ours_ms": round(ours, 2),
            "peer_ms": round(peer, 2),
            "ratio": round(peer / ours, 2),
            "max_abs_difference": difference,
        }
    ]


if __name__ == "__main__":
    for row in run():
        print(*(f"{key}={value}" for key, value in row.items()), sep="  ")
