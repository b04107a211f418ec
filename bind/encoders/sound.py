"""A small network over log-mel pictures of words and sounds: narrow in frequency first, then wide along time.

In training it varies its own input, as dropout does: other voices (a stretched frequency axis), other tempi, noise,
loudness, and blanked stretches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bind.encoders import check_options

_FLOOR = math.log(torch.finfo(torch.float32).eps)
"""Log energy of silence, from `preprocess.dsp.filterbank`."""
_GROUPS = 8
_HEADS = 8
_SHRINK = 8
"""Frequencies that become one before time is looked along. Frames are joined by 2 there, and after a few blocks."""


class SoundEncoder(nn.Module):
    """(B, 1, bins, frames) log energies, not normalised -> (B, width).

    A picture's frames whose bins are all equal (the padding of short sounds) are taken as silence. `channels` is the
    width along time, `blocks` the number of residual ones; `width` is 8 * `channels`, one mean of all frames for each
    of eight learned weightings. `vary` scales the variation in training, 0 turns it off.
    """

    def __init__(self, shape: tuple[int, ...], *, channels: int = 256, blocks: int = 8, vary: float = 1.0) -> None:
        super().__init__()
        if len(shape) != 3 or shape[0] != 1 or shape[1] % _SHRINK:
            raise ValueError(f"sound: expected a shape (1, bins, frames), bins a multiple of {_SHRINK}, got {shape}")
        if channels % _GROUPS or blocks < 4:
            raise ValueError(
                f"sound: expected channels a multiple of {_GROUPS}, 4 blocks or more, got {channels}, {blocks}"
            )
        self.shape = shape
        self.width = _HEADS * channels
        self.vary = vary
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, 5, (2, 1), 2),
            nn.GroupNorm(_GROUPS, 16),
            nn.GELU(),
            nn.Conv2d(16, 32, 3, (2, 2), 1),
            nn.GroupNorm(_GROUPS, 32),
            nn.GELU(),
            nn.Conv2d(32, 64, 3, (2, 1), 1),
            nn.GroupNorm(_GROUPS, 64),
            nn.GELU(),
            nn.Flatten(1, 2),
            nn.Conv1d(64 * shape[1] // _SHRINK, channels, 1),
        )
        first = blocks // 4
        self.near = nn.Sequential(*(Block(channels) for _ in range(first)))
        self.join = nn.Conv1d(channels, channels, 2, 2)
        self.far = nn.Sequential(*(Block(channels) for _ in range(blocks - first)))
        self.weighting = nn.Conv1d(channels, _HEADS, 1)
        self.norm = nn.LayerNorm(self.width)
        for module in self.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d)):
                # With torch's default, 0.58 of this, all pictures look alike at first and learning starts late.
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, bins, frames) -> (B, width). Raises ValueError for another shape."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"encoder: expected (B, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        silent = x.amax(2, keepdim=True) == x.amin(2, keepdim=True)
        x = x.masked_fill(silent, _FLOOR)
        if self.training and self.vary:
            x = varied(x, self.vary)
        # Bins of -16 to 10 to about -1 to 1; the loudness of a clip is kept.
        x = self.far(self.join(self.near(self.stem((x + 6) / 6))))
        weights = self.weighting(x).softmax(2)
        features: Tensor = self.norm(torch.einsum("bht,bct->bhc", weights, x).flatten(1))
        return features


class Block(nn.Module):
    """(B, channels, T) -> the same shape: the input plus each channel along time, then an MLP over channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.along = nn.Conv1d(channels, channels, 9, padding=4, groups=channels)
        self.fc1 = nn.Conv1d(channels, 2 * channels, 1)
        self.fc2 = nn.Conv1d(2 * channels, channels, 1)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, T) -> (B, channels, T)."""
        added: Tensor = x + self.dropout(self.fc2(F.gelu(self.fc1(self.along(self.norm(x))))))
        return added


def varied(x: Tensor, strength: float) -> Tensor:
    """(B, 1, bins, frames) log energies -> the same shape: each as another voice, elsewhere, at another time.

    At strength 1: frequencies stretched by up to 8 %, time by up to 15 %, the sound moved by up to 15 frames, noise
    43 to 17 dB below the loudest bin, louder or softer by up to 9 dB, an eighth of the rows and 24 columns blanked
    at most (arXiv 1904.08779). The random numbers are torch's.
    """
    count, bins, frames = len(x), x.shape[2], x.shape[3]

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(count, device=x.device).uniform_(low, high)

    theta = x.new_zeros(count, 2, 3, dtype=torch.float32)
    theta[:, 0, 0] = 1 + strength * uniform(-0.15, 0.15)
    theta[:, 0, 2] = theta[:, 0, 0] - 1 + strength * uniform(-30.0, 15.0) / frames
    theta[:, 1, 1] = 1 + strength * uniform(-0.08, 0.08)
    theta[:, 1, 2] = theta[:, 1, 1] - 1  # the lowest frequency stays
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    x = F.grid_sample(x.float(), grid, padding_mode="border", align_corners=False)
    tilt = torch.linspace(-1, 1, bins, device=x.device).view(1, 1, bins, 1)
    level = x.amax((1, 2, 3)) - strength**-1 * uniform(4.0, 10.0)
    noise = level.view(-1, 1, 1, 1) + uniform(-2, 1).view(-1, 1, 1, 1) * tilt + torch.randn_like(x).mul_(0.7)
    noisy = (uniform(0, 1) < 0.5 * strength).view(-1, 1, 1, 1)
    x = torch.where(noisy, torch.logaddexp(x, noise), x)
    x = (x + strength * uniform(-2.0, 2.0).view(-1, 1, 1, 1)).clamp_(min=_FLOOR)
    mean = x.mean((1, 2, 3), keepdim=True)
    for axis, size, most in ((2, bins, bins / 8), (3, frames, 12), (3, frames, 12)):
        wide = uniform(0, most * strength)
        first = uniform(0, 1) * (size - wide)
        place = torch.arange(size, device=x.device)
        blank = (place >= first[:, None]) & (place < (first + wide)[:, None])
        x = torch.where(blank.view(count, 1, *((-1, 1) if axis == 2 else (1, -1))), mean, x)
    return x


def build(options: Mapping[str, Any]) -> SoundEncoder:
    """A table of the arguments of `SoundEncoder` (`shape` is needed) -> a randomly initialised encoder.

    Raises ValueError that lists unknown or missing keys.
    """
    check_options(options, {"shape", "channels", "blocks", "vary"})
    if "shape" not in options:
        raise ValueError("encoder: missing keys ['shape']")
    return SoundEncoder(
        tuple(options["shape"]),
        channels=int(options.get("channels", 256)),
        blocks=int(options.get("blocks", 8)),
        vary=float(options.get("vary", 1.0)),
    )
