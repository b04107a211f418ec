"""Thumbnails: small JPEGs of pictures, moments of videos, depth maps and thermal images."""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import uuid
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from bind.model.pipeline import shared_pool
from bind.owned import NotOwnedError, OwnedFolder
from preprocess.decoding.protocol import Read
from preprocess.readers import depth, image, thermal, video
from preprocess.source import Limits, MediaError, Plan, Segment, Source
from serve.library.errors import UnknownItemError

if TYPE_CHECKING:
    from serve.library.items import Item
    from serve.library.library import Library

FOLDER = "thumbnails"
"""The folder of a library that holds its thumbnails."""
SIZE = 256
"""Pixels of each side of a thumbnail."""
_NAME = re.compile(r"([0-9]{1,18})\.jpg")
"""The file of an item's thumbnail."""
_UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.part")
"""A thumbnail that was being written when its process ended."""
_READERS: dict[str, tuple[Read, object]] = {
    "image": (image.read, image.ImageConfig(size=SIZE, resize=SIZE)),
    "video": (video.read, video.VideoConfig(size=SIZE, clips=1, frames_per_clip=1, stack_frames=False)),
    "depth": (depth.read, depth.DepthConfig(size=SIZE)),
    "thermal": (thermal.read, thermal.ThermalConfig(size=SIZE)),
}
"""Modality -> how its thumbnails are read, with the constants of a small picture."""
MODALITIES = tuple(_READERS)
"""Modalities that have thumbnails."""
_MARK = b"CRC:"
"""What comes before the checksum behind a thumbnail's JPEG."""
_SEAL = struct.Struct("<4sI")
"""Mark and CRC-32, behind the end of the JPEG, where decoders do not look."""


class Reader(Protocol):
    """An object that decodes: a `DecodePool`, or something that passes media to its workers."""

    def submit(self, read: Read, source: Source, config: Any, limits: Limits, plan: Plan) -> Future[list[Segment]]:
        """A reader and a source -> the future of what the reader returns, as `DecodePool.submit` returns it."""


def make(
    library: Library, items: Iterable[Item], limits: Limits | None = None, reader: Reader | None = None
) -> dict[int, Path]:
    """Items -> the JPEG (SIZE x SIZE) of each by its id, in the library's folder, made unless it exists already.

    Sound, motion and text have no thumbnail; neither has a file that has changed since it was indexed. Raises OSError
    for the folder.
    """
    place = OwnedFolder(library.folder, FOLDER).make()
    limits = limits or Limits()
    found: dict[int, Path] = {}
    reading: list[tuple[int, Future[list[Segment]]]] = []
    for item in items:
        if item.modality not in _READERS:
            continue
        with contextlib.suppress(NotOwnedError):
            if place.check(f"{item.item_id}.jpg"):
                found[item.item_id] = place.path / f"{item.item_id}.jpg"
                continue
        read, config = _READERS[item.modality]
        try:
            source = Source.from_path(library.original(item.item_id))
        except (MediaError, UnknownItemError):
            continue
        if item.start_s is not None:
            source = replace(source, hints=replace(source.hints, start_s=item.start_s, end_s=item.end_s))
        future = (reader or shared_pool()).submit(read, source, config, limits, "whole")
        reading.append((item.item_id, future))
    for number, future in reading:
        try:
            (segment,) = future.result()
        except MediaError:
            continue
        # The file is written to a temporary name and renamed, so that nobody finds a part of it, also after a power
        # cut.
        aside = f".{uuid.uuid4().hex}.part"
        try:
            picture = io.BytesIO()
            _picture(segment.views[0]).save(picture, "JPEG", quality=85)
            with place.create(aside) as file:
                file.write(sealed(picture.getvalue()))
                file.flush()
                os.fsync(file.fileno())
            place.delete(f"{number}.jpg")  # something else had that name: a link or a pipe
            place.replace(aside, place, f"{number}.jpg")
        finally:
            place.delete(aside)
        found[number] = place.path / f"{number}.jpg"
    return found


def sealed(picture: bytes) -> bytes:
    """A JPEG -> the same JPEG with its checksum behind its end, where decoders do not look."""
    return picture + _SEAL.pack(_MARK, zlib.crc32(picture))


def is_whole(picture: bytes) -> bool:
    """Whether a JPEG with its checksum, as `sealed` makes it, is undamaged."""
    return picture[-_SEAL.size :] == _SEAL.pack(_MARK, zlib.crc32(picture[: -_SEAL.size]))


def read(library: Library, item_id: int) -> bytes:
    """The JPEG of an item that `make` made. Raises OSError."""
    with OwnedFolder(library.folder, FOLDER).open(f"{item_id}.jpg") as file:
        return file.read()


def forget(library: Path, item_ids: Iterable[int]) -> None:
    """Deletes the thumbnails of items that no longer exist in a library."""
    for number in item_ids:
        OwnedFolder(library, FOLDER).delete(f"{number}.jpg")


def sweep(library: Path, existing: Callable[[Sequence[int]], set[int]]) -> None:
    """Deletes unfinished thumbnails and those of items that do not exist. Raises OSError."""
    place = OwnedFolder(library, FOLDER)
    names = place.names()
    made = [int(match[1]) for name in names if (match := _NAME.fullmatch(name))]
    forget(library, set(made) - existing(made))
    for name in names:
        if _UNFINISHED.fullmatch(name):
            place.delete(name)


def _picture(view: np.ndarray) -> Image.Image:
    if view.dtype != np.uint8:
        low, high = float(view.min()), float(view.max())
        view = ((view - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
    picture = Image.fromarray(view)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))
