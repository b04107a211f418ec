"""EfficientNet-Lite image trunks with batch norms folded into the convolutions (arXiv 1905.11946).

"Lite" means: no squeeze-and-excitation, and ReLU6 activations. This module does without timm, whose import takes
seconds. A trunk is frozen, so its norms become part of its convolutions as soon as its file is read.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bind.encoders import check_options, shapes_only
from bind.kernels import onednn

# Width and depth multipliers of tf_efficientnet_lite0 to 4 (tpu/models/official/efficientnet/lite).
_SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2), 3: (1.2, 1.4), 4: (1.4, 1.8)}
_MODELS = {f"tf_efficientnet_lite{number}": scales for number, scales in _SCALES.items()}
# Expansion, kernel, stride, blocks, channels of each stage (table 1 of the paper).
_STAGES = (
    (1, 3, 1, 1, 16),
    (6, 3, 2, 2, 24),
    (6, 5, 2, 2, 40),
    (6, 3, 2, 3, 80),
    (6, 5, 1, 3, 112),
    (6, 5, 2, 4, 192),
    (6, 3, 1, 1, 320),
)
_STEM, _POOLED, _CLASSES = 32, 1280, 1000
_NORM_EPSILON = 1e-3
_STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {
    "stages": lambda stage: stage.mean((2, 3)),
    "deviations": lambda stage: stage.std((2, 3), correction=0),
    "maxima": lambda stage: stage.amax((2, 3)),
}
"""Output -> the statistic of a stage (B, C, H, W) that it is made of, (B, C)."""
_QUARTERED = 4
"""How many of the last stages have means by quarters of the picture: earlier stages see edges rather than things."""
_PLACE_PX, _AROUND = 32, 3
"""A place is a square of 32 pixels; its statistics are taken over the 3 x 3 places around it."""

# The number of images in one pass on a CPU, chosen so that activations between two layers stay in its cache. Measured
# for Lite0 on one thread, in ms for an image: passes of 1 take 10.2, passes of 4 take 7.9, passes of 8 take 11.7.
_CPU_BATCH = 4


class EfficientNet(nn.Module):
    """(B, 3, H, W) normalised RGB -> (B, width): the features that `outputs` names, concatenated.

    `pooled` are 1,280 features. `probabilities` are 1,000: the softmax of logits / `temperature`. `certainties` are
    1,000: the squares of the softmax of the logits, which are nearly 0 where several classes are possible. Drawings
    need colours and shapes, which are in the seven stages: `stages`, `deviations` and `maxima` are the mean, standard
    deviation and maximum of each channel of each stage over all positions (784 values each for Lite0). `quarters` are
    the means of the last four stages over the four quarters of the picture (2,816 values). `model` is
    `tf_efficientnet_lite0` to `4`, as timm names them.
    """

    def __init__(self, model: str, outputs: tuple[str, ...] = ("pooled",), temperature: float = 1.0) -> None:
        super().__init__()
        if model not in _MODELS:
            raise ValueError(f"encoder: model is {model!r}, expected one of {', '.join(_MODELS)}")
        width, depth = _MODELS[model]
        stages = [_channels(stage[4], width) for stage in _STAGES]
        widths = {"pooled": _POOLED, "probabilities": _CLASSES, "certainties": _CLASSES} | dict.fromkeys(
            _STATISTICS, sum(stages)
        )
        widths["quarters"] = 4 * sum(stages[-_QUARTERED:])
        if not outputs or set(outputs) - set(widths):
            raise ValueError(f"encoder: outputs is {outputs!r}, expected some of {', '.join(widths)}")
        self.outputs = outputs
        self.temperature = temperature
        self.width = sum(widths[output] for output in outputs)
        self.stem = _convolution(3, _STEM, 3, 2)
        self.blocks = nn.ModuleList(_blocks(width, depth))
        self._ends = set(itertools.accumulate(_repeats(depth)))
        self.head = _convolution(_channels(_STAGES[-1][4], width), _POOLED, 1)
        self.classifier = onednn.Linear(_POOLED, _CLASSES)
        self._register_load_state_dict_pre_hook(_channels_last)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, width)."""
        x = x.contiguous(memory_format=torch.channels_last)
        if x.device.type == "cpu" and len(x) > _CPU_BATCH:
            return torch.cat([self.forward(part) for part in x.split(_CPU_BATCH)])
        stages = self._stages(x)
        pooled = _through(self.head, stages[-1], relu6=True).mean((2, 3))
        found = {"pooled": pooled}
        for name in set(_STATISTICS) & set(self.outputs):
            found[name] = torch.cat([_STATISTICS[name](stage) for stage in stages], 1)
        if "quarters" in self.outputs:
            found["quarters"] = torch.cat([F.adaptive_avg_pool2d(x, 2).flatten(1) for x in stages[-_QUARTERED:]], 1)
        if {"probabilities", "certainties"} & set(self.outputs):
            logits = self.classifier(pooled)
            found["probabilities"] = (logits / self.temperature).softmax(1)
            found["certainties"] = logits.softmax(1).square()
        return torch.cat([found[output] for output in self.outputs], 1)

    def places(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, width, H / 32, W / 32), rounded up: the same features, taken around each place.

        The mean, deviation and maximum of a stage are those of the neighbourhood in place of the whole picture, and
        each of the `quarters` is the neighbourhood's mean. So the head of the whole picture can be applied to a place.
        """
        x = x.contiguous(memory_format=torch.channels_last)
        grid = -(-x.shape[2] // _PLACE_PX), -(-x.shape[3] // _PLACE_PX)
        stages = self._stages(x)
        means = [_around(stage, grid) for stage in stages]
        found = {"pooled": _around(_through(self.head, stages[-1], relu6=True), grid), "stages": torch.cat(means, 1)}
        if "deviations" in self.outputs:
            squares = zip(stages, means, strict=True)
            variances = [_around(stage.square(), grid) - mean.square() for stage, mean in squares]
            found["deviations"] = torch.cat(variances, 1).clamp(min=0).sqrt()
        if "maxima" in self.outputs:
            maxima = torch.cat([F.adaptive_max_pool2d(stage, grid) for stage in stages], 1)
            found["maxima"] = F.max_pool2d(maxima, _AROUND, 1, _AROUND // 2)
        if "quarters" in self.outputs:
            found["quarters"] = torch.cat([mean.repeat_interleave(4, 1) for mean in means[-_QUARTERED:]], 1)
        if {"probabilities", "certainties"} & set(self.outputs):
            logits = self.classifier(found["pooled"].movedim(1, 3)).movedim(3, 1)
            found["probabilities"] = (logits / self.temperature).softmax(1)
            found["certainties"] = logits.softmax(1).square()
        return torch.cat([found[output] for output in self.outputs], 1)

    def _stages(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> the output of each stage."""
        x = _through(self.stem, x, relu6=True)
        stages = []
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            if number in self._ends:
                stages.append(x)
        return stages


