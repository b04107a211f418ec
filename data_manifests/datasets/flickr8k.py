"""Flickr8k: 8,000 photographs with five sentences each (Hodosh et al., 2013)."""

from __future__ import annotations

from collections.abc import Iterator

from data_manifests import Builder, Download, Split
from data_manifests.shared.pairs import captions, with_sentences

_TABLE = "Flickr8k.token.txt"
"""Five sentences for each photograph, one a line behind `NAME.jpg#NUMBER`."""
_LISTS = {"train": "Flickr_8k.trainImages.txt", "dev": "Flickr_8k.devImages.txt", "test": "Flickr_8k.testImages.txt"}
"""Split -> the list of its photographs, as the authors of the data set divided them."""
_FOLDERS = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images")
"""Names of the folder of photographs: the authors' own, the same without its mistake, and that of a mirror."""


def splits(download: Download) -> Iterator[Split]:
    """train (6,000), dev and test (1,000 each), as published."""
    if not download.has(_TABLE, "annotation"):
        return
    folder = next((name for name in _FOLDERS if (download.path / name).is_dir()), _FOLDERS[0])
    sentences = captions(download, _TABLE)
    for split, name in _LISTS.items():
        if download.has(name, "annotation"):
            listed = (download.path / name).read_text(encoding="utf-8").split()
            yield Split(split, with_sentences(download, folder, sentences, listed))


BUILDER = Builder(
    title="Flickr8k.",
    license="research and education only, non-commercial; photographs belong to their Flickr authors",
    obtain="the form on the Flickr 8k page of the University of Illinois: Flickr8k_Dataset.zip and Flickr8k_text.zip",
    layout="Flicker8k_Dataset/*.jpg beside Flickr8k.token.txt and Flickr_8k.{train,dev,test}Images.txt",
    splits=splits,
)
