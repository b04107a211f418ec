"""Small pictures of hits: what a picture, a moment of a video, a depth map or a thermal image looks like."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from bind.pipeline import shared_pool
from preprocess import depth, image, thermal, video
from preprocess.isolation import Read
from preprocess.media import Limits, MediaError, Plan, Segment, Source

if TYPE_CHECKING:
    from serve.library import Item

SIZE = 256
_READERS: dict[str, tuple[Read, object]] = {
    "image": (image.read, image.ImageConfig(size=SIZE, resize=SIZE)),
    "video": (video.read, video.VideoConfig(size=SIZE, clips=1, frames_per_clip=1, stack_frames=False)),
    "depth": (depth.read, depth.DepthConfig(size=SIZE)),
    "thermal": (thermal.read, thermal.ThermalConfig(size=SIZE)),
}
MODALITIES = tuple(_READERS)


class Reader(Protocol):
    """Whatever decodes: a `DecodePool`, or what hands out its workers."""

    def submit(self, read: Read, source: Source, config: Any, limits: Limits, plan: Plan) -> Future[list[Segment]]:
        """As `DecodePool.submit`."""


def make(
    items: Iterable[Item], folder: Path, limits: Limits | None = None, reader: Reader | None = None
) -> dict[int, Path]:
    """Items -> the JPEG (SIZE x SIZE) of each by its id, written to `folder` unless it is there already.

    Sound, motion and text have none, nor has a file that can no longer be read. Raises OSError for the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    limits = limits or Limits()
    found: dict[int, Path] = {}
    reading: list[tuple[int, Path, Future[list[Segment]]]] = []
    for item in items:
        if item.modality not in _READERS:
            continue
        target = folder / f"{item.item_id}.jpg"
        if target.is_file():
            found[item.item_id] = target
            continue
        read, config = _READERS[item.modality]
        try:
            source = Source.from_path(item.path)
        except MediaError:
            continue
        if item.start_s is not None:
            source = replace(source, hints=replace(source.hints, start_s=item.start_s, end_s=item.end_s))
        reading.append((item.item_id, target, (reader or shared_pool()).submit(read, source, config, limits, "whole")))
    for number, target, future in reading:
        try:
            (segment,) = future.result()
        except MediaError:
            continue
        _picture(segment.views[0]).save(target, "JPEG", quality=85)
        found[number] = target
    return found


def _picture(view: np.ndarray) -> Image.Image:
    if view.dtype != np.uint8:
        low, high = float(view.min()), float(view.max())
        view = ((view - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
    picture = Image.fromarray(view)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))
