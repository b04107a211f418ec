"""Pictures: a file, bytes, a PIL image or a uint8 array -> one view of size x size RGB."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from preprocess.decoding.protocol import Returns, returns
from preprocess.formats import sniff
from preprocess.readers import jpeg, raster, raw
from preprocess.readers.document import MOST_PAGES, Document
from preprocess.source import Limits, MediaError, Plan, Segment, Source

if TYPE_CHECKING:
    import torch

# A JPEG is decoded at a fraction of its size when its short side stays this many times `resize`: pixels then have a
# cosine >= 0.9998 to those of the full decode (measured: retina, motorcycle, coffee, rocket and Hubble photos of
# scikit-image, enlarged and with noise), and a 16-megapixel photo takes less than half the time.
_DRAFT_FACTOR = 2
_LONGEST = 2
"""Of a picture longer than this, what lies at its ends is not seen in its centre."""
_MOST_PARTS = 32
"""Parts of one panorama or long screenshot, each with an item of its own."""


@dataclass(frozen=True)
class ImageConfig:
    """Short side to `resize` pixels, the centre `size` x `size`, then (value / 255 - mean) / std for R, G, B.

    With the `resize_mode` "squash" both sides become `resize` pixels, whatever the picture's proportions are. With
    `raw` a view is the whole picture (H, W, 3) uint8 in its proportions, smaller only where its long side has more
    than `size` pixels: for encoders that bring the preprocessing of their makers.
    Defaults are ImageBind's (imagebind/data.py), which are CLIP's. Raises ValueError when `resize` < `size`.
    """

    size: int = 224
    resize: int = 224
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    resize_mode: Literal["shortest", "squash"] = field(default="shortest", metadata={"added": True})
    raw: bool = field(default=False, metadata={"added": True})

    def __post_init__(self) -> None:
        if self.resize < self.size:
            raise ValueError(f"expected resize >= size, got {self.resize} < {self.size}: the crop would need padding")


def _declare(config: ImageConfig, limits: Limits, plan: Plan) -> Returns:
    segments = 1 if plan == "whole" else MOST_PAGES
    if config.raw:
        return Returns("uint8", (None, None, 3), views=1, segments=segments, elements=3 * config.size**2)
    return Returns("uint8", (config.size, config.size, 3), views=1, segments=segments)


@returns(_declare)
def read(source: Source, config: ImageConfig, limits: Limits, plan: Plan) -> list[Segment]:
    """Picture -> one segment with views (1, size, size, 3) uint8 RGB, of a raw config (1, H, W, 3).

    The view is the centre of the picture, of a raw config all of it. Plan "segments" adds, for a panorama or a long
    screenshot beyond 2:1, a segment for each square part of it, whose `at` says which (`0.00 to 0.33 of its width`).
    The pages of a PDF are segments too (`page 3`), up to `document.MOST_PAGES`; of plan "whole" its first page.

    In memory: a PIL image, or a uint8 array (H, W), (H, W, 3) or (H, W, 4). Turned upright by EXIF; alpha laid on
    white; of animations the first frame; grey of 16 or 32 bits as `raster.to_rgb` says. Raises MediaError.
    """
    found = sniff(source, limits) if source.is_encoded else None
    if found is not None and found.family == "document":
        return _pages(source, config, limits, plan)
    if isinstance(source.content, np.ndarray):
        source = replace(source, content=_from_array(source))
    picture = raster.decode_picture(source, limits, _DRAFT_FACTOR * config.resize, found)
    facts = raster.metadata_of(picture)
    try:
        rgb, notes = raster.to_rgb(picture)
    except ValueError as error:
        raise MediaError(source.name, f"its colours could not be converted: {error}; save it as RGB") from error
    if raster.is_preview(picture):
        notes = (*notes, raw.NOTE)
    if raster.has_film(picture):
        notes = (*notes, jpeg.FILM_NOTE)
    whole = Segment(np.array(_fitted(rgb, config))[None], notes=notes, metadata=facts)
    return [whole] if plan == "whole" else [whole, *_parts(rgb, config)]


def _fitted(rgb: Image.Image, config: ImageConfig, squash: bool = True) -> Image.Image:
    """A picture -> the view of it; parts of pictures are never squashed."""
    resample = Image.Resampling[config.interpolation.upper()]
    if config.raw:
        return raster.fit_within(rgb, config.size, resample)
    fit = raster.resize_squashed if squash and config.resize_mode == "squash" else raster.resize_kept
    return fit(rgb, config.resize, config.size, resample)


def _declare_whole(config: ImageConfig, limits: Limits, plan: Plan) -> Returns:
    return Returns("uint8", (None, None, 3), views=1, elements=3 * raster.WHOLE_PX**2)


@returns(_declare_whole)
def read_whole(source: Source, config: ImageConfig, limits: Limits, plan: Plan) -> list[Segment]:
    """Picture -> one segment with a view (1, H, W, 3) uint8 RGB of all of it, at most `raster.WHOLE_PX` a side.

    Its metadata has the picture's own `width` and `height`. Sources and errors are those of `read`; of a document it
    is the first page.
    """
    found = sniff(source, limits) if source.is_encoded else None
    if found is not None and found.family == "document":
        rgb = next(iter(Document(source, limits).pages(raster.WHOLE_PX, 1))).picture.convert("RGB")
        facts: Mapping[str, Any] = {}
    else:
        if isinstance(source.content, np.ndarray):
            source = replace(source, content=_from_array(source))
        picture = raster.decode_picture(source, limits, raster.WHOLE_PX, found)
        facts = raster.metadata_of(picture)
        try:
            rgb, _ = raster.to_rgb(picture)
        except ValueError as error:
            raise MediaError(source.name, f"its colours could not be converted: {error}; save it as RGB") from error
    view = raster.fit_within(rgb, raster.WHOLE_PX, Image.Resampling[config.interpolation.upper()])
    size = {"width": facts.get("width", rgb.width), "height": facts.get("height", rgb.height)}
    return [Segment(np.array(view)[None], metadata=size)]


def prepare(views: np.ndarray, config: ImageConfig) -> torch.Tensor:
    """(K, size, size, 3) uint8 RGB -> (K, 3, size, size) float32, raw views as they are.

    Raises ValueError for other views.
    """
    import torch  # not at module level: decode workers do without it

    if config.raw:
        raster.check_views(views, (*views.shape[1:3], 3), np.uint8, "preprocess.readers.image.read")
        return torch.tensor(views)
    raster.check_views(views, (config.size, config.size, 3), np.uint8, "preprocess.readers.image.read")
    return prepare_tensor(torch.tensor(views), config)


def prepare_tensor(views: torch.Tensor, config: ImageConfig) -> torch.Tensor:
    """(K, size, size, 3) uint8 RGB on any device -> (K, 3, size, size) float32 there, raw views as they are."""
    import torch  # see prepare

    if config.raw:
        return views
    values = views.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    mean, std = (torch.tensor(constants).view(3, 1, 1) for constants in (config.mean, config.std))
    return values.sub_(mean.to(views.device)).div_(std.to(views.device))


def shape(config: ImageConfig) -> tuple[int | None, ...]:
    """The shape (3, size, size) of one prepared view; (None, None, 3) of a raw one, whose sides differ."""
    return (None, None, 3) if config.raw else (3, config.size, config.size)


def _pages(source: Source, config: ImageConfig, limits: Limits, plan: Plan) -> list[Segment]:
    """The pages of a document; of plan "whole" the first."""
    document = Document(source, limits)
    found, texts = [], []
    for page in document.pages(_DRAFT_FACTOR * config.resize, 1 if plan == "whole" else MOST_PAGES):
        view = _fitted(page.picture, config, squash=False)
        found.append(Segment(np.array(view)[None], at=f"page {page.number}"))
        texts.append(page.text)
    facts = document.metadata("\n".join(texts))
    return [replace(found[0], metadata=facts, notes=tuple(document.notes)), *found[1:]]


def _parts(picture: Image.Image, config: ImageConfig) -> list[Segment]:
    """The square parts of a picture beyond 2:1, evenly spaced from one end to the other; none of others."""
    width, height = picture.size
    short, long = min(width, height), max(width, height)
    if long <= _LONGEST * short:
        return []
    side = "width" if width > height else "height"
    parts = []
    for start in np.linspace(0, long - short, min(math.ceil(long / short), _MOST_PARTS)).round().astype(int).tolist():
        box = (start, 0, start + short, short) if width > height else (0, start, short, start + short)
        view = _fitted(picture.crop(box), config, squash=False)
        at = f"{start / long:.2f} to {(start + short) / long:.2f} of its {side}"
        parts.append(Segment(np.array(view)[None], at=at))
    return parts


def _from_array(source: Source) -> Image.Image:
    values = source.content
    if values.dtype != np.uint8 or not (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))):
        raise MediaError(
            source.name,
            "expected a uint8 array (height, width), (height, width, 3) or (height, width, 4), "
            f"got {values.shape} {values.dtype}",
        )
    if values.size == 0:
        raise MediaError(source.name, f"has no pixels {values.shape}")
    return Image.fromarray(values)
