"""Words in pictures: large printed text is read in an isolated worker, with its box."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from PIL import Image, ImageDraw, ImageFont

from preprocess.decoding.pool import DecodePool
from preprocess.readers import ocr
from preprocess.readers.lines import Line, unpacked
from preprocess.source import Limits, MediaError, Source

LIMITS = Limits(decode_cpu_s=60)


def encoded(picture: Image.Image, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    picture.save(file, format)
    return file.getvalue()


def written(size: tuple[int, int], *words: tuple[str, tuple[int, int]]) -> Image.Image:
    picture = Image.new("RGB", size, "white")
    for text, place in words:
        ImageDraw.Draw(picture).text(place, text, "black", ImageFont.load_default(40))
    return picture


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(1) as pool:
        yield pool


def read(pool: DecodePool, content: bytes, name: str = "a.png") -> tuple[Line, ...]:
    return unpacked(pool.submit(ocr.read, Source(content, name), ocr.OcrConfig(), LIMITS, "whole").result())


def test_words_are_read_in_the_sandbox_with_their_places(pool: DecodePool) -> None:
    first, second = read(pool, encoded(written((640, 400), ("Invoice 4711", (40, 30)), ("thank you", (330, 300)))))
    assert (first.text, second.text) == ("Invoice 4711", "thank you")
    assert first.score is not None and first.score > 0.8
    assert first.box == pytest.approx((40 / 640, 35 / 400, 280 / 640, 75 / 400), abs=0.05)
    assert second.box is not None and second.box[0] > 0.45 and second.box[1] > 0.7


def test_a_picture_is_turned_upright_before(pool: DecodePool) -> None:
    picture = written((640, 200), ("Departures", (60, 60))).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    picture.save(file, "JPEG", exif=exif, quality=95)
    (line,) = read(pool, file.getvalue(), "a.jpg")
    assert line.text == "Departures"


@pytest.mark.slow
def test_the_end_of_a_long_screenshot_is_read_once(pool: DecodePool) -> None:
    picture = written((400, 3700), ("Beginning", (40, 30)), ("Between", (40, 1850)), ("Finished", (40, 3600)))
    lines = read(pool, encoded(picture))
    assert [line.text for line in lines] == ["Beginning", "Between", "Finished"]
    assert lines[2].box is not None and lines[2].box[1] > 0.95


def test_a_scanned_page_is_read_and_a_page_with_text_is_not(pool: DecodePool) -> None:
    pdf = encoded(written((800, 1000), ("Scanned contract", (60, 60))), "PDF")
    (line,) = read(pool, pdf, "a.pdf")
    assert (line.text, line.at) == ("Scanned contract", "page 1")


def test_no_words_are_no_error_and_no_picture_is_one(pool: DecodePool) -> None:
    assert read(pool, encoded(Image.new("RGB", (100, 60), "white"))) == ()
    assert read(pool, encoded(Image.new("RGB", (2, 2), "white"))) == ()
    with pytest.raises(MediaError):
        read(pool, b"no picture")
