"""UrbanSound8K: 8,732 sounds of streets of at most 4 s, 10 classes, ten folds (Salamon et al., 2014)."""

from __future__ import annotations

from collections.abc import Iterator

from data_manifests import Builder, Download, Entry, Split
from data_manifests.shared.templates import SOUND

_TABLE = "metadata/UrbanSound8K.csv"
"""The table of the clips with their classes and folds."""
_NAMES = {
    "air_conditioner": "an air conditioner",
    "car_horn": "a car horn",
    "children_playing": "children playing",
    "dog_bark": "a dog barking",
    "drilling": "drilling",
    "engine_idling": "an engine idling",
    "gun_shot": "a gun shot",
    "jackhammer": "a jackhammer",
    "siren": "a siren",
    "street_music": "street music",
}
"""Class in the table -> the words that stand in a sentence."""


def splits(download: Download) -> Iterator[Split]:
    """One manifest a fold, as the data set is cross-validated; slices of one recording share a group."""
    if not download.has(_TABLE, "annotation"):
        return
    rows = list(download.table(_TABLE, ("slice_file_name", "fsID", "fold", "class")))

    def events(fold: str) -> Iterator[Entry]:
        for row in rows:
            path = f"audio/fold{fold}/{row['slice_file_name']}"
            if row["fold"] == fold and download.has(path, "audio"):
                label = _NAMES[row["class"]]
                yield {
                    "id": row["slice_file_name"].removesuffix(".wav"),
                    "audio": {"path": path},
                    "text": f"the sound of {label}",
                    "labels": [label],
                    "group": row["fsID"],
                }

    for fold in sorted({row["fold"] for row in rows}, key=int):
        yield Split(f"fold{fold}", events(fold), sorted(_NAMES.values()), SOUND)


BUILDER = Builder(
    title="UrbanSound8K.",
    license="CC BY-NC 3.0",
    obtain="the UrbanSound8K page of the Urban Sound Datasets, or its record on Zenodo (1203745)",
    layout="metadata/UrbanSound8K.csv and audio/fold1 ... fold10",
    splits=splits,
)
