"""Small files that would cost much: each is refused, or read, in a moment and in little memory; real ones are read."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest
import soundfile
import tifffile
from PIL import Image
from pyarrow import parquet

from preprocess.decoding.pool import DecodePool
from preprocess.readers import audio, depth, image, imu, jpeg, thermal, video
from preprocess.source import Limits, MediaError, Source

pytestmark = pytest.mark.attack

# The processor's time does not depend on what else runs here. 2 s, and what a worker takes to import a reader.
LIMITS = Limits(decode_cpu_s=4.0, worker_memory_bytes=3 * 2**30)
READERS: dict[str, tuple[Any, Any]] = {
    "image": (image.read, image.ImageConfig()),
    "depth": (depth.read, depth.DepthConfig()),
    "thermal": (thermal.read, thermal.ThermalConfig()),
    "audio": (audio.read, audio.AudioConfig()),
    "video": (video.read, video.VideoConfig()),
    "imu": (imu.read, imu.ImuConfig()),
}


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(workers=1) as pool:
        yield pool


def blank(name: str, size: tuple[int, int], mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, name, **options)
    return buffer.getvalue()


def scan_bomb(side: int, scans: int) -> bytes:
    """A progressive JPEG of one colour whose first scan is repeated: each goes through all blocks."""
    data = blank("JPEG", (side, side), "L", progressive=True, optimize=True)
    starts = [i for i in range(len(data) - 1) if data[i : i + 2] == b"\xff\xda"]
    first_ac = data[starts[1] : starts[2]] if len(starts) > 2 else data[starts[-1] : -2]
    header_end = first_ac.find(b"\xff\xc4")
    scan = first_ac if header_end < 0 else first_ac[:header_end]
    return data[: starts[1]] + scan * scans + data[starts[1] :]


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, **options)
    return buffer.getvalue()


def wav(rate_hz: int, samples: int, channels: int = 1) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros((samples, channels), np.int16), rate_hz, format="WAV")
    return buffer.getvalue()


def flac_of_silence(seconds: float, channels: int = 8, rate_hz: int = 192_000) -> bytes:
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate_hz, channels, format="FLAC", subtype="PCM_16") as file:
        block = np.zeros((2**20, channels), np.int16)
        for _ in range(round(seconds * rate_hz) // 2**20):
            file.write(block)
    return buffer.getvalue()


def gif_of_comments(count: int) -> bytes:
    data = blank("GIF", (8, 8), "P")
    place = 13 + (3 << (data[10] & 7) + 1)
    return data[:place] + b"!\xfe" + b"\x01c" * count + b"\0" + data[place:]


def png_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + b"".join(itertools.starmap(chunk, chunks))


def png_of_zeros(side: int, depth: int, colour: int, bytes_a_pixel: float) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = bytes(1 + round(side * bytes_a_pixel))
    data = b"".join(packer.compress(row * 64) for _ in range(side // 64)) + packer.flush()
    return png_chunks((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))


def tiff_of(values: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def npy(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(64)


def exr(side: int, channels: int) -> bytes:
    import OpenEXR

    plane = np.zeros((side, side), np.float32)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    path = Path(exr.folder) / "a.exr"  # type: ignore[attr-defined]
    OpenEXR.File(header, {f"c{i}.Z" if i else "Z": plane for i in range(channels)}).write(str(path))
    return path.read_bytes()


def film(side: int, frames: int, rate_hz: int = 30) -> bytes:
    """A black MP4. Its first two frames are encoded; the second, which changes nothing, is repeated."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate_hz, options={"preset": "ultrafast", "tune": "zerolatency"})
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, rate_hz)
        picture = av.VideoFrame(side, side, "yuv420p")
        for plane in picture.planes:
            plane.update(bytes(plane.buffer_size))
        packets = []
        for number in range(2):
            picture.pts = number
            packets += [bytes(packet) for packet in stream.encode(picture)]
        for number in range(frames):
            packet = av.Packet(packets[min(number, 1)])
            packet.stream, packet.time_base = stream, Fraction(1, rate_hz)
            packet.pts = packet.dts = number
            packet.is_keyframe = number == 0
            container.mux(packet)
    return buffer.getvalue()


def patched(data: bytes, kind: bytes, offset: int, value: bytes) -> bytes:
    """An MP4 with bytes of its first box `kind` exchanged, `offset` behind its name."""
    place = data.index(kind) + len(kind) + offset
    return data[:place] + value + data[place + len(value) :]


