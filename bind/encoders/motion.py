"""Statistics of a window of motion and a small network over them, an encoder for a few hundred recordings.

Moments, quantiles, band energies and correlations, classified by a forest of trees, recognise the activities of unseen
people better than convolutions trained on as few recordings (`train/runs/LOG.md`). Here the same statistics are a
layer, so that training can rotate, stretch and disturb the windows before they are computed, and the network over them
maps into the space of the texts.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bind.encoders import check_options

_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""The quantiles of each signal that are features; the least and the greatest value are among them."""
_BANDS_HZ = (0.25, 0.6, 1.0, 1.5, 2.0, 3.0, 4.5, 6.5, 9.0)
"""The edges of the frequency bands whose energies are features. A watch that samples at 20 Hz still fills all bands."""
_SEGMENTS = 8
"""Parts of a window whose means and deviations are features, so that the order of movements counts."""
_AROUND_PEAK_S = ((-2.0, -1.0), (-1.0, -0.3), (-0.3, 0.3), (0.3, 1.0), (1.0, 2.0))
"""Stretches in seconds around the hardest moment: before, at and after the impact of a fall."""
_GRAVITY_MS2 = 5.0
"""A smaller mean acceleration is not gravity, so the recording has "linear" acceleration, with gravity removed."""
_SIGNALS = 13
"""The number of signals that `statistics` makes of the six channels; the constants below are places among them."""
_ROTATION = (6, 7, 8, 9, 10, 11)
"""Signals that need a gyroscope."""
_VERTICAL = (4, 5, 10, 11)
"""Signals that need the direction of gravity."""
_RAW = (0, 1, 2, 6, 7, 8)
"""The six channels as measured, whose correlations are features."""
_AROUND = (0, 1, 2, 3, 6, 7, 8, 9)
"""Signals that are described around the hardest moment: channels as measured and the two norms."""
_LARGEST = 5.0
"""Standard deviations at which a statistic is cut off, so that one outlier does not rule the layers after it."""


