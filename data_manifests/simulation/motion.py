"""The motion of the body that carries the camera, and the readings of an ideal IMU in it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from data_manifests.simulation.tables import Gait

GRAVITY = 9.80665
"""Standard gravity in m/s2."""
DURATION_S = 5.0
"""The length of a scene in seconds."""
MIDDLE_S = DURATION_S / 2
"""The time of the still picture, the depth map and the thermal picture, in seconds; the body then passes x = 0."""


@dataclass(frozen=True)
class Motion:
    """The body's x, y, z (m) and roll, pitch, yaw (rad): a steady motion plus sines, so that all derivatives are exact.

    Rotations are applied in the order yaw, pitch, roll. The body's axes are forward, left, up. z = 0 is the ground
    where the body passes x = 0.
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
    """(T, 3) roll, pitch, yaw -> (T, 3, 3) rotations from the body's axes to the world's."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(angles.T), np.sin(angles.T)
    rows = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def measured(motion: Motion, time_s: np.ndarray) -> np.ndarray:
    """(T,) times -> (T, 6) readings of an ideal IMU: specific force in m/s2 (9.8 upwards at rest), then rad/s."""
    pose, rate, second = (motion.at(time_s, order) for order in range(3))
    (cr, cp, _), (sr, sp, _) = np.cos(pose[:, 3:].T), np.sin(pose[:, 3:].T)
    roll, pitch, yaw = rate[:, 3:].T
    gyro = np.stack([roll - yaw * sp, pitch * cr + yaw * cp * sr, yaw * cp * cr - pitch * sr], 1)
    force = second[:, :3] + [0, 0, GRAVITY]
    return np.hstack([np.einsum("tij,ti->tj", rotation(pose[:, 3:]), force), gyro])


def draw_motion(
    rng: np.random.Generator, gait: Gait, height: float, speed: float, rhythm_hz: float, slope: float, roughness: float
) -> Motion:
    """A gait and drawn parameters -> the motion: the gait's sways, a look around, and vibration from the ground."""
    channels = ["x", "y", "z", "roll", "pitch", "yaw"]
    vigour = rng.uniform(0.75, 1.3)
    waves = []
    for sway in gait.sways.split(", "):
        channel, multiple, amplitude = sway.split()
        # Phases near 0 keep the harmonics of a gait together, so that a footstep is a peak and not noise.
        waves.append(
            (channels.index(channel), vigour * float(amplitude), float(multiple) * rhythm_hz, rng.normal(0, 0.5))
        )
    waves.append((5, rng.uniform(0.02, 0.15), rng.uniform(0.08, 0.25), rng.uniform(0, 6.3)))  # the body looks around
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
