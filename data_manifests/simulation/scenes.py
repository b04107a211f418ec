"""Simulated scenes: what stands where, how warm it is, and how the body that carries the camera moves.

Everything is drawn from (seed, number) alone. `_render` turns a scene into pictures; the IMU comes from here, out of
the derivatives of the very motion that poses the camera.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

GRAVITY = 9.80665
DURATION_S = 5.0
MIDDLE_S = DURATION_S / 2
"""When the still picture, the depth map and the thermal picture are taken; the body then passes x = 0."""

COLOURS = {
    "red": (0.75, 0.1, 0.1),
    "blue": (0.12, 0.25, 0.75),
    "green": (0.1, 0.5, 0.15),
    "yellow": (0.9, 0.8, 0.1),
    "orange": (0.95, 0.5, 0.1),
    "purple": (0.45, 0.15, 0.6),
    "pink": (0.95, 0.55, 0.65),
    "white": (0.9, 0.9, 0.88),
    "black": (0.08, 0.08, 0.09),
    "brown": (0.4, 0.25, 0.13),
    "grey": (0.5, 0.5, 0.52),
}
_MATERIALS = COLOURS | {
    "skin": (0.85, 0.63, 0.5),
    "wood": (0.6, 0.42, 0.24),
    "leaf": (0.2, 0.42, 0.13),
    "steel": (0.68, 0.7, 0.73),
    "glass": (0.35, 0.45, 0.55),
    "rubber": (0.1, 0.1, 0.1),
    "stone": (0.55, 0.53, 0.5),
    "snow": (0.93, 0.95, 0.98),
    "tile": (0.75, 0.72, 0.66),
    "sand": (0.85, 0.75, 0.55),
    "sea": (0.15, 0.33, 0.43),
    "earth": (0.4, 0.3, 0.2),
    "brick": (0.6, 0.28, 0.2),
    "straw": (0.85, 0.72, 0.35),
    "flame": (1.0, 0.6, 0.15),
}
_WARMTH_C = {
    "skin": 33,
    "cloth": 27,
    "fur": 28,
    "engine": 65,
    "warm": 38,
    "hot": 85,
    "flame": 250,
    "ice": -6,
    "cold": 5,
}
"""Surface temperatures where they are not those of the air."""

_THINGS = """
ball: any
  ball .5 .5 .5 0 0 .25 paint
box: any
  box .6 .5 .5 0 0 .25 paint
cone: street yard
  cone .45 .45 .8 0 0 .42 paint
  box .5 .5 .05 0 0 .03 black
barrel: yard street
  tube .65 .65 .95 0 0 .48 paint
bucket: yard room
  tube .35 .35 .4 0 0 .2 paint
cup of tea: room
  tube .7 .7 .72 0 0 .36 wood
  tube .2 .2 .24 0 0 .84 paint hot
  hoop .18 .05 .18 .12 0 .84 paint hot
bottle: room
  tube .6 .6 .6 0 0 .3 wood
  tube .16 .16 .35 0 0 .78 paint cold
  cone .16 .16 .25 0 0 1.07 paint cold
chair: room
  box .45 .45 .05 0 0 .46 paint
  box .05 .45 .55 -.2 0 .75 paint
  tube .05 .05 .46 ±.19 ±.19 .23 wood
table: room
  box 1.4 .8 .05 0 0 .75 wood
  tube .06 .06 .75 ±.62 ±.34 .37 wood
desk: room
  box 1.3 .65 .04 0 0 .73 wood
  box .05 .65 .73 ±.6 0 .36 wood
  box .05 .6 .38 -.15 0 1.0 black warm
sofa: room
  box .9 1.9 .42 0 0 .22 paint
  box .22 1.9 .5 -.35 0 .65 paint
  box .9 .22 .3 0 ±.85 .5 paint
bed: room
  box 2 1.4 .4 0 0 .2 wood
  box 1.9 1.35 .2 0 0 .48 paint
  box .4 1.1 .15 -.7 0 .63 white
lamp: room
  tube .3 .3 .04 0 0 .02 black
  tube .04 .04 1.5 0 0 .75 steel
  cone .45 .45 .4 0 0 1.6 paint hot
bookshelf: room
  box .3 1 1.9 0 0 .95 wood
  box .2 .28 .26 .08 -.31 .4 red
  box .2 .4 .24 .08 .2 .9 blue
  box .2 .6 .24 .08 -.1 1.4 green
television: room
  box .4 1.2 .45 0 0 .22 wood
  box .06 1.2 .7 0 0 .85 black warm
fridge: room
  box .65 .65 1.75 0 0 .88 white cold
  box .04 .03 .5 .34 .25 1.1 steel
stove: room
  box .6 .6 .85 0 0 .43 white
  tube .2 .2 .03 ±.14 ±.14 .87 black hot
  box .02 .45 .35 .3 0 .4 black engine
