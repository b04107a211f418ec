"""7-Scenes: colour and depth of seven rooms by a Kinect, 41,000 frames in sequences (Shotton et al., 2013)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from data_manifests import Builder, Download, Entry, Split

_TEXTS = {
    "chess": "a chess board on a table in an office",
    "fire": "a fireplace and fire extinguishers in a room",
    "heads": "model heads on a desk in front of a computer",
    "office": "an office with desks, screens and shelves",
    "pumpkin": "a kitchen corner with a pumpkin",
    "redkitchen": "an office kitchen with red cupboards and a wooden table",
    "stairs": "a flight of stairs in a building",
}
"""Scene -> a sentence about it, ours; the data set has none."""
_EVERY = 20
"""Frames are near-duplicates of their neighbours: one of so many is taken."""
_FOCAL_PX, _BASELINE_M = 585.0, 0.075  # the data set's page; Kinect
_NONE = 65535
"""What the data set writes where nothing was measured; readers of depth expect 0."""


def splits(download: Download) -> Iterator[Split]:
    """train and test by the sequences that each scene lists; scene and sequence are the group.

    One frame in 20 is taken. Depth is written anew, with 0 where nothing was measured.
    """
    for split in ("train", "test"):
        yield Split(split, _events(download, split), list(_TEXTS.values()), ("{}",), base=download.common)


def _events(download: Download, split: str) -> Iterator[Entry]:
    for scene, text in _TEXTS.items():
        table = f"{scene}/{split.capitalize()}Split.txt"
        if not download.has(table, "annotation"):
            continue
        for number in re.findall(r"\d+", (download.path / table).read_text(encoding="utf-8")):
            sequence = f"{scene}/seq-{int(number):02d}"
            if not (download.path / sequence).is_dir():
                download.lacks("folder", sequence)
                continue
            last = max((path.name[6:12] for path in (download.path / sequence).glob("frame-*.png")), default="-1")
            for frame in range(0, int(last) + 1, _EVERY):
                name = f"frame-{frame:06d}"
                paths = [f"{sequence}/{name}.{kind}.png" for kind in ("color", "depth")]
                if not (download.has(paths[0], "picture") and download.has(paths[1], "depth")):
                    continue
                written = download.made / f"{scene}-{sequence[-6:]}-{name}.png"
                if not _rewrite(download, paths[1], written):
                    continue
                yield {
                    "id": f"{sequence}/{name}",
                    "image": {"path": (download.path / paths[0]).relative_to(download.common).as_posix()},
                    "depth": {
                        "path": written.relative_to(download.common).as_posix(),
                        "unit": "mm",
                        "focal_px": _FOCAL_PX,
                        "baseline_m": _BASELINE_M,
                    },
                    "text": text,
                    "labels": [text],
                    "group": sequence,
                }


def _rewrite(download: Download, relative: str, out: Path) -> bool:
    """Depth with 65535 for nothing -> with 0; whether it could be read."""
    try:
        with Image.open(download.path / relative) as opened:
            values = np.asarray(opened).astype(np.uint16)
    except (OSError, ValueError):
        download.lacks("readable depth", relative)
        return False
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.where(values == _NONE, 0, values).astype(np.uint16)).save(out)
    return True


BUILDER = Builder(
    title="RGB-D dataset 7-Scenes.",
    license="Microsoft Research, non-commercial use only (terms on its page)",
    obtain="the page 'RGB-D Dataset 7-Scenes' of Microsoft Research: a zip a scene, and the zips of sequences in it",
    layout="SCENE/seq-NN/frame-*.{color,depth}.png with SCENE/TrainSplit.txt and TestSplit.txt",
    splits=splits,
)
