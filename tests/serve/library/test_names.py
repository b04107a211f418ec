"""Names, sidecars and what media say of themselves, in a library and over its service."""

from __future__ import annotations

import asyncio
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocess.metadata import POSITIONS
from serve.engine.service import Service
from serve.engine.settings import Settings
from serve.library.library import Library
from tests.preprocess import made
from tests.preprocess.readers.test_flir import radiometric
from tests.preprocess.readers.test_picture_facts import exif as exif_tags
from tests.preprocess.readers.test_picture_facts import picture
from tests.preprocess.test_companions import TAKEOUT
from tests.serve import tiny


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library.open(tmp_path / "library", tiny.seven())


def photograph(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def by_name(library: Library, **named: object) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {Path(h.path).name: (h.modality, h.notes) for h in library.search("x", k=50, keywords=False, **named)}  # type: ignore[arg-type]


def test_photographs_are_images_whatever_they_are_called(library: Library, tmp_path: Path) -> None:
    media = tmp_path / "media"
    names = ["depth of field.jpg", "Thermal baths.jpg", "ir a la playa.jpg", "street_thermal.jpg", "depth/kitchen.png"]
    for number, name in enumerate(names):
        photograph(media / name, number)
    depth = np.linspace(1000, 3000, 2400).astype(np.uint16).reshape(40, 60)
    Image.fromarray(depth).save(media / "depth" / "true.png")
    Image.fromarray(np.linspace(0, 255, 2400).astype(np.uint8).reshape(40, 60)).convert("RGB").save(
        media / "a.thermal.png"
    )
    report = library.index(media)
    assert (report.added, report.skipped) == (7, [])
    found = by_name(library)
    for name in names:
        modality, notes = found[Path(name).name]
        assert modality == "image"
        assert any("it is an ordinary picture: taken as an image" in note for note in notes), notes
    assert (found["true.png"][0], found["a.thermal.png"][0]) == ("depth", "thermal")
    assert library.index(media).unchanged == 7


@pytest.mark.parametrize("known", [None, ["image", "text"]])
def test_a_radiometric_jpeg_is_thermal_and_a_picture_for_a_model_without_that(
    tmp_path: Path, known: list[str] | None
) -> None:
    library = Library.open(tmp_path / "library", tiny.seven() if known is None else tiny.model(modalities=known))
    media = tmp_path / "media"
    media.mkdir()
    (media / "IMG_1.jpg").write_bytes(radiometric(np.linspace(10, 40, 48 * 64).reshape(48, 64)))
    assert library.index(media).skipped == []
    assert library.count() == {"thermal" if known is None else "image": 1}


def test_a_live_photo_is_one_item(library: Library, tmp_path: Path) -> None:
    still = photograph(tmp_path / "media" / "IMG_1.jpg")
    film = made.film(np.zeros((48, 64, 3), np.uint8), "mov")
    still.with_suffix(".MOV").write_bytes(film + b"com.apple.quicktime.content.identifier")
    report = library.index(tmp_path / "media")
    assert library.count() == {"image": 1}
    assert [reason for _, reason in report.skipped] == [
        "is the moving part of the live photo IMG_1.jpg, with which it is one item"
    ]


def test_the_same_photograph_under_two_names_is_one_content(library: Library, tmp_path: Path) -> None:
    plain = photograph(tmp_path / "media" / "a.jpg")
    library.index(tmp_path / "media")
    (before,) = library.search("x", k=5, keywords=False)
    (tmp_path / "media" / "z_thermal.jpg").write_bytes(plain.read_bytes())
    library.index(tmp_path / "media")
    (hit,) = library.search("x", k=5, keywords=False)
    assert (hit.item_id, len(hit.also), library.count()) == (before.item_id, 1, {"image": 1})


def described(media: Path) -> Path:
    """A folder with a photograph that describes itself, and one that a file of Google Takeout describes."""
    media.mkdir()
    (media / "a.jpg").write_bytes(picture(exif=exif_tags()))
    photograph(media / "b.png", 1)
    (media / "b.png.supplemental-metadata.json").write_text(json.dumps(TAKEOUT))
    return media


def test_what_a_picture_says_is_found_filtered_and_dated(library: Library, tmp_path: Path) -> None:
    media = described(tmp_path / "media")
    photograph(media / "c.png", 2)
    (media / "c.png.json").write_text(json.dumps({"date": "1999-12-31", "camera": "Box"}))
    photograph(media / "d.png", 3)
    os.utime(media / "d.png", (0, 0))
    assert library.index(media).skipped == []
    dates = {Path(h.path).name: (h.date, h.date_source) for h in library.search("x", k=9, keywords=False)}
    assert dates == {
        "a.jpg": ("2019-06-15T10:20:30+02:00", "exif"),
        "b.png": ("2019-06-15T08:20:30Z", "takeout"),
        "c.png": ("1999-12-31", "sidecar"),
        "d.png": ("1970-01-01T00:00:00Z", "file"),
    }
    assert set(by_name(library, where="taken between '2019-06-01' and '2019-09-01'")) == {"a.jpg", "b.png"}
    assert set(by_name(library, where="taken between '2019-06-01' and '2019-06-15' and camera like '%Pixel%'")) == {
        "a.jpg"
    }
    assert set(by_name(library, where="date not between '2000' and '2019-06-14'")) == {
        "a.jpg",
        "b.png",
        "c.png",
        "d.png",
    }
    assert set(by_name(library, where="camera = 'Box' and date_source = 'sidecar'")) == {"c.png"}
    assert Path(library.search("Brücke", k=1)[0].path).name == "a.jpg"
    assert Path(library.search("Grace", k=1)[0].path).name == "b.png"
    assert not [hit for hit in library.search("width", k=9) if hit.keyword], "a technical key is no word"
    assert library.index(media).unchanged == 4


@pytest.mark.parametrize("positions", [True, False])
def test_positions_of_uploads_are_the_server_s_choice(library: Library, positions: bool) -> None:
    service = Service(library, Settings(positions=positions))
    try:
        content = io.BytesIO(picture("JPEG", exif=exif_tags()))
        (item,) = asyncio.run(service.add(content, "a.jpg", {"caption": "x"}))
    finally:
        service.close()
    assert bool(POSITIONS & item.metadata.keys()) == positions
    assert item.metadata["caption"] == "x" and "camera" in item.metadata


@pytest.mark.parametrize("positions", [True, False])
def test_positions_stay_out_where_they_are_not_wanted(library: Library, tmp_path: Path, positions: bool) -> None:
    media = described(tmp_path / "media")
    library.index(media, positions=positions)
    for hit in library.search("x", k=9, keywords=False):
        assert bool(POSITIONS & hit.metadata.keys()) == positions
        assert "taken" in hit.metadata
    assert bool(library.search("Budapest", k=1)[0].keyword) == positions, "the name of the place is a word"


def test_tags_of_sound_are_found(library: Library, tmp_path: Path) -> None:
    import soundfile

    (tmp_path / "media").mkdir()
    with soundfile.SoundFile(tmp_path / "media" / "x.flac", "w", 16_000, 1) as file:
        file.title, file.artist, file.date = "Regenlied", "Ada", "2003-04-05"
        file.write(np.random.default_rng(0).normal(0, 0.1, 32_000))
    library.index(tmp_path / "media")
    (hit,) = library.search("Regenlied", k=1)
    assert (hit.keyword, hit.metadata["artist"], hit.date, hit.date_source) == (True, "Ada", "2003-04-05", "container")


def test_an_upload_is_read_as_a_picture_too(library: Library, tmp_path: Path) -> None:
    content = photograph(tmp_path / "x.jpg").read_bytes()
    (item,) = library.add(io.BytesIO(content), "street_thermal.jpg")
    assert item.modality == "image"
    assert "ordinary picture" in item.notes[0]
