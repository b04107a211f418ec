"""The things, places and gaits of simulated scenes: `tables.toml` beside this file, read once, as typed values."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Triple = tuple[float, float, float]
Row = tuple[str, tuple[float, ...], tuple[float, ...], str, str]
"""One part of a thing: form, size, centre, material, warmth."""


@dataclass(frozen=True)
class Place:
    """A place: a phrase for captions, its ground, the tags of the things that are found there; `tables.toml` explains
    it.
    """

    phrase: str
    ground: str
    grain: float
    tags: tuple[str, ...]
    air_c: tuple[float, float]
    roughness: float
    walls: bool = False


@dataclass(frozen=True)
class Gait:
    """A gait of the body that carries the camera, and where it may move so; `tables.toml` explains the figures."""

    places: tuple[str, ...]
    height: tuple[float, float]
    speed: tuple[float, float]
    rhythm_hz: tuple[float, float]
    sways: str
    shake: float = 0.0
    engine: float = 0.0
    down_deg: float = 10.0
    vehicle: str = ""


@dataclass(frozen=True)
class Thing:
    """An object or a vehicle: where it is found, and its parts."""

    tags: tuple[str, ...]
    rows: tuple[Row, ...]


def _rows(lines: Sequence[str]) -> tuple[Row, ...]:
    """Lines of form, size, centre, material and perhaps warmth -> one row for each part; ± stands for two parts."""
    found: list[Row] = []
    for line in lines:
        form, *numbers, material, warmth = [*line.split(), "air"][:9]
        size = tuple(float(v) for v in numbers[:3])
        signs = [(1, -1) if v.startswith("±") else (1,) for v in numbers[3:]]
        for sign in itertools.product(*signs):
            centre = tuple(s * float(v.lstrip("±")) for s, v in zip(sign, numbers[3:], strict=True))
            found.append((form, size, centre, material, warmth))
    return tuple(found)


def _fields(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


_TABLES = tomllib.loads((Path(__file__).parent / "tables.toml").read_text(encoding="utf-8"))
"""Everything of the scenes that is a list: colours, materials, things, places."""

COLOURS: dict[str, Triple] = _fields(_TABLES["colours"])
"""The colours of painted objects, by the name that a caption uses."""
MATERIALS: dict[str, Triple] = COLOURS | _fields(_TABLES["materials"])
"""The colour of every material, the painted ones included."""
WARMTH_C: dict[str, float] = _TABLES["warmth_c"]
"""Surface temperatures in degrees Celsius, where they are not those of the air."""
PLACES = {name: Place(**_fields(table)) for name, table in _TABLES["places"].items()}
"""Places by the name that a scene has."""
GAITS = {name: Gait(**_fields(table)) for name, table in _TABLES["gaits"].items()}
"""Ways to move; a key completes the sentence "seen while ..."."""
THINGS = {name: Thing(tuple(table["tags"]), _rows(table["parts"])) for name, table in _TABLES["things"].items()}
"""The things that can stand in a scene, by the name that a caption uses."""
VEHICLES = {name: _rows(table["parts"]) for name, table in _TABLES["vehicles"].items()}
"""The parts that are fixed to the body and stay in view, by the `vehicle` of a gait."""
