"""Small networks over log-mel spectrograms: one for words, one for sounds of the world, and both side by side.

The network for words is narrow in frequency first, then wide along time. In training it varies its own input, as
dropout does: other voices (a stretched frequency axis), other tempi, noise, loudness, and blanked stretches. The
network for sounds is a MobileNet that classifies AudioSet's 521 classes.
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
"""The log energy of silence in `preprocess.dsp.filterbank`."""
_GROUPS = 8
"""Groups of each group normalisation; the number of channels has to divide by it."""
_HEADS = 8
"""Weighted means over time that stand side by side in the result, each with weights of its own."""
_SHRINK = 8
"""The number of frequency bins that are joined into one before convolutions along time.

Frames are joined in pairs there, and again after a few blocks.
"""
_BINS_AT_ONCE = 32
"""The encoder of sounds halves bins and frames five times, so both have to fill 32."""
_STAGES: tuple[tuple[int, int, tuple[int, int], int, int, bool], ...] = (
    (16, 1, (1, 1), 1, 3, False),
    (24, 2, (2, 2), 4, 3, False),
    (40, 3, (2, 2), 4, 5, True),
    (80, 3, (2, 2), 4, 3, True),
    (112, 3, (1, 1), 4, 5, True),
    (192, 3, (2, 1), 4, 5, True),
)
"""For each stage: width, blocks, stride of the first block (bins, frames), expansion, kernel,
squeeze-and-excitation.
"""


class SoundEncoder(nn.Module):
    """(B, 1, bins, frames) log energies, not normalised -> (B, width).

    Frames whose bins are all equal are the padding of short sounds and count as silence. `channels` is the width along
    time and `blocks` the number of residual blocks. `width` is 8 * `channels`: one mean over all frames for each of
    eight learned weightings. `vary` scales the variation in training; 0 turns it off.
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
                # With torch's default, which is 0.58 of this, all spectrograms look alike at first and learning starts
                # late.
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, bins, frames) -> (B, width). Raises ValueError for another shape."""
        _check_shape(x, self.shape)
        x = _with_silence(x)
        if self.training and self.vary:
            x = varied(x, self.vary)
        # This maps bins of -16 to 10 to about -1 to 1; the loudness of a clip is kept.
        x = self.far(self.join(self.near(self.stem((x + 6) / 6))))
        weights = self.weighting(x).softmax(2)
        features: Tensor = self.norm(torch.einsum("bht,bct->bhc", weights, x).flatten(1))
        return features


class Block(nn.Module):
    """(B, channels, T) -> the same shape: the input plus a convolution of each channel along time and an MLP over
    channels.
    """

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


class TaggingEncoder(nn.Module):
    """(B, 1, bins, frames) log energies, not normalised -> (B, width): class probabilities and features of a sound.

    The blocks are inverted residuals (MobileNetV2, arXiv 1801.04381) with squeeze-and-excitation; `multiplier` scales
    their widths. The result has, side by side, the largest probability of each of `classes` over three overlapping
    stretches of the clip, and `embedding` features, which are means over the clip.
    """

    def __init__(
        self, shape: tuple[int, ...], *, classes: int = 521, embedding: int = 512, multiplier: float = 1.0
    ) -> None:
        super().__init__()
        if len(shape) != 3 or shape[0] != 1 or shape[1] % _BINS_AT_ONCE or shape[2] < _BINS_AT_ONCE:
            raise ValueError(
                f"sound: expected a shape (1, bins, frames), bins a multiple of {_BINS_AT_ONCE}, got {shape}"
            )
        self.shape = shape
        self.width = classes + embedding
        self.classes = classes
        width = _channels(24, multiplier)
        layers: list[nn.Module] = [_conv(1, width, 3, 2), nn.Hardswish()]
        for channels, count, stride, expansion, kernel, squeeze in _STAGES:
            for number in range(count):
                wide = _channels(channels, multiplier)
                steps = stride if number == 0 else (1, 1)
                layers.append(_Inverted(width, wide, steps, expansion, kernel, squeeze))
                width = wide
        self.trunk = nn.Sequential(*layers, _conv(width, embedding, 1, 1), nn.Hardswish())
        self.classifier = nn.Linear(embedding, classes)
        for module in self.trunk.modules():
            if isinstance(module, nn.Conv2d):
                # This makes the outputs of an untrained encoder differ between inputs.
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, bins, frames) -> (B, width). Raises ValueError for another shape."""
        stretches = self.stretches(x)
        probabilities = self.classifier(stretches).sigmoid().amax(1)
        return torch.cat([probabilities, stretches.mean(1)], 1)

    def stretches(self, x: Tensor) -> Tensor:
        """(B, 1, bins, frames) -> (B, 3, embedding): the means over the first half, the middle and the last half."""
        _check_shape(x, self.shape)
        # This maps bins of -16 to 10 to about -1 to 1; the loudness of a clip is kept.
        columns: Tensor = self.trunk((_with_silence(x) + 6) / 6).mean(2)
        count = columns.shape[2]
        half = (count + 1) // 2
        middle = (count - half) // 2
        return torch.stack([columns[..., i : i + half].mean(2) for i in (0, middle, count - half)], 1)


