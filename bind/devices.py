"""The device a model runs on and the type of its numbers, checked before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Collection

DTYPES = ("float32", "bfloat16", "float16")
"""Types in which towers may run. Vectors are float32 whatever the type."""


def check(device: str, dtype: str, modalities: Collection[str] | None) -> None:
    """Raises ValueError for an unknown type, for a device that this machine lacks, and for one string instead
    of names.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    check_device(device)
    if isinstance(modalities, str):
        raise ValueError(f"modalities: expected a collection of names, such as [{modalities!r}], got one text")


def check_device(device: str) -> None:
    """Raises ValueError unless `device` is cpu, or a cuda, cuda:N or mps that this machine has."""
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
