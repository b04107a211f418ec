"""Streams of frames behind tags, zeros and junk."""

from __future__ import annotations

import pytest

from preprocess.audio_frames import behind_tags, frame_kind
from preprocess.formats import Format, sniff
from preprocess.source import Limits, MediaError, Source
from tests.preprocess.made import sound, tone

MP3 = sound([tone(440, 1.0)], "mp3", "libmp3lame")
MP3 = MP3[MP3.index(b"\xff\xf3") :]  # MPEG-2, layer III
AAC = sound([tone(440, 1.0)], "adts", "aac")
ID3 = b"ID3\4\0\0\0\0\x02\x10" + bytes(0x110)


def ape(content: int) -> bytes:
    """An APEv2 tag with its header and footer around so many bytes."""
    sizes = (2000).to_bytes(4, "little"), (content + 32).to_bytes(4, "little"), (1).to_bytes(4, "little")
    head, foot = ((1 << 31 | flag << 29).to_bytes(4, "little") for flag in (1, 0))
    body = b"".join((b"APETAGEX", *sizes))
    return body + head + bytes(8) + b"k" * content + body + foot + bytes(8)


@pytest.mark.parametrize(
    ("before", "data", "expected"),
    [
        (b"", MP3, Format("mp3", "audio")),
        (b"", AAC, Format("aac", "audio")),
        (ID3, MP3, Format("mp3", "audio")),
        (ID3, AAC, Format("aac", "audio")),
        (ID3 + ID3, MP3, Format("mp3", "audio")),
        (ape(0), MP3, Format("mp3", "audio", 64)),
        (ape(500), MP3, Format("mp3", "audio", 564)),
        (bytes(70_001), MP3, Format("mp3", "audio", 70_001)),
        (bytes(100) + ID3, AAC, Format("aac", "audio", 100 + len(ID3))),
        (b"junk \xff\xfb of a server " * 50, MP3, Format("mp3", "audio", 1000)),
    ],
)
def test_frames_are_found_behind_what_lies_before_them(before: bytes, data: bytes, expected: Format) -> None:
    found = sniff(Source(before + data, f"x.{expected.name}"), Limits())
    assert found == expected


def test_tags_end_where_their_sizes_say() -> None:
    import io

    assert behind_tags(io.BytesIO(ID3 + b"xx")) == len(ID3)
    assert behind_tags(io.BytesIO(ape(7) + b"xx")) == 71
    assert behind_tags(io.BytesIO(bytes(5000))) == 0
    assert behind_tags(io.BytesIO(ID3[:20])) == 20


@pytest.mark.parametrize("data", [b"\xff\xfe\x61\0\x62\0", b"\xff\xff\xff\xff", b"\xff\xfb\xf0\0", b"\xff\xe9\x90\0"])
def test_marks_that_only_look_like_frames_are_none(data: bytes) -> None:
    assert frame_kind(data) is None
    with pytest.raises(MediaError):
        sniff(Source(data, "x.bin"), Limits())
