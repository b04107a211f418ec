"""The options for loading a model, as one value that commands and `Library.open` pass on."""

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
    """The arguments of `bind.load`.

    `model` None means the model that the library was made with, or else the default.
    """

    model: str | os.PathLike[str] | None = None
    weights: str | os.PathLike[str] | None = None
    device: str = "cpu"
    dtype: str = "float32"
    modalities: Collection[str] | None = None
    trust_remote_code: bool = False

    def check(self) -> None:
        """Raises ValueError for an unknown type and a missing device, before anything is loaded or created."""
        devices.check(self.device, self.dtype, self.modalities)

    @property
    def index_device(self) -> str:
        """The device on which an index of the model's vectors is searched."""
        return self.device if self.device.startswith("cuda") else "cpu"

    def load(self, default: str = "small") -> BindModel:
        """The loaded model; `default` where no model is named. Raises what `bind.load` raises."""
        from bind import zoo  # importing the zoo imports torch

        return zoo.load(
            self.model or default, self.weights, self.device, self.dtype, self.modalities, self.trust_remote_code
        )
