"""The bytes of a sound file as a decoder should see them: from their beginning, with a header that was closed."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

from preprocess.audio_frames import behind_tags
from preprocess.formats import Format

_FIRST_FRAME_BYTES = 256
"""Bytes of an MP3's first frame in which the mark of its number of frames lies."""
_LENGTHS = (b"Xing", b"Info", b"VBRI")
"""The marks under which encoders (LAME, FFmpeg, Fraunhofer) write the number of frames."""


class _View(io.RawIOBase):
    """A file from `start` on, its first bytes replaced by `head`."""

    def __init__(self, file: BinaryIO, start: int, head: bytes = b"") -> None:
        self._file, self._start, self._head = file, start, head
        self._size = file.seek(0, 2) - start
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The place in the view."""
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of any file."""
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        """As of any file."""
        view = memoryview(buffer).cast("B")
        if self._at < len(self._head):
            data = self._head[self._at : self._at + len(view)]
        else:
            self._file.seek(self._start + self._at)
            data = self._file.read(len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def from_its_beginning(file: BinaryIO, found: Format) -> tuple[BinaryIO, tuple[str, ...]]:
    """A sound file -> the same without what lies before the sound, and with the sizes that a recorder did not come to
    write into its header; and what was done.
    """
    if found.offset:
        note = f"{found.offset:,} bytes before its sound (a tag, zeros or junk) were passed over"
        return _View(file, found.offset), (note,)  # type: ignore[return-value]
    if found.name == "wav" and (head := _closed_header(file)):
        note = "its header was never closed: all that follows it is taken as its sound"
        return _View(file, 0, head), (note,)  # type: ignore[return-value]
    file.seek(0)
    return file, ()


def announces_length(file: BinaryIO) -> bool:
    """Whether the first frame of an MP3 says how many there are. The place in the file is its beginning afterwards."""
    file.seek(behind_tags(file))
    head = file.read(_FIRST_FRAME_BYTES)
    file.seek(0, 2)  # out of what is buffered: libsndfile goes on where the descriptor stands
    file.seek(0)
    return any(mark in head for mark in _LENGTHS)


def _closed_header(file: BinaryIO) -> bytes:
    """The header of a WAV whose data are of size 0, with sizes up to its end; b"" for all others."""
    size, at = file.seek(0, 2), 12
    file.seek(0)
    head = file.read(2**16)
    if head[:4] != b"RIFF":
        return b""
    while at + 8 <= len(head):
        length = int.from_bytes(head[at + 4 : at + 8], "little")
        if head[at : at + 4] == b"data":
            rest = size - at - 8
            following = head[at + 8 : at + 16]
            is_chunk = following[:4] in (b"LIST", b"id3 ", b"ID3 ", b"bext", b"fact", b"JUNK", b"PAD ", b"cue ")
            if length or rest <= 0 or is_chunk:
                return b""
            sizes = [min(n, 0xFFFF_FFFE).to_bytes(4, "little") for n in (size - 8, rest)]
            return head[:4] + sizes[0] + head[8 : at + 4] + sizes[1]
        at += 8 + length + length % 2
    return b""
