"""An image trunk applied to one channel: depth, temperature, or any other camera without colours.

Shown as grey, such a picture already means much to a trunk that knows photographs; `train/small/sensors.py` fits the
head.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bind.encoders import check_options, efficientnet
from bind.encoders.efficientnet import EfficientNet

_EVERY = 3
"""Percentiles are computed from every third pixel of every third row: 5,625 of 50,176 pixels are enough."""


class Sensor(nn.Module):
    """(B, 1, H, W) values on any scale -> (B, width): the features `outputs` of an image trunk (see `EfficientNet`).

    Each picture is stretched by itself: its `low` and `high` percentiles become black and white. So neither the unit
    nor the range of a camera matters, and a picture without contrast is grey.
    """

    def __init__(self, model: str, outputs: tuple[str, ...], low: float = 1.0, high: float = 99.0) -> None:
        super().__init__()
        if not 0 <= low < high <= 100:
            raise ValueError(f"encoder: expected percentiles 0 <= low < high <= 100, got {low} and {high}")
        if {"probabilities", "certainties"} & set(outputs):
            raise ValueError("encoder: outputs has probabilities, but a sensor's trunk has no classifier")
        self.low, self.high = low, high
        self.trunk = EfficientNet(model, outputs)
        self.trunk.classifier = nn.Identity()  # type: ignore[assignment]
        self.width = self.trunk.width

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, width). Raises ValueError for another number of channels."""
        features: Tensor = self.trunk(self._grey(x))
        return features

    def places(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, width, h, w): the features around each place, as `EfficientNet.places`."""
        return self.trunk.places(self._grey(x))

    def _grey(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != 1:
            raise ValueError(f"encoder: expected (B, 1, H, W), got {tuple(x.shape)}")
        return stretched(x, self.low, self.high).mul(2).sub(1).expand(-1, 3, -1, -1)


def stretched(x: Tensor, low: float, high: float) -> Tensor:
    """(B, 1, H, W) -> the same shape, with the percentiles `low` and `high` of each picture at 0 and 1; values are
    clipped.
    """
    seen = x[..., ::_EVERY, ::_EVERY].flatten(1).float().sort(1).values
    last = seen.shape[1] - 1
    black, white = (seen[:, round(percent / 100 * last)].to(x.dtype).view(-1, 1, 1, 1) for percent in (low, high))
    contrast = white - black
    flat = contrast <= 1e-6 * white.abs().clamp(min=1e-6)
    return torch.where(flat, torch.full_like(x, 0.5), ((x - black) / contrast.masked_fill(flat, 1)).clamp(0, 1))


def build(options: Mapping[str, Any]) -> Sensor:
    """A table of the arguments of `Sensor` (`model` and `outputs` are needed) -> a randomly initialised encoder.

    Raises ValueError that lists unknown or missing keys.
    """
    needed = {"model", "outputs"}
    check_options(options, needed | {"low", "high"})
    if missing := sorted(needed - options.keys()):
        raise ValueError(f"encoder: missing keys {missing}")
    percentiles = float(options.get("low", 1.0)), float(options.get("high", 99.0))
    return Sensor(str(options["model"]), tuple(options["outputs"]), *percentiles)


def load(options: Mapping[str, Any], file: Path) -> Sensor:
    """The encoder with the image trunk of a file that `efficientnet.load` reads.

    Raises ValueError as `efficientnet.load`.
    """
    encoder = build(options)
    trunk = efficientnet.load({"model": options["model"], "outputs": options["outputs"]}, file)
    trunk.classifier = nn.Identity()
    encoder.trunk = trunk  # type: ignore[assignment]
    return encoder
