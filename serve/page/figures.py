"""How an item without a picture of its own is shown: as an SVG, as a JPEG, or as the beginning of a text.

`ModalitySpec.preview` decides, so that a modality of one's own shows itself. The four modalities that people read best
in their own way (loudness, motion in g, distance, temperature) have readers of their own in `serve.page.plots`.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bind.modalities import specs
from bind.model.model import BindModel
from preprocess.source import Limits, Segment, Source
from serve.page import plots

if TYPE_CHECKING:
    from serve.engine.service import Service
    from serve.library.items import Item

QUOTE_CHARACTERS = 1200  # of a text, which fill a tile of any size
KEPT_BYTES = 16 * 2**20
"""The memory for figures that were made already."""
_PICTURE_SIDES = 8
"""A view with at least so many rows and columns is shown as a picture where its modality says nothing else."""
_QUOTE_BYTES = 4 * QUOTE_CHARACTERS + 4  # as many as these characters have at most, and a mark of the encoding
_READERS = {"audio": plots.loudness, "depth": plots.depth_map, "thermal": plots.thermal_map, "imu": plots.motion}
"""Modality -> the reader of its own picture."""


@dataclass(frozen=True)
class Figure:
    """What shows an item: its content, the content type, and what it shows in words, as far as that is known."""

    content: bytes
    kind: str
    label: str = ""


def previews(model: BindModel) -> dict[str, str]:
    """A model -> how items of each of its modalities are shown: "picture", "plot" or "text"."""
    found: dict[str, str] = {}
    for name in model.modalities:
        spec = specs()[name]
        shape = spec.shape(model.description.preprocess(name))
        drawn = "picture" if len(shape) >= 2 and min(shape[-2:]) >= _PICTURE_SIDES else "plot"
        found[name] = spec.preview or drawn
    return found


def quote(path: Path, limits: Limits) -> str:
    """The beginning of a text file. Raises MediaError."""
    with Source(path, path.name).open(limits) as file:
        beginning = file.read(_QUOTE_BYTES).decode("utf-8-sig", "replace")
    cut = len(beginning) > QUOTE_CHARACTERS
    return beginning[:QUOTE_CHARACTERS].rstrip() + ("…" if cut else "")


class Figures:
    """Makes the figures of a service's items. The last ones are kept, `KEPT_BYTES` together."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._previews = previews(service.model)
        self._kept: OrderedDict[int, Figure] = OrderedDict()
        self._bytes = 0

    async def figure(self, item_id: int) -> Figure:
        """The figure of an item. Raises UnknownItemError, also for a file that is gone or has changed, MediaError for
        one that can no longer be read, and Busy.
        """
        item = await self._service.item(item_id)
        path = await self._service.original(item_id)  # also where it was drawn before: it may have changed since
        if item_id in self._kept:
            self._kept.move_to_end(item_id)
            return self._kept[item_id]
        found = await self._made(item, path)
        self._kept[item_id] = found
        self._bytes += len(found.content)
        while self._bytes > KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= len(self._kept.popitem(last=False)[1].content)
        return found

    async def _made(self, item: Item, path: Path) -> Figure:
        preview = self._previews.get(item.modality, "text")
        if preview == "text":
            words = await self._service.read(quote, path, self._service.library_limits)
            return Figure(words.encode("utf-8", "replace"), "text/plain; charset=utf-8")
        source = await self._service.read(Source.from_path, path)
        if item.start_s is not None:
            source = replace(source, hints=replace(source.hints, start_s=item.start_s, end_s=item.end_s))
        if item.modality in _READERS:
            segment = await self._service.figure(_READERS[item.modality], source)
            return _svg(_measured(item.modality, segment, source.hints.unit))
        config = self._service.model.description.preprocess(item.modality)
        segment = await self._service.figure(specs()[item.modality].read, source, config)
        return _drawn(preview, segment)


def _measured(modality: str, segment: Segment, unit: str | None) -> tuple[str, str]:
    if modality == "audio":
        return plots.sound_picture(segment)
    if modality == "imu":
        return plots.motion_picture(segment)
    if modality == "depth":
        return plots.colour_picture(plots.depth_picture(segment), "near is bright, far is dark")
    return plots.colour_picture(plots.thermal_picture(segment, unit), "warm is bright, cold is dark")


def _drawn(preview: str, segment: Segment) -> Figure:
    """The first view of a segment of any modality -> its figure."""
    view: Any = np.asarray(segment.views[0])
    if preview == "plot":
        return _svg(plots.lines_picture(np.atleast_2d(view)))
    while view.ndim > 3:
        view = view[view.shape[0] // 2]
    if view.ndim == 3:
        view = view.transpose(1, 2, 0) if len(view) == 3 else view[0]
    if view.dtype != np.uint8:
        low, high = float(view.min()), float(view.max())
        view = ((view - low) / max(high - low, 1e-9) * 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(view)).save(out, "JPEG", quality=88)
    return Figure(out.getvalue(), "image/jpeg")


def _svg(picture: tuple[str, str]) -> Figure:
    return Figure(picture[0].encode(), "image/svg+xml", picture[1])
