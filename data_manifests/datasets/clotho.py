"""Clotho 2.1: 5,929 sounds of 15 to 30 s with five captions each (Drossos et al., 2020)."""

from __future__ import annotations

from collections.abc import Iterator

from data_manifests import Builder, Download, Entry, Split

_CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))
"""The columns with the five captions of a clip."""


def splits(download: Download) -> Iterator[Split]:
    """Development, validation and evaluation, as published."""

    def events(split: str, table: str) -> Iterator[Entry]:
        for row in download.table(table, ("file_name", *_CAPTIONS)):
            path = f"{split}/{row['file_name']}"
            if download.has(path, "audio"):
                captions = [row[column].strip() for column in _CAPTIONS if row[column].strip()]
                yield {"id": row["file_name"], "audio": {"path": path}, "text": captions}

    for split in ("development", "validation", "evaluation"):
        table = f"clotho_captions_{split}.csv"
        if download.has(table, "annotation"):
            yield Split(split, events(split, table))


BUILDER = Builder(
    title="Clotho 2.1.",
    license="captions: Tampere University, non-commercial with attribution; audio: Creative Commons, by clip",
    obtain="the record 'Clotho dataset', version 2.1, on Zenodo (record 4783391)",
    layout="clotho_captions_{development,validation,evaluation}.csv beside the unpacked audio folders of those names",
    splits=splits,
)
