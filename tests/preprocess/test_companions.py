"""The sidecars of other programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from preprocess import companions

TAKEOUT = {
    "title": "IMG_1.jpg",
    "description": "the old bridge",
    "photoTakenTime": {"timestamp": "1560586830", "formatted": "15 Jun 2019"},
    "geoData": {"latitude": 47.4979, "longitude": 19.0402, "altitude": 0.0},
    "people": [{"name": "Ada"}, {"name": "Grace"}],
}
FACTS = {
    "description": "the old bridge",
    "people": ["Ada", "Grace"],
    "latitude": 47.4979,
    "longitude": 19.0402,
    "taken": "2019-06-15T08:20:30Z",
    "taken_from": "takeout",
}
LONG = "a_very_long_name_of_a_picture_that_a_phone_made.jpg"


@pytest.mark.parametrize(
    ("medium", "sidecar"),
    [
        ("IMG_1.jpg", "IMG_1.jpg.supplemental-metadata.json"),
        ("IMG_1.jpg", "IMG_1.jpg.json"),
        ("IMG_1(2).jpg", "IMG_1.jpg.supplemental-metadata(2).json"),
        ("IMG_1(2).jpg", "IMG_1.jpg(2).json"),
        ("IMG_20190615_102030_a_name.jpg", "IMG_20190615_102030_a_name.jpg.supplemental-me.json"),
        (LONG, f"{LONG[:46]}.json"),
        ("IMG_1-edited.jpg", "IMG_1.jpg.json"),
        ("IMG_1-muokattu.jpg", "IMG_1.jpg.supplemental-metadata.json"),
        ("IMG_1-編集済み.jpg", "IMG_1.jpg.json"),
        ("IMG_1-已修改.jpg", "IMG_1.jpg.supplemental-meta.json"),
        ("IMG_1.jpg", "IMG_1.jpg.suppl.json"),
        ("IMG_1.MP4", "IMG_1.HEIC.json"),
        ("IMG_1.MOV", "IMG_1.HEIC.supplemental-metadata.json"),
    ],
)
def test_takeout_is_found_under_all_its_names(tmp_path: Path, medium: str, sidecar: str) -> None:
    (tmp_path / medium).touch()
    (tmp_path / sidecar).write_text(json.dumps(TAKEOUT))
    if sidecar != f"{medium}.json":  # that name is ours, too
        assert companions.beside(str(tmp_path / medium)) == [str(tmp_path / sidecar)]
        assert companions.read(str(tmp_path / medium)) == (FACTS, ())
    assert companions.of_json(TAKEOUT) == FACTS
    if "-" not in medium and Path(medium).suffix == ".jpg":  # of others the picture itself is beside it, too
        assert companions.describes_another(str(tmp_path / sidecar))


def test_pairs_of_img2dataset(tmp_path: Path) -> None:
    (tmp_path / "0017.jpg").touch()
    (tmp_path / "0017.txt").write_text("a red boat")
    assert not companions.describes_another(str(tmp_path / "0017.txt")), "a text of its own"
    about = {"key": "0017", "url": "u", "caption": "a red boat", "status": "success"}
    (tmp_path / "0017.json").write_text(json.dumps(about))
    assert companions.read(str(tmp_path / "0017.jpg")) == ({"url": "u", "caption": "a red boat"}, ())
    assert all(companions.describes_another(str(tmp_path / name)) for name in ("0017.txt", "0017.json"))


def test_what_describes_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.xmp").write_text("<xml/>")
    (tmp_path / "a.json").write_text('{"version": "5.0", "shapes": []}')
    facts, notes = companions.read(str(tmp_path / "a.jpg"))
    assert facts == {}
    assert [note.split(" ")[0] for note in notes] == ["a.xmp", "a.json"]
    assert not companions.describes_another(str(tmp_path / "lonely.json"))


@pytest.mark.parametrize("values", [[], None, {"photoTakenTime": 7}, {"photoTakenTime": {"timestamp": "9" * 30}}])
def test_odd_json_is_no_error(values: object) -> None:
    assert companions.of_json(values) in (None, {})


def test_the_film_of_a_live_photo_belongs_to_its_still(tmp_path: Path) -> None:
    mark = b"....mdta com.apple.quicktime.content.identifier"
    (tmp_path / "IMG_1.HEIC").write_bytes(b"x")
    for name, content in (("IMG_1.MOV", bytes(10**6) + mark), ("IMG_2.MOV", mark), ("IMG_1.mp4", mark)):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "IMG_3.jpg").write_bytes(b"x")
    (tmp_path / "IMG_3.mov").write_bytes(b"an ordinary film")
    found = {path.name: companions.still_of(str(path)) for path in tmp_path.iterdir()}
    assert {name: still for name, still in found.items() if still} == {"IMG_1.MOV": str(tmp_path / "IMG_1.HEIC")}