IMU = {name: np.zeros(4_000_000, np.float64) for name in ("ax", "ay", "az", "gx", "gy", "gz", "timestamp")}
COSTLY: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "progressive.jpg": ("image", lambda: scan_bomb(4096, 600), "scans"),
    "progressive2.jpg": ("image", lambda: scan_bomb(1024, 3000), "scans"),
    "big.jp2": ("image", lambda: blank("JPEG2000", (4100, 4100)), "announces 16,810,000 pixels"),
    "big.webp": ("image", lambda: blank("WEBP", (8000, 8000), lossless=True), "announces 64,000,000"),
    "big.avif": ("image", lambda: blank("AVIF", (5800, 5800), speed=10), "announces 33,640,000"),
    "big.png": ("image", lambda: png_of_zeros(10240, 8, 2, 3), "announces 104,857,600"),
    "bits.png": ("image", lambda: png_of_zeros(14080, 1, 0, 1 / 8), "announces 198,246,400"),
    "deep.png": ("image", lambda: png_of_zeros(7040, 16, 0, 2), "announces 49,561,600"),
    "holes.depth.png": ("depth", lambda: png_of_zeros(7040, 16, 0, 2), "announces 49,561,600"),
    "grey.thermal.png": ("thermal", lambda: png_of_zeros(7040, 8, 0, 1), "announces 49,561,600"),
    "big.gif": ("image", lambda: blank("GIF", (9000, 9000), "P"), "announces 81,000,000"),
    "comments.gif": ("image", lambda: gif_of_comments(2**20), "comments"),
    "floats.tif": ("image", lambda: tiff_of(np.zeros((4200, 4200)), compression="zlib"), "announces 17,640,000"),
    "predictor.tif": (
        "thermal",
        lambda: tiff_of(np.zeros((6000, 6000), np.int32), compression="zlib", predictor=True),
        "announces 36,000,000",
    ),
    "bytes.tif": (
        "image",
        lambda: tiff_of(np.zeros((9000, 9000), np.uint8), compression="zlib"),
        "announces 81,000,000",
    ),
    "channels.depth.exr": ("depth", lambda: exr(1024, 24), "announces 25,165,824"),
    "large.depth.npy": ("depth", lambda: npy("(99999, 99999)"), "limit"),
    "long.imu.npy": ("imu", lambda: npy("(99999999999999999999, 6)"), "limit"),
    "endless.imu.npy": ("imu", lambda: npy("(" + "9" * 90 + ", 6)"), "limit"),
    "slow.wav": ("audio", lambda: wav(7, 24_000), "sampled at 7 Hz"),
    "fast.wav": ("audio", lambda: wav(2_000_000_000, 24_000), "sampled at 2e"),
    "silence.flac": ("audio", lambda: flac_of_silence(60), "more samples than a recording"),
    "zeros.parquet": ("imu", lambda: parquet_bytes(pa.table(IMU)), "announces 4,000,000 rows"),
    "strings.parquet": (
        "imu",
        lambda: parquet_bytes(pa.table({name: pa.array(["1" * 10**5] * 400) for name in ("ax", "ay", "az")})),
        "holds string, expected numbers",
    ),
    "lists.parquet": (
        "imu",
        lambda: parquet_bytes(pa.table({name: pa.array([[0.0] * 10**5] * 100) for name in ("ax", "ay", "az")})),
        "expected numbers",
    ),
    "columns.parquet": (
        "imu",
        lambda: parquet_bytes(pa.table({f"c{i}": [0.0] for i in range(20_000)})),
        "could not be read as a parquet table|has no acc_x",
    ),
    "field.csv": ("imu", lambda: b"time_s,ax,ay,az\n0," + b"9" * 2**22 + b",0,0\n", "could not be"),
    "header.csv": (
        "imu",
        lambda: ",".join(f"c{i}" for i in range(2**19)).encode() + b"\n1\n",
        "header line|has no acc_x",
    ),
    "film.mp4": ("video", lambda: film(3840, 200), "more and larger frames"),
}


@pytest.mark.parametrize("name", COSTLY)
def test_a_costly_file_is_refused_before_it_costs(pool: DecodePool, name: str, tmp_path: Path) -> None:
    exr.folder = tmp_path  # type: ignore[attr-defined]
    modality, make, reason = COSTLY[name]
    data = make()
    assert len(data) < 2**23, f"{len(data):,} bytes is not small"
    read, config = READERS[modality]
    with pytest.raises(MediaError, match=reason):
        pool.submit(read, Source(data, name), config, LIMITS, "whole").result()


