"""Streams of sound frames without a container, and the tags and junk that lie before them."""

from __future__ import annotations

from typing import BinaryIO

_MOST_ZEROS = 2**24
"""Bytes of zeros that are skipped in front of the sound: a file of nothing but zeros costs no more than 16 MiB of
reading."""
_MOST_JUNK = 2**16
"""Bytes that are searched for the first frame; a file without one in its first 64 KiB is no MPEG audio."""
# ISO/IEC 11172-3 and 13818-3: kbit/s by (is MPEG-1, layer), Hz of MPEG-1; lower versions halve and quarter the rates.
_KBITS = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = (44_100, 48_000, 32_000)


def behind_tags(file: BinaryIO) -> int:
    """Where in a file the sound begins: behind ID3v2 and APEv2 tags and zeros, however many of them."""
    size = file.seek(0, 2)
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(32)
        if head[:3] == b"ID3" and len(head) >= 10 and not any(byte & 0x80 for byte in head[6:10]):
            length = sum(byte << 7 * (3 - place) for place, byte in enumerate(head[6:10]))
            at += 10 + length + (10 if head[5] & 0x10 else 0)
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            length = int.from_bytes(head[12:16], "little")  # with its footer, without its header
            has_header = int.from_bytes(head[20:24], "little") >> 29 & 1
            at += length + 32 * has_header if has_header else 32
        elif head[:4] == b"\0\0\0\0" and (zeros := _zeros(file, at)):
            at += zeros
        else:
            break
    return min(at, size)


def frames_from(file: BinaryIO, start: int) -> tuple[int, str] | None:
    """(place, mp3 or aac) of the first of three frames in a row within 64 KiB from `start`; None where none begin."""
    file.seek(start)
    data = file.read(_MOST_JUNK)
    at = data.find(b"\xff")
    while at >= 0:
        if name := frame_kind(data[at:], frames=3):
            return start + at, name
        at = data.find(b"\xff", at + 1)
    return None


def frame_kind(data: bytes, frames: int = 1) -> str | None:
    """Whether so many frames of MPEG audio (`mp3`) or ADTS (`aac`) begin the data, as far as it reaches."""
    at, kind, found = 0, None, 0
    while found < frames and at + 4 <= len(data):
        if (frame := _frame(data[at : at + 6])) is None or (kind and kind != frame[0]):
            return None
        kind = frame[0]
        at += frame[1]
        found += 1
    if found == 1 and data[1] & 0x06 == 0x06:  # one frame of layer I: rather the mark of UTF-16
        return None
    return kind if found == frames or (found and at >= len(data)) else None


def _frame(head: bytes) -> tuple[str, int] | None:
    """The first bytes of a frame -> its kind and how long it is, in bytes."""
    if head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    layer = 4 - (head[1] >> 1 & 3)
    if layer == 4:  # the layer bits are 0 in ADTS AAC and never 0 in MPEG audio
        if head[1] & 0xF0 != 0xF0 or head[2] >> 2 & 15 > 12:
            return None
        length = int.from_bytes(head[3:6].ljust(3, b"\0")) >> 5 & 0x1FFF
        return "aac", max(length, 7)
    version, rate, bits = head[1] >> 3 & 3, head[2] >> 2 & 3, head[2] >> 4
    if version == 1 or rate == 3 or not 0 < bits < 15:  # reserved, and free format, which hardly exists
        return None
    first = version == 3
    rate_hz = _RATES_HZ[rate] >> {3: 0, 2: 1, 0: 2}[version]
    kbits, padding = _KBITS[first, layer][bits - 1], head[2] >> 1 & 1
    if layer == 1:
        return "mp3", (12_000 * kbits // rate_hz + padding) * 4
    return "mp3", (144_000 if first or layer == 2 else 72_000) * kbits // rate_hz + padding


def _zeros(file: BinaryIO, start: int) -> int:
    """How many zeros lie from a place on, up to 16 MiB; 0 where only zeros follow."""
    file.seek(start)
    count = 0
    while count < _MOST_ZEROS and (block := file.read(2**16)):
        if rest := block.lstrip(b"\0"):
            return count + len(block) - len(rest)
        count += len(block)
    return 0
