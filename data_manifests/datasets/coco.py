"""COCO captions: 123,287 photographs with five sentences each (Chen et al., 2015)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from data_manifests import Builder, Download, Split
from data_manifests.shared.pairs import with_sentences

_YEAR = "2017"
"""The year of the release; that of 2014 has other splits."""


def splits(download: Download) -> Iterator[Split]:
    """train (118,287) and val (5,000) of 2017, as published; captions of the test part are not."""
    for split in ("train", "val"):
        table = f"annotations/captions_{split}{_YEAR}.json"
        if not download.has(table, "annotation"):
            continue
        content = download.json(table)
        names = {picture["id"]: picture["file_name"] for picture in content["images"]}
        sentences: dict[str, list[str]] = defaultdict(list)
        for caption in content["annotations"]:
            if text := caption["caption"].strip():
                sentences[names[caption["image_id"]]].append(text)
        yield Split(split, with_sentences(download, f"{split}{_YEAR}", sentences, list(names.values())))


BUILDER = Builder(
    title="COCO captions, 2017.",
    license="captions CC BY 4.0; photographs under the Flickr licence of each, some non-commercial",
    obtain="cocodataset.org: train2017.zip, val2017.zip, annotations_trainval2017.zip",
    layout="annotations/captions_{train,val}2017.json beside the folders train2017 and val2017",
    splits=splits,
)
