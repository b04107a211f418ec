"""UTD-MHAD: 861 takes of 27 actions by eight people, motion, depth and film (Chen et al., 2015)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from PIL import Image
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from data_manifests import Builder, Download, Entry, Split
from data_manifests.shared.imu import write_npy

_ACTIONS = (
    "right arm swipe to the left",
    "right arm swipe to the right",
    "right hand wave",
    "two hand front clap",
    "right arm throw",
    "crossing arms in front of the chest",
    "basketball shot",
    "drawing an x with the right hand",
    "drawing a circle clockwise with the right hand",
    "drawing a circle counter clockwise with the right hand",
    "drawing a triangle with the right hand",
    "bowling with the right hand",
    "front boxing",
    "baseball swing",
    "tennis forehand swing",
    "arm curl with two arms",
    "tennis serve",
    "two hand push",
    "knocking on a door with the right hand",
    "catching an object with the right hand",
    "picking up and throwing with the right hand",
    "jogging in place",
    "walking in place",
    "standing up from sitting",
    "sitting down from standing",
    "forward lunge with the left foot",
    "squat with stretched arms",
)
"""The names of actions 1 to 27 in that order, from the page of the data set."""
_TAKE = re.compile(r"a(\d+)_s(\d+)_t(\d+)_inertial")
"""`a1_s1_t1_inertial`: action, person, take."""
_RATE_HZ = 50.0
"""The rate of the wearable sensor (page of the data set)."""
_FOCAL_PX, _BASELINE_M = 571.0, 0.075  # of a Kinect, for a picture 640 pixels wide


def splits(download: Download) -> Iterator[Split]:
    """train (people 1, 3, 5, 7) and test (2, 4, 6, 8), as the authors split them; the person is the group.

    Motion (wrist; thigh in actions 22 to 27) is written as .npy, of the depth film the middle frame as PNG.
    """
    takes = sorted(
        (int(named[1]), int(named[2]), int(named[3]))
        for path in download.path.glob("Inertial/*.mat")
        if (named := _TAKE.fullmatch(path.stem))
    )
    if not takes:
        download.lacks("motion", "Inertial/a1_s1_t1_inertial.mat")
    for split, odd in (("train", True), ("test", False)):
        chosen = [take for take in takes if (take[1] % 2 == 1) is odd]
        events = _events(download, chosen)
        yield Split(split, events, _ACTIONS, ("a person doing {}", "{}"), base=download.made)


def _events(download: Download, takes: list[tuple[int, int, int]]) -> Iterator[Entry]:
    for action, person, number in takes:
        name = f"a{action}_s{person}_t{number}"
        motion = _variable(download, f"Inertial/{name}_inertial.mat", "d_iner", "motion")
        film = _variable(download, f"Depth/{name}_depth.mat", "d_depth", "depth")
        if motion is None or film is None:
            continue
        write_npy(download.made / f"{name}.npy", motion)
        frame = film[:, :, film.shape[2] // 2].astype(np.uint16)
        Image.fromarray(frame).save(download.made / f"{name}.png")
        label = _ACTIONS[action - 1]
        yield {
            "id": name,
            "imu": {
                "path": f"{name}.npy",
                "rate_hz": _RATE_HZ,
                "acceleration_unit": "g",
                "rotation_unit": "deg/s",
            },
            "depth": {"path": f"{name}.png", "unit": "mm", "focal_px": _FOCAL_PX, "baseline_m": _BASELINE_M},
            "text": [f"a person doing {label}", label],
            "labels": [label],
            "group": f"s{person}",
        }


def _variable(download: Download, relative: str, variable: str, what: str) -> np.ndarray | None:
    """A variable of a MATLAB file, or None, noted."""
    if not download.has(relative, what):
        return None
    try:
        values: np.ndarray = loadmat(download.path / relative, variable_names=[variable])[variable]
    except (KeyError, MatReadError, OSError, TypeError, ValueError):
        download.lacks(f"readable {what}", relative)
        return None
    return values


BUILDER = Builder(
    title="UTD-MHAD; motion at the right wrist (actions 22 to 27: right thigh) and the middle depth frame.",
    license="not stated; University of Texas at Dallas, for research",
    obtain="the UTD-MHAD page of the University of Texas at Dallas: Inertial.zip and Depth.zip",
    layout="Inertial/aN_sN_tN_inertial.mat and Depth/aN_sN_tN_depth.mat",
    splits=splits,
)
