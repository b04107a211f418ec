"""Which tracks a container of moving media has, told from its own index: the one place where sound only is recognised.

Nothing is decoded. Each function looks at a bounded part of the file and answers None where that does not tell.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import BinaryIO

_MOST_BOXES = 10_000
"""Entries of a container's index that are looked at, so that a file of empty boxes does not cost seconds."""
_TS_BYTES = 2**20
"""Bytes of an MPEG transport stream that are searched for its tables, which repeat every 0.1 s (DVB)."""
_ASF_BYTES = 2**20
"""Bytes at the beginning of a Windows Media file that hold its header, which lists its streams."""
# ISO/IEC 13818-1, table 2-34, and ATSC, Blu-ray and AVS for the rest.
_TS_PICTURES = {0x01, 0x02, 0x10, 0x1B, 0x1E, 0x1F, 0x20, 0x21, 0x24, 0x27, 0x33, 0x42, 0x80, 0xD1, 0xD2, 0xD4, 0xEA}
_ASF_VIDEO = bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b")
_ASF_AUDIO = bytes.fromhex("409e69f84d5bcf11a8fd00805f5c442b")
_OGG_PICTURES = (b"\x80theora", b"OVP80", b"BBCD", b"\x01video")
# Matroska's element ids (RFC 9559, section 5)
_SEGMENT, _TRACKS, _ENTRY, _TYPE, _CLUSTER = 0x18538067, 0x1654AE6B, 0xAE, 0x83, 0x1F43B675


def has_pictures(name: str, file: BinaryIO) -> bool | None:
    """Whether a file of the format `name` has a track of moving pictures; None where its beginning does not tell."""
    look = _LOOKS.get(name)
    if look is None:
        return None
    file.seek(0)
    try:
        return look(file)
    except (IndexError, ValueError, OSError):  # cut off, or not what it seemed to be
        return None


def _mp4(file: BinaryIO) -> bool | None:
    """ISO/IEC 14496-12: moov/trak/mdia/hdlr says what a track is."""
    size = file.seek(0, 2)
    for kind, start, end in _boxes(file, 0, size):
        if kind == b"moov":
            kinds = [
                handler
                for track, first, last in _boxes(file, start, end)
                if track == b"trak"
                for media, low, high in _boxes(file, first, last)
                if media == b"mdia"
                for box, inside, _ in _boxes(file, low, high)
                if box == b"hdlr" and (handler := _bytes(file, inside + 8, 4))
            ]
            return b"vide" in kinds if kinds else None
    return None


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, start of its content, end) of the boxes between two places."""
    for _ in range(_MOST_BOXES):
        head = _bytes(file, start, 16)
        if start + 8 > end or len(head) < 8:
            return
        length, first = int.from_bytes(head[:4]), start + 8
        if length == 1:
            length, first = int.from_bytes(head[8:16]), start + 16
        elif length == 0:
            length = end - start
        if start + length < first:
            return
        yield head[4:8], first, min(start + length, end)
        start += length


def _matroska(file: BinaryIO) -> bool | None:
    size = file.seek(0, 2)
    for element, start, end in _elements(file, 0, size):
        if element != _SEGMENT:
            continue
        for inside, first, last in _elements(file, start, end):
            if inside == _CLUSTER:
                return None
            if inside == _TRACKS:
                kinds = [
                    int.from_bytes(_bytes(file, at, stop - at))
                    for entry, low, high in _elements(file, first, last)
                    if entry == _ENTRY
                    for field, at, stop in _elements(file, low, high)
                    if field == _TYPE and stop - at <= 8
                ]
                return 1 in kinds if kinds else None
    return None


def _elements(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(id, start of its content, end) of the EBML elements between two places (RFC 8794, sections 4 to 6)."""
    for _ in range(_MOST_BOXES):
        head = _bytes(file, start, 12)
        if start >= end or not head or not head[0]:
            return
        of_id = 9 - head[0].bit_length()
        if len(head) <= of_id or not head[of_id]:
            return
        of_size = 9 - head[of_id].bit_length()
        length = int.from_bytes(head[of_id : of_id + of_size]) & (1 << 7 * of_size) - 1
        first = start + of_id + of_size
        unknown = length == (1 << 7 * of_size) - 1
        last = end if unknown else min(first + length, end)
        yield int.from_bytes(head[:of_id]), first, last
        start = last


