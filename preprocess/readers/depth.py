"""Depth: a map of metres, millimetres or disparity -> one view of disparity in pixels, as ImageBind was trained on.

Recipe: facebookresearch/omnivore issue 12 (disparity = baseline * focal length / depth) and its DepthNorm.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from preprocess.decoding.protocol import Returns, returns
from preprocess.readers import raster
from preprocess.source import Limits, MediaError, OrdinaryPictureError, Plan, Segment, Source

if TYPE_CHECKING:
    import torch

_UNITS = ("m", "mm", "sunrgbd", "disparity", "disparity_px", "relative", "relative_inverse", "carla")
"""What the hint `unit` of a depth map may be."""
_NEAREST_M, _FARTHEST_M = np.float32(0.5), np.float32(10)  # of maps without a unit: a room
_BEHIND = 1.5  # a background that was cut away, in distances of the farthest point that was left
_SUNRGBD_MAX_M = 8.0  # the SUN RGB-D toolbox's own limit; ImageBind issue 134


@dataclass(frozen=True)
class DepthConfig:
    """Depth clipped to `min_depth_m`..`max_depth_m`, turned to disparity (px) and clipped again, short side to `size`
    pixels, the centre `size` x `size`, then (value / scale - mean) / std.

    Of a map with a larger share of holes than `max_hole_share`, holes are the background that somebody cut away: they
    count as half as far again as the farthest point, where else they take the nearest valid depth.

    Defaults: omnivore issue 12 and its inference tutorial; the camera is the Kinect v1 of NYU-D and SUN RGB-D.
    """

    size: int = 224
    min_depth_m: float = 0.01
    max_depth_m: float = 50.0
    min_disparity: float = 0.01
    max_disparity: float = 75.0
    scale: float = 75.0
    mean: float = 0.0418
    std: float = 0.0295
    default_focal_px: float = 518.857901
    default_baseline_m: float = 0.075
    max_hole_share: float = field(default=1.0, metadata={"added": True})


def _declare(config: DepthConfig, limits: Limits, plan: Plan) -> Returns:
    return Returns("float32", (config.size, config.size), views=1)


@returns(_declare)
def read(source: Source, config: DepthConfig, limits: Limits, plan: Plan) -> list[Segment]:
    """Depth map -> one segment with views (1, size, size) float32 disparity in pixels, for either plan.

    Sources are those of `read_depth_m`. A focal length and a baseline from the hints are used as they are, as the
    reference does; a file in `disparity_px` so keeps its own disparities. Where one is missing, the default camera's
    stands in without scaling to the picture's height: the view is of a fixed size, so a scene gives the same values at
    any resolution (ViT-Lens issue 10), as if every camera had the Kinect's field of view. The notes tell.
    Raises MediaError as `read_depth_m` does, and when no pixel lies within the clipping range.
    """
    disparity, notes = _disparity(source, config, limits)
    view = raster.resize_crop(Image.fromarray(disparity), config.size, config.size, Image.Resampling.BILINEAR)
    return [Segment(np.array(view)[None], notes=notes)]


def _declare_whole(config: DepthConfig, limits: Limits, plan: Plan) -> Returns:
    return Returns("float32", (None, None), views=1, elements=raster.WHOLE_PX**2)


@returns(_declare_whole)
def read_whole(source: Source, config: DepthConfig, limits: Limits, plan: Plan) -> list[Segment]:
    """Depth map -> one segment with a view (1, H, W) float32 of all of it, at most `raster.WHOLE_PX` a side.

    Its metadata has the map's own `width` and `height`. Values and errors are those of `read`.
    """
    disparity, notes = _disparity(source, config, limits)
    view = raster.fit_within(Image.fromarray(disparity), raster.WHOLE_PX, Image.Resampling.BILINEAR)
    size = {"width": disparity.shape[1], "height": disparity.shape[0]}
    return [Segment(np.array(view)[None], notes=notes, metadata=size)]


def _disparity(source: Source, config: DepthConfig, limits: Limits) -> tuple[np.ndarray, tuple[str, ...]]:
    """Depth map -> (H, W) float32 disparity in pixels, and notes on what was assumed."""
    depth_m, notes = read_depth_m(source, limits, config.max_hole_share)
    if depth_m.min() >= config.max_depth_m or depth_m.max() <= config.min_depth_m:
        raise MediaError(
            source.name,
            f"no pixel lies within {config.min_depth_m:g}..{config.max_depth_m:g} m (they are "
            f"{depth_m.min():g}..{depth_m.max():g} m); give the right hint `unit`: {', '.join(_UNITS)}",
        )
    focal_px = _positive(source, "focal_px")
    if focal_px is None:
        focal_px = config.default_focal_px
        notes += (f"focal length assumed: {focal_px:g} px (hint `focal_px`)",)
    baseline_m = _positive(source, "baseline_m")
    if baseline_m is None:
        baseline_m = config.default_baseline_m
        notes += (f"baseline assumed: {baseline_m:g} m (hint `baseline_m`)",)
    disparity = np.float32(baseline_m * focal_px) / depth_m.clip(config.min_depth_m, config.max_depth_m)
    # Clipped before the resize, as DepthNorm is; bilinear weights then keep the range.
    return disparity.clip(config.min_disparity, config.max_disparity), notes


def read_depth_m(source: Source, limits: Limits, max_hole_share: float = 1.0) -> tuple[np.ndarray, tuple[str, ...]]:
    """Depth map -> (H, W) float32 metres without holes, and notes on what was assumed and filled.

    Reads 16-bit and float PNG or TIFF, `.npy`, `.exr`, or in memory an array (H, W) or a PIL image.
    The unit is the hint `unit`: `m`, `mm`, `sunrgbd` (millimetres with rotated bits), `disparity` (1 / m) or
    `disparity_px` (which needs `focal_px` and `baseline_m`); without it integers are mm and floats m.
    The hint `scale` says how many units are a metre instead (5000 in TUM RGB-D, 256 in KITTI).
    Units `relative` (0 near) and `relative_inverse` (0 far, as MiDaS and DPT write) have no metres: their range is laid
    on 0.5 m to 10 m. `carla` has depth in three channels of 8 bits (R + 256 G + 65536 B, of 1000 m).
    Depths that are zero, negative, NaN or infinite are holes and take the nearest valid depth, or in a map with more
    than `max_hole_share` of them half as much again as the largest.
    Grey of 8 bits without a unit is relative in a file that is called `NAME.depth.png` or the like.
    Raises MediaError for colour, other 8-bit grey without a unit, a wrong or incomplete hint, a map of holes
    only, and what `raster.read_values` refuses.
    """
    values = raster.read_values(source, limits)
    if values.ndim == 3 and source.hints.unit == "carla":
        code = values.astype(np.float32) @ np.array([1, 256, 65_536], np.float32)
        values = code * np.float32(1000 / (256**3 - 1))
    if values.ndim == 3:
        raise OrdinaryPictureError(
            source.name,
            "is a colour (or palette) picture; expected one channel of depth: a 16-bit PNG in mm, or metres as .npy, "
            ".exr or TIFF (colours of a rendered depth map cannot be turned back into distances)",
        )
    unit = source.hints.unit
    notes: tuple[str, ...] = ()
    scale = _positive(source, "scale")
    if scale is not None:
        unit = unit or "m"
        values = values.astype(np.float32) / np.float32(scale)
    if unit is None and values.dtype.itemsize == 1 and os.path.splitext(source.name)[0].lower().endswith(".depth"):
        unit = "relative"
        notes = ("8-bit values have no unit: taken as relative depth, 0 being near (hint `unit`)",)
    if unit is None:
        if values.dtype.itemsize == 1:
            raise OrdinaryPictureError(
                source.name, f"is 8-bit, which does not tell its unit; give the hint `unit`: {', '.join(_UNITS)}"
            )
        unit = "m" if values.dtype.kind == "f" else "mm"
        notes = (f"unit assumed: {unit} ({values.dtype} values)",)
    depth_m = _to_metres(source, values, unit)
    valid = np.isfinite(depth_m) & (depth_m > 0)
    share = 1 - valid.mean()
    if max_hole_share < share < 1:
        farthest_m = _BEHIND * depth_m[valid].max()
        background = f"{share:.0%} of it are holes, taken as a background {farthest_m:.3g} m away"
        return np.where(valid, depth_m, farthest_m).astype(np.float32), (*notes, background)
    depth_m, filled = raster.fill_holes(source, depth_m, valid)
    return depth_m, notes + filled


def prepare(views: np.ndarray, config: DepthConfig) -> torch.Tensor:
    """(K, size, size) float32 disparity -> (K, 1, size, size) float32. Raises ValueError for other views."""
    import torch  # not at module level: decode workers do without it

    raster.check_views(views, (config.size, config.size), np.float32, "preprocess.readers.depth.read")
    return torch.tensor(views)[:, None].div_(config.scale).sub_(config.mean).div_(config.std)


def shape(config: DepthConfig) -> tuple[int, ...]:
    """The shape (1, size, size) of one prepared view."""
    return 1, config.size, config.size


def _to_metres(source: Source, values: np.ndarray, unit: str) -> np.ndarray:
    # Division by zero and overflow give infinities, which are holes.
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        if unit in ("m", "carla"):
            return values.astype(np.float32)
        if unit == "mm":
            return values.astype(np.float32) / np.float32(1000)
        if unit.startswith("relative"):
            return _laid_on_metres(values, unit == "relative_inverse")
        if unit == "disparity":
            return np.float32(1) / values.astype(np.float32)
        if unit == "disparity_px":
            focal_px, baseline_m = _positive(source, "focal_px"), _positive(source, "baseline_m")
            if focal_px is None or baseline_m is None:
                raise MediaError(source.name, "is in disparity_px, which needs the hints `focal_px` and `baseline_m`")
            return np.float32(focal_px * baseline_m) / values.astype(np.float32)
        if unit == "sunrgbd":
            if values.dtype != np.uint16:
                raise MediaError(source.name, f"expected 16-bit integers for unit sunrgbd, got {values.dtype}")
            unrotated = (values >> 3) | (values << 13)
            return (unrotated.astype(np.float32) / np.float32(1000)).clip(max=_SUNRGBD_MAX_M)
    raise MediaError(source.name, f"expected a depth unit ({', '.join(_UNITS)}), got {unit!r}")


def _laid_on_metres(values: np.ndarray, is_inverse: bool) -> np.ndarray:
    """Depth without a unit -> `_NEAREST_M` to `_FARTHEST_M`, evenly in inverse distance where it is inverse."""
    known = values[np.isfinite(values)].astype(np.float32)
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    share = (values.astype(np.float32) - low) / np.float32((high - low) or 1.0)
    if is_inverse:
        return 1 / (1 / _FARTHEST_M + share * (1 / _NEAREST_M - 1 / _FARTHEST_M))
    return _NEAREST_M + share * (_FARTHEST_M - _NEAREST_M)


def _positive(source: Source, hint: str) -> float | None:
    value: float | None = getattr(source.hints, hint)
    if value is not None and not (math.isfinite(value) and value > 0):
        raise MediaError(source.name, f"hint {hint!r}: expected a positive number, got {value!r}")
    return value
