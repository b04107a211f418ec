"""Bytes of a text -> its encoding: byte order marks, UTF-16 without one, UTF-8, else Windows-1252."""

from __future__ import annotations

import codecs

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks and the names by which Python knows their encodings."""
_CONTROLS = frozenset(range(32)) - set(b"\t\n\v\f\r\x1b") | {0x7F}
"""Bytes that no text in a one-byte encoding has."""
_LONGEST_CHARACTER = 4
"""Bytes of the longest character in UTF-8; one may be cut off at the end of a head."""
_FEWEST_PAIRS = 4
"""Characters without which UTF-16 is not told by its zeros."""
UNDEFINED = frozenset(b"\x81\x8d\x8f\x90\x9d")
"""Bytes that mean nothing in Windows-1252."""


def encoding_of(head: bytes) -> str | None:
    """The first bytes of a file -> the name of Python's codec for its text, None where it is none.

    A head may end within a character. Latin-1 is a part of Windows-1252 where it prints anything.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if b"\0" in head:
        return _utf16_without_mark(head)
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        cut = error.end == len(head) and error.reason == "unexpected end of data"
        if cut and error.start >= len(head) - _LONGEST_CHARACTER:
            return "utf-8"
        return None if set(head) & (_CONTROLS | UNDEFINED) else "cp1252"
    return "utf-8"


def _utf16_without_mark(head: bytes) -> str | None:
    """UTF-16 of mostly Latin letters has a zero in every second byte, and in that one only."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    pairs = len(head) // 2
    if pairs < _FEWEST_PAIRS:
        return None
    if odd > 0.6 * pairs and not even:
        return "utf-16-le"
    if even > 0.6 * pairs and not odd:
        return "utf-16-be"
    return None
