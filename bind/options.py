"""How a model is to be loaded: one value from a command, or from `Library.open`, to the model and the index."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bind.model import BindModel

DTYPES = ("float32", "bfloat16", "float16")


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
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}, expected one of {', '.join(DTYPES)}")
        check_device(self.device)
        if isinstance(self.modalities, str):
            raise ValueError(f"modalities: expected a collection of names, such as [{self.modalities!r}], got one text")

    @property
    def index_device(self) -> str:
        """Where an index of the model's vectors is searched."""
        return self.device if self.device.startswith("cuda") else "cpu"

    def load(self, default: str = "small") -> BindModel:
        """The model; `default` where none is named. Raises what `bind.load` raises."""
        from bind import zoo  # it loads torch

        return zoo.load(self.model or default, self.weights, self.device, self.dtype, self.modalities)


def check_device(device: str) -> None:
    """Raises ValueError unless `device` is cpu, or cuda, cuda:N or mps where this machine has it."""
    match = re.fullmatch(r"cpu|mps|cuda(?::(\d{1,4}))?", device)
    if match is None:
        raise ValueError(f"device is {device!r}, expected cpu, cuda, cuda:1, ... or mps")
    if device == "cpu":
        return
    import torch

    if device == "mps":
        if not torch.backends.mps.is_available():
            raise ValueError("device is 'mps', but this PyTorch sees none; use device='cpu'")
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise ValueError(f"device is {device!r}, but this PyTorch sees no CUDA device; use device='cpu'")
    if int(match[1] or 0) >= count:
        raise ValueError(
            f"device is {device!r}, but this PyTorch sees {count} CUDA device(s), cuda:0 to cuda:{count - 1}"
        )
