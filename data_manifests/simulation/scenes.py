"""Simulated scenes: the things in them, their temperatures, and the motion of the body that carries the camera.

Everything is drawn from (seed, number) alone. `render` turns a scene into pictures. The IMU's readings come from
`motion`, as derivatives of the same motion that poses the camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_manifests.simulation.motion import Motion, draw_motion
from data_manifests.simulation.surroundings import Part, surroundings, triple
from data_manifests.simulation.tables import (
    COLOURS,
    GAITS,
    MATERIALS,
    PLACES,
    THINGS,
    VEHICLES,
    WARMTH_C,
    Place,
    Row,
    Triple,
)


@dataclass(frozen=True)
class Scene:
    """The facts for rendering and measuring a scene.

    `names` are the things' (numbered as in `Part.thing`), with articles.
    """

    parts: tuple[Part, ...]
    names: tuple[str, ...]
    place: str
    gait: str
    motion: Motion
    down: float
    """The angle by which the camera looks down, in radians."""
    field_of_view: float
    """The horizontal field of view, in radians."""
    air_c: float
    sky_c: float
    sun: Triple
    brightness: float
    sky: Triple
    focal_baseline: float
    """Focal length in pixels (of a picture 640 wide) times baseline in metres of the depth camera."""
    exposure_s: float

    def caption(self, visible: list[int]) -> str:
        """Numbers of things, the most prominent first -> "a red car and a tree on a street, seen while cycling"."""
        names = list(dict.fromkeys(self.names[thing] for thing in visible))
        listed = " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
        return f"{listed} {PLACES[self.place].phrase}, seen while {self.gait}".strip()


_PORTRAIT_EVERY = 4
"""One in so many scenes shows a thing close by, to a body that is slow enough for it."""
_SLOW = ["standing", "walking", "crawling", "jumping"]
"""The gaits of those scenes."""


def draw(seed: int, number: int) -> Scene:
    """The scene of that number in the set of that seed."""
    rng = np.random.default_rng([seed, number])
    portrait = number % _PORTRAIT_EVERY == _PORTRAIT_EVERY - 1
    gait_name = str(rng.choice(_SLOW if portrait else list(GAITS)))
    gait = GAITS[gait_name]
    place_name = str(rng.choice(gait.places))
    place = PLACES[place_name]
    height, speed, rhythm_hz = (float(rng.uniform(*span)) for span in (gait.height, gait.speed, gait.rhythm_hz))
    slope = {"climbing stairs": 0.6, "going down stairs": -0.6}.get(gait_name, 0.0)
    motion = draw_motion(rng, gait, height, speed, rhythm_hz, slope, place.roughness)
    air_c = float(rng.uniform(*place.air_c))
    parts = [*surroundings(rng, place_name, place, air_c, slope)]
    names: list[str] = []
    if gait.vehicle:
        vehicle = VEHICLES[gait.vehicle]
        parts += _thing(rng, vehicle, -1, (0.0, 0.0, -height), 0.0, 1.0, str(rng.choice(list(COLOURS))), air_c, True)
    catalogue = {name: thing.rows for name, thing in THINGS.items() if {name, *thing.tags} & set(place.tags)}
    for x, y in _spots(rng, place, speed, gait_name) if catalogue else ():
        name = str(rng.choice(list(catalogue)))
        rows = catalogue[name]
        reach = max(abs(c) + s / 2 for row in rows for c, s in zip(row[2][:2], row[1][:2], strict=True))
        if portrait and not names:
            tall = max(row[2][2] + row[1][2] / 2 for row in rows)
            x, y = max(1.2, rng.uniform(1, 1.7) * max(reach, tall) + 0.6) + 2 * speed, rng.uniform(-0.3, 0.3)
        elif reach > 2:  # large things stand farther away
            x, y = x + 4, y + np.copysign(reach + 1.5, y)
        colour = str(rng.choice(list(COLOURS)))
        painted = any(row[3] == "paint" for row in rows)
        phrase = f"{colour} {name}" if painted else name
        names.append(f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}")
        z = slope * x if slope else 0.0
        scale = float(rng.uniform(0.8, 1.25))
        parts += _thing(rng, rows, len(names) - 1, (x, y, z), float(rng.uniform(0, 2 * np.pi)), scale, colour, air_c)
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(25, 75))
    outside = not place.walls
    cloudy = rng.random()
    return Scene(
        tuple(parts),
        tuple(names),
        place_name,
        gait_name,
        motion,
        np.deg2rad(gait.down_deg + rng.uniform(-4, 4)),
        float(np.deg2rad(rng.uniform(58, 78))),
        air_c,
        air_c - float(rng.uniform(8, 45)),
        triple([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]),
        float(rng.uniform(0.55, 1.1)) if outside else float(rng.uniform(0.6, 1.0)),
        triple(np.array([0.45, 0.65, 0.95]) * (1 - cloudy) + np.array([0.8, 0.8, 0.82]) * cloudy),
        float(np.exp(rng.uniform(*np.log([25, 220])))),
        float(np.exp(rng.uniform(*np.log([1 / 200, 1 / 25])))),
    )


def _spots(rng: np.random.Generator, place: Place, speed: float, gait: str) -> list[tuple[float, float]]:
    """Places for things: some in front of the camera as it passes x = 0, others along the way; none is too close."""
    spots: list[tuple[float, float]] = []
    reach = 6.0 if place.walls else 18.0
    clear = 0.9 if speed < 2 else 2.2
    if gait == "flying a drone":
        clear, reach = 0.0, 25.0
    ahead = int(rng.integers(3, 8))
    wayside = int(rng.integers(0, 2 if place.walls else 5))
    for _ in range(40):
        if len(spots) == ahead + wayside:
            break
        if len(spots) < ahead:
            distance = float(np.exp(rng.uniform(np.log(1.8 if speed < 2 else 4), np.log(reach))))
            bearing = rng.uniform(-0.55, 0.55)
            x, y = distance * np.cos(bearing), distance * np.sin(bearing)
        else:
            x, y = rng.uniform(-2.5, 2.5) * speed + rng.uniform(2, reach), rng.choice([-1, 1]) * rng.uniform(clear, 8)
        if place.walls:
            y = float(np.clip(y, -1.9, 1.9))
        near = x < 2.5 * speed + 1.5 and abs(y) < clear
        if not near and all(np.hypot(x - a, y - b) > 1.1 for a, b in spots):
            spots.append((float(x), float(y)))
    return spots


def _thing(
    rng: np.random.Generator,
    rows: tuple[Row, ...],
    thing: int,
    at: Triple,
    yaw: float,
    scale: float,
    colour: str,
    air_c: float,
    carried: bool = False,
) -> list[Part]:
    shade = rng.uniform(0.85, 1.15)
    own_c = rng.normal(0, 1.5)
    heat = rng.uniform(0.5, 1.1)  # engines run or have cooled down, and so has tea
    stretch = rng.uniform(0.9, 1.1, 3) if thing >= 0 else np.ones(3)
    grain = rng.uniform(0.05, 0.3)
    cos, sin = np.cos(yaw), np.sin(yaw)
    parts = []
    for form, size, centre, material, warmth in rows:
        x, y, z = np.array(centre) * stretch * scale
        place = (at[0] + cos * x - sin * y, at[1] + sin * x + cos * y, at[2] + z)
        rgb = triple(np.clip(np.array(MATERIALS[colour if material == "paint" else material]) * shade, 0, 1))
        target_c = {"air": air_c, "sun": air_c + 8}.get(warmth, WARMTH_C.get(warmth, air_c))
        alive = warmth in ("skin", "cloth", "fur", "ice", "cold")
        celsius = air_c + (target_c - air_c) * (1.0 if alive else heat) + own_c
        bulk = triple(np.array(size) * stretch * scale)
        parts.append(Part(form, bulk, place, yaw, rgb, float(celsius), thing, grain, carried))
    return parts