radiator: room
  box .12 1.1 .6 0 0 .45 white engine
washing machine: room
  box .6 .6 .85 0 0 .43 white
  collar .08 .38 .38 .3 0 .45 steel warm
flower pot: any
  tube .35 .35 .35 0 0 .17 brick
  ball .5 .5 .5 0 0 .55 leaf
  ball .12 .12 .12 ±.15 ±.15 .75 paint
tree: yard forest street
  tube .3 .3 2 0 0 1 brown
  ball 2.2 2.2 2 0 0 2.8 leaf
  ball 1.4 1.4 1.3 .5 .4 3.6 leaf
pine: forest snow yard
  tube .25 .25 1 0 0 .5 brown
  cone 2 2 1.8 0 0 1.6 leaf
  cone 1.5 1.5 1.6 0 0 2.6 leaf
  cone 1 1 1.4 0 0 3.5 leaf
palm tree: beach
  tube .25 .25 3.4 0 0 1.7 brown
  log 2.6 .3 .12 0 0 3.4 leaf
  bar .3 2.6 .12 0 0 3.45 leaf
  ball .25 .25 .25 .15 .1 3.2 brown
bush: yard forest street
  ball 1.3 1.2 .9 0 0 .4 leaf
  ball .8 .8 .8 .4 .4 .6 leaf
rock: yard forest beach snow
  ball 1.1 .9 .7 0 0 .25 stone
  ball .6 .7 .5 .4 -.3 .2 stone
house: street yard far
  box 5 6 3.2 0 0 1.6 paint
  roof 6 7 2 0 0 4.2 brick
  box .1 .9 2 2.5 0 1 wood
  box .1 1 1 2.5 ±2 1.7 glass warm
tower: far street
  tube 3 3 9 0 0 4.5 stone
  cone 3.6 3.6 2.5 0 0 10.2 brick
block of flats: street far
  box 7 9 12 0 0 6 paint
  box .1 7.5 .8 3.5 0 2 glass warm
  box .1 7.5 .8 3.5 0 5 glass warm
  box .1 7.5 .8 3.5 0 8 glass warm
fence: yard snow
  box .06 4 .12 0 0 .5 wood
  box .06 4 .12 0 0 .95 wood
  tube .12 .12 1.2 0 ±1.9 .6 wood
  tube .12 .12 1.2 0 ±.6 .6 wood
bench: yard street beach
  box .45 1.6 .06 0 0 .45 wood
  box .06 1.6 .4 -.2 0 .75 wood
  box .4 .08 .45 0 ±.65 .22 black
street lamp: street yard
  tube .14 .14 4.5 0 0 2.25 steel
  log 1 .1 .1 .4 0 4.5 steel
  ball .4 .3 .2 .85 0 4.4 white hot
signpost: street snow
  tube .08 .08 2.2 0 0 1.1 steel
  box .04 .7 .7 .03 0 2.2 paint
bin: street yard
  tube .5 .5 .9 0 0 .45 paint
letterbox: street yard
  box .35 .4 .5 0 0 1.1 paint
  tube .08 .08 .9 0 0 .45 steel
car: street yard
  box 3.9 1.7 .6 0 0 .6 paint
  box 2 1.5 .55 -.2 0 1.15 glass
  box 1.9 1.45 .08 -.2 0 1.45 paint
  box 1 1.5 .06 1.4 0 .91 paint engine
  bar .62 .2 .62 ±1.25 ±.8 .31 rubber warm
  ball .2 .25 .2 1.93 ±.6 .65 white warm
van: street
  box 4.6 1.9 1.7 -.2 0 1.25 paint
  box .5 1.8 .9 2.3 0 .8 paint engine
  box .1 1.6 .6 2.1 0 1.6 glass
  bar .7 .22 .7 ±1.5 ±.85 .35 rubber warm
bus: street
  box 9 2.4 2.5 0 0 1.7 paint
  box 8.4 2.44 .8 0 0 2.2 glass
  box .2 2 .8 -4.5 0 .9 black engine
  bar .9 .25 .9 ±3 ±1.1 .45 rubber warm
motorbike: street yard garage
  hoop .65 .14 .65 .75 0 .33 rubber warm
  hoop .65 .14 .65 -.65 0 .33 rubber warm
  bar .3 .06 .3 .75 0 .33 steel
  bar .3 .06 .3 -.65 0 .33 steel
  box .5 .3 .38 .05 0 .45 steel engine
  ball .65 .3 .3 .2 0 .82 paint
  box .75 .25 .1 -.4 0 .8 black warm
  bar .05 .75 .05 .5 0 1.05 steel
  tube .06 .06 .8 .65 0 .7 steel
  ball .2 .22 .2 .72 0 .92 white warm
  log .8 .1 .1 -.45 -.2 .35 steel hot
