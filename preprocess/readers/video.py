"""Video: files and arrays -> clips of frames, decoding only the neighbourhood of the frames that are wanted.

Sampling, crops and constants are those of ImageBind (`imagebind/data.py` and the pytorchvideo transforms it uses). One
difference: frames are resized with antialias, while still YUV (FFmpeg's swscale; arrays: Pillow), where pytorchvideo
interpolates full-size RGB without it.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

import av
import numpy as np
from av.stream import Disposition
from PIL import Image

from preprocess.decoding.cores import available_cores
from preprocess.decoding.protocol import Returns, returns
from preprocess.formats import sniff
from preprocess.source import Limits, MediaError, Plan, Segment, Source

if TYPE_CHECKING:
    import torch
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

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
}
# Codecs in which dropping frames marked "not a reference" leaves all others as they are. (HEVC's mark holds for one
# temporal layer only; the others gain nothing.)
_SKIPS_NON_REFERENCE = {"h264", "mpeg4", "mpeg1video", "mpeg2video"}
_GUESSED_DURATION = {"mpeg", "mpegvideo"}  # FFmpeg tells it from a bit rate or an early time stamp
_REORDER = 16  # frames; H.264 and HEVC put none further from its place in decoding order
_LOOK_AHEAD_S = 4.0  # a gap shorter than this is read through: a seek would mostly land in the same group of pictures
_SEEK_BACK_S = (0.0, 1.0, 4.0, 16.0, 64.0, math.inf)
_MAX_THREADS = 4  # decode workers already share the cores
_MAX_FAILED_READS = 64  # damaged stretches that a demuxer may stumble over, one after the other
_ROUNDED_DURATION_S = 1.0  # a sound track may be longer than its pictures by this without a note
# Pixels of all frames that are decoded: so many are free (half a minute of 1080p), and so many more for each byte of
# the file, which is 1080p at 40 kbit/s. Frames that repeat the one before take no bytes, and are decoded all the same.
_FREE_PIXELS, _PIXELS_FOR_EACH_BYTE = 1.5e9, 10_000
_TOLERANCE_S = 1e-6  # rounding of seconds to the stream's clock


@dataclass(frozen=True)
class VideoConfig:
    """Preprocessing constants; the defaults are ImageBind's.

    A whole video is seen as `clips` clips of `clip_s` seconds, evenly spaced from its start to its end, and
    `frames_per_clip` frames of each, the first and last included. With `stack_frames` a view is a clip,
    (3, frames_per_clip, size, size); without, every frame is a view, (3, size, size), for encoders of pictures.
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