def _around(stage: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> (B, C, *grid), the mean of the neighbourhood of each place."""
    return F.avg_pool2d(F.adaptive_avg_pool2d(stage, grid), _AROUND, 1, _AROUND // 2, count_include_pad=False)


def _channels_last(state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Puts the weights of a file into the memory format that the convolutions use."""
    for name, tensor in state.items():
        if name.startswith(prefix) and tensor.ndim == 4:
            state[name] = tensor.contiguous(memory_format=torch.channels_last)


class _Block(nn.Module):
    """(B, C, H, W) -> (B, C', H', W'), an inverted residual block: 1x1 to `expansion` C channels, depthwise,
    1x1 to C'.
    """

    def __init__(self, into: int, out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = into * expansion
        self.expand = _convolution(into, inner, 1) if expansion > 1 else None
        self.depthwise = _convolution(inner, inner, kernel, stride, groups=inner)
        self.project = _convolution(inner, out, 1)
        self.skips = into == out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        inner = x if self.expand is None else _through(self.expand, x, relu6=True)
        out = _through(self.project, _through(self.depthwise, inner, relu6=True), relu6=False)
        return out + x if self.skips else out


def build(options: Mapping[str, Any]) -> nn.Module:
    """`{"model": name, "outputs": [...], "temperature": 1.0}` -> a randomly initialised trunk."""
    check_options(options, {"model", "outputs", "temperature"})
    return EfficientNet(
        str(options["model"]), tuple(options.get("outputs", ("pooled",))), float(options.get("temperature", 1.0))
    )


def load(options: Mapping[str, Any], file: Path) -> nn.Module:
    """The trunk with the weights of an `efficientnet-liteN-*.pth` of the efficientnet_lite_pytorch packages.

    That file lists a convolution's weight and its norm's weight, bias, mean, variance and count, layer by layer, then
    the classifier's weights. Raises ValueError where the number of tensors or a shape differs.
    """
    with shapes_only():
        encoder = build(options)
    published = iter(torch.load(file, map_location="cpu", weights_only=True).values())
    state: dict[str, Tensor] = {}
    try:
        for name, layer in encoder.named_modules():
            if isinstance(layer, nn.Conv2d):
                weight, gain, bias, mean, variance, _ = itertools.islice(published, 6)
                gain = gain / (variance + _NORM_EPSILON).sqrt()
                folded = weight * gain[:, None, None, None]
                state[f"{name}.weight"] = folded.contiguous(memory_format=torch.channels_last)
                state[f"{name}.bias"] = bias - mean * gain
        state["classifier.weight"], state["classifier.bias"] = published
        encoder.load_state_dict(state, assign=True)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{file.name}: its tensors do not have the shapes of {options['model']}: {error}") from None
    return encoder


def _blocks(width: float, depth: float) -> Iterator[_Block]:
    into = _STEM
    for (expansion, kernel, stride, _, channels), repeats in zip(_STAGES, _repeats(depth), strict=True):
        out = _channels(channels, width)
        for place in range(repeats):
            yield _Block(into, out, expansion, kernel, stride if place == 0 else 1)
            into = out


def _repeats(depth: float) -> list[int]:
    """The number of blocks of each stage.

    Lite does not scale the depth of the stem, the head, the first and the last stage.
    """
    scaled = [math.ceil(stage[3] * depth) for stage in _STAGES]
    return [_STAGES[0][3], *scaled[1:-1], _STAGES[-1][3]]


def _channels(channels: int, width: float) -> int:
    """The scaled number of channels, rounded to a multiple of 8 that is at least nine tenths of it."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _convolution(into: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(into, out, kernel, stride, padding=kernel // 2 if stride == 1 else 0, groups=groups)
    nn.init.kaiming_normal_(layer.weight, mode="fan_in")
    return layer.to(memory_format=torch.channels_last)


def _through(layer: nn.Conv2d, x: Tensor, *, relu6: bool) -> Tensor:
    (kernel, _), (stride, _) = layer.kernel_size, layer.stride
    if stride > 1:  # TensorFlow's "same" padding puts the odd pixel on the right and at the bottom
        missing = [max(-(-size // stride) * stride - stride + kernel - size, 0) for size in x.shape[:1:-1]]
        x = F.pad(x, [part for size in missing for part in (size // 2, size - size // 2)])
    return onednn.convolution(x, layer, relu6)
