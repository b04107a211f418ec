"""Augmentation on prepared views. Every random number is a function of the item and its variant, not of its batch."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from train.run import Augment

_ASPECTS = (3 / 4, 4 / 3)
"""Of random crops, as torchvision's RandomResizedCrop."""
_ERASED = (0.02, 1 / 3)
"""Least and most share that a blanked rectangle covers, as torchvision's RandomErasing (arXiv 1708.04896)."""


def is_picture(shape: tuple[int, ...]) -> bool:
    """Whether views of this shape are rasters of places: their last two sizes are equal (a spectrogram's are not)."""
    return len(shape) >= 3 and shape[-1] == shape[-2]


def variant(digest: bytes, view: int, settings: Augment) -> np.ndarray:
    """An item's digest and the number of a variant -> (7,) float32.

    They are scale x, y, centre x, y (in the coordinates of `grid_sample`), flip (-1 or 1), contrast, brightness.
    """
    rng = np.random.default_rng([*np.frombuffer(digest[:16], np.uint32).tolist(), view])
    area = rng.uniform(settings.crop, 1)
    aspect = np.exp(rng.uniform(*np.log(_ASPECTS))) if settings.crop < 1 else 1.0
    scale = np.minimum(np.sqrt([area * aspect, area / aspect]), 1)
    centre = rng.uniform(-1, 1, 2) * (1 - scale)
    flip = rng.choice([-1, 1]) if settings.flip else 1
    contrast, brightness = rng.uniform(-settings.jitter, settings.jitter, 2)
    return np.array([*scale, *centre, flip, 1 + contrast, brightness], np.float32)


def crop(x: Tensor, variants: Tensor) -> Tensor:
    """(B, ..., H, W) views and (B, 7) variants -> the same shape, each cut, flipped and resized back, bilinear."""
    if bool((variants[:, :5] == variants.new_tensor([1, 1, 0, 0, 1])).all()):
        return x
    theta = x.new_zeros(len(x), 2, 3)
    theta[:, 0, 0] = variants[:, 0] * variants[:, 4]
    theta[:, 1, 1] = variants[:, 1]
    theta[:, :, 2] = variants[:, 2:4]
    planes = x.reshape(len(x), -1, *x.shape[-2:])
    grid = F.affine_grid(theta, list(planes.shape), align_corners=False)
    return F.grid_sample(planes, grid, padding_mode="border", align_corners=False).view_as(x)


def jitter(x: Tensor, variants: Tensor) -> Tensor:
    """(B, ..., H, W) normalised views -> contrast about each one's own mean, then brightness in standard deviations."""
    contrast, brightness = (variants[:, column].view(-1, *[1] * (x.ndim - 1)) for column in (5, 6))
    mean = x.flatten(1).mean(1).view_as(contrast)
    return (x - mean) * contrast + mean + brightness


def blank(x: Tensor, seeds: list[list[int]], settings: Augment) -> Tensor:
    """(B, ..., H, W) views of the trained side, changed in place: rectangles, rows and columns set to 0, the mean.

    `seeds` has one entry an item. Pictures are blanked in rectangles, other views in rows (frequencies) and columns.
    """
    if not (settings.erase or settings.frequency_mask or settings.time_mask):
        return x
    height, width = x.shape[-2:]
    picture = is_picture(tuple(x.shape[1:]))
    for view, seed in zip(x, seeds, strict=True):
        rng = np.random.default_rng(seed)
        if picture and rng.random() < settings.erase:
            area = rng.uniform(*_ERASED)
            aspect = np.exp(rng.uniform(*np.log(_ASPECTS)))
            rows = int(min(height * np.sqrt(area * aspect), height))
            columns = int(min(width * np.sqrt(area / aspect), width))
            top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
            view[..., top : top + rows, left : left + columns] = 0
        if not picture:
            rows = int(rng.integers(min(settings.frequency_mask, height) + 1))
            top = rng.integers(height - rows + 1)
            view[..., top : top + rows, :] = 0
            columns = int(rng.integers(min(settings.time_mask, width) + 1))
            left = rng.integers(width - columns + 1)
            view[..., left : left + columns] = 0
    return x


def variants(digests: list[bytes], views: list[int], settings: Augment) -> Tensor:
    """Items and the numbers of their variants -> (B, 7) float32, see `variant`."""
    return torch.from_numpy(np.stack([variant(d, v, settings) for d, v in zip(digests, views, strict=True)]))
