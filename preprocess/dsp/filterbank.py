"""The log-mel filterbank of Kaldi for a whole batch of waveforms, on any device."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

FRAME_S = 0.025
"""Length of a frame in seconds, as in Kaldi and in ImageBind's preprocessing of sound."""
SHIFT_S = 0.010
"""Seconds from one frame to the next, as in Kaldi and in ImageBind's preprocessing of sound."""
_PREEMPHASIS = 0.97
"""Each sample loses so much of the one before it (Kaldi's `preemphasis_coefficient`), which lifts high frequencies."""
_LOWEST_HZ = 20.0
"""Where the first mel filter begins (Kaldi's default of `low_freq`), the lower end of human hearing."""
# Mel bins of one matrix product. A triangle touches few FFT bins, so a narrow band of bins needs a small matrix only.
_BAND = 16
# Waveforms of one pass, on a CPU of one of its threads: the intermediate values then stay in its cache. On a GPU they
# bound the memory.
_STEP_CPU, _STEP_GPU = 2, 256


def log_mel(waveforms: torch.Tensor, rate_hz: int = 16_000, num_mel_bins: int = 128) -> torch.Tensor:
    """(B, T) waveforms -> (B, frames, num_mel_bins) float32 log-mel energies; frames = 1 + (T - 25 ms) // 10 ms.

    The numbers are those of `torchaudio.compliance.kaldi.fbank(htk_compat=True, use_energy=False, dither=0,
    window_type="hanning", sample_frequency=rate_hz, num_mel_bins=num_mel_bins)` for each row: Kaldi's `feat/` with its
    defaults (mean removal and preemphasis 0.97 in each frame, FFT of the next power of two, triangles from 20 Hz to
    Nyquist). Not differentiable. Raises ValueError for another shape, or fewer samples than one frame.
    """
    import torch  # decode workers import this package and need no torch

    size, shift = int(rate_hz * FRAME_S), int(rate_hz * SHIFT_S)
    if waveforms.ndim != 2 or not len(waveforms) or waveforms.shape[1] < size:
        raise ValueError(f"log_mel: expected (B >= 1, T >= {size}) samples, got {tuple(waveforms.shape)}")
    batch, frames = waveforms.shape[0], 1 + (waveforms.shape[1] - size) // shift
    step = min(batch, _STEP_CPU * torch.get_num_threads() if waveforms.device.type == "cpu" else _STEP_GPU)
    whole = batch - batch % step
    with torch.no_grad(), torch.autocast(waveforms.device.type, enabled=False):
        cut = waveforms.float().unfold(1, size, shift)
        out = torch.empty(batch, frames, num_mel_bins, dtype=torch.float32, device=waveforms.device)
        _fill(out[:whole], cut[:whole], step, rate_hz)
        if whole < batch:
            _fill(out[whole:], cut[whole:], batch - whole, rate_hz)
    return out


def _fill(out: torch.Tensor, cut: torch.Tensor, step: int, rate_hz: int) -> None:
    """(B, frames, size) cut waveforms -> `out` (B, frames, num_mel_bins), `step` waveforms a pass; step divides B.

    Equality to 1e-4 also where a bin holds next to nothing (noise now and then, a sweep mostly) needs the reference's
    rounding, so each operation up to the FFT is rounded as there: no fused multiply-add, no merged linear map. Speed
    comes from buffers that stay in the cache, from views made once, and from the bands of the mel matrix.
    """
    import torch  # see log_mel

    frames, size = cut.shape[1:]
    fft_size, rows = _fft_size(size), step * frames
    window, bands = _constants(rate_hz, out.shape[2], size, cut.device)
    centred, scaled = cut.new_empty(rows, size), cut.new_empty(rows, size)
    padded = cut.new_zeros(rows, fft_size)
    spectrum = cut.new_empty(rows, fft_size // 2 + 1, dtype=torch.complex64)
    power, energies = cut.new_empty(rows, fft_size // 2 + 1), cut.new_empty(rows, out.shape[2])

    centred_frames = centred.view(step, frames, size)
    # The window multiplies each frame's first sample, which has none before it, by zero: it is left out.
    later, earlier, padded_later, window_later = centred[:, 1:], scaled[:, :-1], padded[:, 1:size], window[1:]
    parts = torch.view_as_real(spectrum)
    real, imaginary = parts.unbind(2)
    products = [(power[:, b.low : b.high], b.weights, energies[:, b.first : b.last]) for b in bands]
    means = cut.mean(2, keepdim=True)
    for some, mean, result in zip(cut.split(step), means.split(step), out.split(step), strict=True):
        torch.sub(some, mean, out=centred_frames)
        torch.mul(centred, _PREEMPHASIS, out=scaled)
        torch.sub(later, earlier, out=padded_later)
        padded_later.mul_(window_later)
        torch.fft.rfft(padded, out=spectrum)
        parts.square_()
        torch.add(real, imaginary, out=power)
        for powers, weights, band_energies in products:
            torch.mm(powers, weights, out=band_energies)
        torch.log(energies.clamp_(min=torch.finfo(torch.float32).eps), out=result.view(rows, -1))


class _Band(NamedTuple):
    """Mel bins [first, last) as the product of the powers [low, high) with `weights` (high - low, last - first)."""

    first: int
    last: int
    low: int
    high: int
    weights: torch.Tensor


@lru_cache(maxsize=16)
def _constants(
    rate_hz: int, num_mel_bins: int, size: int, device: torch.device
) -> tuple[torch.Tensor, tuple[_Band, ...]]:
    import torch  # see log_mel

    # A tensor made in inference mode could not be used outside of it later.
    with torch.inference_mode(False):
        window = torch.hann_window(size, periodic=False, dtype=torch.float32)
        weights = _mel_weights(rate_hz, num_mel_bins, _fft_size(size))
        bands = []
        for first, last in pairwise([*range(0, num_mel_bins, _BAND), num_mel_bins]):
            used = weights[:, first:last].any(dim=1).nonzero()
            low, high = (int(used.min()), int(used.max()) + 1) if len(used) else (0, 1)
            bands.append(_Band(first, last, low, high, weights[low:high, first:last].contiguous().to(device)))
        return window.to(device), tuple(bands)


def _mel_weights(rate_hz: int, num_mel_bins: int, fft_size: int) -> torch.Tensor:
    """(fft_size / 2 + 1, num_mel_bins) triangles, from Kaldi's `feat/mel-computations.cc`, in float32 as there."""
    import torch  # see log_mel

    lowest = 1127.0 * math.log(1.0 + _LOWEST_HZ / 700.0)
    highest = 1127.0 * math.log(1.0 + rate_hz / 2 / 700.0)
    spacing = (highest - lowest) / (num_mel_bins + 1)
    index = torch.arange(num_mel_bins)
    left, centre, right = (lowest + (index + offset) * spacing for offset in (0.0, 1.0, 2.0))
    mel = 1127.0 * (1.0 + rate_hz / fft_size * torch.arange(fft_size // 2) / 700.0).log().unsqueeze(1)
    triangles = torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)).clamp(min=0.0)
    return torch.nn.functional.pad(triangles, (0, 0, 0, 1))  # the Nyquist bin belongs to no triangle


def _fft_size(size: int) -> int:
    return 1 << (size - 1).bit_length()
