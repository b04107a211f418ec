"""Bytes of a text -> its encoding: byte order marks, UTF-16 without one, UTF-8, else the encodings of earlier days.

Of those, Windows-1252 is taken as long as letters are mostly plain ones; other scripts are told by charset-normalizer.
"""

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
_FOREIGN_SHARE = 0.45
"""Of the letters of a text that are not plain ones, above which it is in no language of Western Europe."""
_SPELLED = {
    "cp1252": "Windows-1252 or Latin-1",
    **{f"cp{number}": f"Windows-{number}" for number in (874, 932, 949, 1250, 1251, 1253, 1254, 1255, 1256)},
    "koi8_r": "KOI8-R",
    "euc_jp": "EUC-JP",
    "big5": "Big5",
}
"""Names of codecs -> the names that people know."""
_FEWEST_HIGH = 4
"""Letters that are not plain ones, below which a text in plain ones is taken for Windows-1252."""
_LATIN = ("cp1252", "cp1250", "cp1254")
"""Codecs of Latin letters: Western and Central Europe, Turkey."""
_RANGES = (("cp1255", 0xE0, 0xFA, 1.0), ("koi8_r", 0xC0, 0xDF, 0.7), ("cp1251", 0xE0, 0xFF, 0.7))
"""Where the (small) letters of an alphabet lie, and which share of a text, for what several encodings explain."""
_SCRIPTS = ("cp1251", "koi8_r", "cp1253", "cp1255", "cp1256", "cp874", "cp932", "euc_jp", "gb18030", "big5", "cp949")
"""Codecs of other scripts: Cyrillic, Greek, Hebrew, Arabic, Thai, Japanese, Chinese and Korean."""
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
        return None if set(head) & _CONTROLS else _of_one_script(head)
    return "utf-8"


def _of_one_script(head: bytes) -> str | None:
    """Text that is neither UTF-8 nor UTF-16 -> its encoding."""
    high = [byte for byte in head if byte >= 0x80]
    told = b"\n".join(line for line in head.split(b"\n") if not line.isascii())
    is_western = len(high) < _FOREIGN_SHARE * (len(high) + sum(byte < 0x80 and chr(byte).isalpha() for byte in told))
    if is_western and (set(high) & UNDEFINED or len(high) < _FEWEST_HIGH):
        return None if set(high) & UNDEFINED else "cp1252"
    from charset_normalizer import from_bytes  # slow to import, and few texts need it

    # What is read is cut within a character of up to four bytes.
    whole = told[: max(told.rfind(b"\n"), told.rfind(b" ")) + 1] or told
    found = {
        match.encoding: (match.coherence, -match.chaos)
        for match in from_bytes(
            whole,
            cp_isolation=list(_LATIN if is_western else _SCRIPTS),
            threshold=0.5,
            enable_fallback=False,
            preemptive_behaviour=False,
        )
    }
    if is_western:
        return max(_LATIN, key=lambda name: found.get(name, (0.0, 0.0))[0])
    if not found:
        return None
    best = [name for name, score in found.items() if score == max(found.values())]
    for name, first, last, share in _RANGES:
        if name in best and sum(first <= byte <= last for byte in high) >= share * len(high):
            return name
    return best[0]


def spelled(encoding: str) -> str:
    """The name of a codec as people know it: `cp1251` -> `Windows-1251`."""
    return _SPELLED.get(encoding, encoding.upper().removesuffix("-LE").removesuffix("-BE"))


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
