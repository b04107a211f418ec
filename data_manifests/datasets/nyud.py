"""NYU Depth v2: 1,449 labelled indoor pictures with depth from a Kinect v1 (Silberman et al., 2012)."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_manifests import Builder, Download, Entry, Split
from data_manifests.shared.templates import CLIP_IMAGENET
from preprocess.extras import needs

_DATA, _SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"
"""The labelled part (MATLAB 7.3, which is HDF5) and the official train and test numbers."""
_FOCAL_PX, _BASELINE_M = 518.857901, 0.075  # Kinect v1, as in ImageBind issue 107
# The nine commonest scene types and the rest, as one class whose score is that of the best of its names: ImageBind,
# app. B, after Gupta et al., 2013.
_SCENES = (
    "bedroom", "kitchen", "living_room", "bathroom", "dining_room", "office", "home_office", "classroom", "bookstore",
)  # fmt: skip
_OTHER_SCENES = (
    "basement", "cafe", "computer_lab", "conference_room", "dinette", "exercise_room", "foyer", "furniture_store",
    "home_storage", "indoor_balcony", "laundry_room", "office_kitchen", "playroom", "printer_room",
    "reception_room", "student_lounge", "study", "study_room",
)  # fmt: skip
_OTHER = " | ".join(name.replace("_", " ") for name in _OTHER_SCENES)
_CLASSES = (*(name.replace("_", " ") for name in _SCENES), _OTHER)


def splits(download: Download) -> Iterator[Split]:
    """train and test (795 and 654): frames are taken out of the .mat and written as PNG, depth in millimetres.

    Needs the package h5py: the .mat is HDF5.
    """
    if not (download.has(_DATA, "data") and download.has(_SPLITS, "annotation")):
        return
    with needs("data", f"{_DATA}, an HDF5 file,"):
        h5py: Any = importlib.import_module("h5py")  # has no types; only this builder needs it
    from scipy.io import loadmat  # slow to import

    chosen = loadmat(str(download.path / _SPLITS))
    made = download.made
    made.mkdir(exist_ok=True)
    with h5py.File(download.path / _DATA, "r") as data:
        for split in ("train", "test"):
            numbers = [int(number) for number in chosen[f"{split}Ndxs"].reshape(-1)]
            yield Split(split, _events(data, numbers, made, download), _CLASSES, CLIP_IMAGENET, base=made)


def _events(data: Any, numbers: Sequence[int], made: Path, download: Download) -> Iterator[Entry]:
    count = len(data["images"])
    for number in numbers:
        if not 1 <= number <= count:
            download.lacks("frame", str(number))
            continue
        # MATLAB's arrays appear transposed in HDF5: images (N, 3, W, H) 0..255, depths (N, W, H) in metres, in-filled.
        Image.fromarray(np.transpose(data["images"][number - 1], (2, 1, 0))).save(made / f"{number:04d}.png")
        depth_mm = np.round(data["depths"][number - 1].T.astype(np.float64) * 1000).clip(0, 65535).astype(np.uint16)
        Image.fromarray(depth_mm).save(made / f"{number:04d}.depth.png")
        kind = _text(data, "sceneTypes", number).replace("excercise", "exercise")
        yield {
            "id": f"{number:04d}",
            "image": {"path": f"{number:04d}.png"},
            "depth": {
                "path": f"{number:04d}.depth.png",
                "unit": "mm",
                "focal_px": _FOCAL_PX,
                "baseline_m": _BASELINE_M,
            },
            "labels": [kind.replace("_", " ") if kind in _SCENES else _OTHER],
            "group": _text(data, "scenes", number),
        }


def _text(data: Any, name: str, number: int) -> str:
    """Reads one cell of a cell array of texts; the cell is a reference to UTF-16 code units."""
    return "".join(map(chr, np.asarray(data[np.asarray(data[name]).reshape(-1)[number - 1]]).reshape(-1)))


BUILDER = Builder(
    title="NYU Depth v2, labelled part.",
    license="not stated on its page; for research, with citation",
    obtain="the page 'NYU Depth Dataset V2' of Nathan Silberman, New York University: the labelled dataset (2.8 GB) "
    "and the train/test splits",
    layout=f"{_DATA} and {_SPLITS}",
    splits=splits,
)
