"""Grocery Store: 5,125 phone pictures of 81 kinds of fruit, vegetables and cartons (Klasson et al., 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from data_manifests import Builder, Download, Entry, Split, is_filled
from data_manifests.shared.templates import PHOTO

_TABLE = "dataset/classes.csv"
"""The table of the classes."""
_NAME, _NUMBER, _ABOUT = "Class Name (str)", "Class ID (int)", "Product Description Path (str)"
"""Columns of that table; the last one leads to a sentence about the product."""


def splits(download: Download) -> Iterator[Split]:
    """train (2,640), val (296) and test (2,485), as published, each picture with its product's description."""
    if not download.has(_TABLE, "annotation"):
        return
    names: dict[int, str] = {}
    about: dict[int, str] = {}
    for row in download.table(_TABLE, (_NAME, _NUMBER, _ABOUT)):
        number = int(row[_NUMBER])
        names[number] = row[_NAME].strip().replace("-", " ").lower()
        place = download.path / "dataset" / row[_ABOUT].strip().lstrip("/")
        inside = ".." not in PurePosixPath(row[_ABOUT]).parts
        about[number] = " ".join(place.read_text(encoding="utf-8").split()) if inside and is_filled(place) else ""

    def events(split: str) -> Iterator[Entry]:
        for line in (download.path / f"dataset/{split}.txt").read_text(encoding="utf-8").splitlines():
            if not line.strip():
                continue
            name, number, *_ = (part.strip() for part in line.split(","))
            path = f"dataset/{name}"
            if download.has(path, "picture"):
                kind = names[int(number)]
                texts = [f"a photo of {kind} in a grocery store", about[int(number)]]
                yield {"id": name, "image": {"path": path}, "text": list(filter(None, texts)), "labels": [kind]}

    for split in ("train", "val", "test"):
        if download.has(f"dataset/{split}.txt", "annotation"):
            yield Split(split, events(split), sorted(set(names.values())), PHOTO)


BUILDER = Builder(
    title="Grocery Store, natural images taken with a phone in Swedish shops.",
    license="MIT",
    obtain="the repository of Marcus Klasson on GitHub (marcusklasson/GroceryStoreDataset), downloaded as an archive",
    layout="dataset/classes.csv, dataset/{train,val,test}.txt and the folders they name",
    splits=splits,
)
