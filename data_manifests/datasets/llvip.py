"""LLVIP: 15,488 pairs of visible and infrared street pictures, people boxed (Jia et al., 2021)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from data_manifests import Builder, Download, Entry, Split
from data_manifests.shared.templates import CLIP_IMAGENET

# The names ImageBind scores, app. B; the best name of a class counts.
_PERSON, _BACKGROUND = "person | man | woman | people", "street | road | car | light | tree"
_SMALLEST_PX = 16  # smaller boxes show nothing after scaling to 224
_TRIES = 50

_Box = tuple[int, int, int, int]
"""A box: left, top, right and bottom in pixels."""


def splits(download: Download) -> Iterator[Split]:
    """train and test (12,025 and 3,463 pairs), and for zero-shot test-crops: boxes cut from the infrared of test.

    For every box of a person, a box of the same size is cut where there is nobody, placed at random but the same on
    every run. ImageBind's own boxes (15,809) are not published.
    """
    for split in ("train", "test"):
        yield Split(split, _pairs(download, split))
    yield Split("test-crops", _crops(download), (_PERSON, _BACKGROUND), CLIP_IMAGENET, base=download.made)


def _names(download: Download, folder: str) -> list[str]:
    place = download.path / folder
    if not place.is_dir():
        download.lacks("folder", folder)
        return []
    return sorted(path.name for path in place.iterdir() if path.suffix.lower() == ".jpg")


def _pairs(download: Download, split: str) -> Iterator[Entry]:
    for name in _names(download, f"infrared/{split}"):
        infrared, visible = f"infrared/{split}/{name}", f"visible/{split}/{name}"
        if download.has(visible, "visible picture") and download.has(infrared, "infrared picture"):
            # The first two digits of a name are the place of the camera.
            yield {"id": Path(name).stem, "image": {"path": visible}, "thermal": {"path": infrared}, "group": name[:2]}


def _crops(download: Download) -> Iterator[Entry]:
    for name in _names(download, "infrared/test"):
        annotation = f"Annotations/{Path(name).stem}.xml"
        if not download.has(annotation, "annotation"):
            continue
        try:
            people = _boxes(download.path / annotation)
        except (ElementTree.ParseError, ValueError):
            download.lacks("readable annotation", annotation)
            continue
        try:
            with Image.open(download.path / "infrared/test" / name) as opened:
                picture = opened.convert("L")
        except (OSError, ValueError):
            download.lacks("readable infrared picture", name)
            continue
        random = np.random.default_rng(zlib.crc32(name.encode()))
        for number, box in enumerate(people):
            if min(box[2] - box[0], box[3] - box[1]) < _SMALLEST_PX:
                continue
            free = _free_box(picture.size, box, people, random)
            if free is None:
                download.lacks("room for a background crop", f"{name} box {number}")
            for label, part, place in (("person", _PERSON, box), ("background", _BACKGROUND, free)):
                if place is not None:
                    crop = f"{Path(name).stem}-{number}-{label}.png"
                    download.made.mkdir(exist_ok=True)
                    picture.crop(place).save(download.made / crop)
                    yield {
                        "id": crop.removesuffix(".png"),
                        "thermal": {"path": crop},
                        "labels": [part],
                        "group": name[:2],
                    }


def _boxes(path: Path) -> list[_Box]:
    """The boxes of a Pascal VOC annotation. Raises ParseError, ValueError."""
    found = []
    for box in ElementTree.parse(path).iterfind("object/bndbox"):
        left, top, right, bottom = (int(float(box.findtext(key, ""))) for key in ("xmin", "ymin", "xmax", "ymax"))
        found.append((left, top, right, bottom))
    return found


def _free_box(size: tuple[int, int], like: _Box, taken: list[_Box], random: np.random.Generator) -> _Box | None:
    """A box of the size of `like` that touches none of `taken`, or None after some tries."""
    width, height = like[2] - like[0], like[3] - like[1]
    if width > size[0] or height > size[1]:
        return None
    for _ in range(_TRIES):
        left, top = int(random.integers(size[0] - width + 1)), int(random.integers(size[1] - height + 1))
        right, bottom = left + width, top + height
        if all(right <= box[0] or box[2] <= left or bottom <= box[1] or box[3] <= top for box in taken):
            return left, top, right, bottom
    return None


BUILDER = Builder(
    title="LLVIP.",
    license="academic, non-commercial use only (terms on its page)",
    obtain="the LLVIP page of Xinyu Jia (bupt-ai-cz/LLVIP on GitHub), after accepting its terms",
    layout="visible/{train,test}/*.jpg, infrared/{train,test}/*.jpg with the same names, Annotations/*.xml",
    splits=splits,
)
