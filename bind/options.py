"""How a model is to be loaded: one value from a command, or from `Library.open`, to the model and the index."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bind import devices

if TYPE_CHECKING:
    from bind.model.model import BindModel


@dataclass(frozen=True)
class LoadOptions:
    """The arguments of `bind.load`. `model` None: what the library was made with, or the default."""

    model: str | os.PathLike[str] | None = None
    weights: str | os.PathLike[str] | None = None
    device: str = "cpu"
    dtype: str = "float32"
    modalities: Collection[str] | None = None

    def check(self) -> None:
        """Raises ValueError for a type or a device that there is not, before anything is loaded or made."""
        devices.check(self.device, self.dtype, self.modalities)

    @property
    def index_device(self) -> str:
        """Where an index of the model's vectors is searched."""
        return self.device if self.device.startswith("cuda") else "cpu"

    def load(self, default: str = "small") -> BindModel:
        """The model; `default` where none is named. Raises what `bind.load` raises."""
        from bind import zoo  # it loads torch

        return zoo.load(self.model or default, self.weights, self.device, self.dtype, self.modalities)
