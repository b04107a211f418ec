"""Sound: files, sound tracks of videos and sample arrays -> mono clips -> log-mel tensors."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
import soundfile

from preprocess.decoding import scratch
from preprocess.decoding.protocol import Returns, returns
from preprocess.dsp import pauses
from preprocess.dsp.filterbank import FRAME_S, log_mel
from preprocess.dsp.resampling import resampled
from preprocess.formats import sniff
from preprocess.source import Limits, MediaError, Plan, Segment, Source

if TYPE_CHECKING:
    import torch

# libsndfile knows the exact length and seeks to the exact sample; libav takes what it cannot read.
_LIBSNDFILE = frozenset({"wav", "flac", "ogg", "mp3", "aiff", "caf", "au"})
_MALFORMED = 3  # SF_ERR_MALFORMED_FILE in sndfile.h
# Their headers tell no length; libav guesses one from the bit rate.
_LENGTH_UNKNOWN = frozenset({"aac", "amr", "mp3"})
_BLOCK = 65_536
_MAX_CHANNELS = 64
# Below are heart beats and earthquakes, above bats. A stretch of 7 Hz would become 2,300 times as many samples.
_RATES_HZ = (1_000, 1_000_000)
# Samples of all channels that may be read and made: so many are free (half a second of work), and so many more for each
# byte of the file. The thriftiest speech codecs give 100; silence takes no bytes, and hours of it are no recording.
_FREE_SAMPLES, _SAMPLES_FOR_EACH_BYTE = 60e6, 200
# Encoders' padding and rounded durations make files this much shorter than announced without anything missing.
_SLACK_S = 0.25
# libav's decoders need the packet before the wanted one; none is longer than this.
_PREROLL_S = 0.2
# Above this (17 minutes at 16 kHz) the resampled sound waits on disk, so that hours of it need no memory.
_SPOOL_BYTES = 64 * 2**20


@dataclass(frozen=True)
class AudioConfig:
    """Preprocessing constants of sound; the defaults are ImageBind's (`imagebind/data.py`), `segment_s` is ours.

    `frames` is the width the log-mel picture is padded or cut to, `mean` and `std` normalise it as (x - mean) / std.
    `cut` says where plan "segments" cuts: every `segment_s`, or where sound begins behind a pause (`dsp.pauses`).
    """

    rate_hz: int = 16_000
    clip_s: float = 2.0
    clips: int = 3
    num_mel_bins: int = 128
    frames: int = 204
    mean: float = -4.268
    std: float = 9.138
    segment_s: float = 10.0
    cut: Literal["fixed", "pauses"] = field(default="fixed", metadata={"added": True})


def _declare(config: AudioConfig, limits: Limits, plan: Plan) -> Returns:
    least_s = config.clip_s if config.cut == "pauses" else max(config.segment_s, config.clip_s)
    segments = 1 if plan == "whole" else 1 + int(limits.max_duration_s / least_s)
    return Returns("float32", (None,), config.clips, segments, elements=round(config.clip_s * config.rate_hz))


@returns(_declare)
def read(source: Source, config: AudioConfig, limits: Limits, plan: Plan) -> list[Segment]:
    """A sound file, a video with a sound track, or float samples -> segments of views (K, samples) float32 mono.

    Samples in memory are a float array (T,) or (channels, T) at `hints.rate_hz`, else at `config.rate_hz`. Channels
    are averaged (the reference takes the first), the rate becomes `config.rate_hz`, and `hints.start_s`/`end_s` choose
    a stretch. The K clips of a segment are evenly spaced from its first to its last sample, as in ImageBind; a segment
    shorter than a clip gives K equal views of its own length, which `prepare` pads in the log-mel domain, as the
    reference does. Plan "segments" cuts as `config.cut` says; a rest shorter than a clip joins the segment before it.

    Raises MediaError for content without sound, shorter than one 25 ms frame, longer than `max_duration_s` (before
    decoding, where the header tells), truncated (ogg, and raw streams cut between two packets, do not show it), with
    samples that are not finite, and for hints outside of the sound.
    """
    with _open(source, config, limits) as track, scratch.Scratch(_SPOOL_BYTES) as spool:
        blocks = _checked(track, source.name, limits, config.rate_hz)
        loudness = pauses.Loudness(config.rate_hz) if plan == "segments" and config.cut == "pauses" else None
        for block in resampled(blocks, track.rate_hz, config.rate_hz):
            if loudness:
                loudness.add(block)
            spool.write(np.ascontiguousarray(block, np.float32).data)
        count = spool.tell() // 4
        if count < int(config.rate_hz * FRAME_S):
            raise MediaError(source.name, f"has {count / config.rate_hz * 1000:g} ms of sound, 25 ms are the least")
        shortest = round(config.clip_s * config.rate_hz)
        notes = () if count >= shortest else (f"shorter than a clip of {config.clip_s:g} s: padded",)
        edges = [0, count]
        if plan == "segments":
            onsets = loudness.onsets() if loudness else []
            edges = pauses.edges(count, onsets, shortest, round(config.segment_s * config.rate_hz))
        return [
            Segment(
                _clips(spool, first, last, config),
                track.start_s + first / config.rate_hz,
                track.start_s + last / config.rate_hz,
                notes,
            )
            for first, last in itertools.pairwise(edges)
        ]


def prepare(views: np.ndarray, config: AudioConfig) -> torch.Tensor:
    """(K, samples) float32 at `config.rate_hz` -> (K, 1, num_mel_bins, frames) normalised log-mel pictures.

    As the reference: each clip loses its mean, and a picture of fewer frames gets zeros after its last one, before it
    is normalised. Raises ValueError for views shorter than one 25 ms frame.
    """
    import torch  # decode workers import this module and need no torch

    return prepare_tensor(torch.from_numpy(np.require(views, np.float32, ["C", "W"])), config)


def prepare_tensor(waveforms: torch.Tensor, config: AudioConfig) -> torch.Tensor:
    """(K, samples) float32 on any device -> (K, 1, num_mel_bins, frames) there, as `prepare`."""
    energies = log_mel(waveforms - waveforms.mean(1, keepdim=True), config.rate_hz, config.num_mel_bins)
    pictures = energies.new_zeros(len(energies), config.num_mel_bins, config.frames)
    filled = pictures[..., : energies.shape[1]]
    filled.copy_(energies.transpose(1, 2)[..., : config.frames])
    return pictures.sub_(config.mean).div_(config.std).unsqueeze(1)


def shape(config: AudioConfig) -> tuple[int, ...]:
    """(1, num_mel_bins, frames), the shape of one prepared view."""
    return (1, config.num_mel_bins, config.frames)


def clip_starts(count: int, config: AudioConfig) -> list[int]:
    """`count` samples -> the first sample of each of the K clips, with the reference's arithmetic.

    Starts are i * (duration - clip_s) / (K - 1) seconds, cut to a sample (pytorchvideo's ConstantClipsPerVideoSampler).
    """
    last_start_s = Fraction(max(count / config.rate_hz - Fraction(config.clip_s), 0))
    return [int(i * last_start_s / max(config.clips - 1, 1) * config.rate_hz) for i in range(config.clips)]


@dataclass(frozen=True)
class _Track:
    """Mono blocks from `start_s` of the medium on; `expected_s` is the length its header announces, if it does.

    `channels` is how many there were, `most_samples` how many of all of them may be read, and made of them.
    """

    rate_hz: float
    start_s: float
    expected_s: float | None
    blocks: Iterator[np.ndarray]
    channels: int = 1
    most_samples: float = math.inf


def _open(source: Source, config: AudioConfig, limits: Limits) -> AbstractContextManager[_Track]:
    return _encoded(source, limits) if source.is_encoded else _in_memory(source, config, limits)


@contextmanager
def _encoded(source: Source, limits: Limits) -> Iterator[_Track]:
    found = sniff(source, limits)
    if found.family not in ("audio", "video"):
        raise MediaError(source.name, f"expected sound or a video with sound, got {found.name} ({found.family})")
    with source.open(limits) as file:
        most = _FREE_SAMPLES + _SAMPLES_FOR_EACH_BYTE * file.seek(0, 2)
        file.seek(0)
        sound = None
        if found.name in _LIBSNDFILE:
            try:
                # By the descriptor of a file: calls back into Python would take a quarter of the time.
                sound = soundfile.SoundFile(file if isinstance(file, io.BytesIO) else file.fileno(), closefd=False)
            except soundfile.LibsndfileError as error:
                # A codec it lacks (AAC in CAF, Speex in Ogg) is for libav, and so are headers that libsndfile reads
                # too strictly. In the other formats libav would pass over damage that libsndfile sees.
                if error.code == _MALFORMED and found.name not in ("mp3", "ogg"):
                    raise MediaError(
                        source.name, f"is damaged: its {found.name} header does not fit its size"
                    ) from None
                file.seek(0)
        if sound is None:
            with _libav(file, found.name, source, limits) as track:
                yield _bounded(track, source, most)
        else:
            with sound:
                yield _bounded(_libsndfile(sound, source, limits), source, most)


def _bounded(track: _Track, source: Source, most_samples: float) -> _Track:
    low, high = _RATES_HZ
    if not low <= track.rate_hz <= high:
        raise MediaError(
            source.name,
            f"is sampled at {track.rate_hz:g} Hz, expected {low:,} to {high:,} Hz; measurements slower than sound are "
            "no sound: pass them as a table",
        )
    return replace(track, most_samples=most_samples)


@contextmanager
def _in_memory(source: Source, config: AudioConfig, limits: Limits) -> Iterator[_Track]:
    samples = source.content
    if not isinstance(samples, np.ndarray) or samples.dtype.kind != "f" or samples.ndim not in (1, 2):
        came = f"{samples.dtype} {samples.shape}" if isinstance(samples, np.ndarray) else type(samples).__name__
        raise MediaError(source.name, f"expected a float array (T,) or (channels, T) in -1..1, got {came}")
    samples = np.atleast_2d(samples)
    if not 1 <= samples.shape[0] <= _MAX_CHANNELS:
        raise MediaError(source.name, f"expected (channels, T), got {samples.shape}; transpose it")
    rate_hz = source.hints.rate_hz or float(config.rate_hz)
    if not 0 < rate_hz < math.inf:
        raise MediaError(source.name, f"hint 'rate_hz': expected a positive rate, got {rate_hz:g}")
    total = samples.shape[1]
    start_s, end_s = _stretch(source, total / rate_hz, limits)
    first, last = round(start_s * rate_hz), round(min(end_s * rate_hz, total))
    blocks = (samples[:, i : min(i + _BLOCK, last)].mean(axis=0) for i in range(first, last, _BLOCK))
    yield _Track(rate_hz, start_s, None, blocks)


def _libsndfile(sound: soundfile.SoundFile, source: Source, limits: Limits) -> _Track:
    # libsndfile silently shortens a cut file; its log says so. Sizes near 2**32 stand for "unknown" in streamed files.
    for claimed, actual in re.findall(r"(?:data|SSND|Size|size) *: *(\d+) \(should be (\d+)\)", sound.extra_info):
        if int(actual) < int(claimed) < 0x7FFF_0000:
            raise MediaError(source.name, f"is truncated: its header announces {claimed} bytes, it has {actual}")
    rate_hz, known = sound.samplerate, 0 <= sound.frames < 2**62
    start_s, end_s = _stretch(source, sound.frames / rate_hz if known else None, limits)
    first = round(start_s * rate_hz)
    if first:
        sound.seek(first)
    wanted_s = min(end_s, sound.frames / rate_hz) - start_s

    def blocks() -> Iterator[np.ndarray]:
        left = round(wanted_s * rate_hz)
        # Integers are read and averaged faster than floats, and the mean is the same to the last bit.
        dtype, full_scale = ("int16", 2**15) if sound.subtype == "PCM_16" else ("float32", 1)
        while left > 0 and len(block := sound.read(min(left, _BLOCK), dtype=dtype, always_2d=True)):
            left -= len(block)
            yield _mixed(block, full_scale)

    return _Track(rate_hz, start_s, wanted_s if known else None, blocks(), sound.channels)


def _mixed(block: np.ndarray, full_scale: int = 1) -> np.ndarray:
    """(T, channels) -> (T,) float32, their mean. Numpy's own over so short a last axis takes ten times as long."""
    total = block[:, 0].astype(np.float32)
    for channel in range(1, block.shape[1]):
        total += block[:, channel]
    total *= np.float32(1 / (full_scale * block.shape[1]))
    return total


@contextmanager
def _libav(file: BinaryIO, container_name: str, source: Source, limits: Limits) -> Iterator[_Track]:
    import av  # takes a tenth of a second, and most sound needs libsndfile only

    try:
        # With the format given, no playlist demuxer can be chosen, and bytes are all it gets to see.
        with av.open(file, "r", format=container_name, metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise MediaError(source.name, "has no sound track")
            stream = container.streams.audio[0]
            # MPEG-TS clocks start anywhere; what MP4 has before 0 is its encoder's padding.
            origin_s = max(0, container.start_time or 0) / av.time_base
            duration_s = None
            if container_name not in _LENGTH_UNKNOWN:
                if stream.duration and stream.time_base:
                    duration_s = float(((stream.start_time or 0) + stream.duration) * stream.time_base) - origin_s
                elif container.duration and not container.streams.video:  # a sound track may end before the pictures
                    duration_s = container.duration / av.time_base
            start_s, end_s = _stretch(source, duration_s, limits)
            if start_s and stream.time_base:
                container.seek(int((max(0.0, start_s - _PREROLL_S) + origin_s) / stream.time_base), stream=stream)
            frames = container.decode(stream)
            # The first frame's time decides what to drop; it may also come later than asked for.
            frame = next(
                (f for f in frames if f.time is None or f.time + f.samples / f.rate > start_s + origin_s), None
            )
            if frame is None:
                raise MediaError(source.name, "has no sound samples" + (f" after {start_s:g} s" if start_s else ""))
            frame_s = 0.0 if frame.time is None else frame.time - origin_s
            start_s, skip = max(start_s, frame_s), round(max(0.0, start_s - frame_s) * frame.rate)
            wanted_s = min(end_s, math.inf if duration_s is None else duration_s) - start_s
            keep = round((end_s - start_s) * frame.rate) if end_s < math.inf else None
            blocks = _cut(_mono(itertools.chain([frame], frames)), skip, keep)
            channels = frame.layout.nb_channels
            yield _Track(frame.rate, start_s, wanted_s if duration_s is not None else None, blocks, channels)
    except av.FFmpegError as error:
        raise MediaError(source.name, f"could not be decoded: {error.strerror}") from error


def _mono(frames: Iterator[Any]) -> Iterator[np.ndarray]:
    import av  # see _libav

    to_float = av.AudioResampler(format="fltp")
    for frame in frames:
        for part in to_float.resample(frame):
            yield part.to_ndarray().mean(axis=0)


def _cut(blocks: Iterator[np.ndarray], skip: int, keep: int | None) -> Iterator[np.ndarray]:
    """The samples from `skip` on, `keep` of them."""
    position, end = 0, math.inf if keep is None else skip + keep
    for block in blocks:
        first, last = max(0, skip - position), min(len(block), end - position)
        if first < last:
            yield block[first : int(last)]
        position += len(block)
        if position >= end:
            return


def _stretch(source: Source, duration_s: float | None, limits: Limits) -> tuple[float, float]:
    """The wanted start and end in seconds (infinite: to the end). Raises MediaError for bad or too long ones."""
    hints = source.hints
    start_s = hints.start_s or 0.0
    end_s = math.inf if hints.end_s is None else hints.end_s
    if not 0.0 <= start_s < end_s:
        raise MediaError(source.name, f"hints: expected 0 <= start_s < end_s, got {start_s:g} and {end_s:g}")
    if duration_s is not None and 0 < duration_s <= start_s:
        raise MediaError(source.name, f"hint 'start_s' is {start_s:g}, but it lasts {duration_s:g} s only")
    if duration_s is not None:
        _check_duration(min(end_s, duration_s) - start_s, source.name, limits)
    return start_s, end_s


def _check_duration(duration_s: float, name: str, limits: Limits) -> None:
    if duration_s > limits.max_duration_s:
        raise MediaError(
            name,
            f"lasts {duration_s:,.0f} s or more, the limit is {limits.max_duration_s:,.0f} s (max_duration_s); "
            "choose a stretch with start_s and end_s",
        )


def _checked(track: _Track, name: str, limits: Limits, wanted_hz: int) -> Iterator[np.ndarray]:
    """The track's blocks, refused where they go on for too long, are no sound, or end too early."""
    count = 0
    of_a_frame = track.channels + wanted_hz / track.rate_hz
    _check_samples((track.expected_s or 0.0) * track.rate_hz * of_a_frame, track, name)
    for block in track.blocks:
        # False for NaN too. 32-bit integers are the largest samples there are.
        if len(block) and not (block.max() <= 2.0**31 and block.min() >= -(2.0**31)):
            time_s = track.start_s + count / track.rate_hz
            raise MediaError(name, f"has samples that are not finite (or beyond 32 bits) after {time_s:.1f} s")
        count += len(block)
        _check_duration(count / track.rate_hz, name, limits)
        _check_samples(count * of_a_frame, track, name)
        yield block
    got_s = count / track.rate_hz
    if count == 0:
        raise MediaError(name, "has no sound samples")
    if track.expected_s is not None and got_s < track.expected_s - _SLACK_S:
        raise MediaError(name, f"is truncated: expected {track.expected_s:.1f} s from its header, got {got_s:.1f} s")


def _check_samples(samples: float, track: _Track, name: str) -> None:
    if samples > track.most_samples:
        raise MediaError(
            name,
            f"has more samples than a recording of its size ({track.most_samples:,.0f} at most, read or made); "
            "choose a stretch with start_s and end_s",
        )


def _clips(spool: scratch.Scratch, first: int, last: int, config: AudioConfig) -> np.ndarray:
    """(K, samples) float32 views of samples [first, last) of the spool."""
    size = min(last - first, round(config.clip_s * config.rate_hz))
    views = np.empty((config.clips, size), np.float32)
    for view, start in zip(views, clip_starts(last - first, config), strict=True):
        spool.seek(4 * (first + start))
        view[:] = np.frombuffer(spool.read(4 * size), np.float32)
    return views
