"""Pictures: a file, bytes, a PIL image or a uint8 array -> one view of size x size RGB."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from preprocess.decoding.protocol import Returns, returns
from preprocess.readers import raster
from preprocess.source import Limits, MediaError, Plan, Segment, Source

if TYPE_CHECKING:
    import torch

# A JPEG is decoded at a fraction of its size when its short side stays this many times `resize`: pixels then have a
# cosine >= 0.9998 to those of the full decode (measured: retina, motorcycle, coffee, rocket and Hubble photos of
# scikit-image, enlarged and with noise), and a 16-megapixel photo takes less than half the time.
_DRAFT_FACTOR = 2


@dataclass(frozen=True)
class ImageConfig:
    """Short side to `resize` pixels, the centre `size` x `size`, then (value / 255 - mean) / std for R, G, B.

    Defaults are ImageBind's (imagebind/data.py), which are CLIP's. Raises ValueError when `resize` < `size`.
    """

    size: int = 224
    resize: int = 224
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    def __post_init__(self) -> None:
        if self.resize < self.size:
            raise ValueError(f"expected resize >= size, got {self.resize} < {self.size}: the crop would need padding")


def _declare(config: ImageConfig, limits: Limits, plan: Plan) -> Returns:
    return Returns("uint8", (config.size, config.size, 3), views=1)


@returns(_declare)
def read(source: Source, config: ImageConfig, limits: Limits, plan: Plan) -> list[Segment]:
    """Picture -> one segment with views (1, size, size, 3) uint8 RGB, for either plan.

    In memory: a PIL image, or a uint8 array (H, W), (H, W, 3) or (H, W, 4). Turned upright by EXIF; alpha laid on
    white; of animations the first frame; grey of 16 or 32 bits as `raster.to_rgb` says. Raises MediaError.
    """
    if isinstance(source.content, np.ndarray):
        source = replace(source, content=_from_array(source))
    picture = raster.decode_picture(source, limits, least_side=_DRAFT_FACTOR * config.resize)
    facts = raster.metadata_of(picture)
    try:
        rgb, notes = raster.to_rgb(picture)
    except ValueError as error:
        raise MediaError(source.name, f"its colours could not be converted: {error}; save it as RGB") from error
    view = raster.resize_kept(rgb, config.resize, config.size, Image.Resampling[config.interpolation.upper()])
    return [Segment(np.array(view)[None], notes=notes, metadata=facts)]


def prepare(views: np.ndarray, config: ImageConfig) -> torch.Tensor:
    """(K, size, size, 3) uint8 RGB -> (K, 3, size, size) float32. Raises ValueError for other views."""
    import torch  # not at module level: decode workers do without it

    raster.check_views(views, (config.size, config.size, 3), np.uint8, "preprocess.readers.image.read")
    return prepare_tensor(torch.tensor(views), config)


def prepare_tensor(views: torch.Tensor, config: ImageConfig) -> torch.Tensor:
    """(K, size, size, 3) uint8 RGB on any device -> (K, 3, size, size) float32 there."""
    import torch  # see prepare

    values = views.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    mean, std = (torch.tensor(constants).view(3, 1, 1) for constants in (config.mean, config.std))
    return values.sub_(mean.to(views.device)).div_(std.to(views.device))


def shape(config: ImageConfig) -> tuple[int, ...]:
    """The shape (3, size, size) of one prepared view."""
    return 3, config.size, config.size


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
