"""Simulated scenes: picture, depth, thermal picture, short video and IMU of one moving body, with captions.

Everything is computed here, nothing is downloaded: `_scenes` draws what there is, `_render` shows it through PyBullet.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tomllib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated

import av
import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tqdm import tqdm

from data_manifests import Builder, BuildError, Download, Entry, Split
from data_manifests.simulation.motion import DURATION_S, MIDDLE_S, measured
from data_manifests.simulation.render import Stage, depth_map, photograph, prominent, thermal
from data_manifests.simulation.scenes import draw
from data_manifests.simulation.tables import GAITS

_SETTINGS = "simulated.toml"
"""The file that says how many scenes are made and from which seed."""
_PICTURE, _THERMAL, _VIDEO = (256, 192), (160, 120), (160, 128)
"""Pixels (width, height). Thermal cameras of phones have 160 x 120; the files of 3,000 scenes stay small."""
_FRAMES = 8
"""Frames of a film, evenly over the scene. Each is rendered, which is what a film costs."""
_IMU_HZ = 400.0
"""The rate of ImageBind's encoder of motion: 2,000 samples in 5 s."""
_ACCELERATION_NOISE, _ROTATION_NOISE = 0.03, 0.003
"""Standard deviation of a phone's sensors at that rate, m/s2 and rad/s."""
_AT_ONCE = 20
"""Scenes for each task of a process, so that starting the renderer does not count."""


class _Settings(BaseModel):
    """`simulated.toml`: how many scenes, which ones, and in how many processes they are rendered."""

    model_config = ConfigDict(extra="forbid")

    scenes: Annotated[int, Field(ge=1)] = 3000
    seed: Annotated[int, Field(ge=0)] = 0
    processes: Annotated[int, Field(ge=1)] = 1


def splits(download: Download) -> Iterator[Split]:
    """train, validation and test (of 20 scenes 16, 1 and 3), by scene. Scenes that were rendered before are kept."""
    try:
        settings = _Settings.model_validate(tomllib.loads((download.path / _SETTINGS).read_text()))
    except FileNotFoundError:
        download.lacks("settings", _SETTINGS)
        return
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as error:
        raise BuildError(f"{download.path / _SETTINGS}: {error}") from None
    folder = download.made / f"seed{settings.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    _render_all(folder, settings)
    for name, places in (("train", range(16)), ("validation", (16,)), ("test", (17, 18, 19))):
        numbers = [number for number in range(settings.scenes) if number % 20 in places]
        events = (json.loads((folder / f"{number:05d}.json").read_text()) for number in numbers)
        about = f"Seed {settings.seed}, {settings.scenes} scenes."
        yield Split(name, events, sorted(GAITS), ("seen while {}", "{}"), about, base=folder)


def _render_all(folder: Path, settings: _Settings) -> None:
    missing = [number for number in range(settings.scenes) if not (folder / f"{number:05d}.json").is_file()]
    parts = [missing[start : start + _AT_ONCE] for start in range(0, len(missing), _AT_ONCE)]
    work = partial(render, folder, settings.seed)
    with tqdm(total=len(missing), desc="rendering scenes", unit="scene", delay=2, disable=None) as bar:
        if settings.processes == 1:
            for numbers in parts:
                work(numbers)
                bar.update(len(numbers))
            return
        with ProcessPoolExecutor(settings.processes, multiprocessing.get_context("spawn")) as pool:
            for numbers, _ in zip(parts, pool.map(work, parts), strict=True):
                bar.update(len(numbers))


def render(folder: Path, seed: int, numbers: list[int]) -> None:
    """Scenes -> `NUMBER.jpg`, `.depth.png`, `.thermal.png`, `.mp4`, `.imu.npy`, and last `.json`, a manifest's line."""
    with Stage() as stage:
        for number in numbers:
            scene = draw(seed, number)
            stage.set(scene)
            rng = np.random.default_rng([seed, number, 1])  # noise of the sensors
            name = f"{number:05d}"
            shot = stage.shoot(MIDDLE_S, *_PICTURE)
            photograph(scene, shot, MIDDLE_S, rng).save(folder / f"{name}.jpg", quality=88)
            depth, focal_px, baseline_m = depth_map(scene, shot, rng)
            depth.save(folder / f"{name}.depth.png")
            thermal(scene, shot, _THERMAL, rng).save(folder / f"{name}.thermal.png")
            times_s = (np.arange(_FRAMES) + 0.5) * DURATION_S / _FRAMES
            frames = [photograph(scene, stage.shoot(t, *_VIDEO, shadows=False), t, rng) for t in times_s]
            _write_video(folder / f"{name}.mp4", frames)
            np.save(
                folder / f"{name}.imu.npy", _imu(measured(scene.motion, np.arange(0, DURATION_S, 1 / _IMU_HZ)), rng)
            )
            entry: Entry = {
                "id": f"{seed}-{name}",
                "image": {"path": f"{name}.jpg"},
                "depth": {
                    "path": f"{name}.depth.png",
                    "unit": "mm",
                    "focal_px": round(focal_px, 2),
                    "baseline_m": round(baseline_m, 4),
                },
                "thermal": {"path": f"{name}.thermal.png"},
                "video": {"path": f"{name}.mp4"},
                "imu": {"path": f"{name}.imu.npy", "rate_hz": _IMU_HZ},
                "text": scene.caption(prominent(scene, shot)),
                "labels": [scene.gait],
            }
            aside = folder / f".{name}.json"
            aside.write_text(json.dumps(entry))
            os.replace(aside, folder / f"{name}.json")


def _imu(ideal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(T, 6) true motion -> (T, 6) float16 with a sensor's noise, which is above the steps of float16 (0.008 m/s2)."""
    scale = np.repeat([_ACCELERATION_NOISE, _ROTATION_NOISE], 3)
    values: np.ndarray = ideal + rng.normal(0, 1, 6) * scale + rng.normal(0, 1, ideal.shape) * scale
    return values.astype(np.float16)


def _write_video(path: Path, frames: list[Image.Image]) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        rate = Fraction(_FRAMES, round(DURATION_S))
        # Its assembler code makes different files of the same frames, even in one process.
        options = {"crf": "33", "preset": "veryfast", "x264-params": "asm=0:threads=1"}
        stream = container.add_stream("libx264", rate, options)
        stream.width, stream.height = _VIDEO
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(frame), format="rgb24")))
        container.mux(stream.encode(None))


BUILDER = Builder(
    title="Simulated scenes (PyBullet's renderer; temperatures and motion are models, not measurements).",
    license="CC0-1.0",
    obtain=f"write {_SETTINGS} with lines like `scenes = 3000`, `seed = 0`, `processes = 4`, and install the package "
    "pybullet (pip install 'crossbind[data]')",
    layout=f"a folder with {_SETTINGS}",
    splits=splits,
)
