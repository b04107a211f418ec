"""The tower of a modality: its encoder and its head."""

from __future__ import annotations

from torch import Tensor, nn


class Tower(nn.Module):
    """Encoder and head of one modality: (B, *shape) single views -> (B, D), not normalised."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, D)."""
        projected: Tensor = self.head(self.encoder(x))
        return projected
