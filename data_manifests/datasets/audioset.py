"""AudioSet: two million 10 s clips with sound events of 527 classes, several a clip (Gemmeke et al., 2017)."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from data_manifests import Builder, Download, Entry, Split
from data_manifests.shared.templates import CLIP_IMAGENET
from data_manifests.shared.youtube import NAMING, Clips

_CLASSES = "class_labels_indices.csv"
"""The table of the 527 classes, of which `labels` in the segments' tables are codes."""


def splits(download: Download) -> Iterator[Split]:
    """balanced_train, unbalanced_train and eval. Without the table of classes, events have no labels."""
    names: dict[str, str] = {}
    if download.has(_CLASSES, "annotation"):
        rows = sorted(download.table(_CLASSES, ("index", "mid", "display_name")), key=lambda row: int(row["index"]))
        names = {row["mid"]: row["display_name"] for row in rows}
    clips = Clips(download)

    def events(table: str) -> Iterator[Entry]:
        with (download.path / table).open(newline="", encoding="utf-8") as file:
            # Three comment lines, then: id, start, end, "label,label"; a space follows each comma.
            for row in csv.reader(file, skipinitialspace=True):
                if not row or row[0].startswith("#"):
                    continue
                if len(row) != 4:
                    download.lacks(f"complete row in {table}", row[0])
                    continue
                youtube_id, start, _, mids = row
                name = f"{youtube_id}_{float(start):g}"
                found = clips.find(youtube_id, float(start))
                if not found:
                    download.lacks(f"clip of {table}", name)
                    continue
                labels = [names[mid] for mid in mids.split(",") if mid in names]
                yield {"id": name, **found, **({"labels": labels} if labels else {}), "group": youtube_id}

    for split in ("balanced_train", "unbalanced_train", "eval"):
        table = f"{split}_segments.csv"
        if download.has(table, "annotation"):
            yield Split(split, events(table), list(names.values()), CLIP_IMAGENET)


BUILDER = Builder(
    title="AudioSet.",
    license="CC BY 4.0 (annotations); clips belong to their uploaders",
    obtain="the tables from the AudioSet page of Google Research; the clips are not distributed and have to be cut "
    "from the videos (start_seconds to end_seconds)",
    layout=f"balanced_train_segments.csv, unbalanced_train_segments.csv, eval_segments.csv, {_CLASSES} and {NAMING}",
    splits=splits,
)
