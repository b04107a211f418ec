"""Words in pictures: a picture or a scanned document -> its lines of text with their boxes, by RapidOCR on one core.

RapidOCR's wheel has the models of PP-OCRv6 (Latin, Chinese, Japanese) in it, so nothing is downloaded. A decode worker
reads them like any other file of Python's packages.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from preprocess.decoding.protocol import returns
from preprocess.extras import needs
from preprocess.formats import sniff
from preprocess.readers import lines, raster
from preprocess.readers.document import Document
from preprocess.readers.lines import Line
from preprocess.source import Limits, MediaError, Plan, Segment, Source

_SHORT_SIDE = 1500
"""Pixels of the shorter side of a picture or page that is read; letters of 10 points on A4 are then 25 pixels high."""
_LONG_SIDE = 2000
"""RapidOCR makes what is longer smaller, so that the letters of a long screenshot would be lost."""
_OVERLAP = 200
"""Pixels that neighbouring tiles of a long screenshot share, so that each line is whole in one of them."""
_LEAST_SIDE = 8
"""Pixels below which a picture has room for no letter."""
_PAGES = 50
"""Scanned pages of one document that are read."""
_PAGE_CPU_S = 40.0
"""Seconds of processor time after which the pages that are left of a document are not read."""


@dataclass(frozen=True)
class OcrConfig:
    """Lines with a confidence below `least_score` are left out."""

    least_score: float = 0.5


@returns(lines.declare)
def read(source: Source, config: OcrConfig, limits: Limits, plan: Plan) -> list[Segment]:
    """Picture or PDF -> one segment of lines (see `preprocess.readers.lines.unpacked`), top to bottom.

    A picture is turned upright by EXIF before, and one beyond 4:3 is read in overlapping tiles. Of a PDF those pages
    are read that have no text of their own: the others' text is metadata already. Raises MediaError, as
    `preprocess.readers.image.read` does and where RapidOCR is missing.
    """
    if source.is_encoded and sniff(source, limits).family == "document":
        return _pages(source, config, limits)
    picture = raster.decode_picture(source, limits, _SHORT_SIDE)
    try:
        rgb, _ = raster.to_rgb(picture)
    except ValueError as error:
        raise MediaError(source.name, f"its colours could not be converted: {error}; save it as RGB") from error
    return lines.packed(_lines(rgb, config))


def check() -> None:
    """Raises MissingExtra where RapidOCR is not installed."""
    with needs("ocr", "reading words in pictures"):
        import onnxruntime  # noqa: F401
        import rapidocr  # noqa: F401


def _pages(source: Source, config: OcrConfig, limits: Limits) -> list[Segment]:
    document = Document(source, limits)
    scanned = [page for page in document.pages(_SHORT_SIDE, _PAGES) if not page.text.strip()]
    found: list[Line] = []
    notes = tuple(document.notes)
    started = time.process_time()
    for page in scanned:
        if time.process_time() - started > _PAGE_CPU_S:
            notes = (*notes, f"words on page {page.number} and behind it took too long and were left out")
            break
        found += [replace(line, at=f"page {page.number}") for line in _lines(page.picture, config)]
    return lines.packed(found, notes)


def _lines(picture: Image.Image, config: OcrConfig) -> list[Line]:
    """An RGB picture -> its lines; those on the seam of two tiles once."""
    if min(picture.size) < _LEAST_SIDE:
        return []
    scale = min(1.0, _SHORT_SIDE / min(picture.size))
    if scale < 1:
        picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    found: list[Line] = []
    for left, top, tile in _tiles(picture):
        for text, score, box in _recognised(np.asarray(tile)):
            x, y = box[:, 0] + left, box[:, 1] + top
            sides = (
                x.min() / picture.width,
                y.min() / picture.height,
                x.max() / picture.width,
                y.max() / picture.height,
            )
            line = Line(text, float(score), tuple(float(min(1.0, max(0.0, side))) for side in sides))  # type: ignore[arg-type]
            if score >= config.least_score and text.strip() and not any(_same(line, other) for other in found):
                found.append(line)
    return found


def _tiles(picture: Image.Image) -> Iterator[tuple[int, int, Image.Image]]:
    """(left, top, part) of a picture: parts along its long side that overlap by more than a line of text is high."""
    width, height = picture.size
    long = max(width, height)
    count = 1 if long <= _LONG_SIDE else math.ceil((long - _OVERLAP) / (_LONG_SIDE - _OVERLAP))
    for start in np.linspace(0, max(0, long - _LONG_SIDE), count).round().astype(int).tolist():
        left, top = (start, 0) if width > height else (0, start)
        yield left, top, picture.crop((left, top, min(left + _LONG_SIDE, width), min(top + _LONG_SIDE, height)))


def _same(line: Line, other: Line) -> bool:
    """Whether two tiles have the same line: equal words, and boxes whose centres are as good as equal."""
    assert line.box is not None
    assert other.box is not None
    return line.text == other.text and all(abs(a - b) < 0.01 for a, b in zip(line.box, other.box, strict=True))


def _recognised(rgb: np.ndarray) -> Iterator[tuple[str, float, np.ndarray]]:
    """(H, W, 3) uint8 -> (text, confidence, corners (4, 2) in pixels) of each line."""
    result = _engine()(np.ascontiguousarray(rgb[:, :, ::-1]), use_cls=False)
    if result.boxes is None or result.txts is None:
        return
    yield from zip(result.txts, result.scores, np.asarray(result.boxes), strict=True)


@functools.cache
def _engine() -> Any:
    """The recogniser, with its models; it takes a second to load."""
    with needs("ocr", "reading words in pictures"):
        from rapidocr import RapidOCR
    runtime = "EngineConfig.onnxruntime"
    threads = {f"{runtime}.intra_op_num_threads": 1, f"{runtime}.inter_op_num_threads": 1}
    return RapidOCR(params={"Global.log_level": "critical", **threads})
