"""WISDM smartphone and smartwatch: 51 people, 18 activities of three minutes (Weiss, 2019)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_manifests import Builder, Download, Entry, Split
from data_manifests.shared.imu import write_npy

_ACTIVITIES = {
    "A": "walking",
    "B": "jogging",
    "C": "climbing stairs",
    "D": "sitting",
    "E": "standing",
    "F": "typing",
    "G": "brushing teeth",
    "H": "eating soup",
    "I": "eating chips",
    "J": "eating pasta",
    "K": "drinking from a cup",
    "L": "eating a sandwich",
    "M": "kicking a soccer ball",
    "O": "playing catch with a tennis ball",
    "P": "dribbling a basketball",
    "Q": "writing",
    "R": "clapping",
    "S": "folding clothes",
}
"""Code in the tables -> the words that stand in a sentence (activity_key.txt of the data set)."""
_FOLDERS = ("raw/watch", "wisdm-dataset/raw/watch")
"""Where the tables of the watch lie: below the unpacked archive's folder, or beside it."""
_PERSON = re.compile(r"data_(\d+)_accel_watch")
"""`data_1600_accel_watch`: the number of a person."""
_LINE = re.compile(r"\s*(\d+)\s*,\s*([A-S])\s*,\s*(\d+)\s*,\s*([^,;]+),\s*([^,;]+),\s*([^,;]+?)\s*;?\s*")
"""A line of a table: person, activity, nanoseconds, x, y, z and a semicolon."""
_RATE_HZ = 20.0
"""The rate of the watch (description of the data set)."""
_PIECE_S = 10.0
"""Seconds of a piece of motion, the window of the WISDM group's own work."""
_TESTED = 4
"""People whose number divides by this are for the test; the data set has no official splits."""


def splits(download: Download) -> Iterator[Split]:
    """train and test by person (the group): test are those whose number divides by 4. Watch only, in pieces of 10 s.

    Both sensors are brought to one clock of 20 Hz and written as .npy, one file a person and activity.
    """
    folder = next((name for name in _FOLDERS if (download.path / name / "accel").is_dir()), None)
    if folder is None:
        download.lacks("folder", f"{_FOLDERS[0]}/accel")
        return
    people = sorted(
        int(named[1])
        for path in (download.path / folder / "accel").glob("*.txt")
        if (named := _PERSON.fullmatch(path.stem))
    )
    for split, tested in (("train", False), ("test", True)):
        chosen = [person for person in people if (person % _TESTED == 0) is tested]
        events = _events(download, folder, chosen)
        yield Split(split, events, list(_ACTIVITIES.values()), ("a person {}", "{}"), base=download.made)


def _events(download: Download, folder: str, people: list[int]) -> Iterator[Entry]:
    for person in people:
        paths = [f"{folder}/{sensor}/data_{person}_{sensor}_watch.txt" for sensor in ("accel", "gyro")]
        if not all([download.has(path, "recording") for path in paths]):
            continue
        accelerations, rotations = (_read(download, path) for path in paths)
        for code, label in _ACTIVITIES.items():
            name = f"{person}-{code}"
            if code not in accelerations or code not in rotations:
                download.lacks("activity", name)
                continue
            values = _joined(accelerations[code], rotations[code])
            pieces = int(len(values) / _RATE_HZ / _PIECE_S)
            if not pieces:
                download.lacks(f"{_PIECE_S:g} s of both sensors at once", name)
                continue
            write_npy(download.made / f"{name}.npy", values)
            for piece in range(pieces):
                yield {
                    "id": f"{name}-{piece}",
                    "imu": {
                        "path": f"{name}.npy",
                        "start_s": piece * _PIECE_S,
                        "end_s": (piece + 1) * _PIECE_S,
                        "rate_hz": _RATE_HZ,
                        "acceleration_unit": "m/s2",
                        "rotation_unit": "rad/s",
                    },
                    "text": [f"a person {label}", label],
                    "labels": [label],
                    "group": str(person),
                }


def _read(download: Download, relative: str) -> dict[str, np.ndarray]:
    """A recording -> (T, 4) of seconds and three axes, by activity. Lines that are cut off are noted."""
    found: dict[str, list[list[float]]] = {}
    for number, line in enumerate(Path(download.path / relative).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            _, code, time_ns, *axes = _LINE.fullmatch(line).groups()  # type: ignore[union-attr]
            found.setdefault(code, []).append([int(time_ns) * 1e-9, *map(float, axes)])
        except (AttributeError, ValueError):
            download.lacks(f"complete line in {relative}", f"line {number}")
    return {code: np.array(rows) for code, rows in found.items()}


def _joined(acceleration: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Two recordings (T, 4) -> (T, 6) at 20 Hz of the time in which both ran, empty where they never did."""
    both = [recording[np.unique(recording[:, 0], return_index=True)[1]] for recording in (acceleration, rotation)]
    begin, end = max(one[0, 0] for one in both), min(one[-1, 0] for one in both)
    # Rounding of times near 1e15 ns must not cost the last sample.
    times = begin + np.arange(max(0, int((end - begin) * _RATE_HZ + 1.01))) / _RATE_HZ
    return np.column_stack([np.interp(times, one[:, 0], one[:, axis]) for one in both for axis in (1, 2, 3)])


BUILDER = Builder(
    title="WISDM smartphone and smartwatch activity; the watch.",
    license="CC BY 4.0",
    obtain="UCI Machine Learning Repository, data set 507: wisdm-dataset.zip",
    layout="raw/watch/{accel,gyro}/data_PERSON_{accel,gyro}_watch.txt",
    splits=splits,
)
