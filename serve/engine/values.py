"""The values that a service returns, and its errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


class TermError(ValueError):
    """The term at `index` of a query cannot be used; `reason` says why."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"term {index}: {reason}")
        self.index = index
        self.reason = reason


class PictureError(LookupError):
    """An item has no picture; the message says why."""


@dataclass(frozen=True)
class Point:
    """An item on the map of the library; x and y lie in -1..1."""

    item_id: int
    x: float
    y: float
    modality: str
    name: str


@dataclass(frozen=True)
class About:
    """The served model, its space and the library's size; `missing` are modalities without an encoder."""

    model: str
    about: str
    license: str
    modalities: tuple[str, ...]
    missing: tuple[str, ...]
    dim: int
    space: str
    version: str
    files: int
    items: Mapping[str, int]