bicycle: street yard garage forest
  hoop .68 .05 .68 .52 0 .34 rubber
  hoop .68 .05 .68 -.52 0 .34 rubber
  log .62 .05 .05 .05 0 .82 paint
  log .55 .05 .05 -.27 0 .42 paint
  tube .05 .05 .6 -.2 0 .65 paint
  tube .05 .05 .65 .42 0 .68 paint
  box .27 .15 .06 -.22 0 .97 black
  bar .04 .6 .04 .42 0 1.02 steel
rowing boat: water beach
  ball 3.2 1.3 .9 0 0 .2 paint
  box 2.2 .9 .1 0 0 .62 wood
  bar .2 1.2 .06 .3 0 .7 wood
  bar .2 1.2 .06 -.5 0 .7 wood
sailing boat: water
  ball 4.5 1.5 1 0 0 .25 paint
  tube .12 .12 5 0 0 2.8 wood
  cone 2 .1 4.2 -.8 0 3 white
buoy: water
  ball .9 .9 .8 0 0 .2 paint
  cone .5 .5 1 0 0 .9 paint
duck: water
  ball .9 .5 .45 0 0 .15 white fur
  ball .3 .28 .3 .4 0 .5 white fur
  cone .12 .12 .2 .58 0 .48 orange
person: any
  ball .24 .22 .28 0 0 1.62 skin skin
  tube .3 .42 .62 0 0 1.15 paint cloth
  tube .15 .15 .85 0 ±.11 .43 blue cloth
  tube .1 .1 .6 0 ±.27 1.13 skin skin
child: any
  ball .22 .2 .24 0 0 1.05 skin skin
  cone .4 .4 .6 0 0 .68 paint cloth
  tube .11 .11 .45 0 ±.08 .22 skin skin
dog: any
  log .75 .28 .3 0 0 .5 brown fur
  ball .3 .24 .26 .45 0 .68 brown fur
  log .2 .1 .1 .6 0 .64 black skin
  tube .09 .09 .4 ±.28 ±.09 .2 brown fur
cat: room yard
  ball .45 .2 .22 0 0 .25 paint fur
  ball .19 .18 .18 .26 0 .38 paint fur
  cone .06 .06 .1 .26 ±.06 .5 paint fur
  tube .05 .05 .35 -.25 0 .4 paint fur
  tube .05 .05 .2 ±.13 ±.05 .1 paint fur
horse: yard
  log 1.6 .55 .6 0 0 1.15 brown fur
  box .3 .22 .75 .85 0 1.65 brown fur
  log .6 .22 .26 1.1 0 1.95 brown skin
  tube .13 .13 .95 ±.6 ±.17 .47 brown fur
cow: yard
  box 1.7 .65 .75 0 0 1.05 white fur
  box .6 .67 .4 -.3 0 1.2 black fur
  box .5 .35 .38 1 0 1.35 black skin
  tube .14 .14 .75 ±.65 ±.22 .37 white fur
sheep: yard
  ball 1.2 .7 .75 0 0 .75 snow cloth
  ball .35 .25 .35 .65 0 .95 black skin
  tube .09 .09 .5 ±.35 ±.15 .25 black fur
snowman: snow
  ball 1 1 .95 0 0 .45 snow ice
  ball .7 .7 .65 0 0 1.15 snow ice
  ball .45 .45 .45 0 0 1.65 snow ice
  cone .08 .08 .3 .25 0 1.65 orange
block of ice: snow kitchen
  box .8 .7 .7 0 0 .35 snow ice
campfire: forest beach snow yard
  log .9 .15 .15 0 .1 .08 wood hot
  bar .15 .9 .15 .1 0 .15 wood hot
  cone .5 .5 .8 0 0 .5 flame flame
tent: forest yard snow beach
  roof 2.4 2.2 1.6 0 0 .8 paint
umbrella: beach street
  tube .06 .06 2 0 0 1 steel
  cone 2 2 .5 0 0 2.1 paint
haystack: yard
  bar 1.3 1.4 1.3 0 0 .65 straw sun
windmill: far yard
  cone 2 2 7 0 0 3.5 white
  box .1 .5 6 .8 0 6 steel
  box .1 6 .5 .8 0 6 steel
well: yard
  tube 1.3 1.3 .8 0 0 .4 stone
  tube .1 .1 1.8 0 ±.6 .9 wood
  roof 1.7 1.7 .6 0 0 2 brick
ladder: garage yard
  tube .06 .06 2.4 0 ±.25 1.2 wood
  bar .05 .5 .05 0 0 .5 wood
  bar .05 .5 .05 0 0 1.1 wood
  bar .05 .5 .05 0 0 1.7 wood
workbench: garage
  box .7 1.8 .08 0 0 .9 wood
  box .08 .08 .9 ±.28 ±.8 .45 wood
  box .3 .45 .25 0 -.4 1.07 paint
  box .2 .3 .2 0 .3 1.04 steel
