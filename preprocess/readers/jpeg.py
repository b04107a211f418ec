"""JPEG files beyond what their decoder looks at: how often it goes through them, and films behind them."""

from __future__ import annotations

import re
from typing import BinaryIO

from preprocess.source import MediaError, Source

FILM_NOTE = "a motion photo: its picture was taken, not the film behind it"
"""The note of a file whose JPEG is followed by a film."""
# A progressive JPEG goes through all its pixels once a scan; cameras and tools write about ten of them.
_MOST_SCANNED_PIXELS = 2e9
_SCAN = b"\xff\xda"
# The first box of an MP4 by a camera: Google's motion photos have it right behind the picture, Samsung's soon after.
_FILM = re.compile(rb"\0\0\0[\x10-\x40]ftyp(?:mp4[12]|isom|iso[2-9]|qt  |avc1|MSNV|3gp[45])")
_OVERLAP = 11


def check_scans(source: Source, file: BinaryIO, pixels: int) -> bool:
    """Counts the scans of a JPEG -> whether it is a motion photo, which has a film behind it.

    In compressed data, 0xFF is never followed by 0xDA; in a film it is by chance. The place in the file stays. Raises
    MediaError for so many scans that decoding would take very long.
    """
    place = file.tell()
    file.seek(0)
    most, scans, last, film = max(1, int(_MOST_SCANNED_PIXELS / pixels)), 0, b"", None
    while scans <= most and not film and (block := file.read(2**20)):
        block = last + block
        film = _FILM.search(block) if b"ftyp" in block else None
        last = b"" if film else block[-_OVERLAP:]  # a mark may lie across two blocks
        scans += block.count(_SCAN, 0, film.start() if film else len(block) - len(last) + 1)
    scans += last.count(_SCAN)
    file.seek(place)
    if scans > most:
        raise MediaError(
            source.name, f"has more than {most:,} scans of {pixels:,} pixels, which would take very long; save it again"
        )
    return film is not None
