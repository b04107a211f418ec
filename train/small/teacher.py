"""The teacher of the sounds of `small`: YAMNet in torch, read from the file that its makers publish (Apache-2.0)."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 521
"""The number of AudioSet's classes that the teacher knows."""
CLASS_MAP = "yamnet_class_map.csv"
"""The name of the table of class names beside the teacher's file."""
_FRAMES = (0, 51, 102)
"""The first frames of the three stretches of a clip that the teacher gets, 96 frames of 10 ms each."""


class Teacher(nn.Module):
    """YAMNet: (B, samples) at 16 kHz in -1..1 -> features (B, 3, 1024) and logits (B, 3, 521) of three stretches.

    Layers and front end are those of the published TFLite file (MobileNet v1 over 96 x 64 log-mel values), in float32.
    """

    _STRIDE_2 = frozenset({3, 5, 7, 13})
    window: Tensor
    mel: Tensor
    first: Tensor
    first_bias: Tensor
    dense: Tensor
    dense_bias: Tensor

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, weight in weights.items():
            self.register_buffer(name, weight.float())

    @classmethod
    def read(cls, file: Path) -> Teacher:
        """The teacher from the published file, whose 8-bit weights become floats. It needs ai-edge-litert.

        Raises ValueError for another file.
        """
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(file), experimental_preserve_all_tensors=True)
        interpreter.allocate_tensors()
        weights: dict[str, Tensor] = {}
        for tensor in interpreter.get_tensor_details():
            if name := _name_of(tensor["name"], tuple(tensor["shape"])):
                value = torch.from_numpy(interpreter.get_tensor(tensor["index"]).copy()).float()
                scales = torch.from_numpy(tensor["quantization_parameters"]["scales"])
                if tensor["dtype"] is np.int8:
                    sides = [1] * value.ndim
                    sides[tensor["quantization_parameters"]["quantized_dimension"]] = -1
                    value = value * scales.view(sides)
                elif name.startswith("along") and name in weights:
                    continue  # these are the same weights again, which the interpreter unpacked
                weights[name] = _as_torch(name, value)
        expected = {"window", "mel", "first", "first_bias", "dense", "dense_bias"} | {
            f"{kind}{layer}" for layer in range(2, 15) for kind in ("along", "along_bias", "across", "across_bias")
        }
        if lacking := sorted(expected - set(weights)):
            raise ValueError(f"{file}: expected YAMNet as published for TFLite, it lacks {lacking[:4]}")
        return cls(weights)

    def log_mel(self, samples: Tensor) -> Tensor:
        """(B, samples) -> (B, frames, 64)."""
        framed = samples.unfold(1, 400, 160) * self.window
        spectrum = torch.fft.rfft(F.pad(framed, (0, 112))).abs()
        mel: Tensor = torch.log(spectrum @ self.mel + 0.001)
        return mel

    @torch.no_grad()
    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 32000) -> (B, 3, 1024), (B, 3, 521)."""
        mel = self.log_mel(samples)
        x = torch.stack([mel[:, first : first + 96] for first in _FRAMES], 1).flatten(0, 1).unsqueeze(1)
        x = x.to(self.first.dtype).contiguous(memory_format=torch.channels_last)
        x = F.conv2d(F.pad(x, (0, 1, 0, 1)), self.first, self.first_bias, 2).relu()
        for layer in range(2, 15):
            along, along_bias, across, across_bias = (
                getattr(self, f"{kind}{layer}") for kind in ("along", "along_bias", "across", "across_bias")
            )
            stride = 2 if layer in self._STRIDE_2 else 1
            padded = F.pad(x, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))  # TensorFlow's "same" padding
            x = F.conv2d(padded, along, along_bias, stride, groups=x.shape[1]).relu()
            x = F.conv2d(x, across, across_bias).relu()
        features = x.float().mean((2, 3)).unflatten(0, (len(samples), len(_FRAMES)))
        return features, features @ self.dense + self.dense_bias


def _name_of(tensor: str, shape: tuple[int, ...]) -> str | None:
    """A tensor's name in the TFLite file and its shape -> its name here, or None for a tensor that is not needed."""
    if tensor.endswith("tf_op_layer_Mul/Mul/y"):
        return "window"
    if shape == (64, 257):
        return "mel"
    if shape == (521, 1024):
        return "dense"
    if shape == (521,):
        return "dense_bias"
    layer = re.search(r"layer(\d+)/(conv|depthwise_conv|pointwise_conv)", tensor)
    if not layer or len(shape) not in (1, 4) or (len(shape) == 4 and shape[0] == 1 and shape[1:3] != (3, 3)):
        return None
    number, kind = int(layer[1]), layer[2]
    if kind == "conv":
        return "first_bias" if len(shape) == 1 else "first" if shape[1:3] == (3, 3) and shape[3] == 1 else None
    name = f"{'along' if kind == 'depthwise_conv' else 'across'}{number}"
    return f"{name.replace(str(number), '')}_bias{number}" if len(shape) == 1 else name


def _as_torch(name: str, value: Tensor) -> Tensor:
    """A tensor in TensorFlow's order -> in torch's order, as `Teacher.forward` expects it."""
    if name == "window":
        return value.flatten()
    if name in ("mel", "dense"):
        return value.T.contiguous()
    if value.ndim == 4:
        return value.permute(3, 0, 1, 2) if name.startswith("along") else value.permute(0, 3, 1, 2)
    return value


def class_names(file: Path) -> list[str]:
    """The teacher's class names, in order, from its table of index, identifier and name."""
    with file.open(newline="", encoding="utf-8") as lines:
        return [row["display_name"] for row in csv.DictReader(lines)]