stack of tyres: garage street
  ring .7 .7 .2 0 0 .1 rubber
  ring .7 .7 .2 .03 .02 .3 rubber
  ring .7 .7 .2 -.02 0 .5 rubber
tractor: yard
  box 1.6 .8 .7 .6 0 1 paint engine
  box 1 1.1 1.3 -.6 0 1.5 glass
  bar 1.5 .4 1.5 -.7 ±.75 .75 rubber warm
  bar .8 .3 .8 1 ±.6 .4 rubber warm
  tube .1 .1 1 .9 .2 1.8 black hot
"""
"""NAME: where it is found, then its parts: form, size in x, y, z, centre, material and, unless that of the air, warmth.

Metres; x is its front. ± stands for two parts. `paint` is one colour an object, which the caption names.
"""

_VEHICLES = """
bicycle:
  bar .04 .62 .04 .5 0 1.08 steel
  bar .09 .13 .05 .47 ±.27 1.09 black
  hoop .68 .06 .68 .95 0 .34 rubber
  log .3 .06 .06 .62 0 .95 paint
  bar .1 .1 .08 .42 ±.27 1.12 skin skin
motorbike:
  bar .05 .8 .05 .55 0 1.1 steel
  box .2 .36 .25 .75 0 1.2 paint warm
  ball .6 .35 .3 .3 0 .92 paint engine
  bar .12 .13 .1 .5 ±.33 1.13 black cloth
  tube .12 .12 .1 .6 ±.42 1.25 steel
car:
  box 1.5 1.7 .12 1.9 0 .78 paint engine
  box .5 1.7 .25 .8 0 .7 black warm
  collar .05 .38 .38 .52 .3 .82 black
  tube .09 .09 1.1 .9 ±.78 1.35 black
  box .6 1.7 .1 .6 0 1.75 black
lorry:
  box .6 2.3 .3 .85 0 1.75 grey warm
  collar .06 .5 .5 .55 .3 1.85 black
  tube .12 .12 1.3 1 ±1.1 2.5 paint
  box .7 2.4 .12 .7 0 3.1 paint
tractor:
  box 1.7 .7 .5 1.6 0 1.35 paint engine
  tube .1 .1 .9 1.8 .2 1.9 black hot
  collar .05 .45 .45 .5 0 1.55 black
  bar .8 .3 .8 2.2 ±.75 .4 rubber warm
rowing boat:
  cone 1.1 1.1 .5 1.9 0 .25 paint
  box 1.6 .12 .35 1 ±.5 .35 paint
  box 1.8 .9 .05 .9 0 .12 wood
  bar .07 2.6 .07 .7 0 .62 wood
  box .4 .15 .1 .5 ±.18 .35 blue cloth
motorboat:
  ball 3 1.6 .6 2 0 .6 white
  box .1 1.3 .45 .8 0 1.1 glass
  collar .06 .4 .4 .5 0 1 black
horse:
  box .25 .2 .7 .95 0 1.75 brown fur
  log .6 .2 .26 1.2 0 2.02 brown skin
  cone .08 .06 .18 .98 ±.07 2.2 brown fur
  log 1.1 .6 .5 .3 0 1.2 brown fur
skis:
  box 1.6 .1 .03 .9 ±.14 .04 paint
  tube .03 .03 1.1 .5 ±.35 .6 steel
  ball .12 .12 .12 .5 ±.35 1.1 red cloth
shopping trolley:
  box .05 .6 .4 1 0 .75 steel
  box .7 .03 .4 .68 ±.3 .75 steel
  box .7 .6 .03 .68 0 .56 steel
  bar .04 .6 .04 .35 0 1 paint
  box .25 .25 .3 .75 .1 .7 paint cold
pram:
  box .7 .5 .35 .9 0 .7 paint
  bar .04 .5 .04 .4 0 1 steel
  ball .2 .2 .2 .8 0 .9 skin skin
swing:
  tube .04 .04 3 .25 ±.3 2 brown
  box .3 .3 .08 .45 ±.12 .65 blue cloth
  ball .12 .2 .12 .75 ±.12 .55 black
lift:
  box .05 .05 2.3 1.1 0 1.15 black
  box .04 1.6 2.3 1.12 0 1.15 paint
  box 2.4 .04 2.3 0 ±.8 1.15 paint
  box 2.4 1.6 .04 0 0 2.35 white
  box 2.4 1.6 .04 0 0 0 grey
  box .05 .12 .3 1.05 .55 1.2 black warm
train:
  box .7 2.6 .5 .9 0 1.3 grey warm
  tube .15 .15 1.6 1.1 ±1.25 2.2 paint
  box .8 2.6 .2 1 0 2.95 paint
