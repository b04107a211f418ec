"""EXIF, IPTC and XMP of pictures, read in the sandbox."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import ExifTags, Image

from preprocess.decoding.pool import DecodePool
from preprocess.decoding.protocol import MalformedReplyError, announced, header_of, read_here
from preprocess.readers.image import ImageConfig, read
from preprocess.source import Limits, Segment, Source
from tests.preprocess.test_metadata import PACKET

CONFIG, LIMITS = ImageConfig(), Limits()
FACTS = {
    "width": 40,
    "height": 60,
    "orientation": 6,
    "camera": "Google Pixel 4a",
    "lens": "Pixel lens",
    "focal_length_mm": 4.38,
    "iso": 55,
    "description": "Brücke",
    "latitude": -48.1372222,
    "longitude": 11.5755556,
    "altitude_m": 519.1,
    "taken": "2019-06-15T10:20:30+02:00",
    "taken_from": "exif",
}


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[ExifTags.Base.Make], tags[ExifTags.Base.Model] = "Google", "Pixel 4a"
    tags[ExifTags.Base.Orientation] = 6
    tags[ExifTags.Base.ImageDescription] = "Brücke".encode()
    inner = tags.get_ifd(ExifTags.IFD.Exif)
    inner |= {0x9003: "2019:06:15 10:20:30", 0x9011: "+02:00", 0xA434: "Pixel lens", 0x920A: 4.38, 0x8827: 55}
    place = tags.get_ifd(ExifTags.IFD.GPSInfo)
    place |= {1: "S", 2: (48.0, 8.0, 14.0), 3: "E", 4: (11.0, 34.0, 32.0), 5: b"\0", 6: 519.1}
    return tags


def picture(kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (60, 40), "teal").save(out, kind, **options)  # type: ignore[arg-type]
    return out.getvalue()


def facts(data: bytes, name: str = "x") -> dict[str, object]:
    (segment,) = read_here(read, Source(data, name), CONFIG, LIMITS, "whole")
    return dict(segment.metadata)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif(kind: str) -> None:
    found = facts(picture(kind, exif=exif()))
    assert {key: found.get(key) for key in FACTS if key != "orientation"} == pytest.approx(
        {key: value for key, value in FACTS.items() if key != "orientation"}
    )


def test_the_worker_sends_it_back() -> None:
    with DecodePool(1) as pool:
        (segment,) = pool.submit(read, Source(picture(exif=exif()), "x"), CONFIG, LIMITS, "whole").result()
    assert segment.metadata == FACTS


def test_iptc_and_xmp_where_exif_says_nothing() -> None:
    def record(number: int, text: str) -> bytes:
        return b"\x1c\x02" + bytes([number]) + struct.pack(">H", len(text.encode())) + text.encode()

    iptc = record(5, "Title") + record(25, "bridge") + record(25, "river") + record(120, "An old bridge")
    block = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    data = picture()
    with_iptc = data[:2] + b"\xff\xed" + struct.pack(">H", len(block) + 2) + block + data[2:]
    assert facts(with_iptc) == {
        "width": 60,
        "height": 40,
        "title": "Title",
        "keywords": ["bridge", "river"],
        "description": "An old bridge",
    }
    found = facts(picture(xmp=PACKET.encode()))
    assert (found["title"], found["taken_from"], found["keywords"]) == ("Rain & sun", "xmp", ["bridge", "river"])


def test_damaged_exif_costs_nothing() -> None:
    data = bytearray(picture(exif=exif()))
    at = data.index(b"Exif\0\0")
    data[at + 14 : at + 60] = b"\xff" * 46
    assert facts(bytes(data))["width"] in (60, 40)


@pytest.mark.parametrize("metadata", [{"unknown": 1}, {"title": 7}, {"title": "x" * 3_000}, [], {"iso": True}])
def test_metadata_that_no_reader_sends_are_refused(metadata: object) -> None:
    import json

    honest = json.loads(header_of([Segment(np.zeros((1, 2), np.uint8))]))
    assert announced(json.dumps(honest).encode(), None, 100)
    honest["segments"][0]["metadata"] = metadata
    with pytest.raises(MalformedReplyError):
        announced(json.dumps(honest).encode(), None, 100)
