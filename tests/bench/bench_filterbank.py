"""Our batched log-mel filterbank against a loop of torchaudio's: equality and time.

`python -m tests.bench filterbank` prints a table.
"""

from __future__ import annotations

from typing import Any

import torch
from torchaudio.compliance import kaldi

from preprocess.dsp.filterbank import log_mel
from tests.bench.cpu import medians_ms, result

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
        difference = float((log_mel(waveforms) - reference(waveforms)).abs().max())
        ms = medians_ms({"ours": lambda: log_mel(waveforms), "peer": lambda: reference(waveforms)}, rounds)
    finally:
        torch.set_num_threads(before)
    times = ms["peer"] / ms["ours"]
    what = f"log-mel filterbank, {clips} clips of {seconds:g} s"
    return [
        result(
            what,
            "ms",
            ms["ours"],
            peer=ms["peer"],
            peer_is="torchaudio, clip by clip",
            ratio=times,
            goal=">= 5 x",
            met=times >= 5,
            note=f"largest difference {difference:.1g}",
        )
    ]


if __name__ == "__main__":
    for row in run():
        print(row)
