"""Pictures as phones, cameras and programs write them."""

from __future__ import annotations

import io

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image
from pillow_jxl import JpegXLImagePlugin  # registers the writer  # noqa: F401

from preprocess.decoding.pool import DecodePool
from preprocess.decoding.protocol import read_here
from preprocess.formats import sniff
from preprocess.readers.image import ImageConfig, read
from preprocess.source import Limits, MediaError, Segment, Source
from tests.preprocess.readers.test_picture_facts import exif

CONFIG, LIMITS = ImageConfig(), Limits()
COLOURS = np.array([[200, 30, 30], [30, 160, 60], [120, 120, 120], [40, 60, 180]], np.uint8)


def quarters(size: int = 256) -> Image.Image:
    return Image.fromarray(COLOURS.reshape(2, 2, 3).repeat(size // 2, 0).repeat(size // 2, 1))


def jpeg(size: int = 256) -> bytes:
    out = io.BytesIO()
    quarters(size).save(out, "JPEG", quality=95)
    return out.getvalue()


def heic(brand: bytes = b"heic") -> bytes:
    out = io.BytesIO()
    pillow_heif.from_pillow(quarters()).save(out, quality=95, exif=exif().tobytes())
    return out.getvalue()[:8] + brand + out.getvalue()[12:]


def jxl() -> bytes:
    out = io.BytesIO()
    quarters().save(out, "JXL")
    return out.getvalue()


def psd() -> bytes:
    """A Photoshop document without layers: its composite alone, not compressed."""
    planes = np.asarray(quarters()).transpose(2, 0, 1).tobytes()
    head = b"8BPS" + b"\0\1" + bytes(6) + b"\0\3" + (256).to_bytes(4) + (256).to_bytes(4) + b"\0\x08\0\3"
    return head + bytes(4) + bytes(4) + bytes(4) + b"\0\0" + planes


def dng() -> bytes:
    """A raw file: a small thumbnail, the sensor's values, and the camera's large JPEG in a directory of its own."""
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as file:
        file.write(np.zeros((16, 16, 3), np.uint8), photometric="rgb")
        file.write(np.arange(4096, dtype=np.uint16).reshape(64, 64), photometric="minisblack")
    return out.getvalue() + jpeg(64) + bytes(100) + jpeg(256)


FILES = {
    "x.heic": heic,
    "x.hif": lambda: heic(b"heix"),
    "x.heif": lambda: heic(b"mif1"),
    "x.jxl": jxl,
    "x.psd": psd,
    "x.dng": dng,
    "x.mrw": lambda: b"\0MRM" + bytes(500) + jpeg(256),
    "x.ppm": lambda: b"P6\n256 256\n255\n" + quarters().tobytes(),
    "x.cr3": lambda: b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(500) + jpeg(64) + bytes(20) + jpeg(256),
    "x.raf": lambda: b"FUJIFILMCCD-RAW 0201" + bytes(500) + jpeg(256),
}


def seen(segment: Segment) -> np.ndarray:
    return segment.views[0][np.ix_([56, 168], [56, 168])].reshape(4, 3).astype(int)


@pytest.mark.parametrize("name", FILES)
def test_the_picture_is_seen_from_within_the_sandbox(name: str) -> None:
    source = Source(FILES[name](), name)
    assert sniff(source, LIMITS).family == "image"
    with DecodePool(1) as pool:
        (segment,) = pool.submit(read, source, CONFIG, LIMITS, "whole").result()
    wanted = COLOURS
    if name.startswith("x.he") or name == "x.hif":  # libheif turns it upright
        assert segment.metadata["camera"] == "Google Pixel 4a"
        wanted = COLOURS[[2, 0, 3, 1]]
    assert np.abs(seen(segment) - wanted).max() <= 6
    assert any("raw file" in note for note in segment.notes) == (name in ("x.dng", "x.cr3", "x.raf", "x.mrw"))


@pytest.mark.parametrize("magic", [b"II*\0", b"IIRO", b"IIU\0", b"MM\0*"])
def test_a_raw_file_has_its_date_camera_and_which_side_is_up(magic: bytes) -> None:
    """They lie in the directories of the raw file; its JPEG often has none."""
    exif = Image.Exif()
    exif.endian = ">" if magic[:1] == b"M" else "<"
    exif[0x0110], exif[0x0112] = "NIKON D90", 6
    exif.get_ifd(0x8769)[0x9003] = "2019:06:15 10:20:30"
    tiff = exif.tobytes().removeprefix(b"Exif\0\0")
    source = Source(magic + tiff[4:] + bytes(100) + jpeg(256), "x.nef")
    (segment,) = read_here(read, source, CONFIG, LIMITS, "whole")
    assert segment.metadata["camera"] == "NIKON D90"
    assert segment.metadata["taken"] == "2019-06-15T10:20:30"
    assert np.abs(seen(segment) - COLOURS[[2, 0, 3, 1]]).max() <= 6


def test_the_boxes_of_canon_are_read() -> None:
    exif, inner = Image.Exif(), Image.Exif()
    exif[0x0110], inner[0x9003] = "Canon EOS R5", "2021:01:02 03:04:05"
    boxes = b"".join(
        (len(tiff) + 8).to_bytes(4) + kind + tiff
        for kind, one in ((b"CMT1", exif), (b"CMT2", inner))
        for tiff in [one.tobytes().removeprefix(b"Exif\0\0")]
    )
    content = b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + boxes + bytes(500) + jpeg(256)
    (segment,) = read_here(read, Source(content, "x.cr3"), CONFIG, LIMITS, "whole")
    assert (segment.metadata["camera"], segment.metadata["taken"]) == ("Canon EOS R5", "2021-01-02T03:04:05")


def test_a_raw_file_without_a_picture_says_so() -> None:
    with pytest.raises(MediaError, match="without a picture in it"):
        read_here(read, Source(b"FUJIFILMCCD-RAW" + bytes(5_000), "x.raf"), CONFIG, LIMITS, "whole")


@pytest.mark.parametrize(("size", "side"), [((1200, 300), "width"), ((200, 1000), "height")])
def test_what_lies_at_the_end_of_a_panorama_is_seen(size: tuple[int, int], side: str) -> None:
    picture = Image.new("RGB", size, "white")
    short = min(size)
    picture.paste((200, 30, 30), (size[0] - short, size[1] - short, *size))
    whole, *parts = read_here(read, Source(picture, "x"), CONFIG, LIMITS, "segments")
    assert (whole.views == 255).all() and whole.at is None
    assert len(parts) == max(size) // short
    assert parts[0].at == f"0.00 to {short / max(size):.2f} of its {side}"
    assert parts[-1].at == f"{1 - short / max(size):.2f} to 1.00 of its {side}"
    assert np.abs(parts[-1].views.astype(int) - (200, 30, 30)).max() <= 2
    assert (parts[0].views == 255).all()


def test_other_pictures_have_one_segment() -> None:
    for size in ((600, 300), (300, 600), (300, 300)):
        assert len(read_here(read, Source(Image.new("RGB", size), "x"), CONFIG, LIMITS, "segments")) == 1
    assert len(read_here(read, Source(Image.new("RGB", (1200, 300)), "x"), CONFIG, LIMITS, "whole")) == 1
    assert len(read_here(read, Source(Image.new("RGB", (9000, 100)), "x"), CONFIG, LIMITS, "segments")) == 33