def _mpegts(file: BinaryIO) -> bool | None:
    """ISO/IEC 13818-1: packet 0 leads to the table of the programme, which has the types of its streams."""
    data = file.read(_TS_BYTES)
    packet = 192 if data[4:5] == b"\x47" and data[196:197] == b"\x47" else 188
    tables: set[int] = set()
    kinds: list[int] = []
    for at in range(packet - 188, len(data) - 188, packet):
        head = data[at : at + 188]
        if head[0] != 0x47 or not head[1] & 0x40:
            continue
        identity = int.from_bytes(head[1:3]) & 0x1FFF
        begin = 4 + (head[4] + 1 if head[3] & 0x20 else 0)
        section = head[begin + 1 + head[begin] :] if begin < 188 else b""
        if identity == 0 and section[:1] == b"\0":
            programmes = section[8 : 3 + (int.from_bytes(section[1:3]) & 0xFFF) - 4]
            entries = [programmes[i : i + 4] for i in range(0, len(programmes) - 3, 4)]
            tables |= {int.from_bytes(entry[2:]) & 0x1FFF for entry in entries if entry[:2] != b"\0\0"}
        elif identity in tables and section[:1] == b"\2":
            end = 3 + (int.from_bytes(section[1:3]) & 0xFFF) - 4
            at_stream = 12 + (int.from_bytes(section[10:12]) & 0xFFF)
            while at_stream + 5 <= min(end, len(section)):
                kinds.append(section[at_stream])
                at_stream += 5 + (int.from_bytes(section[at_stream + 3 : at_stream + 5]) & 0xFFF)
            if kinds:
                return any(kind in _TS_PICTURES for kind in kinds)
    return None


def _asf(file: BinaryIO) -> bool | None:
    head = file.read(_ASF_BYTES)
    header = head[: int.from_bytes(head[16:24], "little")]
    return _ASF_VIDEO in header if _ASF_VIDEO in header or _ASF_AUDIO in header else None


def _avi(file: BinaryIO) -> bool | None:
    head = file.read(2**16)
    streams = {head[at + 8 : at + 12] for at in _places(head, b"strh")}
    return b"vids" in streams if streams & {b"vids", b"auds"} else None


def _flv(file: BinaryIO) -> bool | None:
    flags = file.read(5)[4]
    return None if not flags & 5 else bool(flags & 1)


def _ogg(file: BinaryIO) -> bool | None:
    """RFC 3533: the pages that begin the logical streams come first, each with the name of its codec."""
    head = file.read(2**12)
    begins = itertools.takewhile(
        lambda at: head[at + 5] & 2, (at for at in _places(head, b"OggS") if at + 27 < len(head))
    )
    packets = [head[at + 27 + head[at + 26] :] for at in begins]
    return any(packet.startswith(_OGG_PICTURES) for packet in packets) if packets else None


def _places(data: bytes, mark: bytes) -> Iterator[int]:
    at = data.find(mark)
    while at >= 0:
        yield at
        at = data.find(mark, at + 1)


def _bytes(file: BinaryIO, start: int, count: int) -> bytes:
    file.seek(start)
    return file.read(count)


_LOOKS = {
    "mp4": _mp4,
    "matroska": _matroska,
    "mpegts": _mpegts,
    "asf": _asf,
    "avi": _avi,
    "flv": _flv,
    "ogg": _ogg,
}
"""Name of a container -> the function that looks into its index for streams with pictures."""
