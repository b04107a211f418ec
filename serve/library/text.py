"""File names and paths as text, and the words in them that a search for keywords compares.

Names and queries are compared in one form: Unicode's NFKC, so that composed and decomposed letters and those of full
and half width are the same, with case folded. Scripts that put no spaces between words (Chinese, Japanese, Thai and
others), and Korean, whose words grow endings, are stored as all pairs of neighbouring characters and the last one
alone. Each part of a name is a phrase of such pairs then, also a part of two characters, which trigrams do not find.
"""

from __future__ import annotations

import functools
import json
import os
import re
import unicodedata
from typing import Any

from preprocess.metadata import KEYS, QUIET

WORDS_REVISION = 2
"""Another number makes the words of a library anew when it is opened."""
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by for from has in into is it its of on or that the their this to was were with "
        "photo picture image",
    )
)
"""Words of English that are in most names and captions, so that they tell nothing apart."""
MEDIA_SUFFIXES = frozenset(
    re.findall(
        r"\w+",
        "3fr 3g2 3gp aac ac3 aif aiff amr ape arw asf au avi avif bag bmp caf cr2 cr3 crw csv db3 dcr dng dts dv "
        "eac3 erf exr fff flac flv gif gsm h5 heic heics heif hif iiq insp jfif jp2 jpe jpeg jpg json jxl "
        "kdc m2t m2ts m4a m4b m4v mcap md mef mka mkv mos mov mp2 mp3 mp4 mpeg mpg mrw mts mxf nef npy npz nrw "
        "oga ogg ogv opus orf parquet pbm pdf pef pgm png pnm ppm psb psd raf raw rw2 rwl sph sr2 srf srw svg "
        "tif tiff ts tsv tta txt ulg ulog voc w64 wav weba webm webp wma wmv wv x3f xmp",
    )
)
"""Ends of names that say how a file is stored and not what it shows."""
_LONGEST_WORD, _SHORTEST_WORD = {"other": 12}, {"other": 5}
"""A run without spaces of more characters than a word is a sentence: parts of the shorter length are looked for too."""
_UNSPACED = {
    "hiragana": "\u3041-\u309f",
    "katakana": "\u30a0-\u30ff\u31f0-\u31ff",
    "han": "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",
    "hangul": "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff",
    "other": "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\ua9e0-\ua9ff\uaa60-\uaadf",
}
"""Script -> its letters; `other` are Thai, Lao, Tibetan, Burmese and Khmer."""
_RUN = re.compile(f"[{''.join(_UNSPACED.values())}]+")
"""A run of letters of scripts without spaces between words."""
_SCRIPTS = re.compile("|".join(f"(?P<{name}>[{letters}]+)" for name, letters in _UNSPACED.items()))
"""A run of letters of one script, in a group of the script's name."""


def encode_path(path: str) -> bytes:
    """A path as the file system stores it: the key of a file, whatever its encoding."""
    return os.fsencode(path)


def shown(path: str) -> str:
    """A path as valid text, with replacement characters for bytes that are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")


def fold(text: str) -> str:
    """A text in the form in which names and queries are compared.

    >>> fold("CAFÉ"), fold("Straße")
    ('café', 'strasse')
    """
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def words_of(text: str) -> list[str]:
    """`IMG_beachSunset2.jpg` -> [IMG, beach, Sunset, 2, jpg]: cut at marks, digits and capitals inside a word."""
    if text.isascii():
        return re.findall(r"[a-zA-Z]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text))
    text = re.sub(r"(?<=[a-zß-ÿ])(?=[A-ZÀ-ÖØ-Þ])", " ", unicodedata.normalize("NFKC", text))
    return _words().findall(text)


def stem_of(name: str) -> str:
    """A file's name without the end that says how it is stored; `a.depth.png` -> `a.depth`, `No. 5` as it is."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and stem and suffix.lower() in MEDIA_SUFFIXES else name


def is_file_name(text: str) -> bool:
    """Whether a text ends as names of media do."""
    return stem_of(text) != text


