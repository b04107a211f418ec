"""ESC-50: 2,000 environmental sounds of 5 s, 50 classes, five folds (Piczak, 2015)."""

from __future__ import annotations

from collections.abc import Iterator

from data_manifests import Builder, Download, Entry, Split
from data_manifests.shared.templates import CLIP_IMAGENET

_TABLE = "meta/esc50.csv"
"""The table of the clips with their classes and folds."""


def splits(download: Download) -> Iterator[Split]:
    """One manifest a fold, as the data set is cross-validated; clips cut from one recording share a group."""
    if not download.has(_TABLE, "annotation"):
        return
    rows = list(download.table(_TABLE, ("filename", "fold", "target", "category", "src_file")))
    names = {int(row["target"]): _name(row) for row in rows}

    def events(fold: str) -> Iterator[Entry]:
        for row in rows:
            path = f"audio/{row['filename']}"
            if row["fold"] == fold and download.has(path, "audio"):
                yield {
                    "id": row["filename"].removesuffix(".wav"),
                    "audio": {"path": path},
                    "labels": [_name(row)],
                    "group": row["src_file"],
                }

    for fold in sorted({row["fold"] for row in rows}):
        yield Split(f"fold{fold}", events(fold), [names[target] for target in sorted(names)], CLIP_IMAGENET)


def _name(row: dict[str, str]) -> str:
    return row["category"].replace("_", " ")


BUILDER = Builder(
    title="ESC-50.",
    license="CC BY-NC 3.0",
    obtain="the ESC-50 repository of Karol J. Piczak on GitHub (karolpiczak/ESC-50), downloaded as an archive",
    layout="meta/esc50.csv and audio/*.wav",
    splits=splits,
)
