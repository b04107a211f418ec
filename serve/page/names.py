"""The words that people use for modalities and items."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath
from typing import TYPE_CHECKING

from serve.library.text import shown

if TYPE_CHECKING:
    from serve.library.items import Item

_NAMES = {
    "image": ("picture", "pictures"),
    "video": ("video", "videos"),
    "audio": ("sound", "sounds"),
    "text": ("text", "texts"),
    "depth": ("depth", "depth maps"),
    "thermal": ("thermal", "thermal images"),
    "imu": ("motion", "motion"),
}
"""Modality -> its name for one item and for several; any other modality is called by its own name."""


def printable(value: str) -> str:
    """A text without characters that are no valid Unicode, such as lone surrogates in JSON."""
    return value.encode("utf-8", "replace").decode()


def name_of(item: Item) -> str:
    """The name of an item's file, as valid text."""
    return shown(PurePath(item.path).name)


def singular(modality: str) -> str:
    """`imu` -> `motion`: the name of a modality for people."""
    return _NAMES.get(modality, (modality, modality))[0]


def plural(modality: str) -> str:
    """`image` -> `pictures`."""
    return _NAMES.get(modality, (modality, modality))[1]


def in_order(modalities: Iterable[str]) -> list[str]:
    """Modalities in the order in which people look for them; those of one's own come last."""
    order = list(_NAMES)
    return sorted(modalities, key=lambda name: (order.index(name) if name in order else len(order), name))
