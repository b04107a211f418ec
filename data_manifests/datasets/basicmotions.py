"""BasicMotions: 80 smartwatch recordings of 10 s of four activities, from the UEA archive (Bagnall et al., 2018)."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator

import numpy as np

from data_manifests import Builder, BuildError, Download, Entry, Split
from data_manifests.shared.imu import write_csv

_FOLDERS = ("", "BasicMotions/", "aeon/datasets/data/BasicMotions/")
"""Where the data lie: in an unpacked archive of UEA & UCR, in a folder of that name, in the package aeon."""
_RATE_HZ = 10.0  # the file: "sampled once every tenth of a second, for a ten second period"
_TEXTS = {
    "Standing": "a person standing still",
    "Running": "a person running",
    "Walking": "a person walking",
    "Badminton": "a person playing badminton",
}
"""Label -> sentence."""


def splits(download: Download) -> Iterator[Split]:
    """train and test (40 and 40) as published; the recordings are written as CSV."""
    for split in ("train", "test"):
        name = f"BasicMotions_{split.upper()}.ts"
        text = _read(download, name)
        if text is None:
            download.lacks("data", name)
            continue
        yield Split(
            split,
            _events(download, split, text, name),
            [label.lower() for label in _TEXTS],
            ("{}", "a person {}", "the motion of a wrist during {}"),
            "Units are not stated with the data; its sizes fit m/s2 (without gravity) and rad/s.",
            base=download.made,
        )


def _read(download: Download, name: str) -> str | None:
    """The file from the folder or, where the download is a wheel, from within it."""
    if download.path.is_file():
        if not zipfile.is_zipfile(download.path):
            return None
        with zipfile.ZipFile(download.path) as archive:
            found = [folder + name for folder in _FOLDERS if folder + name in archive.namelist()]
            return archive.read(found[0]).decode() if found else None
    places = [download.path / (folder + name) for folder in _FOLDERS]
    return next((place.read_text(encoding="utf-8") for place in places if place.is_file()), None)


def _events(download: Download, split: str, text: str, name: str) -> Iterator[Entry]:
    """A line of the .ts format is a recording: channels separated by colons, samples by commas, the label last."""
    lines = [line for line in text.splitlines() if line.strip() and line[0] not in "#@"]
    for number, line in enumerate(lines):
        *channels, label = line.strip().split(":")
        try:
            values = np.array([[float(value) for value in channel.split(",")] for channel in channels]).T
        except ValueError as error:
            raise BuildError(f"{name}: recording {number} is not in the .ts format: {error}") from None
        if values.ndim != 2 or values.shape[1] != 6 or label not in _TEXTS:
            raise BuildError(f"{name}: expected 6 channels and one of {list(_TEXTS)}, got {values.shape}, {label!r}")
        place = f"{split}-{number:02d}.csv"
        write_csv(download.made / place, values, _RATE_HZ, units=("m/s2", "rad/s"))
        yield {
            "id": f"{split}-{number:02d}",
            "imu": {"path": place},
            "text": _TEXTS[label],
            "labels": [label.lower()],
        }


BUILDER = Builder(
    title="BasicMotions.",
    license="not stated with the data; the package aeon, which contains it, is BSD-3-Clause",
    obtain="the Python package aeon 1.6 (its wheel as it is, or installed), or the UEA & UCR time series archive",
    layout="the wheel, or a folder with BasicMotions_TRAIN.ts and BasicMotions_TEST.ts (or site-packages above them)",
    splits=splits,
)
