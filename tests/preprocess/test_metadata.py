"""What media say of themselves, and the bounds on it."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess import xmp
from preprocess.metadata import bounded, camera_of, iso_position, moment, of_container

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["title", "keywords", "latitude", "longitude", "taken", "iso", "unknown", "text"])


@given(st.dictionaries(NAMES, JSON, max_size=8))
def test_whatever_comes_is_bounded_and_comes_through_a_second_time(values: dict[str, object]) -> None:
    once = bounded(values)
    assert "unknown" not in once
    assert bounded(json.loads(json.dumps(once, allow_nan=False))) == once


def test_too_much_is_cut_and_what_is_nowhere_is_left_out() -> None:
    found = bounded({"title": "x\0\x07" * 5_000, "keywords": ["a"] * 3 + [7, "b"], "latitude": 91.0, "longitude": 0.0})
    assert len(found["title"]) <= 2_000 and "\0" not in found["title"]
    assert (found["keywords"], "latitude" in found, "longitude" in found) == (["a", "b"], False, False)
    assert bounded(["title"]) == bounded("title") == {}


@pytest.mark.parametrize(
    ("text", "offset", "expected"),
    [
        ("2019:06:15 10:20:30", None, "2019-06-15T10:20:30"),
        ("2019:06:15 10:20:30", "+02:00", "2019-06-15T10:20:30+02:00"),
        ("2019-06-15T10:20:30.123456Z", None, "2019-06-15T10:20:30Z"),
        ("2021-07-01T18:00:00+0200", None, "2021-07-01T18:00:00+02:00"),
        ("2019-06-15", None, "2019-06-15"),
        ("0000:00:00 00:00:00", None, ""),
        ("2019:13:45 10:20:30", None, ""),
        ("    :  :     :  :  ", None, ""),
        (7, None, ""),
    ],
)
def test_times(text: object, offset: str | None, expected: str) -> None:
    assert moment(text, offset) == expected


def test_cameras_positions_and_tags_of_containers() -> None:
    assert camera_of("Canon", "Canon EOS 5D") == "Canon EOS 5D"
    assert camera_of("NIKON CORPORATION", "NIKON D90") == "NIKON D90"
    assert camera_of("Google", "Pixel 4a") == "Google Pixel 4a"
    assert iso_position("+48.1372-011.5755+519.1/") == {"latitude": 48.1372, "longitude": -11.5755, "altitude_m": 519.1}
    assert iso_position("nowhere") == {}
    phone = of_container(
        {
            "creation_time": "2021-07-01T16:00:00.000000Z",
            "com.apple.quicktime.creationdate": "2021-07-01T18:00:00+0200",
            "com.apple.quicktime.make": "Apple",
            "com.apple.quicktime.model": "iPhone 12",
            "com.apple.quicktime.location.ISO6709": "+48.1372+011.5755/",
        }
    )
    assert phone == {
        "camera": "Apple iPhone 12",
        "latitude": 48.1372,
        "longitude": 11.5755,
        "taken": "2021-07-01T18:00:00+02:00",
        "taken_from": "container",
    }
    assert of_container({"creation_time": "1904-01-01T00:00:00Z", "TITLE": "Rain"}) == {"title": "Rain"}


PACKET = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description rdf:about=""
 exif:DateTimeOriginal="2018-05-04T03:02:01" tiff:Make="FUJIFILM" tiff:Model="X-T3" exif:GPSLatitude="48,8.232N"
 exif:GPSLongitude="11,34,31.8W">
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">Rain &amp; sun</rdf:li></rdf:Alt></dc:title>
<dc:subject><rdf:Bag><rdf:li>bridge</rdf:li><rdf:li>river</rdf:li></rdf:Bag></dc:subject>
<photoshop:City>München</photoshop:City></rdf:Description></rdf:RDF></x:xmpmeta>"""


SHORT = (
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:dc="http://purl.org/dc/elements/1.1/">'
    '<rdf:Description exif:DateTimeOriginal="2019-06-15T10:20:30+02:00"><dc:subject><rdf:Bag><rdf:li>lake</rdf:li>'
    "</rdf:Bag></dc:subject></rdf:Description></rdf:RDF>"
)


@pytest.mark.parametrize(
    "packet",
    [
        SHORT.encode(),
        SHORT.encode("utf-8-sig"),
        SHORT.encode("utf-16"),
        SHORT.replace('"', "'").encode(),
        SHORT.replace("lake", "<![CDATA[lake]]>").encode(),
        SHORT.replace("dc:", "dublin:").replace(":dc=", ":dublin=").encode(),
    ],
)
def test_xmp_in_other_words(packet: bytes) -> None:
    found = {"keywords": ["lake"], "taken": "2019-06-15T10:20:30+02:00", "taken_from": "xmp"}
    assert xmp.facts_of(packet) == found


def test_xmp_without_ends_costs_little() -> None:
    started = time.process_time()
    for piece in (b"<![CDATA[", b" exif:GPSLatitude='", b"<dc:subject>", b" xmlns:a='", b"<rdf:li>"):
        xmp.facts_of(b"rdf:Description" + piece * (2**20 // len(piece)))
    assert time.process_time() - started < 5


def test_xmp() -> None:
    assert xmp.facts_of(PACKET.encode()) == {
        "title": "Rain & sun",
        "keywords": ["bridge", "river"],
        "camera": "FUJIFILM X-T3",
        "city": "München",
        "latitude": 48.1372,
        "longitude": -11.5755,
        "taken": "2018-05-04T03:02:01",
        "taken_from": "xmp",
    }
    assert xmp.facts_of(b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>") == {}


@given(st.binary(max_size=400))
def test_any_packet_gives_bounded_metadata(data: bytes) -> None:
    found = xmp.facts_of(b"rdf:Description" + data)
    assert bounded(found) == found