drone:
  log .5 .04 .04 .25 ±.3 -.12 black
  ring .3 .3 .02 .5 ±.3 -.08 black warm
"""
"""What is fixed to the body and stays in view: x forward, y left, from the ground below it."""


Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Part:
    """One body to render: metres, radians, RGB 0..1, degrees Celsius. `thing` numbers the object, -1 the rest."""

    form: str
    size: Triple
    centre: Triple
    yaw: float
    rgb: Triple
    celsius: float
    thing: int = -1
    grain: float = 0.1
    """How strongly its surface varies."""
    carried: bool = False
    """Fixed to the moving body."""


@dataclass(frozen=True)
class Motion:
    """x, y, z (m) and roll, pitch, yaw (rad) of the body: steady motion and sines, so that all derivatives are exact.

    Yaw, then pitch, then roll; the body's axes are forward, left, up. z = 0 is the ground where the body passes x = 0.
    """

    start: np.ndarray
    speed: np.ndarray
    channel: np.ndarray
    amplitude: np.ndarray
    frequency_hz: np.ndarray
    phase: np.ndarray

    def at(self, time_s: np.ndarray, order: int = 0) -> np.ndarray:
        """(T,) times -> (T, 6): the pose, or its derivative of that order."""
        rate = 2 * np.pi * self.frequency_hz
        waves = self.amplitude * rate**order * np.sin(np.outer(time_s, rate) + self.phase + order * np.pi / 2)
        values: np.ndarray = waves @ np.eye(6)[self.channel]
        if order == 0:
            values += self.start + np.outer(time_s - MIDDLE_S, self.speed)
        return values + self.speed if order == 1 else values


def rotation(angles: np.ndarray) -> np.ndarray:
    """(T, 3) roll, pitch, yaw -> (T, 3, 3) from the body's axes to the world's."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(angles.T), np.sin(angles.T)
    rows = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def measured(motion: Motion, time_s: np.ndarray) -> np.ndarray:
    """(T,) times -> (T, 6) of an ideal IMU in the body: specific force in m/s2 (at rest 9.8 upwards), then rad/s."""
    pose, rate, second = (motion.at(time_s, order) for order in range(3))
    (cr, cp, _), (sr, sp, _) = np.cos(pose[:, 3:].T), np.sin(pose[:, 3:].T)
    roll, pitch, yaw = rate[:, 3:].T
    gyro = np.stack([roll - yaw * sp, pitch * cr + yaw * cp * sr, yaw * cp * cr - pitch * sr], 1)
    force = second[:, :3] + [0, 0, GRAVITY]
    return np.hstack([np.einsum("tij,ti->tj", rotation(pose[:, 3:]), force), gyro])


@dataclass(frozen=True)
class Place:
    """Where a scene is: `phrase` for captions, material and graininess of the ground, which things are found there.

    `air_c` and `roughness` (how the ground shakes a wheel) as least and most. `walls` makes it a room.
    """

    phrase: str
    ground: str
    grain: float
    tags: str
    air_c: tuple[float, float]
    roughness: float
    walls: bool = False


PLACES = {
    "meadow": Place("on grass", "leaf", 0.35, "any yard", (8, 28), 1.3),
    "beach": Place("on a beach", "sand", 0.3, "any beach", (18, 34), 1.0),
    "snow": Place("on snow", "snow", 0.1, "any snow", (-15, 0), 0.6),
    "street": Place("on a street", "grey", 0.15, "any street", (2, 30), 0.4),
    "gravel": Place("on a gravel road", "stone", 0.5, "any yard street", (2, 30), 2.2),
    "forest": Place("in a forest", "earth", 0.45, "any forest", (4, 24), 1.6),
    "lake": Place("on a lake", "sea", 0.35, "water", (5, 26), 0.0),
    "living room": Place("in a living room", "wood", 0.25, "any room", (18, 24), 0.2, True),
    "kitchen": Place("in a kitchen", "tile", 0.12, "room kitchen", (18, 26), 0.3, True),
    "garage": Place("in a garage", "stone", 0.2, "any garage", (5, 20), 0.4, True),
    "hall": Place("in a hall", "tile", 0.3, "any room", (16, 22), 0.3, True),
    "staircase": Place("on a staircase", "stone", 0.2, "person child cat ball box", (14, 22), 0.0, True),
    "lift": Place("in a lift", "grey", 0.1, "", (16, 24), 0.0),
}


@dataclass(frozen=True)
class Gait:
    """How the body moves: least and most of height of the camera (m), speed (m/s) and rhythm (Hz).

    `sways` are channel, multiple of the rhythm, amplitude (m or rad). `shake` is the acceleration (m/s2) on ground of
    roughness 1, `engine` that of a motor of 25 to 60 Hz. `down_deg` is how far the camera looks down.
    """

    places: str
    height: tuple[float, float]
    speed: tuple[float, float]
    rhythm_hz: tuple[float, float]
    sways: str
    shake: float = 0.0
    engine: float = 0.0
    down_deg: float = 10.0
    vehicle: str = ""


