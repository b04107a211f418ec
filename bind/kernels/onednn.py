"""Float32 inference on a CPU through oneDNN, where PyTorch's wheels use something slower; elsewhere plain PyTorch.

PyTorch's wheels compute matrix products with MKL, which runs at half of oneDNN's speed on AMD processors (EPYC 9005,
one thread, 64 rows by 768 x 3,072: 3.56 against 1.73 ms). They do compute convolutions with oneDNN, but apply the
activation in a separate pass. All functions here add float32 numbers in float32, in another order than PyTorch.
"""

from __future__ import annotations

import platform
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., in), (out, in), (out,) -> (..., out), as `torch.nn.functional.linear`."""
    if not _takes(x, weight):
        return F.linear(x, weight, bias)
    multiplied: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return multiplied


def convolution(x: Tensor, layer: nn.Conv2d, relu6: bool) -> Tensor:
    """(B, C, H, W) -> (B, C', H', W') through the layer, then clamped to 0..6 if `relu6`."""
    assert isinstance(layer.padding, tuple)
    facts = layer.stride, layer.padding, layer.dilation, layer.groups
    if not _takes(x, layer.weight):
        y = F.conv2d(x, layer.weight, layer.bias, *facts)
        return F.relu6(y) if relu6 else y
    activation = ("hardtanh", [0.0, 6.0]) if relu6 else ("none", [])
    stride, padding, dilation, groups = facts
    convolved: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, layer.weight, layer.bias, padding, stride, dilation, groups, *activation, ""
    )
    return convolved


class Linear(nn.Linear):
    """`nn.Linear` that computes with `linear`; its parameters have the same names."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return linear(input, self.weight, self.bias)


def adopt(module: nn.Module) -> None:
    """Makes every `nn.Linear` and `nn.MultiheadAttention` inside compute with `linear`; no weight is changed."""
    for part in module.modules():
        if type(part) is nn.Linear:
            part.__class__ = Linear
        elif type(part) is nn.MultiheadAttention:
            part.__class__ = _Attention


class _Attention(nn.MultiheadAttention):
    def forward(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> tuple[Tensor, Any]:
        mask = options.get("attn_mask")
        wanted = not args and set(options) <= {"need_weights", "attn_mask"} and options.get("need_weights") is False
        plain = self.batch_first and self._qkv_same_embed_dim and self.bias_k is None and not self.add_zero_attn
        here = query is key is value and query.ndim == 3 and not self.training and (mask is None or mask.ndim == 2)
        if not (wanted and plain and here and _takes(query, self.in_proj_weight)):
            return super().forward(query, key, value, *args, **options)
        if mask is not None and mask.dtype == torch.bool:
            mask = ~mask  # in a Boolean mask, True hides a position here and shows it in scaled_dot_product_attention
        parts = linear(query, self.in_proj_weight, self.in_proj_bias).unflatten(2, (3, self.num_heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return linear(mixed.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias), None


def _takes(x: Tensor, weight: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()  # torch's compiler chooses its own kernels
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and weight.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and _is_there()
    )


@cache
def _is_there() -> bool:
    """Whether the processor and the torch are those for which the module's docstring gives the reason."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
