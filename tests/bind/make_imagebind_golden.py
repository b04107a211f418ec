"""How the golden ImageBind outputs are made from the reference implementation; run in a throw-away environment.

The reference is the PyPI package imagebind-unofficial 0.1.1 (CC BY-NC-SA): it is only run here, none of it is copied.

    python -m venv reference/venv                     # beside it torch, torchvision, numpy, safetensors and timm
    reference/venv/bin/pip install --no-deps imagebind-unofficial==0.1.1 einops iopath ftfy regex portalocker
    : > reference/venv/lib/python3.11/site-packages/imagebind/__init__.py   # it imports packages not needed here
    reference/venv/bin/python tests/bind/make_imagebind_golden.py small tests/bind/golden/imagebind_small.safetensors
    reference/venv/bin/python tests/bind/make_imagebind_golden.py huge reference      # then: imagebind_parity.py

`small` stores outputs and, as metadata, the names and shapes of the official state dict: the test draws the weights and
inputs again with `draw` and `inputs` below. `huge` stores the full-size state dict (4.8 GB) and its outputs.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SMALL: dict[str, Any] = {
    "out_embed_dim": 24,
    **{f"{name}_embed_dim": 32 for name in ("vision", "text", "audio", "depth", "thermal", "imu")},
    **{f"{name}_num_blocks": 2 for name in ("vision", "text", "audio", "depth", "thermal", "imu")},
    **{f"{name}_num_heads": 4 for name in ("vision", "text", "audio", "depth", "thermal", "imu")},
}
"""The reference's constructor arguments for the small golden model; kernels and token counts are the full-size ones."""


def draw(name: str, shape: tuple[int, ...]) -> Tensor:
    """Float32 values for the tensor `name`: norm weights near 1, no zero bias, unit-gain matrices, unit inputs.

    Each tensor has a stream of its own (numpy's frozen legacy generator), so order and selection do not matter.
    """
    stream = np.random.RandomState(zlib.crc32(name.encode()))
    values = torch.from_numpy(stream.standard_normal(shape).astype(np.float32))
    if name.startswith("input."):
        return values
    if len(shape) < 2:
        is_norm_weight = name.endswith("weight")
        return values * 0.2 + float(is_norm_weight)
    if name.endswith(("bias_k", "bias_v", "cls_token", "pos_embed", "token_embedding.weight")):
        return values * 0.5
    return values * float(np.prod(shape[1:])) ** -0.5


def inputs(batch: int, clips: int) -> dict[str, Tensor]:
    """Prepared inputs in the reference's layouts: pictures also at another size than 224, sound and video in clips.

    The second item of a batch is faint, so that the epsilon of every LayerNorm shows in the outputs.
    """
    tokens = torch.zeros(2, 77, dtype=torch.int64)
    tokens[0, :5] = torch.tensor([49406, 320, 1929, 269, 49407])
    tokens[1] = 49406 - torch.arange(77) * 640
    tokens[1, 76] = 49407
    shapes = {
        "image": (batch, 3, 224, 224),
        "image_large": (1, 3, 280, 280),
        "audio": (batch, 3, 1, 128, 204),
        "video": (1, clips, 3, 2, 224, 224),
        "depth": (batch, 1, 224, 224),
        "thermal": (batch, 1, 224, 224),
        "imu": (batch, 6, 2000),
    }
    drawn = {name: draw(f"input.{name}", shape) for name, shape in shapes.items()}
    for value in drawn.values():
        value[1:] *= 0.01
    return {"text": tokens[:batch], **drawn}


TOWER_OF = {"image": "vision", "image_large": "vision", "video": "vision"}
"""The official name of the tower an input goes through, where it differs from the input's own."""


def reference_outputs(model: Any, examples: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Normalised outputs of the reference, (B, D) each, one input at a time."""
    outputs = {}
    for name, value in examples.items():
        tower = TOWER_OF.get(name, name)
        with torch.inference_mode():
            outputs[name] = torch.nn.functional.normalize(model({tower: value})[tower], dim=-1).clone()
        print(name, tuple(outputs[name].shape), flush=True)
    return outputs


def main() -> None:
    """`small FILE` or `huge FOLDER`, see the module's text."""
    from imagebind.models.imagebind_model import ImageBindModel, imagebind_huge
    from safetensors.torch import save_file

    size, place = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(2)
    model = (ImageBindModel(**SMALL) if size == "small" else imagebind_huge()).eval()
    state = model.state_dict()
    buffers = {name for name in state if name.endswith(("mask", "log_logit_scale"))}
    for name, value in state.items():
        if name not in buffers:
            value.copy_(draw(name, tuple(value.shape)))
    if size == "small":
        shapes = {name: list(value.shape) for name, value in state.items()}
        outputs = reference_outputs(model, inputs(batch=2, clips=3))
        save_file(outputs, place, metadata={"official_shapes": json.dumps(shapes)})
    else:
        torch.save(state, place / "imagebind_huge.pth")
        save_file(reference_outputs(model, inputs(batch=2, clips=15)), place / "imagebind_huge_outputs.safetensors")


if __name__ == "__main__":
    main()
