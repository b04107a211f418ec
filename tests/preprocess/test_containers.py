"""Sound only or a film: one answer, from the container's own index."""

from __future__ import annotations

import pytest

from bind import modalities
from preprocess.formats import sniff
from preprocess.source import Limits, Source
from tests.preprocess.made import sound, tone

CASES = [
    ("webm", "libopus", "x.webm", "libvpx"),
    ("matroska", "flac", "x.mkv", "libx264"),
    ("mp4", "aac", "x.mp4", "libx264"),
    ("3gp", "aac", "x.3gp", "libx264"),
    ("mov", "aac", "x.mov", "libx264"),
    ("mpegts", "aac", "x.ts", "libx264"),
    ("avi", "mp3", "x.avi", "mpeg4"),
    ("flv", "aac", "x.flv", "libx264"),
    ("asf", "wmav2", "x.wmv", "mpeg4"),
]


@pytest.mark.parametrize(("container", "codec", "name", "pictures"), CASES, ids=[case[2] for case in CASES])
def test_sound_only_is_told_from_a_film(container: str, codec: str, name: str, pictures: str) -> None:
    rate = 48_000
    track = tone(440, 1.0, rate)
    for kind, expected in (("", "audio"), (pictures, "video")):
        data = sound([track], container, codec, rate, pictures=kind)
        assert sniff(Source(data, name), Limits()).family == expected
        assert modalities.detect(Source(data, name), Limits()) == expected


def test_the_first_pages_of_ogg_name_its_codecs() -> None:
    def page(packet: bytes, flag: int) -> bytes:
        return b"OggS\0" + bytes([flag]) + bytes(20) + bytes([1, len(packet)]) + packet

    speech, film = page(b"OpusHead" + bytes(11), 2), page(b"\x80theora" + bytes(35), 2)
    assert sniff(Source(speech + page(b"\x80theora", 0), "x.ogg"), Limits()).family == "audio"
    assert sniff(Source(speech + film, "x.ogg"), Limits()).family == "video"
    assert sniff(Source(speech, "x.ogv"), Limits()).family == "audio"


@pytest.mark.parametrize("name", ["x.mp4", "x.webm", "x.ts", "x.avi"])
def test_a_head_without_an_index_is_a_film_as_before(name: str) -> None:
    heads = {
        "x.mp4": b"\0\0\0\x20ftypisom" + bytes(20) + b"\0\0\1\0mdat",
        "x.webm": b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\xff\x1f\x43\xb6\x75\xff",
        "x.ts": (b"G\x1f\xff\x10" + bytes(184)) * 3,
        "x.avi": b"RIFF\0\0\0\0AVI LIST",
    }
    assert sniff(Source(heads[name], name), Limits()).family == "video"


@pytest.mark.parametrize("cut", [0, 5, 17, 40, 61, 100])
def test_an_index_that_is_cut_off_or_wrong_is_no_fault(cut: int) -> None:
    data = sound([tone(440)], "matroska", "flac")
    broken = data[:cut] + b"\xff" * 8 + data[cut + 8 :] if cut else data[:64]
    assert sniff(Source(broken, "x.mkv"), Limits()).name == "matroska"
