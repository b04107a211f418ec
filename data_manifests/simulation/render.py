"""Simulated scenes -> colours, depths and temperatures, with PyBullet's software renderer: no screen, no GPU.

PyBullet computes which surface each pixel shows, where it is and how it is lit. Its grain, the sky, the sensors' optics
and noise are added here. Thermal pictures are simulated from the temperatures of things, without exchange of radiation
between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from data_manifests import BuildError
from data_manifests.simulation.motion import MIDDLE_S, rotation
from data_manifests.simulation.scenes import Scene
from data_manifests.simulation.tables import PLACES

_NEAR_M, _FAR_M = 0.12, 250.0
"""The clipping planes of the renderer; a wider ratio costs precision of its depth buffer."""
_DEEPEST_M = 60.0
"""The greatest distance: farther surfaces and the sky are this far away, which a 16-bit depth map in mm can express."""
_DISPARITY_STEP_PX = 1 / 8
"""The steps of disparities of a stereo matcher, in pixels, for a picture 640 pixels wide."""
_NETD_K = 0.07
"""The noise of an uncooled microbolometer (noise-equivalent temperature difference), in kelvin."""
_EMISSIVITY, _GRAZING = 0.95, 0.35
"""The emissivity at right angles to a surface, and the share of it that is lost at grazing angles."""


@dataclass(frozen=True)
class Shot:
    """One render: (H, W, 3) lit colours 0..1, (H, W) metres along the axis, (H, W) part numbers (-1: sky), world
    positions.
    """

    lit: np.ndarray
    depth_m: np.ndarray
    part: np.ndarray
    point: np.ndarray


class Stage:
    """A renderer that takes one scene at a time. Raises BuildError where PyBullet is not installed."""

    def __init__(self) -> None:
        try:
            import pybullet
        except ImportError:
            raise BuildError("rendering needs the package pybullet: pip install 'crossbind[data]'") from None
        self._bullet: Any = pybullet
        self._client = pybullet.connect(pybullet.DIRECT)
        self._scene: Scene | None = None
        self._bodies: list[int] = []

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bullet.disconnect(self._client)

    def set(self, scene: Scene) -> None:
        """Builds a scene in the renderer."""
        bullet, client = self._bullet, self._client
        bullet.resetSimulation(client)
        self._scene, self._bodies = scene, []
        for part in scene.parts:
            colour = [*part.rgb, 1]
            if part.form == "box":
                half = [max(s, 0.004) / 2 for s in part.size]
                shape = bullet.createVisualShape(
                    bullet.GEOM_BOX, halfExtents=half, rgbaColor=colour, physicsClientId=client
                )
            else:
                vertices, triangles, normals = _mesh(part.form)
                shape = bullet.createVisualShape(
                    bullet.GEOM_MESH,
                    vertices=vertices,
                    indices=triangles,
                    normals=normals,
                    meshScale=list(part.size),
                    rgbaColor=colour,
                    specularColor=[0, 0, 0],
                    physicsClientId=client,
                )
            turn = bullet.getQuaternionFromEuler([0, 0, part.yaw])
            self._bodies.append(bullet.createMultiBody(0, -1, shape, part.centre, turn, physicsClientId=client))

    def shoot(self, time_s: float, width: int, height: int, *, shadows: bool = True) -> Shot:
        """The camera's view at a time."""
        scene, bullet = self._scene, self._bullet
        assert scene is not None
        pose = scene.motion.at(np.array([time_s]))[0]
        turn = rotation(pose[None, 3:])[0]
        carried = bullet.getQuaternionFromEuler(pose[3:].tolist())
        for part, body in zip(scene.parts, self._bodies, strict=True):
            if part.carried:
                centre = pose[:3] + turn @ np.array(part.centre)
                bullet.resetBasePositionAndOrientation(body, centre.tolist(), carried, physicsClientId=self._client)
        ahead = turn @ [np.cos(scene.down), 0, -np.sin(scene.down)]
        up = turn @ [np.sin(scene.down), 0, np.cos(scene.down)]
        view = bullet.computeViewMatrix(pose[:3].tolist(), (pose[:3] + ahead).tolist(), up.tolist())
        tangent = np.tan(scene.field_of_view / 2)
        upright = 2 * np.arctan(tangent * height / width)
        projection = bullet.computeProjectionMatrixFOV(np.rad2deg(upright), width / height, _NEAR_M, _FAR_M)
        _, _, colours, buffer, segments = bullet.getCameraImage(
            width,
            height,
            view,
            projection,
            lightDirection=[10 * s for s in scene.sun],
            lightAmbientCoeff=0.55,
            lightDiffuseCoeff=0.5,
            lightSpecularCoeff=0.0,
            shadow=shadows and not PLACES[scene.place].walls,  # a ceiling would put everything into shadow
            renderer=bullet.ER_TINY_RENDERER,
            physicsClientId=self._client,
        )
        lit = np.reshape(colours, (height, width, 4))[..., :3] / np.float32(255)
        seen = np.reshape(segments, (height, width)).astype(np.int64)
        buffer = np.reshape(buffer, (height, width)).astype(np.float64)
        depth = _FAR_M * _NEAR_M / (_FAR_M - (_FAR_M - _NEAR_M) * buffer)
        across = (np.arange(width) + 0.5) / width * 2 - 1
        down = ((np.arange(height) + 0.5) / height * 2 - 1) * height / width
        right = np.cross(ahead, up)
        rays = ahead + tangent * (across[None, :, None] * right - down[:, None, None] * up)
        depth[seen < 0] = _FAR_M
        return Shot(lit, depth, seen, pose[:3] + rays * depth[..., None])


