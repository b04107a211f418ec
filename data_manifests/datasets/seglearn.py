"""The smartwatch recordings of seglearn: seven shoulder exercises, ten people (Burns et al., 2018)."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_manifests import Builder, BuildError, Download, Entry, Split, is_filled
from data_manifests.shared.imu import write_csv

_PLACES = ("watch_dataset.npy", "data/watch_dataset.npy", "seglearn/data/watch_dataset.npy")
"""Where the array lies: alone, in the source of the package, or in the installed package."""
_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"  # in seglearn 1.2.5
_RATE_HZ = 50.0
"""The rate of the watch in Hz, which the array does not state."""
_COLUMNS = ["ax", "ay", "az", "wx", "wy", "wz"]  # in g and rad/s: README of dmbee/SPAR-dataset, its longer version
_EXERCISES = {  # the same README
    "PEN": "pendulum exercises for the shoulder",
    "ABD": "shoulder abductions",
    "FEL": "forward elevations of the arm",
    "IR": "internal shoulder rotations with a resistance band",
    "ER": "external shoulder rotations with a resistance band",
    "TRAP": "lower trapezius rows with a resistance band",
    "ROW": "bent over rows with a dumbbell",
}


def splits(download: Download) -> Iterator[Split]:
    """One manifest; the recordings are written as CSV, the person is the group. There is no official split."""
    place = next((name for name in _PLACES if is_filled(download.path / name)), None)
    if place is None:
        download.lacks("data", " or ".join(_PLACES))
        return
    yield Split(
        "",
        _events(download.path / place, download.made),
        list(_EXERCISES.values()),
        ("{}", "a person doing {}", "the motion of a wrist during {}"),
        base=download.made,
    )


@dataclass(frozen=True)
class Recording:
    """One exercise of one person: `series` (T, 6) in g and rad/s at 50 Hz."""

    series: np.ndarray
    exercise: str
    subject: int
    side: str

    def write(self, path: Path) -> None:
        """As CSV with times and units."""
        write_csv(path, self.series, _RATE_HZ, ("g", "rad/s"))


def recordings(path: Path) -> Iterator[Recording]:
    """The package's `watch_dataset.npy` -> its 140 recordings. Raises BuildError for any other file."""
    content = path.read_bytes()
    # The file is a pickle, which can run code: only the one that was looked at is opened.
    if (found := hashlib.sha256(content).hexdigest()) != _SHA256:
        raise BuildError(
            f"{path}: expected the file of seglearn 1.2.5 (sha256 {_SHA256}), got {found}; it is not opened"
        )
    data = np.load(io.BytesIO(content), allow_pickle=True).item()
    if list(data["X_labels"]) != _COLUMNS:
        raise BuildError(f"{path}: expected the columns {_COLUMNS}, got {list(data['X_labels'])}")
    for series, kind, subject, side in zip(data["X"], data["y"], data["subject"], data["side"], strict=True):
        exercise = _EXERCISES[data["y_labels"][int(kind)]]
        yield Recording(series, exercise, int(subject), "right" if side else "left")


def _events(path: Path, made: Path) -> Iterator[Entry]:
    for number, recording in enumerate(recordings(path)):
        name = f"{number:03d}.csv"
        recording.write(made / name)
        yield {
            "id": f"{number:03d}-subject{recording.subject}-{recording.side}",
            "imu": {"path": name},
            "text": f"a person doing {recording.exercise}",
            "labels": [recording.exercise],
            "group": f"subject{recording.subject}",
        }


BUILDER = Builder(
    title="Shoulder exercises with a smartwatch (seglearn).",
    license="BSD-3-Clause (package seglearn)",
    obtain="the Python package seglearn 1.2.5, installed or unpacked",
    layout="the folder with watch_dataset.npy, or the folder seglearn or site-packages above it",
    splits=splits,
)
