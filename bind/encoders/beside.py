"""Several encoders of the same item, side by side: their features are concatenated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bind.encoders import check_options


class Beside(nn.Module):
    """(B, P * L) -> (B, sum of widths): each of P encoders gets its own L columns of every row."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        if not parts:
            raise ValueError("encoder: parts is empty, expected the tables of the encoders that stand side by side")
        self.parts = nn.ModuleList(parts)
        self.width = sum(int(part.width) for part in parts)  # type: ignore[arg-type, misc]

    def forward(self, x: Tensor) -> Tensor:
        """(B, P * L) -> (B, width)."""
        stretches = x.chunk(len(self.parts), 1)
        return torch.cat([part(stretch) for part, stretch in zip(self.parts, stretches, strict=True)], 1)


def build(options: Mapping[str, Any]) -> nn.Module:
    """`{"parts": [encoder, ...]}` with encoders that `bind.encoders` has built or loaded -> the encoder of all
    of them.
    """
    check_options(options, {"parts"})
    return Beside(options.get("parts", ()))
