"""Augmentation of prepared views. Every random number is a function of the item and its variant, not of its batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation
from torch import Tensor

from train.trainer.schema import Augment

_ASPECTS = (3 / 4, 4 / 3)
"""The least and greatest aspect ratio of random crops, as in torchvision's RandomResizedCrop."""
_ERASED = (0.02, 1 / 3)
"""The least and greatest share of a picture that a blanked rectangle covers, as in torchvision's RandomErasing (arXiv
1708.04896).
"""


def is_picture(shape: tuple[int | None, ...]) -> bool:
    """Whether views of this shape are pictures: their last two sizes are equal (those of a spectrogram differ)."""
    return len(shape) >= 3 and shape[-1] == shape[-2]


def variant(digest: bytes, view: int, settings: Augment) -> np.ndarray:
    """An item's digest and the number of a variant -> (7,) float32.

    The numbers are scale x, y, centre x, y (in the coordinates of `grid_sample`), flip (-1 or 1), contrast and
    brightness.
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
    """(B, ..., H, W) views and (B, 7) variants -> the same shape: each view is cropped, flipped and resized,
    bilinearly.
    """
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
    """(B, ..., H, W) normalised views -> the same shape: contrast about each view's mean, then brightness in
    deviations.
    """
    contrast, brightness = (variants[:, column].view(-1, *[1] * (x.ndim - 1)) for column in (5, 6))
    mean = x.flatten(1).mean(1).view_as(contrast)
    return (x - mean) * contrast + mean + brightness


def blank(x: Tensor, seeds: list[list[int]], settings: Augment) -> Tensor:
    """Blanks parts of (B, ..., H, W) views of the trained side, in place, by setting them to 0, the mean.

    `seeds` has one entry for each item. Pictures are blanked in rectangles, other views in rows (frequencies) and
    columns (times).
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


def sense(x: Tensor, modality: str, config: Any, seeds: list[list[int]], settings: Augment) -> Tensor:
    """(B, *shape) views of the trained side -> the same scenes, as a sensor with another mounting or setting measures
    them.

    The changes are in the sensor's own units: `config` has the mean and std with which `prepare` normalised. The order
    is: rotation, shift, scale or loudness, then noise.
    """
    on = (settings.noise, settings.scale, settings.gain_db, settings.turn_deg, settings.tilt_deg, settings.shift)
    if not any(on):
        return x
    draws = np.stack([np.random.default_rng([*seed, 2]).uniform(-1, 1, 8) for seed in seeds])
    mean, std = (torch.as_tensor(getattr(config, key, default)).to(x) for key, default in (("mean", 0.0), ("std", 1.0)))
    if mean.ndim:
        mean, std = (value.view(-1, *[1] * (x.ndim - 2)) for value in (mean, std))
    values = x * std + mean
    if modality == "imu":
        values = _shifted(_turned(values, draws, settings), draws[:, 5], settings.shift)
    factors = torch.from_numpy(1 + settings.scale * draws[:, 6:8]).to(values)
    if modality == "imu":  # an accelerometer and a gyroscope
        values = values * factors.repeat_interleave(3, 1)[..., None]
    elif modality == "audio":  # values are natural logarithms of power
        louder = torch.from_numpy(draws[:, 6] * settings.gain_db * np.log(10) / 10).to(values)
        values = values + louder.view(-1, *[1] * (x.ndim - 1))
    else:
        values = values * factors[:, 0].view(-1, *[1] * (x.ndim - 1))
    x = (values - mean) / std
    if settings.noise:
        groups = x.view(len(x), 2, 3, -1) if modality == "imu" else x.flatten(1)[:, None, None]
        drawn = np.stack([np.random.default_rng([*seed, 3]).standard_normal(x[0].shape, np.float32) for seed in seeds])
        spread = groups.std((2, 3), keepdim=True)
        x = (groups + settings.noise * spread * torch.from_numpy(drawn).to(x).view(groups.shape)).view(x.shape)
    return x


def mix(x: Tensor, others: Tensor, config: Any, seeds: list[list[int]], settings: Augment) -> Tensor:
    """(B, 1, H, W) log-mel views and as many of other sounds -> some views with the other sound added, 0 to 20 dB
    softer.

    Powers are added, not their logarithms. The loudness of a view is its mean logarithm. The louder sound stays the
    item's.
    """
    draws = torch.from_numpy(np.stack([np.random.default_rng([*seed, 4]).random(2) for seed in seeds])).to(x)
    own, behind = (sounds * config.std + config.mean for sounds in (x, others))
    places = tuple(range(1, x.ndim))
    softer = 20 * draws[:, 1].view(-1, *[1] * (x.ndim - 1)) * np.log(10) / 10
    behind = behind - behind.mean(places, keepdim=True) + own.mean(places, keepdim=True) - softer
    mixed = (torch.logaddexp(own, behind) - config.mean) / config.std
    return torch.where((draws[:, 0] < settings.mix).view(softer.shape), mixed, x)


def _turned(values: Tensor, draws: np.ndarray, settings: Augment) -> Tensor:
    """(B, 6, T) accelerations and rates -> both rotated alike: about gravity, then about an axis of any direction."""
    if not (settings.turn_deg or settings.tilt_deg):
        return values
    # A body that starts and ends at rest accelerates by gravity on average.
    gravity = values[:, :3].mean(2).double().cpu().numpy()
    heights = draws[:, 1]
    rings = np.sqrt(1 - heights**2)
    axes = np.stack([rings * np.cos(np.pi * draws[:, 2]), rings * np.sin(np.pi * draws[:, 2]), heights], 1)
    length = np.linalg.norm(gravity, axis=1, keepdims=True)
    up = np.divide(gravity, length, out=np.tile([0.0, 0.0, 1.0], (len(gravity), 1)), where=length > 0)
    turns = Rotation.from_rotvec(up * np.radians(settings.turn_deg * draws[:, :1]))
    tilts = Rotation.from_rotvec(axes * np.radians(settings.tilt_deg * draws[:, 3:4]))
    matrices = torch.from_numpy((tilts * turns).as_matrix()).to(values)
    return (matrices[:, None] @ values.view(len(values), 2, 3, -1)).view(values.shape)


def _shifted(values: Tensor, draws: np.ndarray, most: float) -> Tensor:
    """(B, C, T) -> each window shifted in time by up to `most` of its length, mirrored where nothing was recorded."""
    length = values.shape[2]
    places = torch.arange(length)[None] + torch.from_numpy(np.rint(draws * most * length)).long()[:, None]
    places = places % (2 * length)  # this reflects at both ends, again and again
    places = torch.where(places < length, places, 2 * length - 1 - places).to(values.device)
    return values.gather(2, places[:, None].expand(values.shape))


def variants(digests: Sequence[bytes], views: Sequence[int], settings: Augment) -> Tensor:
    """Items' digests and the numbers of their variants -> (B, 7) float32, see `variant`."""
    return torch.from_numpy(np.stack([variant(d, v, settings) for d, v in zip(digests, views, strict=True)]))
