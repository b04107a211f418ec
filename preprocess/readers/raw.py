"""Raw files of cameras: the largest JPEG that the camera put into them, found without knowing their sensors."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, BinaryIO

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from preprocess.source import MediaError, Source

NOTE = "a camera's raw file: the largest picture that the camera put into it was taken"
"""The note of every picture that comes from a raw file."""
_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
"""The markers SOI (with the first byte of the next marker) and EOI of a JPEG (ITU-T T.81, table B.1)."""
_MOST_BYTES = 2**29
"""Bytes of a raw file that are searched, more than a camera's file has."""
_MOST_JPEGS = 64
"""Beginnings of JPEGs that are looked at. Cameras write a handful; the other ones are chance in the sensor's data."""
_LEAST_BYTES = 500
"""No JPEG is shorter with its tables; what is shorter is chance in the sensor's data."""
_HEAD_BYTES = 2**21
"""Bytes from the beginning in which the directories of EXIF lie."""
_EXIF, _GPS = 0x8769, 0x8825
"""The tags of IFD0 that lead to the other directories (EXIF 3.0, section 4.6.3)."""
_NEARLY_TIFF = {b"IIRO": b"II*\0", b"IIRS": b"II*\0", b"MMOR": b"MM\0*", b"IIU\0": b"II*\0"}
"""The first bytes of Olympus' and Panasonic's files -> those of TIFF, which all others of them are."""


def preview(source: Source, file: BinaryIO) -> bytes:
    """A raw file (DNG, NEF, CR2, CR3, ARW, ORF, RW2, RAF, PEF, ...) -> the encoded JPEG with the most pixels in it.

    All of these formats hold ordinary JPEGs as they are, so that they are found by their marks; the lossless ones that
    hold the sensor's values are left out. Raises MediaError where there is none.
    """
    data = file.read(_MOST_BYTES)
    best, most = b"", 0
    at, seen = data.find(_START), 0
    while at >= 0 and seen < _MOST_JPEGS:
        seen += 1
        end = _end_of(data, at)
        size = _pixels(data[at : min(end, at + 2**16)]) if end - at >= _LEAST_BYTES else 0
        if size > most:
            best, most = data[at:end], size
        at = data.find(_START, max(end if size else at + 3, at + 3))
    if not most:
        raise MediaError(
            source.name, "is a raw file without a picture in it that can be shown; develop it to JPEG or TIFF"
        )
    return best


def tags(file: BinaryIO) -> tuple[Mapping[int, Any], Mapping[int, Any], Mapping[int, Any]]:
    """A raw file -> its tags of EXIF in IFD0, in the EXIF IFD and in the GPS IFD, where it is laid out as TIFF or CR3.

    Others have them in the JPEG that `preview` finds. Damaged parts are left out. Its place is then its beginning.
    """
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    head = _NEARLY_TIFF.get(head[:4], head[:4]) + head[4:]
    try:
        if head[:4] in (b"II*\0", b"MM\0*"):
            exif = _exif(head)
            return exif, exif.get_ifd(_EXIF), exif.get_ifd(_GPS)
        if head[4:12] == b"ftypcrx ":  # the boxes of Canon's, each with a TIFF of its own
            return _exif(_box(head, b"CMT1")), _exif(_box(head, b"CMT2")), _exif(_box(head, b"CMT4"))
    except Exception:  # Pillow raises what it likes
        pass
    return {}, {}, {}


def _exif(tiff: bytes) -> Image.Exif:
    exif = Image.Exif()
    if tiff:
        exif.load(b"Exif\0\0" + tiff)
    return exif


def _box(head: bytes, kind: bytes) -> bytes:
    """The content of the first box of a kind; b"" where there is none."""
    at = head.find(kind)
    return head[at + 4 : at - 4 + int.from_bytes(head[at - 4 : at])] if at >= 4 else b""


def _end_of(data: bytes, start: int) -> int:
    """Behind the end mark of the JPEG that begins at `start`: its segments are walked over, so that thumbnails inside
    do not end it.
    """
    at = start + 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xFF:
            at += 1
            continue
        if kind == 0xC3:  # lossless: the sensor's values
            return start
        if kind == 0xDA:
            end = data.find(_END, at)
            return len(data) if end < 0 else end + 2
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return start


def _pixels(head: bytes) -> int:
    """The pixels of a JPEG by its header, 0 for one that Pillow does not open."""
    try:
        picture = JpegImageFile(io.BytesIO(head))
    except Exception:  # Pillow raises what it likes for what is none
        return 0
    return int(picture.size[0] * picture.size[1]) if picture.mode in ("RGB", "L", "CMYK") else 0
