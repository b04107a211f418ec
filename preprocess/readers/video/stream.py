"""Frames of a video file by time, decoding only the neighbourhood of those that are wanted."""

from __future__ import annotations

import bisect
import contextlib
import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import av
import numpy as np
from av.stream import Disposition

from preprocess.decoding.cores import available_cores
from preprocess.metadata import of_container
from preprocess.readers.video.frames import check_pixels, target_size
from preprocess.readers.video.hdr import is_hdr, tone_mapped
from preprocess.readers.video.sampling import TOLERANCE_S, VideoConfig, WantedFrame
from preprocess.source import Limits, MediaError, Source

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

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
_MAX_ASPECT = 8  # of a pixel; 2 is the most in use, and damaged headers say anything
# Pixels of all frames that are decoded: so many are free (half a minute of 1080p), and so many more for each byte of
# the file, which is 1080p at 40 kbit/s. Frames that repeat the one before take no bytes, and are decoded all the same.
_FREE_PIXELS, _PIXELS_FOR_EACH_BYTE = 1.5e9, 10_000


class StreamFrames:
    """The frames of a file's default video stream.

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
        check_pixels(source, (self._codec.width, self._codec.height), limits)
        self._codec.thread_type = threads
        self._codec.thread_count = min(_MAX_THREADS, available_cores())
        self._skips = self._codec.codec.canonical_name in _SKIPS_NON_REFERENCE
        self._tick_s = float(self._stream.time_base or 1)
        self._look_ahead = round(_LOOK_AHEAD_S / self._tick_s)
        self._last: tuple[VideoFrame, np.ndarray] | None = None
        self._size: tuple[int, int] | None = None  # frames are brought to
        self._pixels_left = _FREE_PIXELS + _PIXELS_FOR_EACH_BYTE * size
        self.notes: list[str] = []
        self.metadata: Mapping[str, Any] = self._metadata()
        self._begin_reading()
        self._start = self._end = self._stream.start_time or 0
        self.duration_s = self._duration_s()

    def _metadata(self) -> dict[str, Any]:
        tags = of_container({**self._stream.metadata, **self._container.metadata})
        return {**tags, "width": self._codec.width, "height": self._codec.height}

    def frame(self, wanted: WantedFrame, config: VideoConfig, following: WantedFrame | None) -> np.ndarray:
        """The wanted frame, as `Frames.frame` says."""
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

    def _ticks(self, wanted: WantedFrame) -> tuple[int, int, int]:
        """Its `low_s` and `high_s`, and up to where a keyframe never comes behind the wanted frame."""
        low, high = (self._start + math.ceil((t - TOLERANCE_S) / self._tick_s) for t in (wanted.low_s, wanted.high_s))
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
        check_pixels(self._source, (frame.width, frame.height), self._limits)
        if self._size is None:  # of the first frame: a stream may change its size, views may not
            self._size = target_size(self._shown_size(frame), self._source, config, self._limits)
        hdr = is_hdr(frame)
        pixels = frame.to_ndarray(
            width=self._size[0],
            height=self._size[1],
            format="rgb48" if hdr else "rgb24",
            interpolation=config.interpolation.upper(),
            threads=1,  # starting threads takes longer than the work
        )
        if hdr:
            self._note("high dynamic range (PQ or HLG): tone-mapped to an ordinary picture")
            pixels = tone_mapped(pixels, frame.color_trc, frame.color_primaries)
        # The display matrix says how far to turn counter-clockwise; cameras turn by quarters.
        upright = np.rot90(pixels, round(frame.rotation / 90) % 4)
        self._last = frame, upright
        return upright

    def _shown_size(self, frame: VideoFrame) -> tuple[int, int]:
        """(width, height) of a frame in square pixels: one of them stays, the other grows."""
        aspect = self._stream.sample_aspect_ratio or self._codec.sample_aspect_ratio
        if not aspect or aspect == 1 or not 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT:
            return frame.width, frame.height
        if aspect > 1:
            return round(frame.width * aspect), frame.height
        return frame.width, round(frame.height / aspect)


def _choose(times: list[int], low: int, high: int) -> int:
    """The entry of the sorted `times` that `WantedFrame` describes, in the same ticks."""
    i = bisect.bisect_left(times, low)
    return times[i] if i < len(times) and times[i] < high else times[max(i - 1, 0)]


def _video_stream(source: Source, container: InputContainer) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        if container.streams.audio:
            raise MediaError(source.name, "has no video stream; it holds sound only, use it as audio")
        raise MediaError(source.name, "has no video stream")
    stream = next((s for s in streams if s.disposition & Disposition.default), streams[0])
    if stream.codec_context is None:
        raise MediaError(source.name, "its video codec is not known or its header is damaged; convert it to H.264")
    return stream


def _time(timed: Packet[VideoStream] | VideoFrame) -> int:
    """Its presentation time in ticks; containers without one (AVI) give the decoding time."""
    return timed.pts if timed.pts is not None else timed.dts if timed.dts is not None else 0
