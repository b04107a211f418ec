"""Sound: files, sound tracks of videos and sample arrays -> mono clips -> log-mel tensors."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import numpy as np

from preprocess.decoding import scratch
from preprocess.decoding.protocol import Returns, returns
from preprocess.dsp import pauses
from preprocess.dsp.filterbank import FRAME_S, log_mel
from preprocess.dsp.resampling import resampled
from preprocess.readers import tracks
from preprocess.readers.tracks import Mix, Track
from preprocess.source import Limits, MediaError, Plan, Segment, Source

if TYPE_CHECKING:
    import torch

# Above this (17 minutes at 16 kHz) the resampled sound waits on disk, so that hours of it need no memory.
_SPOOL_BYTES = 64 * 2**20


@dataclass(frozen=True)
class AudioConfig:
    """Preprocessing constants of sound; the defaults are ImageBind's (`imagebind/data.py`), `segment_s` is ours.

    `frames` is the width the log-mel picture is padded or cut to, `mean` and `std` normalise it as (x - mean) / std.
    `cut` says where plan "segments" cuts: every `segment_s`, or where sound begins behind a pause (`dsp.pauses`).
    With `raw` a prepared view is the wave itself, (samples,) in -1..1, for encoders that bring the preprocessing of
    their makers; of a sound that is shorter than a clip it is as long as the sound.
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
    raw: bool = field(default=False, metadata={"added": True})


def _declare(config: AudioConfig, limits: Limits, plan: Plan) -> Returns:
    least_s = config.clip_s if config.cut == "pauses" else max(config.segment_s, config.clip_s)
    segments = 1 if plan == "whole" else 1 + int(limits.max_duration_s / least_s)
    return Returns("float32", (None,), config.clips, segments, elements=round(config.clip_s * config.rate_hz))


@returns(_declare)
def read(source: Source, config: AudioConfig, limits: Limits, plan: Plan) -> list[Segment]:
    """A sound file, a video with a sound track, or float samples -> segments of views (K, samples) float32 mono.

    Samples in memory are a float array (T,) or (channels, T) at `hints.rate_hz`, else at `config.rate_hz`. Channels
    are averaged (the reference takes the first), the rate becomes `config.rate_hz`, and `hints.start_s`/`end_s` choose
    a stretch. Where channels cancel each other out (a plug wired the wrong way round), the loudest is taken instead.
    Of several sound tracks the default one is read.

    The K clips of a segment are evenly spaced from its first to its last sample, as in ImageBind; a segment shorter
    than a clip gives K equal views of its own length, which `prepare` pads in the log-mel domain, as the reference
    does. Plan "segments" cuts as `config.cut` says; a rest shorter than a clip joins the segment before it.

    Raises MediaError for content without sound, shorter than one 25 ms frame, longer than `max_duration_s` (before
    decoding, where the header tells), truncated (ogg, and raw streams cut between two packets, do not show it), with
    samples that are not finite, and for hints outside of the sound.
    """
    by_pauses = plan == "segments" and config.cut == "pauses"
    with scratch.Scratch(_SPOOL_BYTES) as spool:
        mix, loudness = Mix(), pauses.Loudness(config.rate_hz) if by_pauses else None
        track, count = _spooled(spool, source, config, limits, mix, loudness)
        if mix.cancels:
            mix, loudness = Mix(mix.loudest), pauses.Loudness(config.rate_hz) if by_pauses else None
            track, count = _spooled(spool, source, config, limits, mix, loudness)
        if count < int(config.rate_hz * FRAME_S):
            raise MediaError(source.name, f"has {count / config.rate_hz * 1000:g} ms of sound, 25 ms are the least")
        shortest = round(config.clip_s * config.rate_hz)
        notes = (*track.notes, *mix.notes)
        if count < shortest and not config.raw:
            notes = (*notes, f"shorter than a clip of {config.clip_s:g} s: padded")
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
                track.metadata if first == 0 else {},
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
    """(K, samples) float32 on any device -> (K, 1, num_mel_bins, frames) there, as `prepare`; raw ones as they are."""
    if config.raw:
        return waveforms
    energies = log_mel(waveforms - waveforms.mean(1, keepdim=True), config.rate_hz, config.num_mel_bins)
    pictures = energies.new_zeros(len(energies), config.num_mel_bins, config.frames)
    filled = pictures[..., : energies.shape[1]]
    filled.copy_(energies.transpose(1, 2)[..., : config.frames])
    return pictures.sub_(config.mean).div_(config.std).unsqueeze(1)


def shape(config: AudioConfig) -> tuple[int | None, ...]:
    """(1, num_mel_bins, frames), the shape of one prepared view; (None,) of a raw one, whose length differs."""
    return (None,) if config.raw else (1, config.num_mel_bins, config.frames)


def clip_starts(count: int, config: AudioConfig) -> list[int]:
    """`count` samples -> the first sample of each of the K clips, with the reference's arithmetic.

    Starts are i * (duration - clip_s) / (K - 1) seconds, cut to a sample (pytorchvideo's ConstantClipsPerVideoSampler).
    """
    last_start_s = Fraction(max(count / config.rate_hz - Fraction(config.clip_s), 0))
    return [int(i * last_start_s / max(config.clips - 1, 1) * config.rate_hz) for i in range(config.clips)]


def _spooled(
    spool: scratch.Scratch,
    source: Source,
    config: AudioConfig,
    limits: Limits,
    mix: Mix,
    loudness: pauses.Loudness | None,
) -> tuple[Track, int]:
    """The track, and how many of its samples (mono, at the config's rate) the spool now has."""
    spool.seek(0)
    with tracks.open_track(source, config.rate_hz, limits, mix) as track:
        blocks = tracks.checked(track, source.name, limits, config.rate_hz)
        for block in resampled(blocks, track.rate_hz, config.rate_hz):
            if loudness:
                loudness.add(block)
            spool.write(np.ascontiguousarray(block, np.float32).data)
        return track, spool.tell() // 4


def _clips(spool: scratch.Scratch, first: int, last: int, config: AudioConfig) -> np.ndarray:
    """(K, samples) float32 views of samples [first, last) of the spool."""
    size = min(last - first, round(config.clip_s * config.rate_hz))
    views = np.empty((config.clips, size), np.float32)
    for view, start in zip(views, clip_starts(last - first, config), strict=True):
        spool.seek(4 * (first + start))
        view[:] = np.frombuffer(spool.read(4 * size), np.float32)
    return views
