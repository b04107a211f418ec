"""Modalities and encoders of other installed packages, found by their entry points.

A package announces them in its `pyproject.toml`, a modality by its `SPEC`, an encoder by its module:

    [project.entry-points."crossbind.modalities"]
    light = "my_sensors.light:SPEC"
    [project.entry-points."crossbind.encoders"]
    light_net = "my_sensors.light_net"
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

MODALITIES = "crossbind.modalities"
"""The entry points under which other packages announce modalities."""
ENCODERS = "crossbind.encoders"
"""The entry points under which other packages announce encoders."""


@dataclass(frozen=True)
class Extension:
    """One entry point: its name, where it comes from, and how to load what it names."""

    name: str
    origin: str
    entry: metadata.EntryPoint

    def load(self) -> Any:
        """The object that the entry point names.

        Raises ValueError with the entry point and the reason where loading fails.
        """
        try:
            return self.entry.load()
        except Exception as error:  # the code of another package may raise anything, and must not stop the others
            raise ValueError(f"{self.origin} cannot be loaded: {type(error).__name__}: {error}") from error


@cache  # reading the installed entry points takes tens of milliseconds
def installed(group: str) -> dict[str, Extension]:
    """The entry points of a group by name. Raises ValueError that names both where two packages use one name."""
    found: dict[str, Extension] = {}
    for entry in metadata.entry_points(group=group):
        package = entry.dist.name if entry.dist else "an unnamed package"
        extension = Extension(entry.name, f"{entry.value} ({package})", entry)
        if (other := found.setdefault(entry.name, extension)).entry.value != entry.value:
            raise ValueError(f"{group}: {entry.name!r} is both {other.origin} and {extension.origin}; remove one")
    return found


def check_free(group: str, name: str, extension: Extension, taken: str | None) -> None:
    """Raises ValueError that names both sides where `taken`, a file that has the name already, is not None."""
    if taken is not None:
        raise ValueError(f"{group}: {name!r} is both {taken} and {extension.origin}; remove one")
