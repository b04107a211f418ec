"""EfficientNet-Lite image trunks through timm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bind.encoders import check_options

# Images of one pass on a CPU, so that what lies between two layers stays in its cache. Measured for Lite0 on two cores,
# ms an image: 64 at once 35 as stored by default, 19 with channels last; 16 at once 20 and 9.8; 8 at once 8.4.
_CPU_BATCH = 8


class EfficientNet(nn.Module):
    """(B, 3, H, W) normalised RGB -> (B, width): pooled features, ImageNet class probabilities, or both side by side.

    `outputs` is an ordered subset of `pooled` (1,280 values for Lite0) and `probabilities` (1,000, the softmax of
    logits / `temperature`).
    """

    def __init__(self, model: str, outputs: tuple[str, ...] = ("pooled",), temperature: float = 1.0) -> None:
        super().__init__()
        import timm

        if not outputs or set(outputs) - {"pooled", "probabilities"}:
            raise ValueError(f"encoder: outputs is {outputs!r}, expected pooled, probabilities or both")
        self.trunk = timm.create_model(model, pretrained=False)
        self.outputs = outputs
        self.temperature = temperature
        widths = {"pooled": int(self.trunk.num_features), "probabilities": int(self.trunk.num_classes)}
        self.width = sum(widths[output] for output in outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, width)."""
        x = x.contiguous(memory_format=torch.channels_last)
        if x.device.type == "cpu" and len(x) > _CPU_BATCH:
            return torch.cat([self.forward(part) for part in x.split(_CPU_BATCH)])
        pooled = self.trunk.forward_head(self.trunk.forward_features(x), pre_logits=True)
        if self.outputs == ("pooled",):
            return cast("Tensor", pooled)
        probabilities = (self.trunk.get_classifier()(pooled) / self.temperature).softmax(1)
        return torch.cat([pooled if output == "pooled" else probabilities for output in self.outputs], 1)


def build(options: Mapping[str, Any]) -> nn.Module:
    """`{"model": timm name, "outputs": [...], "temperature": 1.0}` -> a randomly initialised trunk."""
    check_options(options, {"model", "outputs", "temperature"})
    return EfficientNet(
        str(options["model"]), tuple(options.get("outputs", ("pooled",))), float(options.get("temperature", 1.0))
    )


def load(options: Mapping[str, Any], file: Path) -> nn.Module:
    """The trunk with the weights of an `efficientnet-liteN-*.pth` of the efficientnet_lite_pytorch packages.

    That file lists the same tensors under other names, in the same order as timm's `tf_efficientnet_liteN`.
    Raises ValueError where number or shapes differ.
    """
    encoder = cast("EfficientNet", build(options))
    published = torch.load(file, map_location="cpu", weights_only=True)
    ours = encoder.trunk.state_dict()
    if [tuple(t.shape) for t in published.values()] != [tuple(t.shape) for t in ours.values()]:
        raise ValueError(f"{file.name}: its {len(published)} tensors do not have the shapes of {options['model']}")
    encoder.trunk.load_state_dict(dict(zip(ours, published.values(), strict=True)))
    return encoder.to(memory_format=torch.channels_last)
