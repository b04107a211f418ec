"""AudioCaps: 10 s AudioSet clips with captions; one a clip for training, five otherwise (Kim et al., 2019)."""

from __future__ import annotations

from collections.abc import Iterator

from data_manifests import Builder, Download, Entry, Split
from data_manifests.shared.youtube import NAMING, Clips


def splits(download: Download) -> Iterator[Split]:
    """train, val and test; the captions of one clip stand in one event."""
    clips = Clips(download)

    def events(table: str) -> Iterator[Entry]:
        captions: dict[tuple[str, str], list[str]] = {}
        for row in download.table(table, ("youtube_id", "start_time", "caption")):
            captions.setdefault((row["youtube_id"], row["start_time"]), []).append(row["caption"].strip())
        for (youtube_id, start), texts in captions.items():
            found = clips.find(youtube_id, float(start))
            if not found:
                download.lacks(f"clip of {table}", f"{youtube_id}_{start}")
                continue
            yield {"id": f"{youtube_id}_{start}", **found, "text": list(filter(None, texts)), "group": youtube_id}

    for split in ("train", "val", "test"):
        if download.has(f"{split}.csv", "annotation"):
            yield Split(split, events(f"{split}.csv"))


BUILDER = Builder(
    title="AudioCaps.",
    license="captions: free for academic use, see the AudioCaps repository; clips belong to their uploaders",
    obtain="the tables in the folder `dataset` of the AudioCaps repository on GitHub (cdjkim/audiocaps); the clips "
    "are not distributed and have to be cut from the videos (10 s from start_time on)",
    layout=f"train.csv, val.csv, test.csv (audiocap_id,youtube_id,start_time,caption) and {NAMING}",
    splits=splits,
)
