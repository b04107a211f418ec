"""Frames of a video by time, at the size that a model takes: what any source of frames does, and arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from PIL import Image

from preprocess.readers.video.sampling import TOLERANCE_S, VideoConfig, WantedFrame
from preprocess.source import Limits, MediaError, Source


class Frames(Protocol):
    """The frames of one video, from a file or an array."""

    duration_s: float  # as the file says; as it is, once a frame was wanted that should be there and is not
    notes: list[str]  # on the frames given out since it was last cleared
    metadata: Mapping[str, Any]  # what the file says of itself

    def frame(self, wanted: WantedFrame, config: VideoConfig, following: WantedFrame | None) -> np.ndarray:
        """The wanted frame, upright RGB (H, W, 3) uint8, short side `config.size`. In order of time they cost least.

        `following` is the one that will be wanted next; None: no other.
        """


class ArrayFrames:
    """The frames of an array (T, H, W, 3) at a constant rate."""

    def __init__(self, source: Source, limits: Limits) -> None:
        array = source.content
        if not isinstance(array, np.ndarray) or array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8:
            got = f"{array.shape} {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
            raise MediaError(source.name, f"expected a path, bytes or a uint8 array (T, H, W, 3), got {got}")
        if array.size == 0:
            raise MediaError(source.name, f"holds no frames: its shape is {array.shape}")
        rate_hz = source.hints.rate_hz
        if rate_hz is None or not 0.0 < rate_hz < math.inf:
            raise MediaError(source.name, f"expected its frame rate in hints.rate_hz, got {rate_hz}")
        check_pixels(source, (array.shape[2], array.shape[1]), limits)
        self._array = array
        self._rate_hz = rate_hz
        self._source, self._limits = source, limits
        self.duration_s = len(array) / rate_hz
        self.notes: list[str] = []
        self.metadata: Mapping[str, Any] = {}

    def frame(self, wanted: WantedFrame, config: VideoConfig, following: WantedFrame | None) -> np.ndarray:
        """The wanted frame, as `Frames.frame` says."""
        low, high = (math.ceil((t - TOLERANCE_S) * self._rate_hz) for t in (wanted.low_s, wanted.high_s))
        index = min(max(low if low < high else low - 1, 0), len(self._array) - 1)
        picture = Image.fromarray(np.ascontiguousarray(self._array[index]))
        size = target_size(picture.size, self._source, config, self._limits)
        return np.asarray(picture.resize(size, Image.Resampling[config.interpolation.upper()]))


def target_size(size: tuple[int, int], source: Source, config: VideoConfig, limits: Limits) -> tuple[int, int]:
    """(width, height) of a frame -> those it is resized to. Raises MediaError above `max_pixels`."""
    # pytorchvideo.transforms.functional.short_side_scale: the long side is rounded down
    width, height = size
    if config.raw:
        share = min(1.0, config.size / min(width, height))
        target = max(1, round(width * share)), max(1, round(height * share))
    elif config.resize_mode == "squash":
        target = config.size, config.size
    elif width < height:
        target = config.size, math.floor(height / width * config.size)
    else:
        target = math.floor(width / height * config.size), config.size
    check_pixels(source, target, limits)
    return target


def check_pixels(source: Source, size: tuple[int, int], limits: Limits) -> None:
    """Raises MediaError where a frame of this (width, height) has more than `max_pixels`."""
    width, height = size
    if width * height > limits.max_pixels:
        raise MediaError(
            source.name, f"has frames of {width:,} x {height:,} pixels, the limit is {limits.max_pixels:,} (max_pixels)"
        )
