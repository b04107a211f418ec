"""Radiometric JPEGs of FLIR cameras: the sensor's values behind the coloured picture -> temperatures.

Segments and records as ExifTool documents them (Image::ExifTool::FLIR, "FLIR FFF tags").
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from preprocess.source import Limits

MARK = b"FLIR\0"
"""What the payload of a JPEG's APP1 segment begins with where it is a part of FLIR's record of a picture."""
_RAW_DATA, _CAMERA_INFO = 1, 0x20
"""Types of the records that are read: the values of the sensor, and the constants of Planck's formula."""
_MOST_RECORDS = 256
"""Entries of FLIR's directory that are read, far more than a camera writes."""
_ABSOLUTE_ZERO_C = -273.15
"""Kelvin to degrees Celsius."""


def is_radiometric(file: BinaryIO) -> bool:
    """Whether a JPEG has a segment of FLIR's. Its place is afterwards anywhere."""
    return next(_segments(file), None) is not None


def temperatures_c(file: BinaryIO, limits: Limits) -> np.ndarray:
    """A radiometric JPEG -> (H, W) float32 degrees Celsius of the objects that are seen.

    With the constants R1, R2, B, F and O of the camera, a black body of T kelvin gives the value
    `R1 / (R2 (exp(B / T) - F)) - O`. Of the value S of a pixel, the share 1 - emissivity is from what is reflected,
    which has the temperature that the camera was told: `S_object = (S - (1 - e) S_reflected) / e`, and
    `T = B / ln(R1 / (R2 (S_object + O)) + F)`. Air and windows in between are taken as clear. NaN where there is no
    such temperature. Raises ValueError for a file without these values.
    """
    data = b"".join(_segments(file))
    records = dict(_records(data))
    if _RAW_DATA not in records or _CAMERA_INFO not in records:
        raise ValueError("it has no values of the sensor")
    values = _values(records[_RAW_DATA], limits).astype(np.float64)
    emissivity, reflected_k, r1, b, f, o, r2 = _constants(records[_CAMERA_INFO])
    from_around = r1 / (r2 * (math.exp(b / reflected_k) - f)) - o if emissivity < 1 else 0.0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        of_object = (values - (1 - emissivity) * from_around) / emissivity
        kelvin = b / np.log(r1 / (r2 * (of_object + o)) + f)
    kelvin[~((kelvin > 0) & (kelvin < 5_000))] = np.nan
    return (kelvin + _ABSOLUTE_ZERO_C).astype(np.float32)


def _segments(file: BinaryIO) -> Iterator[bytes]:
    """The contents of the APP1 segments of FLIR's, which are one stream, cut because a segment has 64 KB at most."""
    file.seek(2)
    while len(head := file.read(12)) == 12 and head[0] == 0xFF and head[1] not in (0xDA, 0xD9):
        size = int.from_bytes(head[2:4])
        if size < 2:
            return
        if head[1] == 0xE1 and head[4:9] == MARK:
            yield file.read(max(size - 10, 0))
        else:
            file.seek(size - 10, 1)


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, content) of the records in a stream, whose directory has 32 bytes for each."""
    if data[:4] not in (b"FFF\0", b"AFF\0") or len(data) < 64:
        raise ValueError("its block of the sensor is damaged")
    order = ">" if 100 <= struct.unpack_from(">I", data, 0x14)[0] < 200 else "<"
    start, count = struct.unpack_from(f"{order}II", data, 0x18)
    for place in range(start, start + 32 * min(count, _MOST_RECORDS), 32):
        if place + 32 > len(data):
            return
        kind = struct.unpack_from(f"{order}H", data, place)[0]
        offset, size = struct.unpack_from(f"{order}II", data, place + 12)
        if kind and offset + size <= len(data):
            yield kind, data[offset : offset + size]


def _order(record: bytes) -> str:
    """The byte order of a record, which begins with the number 2."""
    return "<" if record[:2] == b"\2\0" else ">"


def _values(record: bytes, limits: Limits) -> np.ndarray:
    if len(record) < 32:
        raise ValueError("its values of the sensor are cut off")
    width, height = struct.unpack_from(f"{_order(record)}HH", record, 2)
    if not 0 < width * height <= limits.max_pixels:
        raise ValueError(f"its sensor has {width} x {height} pixels")
    content = record[32:]
    if content.startswith(b"\x89PNG"):
        picture = PngImageFile(io.BytesIO(content))
        if picture.size != (width, height) or not picture.mode.startswith("I"):
            raise ValueError("its values of the sensor are of an unusual kind")
        return np.asarray(picture).astype(np.uint16).byteswap()  # FLIR writes them the other way round than PNG says
    if len(content) < 2 * width * height:
        raise ValueError("its values of the sensor are cut off or of an unusual kind")
    return np.frombuffer(content, f"{_order(record)}u2", width * height).reshape(height, width)


def _constants(record: bytes) -> tuple[float, ...]:
    """Emissivity, the reflected temperature in kelvin, and Planck's R1, B, F, O and R2."""
    if len(record) < 0x310:
        raise ValueError("the constants of its camera are missing")
    order = _order(record)
    (emissivity,) = struct.unpack_from(f"{order}f", record, 0x20)
    (reflected_k,) = struct.unpack_from(f"{order}f", record, 0x28)
    r1, b, f = struct.unpack_from(f"{order}3f", record, 0x58)
    o, r2 = struct.unpack_from(f"{order}if", record, 0x308)
    found = (emissivity, reflected_k, r1, b, f, float(o), r2)
    if not (all(map(math.isfinite, found)) and 0 < emissivity <= 1 and min(reflected_k, r1, b, r2) > 0):
        raise ValueError("the constants of its camera are none")
    return found