_WALK = "z 1 .022, z 2 .005, z 3 .002, y .5 .02, x 1 .008, roll .5 .02, pitch 1 .015, yaw .5 .03"
_RUN = "z 1 .045, z 2 .008, z 3 .003, y .5 .02, x 1 .012, roll .5 .04, pitch 1 .04, yaw .5 .06"
_CRAWL = "z 1 .02, y .5 .05, roll .5 .12, yaw .5 .1, pitch 1 .06"
_TROT = "z 1 .06, z 2 .03, x 1 .04, pitch 1 .07, roll .5 .04"
_CAR = "roll .5 .01, pitch 1 .008, z 1 .01"
_ROW = "x 1 .12, x 2 .03, pitch 1 .05, z 1 .02, roll .5 .03"
_RAILS = "y .4 .03, roll .4 .015, z 1 .004, z 4 .0012, z 7 .0008"
_OUT, _IN, _ROAD = "meadow beach snow street gravel forest", "living_room kitchen garage hall", "street gravel"
GAITS = {
    "standing": Gait(f"{_OUT} {_IN}", (1.4, 1.75), (0, 0), (0.2, 0.4), "x 1 .008, y .7 .01, yaw .5 .15"),
    "walking": Gait(f"{_OUT} {_IN}", (1.45, 1.75), (0.8, 1.6), (1.6, 2.1), _WALK),
    "running": Gait(_OUT, (1.45, 1.75), (2.5, 4), (2.5, 3), _RUN, 0.5),
    "crawling": Gait(_IN, (0.35, 0.55), (0.2, 0.5), (0.8, 1.2), _CRAWL),
    "jumping": Gait(f"meadow beach {_IN}", (1.5, 1.8), (0, 0.1), (1.5, 1.9), "z 1 .12, z 2 .015, pitch 1 .05, x 1 .02"),
    "climbing stairs": Gait("staircase", (1.45, 1.75), (0.4, 0.7), (1.4, 1.9), f"{_WALK}, z 1 .02", down_deg=0),
    "going down stairs": Gait("staircase", (1.45, 1.75), (0.4, 0.7), (1.6, 2.2), f"{_WALK}, z 2 .012", down_deg=25),
    "cycling": Gait(
        f"meadow {_ROAD} forest", (1.45, 1.6), (3, 6), (1, 1.5), "roll 1 .04, y 1 .03, yaw 1 .02", 2, 0, 20, "bicycle"
    ),
    "riding a motorbike": Gait(
        _ROAD, (1.4, 1.55), (7, 14), (0.3, 0.6), f"{_CAR}, roll 1 .08", 1.2, 1.8, 16, "motorbike"
    ),
    "driving a car": Gait(_ROAD, (1.2, 1.3), (6, 15), (0.8, 1.4), _CAR, 1, 0.25, 8, "car"),
    "driving a lorry": Gait(
        _ROAD, (2.2, 2.4), (6, 13), (0.6, 1), f"{_CAR}, z 1 .02, pitch 1 .02", 1.6, 0.7, 12, "lorry"
    ),
    "driving a tractor": Gait(
        "meadow gravel", (1.9, 2.1), (2, 4), (0.8, 1.3), "roll .6 .05, pitch 1 .05, z 1 .04", 1.5, 1.6, 14, "tractor"
    ),
    "riding a horse": Gait("meadow beach forest gravel", (2.2, 2.4), (2.5, 4), (1.3, 1.7), _TROT, 0.4, 0, 12, "horse"),
    "rowing a boat": Gait("lake", (0.95, 1.1), (0.8, 1.6), (0.4, 0.6), _ROW, vehicle="rowing boat"),
    "riding a motorboat": Gait(
        "lake", (1.5, 1.7), (5, 10), (0.7, 1.2), "z 1 .1, z 2 .02, pitch 1 .06, roll .6 .05", 0, 0.9, 10, "motorboat"
    ),
    "skiing": Gait(
        "snow", (1.4, 1.65), (4, 9), (0.4, 0.7), "y 1 .25, roll 1 .15, yaw 1 .2, z 2 .05", 1.2, 0, 16, "skis"
    ),
    "pushing a trolley": Gait(
        "hall street",
        (1.5, 1.7),
        (0.6, 1.2),
        (1.6, 2),
        "z 1 .015, y .5 .015, roll .5 .01",
        1.2,
        0,
        20,
        "shopping trolley",
    ),
    "pushing a pram": Gait(
        f"meadow {_ROAD}", (1.5, 1.7), (0.7, 1.3), (1.6, 2), "z 1 .02, y .5 .018, roll .5 .015", 0.4, 0, 20, "pram"
    ),
    "swinging": Gait(
        "meadow", (1.1, 1.3), (0, 0), (0.3, 0.4), "x 1 .6, z 2 .1, pitch 1 .35", down_deg=8, vehicle="swing"
    ),
    "riding in a lift": Gait("lift", (1.4, 1.75), (0, 0), (0.1, 0.16), "z 1 1.2, yaw 2 .1", 0, 0.12, 2, "lift"),
    "riding a train": Gait("gravel meadow snow", (2.1, 2.3), (9, 20), (1.2, 2), _RAILS, 0.25, 0.15, 5, "train"),
    "flying a drone": Gait(
        f"{_OUT} lake", (5, 14), (2, 6), (0.3, 0.6), "roll 1 .06, pitch 1.3 .05, y 1 .1, z .7 .08", 0, 2.5, 32, "drone"
    ),
}
"""The keys complete the sentence "seen while ..."."""


