"""Sound tracks: files, films and sample arrays -> blocks of mono samples, with what their headers announce."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import soundfile

from preprocess.formats import sniff
from preprocess.metadata import of_container
from preprocess.readers.sound_bytes import announces_length, from_its_beginning
from preprocess.source import Limits, MediaError, Source

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

SILENT = "has no sound track"
"""Why a film is no sound; whoever also reads its pictures need not tell this."""
# libsndfile knows the exact length and seeks to the exact sample; libav takes what it cannot read. The length of an MP3
# that does not announce it libsndfile guesses from the bits of its first frame, and stops there.
_LIBSNDFILE = frozenset({"wav", "flac", "ogg", "mp3", "aiff", "caf", "au", "w64", "sphere", "voc"})
# Names of FFmpeg's demuxers, where they are others.
_DEMUXERS = {"sphere": "nistsphere", "wavpack": "wv"}
_MALFORMED = 3  # SF_ERR_MALFORMED_FILE in sndfile.h
# Their headers tell no length; libav guesses one from the bit rate.
_LENGTH_UNKNOWN = frozenset({"aac", "ac3", "amr", "dts", "mp3"})
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
# Of the energy of its channels a mix has half where they are unlike, and all where they are equal. With less than this
# they cancel each other out.
_CANCELS = 0.01
_ENERGY_STEP = 8


class Mix:
    """The mean of the channels, or one of them. It tells afterwards whether that mean was silence made of sound."""

    def __init__(self, only: int | None = None) -> None:
        self.only = only
        self._mixed = 0.0
        self._apart = np.zeros(1)

    def __call__(self, block: np.ndarray, full_scale: int = 1) -> np.ndarray:
        """(T, channels) -> (T,) float32."""
        if self.only is not None and self.only < block.shape[1]:
            return block[:, self.only].astype(np.float32) / np.float32(full_scale)
        mono = _mixed(block, full_scale)
        if block.shape[1] > 1:
            heard = block[::_ENERGY_STEP].astype(np.float32) / np.float32(full_scale)
            energies = np.einsum("tc,tc->c", heard, heard, dtype=np.float64)
            self._apart = energies + (self._apart if len(self._apart) == len(energies) else 0.0)
            self._mixed += float(np.vdot(mono[::_ENERGY_STEP], mono[::_ENERGY_STEP]))
        return mono

    @property
    def cancels(self) -> bool:
        """Whether the channels, mixed, have hardly any of the energy that they have apart."""
        share = min(_CANCELS, 0.1 / len(self._apart))
        return len(self._apart) > 1 and self._mixed < share * float(self._apart.mean())

    @property
    def loudest(self) -> int:
        """The channel with the most energy."""
        return int(self._apart.argmax())

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of it."""
        if self.only is None:
            return ()
        return (f"its channels cancel each other out: channel {self.only + 1} was taken alone",)


@dataclass(frozen=True)
class Track:
    """Mono blocks from `start_s` of the medium on; `expected_s` is the length its header announces, if it does.

    `channels` is how many there were, `most_samples` how many of all of them may be read, and made of them.
    """

    rate_hz: float
    start_s: float
    expected_s: float | None
    blocks: Iterator[np.ndarray]
    channels: int = 1
    most_samples: float = math.inf
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


def open_track(source: Source, default_hz: int, limits: Limits, mix: Mix) -> AbstractContextManager[Track]:
    """A sound file, a film or samples in memory (at `default_hz`, unless the hints say otherwise) -> its open track.

    Raises MediaError for what has no sound, is damaged, or has an impossible rate.
    """
    return _encoded(source, limits, mix) if source.is_encoded else _in_memory(source, default_hz, limits, mix)


@contextmanager
def _encoded(source: Source, limits: Limits, mix: Mix) -> Iterator[Track]:
    found = sniff(source, limits)
    if found.family not in ("audio", "video"):
        raise MediaError(source.name, f"expected sound or a video with sound, got {found.name} ({found.family})")
    with source.open(limits) as whole:
        most = _FREE_SAMPLES + _SAMPLES_FOR_EACH_BYTE * whole.seek(0, 2)
        file, notes = from_its_beginning(whole, found)
        sound = None
        if found.name in _LIBSNDFILE and not (found.name == "mp3" and not announces_length(file)):
            try:
                # By the descriptor of a file: calls back into Python would take a quarter of the time.
                sound = soundfile.SoundFile(
                    file.fileno() if isinstance(file, io.BufferedReader) else file, closefd=False
                )
            except soundfile.LibsndfileError as error:
                # A codec it lacks (AAC in CAF, Speex in Ogg) is for libav, and so are headers that libsndfile reads
                # too strictly. In the other formats libav would pass over damage that libsndfile sees.
                if error.code == _MALFORMED and found.name not in ("mp3", "ogg"):
                    raise MediaError(
                        source.name, f"is damaged: its {found.name} header does not fit its size"
                    ) from None
                file.seek(0)
        if sound is None:
            with _libav(file, _DEMUXERS.get(found.name, found.name), source, limits, mix) as track:
                yield _bounded(replace(track, notes=notes), source, most)
        else:
            with sound:
                yield _bounded(replace(_libsndfile(sound, source, limits, mix), notes=notes), source, most)


