"""Cases of folders, of what files say of themselves, and of names as queries."""

from __future__ import annotations

import io
import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from serve.library.library import Library
from tests.cases.table import case, model, noise, written
from tests.preprocess.made import RATE, film, tone
from tests.serve import tiny


def _library(folder: Path) -> Library:
    return Library.open(folder / "library", model())


def _media(folder: Path, count: int = 12) -> Path:
    for number in range(count):
        tiny.picture(folder / "media" / f"{number}.png", number)
    return folder / "media"


# Part 1


@case("1", "a share that is not mounted (its folder is empty)")
def _unmounted(folder: Path) -> None:
    media = _media(folder)
    with _library(folder) as library:
        library.index(media)
        media.rename(folder / "away")
        media.mkdir()
        try:
            library.index(media)
        except ValueError:
            assert len(library) == 12
            return
        raise AssertionError(f"{12 - len(library)} files were removed")


@case("1", "a root that moved")
def _moved(folder: Path) -> None:
    media = _media(folder)
    with _library(folder) as library:
        library.index(media)
        report = library.index(media.rename(folder / "elsewhere"))
        assert (report.embedded, report.renamed, len(library)) == (0, 12, 12), f"{len(library)} files"


@case("1", "folders and files of devices and systems")
def _devices(folder: Path) -> None:
    media = _media(folder, 2)
    for name in ("@eaDir/0.png/SYNO.png", "#recycle/a.png", "$RECYCLE.BIN/a.png", ".thumbnails/a.png", "hidden/a.png"):
        tiny.picture(media / name, 50)
    (media / "hidden" / ".nomedia").touch()
    (media / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    with _library(folder) as library:
        report = library.index(media)
        assert (report.added, report.skipped) == (2, []), f"{report.added} added, {len(report.skipped)} skipped"


@case("1", "an ignore file, patterns to leave out")
def _patterns(folder: Path) -> None:
    media = _media(folder, 4)
    (media / ".crossbindignore").write_text("1.png\n")
    with _library(folder) as library:
        assert library.index(media, exclude=["2.png"]).added == 2


@case("1", "a skip is said once")
def _once(folder: Path) -> None:
    media = _media(folder, 1)
    written(media, "a.docx", b"PK\3\4" + bytes(100))
    with _library(folder) as library:
        assert len(library.index(media).skipped) == 1
        assert library.index(media).skipped == [], "is said again"
        assert len(library.skipped()) == 1


@case("1", "a recording in several files, one of which changes")
def _recording(folder: Path) -> None:
    for name in ("Accelerometer", "Gyroscope"):
        rows = "\n".join(f"{i / 100},{i / 100},0,{i % 7},9" for i in range(600))
        written(folder, f"media/{name}.csv", f"time,seconds_elapsed,x,y,z\n{rows}\n")
    with _library(folder) as library:
        assert library.index(folder / "media").added == 1, "is not one item"
        written(folder, "media/Gyroscope.csv", "time,seconds_elapsed,x,y,z\n" + rows.replace(",9", ",1") + "\n")
        assert library.index(folder / "media").embedded == 1, "is not read again"


# Part 3


def _said(folder: Path, name: str, content: bytes, wanted: dict[str, Any], **beside: str) -> None:
    written(folder, f"media/{name}", content)
    for other, text in beside.items():
        written(folder, f"media/{other.replace('__', '.')}", text)
    with _library(folder) as library:
        report = library.index(folder / "media")
        assert report.added == 1, f"{report.added} added, {report.skipped[:1]}"
        item = (
            library.page()[0][0] if hasattr(library, "page") else library.search(str(folder / "media" / name), k=1)[0]
        )
        metadata = item.metadata | {"date": item.date, "date_source": getattr(item, "date_source", None)}
        for key, value in wanted.items():
            assert metadata.get(key) == value, f"{key} is {metadata.get(key)!r}"


def _jpeg(**how: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(noise(1)).save(out, "JPEG", **how)
    return out.getvalue()


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x010E] = "Google", "Pixel 4", "a lake"
    inner, gps = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
    inner[0x9003], inner[0x9011], inner[0xA434] = "2019:06:15 10:20:30", "+02:00", "a lens"
    gps.update({1: "S", 2: (33.0, 51.0, 24.0), 3: "E", 4: (151.0, 12.0, 0.0)})
    return exif


@case("3", "EXIF: date with its offset, camera, lens, description")
def _exif_facts(folder: Path) -> None:
    wanted = {"date": "2019-06-15T10:20:30+02:00", "date_source": "exif", "camera": "Google Pixel 4"}
    _said(folder, "a.jpg", _jpeg(exif=_exif()), wanted | {"lens": "a lens", "description": "a lake"})


@case("3", "EXIF: position, south and east")
def _exif_position(folder: Path) -> None:
    _said(folder, "a.jpg", _jpeg(exif=_exif()), {"latitude": -33.8566667, "longitude": 151.2})


@case("3", "EXIF of a camera's raw file")
def _exif_raw(folder: Path) -> None:
    tiff = _exif().tobytes().removeprefix(b"Exif\0\0")
    _said(folder, "a.nef", tiff + bytes(100) + _jpeg(), {"camera": "Google Pixel 4", "date_source": "exif"})


@case("3", "XMP inside: keywords, title")
def _xmp_inside(folder: Path) -> None:
    _said(folder, "a.jpg", _jpeg(xmp=_XMP.encode()), {"keywords": ["lake"], "date_source": "xmp"})


@case("3", "creation time of a container")
def _container(folder: Path) -> None:
    import av

    out = io.BytesIO()
    with av.open(io.BytesIO(film(noise(1)))) as source, av.open(out, "w", format="mp4") as target:
        target.metadata["creation_time"] = "2021-03-04T05:06:07Z"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    _said(folder, "a.mp4", out.getvalue(), {"date": "2021-03-04T05:06:07Z", "date_source": "container"})


@case("3", "tags of sound")
def _tags(folder: Path) -> None:
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", RATE, 1, format="FLAC") as file:
        file.artist = "Nobody"
        file.write(tone(440))
    _said(folder, "a.flac", out.getvalue(), {"artist": "Nobody"})


_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description exif:DateTimeOriginal="2019-06-15T10:20:30+02:00"><dc:subject><rdf:Bag><rdf:li>lake</rdf:li>'
    "</rdf:Bag></dc:subject></rdf:Description></rdf:RDF></x:xmpmeta>"
)
_TAKEOUT = json.dumps({"title": "x", "photoTakenTime": {"timestamp": "1560586830"}, "description": "a bridge"})
for _name, _file, _beside in (
    ("Takeout, .json", "IMG_1.jpg", "IMG_1__jpg__json"),
    ("Takeout, .supplemental-metadata.json", "IMG_1.jpg", "IMG_1__jpg__supplemental-metadata__json"),
    ("Takeout, a name cut short", "IMG_1.jpg", "IMG_1__jpg__suppl__json"),
    ("Takeout, an edited picture, in Finnish", "IMG_1-muokattu.jpg", "IMG_1__jpg__json"),
    ("Takeout, a second picture of a name", "IMG_1(1).jpg", "IMG_1__jpg(1)__json"),
):
    case("2", _name)(
        lambda folder, file=_file, beside=_beside: _said(  # type: ignore[misc]
            folder, file, _jpeg(), {"description": "a bridge", "date_source": "takeout"}, **{beside: _TAKEOUT}
        )
    )
