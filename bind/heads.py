"""Heads: the last step from an encoder's features into the shared space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


def build(options: Mapping[str, Any], width: int, dim: int) -> nn.Module:
    """A head (B, width) -> (B, dim), not normalised. `type` is `linear` (with `bias`, default false) or `identity`.

    A linear head without bias is ImageBind's (paper, table 5b: better than an MLP). Raises ValueError.
    """
    known = {"type", "bias"}
    if unknown := sorted(set(options) - known):
        raise ValueError(f"head: unknown keys {unknown}; known: {sorted(known)}")
    match options.get("type"):
        case "linear":
            return nn.Linear(width, dim, bias=bool(options.get("bias", False)))
        case "identity" if width == dim:
            return nn.Identity()
        case "identity":
            raise ValueError(f"head: identity needs encoder width {width} to equal the dimension {dim}; use linear")
        case other:
            raise ValueError(f"head: type is {other!r}, expected linear or identity")
