"""Which frames of a video are wanted: ImageBind's clips, and the frames of each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from preprocess.source import Limits, MediaError, Source

TOLERANCE_S = 1e-6  # rounding of seconds to the stream's clock


@dataclass(frozen=True)
class VideoConfig:
    """Preprocessing constants; the defaults are ImageBind's.

    A whole video is seen as `clips` clips of `clip_s` seconds, evenly spaced from its start to its end, and
    `frames_per_clip` frames of each, the first and last included. With `stack_frames` a view is a clip,
    (3, frames_per_clip, size, size); without, every frame is a view, (3, size, size), for encoders of pictures. With
    the `resize_mode` "squash" both sides of a frame are resized to `size`, and nothing is cut off. With `raw` a view
    is a clip (T, H, W, 3) uint8 of whole frames, T = `frames_per_clip` of them at the constant rate
    `frames_per_clip` / `clip_s` (fewer of a video that is shorter), whose short side is `size` at most: for encoders
    that bring the preprocessing of their makers.
    """

    size: int = 224
    clips: int = 5
    clip_s: float = 2.0
    frames_per_clip: int = 2
    crops: int = 3
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    stack_frames: bool = True
    segment_s: float = 10.0
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    resize_mode: Literal["shortest", "squash"] = field(default="shortest", metadata={"added": True})
    raw: bool = field(default=False, metadata={"added": True})

    def __post_init__(self) -> None:
        if self.raw and (not self.stack_frames or self.crops != 1):
            raise ValueError("raw: expected stack_frames = true and crops = 1 beside it, as nothing is cut off")


def shape(config: VideoConfig) -> tuple[int | None, ...]:
    """The shape of one prepared view: (3, frames_per_clip, size, size), or (3, size, size) without `stack_frames`.

    Of a raw one it is (None, None, None, 3), as clips differ in frames and size.
    """
    if config.raw:
        return None, None, None, 3
    frames = (config.frames_per_clip,) if config.stack_frames else ()
    return (3, *frames, config.size, config.size)


@dataclass(frozen=True, order=True)
class WantedFrame:
    """The first frame with `low_s` <= time < `high_s`; where there is none, the one on display before `low_s`."""

    low_s: float
    high_s: float


def stretch(source: Source, duration_s: float, limits: Limits) -> tuple[float, float]:
    """The first and last second to use. Raises MediaError for hints outside the video, and above `max_duration_s`."""
    start_s = source.hints.start_s if source.hints.start_s is not None else 0.0
    end_s = min(source.hints.end_s if source.hints.end_s is not None else math.inf, duration_s)
    if not 0.0 <= start_s <= end_s or (start_s == end_s and duration_s > 0.0):
        raise MediaError(
            source.name,
            f"expected 0 <= start_s < end_s within its {duration_s:.3f} s, "
            f"got start_s={source.hints.start_s}, end_s={source.hints.end_s}",
        )
    if end_s - start_s > limits.max_duration_s:
        raise MediaError(
            source.name,
            f"lasts {end_s - start_s:,.0f} s, the limit is {limits.max_duration_s:,.0f} s (max_duration_s); "
            "choose a stretch with start_s and end_s",
        )
    return start_s, end_s


def wanted_frames(start_s: float, end_s: float, clips: int, config: VideoConfig) -> list[WantedFrame]:
    """`clips` x `frames_per_clip` wanted frames, clip by clip; equally many of each clip.

    pytorchvideo's ConstantClipsPerVideoSampler and UniformTemporalSubsample, by time instead of frame number, which
    is the same at a constant rate: the first frame of a clip is the first in it, the last the last in it. Raw clips
    have their frames every `clip_s` / `frames_per_clip` seconds from the first one on.
    """
    spacing_s = max(0.0, end_s - start_s - config.clip_s) / max(1, clips - 1)
    wanted = []
    for clip in range(clips):
        low_s = start_s + clip * spacing_s
        high_s = min(low_s + config.clip_s, end_s)
        if config.raw:
            step_s = config.clip_s / config.frames_per_clip
            count = max(1, min(config.frames_per_clip, math.ceil((high_s - low_s) / step_s - TOLERANCE_S)))
            wanted += [WantedFrame(low_s + i * step_s, low_s + (i + 1) * step_s) for i in range(count)]
            continue
        wanted.append(WantedFrame(low_s, high_s))
        for i in range(1, config.frames_per_clip):
            at_s = low_s + (high_s - low_s) * i / (config.frames_per_clip - 1)
            wanted.append(WantedFrame(at_s, at_s))
    return wanted