def _declare(config: VideoConfig, limits: Limits, plan: Plan) -> Returns:
    clips, segments = config.clips, 1
    if plan == "segments":
        # A rest shorter than a clip joins the last segment.
        clips = math.ceil((config.segment_s + config.clip_s) / (2 * config.clip_s)) + 1
        segments = 1 + math.ceil(limits.max_duration_s / config.segment_s)
    if config.stack_frames:
        shape_of_view: tuple[int | None, ...] = (config.frames_per_clip, None, None, 3)
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

    Where a file is cut off, its last frame stands in for clips that should come later; segments end there. The notes
    say so, and that damaged parts were skipped.

    Raises MediaError for what is no video, has no decodable frame, exceeds the limits, or lies outside the hints.
    """
    if not source.is_encoded:
        return _segments(_ArrayFrames(source, limits), source, config, limits, plan)
    found = sniff(source, limits)
    if found.name not in _DEMUXERS:
        raise MediaError(source.name, f"expected a video, got {found.name} ({found.family})")
    with source.open(limits) as file:
        size = file.seek(0, 2)
        file.seek(0)
        try:
            with av.open(file, "r", format=_DEMUXERS[found.name], metadata_errors="replace") as container:
                # Threads by frame delay each wanted frame after a seek; reading a video through, they pay.
                frames = _StreamFrames(source, container, limits, "AUTO" if plan == "segments" else "SLICE", size)
                return _segments(frames, source, config, limits, plan)
        except av.FFmpegError as error:
            raise MediaError(
                source.name, f"could not be decoded as {found.name}, it is damaged or cut off: {error.strerror}"
            ) from error


def prepare(views: np.ndarray, config: VideoConfig) -> torch.Tensor:
    """uint8 views as `read` returns them -> (K * crops, *shape(config)) float32, scaled to 0..1 and normalised.

    A view's crops follow each other: left, centre, right, or top, centre, bottom of an upright picture; only the
    centre when `crops` is 1. Raises ValueError for views of another shape.
    """
    import torch  # decode workers import this module and need no torch

    ndim = 5 if config.stack_frames else 4
    if views.ndim != ndim or views.dtype != np.uint8 or len(views) == 0 or views.shape[-1] != 3:
        wanted = "(K, frames, H, W, 3)" if config.stack_frames else "(K, H, W, 3)"
        raise ValueError(f"video: expected views {wanted} uint8, got {views.shape} {views.dtype}; use video.read")
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
    prepared = torch.empty(len(views), len(corners), *shape(config))
    (top, left), (bottom, right) = corners[0], corners[-1]
    for view, crops in zip(views, prepared, strict=True):  # one by one they stay in the processor's cache
        seen = np.array(view[..., top : bottom + size, left : right + size, :], order="C")
        pixels = torch.from_numpy(seen).movedim(-1, 0)
        pixels = pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255.0).sub_(mean).div_(std)
        for crop, (y, x) in zip(crops, corners, strict=True):
            crop.copy_(pixels[..., y - top : y - top + size, x - left : x - left + size])
    return prepared.flatten(0, 1)


def shape(config: VideoConfig) -> tuple[int, ...]:
    """The shape of one prepared view: (3, frames_per_clip, size, size), or (3, size, size) without `stack_frames`."""
    frames = (config.frames_per_clip,) if config.stack_frames else ()
    return (3, *frames, config.size, config.size)


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


@dataclass(frozen=True, order=True)
class _Wanted:
    """The first frame with `low_s` <= time < `high_s`; where there is none, the one on display before `low_s`."""

    low_s: float
    high_s: float


class _Frames(Protocol):
    duration_s: float  # as the file says; as it is, once a frame was wanted that should be there and is not
    notes: list[str]  # on the frames given out since it was last cleared

    def frame(self, wanted: _Wanted, config: VideoConfig, following: _Wanted | None) -> np.ndarray:
        """The wanted frame, upright RGB (H, W, 3) uint8, short side `config.size`. In order of time they cost least.

        `following` is the one that will be wanted next; None: no other.
        """


def _segments(frames: _Frames, source: Source, config: VideoConfig, limits: Limits, plan: Plan) -> list[Segment]:
    start_s, end_s = _stretch(source, frames.duration_s, limits)
    if plan == "whole":
        spans = [(start_s, end_s, config.clips)]
    else:
        count = max(1, math.ceil((end_s - start_s - config.clip_s) / config.segment_s))
        edges = [start_s + i * config.segment_s for i in range(count)] + [end_s]
        spans = [
            (low, high, max(1, math.ceil((high - low) / (2 * config.clip_s) - _TOLERANCE_S)))
            for low, high in itertools.pairwise(edges)
        ]
    segments: list[Segment] = []
    of_spans = [_wanted_frames(low_s, high_s, clips, config) for low_s, high_s, clips in spans]
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
            views = views.reshape(clips, config.frames_per_clip, *views.shape[1:])
        segments.append(Segment(views, low_s, min(high_s, frames.duration_s), tuple(frames.notes)))
        frames.notes.clear()
    return segments


def _stretch(source: Source, duration_s: float, limits: Limits) -> tuple[float, float]:
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


def _wanted_frames(start_s: float, end_s: float, clips: int, config: VideoConfig) -> list[_Wanted]:
    """`clips` x `frames_per_clip` wanted frames, clip by clip.

    pytorchvideo's ConstantClipsPerVideoSampler and UniformTemporalSubsample, by time instead of frame number, which
    is the same at a constant rate: the first frame of a clip is the first in it, the last the last in it.
    """
    spacing_s = max(0.0, end_s - start_s - config.clip_s) / max(1, clips - 1)
    wanted = []
    for clip in range(clips):
        low_s = start_s + clip * spacing_s
        high_s = min(low_s + config.clip_s, end_s)
        wanted.append(_Wanted(low_s, high_s))
        for i in range(1, config.frames_per_clip):
            at_s = low_s + (high_s - low_s) * i / (config.frames_per_clip - 1)
            wanted.append(_Wanted(at_s, at_s))
    return wanted


def _target_size(size: tuple[int, int], source: Source, config: VideoConfig, limits: Limits) -> tuple[int, int]:
    # pytorchvideo.transforms.functional.short_side_scale: the long side is rounded down
    width, height = size
    if width < height:
        target = config.size, math.floor(height / width * config.size)
    else:
        target = math.floor(width / height * config.size), config.size
    _check_pixels(source, target, limits)
    return target


def _check_pixels(source: Source, size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise MediaError(
            source.name, f"has frames of {width:,} x {height:,} pixels, the limit is {limits.max_pixels:,} (max_pixels)"
        )


def _choose(times: list[int], low: int, high: int) -> int:
    """The entry of the sorted `times` that `_Wanted` describes, in the same ticks."""
    i = bisect.bisect_left(times, low)
    return times[i] if i < len(times) and times[i] < high else times[max(i - 1, 0)]


class _ArrayFrames:
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
        _check_pixels(source, (array.shape[2], array.shape[1]), limits)
        self._array = array
        self._rate_hz = rate_hz
        self._source, self._limits = source, limits
        self.duration_s = len(array) / rate_hz
        self.notes: list[str] = []

    def frame(self, wanted: _Wanted, config: VideoConfig, following: _Wanted | None) -> np.ndarray:
        low, high = (math.ceil((t - _TOLERANCE_S) * self._rate_hz) for t in (wanted.low_s, wanted.high_s))
        index = min(max(low if low < high else low - 1, 0), len(self._array) - 1)
        picture = Image.fromarray(np.ascontiguousarray(self._array[index]))
        size = _target_size(picture.size, self._source, config, self._limits)
        return np.asarray(picture.resize(size, Image.Resampling[config.interpolation.upper()]))


class _StreamFrames:
    """The frames of a file's first video stream.

    Packets are read ahead of the decoder, so that a frame is chosen by its time stamp before anything is decoded.
    Then decoding begins at the last keyframe before it, unless the decoder is already past that, and frames on the way
    that no other depends on are skipped.
    """

    def __init__(
        self, source: Source, container: InputContainer, limits: Limits, threads: Literal["AUTO", "SLICE"], size: int
    ) -> None:
        self._source, self._container, self._limits = source, container, limits
        self._stream = _video_stream(source, container)
        self._codec = self._stream.codec_context
        _check_pixels(source, (self._codec.width, self._codec.height), limits)
        self._codec.thread_type = threads
        self._codec.thread_count = min(_MAX_THREADS, available_cores())
        self._skips = self._codec.codec.canonical_name in _SKIPS_NON_REFERENCE
        self._tick_s = float(self._stream.time_base or 1)
        self._look_ahead = round(_LOOK_AHEAD_S / self._tick_s)
        self._last: tuple[VideoFrame, np.ndarray] | None = None
        self._size: tuple[int, int] | None = None  # frames are brought to
        self._pixels_left = _FREE_PIXELS + _PIXELS_FOR_EACH_BYTE * size
        self.notes: list[str] = []
        self._begin_reading()
        self._start = self._end = self._stream.start_time or 0
        self.duration_s = self._duration_s()

    def frame(self, wanted: _Wanted, config: VideoConfig, following: _Wanted | None) -> np.ndarray:
        low, high, latest = self._ticks(wanted)
        if not self._can_go_on_to(latest):
            self._seek(latest)
        self._read_beyond(high, latest)
        chosen = _choose(self._times, low, high)
        alone = following is None or self._begins_anew(chosen, self._ticks(following)[2])
        frame = self._decode(chosen, alone)
        if alone and (frame is None or _time(frame) < chosen):  # damaged: one that comes later may stand in
            self._seek(latest)
            self._read_beyond(high, latest)
            frame = self._decode(chosen, False)
        if self._ended and self._seconds(low) > self._seconds(self._end) + _ROUNDED_DURATION_S:
            self.duration_s = self._seconds(self._end)
            self._note(f"its frames end at {self.duration_s:.1f} s; the last one stands in for the rest")
        if frame is None:
            if self._last is None:
                raise MediaError(self._source.name, "holds no frame that can be decoded")
            self._note(f"no frame could be decoded at {self._seconds(chosen):.1f} s; the one before stands in")
            return self._last[1]
        return self._shrunk(frame, config)

    def _ticks(self, wanted: _Wanted) -> tuple[int, int, int]:
        """Its `low_s` and `high_s`, and up to where a keyframe never comes behind the wanted frame."""
        low, high = (self._start + math.ceil((t - _TOLERANCE_S) / self._tick_s) for t in (wanted.low_s, wanted.high_s))
        return low, high, low if low < high else low - 1

    def _duration_s(self) -> float:
        if self._container.format.name not in _GUESSED_DURATION:
            if self._stream.duration and self._stream.duration > 0:
                return self._stream.duration * self._tick_s
            # Matroska and FLV, which keep one duration for the file, count it from time 0, not from the first frame.
            seconds = (self._container.duration or 0) / av.time_base - max(0.0, self._start * self._tick_s)
            if seconds > 0.0:
                return seconds
        first, end = math.inf, -math.inf
        while (packet := self._read()) is not None:
            first = min(first, _time(packet))
            end = max(end, _time(packet) + (packet.duration or 0))
        if end < first:
            raise MediaError(self._source.name, "holds no frames")
        self._start = int(first)
        return (end - first) * self._tick_s

    def _seconds(self, time: int) -> float:
        return (time - self._start) * self._tick_s

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _begin_reading(self) -> None:
        self._demuxed: Iterator[Packet[VideoStream]] = self._container.demux(self._stream)
        self._ended = False  # all packets have been read
        self._begin_decoding()

    def _begin_decoding(self) -> None:
        self._queue: deque[Packet[VideoStream]] = deque()  # read but not decoded, in decoding order
        self._times: list[int] = []  # sorted time stamps of all packets since decoding began
        self._decoded: deque[VideoFrame] = deque()  # from the one handed out last on
        self._drained = False

    def _can_go_on_to(self, latest: int) -> bool:
        if not self._decoded or _time(self._decoded[0]) > latest:
            return False
        return self._ended or latest <= self._times[-1] + self._look_ahead

    def _seek(self, latest: int) -> None:
        """Begins to read at a keyframe not later than `latest`, or at the start."""
        for back_s in _SEEK_BACK_S:  # some demuxers land late, between keyframes, or behind the end of a cut file
            target = self._start if math.isinf(back_s) else max(self._start, latest - round(back_s / self._tick_s))
            to_start = target == self._start
            # The first packet may be decoded before the start; but some demuxers refuse to go there.
            for at in (target, target - round(1.0 / self._tick_s)) if to_start else (target,):
                with contextlib.suppress(av.FFmpegError):
                    self._container.seek(at, stream=self._stream)
            self._begin_reading()
            while (packet := self._read()) is not None:
                if packet.is_keyframe or to_start:
                    break
            if packet is not None and (to_start or _time(packet) <= latest):
                self._add(packet)
                return
            if to_start:
                return

    def _read(self) -> Packet[VideoStream] | None:
        """The next packet with data; None at the end."""
        for _ in range(_MAX_FAILED_READS):
            try:
                for packet in self._demuxed:
                    if packet.size > 0 and (packet.pts is not None or packet.dts is not None):
                        return packet
                break
            except av.FFmpegError:
                self._demuxed = self._container.demux(self._stream)
        self._ended = True
        return None

    def _add(self, packet: Packet[VideoStream]) -> None:
        self._queue.append(packet)
        self._end = max(self._end, _time(packet) + (packet.duration or 0))
        if not packet.is_discard:  # outside the edit list: needed by others, never shown
            bisect.insort(self._times, _time(packet))

    def _read_beyond(self, high: int, latest: int) -> None:
        """Reads on until every packet before `high` is known, and lets decoding begin at the last useful keyframe."""
        while len(self._times) - bisect.bisect_left(self._times, high) <= _REORDER:
            packet = self._read()
            if packet is None:
                break
            self._add(packet)
        if not self._times:
            raise MediaError(self._source.name, "holds no frames")
        for i in range(len(self._queue) - 1, -1, -1):
            packet = self._queue[i]
            if packet.is_keyframe and not packet.is_discard and _time(packet) <= latest:
                times, queue = self._times, list(self._queue)
                self._codec.flush_buffers()
                self._begin_decoding()
                self._queue.extend(queue[i:])
                self._times = times[bisect.bisect_left(times, _time(packet)) :]
                break
        # A group of pictures is at least this long: within such a distance the next seek would land here again.
        self._look_ahead = max(self._look_ahead, latest - self._times[0])

    def _begins_anew(self, time: int, latest: int) -> bool:
        """Whether decoding for `latest` will begin at a keyframe behind `time`."""
        if not self._ended and latest > self._times[-1] + self._look_ahead:
            return True
        while self._times[-1] <= latest and (packet := self._read()) is not None:
            self._add(packet)
        return any(p.is_keyframe and not p.is_discard and time < _time(p) <= latest for p in self._queue)

    def _decode(self, time: int, alone: bool) -> VideoFrame | None:
        """The first frame at or after `time`; where all are earlier, the last; None where none can be decoded.

        `alone`: decoding begins anew for the next one, so that the decoder may be emptied at once. Otherwise it would
        hold this frame back until it has seen the ones that might have to be shown before.
        """
        while True:
            while len(self._decoded) > 1 and _time(self._decoded[0]) < time:
                self._decoded.popleft()
            if self._drained or (self._decoded and _time(self._decoded[0]) >= time):
                return self._decoded[0] if self._decoded else None
            packet = self._queue.popleft() if self._queue else self._read()
            if self._skips:
                skip = packet is not None and packet.pts is not None and packet.pts < time
                self._codec.skip_frame = "NONREF" if skip else "DEFAULT"
            self._drained = packet is None
            try:
                self._take(self._codec.decode(packet))
                if alone and packet is not None and packet.pts == time:
                    self._take(self._codec.decode(None))
                    self._drained = True
            except av.FFmpegError:
                self._note("damaged parts were skipped")

    def _take(self, frames: list[VideoFrame]) -> None:
        self._decoded.extend(frames)
        self._pixels_left -= sum(frame.width * frame.height for frame in frames)
        if self._pixels_left < 0:
            raise MediaError(
                self._source.name,
                "has more and larger frames than a film of its size; choose a stretch with start_s and end_s",
            )

    def _shrunk(self, frame: VideoFrame, config: VideoConfig) -> np.ndarray:
        if self._last is not None and self._last[0] is frame:
            return self._last[1]
        _check_pixels(self._source, (frame.width, frame.height), self._limits)
        if self._size is None:  # of the first frame: a stream may change its size, views may not
            self._size = _target_size((frame.width, frame.height), self._source, config, self._limits)
        pixels = frame.to_ndarray(
            width=self._size[0],
            height=self._size[1],
            format="rgb24",
            interpolation=config.interpolation.upper(),
            threads=1,  # starting threads takes longer than the work
        )
        # The display matrix says how far to turn counter-clockwise; cameras turn by quarters.
        upright = np.rot90(pixels, round(frame.rotation / 90) % 4)
        self._last = frame, upright
        return upright


def _video_stream(source: Source, container: InputContainer) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        if container.streams.audio:
            raise MediaError(source.name, "has no video stream; it holds sound only, use it as audio")
        raise MediaError(source.name, "has no video stream")
    if streams[0].codec_context is None:
        raise MediaError(source.name, "its video codec is not known or its header is damaged; convert it to H.264")
    return streams[0]


def _time(timed: Packet[VideoStream] | VideoFrame) -> int:
    """Its presentation time in ticks; containers without one (AVI) give the decoding time."""
    return timed.pts if timed.pts is not None else timed.dts if timed.dts is not None else 0
