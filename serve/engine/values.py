"""What a service returns and raises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


class TermError(ValueError):
    """The term at `index` of a query cannot be used, for `reason`."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"term {index}: {reason}")
        self.index = index
        self.reason = reason


class PictureError(LookupError):
    """An item of which there is no picture, and why."""


@dataclass(frozen=True)
class Point:
    """An item on the map of the library: x and y lie in -1..1."""

    item_id: int
    x: float
    y: float
    modality: str
    name: str


@dataclass(frozen=True)
class About:
    """What is served: the model, its space, the library's size. `missing` are modalities without an encoder.

    `shorter` are the lengths to which a vector may be cut.
    """

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
    shorter: tuple[int, ...] = ()