class HearingEncoder(nn.Module):
    """(B, 1, bins, frames) log energies, not normalised -> (B, width): features of words and of sounds, mixed by a
    gate.

    `words` are the options of `SoundEncoder`, `sounds` those of `TaggingEncoder`. The gate, between 0 and 1, is the
    probability that a clip is one person who speaks into the microphone. The features are those of the words times the
    gate, those of the sounds times (1 - gate), and (1 - gate) itself. The last one serves a linear head without bias as
    the bias for sounds.
    """

    def __init__(self, shape: tuple[int, ...], words: Mapping[str, Any], sounds: Mapping[str, Any]) -> None:
        super().__init__()
        self.shape = shape
        self.words = SoundEncoder(shape, **words)
        self.sounds = TaggingEncoder(shape, **sounds)
        self.gate = nn.Linear(self.sounds.width, 1)
        self.width = self.words.width + self.sounds.width + 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, bins, frames) -> (B, width). Raises ValueError for another shape."""
        sounds = self.sounds(x)
        spoken = self.gate(sounds).sigmoid()
        return torch.cat([spoken * self.words(x), (1 - spoken) * sounds, 1 - spoken], 1)


def varied(x: Tensor, strength: float) -> Tensor:
    """(B, 1, bins, frames) log energies -> the same shape: each clip with another voice, tempo, position and loudness.

    At strength 1, frequencies are stretched by up to 8 % and time by up to 15 %; the sound is moved by up to 15 frames;
    noise is added, 43 to 17 dB below the loudest bin; the loudness changes by up to 9 dB; and at most an eighth of the
    rows and 24 columns are blanked (SpecAugment, arXiv 1904.08779). The random numbers are torch's.
    """
    count, bins, frames = len(x), x.shape[2], x.shape[3]

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(count, device=x.device).uniform_(low, high)

    theta = x.new_zeros(count, 2, 3, dtype=torch.float32)
    theta[:, 0, 0] = 1 + strength * uniform(-0.15, 0.15)
    theta[:, 0, 2] = theta[:, 0, 0] - 1 + strength * uniform(-30.0, 15.0) / frames
    theta[:, 1, 1] = 1 + strength * uniform(-0.08, 0.08)
    theta[:, 1, 2] = theta[:, 1, 1] - 1  # the lowest frequency stays where it is
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


class _Inverted(nn.Module):
    """(B, C, F, T) -> (B, C', F', T'): an inverted residual: widened, depthwise, squeeze-and-excitation, narrowed."""

    def __init__(
        self, narrow: int, out: int, stride: tuple[int, int], expansion: int, kernel: int, squeeze: bool
    ) -> None:
        super().__init__()
        wide = narrow * expansion
        widened = [] if expansion == 1 else [_conv(narrow, wide, 1, 1), nn.Hardswish()]
        weighted = [_Weighted(wide)] if squeeze else []
        self.layers = nn.Sequential(
            *widened, _conv(wide, wide, kernel, stride, wide), nn.Hardswish(), *weighted, _conv(wide, out, 1, 1)
        )
        self.residual = stride == (1, 1) and narrow == out

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> (B, C', F', T')."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class _Weighted(nn.Module):
    """(B, C, F, T) -> the same shape: each channel times a weight in 0..1 computed from the means of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        between = channels // 16
        self.layers = nn.Sequential(
            nn.Conv2d(channels, between, 1), nn.ReLU(), nn.Conv2d(between, channels, 1), nn.Hardsigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> the same shape."""
        weighted: Tensor = x * self.layers(x.mean((2, 3), keepdim=True))
        return weighted


def _conv(narrow: int, wide: int, kernel: int, stride: int | tuple[int, int], groups: int = 1) -> nn.Sequential:
    """A convolution followed by its normalisation."""
    return nn.Sequential(
        nn.Conv2d(narrow, wide, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(wide)
    )


def _channels(count: int, multiplier: float) -> int:
    """A number of channels times `multiplier`, rounded to a multiple of 8."""
    return max(8, round(count * multiplier / 8) * 8)


def _check_shape(x: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(x.shape[1:]) != shape:
        raise ValueError(f"encoder: expected (B, {', '.join(map(str, shape))}), got {tuple(x.shape)}")


def _with_silence(x: Tensor) -> Tensor:
    """(B, 1, bins, frames) -> the same, with silence in frames whose bins are all equal: the padding of short
    sounds.
    """
    silent = x.amax(2, keepdim=True) == x.amin(2, keepdim=True)
    return x.masked_fill(silent, _FLOOR)


_WORDS, _SOUNDS = {"channels", "blocks", "vary"}, {"classes", "embedding", "multiplier"}
"""Options of the encoder of spoken words, and of that of sounds beside it."""


def build(options: Mapping[str, Any]) -> nn.Module:
    """A table -> a randomly initialised encoder: a `SoundEncoder`, or a `HearingEncoder` where the table has `sounds`.

    `shape` is needed. The other keys are arguments of `SoundEncoder`; those in `sounds` are arguments of
    `TaggingEncoder`. Raises ValueError that lists unknown or missing keys.
    """
    check_options(options, {"shape", "sounds", *_WORDS})
    if "shape" not in options:
        raise ValueError("encoder: missing keys ['shape']")
    shape = tuple(options["shape"])
    words = {key: _TYPES[key](options[key]) for key in _WORDS & set(options)}
    if "sounds" not in options:
        return SoundEncoder(shape, **words)
    check_options(options["sounds"], _SOUNDS)
    return HearingEncoder(shape, words, {key: _TYPES[key](value) for key, value in options["sounds"].items()})


_TYPES = {"channels": int, "blocks": int, "vary": float, "classes": int, "embedding": int, "multiplier": float}
"""Option -> its type: a description may write `2` for a number with a fraction."""
