"""The surroundings of a scene: ground, walls and horizon, as parts to render."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data_manifests.simulation.tables import COLOURS, MATERIALS, Place, Triple


@dataclass(frozen=True)
class Part:
    """One body to render, in metres, radians, RGB 0..1 and degrees Celsius.

    `thing` numbers the object, -1 for others.
    """

    form: str
    size: Triple
    centre: Triple
    yaw: float
    rgb: Triple
    celsius: float
    thing: int = -1
    grain: float = 0.1
    """The strength of the variation of its surface."""
    carried: bool = False
    """Whether the part is fixed to the moving body."""


def surroundings(rng: np.random.Generator, name: str, place: Place, air_c: float, slope: float) -> list[Part]:
    """Ground, walls and horizon of a place."""
    if name == "lift":
        return []  # the cabin moves with the body
    build = _Maker(rng, air_c)
    warmer = rng.uniform(-4, 10) * (not place.walls)
    if slope:
        return build.staircase(place.ground, place.grain, warmer, slope)
    found = [build.part("box", (400, 400, 0.1), (0, 0, -0.05), place.ground, warmer, place.grain)]
    if place.walls:
        found += build.room()
    elif name == "street":
        found += build.street(warmer)
    elif name == "gravel":
        found += [build.part("box", (400, 40, 0.02), (0, y, 0.02), "leaf", warmer - 3, 0.5) for y in (-23, 23)]
    elif name == "beach":
        side = rng.choice([-1, 1])
        centre = (0, side * (52 + rng.uniform(3, 9)), 0.02)
        found.append(build.part("box", (400, 100, 0.04), centre, "sea", -6, 0.3))
    if name in ("forest", "lake", "meadow", "snow"):
        found += build.far_away(name)
    return found


def triple(values: Iterable[Any]) -> Triple:
    """Three numbers of any kind -> three floats."""
    x, y, z = (float(value) for value in values)
    return x, y, z


@dataclass(frozen=True)
class _Maker:
    """Makes the parts of a place, each with small deviations from its material."""

    rng: np.random.Generator
    air_c: float

    def part(
        self, form: str, size: Triple, centre: Triple, material: str, warmer: float = 0.0, grain: float = 0.1
    ) -> Part:
        shade, tint = self.rng.uniform(0.8, 1.15), self.rng.normal(0, 0.02, 3)
        rgb = triple(np.clip(np.array(MATERIALS[material]) * shade + tint, 0, 1))
        return Part(form, triple(size), triple(centre), 0.0, rgb, self.air_c + warmer, grain=grain)

    def choice(self, materials: str) -> str:
        return str(self.rng.choice(materials.split()))

    def staircase(self, ground: str, grain: float, warmer: float, slope: float) -> list[Part]:
        """Steps of 0.3 x 0.18 m along x between two walls, with the posts of a rail."""
        up = np.sign(slope)
        first = self.part("box", (0.3, 2.4, 0.18), (0, 0, 0), ground, warmer, grain)
        found = []
        for i in range(-14, 22):
            # Every other step is darker, as equal steps would blend into each other.
            rgb = triple((0.9 + 0.1 * (i % 2)) * c for c in first.rgb)
            found.append(replace(first, centre=(0.3 * i, 0, 0.18 * i * up - 0.09), rgb=rgb))
        wall = self.choice("white brick tile grey")
        cooler = -self.rng.uniform(0, 2)
        found += [self.part("box", (14, 0.2, 16), (1, y, 2), wall, cooler, 0.15) for y in (-1.3, 1.3)]
        found.append(self.part("box", (0.2, 3, 18), (6.5, 0, 2), wall, -1, 0.15))
        found.append(self.part("box", (14, 3, 0.2), (1, 0, 6.5 if slope > 0 else 4.5), "white"))
        post = self.part("tube", (0.04, 0.04, 0.9), (0, 0, 0), "steel")
        return found + [replace(post, centre=(0.6 * i, -1.05, 0.36 * i * up + 0.45)) for i in range(-4, 9)]

    def room(self) -> list[Part]:
        """Four walls and a ceiling, with windows, doors and pictures."""
        rng = self.rng
        ahead, behind = rng.uniform(5, 9), rng.uniform(2.5, 4)
        left, right, top = rng.uniform(2.2, 3.5), rng.uniform(2.2, 3.5), rng.uniform(2.3, 3.2)
        material = self.choice("white tile sand brick grey pink leaf sea")
        cooler = -rng.uniform(0, 4)
        walls: list[tuple[Triple, Triple]] = [((0.1, 8, top), (x, 0, top / 2)) for x in (ahead, -behind)]
        walls += [((14, 0.1, top), (0, y, top / 2)) for y in (left, -right)]
        found = [self.part("box", size, centre, material, cooler, 0.08) for size, centre in walls]
        found.append(self.part("box", (14, 8, 0.1), (0, 0, top), "white", 1, 0.03))
        for _ in range(rng.integers(1, 5)):
            wide, tall, low = rng.uniform(0.5, 1.6), rng.uniform(0.5, 1.2), rng.uniform(0.9, 1.3)
            if rng.random() < 0.3:
                wide, tall, low = 0.9, 2.0, 0.0
            window = rng.random() < 0.4
            material = "glass" if window else str(rng.choice(list(COLOURS)))
            if rng.random() < 0.5:
                size, centre = (0.14, wide, tall), (ahead, rng.uniform(-1.8, 1.8), low + tall / 2)
            else:
                y = left if rng.random() < 0.5 else -right
                size, centre = (wide, 0.14, tall), (rng.uniform(0.5, ahead - 0.5), y, low + tall / 2)
            found.append(self.part("box", size, centre, material, -7 if window else -1))
        return found

    def street(self, warmer: float) -> list[Part]:
        """Houses in rows behind two pavements, and the road's marking."""
        rng = self.rng
        houses = rng.choice(["brick", "white", "sand", "grey", "pink", "stone"], 8)
        found = []
        for side, offset in ((1, rng.uniform(6, 11)), (-1, rng.uniform(6, 11))):
            found.append(self.part("box", (400, 3, 0.14), (0, side * (offset - 2), 0.05), "stone", warmer, 0.2))
            x = rng.uniform(-30, -20)
            while x < 90 and rng.random() < 0.93:
                wide, tall = rng.uniform(6, 14), rng.uniform(4, 14)
                centre = (x + wide / 2, side * (offset + 4), tall / 2)
                material = str(houses[rng.integers(8)])
                found.append(self.part("box", (wide, 8, tall), centre, material, rng.uniform(0, 5), 0.3))
                x += wide + rng.choice([0, 0, 4])
        return found + [self.part("box", (2, 0.15, 0.01), (6 * i, 0.0, 0.01), "white", warmer) for i in range(-5, 16)]

    def far_away(self, name: str) -> list[Part]:
        """Hills on the horizon; in a forest, mostly trees all around."""
        rng = self.rng
        found = []
        for _ in range(rng.integers(5, 14)):
            distance = rng.uniform(8, 30) if name == "forest" else rng.uniform(35, 110)
            bearing = rng.uniform(-1.1, 1.1)
            x, y = distance * np.cos(bearing), distance * np.sin(bearing)
            if name == "forest" and rng.random() < 0.8:
                y += np.copysign(2, y)
                girth = rng.uniform(0.2, 0.6)
                found.append(self.part("tube", (girth, girth, 9), (x, y, 4.5), "brown", 0, 0.5))
                found.append(self.part("ball", (4, 4, 4), (x, y, 6.5), "leaf", -1, 0.6))
            else:
                wide, tall = rng.uniform(20, 60), rng.uniform(2, 14)
                material = "snow" if name == "snow" else "leaf"
                found.append(self.part("ball", (wide, wide, tall), (x + wide / 2, y * 1.3, 0), material, -2, 0.5))
        return found
