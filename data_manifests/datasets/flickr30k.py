"""Flickr30k: 31,783 photographs with five sentences each (Young et al., 2014)."""

from __future__ import annotations

from collections.abc import Iterator

from data_manifests import Builder, Download, Split
from data_manifests.shared.pairs import captions, with_sentences

_TABLE = "results_20130124.token"
"""Five sentences for each photograph, one a line behind `NAME.jpg#NUMBER`."""
_FOLDER = "flickr30k-images"
"""The folder of the photographs."""


def splits(download: Download) -> Iterator[Split]:
    """train (29,783), val and test (1,000 each) by the lists of Flickr30k Entities, else one manifest.

    The data set itself has no splits; those of Entities are the ones that papers report.
    """
    if not download.has(_TABLE, "annotation"):
        return
    sentences = captions(download, _TABLE)
    listed = False
    for split in ("train", "val", "test"):
        place = download.path / f"{split}.txt"
        if place.is_file():
            listed = True
            names = [f"{name}.jpg" for name in place.read_text(encoding="utf-8").split()]
            yield Split(split, with_sentences(download, _FOLDER, sentences, names))
    if not listed:
        download.lacks("list of a split (Flickr30k Entities)", "train.txt")
        yield Split("", with_sentences(download, _FOLDER, sentences, list(sentences)))


BUILDER = Builder(
    title="Flickr30k.",
    license="research and education only, non-commercial; photographs belong to their Flickr authors",
    obtain="the form on the Flickr 30k page of the University of Illinois; lists: bryanplummer/flickr30k_entities",
    layout="flickr30k-images/*.jpg beside results_20130124.token, and {train,val,test}.txt of Flickr30k Entities",
    splits=splits,
)
