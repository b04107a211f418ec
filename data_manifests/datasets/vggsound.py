"""VGGSound: 200,000 clips of 10 s whose sound has a visible source, 309 classes (Chen et al., 2020)."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from data_manifests import Builder, BuildError, Download, Entry, Split
from data_manifests.shared.templates import CLIP_IMAGENET
from data_manifests.shared.youtube import NAMING, Clips

_TABLE = "vggsound.csv"
"""The table of the clips: video, first second, class, split."""


def splits(download: Download) -> Iterator[Split]:
    """train and test. The table has no header: YouTube id, start in seconds, label, split."""
    if not download.has(_TABLE, "annotation"):
        return
    with (download.path / _TABLE).open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row]
    if wrong := next((row for row in rows if len(row) != 4 or not row[1].isdigit()), None):
        raise BuildError(
            f"{download.path / _TABLE}: expected rows of id,start,label,split without a header, got {wrong}"
        )
    classes = sorted({row[2] for row in rows})
    clips = Clips(download)

    def events(wanted: str) -> Iterator[Entry]:
        for youtube_id, start, label, split in rows:
            if split != wanted:
                continue
            name = f"{youtube_id}_{int(start):06d}"
            found = clips.find(youtube_id, float(start))
            if found:
                yield {"id": name, **found, "labels": [label], "group": youtube_id}
            else:
                download.lacks("clip", name)

    for split in ("train", "test"):
        yield Split(split, events(split), classes, CLIP_IMAGENET)


BUILDER = Builder(
    title="VGGSound.",
    license="CC BY 4.0 (annotations); clips belong to their uploaders",
    obtain="the table from the VGGSound page of the Visual Geometry Group, Oxford; the clips are not distributed and "
    "have to be cut from the videos (10 s from the start on)",
    layout=f"vggsound.csv and {NAMING}",
    splits=splits,
)