def test_the_same_jpeg_costs_much_without_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg, "check_scans", lambda *_: False)
    import time

    began = time.process_time()
    assert image.read(Source(scan_bomb(2048, 600), "x.jpg"), image.ImageConfig(), LIMITS, "whole")
    with_bomb = time.process_time() - began
    began = time.process_time()
    image.read(Source(scan_bomb(2048, 1), "x.jpg"), image.ImageConfig(), LIMITS, "whole")
    assert with_bomb > 5 * (time.process_time() - began)


@pytest.mark.parametrize(
    ("kind", "offset", "value"),
    [
        (b"mvhd", 12, struct.pack(">II", 1, 2**31)),
        (b"mvhd", 12, struct.pack(">II", 2**32 - 1, 1)),
        (b"mdhd", 12, struct.pack(">II", 1, 2**31)),
        (b"mdhd", 12, struct.pack(">II", 2**32 - 1, 2**32 - 1)),
        (b"elst", 4, struct.pack(">Iii", 1, 2**31 - 1, 2**31 - 1)),
        (b"elst", 4, struct.pack(">Iii", 2**16, 1, -(2**31))),
        (b"stts", 4, struct.pack(">III", 1, 2**32 - 1, 1)),
        (b"stts", 4, struct.pack(">III", 1, 30, 2**31 - 1)),
        (b"stsz", 4, struct.pack(">II", 1, 2**31 - 1)),
    ],
)
@pytest.mark.parametrize("plan", ["whole", "segments"])
def test_absurd_tables_of_a_film_cost_nothing(
    pool: DecodePool, kind: bytes, offset: int, value: bytes, plan: Any
) -> None:
    data = patched(film(64, 30), kind, offset, value)
    limits = replace(LIMITS, decode_timeout_s=20)
    for modality in ("video", "audio"):
        read, config = READERS[modality]
        error = pool.submit(read, Source(data, "x.mp4"), config, limits, plan).exception()
        assert error is None or (isinstance(error, MediaError) and "longer than" not in error.reason)


def test_real_files_of_these_kinds_are_read(pool: DecodePool, tmp_path: Path) -> None:
    exr.folder = tmp_path  # type: ignore[attr-defined]
    noise = np.random.default_rng(0)
    photo = io.BytesIO()
    Image.fromarray(noise.integers(0, 256, (1500, 2000, 3), dtype=np.uint8)).save(photo, "JPEG", progressive=True)
    ramp = np.arange(5000) / 100
    table = {name: np.sin(ramp) for name in ("ax", "ay", "az", "gx", "gy", "gz")}
    real: list[tuple[str, str, bytes]] = [
        ("image", "photo.jpg", photo.getvalue()),
        ("image", "page.png", png_of_zeros(4928, 8, 2, 3)),  # a blank A4 page at 600 dpi
        ("image", "plan.tif", tiff_of(np.zeros((7000, 9000), np.uint8), compression="zlib")),
        ("image", "photo.jp2", blank("JPEG2000", (1000, 1000))),
        ("image", "one.gif", gif_of_comments(1000)),
        ("depth", "room.depth.exr", exr(512, 2).replace(b"\0" * 0, b"")),
        ("audio", "sensor.wav", wav(5000, 50_000)),
        ("audio", "hour.flac", flac_of_silence(40, channels=1, rate_hz=48_000)),
        ("imu", "walk.parquet", parquet_bytes(pa.table({"timestamp": ramp, **table}))),
        ("video", "still.mp4", film(320, 90)),
    ]
    for modality, name, data in real:
        read, config = READERS[modality]
        error = pool.submit(read, Source(data, name), config, replace(LIMITS, decode_cpu_s=20), "whole").exception()
        assert error is None or "has no valid pixel" in str(error), name


def test_four_seconds_of_a_long_film_are_read(pool: DecodePool) -> None:
    from preprocess.source import Hints

    limits = replace(LIMITS, max_duration_s=5.0)
    data = film(64, 300)
    read, config = READERS["video"]
    with pytest.raises(MediaError, match="lasts 10 s, the limit is 5"):
        pool.submit(read, Source(data, "x.mp4"), config, limits, "whole").result()
    part = Source(data, "x.mp4", Hints(start_s=3.0, end_s=7.0))
    assert pool.submit(read, part, config, limits, "whole").result()[0].start_s == 3.0