for _name, _beside in (("XMP beside, STEM.xmp", "a__xmp"), ("XMP beside, NAME.XMP", "a__jpg__XMP")):
    case("2", _name)(
        lambda folder, beside=_beside: _said(folder, "a.jpg", _jpeg(), {"keywords": ["lake"]}, **{beside: _XMP})  # type: ignore[misc]
    )


@case("2", "img2dataset (key.txt, key.json)")
def _img2dataset(folder: Path) -> None:
    values = json.dumps({"key": "0", "url": "https://example.org/a", "caption": "a red car", "status": "success"})
    files = {"000__txt": "a red car", "000__json": values}
    _said(folder, "000.jpg", _jpeg(), {"caption": "a red car"}, **files)


@case("3", "positions are left out where they are not wanted")
def _no_positions(folder: Path) -> None:
    written(folder, "media/a.jpg", _jpeg(exif=_exif()))
    with _library(folder) as library:
        library.index(folder / "media", positions=False)
        assert "latitude" not in library.page()[0][0].metadata


# Part 4


@case("4", "a cat at the end of a panorama")
def _panorama(folder: Path) -> None:
    wide = np.concatenate([np.full((64, 320, 3), 128, np.uint8), noise(1)], axis=1)
    out = io.BytesIO()
    Image.fromarray(wide).save(out, "PNG")
    written(folder, "media/a.png", out.getvalue())
    end = io.BytesIO()
    Image.fromarray(noise(1)).save(end, "PNG")
    with _library(folder) as library:
        library.index(folder / "media")
        hit = library.search(str(written(folder, "end.png", end.getvalue())), k=1)[0]
        assert hit.cosine > 0.99, f"cosine {hit.cosine:.2f}"


# Part 6


def _found(folder: Path, name: str, query: str, **how: Any) -> None:
    for number, one in enumerate((name, "other things.png", "x.png")):
        tiny.picture(folder / "media" / one, number)
    with _library(folder) as library:
        library.index(folder / "media")
        hits = [hit for hit in library.search(query, k=3, **how) if hit.keyword]
        assert hits and Path(hits[0].path).name == name, "is not found by its words"


for _name, _file, _query in (
    ("a name in NFD, asked in NFC", unicodedata.normalize("NFD", "Café Müller.png"), "café müller"),
    ("a name in full width, asked in half", "ＣＡＴ.png", "cat"),  # noqa: RUF001
    ("a part of Japanese words", "東京都庁の夜景.png", "夜景"),
    ("a part of Thai words", "สุนัขบนชายหาด.png", "ชายหาด"),
    ("a part of Korean words", "바닷가모래사장.png", "모래"),
    ("a whole file name finds that file first", "IMG_2041.png", "IMG_2041.png"),
):
    case("6", _name)(lambda folder, file=_file, query=_query: _found(folder, file, query))  # type: ignore[misc]


@case("6", "of several copies the one that matched is shown")
def _copies(folder: Path) -> None:
    first = tiny.picture(folder / "media" / "a.png", 1)
    shutil.copy(first, folder / "media" / "wedding.png")
    with _library(folder) as library:
        library.index(folder / "media")
        hit = next(hit for hit in library.search("wedding", k=1))
        assert Path(hit.path).name == "wedding.png", f"shows {Path(hit.path).name}"