@dataclass(frozen=True)
class Scene:
    """All there is to render and to measure. `names` are the things' (numbered as in `Part.thing`), with articles."""

    parts: tuple[Part, ...]
    names: tuple[str, ...]
    place: str
    gait: str
    motion: Motion
    down: float
    """How far the camera looks down, in radians."""
    field_of_view: float
    """From left to right, in radians."""
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
_SLOW = ["standing", "walking", "crawling", "jumping"]
"""Of so many scenes one shows a thing close by, to a body that is slow enough for it."""


def draw(seed: int, number: int) -> Scene:
    """The scene of that number in the set of that seed."""
    rng = np.random.default_rng([seed, number])
    portrait = number % _PORTRAIT_EVERY == _PORTRAIT_EVERY - 1
    gait_name = str(rng.choice(_SLOW if portrait else list(GAITS)))
    gait = GAITS[gait_name]
    place_name = str(rng.choice(gait.places.split())).replace("_", " ")
    place = PLACES[place_name]
    height, speed, rhythm_hz = (float(rng.uniform(*span)) for span in (gait.height, gait.speed, gait.rhythm_hz))
    slope = {"climbing stairs": 0.6, "going down stairs": -0.6}.get(gait_name, 0.0)
    motion = _motion(rng, gait, height, speed, rhythm_hz, slope, place.roughness)
    air_c = float(rng.uniform(*place.air_c))
    parts = [*_surroundings(rng, place_name, place, air_c, slope)]
    names: list[str] = []
    if gait.vehicle:
        vehicle = _parse(_VEHICLES)[gait.vehicle][1]
        parts += _thing(rng, vehicle, -1, (0.0, 0.0, -height), 0.0, 1.0, str(rng.choice(list(COLOURS))), air_c, True)
    catalogue = {
        name: rows
        for name, (tags, rows) in _parse(_THINGS).items()
        if set(tags.split()) & set(place.tags.split()) or name in place.tags.split()
    }
    for x, y in _spots(rng, place, speed, gait_name) if catalogue else ():
        name = str(rng.choice(list(catalogue)))
        rows = catalogue[name]
        reach = max(abs(c) + s / 2 for row in rows for c, s in zip(row[2][:2], row[1][:2], strict=True))
        if portrait and not names:
            tall = max(row[2][2] + row[1][2] / 2 for row in rows)
            x, y = max(1.2, rng.uniform(1, 1.7) * max(reach, tall) + 0.6) + 2 * speed, rng.uniform(-0.3, 0.3)
        elif reach > 2:  # big ones stand back
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
        _triple([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]),
        float(rng.uniform(0.55, 1.1)) if outside else float(rng.uniform(0.6, 1.0)),
        _triple(np.array([0.45, 0.65, 0.95]) * (1 - cloudy) + np.array([0.8, 0.8, 0.82]) * cloudy),
        float(np.exp(rng.uniform(*np.log([25, 220])))),
        float(np.exp(rng.uniform(*np.log([1 / 200, 1 / 25])))),
    )


def _motion(
    rng: np.random.Generator, gait: Gait, height: float, speed: float, rhythm_hz: float, slope: float, roughness: float
) -> Motion:
    channels = ["x", "y", "z", "roll", "pitch", "yaw"]
    vigour = rng.uniform(0.75, 1.3)
    waves = []
    for sway in gait.sways.split(", "):
        channel, multiple, amplitude = sway.split()
        # Phases near 0 keep a gait's harmonics together: a footstep is a peak, not noise.
        waves.append(
            (channels.index(channel), vigour * float(amplitude), float(multiple) * rhythm_hz, rng.normal(0, 0.5))
        )
    waves.append((5, rng.uniform(0.02, 0.15), rng.uniform(0.08, 0.25), rng.uniform(0, 6.3)))  # looking around
    waves.append((4, rng.uniform(0.01, 0.04), rng.uniform(0.1, 0.3), rng.uniform(0, 6.3)))
    shaking = [
        (gait.shake * roughness * vigour, rng.uniform(4, 40, 10)),
        (gait.engine, rng.uniform(25, 60) * np.array([1, 2, 0.5])),
    ]
    for strength, frequencies in shaking:
        for frequency, axis in itertools.product(frequencies if strength else (), range(3)):
            share = strength * (1.0 if axis == 2 else 0.4) * np.sqrt(2 / len(frequencies))
            waves.append((axis, share / (2 * np.pi * frequency) ** 2, frequency, rng.uniform(0, 6.3)))
    columns = [np.array(column) for column in zip(*waves, strict=True)]
    velocity = np.array([speed, 0, speed * slope, 0, 0, 0])
    return Motion(np.array([0, 0, height, 0, 0, 0]), velocity, *columns)