def _bounded(track: Track, source: Source, most_samples: float) -> Track:
    low, high = _RATES_HZ
    if not low <= track.rate_hz <= high:
        raise MediaError(
            source.name,
            f"is sampled at {track.rate_hz:g} Hz, expected {low:,} to {high:,} Hz; measurements slower than sound are "
            "no sound: pass them as a table",
        )
    return replace(track, most_samples=most_samples)


@contextmanager
def _in_memory(source: Source, default_hz: int, limits: Limits, mix: Mix) -> Iterator[Track]:
    samples = source.content
    if not isinstance(samples, np.ndarray) or samples.dtype.kind != "f" or samples.ndim not in (1, 2):
        came = f"{samples.dtype} {samples.shape}" if isinstance(samples, np.ndarray) else type(samples).__name__
        raise MediaError(source.name, f"expected a float array (T,) or (channels, T) in -1..1, got {came}")
    samples = np.atleast_2d(samples)
    if not 1 <= samples.shape[0] <= _MAX_CHANNELS:
        raise MediaError(source.name, f"expected (channels, T), got {samples.shape}; transpose it")
    rate_hz = source.hints.rate_hz or float(default_hz)
    if not 0 < rate_hz < math.inf:
        raise MediaError(source.name, f"hint 'rate_hz': expected a positive rate, got {rate_hz:g}")
    total = samples.shape[1]
    start_s, end_s = _stretch(source, total / rate_hz, limits)
    first, last = round(start_s * rate_hz), round(min(end_s * rate_hz, total))
    blocks = (mix(samples[:, i : min(i + _BLOCK, last)].T) for i in range(first, last, _BLOCK))
    yield Track(rate_hz, start_s, None, blocks)


def _libsndfile(sound: soundfile.SoundFile, source: Source, limits: Limits, mix: Mix) -> Track:
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
            yield mix(block, full_scale)

    length_s, tags = wanted_s if known else None, of_container(sound.copy_metadata())
    return Track(rate_hz, start_s, length_s, blocks(), sound.channels, metadata=tags)


def _mixed(block: np.ndarray, full_scale: int = 1) -> np.ndarray:
    """(T, channels) -> (T,) float32, their mean. Numpy's own over so short a last axis takes ten times as long."""
    total = block[:, 0].astype(np.float32)
    for channel in range(1, block.shape[1]):
        total += block[:, channel]
    total *= np.float32(1 / (full_scale * block.shape[1]))
    return total


@contextmanager
def _libav(file: BinaryIO, container_name: str, source: Source, limits: Limits, mix: Mix) -> Iterator[Track]:
    import av  # takes a tenth of a second, and most sound needs libsndfile only

    try:
        # With the format given, no playlist demuxer can be chosen, and bytes are all it gets to see.
        with av.open(file, "r", format=container_name, metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise MediaError(source.name, SILENT)
            stream = _default(container)
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
            blocks = _cut(_mono(itertools.chain([frame], frames), mix), skip, keep)
            channels = frame.layout.nb_channels
            length_s = wanted_s if duration_s is not None else None
            tags = of_container({**stream.metadata, **container.metadata})
            yield Track(frame.rate, start_s, length_s, blocks, channels, metadata=tags)
    except av.FFmpegError as error:
        raise MediaError(source.name, f"could not be decoded: {error.strerror}") from error


def _default(container: InputContainer) -> AudioStream:
    """The sound track that is played where nobody chooses: the one marked so, else the first one for everybody."""
    from av.stream import Disposition  # see _libav

    for_some = Disposition.comment | Disposition.hearing_impaired | Disposition.visual_impaired
    return max(
        container.streams.audio,
        key=lambda s: (bool(s.disposition & Disposition.default), not s.disposition & for_some, -s.index),
    )


def _mono(frames: Iterator[Any], mix: Mix) -> Iterator[np.ndarray]:
    import av  # see _libav

    to_float = av.AudioResampler(format="fltp")
    for frame in frames:
        for part in to_float.resample(frame):
            yield mix(part.to_ndarray().T)


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


def checked(track: Track, name: str, limits: Limits, wanted_hz: int) -> Iterator[np.ndarray]:
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


def _check_samples(samples: float, track: Track, name: str) -> None:
    if samples > track.most_samples:
        raise MediaError(
            name,
            f"has more samples than a recording of its size ({track.most_samples:,.0f} at most, read or made); "
            "choose a stretch with start_s and end_s",
        )
