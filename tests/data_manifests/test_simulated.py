"""Simulated scenes: what is rendered agrees with what was drawn, and comes out the same every time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bind import modalities
from data_manifests import BuildError, build
from data_manifests.datasets import simulated
from data_manifests.simulation.motion import GRAVITY, MIDDLE_S, measured, rotation
from data_manifests.simulation.render import Stage, depth_map, photograph, prominent, thermal
from data_manifests.simulation.scenes import Scene, draw
from data_manifests.simulation.surroundings import Part
from data_manifests.simulation.tables import GAITS, PLACES
from preprocess import manifest
from preprocess.readers import depth, imu
from preprocess.source import Limits

SEEN = (160, 120)


def one_of_each_gait() -> dict[str, Scene]:
    found: dict[str, Scene] = {}
    for number in range(1000):
        scene = draw(7, number)
        found.setdefault(scene.gait, scene)
        if len(found) == len(GAITS):
            return found
    raise AssertionError(f"missing {set(GAITS) - set(found)}")


@pytest.fixture(scope="module")
def scenes() -> dict[str, Scene]:
    return one_of_each_gait()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of 20 scenes: the folder with the manifests."""
    root = tmp_path_factory.mktemp("simulated")
    settings(root, "scenes = 20\nseed = 3\n")
    build("simulated", root, root / "sim")
    return root


def settings(root: Path, text: str) -> None:
    (root / "simulated.toml").write_text(text)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def numeric(scene: Scene, at_s: float, gravity: float = GRAVITY) -> np.ndarray:
    """What an IMU measures, from differences of poses."""
    step = 2e-5

    def pose(time_s: float) -> tuple[np.ndarray, np.ndarray]:
        values = scene.motion.at(np.array([time_s]))
        return values[0, :3], rotation(values[:, 3:])[0]

    (before, turned_before), (now, turned), (after, turned_after) = (pose(at_s + d) for d in (-step, 0.0, step))
    force = turned.T @ ((after - 2 * now + before) / step**2 + [0, 0, gravity])
    spin = turned.T @ (turned_after - turned_before) / (2 * step)
    return np.array([*force, spin[2, 1], spin[0, 2], spin[1, 0]])


@pytest.mark.parametrize("gait", sorted(GAITS))
def test_imu_is_the_motion_of_the_camera(gait: str, scenes: dict[str, Scene]) -> None:
    scene = scenes[gait]
    for at_s in (0.4, 1.7, 4.1):
        found = measured(scene.motion, np.array([at_s]))[0]
        np.testing.assert_allclose(found, numeric(scene, at_s), atol=0.02)
        # Negative control: without gravity it would not fit.
        assert np.abs(found - numeric(scene, at_s, gravity=0.0)).max() > 5


def test_gaits_differ_in_what_the_imu_measures(scenes: dict[str, Scene]) -> None:
    times_s = np.arange(0, 5, 1 / 400)
    shaken = {gait: measured(scene.motion, times_s)[:, 2].std() for gait, scene in scenes.items()}
    assert shaken["standing"] < 0.2 < shaken["walking"] < shaken["running"]
    upward = [measured(scene.motion, times_s)[:, 2].mean() for scene in scenes.values()]
    np.testing.assert_allclose(upward, GRAVITY, rtol=0.1)


def a_wall(celsius: float = 35.0) -> Scene:
    """A warm red box 4 m ahead of a body that stands still on a cold ground."""
    scene = draw(0, 0)
    still = replace(
        scene.motion,
        amplitude=0 * scene.motion.amplitude,
        start=np.array([0, 0, 1.5, 0, 0, 0.0]),
        speed=np.zeros(6),
    )
    ground = Part("box", (100, 100, 0.1), (0, 0, -0.05), 0, (0.2, 0.5, 0.2), 5.0, grain=0.0)
    box = Part("box", (1, 2, 4), (4.5, 0, 1), 0, (0.8, 0.1, 0.1), celsius, thing=0, grain=0.0)
    small = Part("ball", (0.6, 0.6, 0.6), (2.5, 1.1, 1.3), 0, (0.1, 0.1, 0.8), 5.0, thing=1, grain=0.0)
    names = ("a red box", "a blue ball")
    return replace(
        scene, parts=(ground, box, small), names=names, place="meadow", gait="standing", motion=still, down=0.0,
        field_of_view=1.2, focal_baseline=60.0, air_c=5.0, sky_c=-20.0, exposure_s=0.01, brightness=1.0,
    )  # fmt: skip


def test_depth_is_the_distance_and_reads_back(tmp_path: Path) -> None:
    scene, rng = a_wall(), np.random.default_rng(0)
    with Stage() as stage:
        stage.set(scene)
        shot = stage.shoot(MIDDLE_S, *SEEN)
    middle = shot.depth_m[60, 80]
    assert middle == pytest.approx(4.0, abs=0.02)
    picture, focal_px, baseline_m = depth_map(scene, shot, rng)
    assert focal_px * baseline_m == pytest.approx(scene.focal_baseline)
    picture.save(tmp_path / "x.png")
    event = {"id": "1", "depth": {"path": "x.png", "unit": "mm", "focal_px": focal_px, "baseline_m": baseline_m}}
    manifest.write(tmp_path / "m.jsonl", {"name": "m", "license": "CC0-1.0"}, [event])
    source = manifest.read(tmp_path / "m.jsonl").events[0].media["depth"]
    metres, _ = depth.read_depth_m(source, Limits())
    assert np.median(metres[50:70, 70:90]) == pytest.approx(4.0, rel=0.03)
    values = np.asarray(picture)
    assert (values == 0).any(), "a stereo camera has holes beside near edges"
    np.testing.assert_allclose(shot.point[60, 80], [4.0, 0, 1.5], atol=0.05)


