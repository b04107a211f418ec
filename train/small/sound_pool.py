"""Sounds on one device, and the clips that are drawn from them: as the model hears them, or distorted for learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from preprocess.dsp.filterbank import log_mel

RATE_HZ = 16_000
"""Hz of the sounds, as YAMNet and the audio encoders of `small` take them."""
CLIP = 2 * RATE_HZ
"""The number of samples of a clip, two seconds."""
VIEWS = 5
"""The number of clips that the model hears of a long sound."""
BINS, FRAMES = 64, 204
"""Mel bins and frames of 10 ms of a clip."""
SHAPE = (1, BINS, FRAMES)
"""The shape of a clip's log energies."""
_FFT = 40_960
"""The length of the Fourier transform of a clip with the echo of a room; it has only small prime factors."""


@dataclass(frozen=True)
class Pool:
    """Sounds of all lengths, concatenated: `samples` int16 at 16 kHz, `starts` and `lengths` (N,), all on one
    device.
    """

    samples: Tensor
    starts: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, sounds: Sequence[np.ndarray], device: str) -> Pool:
        """Int16 arrays -> the pool."""
        lengths = torch.tensor([len(sound) for sound in sounds])
        starts = lengths.cumsum(0) - lengths
        return cls(torch.from_numpy(np.concatenate(sounds)).to(device), starts.to(device), lengths.to(device))

    def views(self, row: int) -> Tensor:
        """(K, 32000) samples in -1..1: the evenly spaced clips that `preprocess` takes; a short sound gives one padded
        clip.
        """
        start, length = int(self.starts[row]), int(self.lengths[row])
        sound = self.samples[start : start + length].float() / 2**15
        if length <= CLIP:
            return sound[None]
        return torch.stack([sound[i * (length - CLIP) // (VIEWS - 1) :][:CLIP] for i in range(VIEWS)])


def pictures(samples: Tensor) -> Tensor:
    """(B, samples up to 32000) -> (B, 1, 64, 204) log energies, as `preprocess` makes them for `small`."""
    energies = log_mel(samples - samples.mean(1, keepdim=True), RATE_HZ, BINS)
    shown = energies.new_zeros(len(samples), 1, BINS, FRAMES)
    shown[:, 0, :, : energies.shape[1]] = energies.transpose(1, 2)
    return shown


def augmented(pool: Pool, weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """A pool and the weight of each sound -> (count, 32000) samples: random pieces with random distortions.

    Half of the pieces have another speed (0.7 to 1.4), half are mixed with another sound (25 dB below to 3 dB above), a
    tenth with white noise, and half are filtered. Some sound as through a telephone or in a room. Each is up to 40 dB
    softer than full scale.
    """
    device = weights.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, 1, device=device, generator=generator) * (high - low) + low

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, generator=generator)

    rows = torch.multinomial(weights, count, replacement=True, generator=generator)
    rate = torch.where(uniform(0, 1) < 0.5, uniform(-0.35, 0.35).exp(), torch.ones(count, 1, device=device))
    length, span = pool.lengths[rows, None].float(), rate * CLIP
    spare = length - span
    first = torch.where(spare > 0, uniform(0, 1) * spare, uniform(0, 1) * spare.clamp(max=0))
    place = first + torch.arange(CLIP, device=device) * rate
    before = place.floor()
    inside = (before >= 0) & (before < length - 1)
    index = pool.starts[rows, None] + before.clamp(min=0).minimum(length - 2).long()
    part = place - before
    x = (pool.samples[index].float() * (1 - part) + pool.samples[index + 1].float() * part) * inside / 2**15

    x = x / (x.square().mean(1, keepdim=True).sqrt() + 1e-5)
    other = x[torch.randperm(count, device=device, generator=generator)]
    x = x + (uniform(0, 1) < 0.5) * other * 10 ** (uniform(-25, 3) / 20)
    x = x + (uniform(0, 1) < 0.1) * noise(count, CLIP) * 10 ** (uniform(-35, -5) / 20)

    frequencies = torch.fft.rfftfreq(_FFT, 1 / RATE_HZ).to(device)
    knots = 4 * noise(count, 1, 8) * (uniform(0, 1) < 0.5)[..., None]
    response = 10 ** (F.interpolate(knots, size=len(frequencies), mode="linear")[:, 0] / 20)
    above = torch.where(uniform(0, 1) < 0.15, uniform(7.2, 8.8).exp(), torch.full((count, 1), 1e5, device=device))
    below = torch.where(uniform(0, 1) < 0.1, uniform(100, 400), torch.zeros(count, 1, device=device))
    response = response / (1 + (frequencies / above) ** 12).sqrt() / (1 + (below / (frequencies + 1)) ** 8).sqrt()
    time_s = torch.arange(RATE_HZ // 2, device=device) / RATE_HZ
    room = noise(count, RATE_HZ // 2) * (-time_s / uniform(0.03, 0.25)).exp()
    room = room * (uniform(0, 1) < 0.2) * uniform(0.02, 0.1)
    room[:, 0] = 1
    x = torch.fft.irfft(torch.fft.rfft(x, _FFT) * response * torch.fft.rfft(room, _FFT), _FFT)[:, :CLIP]
    loud: Tensor = (x / (x.abs().amax(1, keepdim=True) + 1e-6) * 10 ** (uniform(-40, 0) / 20)).clamp(-1, 1)
    return loud


def shown(pool: Pool, rows: Sequence[int]) -> Tensor:
    """Sounds of a pool -> (N, K, 1, 64, 204) log energies of their views; the view of a short sound is repeated K
    times.
    """
    parts = pool.samples.new_zeros(len(rows), VIEWS, *SHAPE, dtype=torch.float32)
    long = [place for place, row in enumerate(rows) if pool.lengths[row] > CLIP]
    for some in (long[i : i + 64] for i in range(0, len(long), 64)):
        clips = torch.cat([pool.views(rows[place]) for place in some])
        parts[some] = pictures(clips).unflatten(0, (len(some), VIEWS))
    for place in set(range(len(rows))) - set(long):
        parts[place] = pictures(pool.views(rows[place]))
    return parts