def photograph(scene: Scene, shot: Shot, time_s: float, rng: np.random.Generator) -> Image.Image:
    """A shot -> the photograph of a small camera: grain of surfaces, sky, motion blur, exposure, noise."""
    parts = scene.parts
    grain = np.array([part.grain for part in parts] + [0.0])[shot.part]
    size_m = np.where(grain > 0.2, 0.9, 0.5)[..., None]
    # There is coarse and fine grain; the fine grain fades where a pixel covers more than it.
    pattern = _noise(shot.point / size_m) + _noise(shot.point / size_m * 9) * np.exp(-shot.depth_m / 6)
    colours = shot.lit * (1 + 1.3 * grain * pattern)[..., None]
    clouds = 0.12 * _noise(shot.point * [1, 1, 6] / 60)
    height = np.clip(shot.point[..., 2:] / 200, 0, 1)
    sky = np.array(scene.sky) * (1 - height) + np.array(scene.sky) ** 2 * height + clouds[..., None]
    haze = 1 - np.exp(-shot.depth_m[..., None] / 400)
    colours = np.where(shot.part[..., None] < 0, sky, colours * (1 - haze) + np.array(scene.sky) * haze)
    colours = _moved(scene, colours, shot, time_s) * scene.brightness
    colours += rng.normal(0, 0.012, colours.shape)
    return Image.fromarray((np.clip(colours, 0, 1) ** 0.85 * 255).astype(np.uint8))


def depth_map(scene: Scene, shot: Shot, rng: np.random.Generator) -> tuple[Image.Image, float, float]:
    """A shot -> (16-bit mm as a stereo camera measures them, focal length in px at 640 px across, baseline in m).

    Disparities come in steps with some noise. There are holes (0) beside edges, where one eye does not see the surface,
    and for some cameras where the surface is far away.
    """
    focal_px = 320 / np.tan(scene.field_of_view / 2)
    baseline_m = scene.focal_baseline / focal_px
    disparity = scene.focal_baseline / np.minimum(shot.depth_m, _DEEPEST_M)
    smooth = np.array(Image.fromarray(rng.normal(0, 1, (24, 32)).astype(np.float32)).resize(disparity.shape[::-1]))
    noisy = disparity * (1 + 0.006 * smooth) + rng.normal(0, 0.03, disparity.shape)
    stepped = np.maximum(np.round(noisy / _DISPARITY_STEP_PX), 1) * _DISPARITY_STEP_PX
    millimetres = np.minimum(1000 * scene.focal_baseline / stepped, 1000 * _DEEPEST_M)
    jump = np.diff(disparity, axis=1, append=disparity[:, -1:]) * disparity.shape[1] / 640
    hidden = np.zeros(disparity.shape, bool)
    for step in range(1, 6):  # the hole lies to the left of a near edge and is as wide as the jump in disparity
        hidden[:, step:] |= jump[:, :-step] > step
        hidden[:, :-step] |= jump[:, :-step] > step + 0.5
    if rng.random() < 0.3:
        hidden |= shot.depth_m > 0.6 * _DEEPEST_M
    return Image.fromarray(np.where(hidden, 0, millimetres).astype(np.uint16)), float(focal_px), float(baseline_m)


