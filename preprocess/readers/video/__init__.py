"""Video: files and arrays -> clips of frames, decoding only the neighbourhood of the frames that are wanted.

Sampling, crops and constants are those of ImageBind (`imagebind/data.py` and the pytorchvideo transforms it uses). One
difference: frames are resized with antialias, while still YUV (FFmpeg's swscale; arrays: Pillow), where pytorchvideo
interpolates full-size RGB without it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import av
import numpy as np

from preprocess.decoding.protocol import Returns, returns
from preprocess.formats import sniff
from preprocess.readers.video.frames import ArrayFrames, Frames
from preprocess.readers.video.sampling import TOLERANCE_S, VideoConfig, shape, stretch, wanted_frames
from preprocess.readers.video.stream import StreamFrames
from preprocess.source import Limits, MediaError, Plan, Segment, Source

if TYPE_CHECKING:
    import torch

__all__ = ["VideoConfig", "prepare", "read", "shape"]

# Sniffed format -> FFmpeg demuxer. Naming it keeps FFmpeg from guessing one that opens other files (HLS, concat, DASH).
_DEMUXERS = {
    "mp4": "mov",
    "matroska": "matroska",
    "avi": "avi",
    "mpegts": "mpegts",
    "flv": "flv",
    "asf": "asf",
    "mpeg": "mpeg",
    "mpegvideo": "mpegvideo",
    "ogg": "ogg",
    "mxf": "mxf",
    "dv": "dv",
}


def _declare(config: VideoConfig, limits: Limits, plan: Plan) -> Returns:
    clips, segments = config.clips, 1
    if plan == "segments":
        # A rest shorter than a clip joins the last segment.
        clips = math.ceil((config.segment_s + config.clip_s) / (2 * config.clip_s)) + 1
        segments = 1 + math.ceil(limits.max_duration_s / config.segment_s)
    if config.stack_frames:
        shape_of_view: tuple[int | None, ...] = (None if config.raw else config.frames_per_clip, None, None, 3)
        return Returns("uint8", shape_of_view, clips, segments, 3 * config.frames_per_clip * limits.max_pixels, True)
    return Returns("uint8", (None, None, 3), clips * config.frames_per_clip, segments, 3 * limits.max_pixels, True)


@returns(_declare)
def read(source: Source, config: VideoConfig, limits: Limits, plan: Plan) -> list[Segment]:
    """Encoded video, or uint8 (T, H, W, 3) with `hints.rate_hz` -> segments of uint8 views, short side `config.size`.

    Views are (K, frames_per_clip, H, W, 3), without `stack_frames` (K * frames_per_clip, H, W, 3). Times are seconds
    from the first frame; `hints.start_s` and `end_s` narrow the video to that stretch.

    Plan `whole`: one segment of `clips` clips. Plan `segments`: consecutive segments of `segment_s` (a rest shorter
    than `clip_s` joins the last), each with a clip for every `2 * clip_s` seconds begun, spread over it as the clips
    of a whole video are: with the defaults a frame every two seconds.

    Frames are shown in square pixels, upright, and where they are coded for high dynamic range, tone-mapped.
    Where a file is cut off, its last frame stands in for clips that should come later; segments end there. The notes
    say so, and that damaged parts were skipped.

    Raises MediaError for what is no video, has no decodable frame, exceeds the limits, or lies outside the hints.
    """
    if not source.is_encoded:
        return _segments(ArrayFrames(source, limits), source, config, limits, plan)
    found = sniff(source, limits)
    if found.name not in _DEMUXERS:
        raise MediaError(source.name, f"expected a video, got {found.name} ({found.family})")
    with source.open(limits) as file:
        size = file.seek(0, 2)
        file.seek(0)
        try:
            with av.open(file, "r", format=_DEMUXERS[found.name], metadata_errors="replace") as container:
                # Threads by frame delay each wanted frame after a seek; reading a video through, they pay.
                frames = StreamFrames(source, container, limits, "AUTO" if plan == "segments" else "SLICE", size)
                return _segments(frames, source, config, limits, plan)
        except av.FFmpegError as error:
            raise MediaError(
                source.name, f"could not be decoded as {found.name}, it is damaged or cut off: {error.strerror}"
            ) from error


def prepare(views: np.ndarray, config: VideoConfig) -> torch.Tensor:
    """uint8 views as `read` returns them -> (K * crops, *shape(config)) float32, scaled to 0..1 and normalised.

    Raw views stay as they are.

    A view's crops follow each other: left, centre, right, or top, centre, bottom of an upright picture; only the
    centre when `crops` is 1. Raises ValueError for views of another shape.
    """
    import torch  # decode workers import this module and need no torch

    ndim = 5 if config.stack_frames else 4
    if views.ndim != ndim or views.dtype != np.uint8 or len(views) == 0 or views.shape[-1] != 3:
        wanted = "(K, frames, H, W, 3)" if config.stack_frames else "(K, H, W, 3)"
        raise ValueError(f"video: expected views {wanted} uint8, got {views.shape} {views.dtype}; use video.read")
    if config.raw:
        return torch.tensor(views)
    height, width = views.shape[-3:-1]
    if min(height, width) != config.size or (config.stack_frames and views.shape[1] != config.frames_per_clip):
        raise ValueError(
            f"video: expected {config.frames_per_clip} frames a clip with a short side of {config.size} pixels, "
            f"got views {views.shape}; read and prepare with the same config"
        )
    size = config.size
    corners = _corners(height, width, config)
    to_channels = (-1, *[1] * (ndim - 2))
    mean, std = (torch.tensor(constants).view(to_channels) for constants in (config.mean, config.std))
    prepared = torch.empty(len(views), len(corners), 3, *views.shape[1:-3], size, size)
    (top, left), (bottom, right) = corners[0], corners[-1]
    for view, crops in zip(views, prepared, strict=True):  # one by one they stay in the processor's cache
        seen = np.array(view[..., top : bottom + size, left : right + size, :], order="C")
        pixels = torch.from_numpy(seen).movedim(-1, 0)
        pixels = pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255.0).sub_(mean).div_(std)
        for crop, (y, x) in zip(crops, corners, strict=True):
            crop.copy_(pixels[..., y - top : y - top + size, x - left : x - left + size])
    return prepared.flatten(0, 1)


def _segments(frames: Frames, source: Source, config: VideoConfig, limits: Limits, plan: Plan) -> list[Segment]:
    start_s, end_s = stretch(source, frames.duration_s, limits)
    if plan == "whole":
        spans = [(start_s, end_s, config.clips)]
    else:
        count = max(1, math.ceil((end_s - start_s - config.clip_s) / config.segment_s))
        edges = [start_s + i * config.segment_s for i in range(count)] + [end_s]
        spans = [
            (low, high, max(1, math.ceil((high - low) / (2 * config.clip_s) - TOLERANCE_S)))
            for low, high in itertools.pairwise(edges)
        ]
    segments: list[Segment] = []
    of_spans = [wanted_frames(low_s, high_s, clips, config) for low_s, high_s, clips in spans]
    following = dict(itertools.pairwise(sorted(set(itertools.chain(*of_spans)))))
    for (low_s, high_s, clips), wanted in zip(spans, of_spans, strict=True):
        pixels = {w: frames.frame(w, config, following.get(w)) for w in sorted(set(wanted))}
        if low_s >= frames.duration_s > 0.0:  # cut off: a stretch that is not there must not be found later
            if not segments:
                raise MediaError(
                    source.name, f"its frames end at {frames.duration_s:.1f} s, start_s={low_s:g} lies behind that"
                )
            segments[-1] = replace(segments[-1], notes=(*segments[-1].notes, *frames.notes))
            break
        views = np.stack([pixels[w] for w in wanted])
        if config.stack_frames:
            views = views.reshape(clips, len(views) // clips, *views.shape[1:])
        facts = {} if segments else frames.metadata
        segments.append(Segment(views, low_s, min(high_s, frames.duration_s), tuple(frames.notes), facts))
        frames.notes.clear()
    return segments


def _corners(height: int, width: int, config: VideoConfig) -> list[tuple[int, int]]:
    # pytorchvideo.transforms.functional.uniform_crop: centres are rounded up
    y, x = math.ceil((height - config.size) / 2), math.ceil((width - config.size) / 2)
    if config.crops == 1:
        return [(y, x)]
    if config.crops != 3:
        raise ValueError(f"video: expected 1 or 3 crops, got {config.crops}")
    if height > width:
        return [(0, x), (y, x), (height - config.size, x)]
    return [(y, 0), (y, x), (y, width - config.size)]
