"""Heads: the last layer, from an encoder's features into the shared space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Gated(nn.Module):
    """(B, width) -> (B, dim): a linear map of the features, the first `gated` of which pass a learned gate.

    The gate is a logistic regression on all features. It multiplies the first `gated` features, after their mean was
    subtracted, by a factor between 0 and 1. It serves features that mean something for some items only, such as those
    of an encoder that knows one language. With `split` the last `split` dimensions are normalised by themselves and get
    `share` of the squared length of every vector. The order in which a vector finds items does not depend on them where
    that vector is 0 there.
    """

    def __init__(self, width: int, dim: int, gated: int, split: int = 0, share: float = 0.0) -> None:
        super().__init__()
        if not (0 <= split < dim and 0 <= share < 1 and (split > 0) == (share > 0)):
            raise ValueError(f"head: expected 0 < split < {dim} and 0 < share < 1, or neither, got {split} and {share}")
        self.gated = gated
        self.split = split
        self.share = share
        self.gate = nn.Linear(width, 1)
        self.mean = nn.Parameter(torch.zeros(gated))
        self.linear = nn.Linear(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width) -> (B, dim)."""
        projected: Tensor = self.linear(self.through(x))
        if not self.split:
            return projected
        first, last = projected.split([projected.shape[1] - self.split, self.split], 1)
        parts = F.normalize(first, dim=1) * (1 - self.share) ** 0.5, F.normalize(last, dim=1) * self.share**0.5
        return torch.cat(parts, 1)

    def through(self, x: Tensor) -> Tensor:
        """(B, width) -> (B, width): the features after the gate."""
        return torch.cat([(x[:, : self.gated] - self.mean) * self.gate(x).sigmoid(), x[:, self.gated :]], 1)


def build(options: Mapping[str, Any], width: int, dim: int) -> nn.Module:
    """A table of options -> a head (B, width) -> (B, dim), whose rows are not normalised.

    `type` is `linear` (with `bias`, default false), `gated` (with `gated`, `split` and `share`, see `Gated`) or
    `identity`. A linear head without bias is ImageBind's (arXiv 2305.05665, table 5b: it does better than an MLP).
    Raises ValueError for other options.
    """
    known = {"type", "bias", "gated", "split", "share"}
    if unknown := sorted(set(options) - known):
        raise ValueError(f"head: unknown keys {unknown}; known: {sorted(known)}")
    match options.get("type"):
        case "linear":
            return nn.Linear(width, dim, bias=bool(options.get("bias", False)))
        case "gated":
            split, share = int(options.get("split", 0)), float(options.get("share", 0.0))
            return Gated(width, dim, int(options.get("gated", width)), split, share)
        case "identity" if width == dim:
            return nn.Identity()
        case "identity":
            raise ValueError(f"head: identity needs encoder width {width} to equal the dimension {dim}; use linear")
        case other:
            raise ValueError(f"head: type is {other!r}, expected linear or identity")