def thermal(scene: Scene, shot: Shot, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A shot -> an 8-bit picture of `size` by a microbolometer with automatic gain, in which warm is bright."""
    celsius = np.array([part.celsius for part in scene.parts] + [scene.sky_c])[shot.part]
    grain = np.array([part.grain for part in scene.parts] + [0.1])[shot.part]
    celsius = celsius + 1.2 * grain * _noise(shot.point / 0.7)
    normal = np.cross(np.gradient(shot.point, axis=1), np.gradient(shot.point, axis=0))
    ray = shot.point - scene.motion.at(np.array([MIDDLE_S]))[0, :3]
    lengths = np.linalg.norm(normal, axis=2) * np.linalg.norm(ray, axis=2)
    grazing = 1 - np.abs((normal * ray).sum(2)) / np.maximum(lengths, 1e-9)
    around = scene.air_c if PLACES[scene.place].walls else 0.5 * (scene.air_c + scene.sky_c)
    emissivity = np.where(shot.part < 0, 1.0, _EMISSIVITY - _GRAZING * grazing**5)
    celsius = emissivity * celsius + (1 - emissivity) * around
    air = np.exp(-shot.depth_m / 500)
    celsius = np.where(shot.part < 0, celsius, celsius * air + scene.air_c * (1 - air))
    picture = Image.fromarray(celsius.astype(np.float32)).resize(size, Image.Resampling.BOX)
    from scipy.ndimage import gaussian_filter

    values = gaussian_filter(np.array(picture), 0.6)
    drift = np.add.outer(*(np.linspace(-1, 1, n) * rng.normal(0, 0.2) for n in values.shape))
    values += drift + rng.normal(0, _NETD_K, values.shape) + rng.normal(0, _NETD_K / 3, values.shape[1])
    low, high = np.percentile(values, (0.5, 99.5))
    if high - low < 6:  # the gain has a limit
        low, high = (low + high) / 2 - 3, (low + high) / 2 + 3
    return Image.fromarray((np.clip((values - low) / (high - low), 0, 1) * 255).round().astype(np.uint8))


def prominent(scene: Scene, shot: Shot, least: float = 0.004, most: int = 3) -> list[int]:
    """The things that cover at least the share `least` of a shot, the largest first."""
    thing = np.array([part.thing for part in scene.parts] + [-1])[shot.part]
    counts = np.bincount(thing[thing >= 0], minlength=len(scene.names))
    return [int(i) for i in np.argsort(-counts, kind="stable")[:most] if counts[i] >= least * thing.size]


def _moved(scene: Scene, colours: np.ndarray, shot: Shot, time_s: float) -> np.ndarray:
    """Motion blur: the mean of the picture, shifted and scaled as the body turns and advances during the exposure."""
    rate = scene.motion.at(np.array([time_s]), 1)[0]
    width = shot.depth_m.shape[1]
    focal = width / 2 / np.tan(scene.field_of_view / 2)
    carried = np.array([part.carried for part in scene.parts] + [False])[shot.part]
    across, down = -focal * rate[5] * scene.exposure_s, -focal * rate[4] * scene.exposure_s
    passing = shot.depth_m[~carried]
    zoom = min(0.1, rate[0] * scene.exposure_s / np.median(passing)) if len(passing) else 0.0
    if abs(across) + abs(down) + zoom * width / 2 < 0.7:
        return colours
    edge = 12
    padded = np.pad(np.clip(colours, 0, 1) * 255, ((edge, edge), (edge, edge), (0, 0)), "edge")
    whole = Image.fromarray(padded.astype(np.uint8))
    total = np.zeros(padded.shape)
    for share in (0.0, 0.33, 0.67, 1.0):
        scale = 1 - share * zoom
        x, y = (
            side * (1 - scale) / 2 + (share - 0.5) * shift
            for side, shift in zip(whole.size, (across, down), strict=True)
        )
        matrix = (scale, 0, x, 0, scale, y)
        total += np.asarray(whole.transform(whole.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))
    # Things that are fixed to the body do not move in its picture.
    found: np.ndarray = np.where(carried[..., None], colours, total[edge:-edge, edge:-edge] / (4 * 255))
    return found


def _noise(point: np.ndarray) -> np.ndarray:
    """(..., 3) places -> (...) values of about -1 to 1 that vary smoothly over a distance of 1 / 8."""
    table = _fractal()
    side = len(table)
    u = ((point[..., 0] + 0.37 * point[..., 2]) * 16).astype(np.int64) % side
    v = ((point[..., 1] + 0.71 * point[..., 2]) * 16).astype(np.int64) % side
    found: np.ndarray = table[u, v]
    return found


@cache
def _fractal(side: int = 256) -> np.ndarray:
    """(side, side) periodic noise with power at all scales, of standard deviation 0.5."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    frequency[0, 0] = np.inf
    noise = np.fft.ifft2(np.fft.fft2(rng.normal(0, 1, (side, side))) / frequency**0.9).real
    table: np.ndarray = 0.5 * noise / noise.std()
    return table


@cache
def _mesh(form: str) -> tuple[list[list[float]], list[int], list[list[float]]]:
    """A form in the unit cube around 0 -> vertices, triangles, normals. `tube` stands; `log` lies along x, `bar` y."""
    turn = np.linspace(0, np.pi, 9)
    profile, smooth, sides = {
        "ball": (np.stack([np.sin(turn), -np.cos(turn)], 1) / 2, True, 14),
        "tube": (np.array([[0, -0.5], [0.5, -0.5], [0.5, 0.5], [0, 0.5]]), False, 14),
        "cone": (np.array([[0, -0.5], [0.5, -0.5], [0, 0.5]]), False, 14),
        "roof": (np.array([[0, -0.5], [0.5, -0.5], [0, 0.5]]) * [np.sqrt(2), 1], False, 4),
        "ring": (np.stack([0.4 + 0.1 * np.cos(2 * turn), 0.5 * np.sin(2 * turn)], 1), True, 18),
    }[{"log": "tube", "bar": "tube", "hoop": "ring", "collar": "ring"}.get(form, form)]
    along = np.diff(profile, axis=0)
    flat = np.stack([along[:, 1], -along[:, 0]], 1)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    angles = 2 * np.pi * (np.arange(sides + 1) + 0.5) / sides
    vertices, normals, triangles = [], [], []
    for number, normal in enumerate(flat):
        for end in (0, 1):
            radius, z = profile[number + end]
            turned = normal + (flat[(number + 2 * end - 1) % len(flat)] if smooth else 0)
            for angle in angles:
                vertices.append([radius * np.cos(angle), radius * np.sin(angle), z])
                normals.append([turned[0] * np.cos(angle), turned[0] * np.sin(angle), turned[1]])
        first = 2 * number * (sides + 1)
        for i in range(first, first + sides):
            other = i + sides + 1
            triangles += [i, i + 1, other, i + 1, other + 1, other]
    order = {"log": [2, 0, 1], "collar": [2, 0, 1], "bar": [1, 2, 0], "hoop": [1, 2, 0]}.get(form, [0, 1, 2])
    placed, facing = np.array(vertices)[:, order], np.array(normals)[:, order]
    facing /= np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-9)
    return placed.tolist(), triangles, facing.tolist()
