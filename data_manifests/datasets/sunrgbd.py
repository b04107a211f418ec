"""SUN RGB-D: 10,335 indoor pictures with depth from four kinds of sensors (Song et al., 2015)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np

from data_manifests import Builder, BuildError, Download, Entry, Split, is_filled
from data_manifests.shared.templates import CLIP_IMAGENET

# The scenes with more than 80 pictures (Song et al., 2015, section 5), the classes of ImageBind's SUN-D.
_SCENES = (
    "bathroom", "bedroom", "classroom", "computer_room", "conference_room", "corridor", "dining_area",
    "dining_room", "discussion_area", "furniture_store", "home_office", "kitchen", "lab", "lecture_theatre",
    "library", "living_room", "office", "rest_space", "study_space",
)  # fmt: skip
# Metres; guesses of ImageBind's co-author in facebookresearch/omnivore issue 12.
_BASELINES_M = {"kv1": 0.075, "kv2": 0.075, "realsense": 0.095, "xtion": 0.095}
_SPLIT_FILE = "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"


def splits(download: Download) -> Iterator[Split]:
    """train and test (5,285 and 5,050). Depth is the in-filled one where there is one, as ImageBind takes it."""
    if not download.has(_SPLIT_FILE, "annotation"):
        return
    from scipy.io import loadmat  # slow to import

    table = loadmat(str(download.path / _SPLIT_FILE), squeeze_me=True)
    for split in ("train", "test"):
        if f"all{split}" not in table:
            raise BuildError(f"{download.path / _SPLIT_FILE}: expected alltrain and alltest, all{split} is not there")
        places = [_place(str(path)) for path in np.atleast_1d(table[f"all{split}"])]
        yield Split(
            split,
            (event for place in places if (event := _event(download, place))),
            [_words(scene) for scene in _SCENES],
            CLIP_IMAGENET,
            "Pictures of scenes outside the 19 classes have no label.",
        )


def _place(path: str) -> PurePosixPath:
    """A folder of the authors' machine (/n/fs/sun3d/data/SUNRGBD/kv2/...) -> SUNRGBD/kv2/..."""
    parts = PurePosixPath(path).parts
    return PurePosixPath(*parts[parts.index("SUNRGBD") :]) if "SUNRGBD" in parts else PurePosixPath("SUNRGBD", path)


def _event(download: Download, place: PurePosixPath) -> Entry | None:
    identity = place.relative_to("SUNRGBD").as_posix()
    image = _only_file(download, place / "image", (".jpg", ".png"))
    depth = _only_file(download, place / "depth_bfx", (".png",)) or _only_file(download, place / "depth", (".png",))
    if not image or not depth:
        download.lacks("image" if not image else "depth", identity)
        return None
    event: Entry = {"id": identity, "image": {"path": image}, "depth": {"path": depth, "unit": "sunrgbd"}}
    focal_px = _focal_px(download, place)
    if focal_px is None:
        download.lacks("intrinsics", identity)
    else:
        event["depth"]["focal_px"] = focal_px
    if baseline_m := _BASELINES_M.get(identity.split("/")[0]):
        event["depth"]["baseline_m"] = baseline_m
    scene_file = download.path / place / "scene.txt"
    scene = scene_file.read_text(encoding="utf-8").strip() if scene_file.is_file() else ""
    if not scene:
        download.lacks("scene", identity)
    elif scene in _SCENES:
        event["labels"] = [_words(scene)]
    return event


def _only_file(download: Download, folder: PurePosixPath, suffixes: tuple[str, ...]) -> str:
    """The one file there with such a suffix, or '' where there is none with content; its name may be anything."""
    place = download.path / folder
    names = sorted(entry.name for entry in place.iterdir()) if place.is_dir() else []
    wanted = (name for name in names if name.lower().endswith(suffixes) and is_filled(place / name))
    return next((f"{folder}/{name}" for name in wanted), "")


def _focal_px(download: Download, place: PurePosixPath) -> float | None:
    """fx: the first of the nine numbers of the 3x3 camera matrix."""
    try:
        values = [float(value) for value in (download.path / place / "intrinsics.txt").read_text().split()]
    except (OSError, ValueError):
        return None
    return values[0] if len(values) == 9 and values[0] > 0 else None


def _words(scene: str) -> str:
    return scene.replace("_", " ")


BUILDER = Builder(
    title="SUN RGB-D.",
    license="not stated on its page; for research, with citation of its four source data sets",
    obtain="the SUN RGB-D page of the Princeton Vision and Robotics group: SUNRGBD.zip and SUNRGBDtoolbox.zip",
    layout=f"the unpacked folders SUNRGBD (kv1, kv2, realsense, xtion) and SUNRGBDtoolbox ({_SPLIT_FILE})",
    splits=splits,
)
