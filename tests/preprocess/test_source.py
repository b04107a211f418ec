"""Sources, sniffing and limits."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.formats import sniff
from preprocess.sidecar import read
from preprocess.source import Hints, Limits, MediaError, Source

LIMITS = Limits()


def family(content: bytes, name: str = "x") -> str:
    return sniff(Source(content, name), LIMITS).family


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n", "x.png", "image"),
        (b"\xff\xd8\xff\xe0", "x.jpg", "image"),
        (b"\xff\xd8\xff\xe0", "wrongly.png", "image"),
        (b"RIFF\0\0\0\0WAVEfmt ", "x.wav", "audio"),
        (b"RIFF\0\0\0\0AVI LIST", "x.avi", "video"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "x.webp", "image"),
        (b"\0\0\0\x20ftypisom", "x.mp4", "video"),
        (b"\0\0\0\x20ftypM4A ", "x.m4a", "audio"),
        (b"\0\0\0\x20ftypisom", "x.m4a", "audio"),
        (b"\0\0\0\x20ftypavif", "x.avif", "image"),
        (b"\x1a\x45\xdf\xa3", "x.mkv", "video"),
        (b"\xff\xfb\x90\x00", "x.mp3", "audio"),
        (b"\xff\xf1\x50\x80", "x.aac", "audio"),
        (b"a,b\n1,2\n", "x.csv", "table"),
        ("größe".encode(), "x.txt", "text"),
        (b"\x93NUMPY\x01\x00", "x.npy", "array"),
        (b"v/1\x01", "x.exr", "array"),
    ],
)
def test_content_tells_the_family(content: bytes, name: str, expected: str) -> None:
    assert family(content, name) == expected


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (b"", "x.png", "empty"),
        (b"#EXTM3U\nhttp://127.0.0.1/x.ts\n", "x.m3u8", "playlist"),
        (b"#EXTM3U\nfile:///etc/passwd\n", "x.mp4", "playlist"),
        (b"ffconcat version 1.0\nfile 'a.mp4'\n", "x.txt", "playlist"),
        (b"<?xml version='1.0'?><MPD></MPD>", "x.mpd", "playlist"),
        (b"\x89PNG\r\n\x1a\n", "x.wav", r"named .wav \(audio\) but contains png \(image\)"),
        (b"hello", "x.jpg", "not supported"),
        (b"\0\1\2\3", "x.bin", "not supported"),
        (b"MZ\x90\0", "x.mp3", "not supported"),
    ],
)
def test_what_is_refused(content: bytes, name: str, reason: str) -> None:
    with pytest.raises(MediaError, match=reason) as caught:
        family(content, name)
    assert caught.value.path == name


@given(st.binary(max_size=300), st.sampled_from(["", ".png", ".csv", ".txt", ".mp3", ".mkv"]))
def test_any_bytes_have_a_family_or_a_reason(content: bytes, suffix: str) -> None:
    with contextlib.suppress(MediaError):
        assert family(content, "x" + suffix) in ("image", "text", "video", "audio", "depth", "array", "table")


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.png").mkdir()
    for path, reason in (
        (tmp_path / "no.png", "does not exist"),
        (tmp_path / "folder.png", "directory"),
        (tmp_path / "pipe.wav", "pipe"),
        (Path("/dev/zero"), "device"),
        (tmp_path / ("x" * 300), "could not be opened"),
        (tmp_path / "nul\0.png", "could not be opened"),
    ):
        with pytest.raises(MediaError, match=reason) as caught:
            sniff(Source.from_path(path), LIMITS)
        assert caught.value.path == str(path)


def test_too_many_bytes_are_refused_before_reading(tmp_path: Path) -> None:
    file = tmp_path / "big.png"
    with file.open("wb") as stream:
        stream.truncate(10_001)
    with pytest.raises(MediaError, match="limit is 10,000"):
        Source.from_path(file).read_bytes(Limits(max_bytes=10_000))
    with pytest.raises(MediaError, match="limit is 10,000"):
        Source(bytes(10_001), "x").read_bytes(Limits(max_bytes=10_000))


def test_decoding_elsewhere_has_to_be_asked_for_by_its_name() -> None:
    assert Limits().decode == "isolated"
    with pytest.raises(ValueError, match='expected "isolated" or "gpu", got \'cuda\''):
        Limits(decode="cuda")  # type: ignore[arg-type]


def test_sidecar_gives_hints(tmp_path: Path) -> None:
    file = tmp_path / "room.depth.png"
    sidecar = tmp_path / "room.depth.png.json"
    sidecar.write_text(json.dumps({"unit": "mm", "focal_px": 500, "place": "kitchen"}))
    assert Source.from_path(file).hints == Hints(unit="mm", focal_px=500)
    assert Source.from_path(file, Hints(unit="m")).hints == Hints(unit="m")
    for content, reason in (
        ("{", "not JSON"),
        ("[]", "one JSON object"),
        ('{"score": NaN}', "not JSON"),
        (f'{{"x": "{"a" * 2**20}"}}', "more than 1,048,576 bytes"),
    ):
        sidecar.write_text(content)
        assert Source.from_path(file).hints == Hints()
        (note,) = read(file).notes
        assert reason in note and note.endswith("it was ignored")


def test_what_is_no_hint_of_ours_is_told_and_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.png.json").write_text(json.dumps({"focal_px": "wide", "unit": "mm", "modality": "image"}))
    found = read(tmp_path / "x.png")
    assert found.hints == Hints(unit="mm", modality="image")
    assert found.metadata == {"focal_px": "wide"}
    assert "'focal_px': expected a number, got 'wide'" in found.notes[0]
    with pytest.raises(MediaError, match="expected a number"):  # said on purpose, in a manifest
        Hints.from_mapping({"focal_px": "wide"}, "x.png")


def test_open_gives_a_seekable_file(tmp_path: Path) -> None:
    file = tmp_path / "x.bin"
    file.write_bytes(b"0123")
    for source in (Source.from_path(file), Source(b"0123", "x")):
        with source.open(LIMITS) as stream:
            stream.seek(2)
            assert stream.read() == b"23"
    with pytest.raises(MediaError, match="expected a path or bytes"), Source(io.BytesIO(), "x").open(LIMITS):
        pass


@pytest.mark.parametrize("words", ["BMW is a car", "ID3 is a tag", "G" * 300, "v=0\no=nobody"])
def test_prose_that_begins_like_a_format_is_text(words: str) -> None:
    assert family(words.encode(), "x.txt") == "text"


def test_refusals_leave_no_file_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(MediaError):
            sniff(Source.from_path(tmp_path), LIMITS)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.attack
@pytest.mark.timeout(10)
def test_a_pipe_beside_a_medium_is_ignored_and_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "dog.jpg"
    os.mkfifo(tmp_path / "dog.jpg.json")
    assert Source.from_path(file).hints == Hints()
    assert "its sidecar dog.jpg.json is not a regular file" in read(file).notes[0]
