"""A small residual convolutional network over 1 or 2 dimensions, the default encoder for a new sensor with little data.

On a few thousand pairs it learns faster than a transformer, which has to learn locality from the data first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bind.encoders import check_options

_GROUPS = 8
"""Groups of each group normalisation; a width has to divide by it."""
# The number of items in one pass on a CPU, chosen so that activations between two layers stay in its cache. For 63
# log-mel spectrograms through widths 16 to 128 on one thread, one pass takes 1.0 ms for each, passes of 24 take 0.65
# ms.
_CPU_BATCH = 24


class ConvNet(nn.Module):
    """(B, *shape) -> (B, width): a stem, one stage of residual blocks for each of `widths`, then the mean over
    positions.

    `shape` is channels first, with 1 or 2 sizes. The stem divides each size by `stride`, each later stage by 2. Norms
    are over groups of channels and never over the batch, so an item's features do not depend on the other items.
    """

    def __init__(self, shape: tuple[int, ...], widths: tuple[int, ...], *, blocks: int = 1, stride: int = 4) -> None:
        super().__init__()
        if len(shape) not in (2, 3):
            raise ValueError(f"convnet: expected a shape of channels and 1 or 2 sizes, got {shape}")
        if not widths or any(width % _GROUPS for width in widths):
            raise ValueError(f"convnet: expected widths that are multiples of {_GROUPS}, got {widths}")
        self.shape = shape
        self.width = widths[-1]
        convolution = nn.Conv1d if len(shape) == 2 else nn.Conv2d
        layers: list[nn.Module] = [convolution(shape[0], widths[0], 2 * stride - 1, stride, stride - 1)]
        for stage, width in enumerate(widths):
            if stage:
                layers += [_norm(widths[stage - 1]), convolution(widths[stage - 1], width, 2, 2)]
            layers += [Block(convolution, width) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(self.width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, width). Raises ValueError for another shape."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"encoder: expected (B, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        if x.device.type == "cpu" and len(x) > _CPU_BATCH and not torch.is_grad_enabled():
            return torch.cat([self.forward(part) for part in x.split(_CPU_BATCH)])
        features: Tensor = self.norm(self.layers(x).flatten(2).mean(2))
        return features


class Block(nn.Module):
    """(B, width, ...) -> the same shape: norm, convolution, norm, convolution, added to the input."""

    def __init__(self, convolution: Any, width: int) -> None:
        super().__init__()
        self.norm_1 = _norm(width)
        self.convolution_1 = convolution(width, width, 3, 1, 1)
        self.norm_2 = _norm(width)
        self.convolution_2 = convolution(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, ...) -> (B, width, ...)."""
        y = self.convolution_1(F.gelu(self.norm_1(x)))
        added: Tensor = x + self.convolution_2(F.gelu(self.norm_2(y)))
        return added


def build(options: Mapping[str, Any]) -> ConvNet:
    """A table of the arguments of `ConvNet` (`shape` and `widths` are needed) -> a randomly initialised encoder.

    Raises ValueError that lists unknown or missing keys.
    """
    needed = {"shape", "widths"}
    check_options(options, needed | {"blocks", "stride"})
    if missing := sorted(needed - options.keys()):
        raise ValueError(f"encoder: missing keys {missing}")
    return ConvNet(
        tuple(options["shape"]),
        tuple(options["widths"]),
        blocks=int(options.get("blocks", 1)),
        stride=int(options.get("stride", 4)),
    )


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(_GROUPS, channels)
