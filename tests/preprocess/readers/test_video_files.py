"""Films as cameras really write them: square pixels, ordinary colours, every container."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from preprocess.decoding.pool import DecodePool
from preprocess.decoding.protocol import read_here
from preprocess.formats import sniff
from preprocess.readers.video import VideoConfig, read
from preprocess.readers.video.hdr import HLG, PQ, tone_mapped
from preprocess.source import Limits, Segment, Source
from tests.preprocess.made import film

CONFIG, LIMITS = VideoConfig(), Limits()
COLOURS = np.array([[200, 30, 30], [30, 160, 60], [120, 120, 120], [40, 60, 180]], np.uint8)
TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])


def quarters(size: tuple[int, int], colours: np.ndarray = COLOURS) -> np.ndarray:
    """(H, W, 3): a colour in each quarter."""
    height, width = size
    return colours.reshape(2, 2, 3).repeat(height // 2, 0).repeat(width // 2, 1)


def seen(data: bytes, name: str) -> tuple[Segment, np.ndarray]:
    """The segment and the colours (4, 3) in the quarters of its first frame."""
    (segment,) = read_here(read, Source(data, name), CONFIG, LIMITS, "whole")
    frame = segment.views[0, 0]
    height, width = frame.shape[:2]
    rows, columns = [height // 4, 3 * height // 4], [width // 4, 3 * width // 4]
    return segment, frame[np.ix_(rows, columns)].reshape(4, 3).astype(int)


def with_time_stamps(data: bytes) -> bytes:
    """A transport stream as AVCHD has it: four bytes before each packet."""
    return b"".join(number.to_bytes(4) + data[at : at + 188] for number, at in enumerate(range(0, len(data), 188)))


FILES = {
    "x.mts": lambda: with_time_stamps(film(quarters((144, 192)), "mpegts")),
    "x.m2ts": lambda: with_time_stamps(film(quarters((144, 192)), "mpegts", "mpeg2video")),
    "x.mxf": lambda: film(quarters((144, 192)), "mxf", "mpeg2video", frames=25),
    "x.dv": lambda: film(quarters((576, 720)), "dv", "dvvideo", frames=25),
}


@pytest.mark.parametrize("name", FILES)
def test_the_picture_is_seen_in_every_container(name: str) -> None:
    data = FILES[name]()
    assert sniff(Source(data, name), LIMITS).family == "video"
    segment, colours = seen(data, name)
    assert np.abs(colours - COLOURS).max() <= 12
    assert segment.views.shape[2] == CONFIG.size


def test_they_are_read_in_the_sandbox() -> None:
    with DecodePool(1) as pool:
        for name in ("x.mts", "x.mxf"):
            source = Source(FILES[name](), name)
            assert pool.submit(read, source, CONFIG, LIMITS, "whole").result()[0].views.shape[2:4] == (224, 298)


@pytest.mark.parametrize(
    ("stored", "aspect", "shown"),
    [
        ((144, 128), Fraction(2), (224, 398)),
        ((288, 256), Fraction(1, 2), (504, 224)),
        ((144, 192), Fraction(16, 15), (224, 318)),
        ((144, 192), Fraction(100), (224, 298)),  # a damaged header
    ],
)
def test_pixels_are_square(stored: tuple[int, int], aspect: Fraction, shown: tuple[int, int]) -> None:
    segment, _ = seen(film(quarters(stored), aspect=aspect), "x.mp4")
    assert segment.views.shape[2:4] == pytest.approx(shown, abs=1)


def light(colours: np.ndarray) -> np.ndarray:
    """sRGB -> linear BT.2020, where 1 is a white page."""
    values = colours / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return linear @ np.linalg.inv(TO_BT709).T


def pq(nits: np.ndarray) -> np.ndarray:
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = (nits / 10_000) ** m1
    return ((c1 + c2 * power) / (1 + c3 * power)) ** m2


def hlg(nits: np.ndarray) -> np.ndarray:
    luminance = nits @ np.array([0.2627, 0.678, 0.0593])
    scene = nits / 1000 * ((luminance / 1000) ** (1 / 1.2 - 1))[..., None]
    low = np.sqrt(3 * scene)
    return np.where(low <= 0.5, low, 0.17883277 * np.log((12 * scene - 0.28466892).clip(1e-9)) + 0.55991073)


@pytest.mark.parametrize(("transfer", "coded"), [(PQ, pq), (HLG, hlg)])
def test_ordinary_colours_come_back(transfer: int, coded: object) -> None:
    codes = np.rint(coded(203 * light(COLOURS)) * 65_535).astype(np.uint16)  # type: ignore[operator]
    assert np.abs(tone_mapped(codes[None], transfer, 9)[0].astype(int) - COLOURS).max() <= 1


def test_what_is_brighter_than_a_page_stays_below_white_and_in_order() -> None:
    nits = np.array([203.0, 400.0, 1000.0])
    codes = np.rint(pq(nits)[:, None].repeat(3, 1) * 65_535).astype(np.uint16)
    grey = tone_mapped(codes[None], PQ, 9)[0]
    assert (np.diff(grey[:, 0].astype(int)) >= 0).all() and 225 < grey[0, 0] < grey[1, 0] <= grey[2, 0] <= 255
    assert np.ptp(grey, axis=1).max() <= 1


def test_a_film_in_pq_shows_its_colours() -> None:
    codes = quarters((128, 128), pq(203 * light(COLOURS)).reshape(4, 3))
    luma = codes @ np.array([0.2627, 0.678, 0.0593])
    planes = (64 + 876 * luma, 512 + 896 * (codes[..., 2] - luma) / 1.8814, 512 + 896 * (codes[..., 0] - luma) / 1.4746)
    frame = av.VideoFrame(128, 128, "yuv420p10le")
    for number, (plane, values) in enumerate(zip(frame.planes, planes, strict=True)):
        rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
        rows[:, : plane.width] = np.rint(values if number == 0 else values[::2, ::2])
        plane.update(rows.tobytes())
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        tags = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:log-level=none:qp=4"
        stream = file.add_stream("libx265", rate=10, options={"x265-params": tags})
        stream.width = stream.height = 128
        stream.pix_fmt = "yuv420p10le"
        for number in range(5):
            frame.pts, frame.time_base = number, Fraction(1, 10)
            frame.color_trc, frame.color_primaries, frame.colorspace = PQ, 9, 9
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    segment, colours = seen(out.getvalue(), "x.mp4")
    assert np.abs(colours - COLOURS).max() <= 5
    assert any("high dynamic range" in note for note in segment.notes)
