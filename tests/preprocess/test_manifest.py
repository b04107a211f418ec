"""Manifests: the contract's example, faults all at once, writing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from preprocess import manifest
from preprocess.manifest import ManifestError
from preprocess.source import Hints

# The example of the contract.
EXAMPLE = """\
{"manifest": 1, "name": "clips-train", "root": "clips", "license": "CC-BY-4.0"}
{"id": "17", "image": {"path": "f/17.jpg"}, "audio": {"path": "w/17.wav", "start_s": 2.0, "end_s": 4.0}, "text": "dog"}
{"id": "18", "image": {"path": "f/18.jpg"}, "depth": {"path": "d/18.png", "unit": "mm", "focal_px": 518.9}}

{"id": "19", "audio": {"path": "w/19.wav"}, "text": ["a cat", "an animal"], "labels": ["cat"], "group": "g"}
"""


def test_reads_the_contract(tmp_path: Path) -> None:
    file = tmp_path / "clips.jsonl"
    file.write_text(EXAMPLE)
    found = manifest.read(file)
    assert (found.name, found.license, found.root) == ("clips-train", "CC-BY-4.0", tmp_path / "clips")
    first, second, third = found.events
    assert first.media["audio"].content == tmp_path / "clips/w/17.wav"
    assert first.media["audio"].hints == Hints(start_s=2.0, end_s=4.0)
    assert first.media["text"].content == "dog"
    assert second.media["depth"].hints == Hints(unit="mm", focal_px=518.9)
    assert (third.texts, third.labels, third.group) == (("a cat", "an animal"), ("cat",), "g")
    assert found.modalities == ("audio", "depth", "image", "text")
    assert [event.id for event in found.pairs("audio", "text")] == ["17", "19"]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    header = {"name": "x", "license": "CC0-1.0", "classes": ["a"], "templates": ["a photo of {}"]}
    events = [{"id": "ü", "image": {"path": "ü.png"}, "labels": ["a"]}, {"id": "2", "text": "two"}]
    assert manifest.write(tmp_path / "x.jsonl", header, events) == 2
    found = manifest.read(tmp_path / "x.jsonl")
    assert [event.id for event in found.events] == ["ü", "2"]
    assert found.templates == ("a photo of {}",)
    assert len(found.sha256) == 64
    with pytest.raises(ManifestError, match="must lie below"):
        manifest.write(tmp_path / "x.jsonl", header, [{"id": "1", "image": {"path": "../x"}}])
    assert manifest.read(tmp_path / "x.jsonl").sha256 == found.sha256
    assert [file.name for file in tmp_path.iterdir()] == ["x.jsonl"]


@pytest.mark.parametrize(
    ("event", "fault"),
    [
        ({"image": {"path": "x"}}, "needs 'id'"),
        ({"id": "1"}, "has no media"),
        ({"id": "1", "image": "x.png"}, "with a 'path'"),
        ({"id": "1", "image": {"path": "/etc/passwd"}}, "below the manifest's root"),
        ({"id": "1", "image": {"path": "a/../../x"}}, "below the manifest's root"),
        ({"id": "1", "image": {"path": "x", "unitt": "m"}}, "unknown keys"),
        ({"id": "1", "depth": {"path": "x", "focal_px": "wide"}}, "expected a number"),
        ({"id": "1", "text": " "}, "none of them empty"),
        ({"id": "1", "text": "x", "labels": "a"}, "'labels' must be"),
        ([1], "expected an object"),
    ],
)
def test_faults_are_named_with_their_line(event: Any, fault: str, tmp_path: Path) -> None:
    lines = [
        {"manifest": 1, "name": "x", "license": "y"},
        {"id": "0", "text": "fine"},
        event,
        {"id": "0", "text": "again"},
    ]
    file = tmp_path / "x.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ManifestError) as caught:
        manifest.read(file)
    assert f"x.jsonl:3: {''}" in str(caught.value)
    assert fault in str(caught.value)
    assert "x.jsonl:4: id '0' stands in line 2 too" in str(caught.value)


@pytest.mark.parametrize(
    "header", ["", "{", '{"manifest": 2, "name": "x", "license": "y"}', '{"manifest": 1}', '{"manifest": 1, "x": 1}']
)
def test_bad_headers(header: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(header)
    with pytest.raises(ManifestError, match=r"x\.jsonl:1: "):
        manifest.read(tmp_path / "x.jsonl")