class Motion(nn.Module):
    """(B, 6, T) acceleration in m/s2 and rotation in rad/s at `rate_hz` -> (B, widths[-1]).

    `preprocess.readers.imu` gives a rotation of 0 throughout for a recording without a gyroscope. The statistics of
    rotation are then replaced by their means, and a flag says so. The same holds for statistics along and across
    gravity where gravity was removed. `mean` and `std` of all statistics are fitted before training.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, int], rate_hz: float, widths: tuple[int, ...], dropout: float = 0.0) -> None:
        super().__init__()
        if len(shape) != 2 or shape[0] != 6 or shape[1] < 2 * _SEGMENTS:
            raise ValueError(
                f"encoder: expected a shape of 6 channels and {2 * _SEGMENTS} samples or more, got {shape}"
            )
        if not widths:
            raise ValueError("encoder: expected one width or more, got none")
        self.shape = tuple(shape)
        self.rate_hz = rate_hz
        self.width = widths[-1]
        count = statistics_count()
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("std", torch.ones(count))
        layers: list[nn.Module] = []
        for into, out in itertools.pairwise((count + 2, *widths)):
            layers += [nn.Linear(into, out), nn.LayerNorm(out), nn.GELU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 6, T) -> (B, width). Raises ValueError for another shape."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"encoder: expected (B, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        features: Tensor = self.over(*statistics(x.float(), self.rate_hz))
        return features

    def over(self, values: Tensor, known: Tensor) -> Tensor:
        """Values and flags as `statistics` returns them -> (B, width)."""
        dtype = self.mean.dtype
        standard = ((values.to(dtype) - self.mean) / self.std).clamp(-_LARGEST, _LARGEST) * known[:, :-2].to(dtype)
        features: Tensor = self.layers(torch.cat([standard, known[:, -2:].to(dtype)], 1))
        return features


def statistics_count() -> int:
    """The number of values that `statistics` returns for a window."""
    with torch.device("cpu"):  # real tensors are needed even where modules are made without memory
        return int(statistics(torch.zeros(1, 6, 64), 50.0)[0].shape[1])


def statistics(x: Tensor, rate_hz: float) -> tuple[Tensor, Tensor]:
    """(B, 6, T) float32 in m/s2 and rad/s -> values (B, S) float32, and (B, S + 2) of 0 and 1, which values are known.

    The last two flags concern the whole window: whether it has a gyroscope, and whether it has gravity.
    """
    acceleration, rotation = x[:, :3], x[:, 3:]
    gyroscope = (rotation != 0).flatten(1).any(1)
    mean = acceleration.mean(2, keepdim=True)
    length = mean.norm(dim=1, keepdim=True)
    gravity = length.flatten() >= _GRAVITY_MS2
    up = mean / length.clamp(min=1e-6)
    along, about = (acceleration * up).sum(1, keepdim=True), (rotation * up).sum(1, keepdim=True)
    across, tilting = (acceleration - along * up).norm(dim=1), (rotation - about * up).norm(dim=1)
    jerk = acceleration.diff(dim=2, append=acceleration[:, :, -1:]).norm(dim=1) * rate_hz
    signals = torch.stack(
        [
            *acceleration.unbind(1),
            acceleration.norm(dim=1),
            along[:, 0] - length[:, 0],
            across,
            *rotation.unbind(1),
            rotation.norm(dim=1),
            about[:, 0],
            tilting,
            jerk,
        ],
        1,
    )
    of_signals = torch.cat([_moments(signals, rate_hz), _spectra(signals, rate_hz), _segments(signals)], 2)
    around = _around_peak(signals, rate_hz)
    pairs = _correlations(signals)
    turned = _turns(acceleration)
    # A statistic is known where its signal is known.
    kinds = torch.zeros(_SIGNALS, 2, device=x.device)  # columns: needs a gyroscope, needs gravity
    kinds[list(_ROTATION), 0] = 1
    kinds[list(_VERTICAL), 1] = 1
    needs = [
        kinds[:, None].expand(-1, of_signals.shape[2], -1).flatten(0, 1),
        kinds[list(_AROUND), None].expand(-1, around.shape[2], -1).flatten(0, 1),
        torch.stack([torch.maximum(kinds[i], kinds[j]) for i, j in itertools.combinations(_RAW, 2)]),
        torch.tensor([[0.0, 1.0]], device=x.device).expand(turned.shape[1], -1),
    ]
    has = torch.stack([gyroscope, gravity], 1).float()
    known = (1 - (1 - has)[:, None] * torch.cat(needs)[None]).prod(2)
    values = torch.cat([of_signals.flatten(1), around.flatten(1), pairs, turned], 1)
    return values, torch.cat([known, has], 1)


def _moments(signals: Tensor, rate_hz: float) -> Tensor:
    """(B, C, T) -> (B, C, 14): mean, deviation, quantiles, steps, crossings, skewness, kurtosis, time of the peak."""
    mean, std = signals.mean(2), signals.std(2, correction=0)
    centred = (signals - mean[:, :, None]) / (std[:, :, None] + 1e-3)
    quantiles = torch.quantile(signals, signals.new_tensor(_QUANTILES), dim=2).movedim(0, 2)
    steps = signals.diff(dim=2).abs().mean(2) * rate_hz
    crossings = (centred[:, :, 1:] * centred[:, :, :-1] < 0).float().mean(2) * rate_hz
    peak = centred.abs().argmax(2).float() / signals.shape[2]
    rest = torch.stack([steps, crossings, (centred**3).mean(2), (centred**4).mean(2), peak], 2)
    return _soft(torch.cat([mean[:, :, None], std[:, :, None], quantiles, rest], 2))


def _spectra(signals: Tensor, rate_hz: float) -> Tensor:
    """(B, C, T) -> (B, C, 13): log energies of bands, centroid, entropy, the autocorrelation's peak and its lag."""
    count = signals.shape[2]
    centred = (signals - signals.mean(2, keepdim=True)) * torch.hann_window(count, device=signals.device)
    power = torch.fft.rfft(centred, dim=2).abs().square() / count
    hertz = torch.fft.rfftfreq(count, 1 / rate_hz).to(signals.device)
    bands = [power[:, :, (hertz >= low) & (hertz < high)].sum(2) for low, high in itertools.pairwise((0.1, *_BANDS_HZ))]
    in_bands = power[:, :, hertz < _BANDS_HZ[-1]]
    share = in_bands / (in_bands.sum(2, keepdim=True) + 1e-6)
    centroid = (share * hertz[hertz < _BANDS_HZ[-1]]).sum(2)
    entropy = -(share * (share + 1e-9).log()).sum(2)
    correlation = torch.fft.irfft(F.pad(in_bands, (0, power.shape[2] - in_bands.shape[2])), count, dim=2)
    lags = slice(max(1, round(0.25 * rate_hz)), min(count // 2, round(2.5 * rate_hz)))
    best, lag = (correlation / (correlation[:, :, :1] + 1e-6))[:, :, lags].max(2)
    rest = torch.stack([centroid, entropy, best, lag.float() / rate_hz], 2)
    return torch.cat([torch.stack(bands, 2).add(1e-4).log(), rest], 2)


def _segments(signals: Tensor) -> Tensor:
    """(B, C, T) -> (B, C, 16): mean and deviation of each eighth, in order."""
    parts = torch.stack([part[..., : signals.shape[2] // _SEGMENTS] for part in signals.tensor_split(_SEGMENTS, 2)], 2)
    return _soft(torch.cat([parts.mean(3), parts.std(3, correction=0)], 2))


def _around_peak(signals: Tensor, rate_hz: float) -> Tensor:
    """(B, C, T) -> (B, 8, 10): means and deviations of five stretches around the hardest moment (a fall's impact)."""
    count = signals.shape[2]
    effort = (signals[:, 3] - signals[:, 3].mean(1, keepdim=True)).abs()
    peak = F.avg_pool1d(effort[:, None], 5, 1, 2)[:, 0].argmax(1)
    chosen = signals[:, list(_AROUND)]
    found = []
    for begin_s, end_s in _AROUND_PEAK_S:
        offsets = torch.arange(round(begin_s * rate_hz), round(end_s * rate_hz), device=signals.device)
        places = (peak[:, None] + offsets).clamp(0, count - 1)
        stretch = chosen.gather(2, places[:, None].expand(-1, len(_AROUND), -1))
        found += [stretch.mean(2), stretch.std(2, correction=0)]
    return _soft(torch.stack(found, 2))


def _correlations(signals: Tensor) -> Tensor:
    """(B, C, T) -> (B, 15): Pearson's correlations of the six channels as measured."""
    raw = signals[:, list(_RAW)]
    standard = (raw - raw.mean(2, keepdim=True)) / (raw.std(2, correction=0, keepdim=True) + 1e-3)
    matrix = standard @ standard.mT / raw.shape[2]
    rows, columns = zip(*itertools.combinations(range(len(_RAW)), 2), strict=True)
    return matrix[:, rows, columns]


def _turns(acceleration: Tensor) -> Tensor:
    """(B, 3, T) -> (B, 6): cosines between the directions of the means of four quarters: did the body tilt?"""
    directions = [F.normalize(part.mean(2), dim=1, eps=1e-3) for part in acceleration.tensor_split(4, 2)]
    return torch.stack([(a * b).sum(1) for a, b in itertools.combinations(directions, 2)], 1)


def _soft(values: Tensor) -> Tensor:
    """Compresses large values: the sign times log(1 + absolute value)."""
    return values.sign() * values.abs().log1p()


def build(options: Mapping[str, Any]) -> Motion:
    """A table of the arguments of `Motion` (`shape`, `rate_hz`, `widths`) -> a randomly initialised encoder.

    Raises ValueError that lists unknown or missing keys.
    """
    needed = {"shape", "rate_hz", "widths"}
    check_options(options, needed | {"dropout"})
    if missing := sorted(needed - options.keys()):
        raise ValueError(f"encoder: missing keys {missing}")
    shape, widths = tuple(options["shape"]), tuple(options["widths"])
    return Motion(shape, float(options["rate_hz"]), widths, float(options.get("dropout", 0.0)))