def looks_like_path(text: str) -> bool:
    """Whether a text is rather a path than words: it ends or starts as paths do, or has slashes and no spaces."""
    text = text.strip()
    if is_file_name(text) or re.match(r"[~.]{0,2}/|[A-Za-z]:\\", text):
        return True
    return bool(re.search(r"[/\\]", text)) and not re.search(r"\s|^[\d/]+$", text)


def search_texts(name: str, caption: str, metadata: str, media_facts: str = "{}") -> tuple[str, str, str]:
    """A file's columns, and what its medium says of itself -> what the search for words has of them.

    Of the keys that media have, the values are words (a title, a camera), unless they are numbers or times.
    """
    both = json.loads(media_facts) | json.loads(metadata)
    values = " ".join(_flat(value if key in KEYS else {key: value}) for key, value in both.items() if key not in QUIET)
    return tuple(" ".join(terms_of(text)) for text in (stem_of(name), caption, values))  # type: ignore[return-value]


def terms_of(text: str) -> list[str]:
    """A text -> the terms that are stored of it: folded words, and pairs of characters of scripts without spaces."""
    terms: list[str] = []
    for word in words_of(text):
        word = fold(word)
        if word.isascii():
            terms.append(word)
            continue
        for piece, is_run in _pieces(word):
            terms += _pairs(piece) if is_run else [piece]
    return terms


def query_terms(text: str) -> list[str]:
    """A text -> the terms to look for as SQLite's FTS5 writes them; at least one of them has to be there."""
    wanted: dict[str, None] = {}
    for word in words_of(stem_of(text)):
        word = fold(word)
        if word in STOP_WORDS:
            continue
        for piece, is_run in [(word, False)] if word.isascii() else _pieces(word):
            for term in _parts_of_run(piece) if is_run else [f'"{piece}"']:
                wanted.setdefault(term)
    return list(wanted)


def name_phrase(name: str) -> str | None:
    """A whole file name -> an expression of FTS5 for names that start with its words; None where it has no words."""
    terms = terms_of(stem_of(name))
    return f'name : ^ "{" ".join(terms)}"' if terms else None


def _pieces(word: str) -> list[tuple[str, bool]]:
    """A word -> its parts, and whether each is a run of a script without spaces."""
    found, at = [], 0
    for match in _RUN.finditer(word):
        found += [(word[at : match.start()], False), (match[0], True)]
        at = match.end()
    return [(piece, is_run) for piece, is_run in [*found, (word[at:], False)] if piece]


def _pairs(run: str) -> list[str]:
    return [run[at : at + 2] for at in range(len(run))]


def _phrase(run: str) -> str:
    """Matches where the run is a part of a stored one: all its pairs in a row, or any pair that starts with it."""
    return f'"{" ".join(_pairs(run)[:-1])}"' if len(run) > 1 else f'"{run}" *'


def _parts_of_run(run: str) -> list[str]:
    """The run itself and, of a long one, its parts of one script; Hiragana in between is grammar."""
    found = [_phrase(run)]
    parts = [(match.lastgroup or "", match[0]) for match in _SCRIPTS.finditer(run)]
    for script, part in parts:
        longest, shortest = _LONGEST_WORD.get(script, 4), _SHORTEST_WORD.get(script, 2)
        if len(run) <= longest or script == "hiragana" or len(part) < 2:
            continue
        starts = range(len(part) - shortest + 1)
        found += [_phrase(part)] if len(part) <= longest else [_phrase(part[at : at + shortest]) for at in starts]
    return found


@functools.cache
def _words() -> re.Pattern[str]:
    """Letters with the marks that belong to them (vowels of Thai and Hindi are marks), or digits."""
    marks = [code for code in range(0x300, 0x1F000) if unicodedata.category(chr(code))[0] == "M"]
    ranges: list[list[int]] = []
    for code in (*marks, *range(0xE0100, 0xE01F0)):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    letters = "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)
    return re.compile(rf"(?:[^\W\d_]|[{letters}])+|\d+")


def _flat(values: Any) -> str:
    """All words of a JSON value: keys and values alike."""
    found: list[str] = []
    waiting = [values]
    while waiting:  # without recursion, because a deep value would exceed its limit
        value = waiting.pop()
        if isinstance(value, dict):
            found.extend(value)
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif value is not None:
            found.append(str(value))
    return " ".join(found).encode("utf-8", "replace").decode()