def _spots(rng: np.random.Generator, place: Place, speed: float, gait: str) -> list[tuple[float, float]]:
    """Where things stand: some in front of the camera as it passes x = 0, others along the way; none too close."""
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


def _triple(values: Iterable[Any]) -> Triple:
    x, y, z = (float(value) for value in values)
    return x, y, z


@dataclass(frozen=True)
class _Maker:
    """Makes the parts of a place, each a little different from its material."""

    rng: np.random.Generator
    air_c: float

    def part(
        self, form: str, size: Triple, centre: Triple, material: str, warmer: float = 0.0, grain: float = 0.1
    ) -> Part:
        shade, tint = self.rng.uniform(0.8, 1.15), self.rng.normal(0, 0.02, 3)
        rgb = _triple(np.clip(np.array(_MATERIALS[material]) * shade + tint, 0, 1))
        return Part(form, _triple(size), _triple(centre), 0.0, rgb, self.air_c + warmer, grain=grain)

    def choice(self, materials: str) -> str:
        return str(self.rng.choice(materials.split()))

    def staircase(self, ground: str, grain: float, warmer: float, slope: float) -> list[Part]:
        """Steps of 0.3 x 0.18 m along x between two walls, with the posts of a rail."""
        up = np.sign(slope)
        first = self.part("box", (0.3, 2.4, 0.18), (0, 0, 0), ground, warmer, grain)
        found = []
        for i in range(-14, 22):
            # Every other one is darker, or they would blend.
            rgb = _triple((0.9 + 0.1 * (i % 2)) * c for c in first.rgb)
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
        """Hills on the horizon, in a forest mostly trees all around."""
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


def _surroundings(rng: np.random.Generator, name: str, place: Place, air_c: float, slope: float) -> list[Part]:
    """Ground, walls and horizon of a place."""
    if name == "lift":
        return []  # its cabin moves with the body
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


Row = tuple[str, tuple[float, ...], tuple[float, ...], str, str]


@cache
def _parse(table: str) -> dict[str, tuple[str, tuple[Row, ...]]]:
    """The tables above -> name: (tags, rows of form, size, centre, material, warmth)."""
    found: dict[str, tuple[str, tuple[Row, ...]]] = {}
    name = ""
    for line in filter(None, table.splitlines()):
        if not line.startswith(" "):
            name, _, tags = line.partition(":")
            found[name] = (tags.strip(), ())
            continue
        form, *numbers, material, warmth = [*line.split(), "air"][:9]
        size = tuple(float(v) for v in numbers[:3])
        signs = [(1, -1) if v.startswith("±") else (1,) for v in numbers[3:]]
        for sign in itertools.product(*signs):
            centre = tuple(s * float(v.lstrip("±")) for s, v in zip(sign, numbers[3:], strict=True))
            found[name] = (found[name][0], (*found[name][1], (form, size, centre, material, warmth)))
    return found


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
    heat = rng.uniform(0.5, 1.1)  # engines run or have cooled down, tea too
    stretch = rng.uniform(0.9, 1.1, 3) if thing >= 0 else np.ones(3)
    grain = rng.uniform(0.05, 0.3)
    cos, sin = np.cos(yaw), np.sin(yaw)
    parts = []
    for form, size, centre, material, warmth in rows:
        x, y, z = np.array(centre) * stretch * scale
        place = (at[0] + cos * x - sin * y, at[1] + sin * x + cos * y, at[2] + z)
        rgb = _triple(np.clip(np.array(_MATERIALS[colour if material == "paint" else material]) * shade, 0, 1))
        target_c = {"air": air_c, "sun": air_c + 8}.get(warmth, _WARMTH_C.get(warmth, air_c))
        alive = warmth in ("skin", "cloth", "fur", "ice", "cold")
        celsius = air_c + (target_c - air_c) * (1.0 if alive else heat) + own_c
        bulk = _triple(np.array(size) * stretch * scale)
        parts.append(Part(form, bulk, place, yaw, rgb, float(celsius), thing, grain, carried))
    return parts
