"""Thermal: an infrared picture or a map of temperatures -> one view of brightness in 0..1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from preprocess.decoding.protocol import Returns, returns
from preprocess.formats import sniff
from preprocess.readers import flir, raster
from preprocess.source import Limits, MediaError, OrdinaryPictureError, Plan, Segment, Source

if TYPE_CHECKING:
    import torch

_UNITS = ("celsius", "kelvin", "centikelvin")
"""What the hint `unit` of a thermal picture may be."""
# A grey JPEG saved as colour has channels that differ by a few levels; a false-colour palette by a hundred.
_MAX_CHANNEL_SPREAD = 16


@dataclass(frozen=True)
class ThermalConfig:
    """Brightness 0..1, short side to `size` pixels, the centre `size` x `size`, then (value - mean) / std.

    No normalisation by default: LLVIP with ImageBind gives 62.4% without and 55.2% with (ImageBind pull request 73).
    The percentiles set black and white of 16-bit and float images.
    """

    size: int = 224
    low_percentile: float = 1.0
    high_percentile: float = 99.0
    mean: float = 0.0
    std: float = 1.0


def _declare(config: ThermalConfig, limits: Limits, plan: Plan) -> Returns:
    return Returns("float32", (config.size, config.size), views=1)


@returns(_declare)
def read(source: Source, config: ThermalConfig, limits: Limits, plan: Plan) -> list[Segment]:
    """Thermal image -> one segment with views (1, size, size) float32 in 0..1, for either plan; bicubic.

    Black and white are the hints `low` and `high` (in the file's unit) when given; else 0 and 255 for 8-bit images, as
    the reference does; else the percentiles of the config. The notes tell which. Sources and errors are those of
    `read_thermal`; MediaError also when only one of `low` and `high` is given, or `low` >= `high`.
    """
    values, notes = _scaled(source, config, limits)
    if values.dtype == np.uint8:
        # Resized as 8-bit and then divided: equal to the reference in every bit.
        return [Segment(_fit(values, config)[None] / np.float32(255), notes=notes)]
    # The bicubic kernel overshoots at edges.
    return [Segment(_fit(values, config)[None].clip(0, 1), notes=notes)]


def _declare_whole(config: ThermalConfig, limits: Limits, plan: Plan) -> Returns:
    return Returns("float32", (None, None), views=1, elements=raster.WHOLE_PX**2)


@returns(_declare_whole)
def read_whole(source: Source, config: ThermalConfig, limits: Limits, plan: Plan) -> list[Segment]:
    """Thermal image -> one segment with a view (1, H, W) float32 of all of it, at most `raster.WHOLE_PX` a side.

    Its metadata has the image's own `width` and `height`. Values and errors are those of `read`.
    """
    values, notes = _scaled(source, config, limits)
    view = np.asarray(raster.fit_within(Image.fromarray(values), raster.WHOLE_PX, Image.Resampling.BICUBIC))
    view = view / np.float32(255) if view.dtype == np.uint8 else view.clip(0, 1)
    size = {"width": values.shape[1], "height": values.shape[0]}
    return [Segment(view[None], notes=notes, metadata=size)]


def _scaled(source: Source, config: ThermalConfig, limits: Limits) -> tuple[np.ndarray, tuple[str, ...]]:
    """Thermal image -> (H, W) float32 in 0..1, or uint8 where 0 and 255 are black and white; and notes."""
    values, notes = _read(source, limits)
    low, high, scaling = _range(source, values, config)
    if values.dtype == np.uint8 and (low, high) == (0, 255):
        return values, (*notes, scaling)
    scaled = ((values.astype(np.float32) - np.float32(low)) / np.float32(high - low)).clip(0, 1)
    return scaled, (*notes, scaling)


def read_thermal(source: Source, limits: Limits) -> tuple[np.ndarray, tuple[str, ...]]:
    """Thermal image -> (H, W) float32 in the file's own unit, and notes on the unit and what was filled.

    Of a radiometric JPEG of a FLIR camera come its temperatures in degrees Celsius (see `preprocess.readers.flir`).
    Reads grey pictures of 8 and 16 bits, float TIFF, `.npy`, `.exr`, or in memory an array (H, W) or a PIL image.
    The hint `unit` (`celsius`, `kelvin`, `centikelvin`) is only noted: embedding needs no absolute temperature.
    NaN and infinite values take the nearest valid one. Colour with three (nearly) equal channels counts as grey; false
    colour is a MediaError, as are other units, images without a valid pixel, and what `raster.read_values` refuses.
    """
    values, notes = _read(source, limits)
    return values.astype(np.float32), notes


def prepare(views: np.ndarray, config: ThermalConfig) -> torch.Tensor:
    """(K, size, size) float32 in 0..1 -> (K, 1, size, size) float32. Raises ValueError for other views."""
    import torch  # not at module level: decode workers do without it

    raster.check_views(views, (config.size, config.size), np.float32, "preprocess.readers.thermal.read")
    return torch.tensor(views)[:, None].sub_(config.mean).div_(config.std)


def shape(config: ThermalConfig) -> tuple[int, ...]:
    """The shape (1, size, size) of one prepared view."""
    return 1, config.size, config.size


def _read(source: Source, limits: Limits) -> tuple[np.ndarray, tuple[str, ...]]:
    unit = source.hints.unit
    if unit is not None and unit not in _UNITS:
        raise MediaError(source.name, f"expected a thermal unit ({', '.join(_UNITS)}), got {unit!r}")
    if source.is_encoded and sniff(source, limits).name == "jpeg" and (known := _radiometric(source, limits)):
        return known
    values = raster.read_values(source, limits)
    if values.ndim == 3:
        values = _grey(source, values)
    notes = (f"unit: {unit or 'not stated'}",)
    if values.dtype.kind != "f":
        return values, notes
    values, filled = raster.fill_holes(source, values, np.isfinite(values))
    return values, notes + filled


def _radiometric(source: Source, limits: Limits) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """The temperatures of a radiometric JPEG, with notes; None for any other picture."""
    with source.open(limits) as file:
        if not flir.is_radiometric(file):
            return None
        try:
            values = flir.temperatures_c(file, limits)
        except Exception as error:  # decoders raise what they like, and its picture may be sound
            raise OrdinaryPictureError(source.name, f"its temperatures could not be read: {error}") from error
    values, filled = raster.fill_holes(source, values, np.isfinite(values))
    return values, ("unit: celsius, computed from the values of the camera's sensor", *filled)


def _grey(source: Source, values: np.ndarray) -> np.ndarray:
    spread = np.percentile(values.max(axis=2) - values.min(axis=2), 99)
    if spread > _MAX_CHANNEL_SPREAD:
        raise OrdinaryPictureError(
            source.name,
            "is a colour picture; expected one channel of brightness or temperature (a false-colour palette cannot be "
            "turned back): export it as greyscale or as radiometric TIFF, or embed it as an image",
        )
    return np.asarray(Image.fromarray(values).convert("L"))


def _range(source: Source, values: np.ndarray, config: ThermalConfig) -> tuple[float, float, str]:
    low, high = source.hints.low, source.hints.high
    if low is not None or high is not None:
        if low is None or high is None or not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise MediaError(source.name, f"expected the hints `low` < `high`, both given, got {low!r} and {high!r}")
        return low, high, f"scaled by the fixed range {low:g}..{high:g} of the hints"
    if values.dtype == np.uint8:
        return 0, 255, "8-bit: scaled by the fixed range 0..255"
    low, high = (float(v) for v in np.percentile(values, (config.low_percentile, config.high_percentile)))
    if low < high:
        percentiles = f"{config.low_percentile:g} to {config.high_percentile:g}"
        return low, high, f"scaled by the percentiles {percentiles}: {low:g}..{high:g}"
    low, high = float(values.min()), float(values.max())  # a small hot object on an even ground
    if low < high:
        return low, high, f"scaled by its minimum and maximum: {low:g}..{high:g}"
    return low - 1, high + 1, f"has one value everywhere ({low:g}): mid-grey"


def _fit(values: np.ndarray, config: ThermalConfig) -> np.ndarray:
    return np.array(raster.resize_crop(Image.fromarray(values), config.size, config.size, Image.Resampling.BICUBIC))