def test_thermal_shows_warmth_and_not_colour() -> None:
    brightness = {}
    for celsius in (35.0, -15.0):
        scene, rng = a_wall(celsius), np.random.default_rng(0)
        with Stage() as stage:
            stage.set(scene)
            shot = stage.shoot(MIDDLE_S, *SEEN)
        seen = np.asarray(thermal(scene, shot, SEEN, rng)).astype(float)
        brightness[celsius] = seen[40:60, 70:90].mean() - seen[110:, :].mean()
        if celsius == 35.0:
            first = np.asarray(photograph(scene, shot, MIDDLE_S, np.random.default_rng(0))).astype(float)
    assert brightness[35.0] > 50 and brightness[-15.0] < -20
    red, green, _ = first[50, 80]
    assert red > 2 * green


def test_captions_name_what_is_large_in_view() -> None:
    scene = a_wall()
    with Stage() as stage:
        stage.set(scene)
        seen = prominent(scene, stage.shoot(MIDDLE_S, *SEEN))
    assert seen == [0, 1]
    assert scene.caption(seen) == "a red box and a blue ball on grass, seen while standing"
    assert scene.caption([]) == "on grass, seen while standing"


def test_scenes_vary() -> None:
    drawn = [draw(1, number) for number in range(200)]
    assert {scene.gait for scene in drawn} == set(GAITS)
    assert len({scene.place for scene in drawn}) >= len(PLACES) - 1
    assert len({name for scene in drawn for name in scene.names}) > 150


def test_all_readers_take_what_is_written(built: Path) -> None:
    found = {name: manifest.read(built / f"sim-{name}.jsonl") for name in ("train", "validation", "test")}
    assert {name: len(one.events) for name, one in found.items()} == {"train": 16, "validation": 1, "test": 3}
    assert len({event.id for one in found.values() for event in one.events}) == 20
    for event in found["test"].events:
        assert set(event.media) == {"image", "depth", "thermal", "video", "imu", "text"}
        assert event.labels[0] in event.texts[0]
        for name, source in event.media.items():
            spec = modalities.spec(name)
            (segment,) = spec.read(source, spec.config(), Limits(), "whole")
            assert len(segment.views)
    series = imu.read_imu(found["test"].events[0].media["imu"], Limits())
    assert len(series.values) == 2000
    assert series.duration_s == pytest.approx(5.0)


def test_rendering_again_gives_the_same_bytes_and_only_what_is_missing(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = built / "sim-files" / "seed3"
    before = contents(folder)
    for name in ("00004.json", "00004.jpg", "00017.json"):
        (folder / name).unlink()
    rendered: list[int] = []
    whole: Callable[[Path, int, list[int]], None] = simulated.render

    def counted(folder: Path, seed: int, numbers: list[int]) -> None:
        rendered.extend(numbers)
        whole(folder, seed, numbers)

    monkeypatch.setattr(simulated, "render", counted)
    build("simulated", built, built / "sim")
    assert rendered == [4, 17]
    assert contents(folder) == before
    monkeypatch.undo()
    settings(tmp_path, "scenes = 3\nseed = 3\nprocesses = 2\n")
    build("simulated", tmp_path, tmp_path / "sim")
    again = contents(tmp_path / "sim-files" / "seed3")
    assert again == {name: before[name] for name in again} and len(again) == 18
    settings(tmp_path, "scenes = 1\nseed = 4\n")
    build("simulated", tmp_path, tmp_path / "other")
    assert contents(tmp_path / "other-files" / "seed4")["00000.jpg"] != before["00000.jpg"]


@pytest.mark.parametrize("text", ["scenes = 0\n", "scene = 5\n", "scenes = many\n"])
def test_wrong_settings_are_named(text: str, tmp_path: Path) -> None:
    settings(tmp_path, text)
    with pytest.raises(BuildError, match=r"simulated\.toml"):
        build("simulated", tmp_path, tmp_path / "sim")


def test_says_that_pybullet_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pybullet", None)
    settings(tmp_path, "scenes = 1\n")
    with pytest.raises(BuildError, match=r"pip install 'crossbind\[data\]'"):
        build("simulated", tmp_path, tmp_path / "sim")


def test_every_thing_and_vehicle_can_be_rendered() -> None:
    """Each form of part shows up, outside in: no mesh is turned inside out."""
    with Stage() as stage:
        for form in ("box", "ball", "tube", "log", "bar", "cone", "roof", "ring", "hoop", "collar"):
            scene = a_wall()
            part = Part(form, (1, 1, 1), (3, 0, 1.5), 0, (0.9, 0.9, 0.9), 20, thing=0, grain=0.0)
            scene = replace(scene, parts=(scene.parts[0], part), names=("it",), sun=(-0.9, 0, 0.4))
            stage.set(scene)
            shot = stage.shoot(MIDDLE_S, *SEEN)
            covered = shot.part == 1
            assert 0.01 < covered.mean() < 0.4, form
            assert shot.depth_m[covered].min() == pytest.approx(2.5, abs=0.35), form
            assert shot.lit[covered].mean() > 0.5, form  # the sun is behind the camera
