"""FSDKaggle2018: 11,073 sounds of 41 kinds, a quarter of them instruments (Fonseca et al., 2018)."""

from __future__ import annotations

from collections.abc import Iterator

from data_manifests import Builder, Download, Entry, Split
from data_manifests.shared.templates import SOUND

_META = "FSDKaggle2018.meta"
"""The folder of the tables."""
_TABLES = {"train": "train_post_competition.csv", "test": "test_post_competition_scoring_clips.csv"}
"""Split -> the table of its clips after the competition, with licences and without the clips that were not scored."""


def splits(download: Download) -> Iterator[Split]:
    """train (9,473) and test (1,600), as published; the recording at Freesound is the group."""
    rows = {
        split: list(download.table(f"{_META}/{table}", ("fname", "label", "freesound_id")))
        for split, table in _TABLES.items()
        if download.has(f"{_META}/{table}", "annotation")
    }
    labels = sorted({_name(row) for part in rows.values() for row in part})

    def events(split: str) -> Iterator[Entry]:
        for row in rows[split]:
            path = f"FSDKaggle2018.audio_{split}/{row['fname']}"
            if download.has(path, "audio"):
                yield {
                    "id": row["fname"].removesuffix(".wav"),
                    "audio": {"path": path},
                    "text": f"the sound of {_name(row)}",
                    "labels": [_name(row)],
                    "group": row["freesound_id"],
                }

    for split in rows:
        yield Split(split, events(split), labels, SOUND)


def _name(row: dict[str, str]) -> str:
    return row["label"].replace("_", " ").lower()


BUILDER = Builder(
    title="FSDKaggle2018.",
    license="CC BY 4.0; clips CC0 or CC BY, by clip",
    obtain="the record 'FSDKaggle2018' on Zenodo (2552860): audio_train, audio_test, meta",
    layout="the folders FSDKaggle2018.audio_train, FSDKaggle2018.audio_test and FSDKaggle2018.meta",
    splits=splits,
)
