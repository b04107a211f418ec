"""Sound as recorders, cameras and taggers really write it: the right samples are heard."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile

from preprocess.decoding.pool import DecodePool
from preprocess.decoding.protocol import read_here
from preprocess.readers.audio import AudioConfig, read
from preprocess.source import Limits, Segment, Source
from tests.preprocess.made import RATE, sound, tone

CONFIG, LIMITS = AudioConfig(), Limits()
HZ = 1234.0


def heard(data: bytes, name: str) -> tuple[Segment, float, float]:
    """The segment, the pitch and the loudness (RMS) of its middle clip."""
    (segment,) = read_here(read, Source(data, name), CONFIG, LIMITS, "whole")
    clip = segment.views[len(segment.views) // 2]
    spectrum = np.abs(np.fft.rfft(clip))
    return segment, float(spectrum.argmax()) / len(clip) * CONFIG.rate_hz, float(clip.std())


def written(kind: str, samples: np.ndarray | None = None, subtype: str = "PCM_16") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, tone(HZ) if samples is None else samples, RATE, format=kind, subtype=subtype)
    return out.getvalue()


APE = b"APETAGEX" + struct.pack("<IIII8x", 2000, 0, 0, 0xA000_0000)
FILES = {
    "x.w64": lambda: written("W64"),
    "sphere.wav": lambda: written("NIST"),
    "x.voc": lambda: written("VOC"),
    "x.wv": lambda: sound([tone(HZ)], "wv", "wavpack"),
    "x.tta": lambda: sound([tone(HZ)], "tta", "tta"),
    "x.ac3": lambda: sound([tone(HZ, rate=48_000)], "ac3", "ac3", 48_000),
    "x.mxf": lambda: sound([tone(HZ, rate=48_000)], "mxf", "pcm_s16le", 48_000, pictures="mpeg2video"),
    "behind_ape.mp3": lambda: APE + sound([tone(HZ)], "mp3", "libmp3lame"),
    "behind_zeros.mp3": lambda: bytes(10_000) + sound([tone(HZ)], "mp3", "libmp3lame"),
    "behind_junk.mp3": lambda: b"HTTP/1.1 200 OK\r\n\r\n" * 20 + sound([tone(HZ)], "mp3", "libmp3lame"),
    "id3.aac": lambda: b"ID3\4\0\0\0\0\x10\0" + bytes(2048) + sound([tone(HZ)], "adts", "aac"),
    "x.webm": lambda: sound([tone(HZ, rate=48_000)], "webm", "libopus", 48_000),
    "x.3gp": lambda: sound([tone(HZ)], "3gp", "aac"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_the_tone_is_heard_in_every_kind_of_file(name: str) -> None:
    segment, pitch_hz, loudness = heard(FILES[name](), name)
    assert pitch_hz == pytest.approx(HZ, abs=1)
    assert loudness == pytest.approx(0.354, abs=0.02)
    assert segment.end_s == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("name", ["x.wv", "x.tta", "x.ac3", "sphere.wav", "behind_junk.mp3"])
def test_it_is_heard_in_the_sandbox_too(name: str) -> None:
    with DecodePool(1) as pool:
        (segment,) = pool.submit(read, Source(FILES[name](), name), CONFIG, LIMITS, "whole").result()
    assert segment.views.std() == pytest.approx(0.354, abs=0.03)


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF])
def test_a_header_that_was_never_closed_hides_nothing(size: int) -> None:
    data = bytearray(written("WAV"))
    data[4:8] = data[40:44] = size.to_bytes(4, "little")
    segment, pitch_hz, _ = heard(bytes(data), "x.wav")
    assert (pitch_hz, segment.end_s) == (pytest.approx(HZ, abs=1), pytest.approx(2, abs=0.01))
    assert size or "never closed" in segment.notes[0]


def test_an_empty_recording_with_a_list_behind_it_stays_empty() -> None:
    data = written("WAV", np.zeros(0, np.float32)) + b"LIST" + (4).to_bytes(4, "little") + b"INFO"
    with pytest.raises(ValueError, match="no sound samples"):
        heard(data, "x.wav")


@pytest.mark.parametrize("seconds", [1.0, 8.0])
def test_channels_that_cancel_each_other_out_are_no_silence(seconds: float) -> None:
    left = tone(HZ, seconds)
    segment, pitch_hz, loudness = heard(written("WAV", np.stack([0.9 * left, -0.9 * left], 1)), "x.wav")
    assert (pitch_hz, loudness) == (pytest.approx(HZ, abs=1), pytest.approx(0.318, abs=0.01))
    assert any("cancel each other out" in note for note in segment.notes)


def test_other_stereo_is_still_averaged() -> None:
    left, right = tone(HZ), tone(400)
    segment, _, loudness = heard(written("WAV", np.stack([left, right], 1)), "x.wav")
    assert (loudness, segment.notes) == (pytest.approx(0.25, abs=0.01), ())
    segment, _, loudness = heard(written("WAV", np.zeros((RATE, 2), np.float32)), "x.wav")
    assert loudness == 0 and not any("cancel" in note for note in segment.notes)


@pytest.mark.parametrize("default", [0, 1, 2])
def test_the_default_track_of_a_film_is_heard(default: int) -> None:
    tracks = [np.zeros(2 * RATE, np.float32), tone(HZ), tone(500)]
    data = sound(tracks, "matroska", "flac", default=default, pictures="libx264")
    _, pitch_hz, loudness = heard(data, "x.mkv")
    assert loudness == pytest.approx(0.0 if default == 0 else 0.354, abs=0.01)
    assert default == 0 or pitch_hz == pytest.approx((0, HZ, 500)[default], abs=1)


def test_the_length_of_an_mp3_that_announces_none_is_not_guessed() -> None:
    """A guess by its size counts the tag too, and so finds the sound cut off."""
    whole = sound([tone(HZ, seconds=4)], "mp3", "libmp3lame")
    begin = max(whole.find(b"Xing"), whole.find(b"Info"))
    frames = whole[whole.index(b"\xff", begin) :]
    tag = b"ID3\4\0\0" + bytes(((30_000 >> 7 * (3 - i)) & 127) for i in range(4)) + bytes(30_000)
    segment, hz, _ = heard(tag + frames, "x.mp3")
    assert segment.end_s == pytest.approx(4, abs=0.15)
    assert hz == pytest.approx(HZ, abs=2)
