"""File names and paths as text, and the words in them that a search for keywords compares."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from preprocess.metadata import KEYS, QUIET

STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by for from has in into is it its of on or that the their this to was were with "
        "photo picture image",
    )
)


def encode_path(path: str) -> bytes:
    """A path as the file system has it: the key of a file, whatever its encoding."""
    return os.fsencode(path)


def shown(path: str) -> str:
    """A path as valid text, with replacement characters for bytes that are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")


def words_of(text: str) -> list[str]:
    """`IMG_beachSunset2.jpg` -> [IMG, beach, Sunset, 2, jpg]: cut at marks, digits and capitals inside a word."""
    return re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-zß-ÿ])(?=[A-ZÀ-ÖØ-Þ])", " ", text))


def search_texts(name: str, caption: str, metadata: str, said: str = "{}") -> tuple[str, str, str]:
    """A file's columns, and what its medium says of itself -> what the search for words has of them.

    Of the keys that media have, the values are words (a title, a camera), unless they are numbers or times.
    """
    own = json.loads(metadata)
    both = json.loads(said) | own
    texts = (
        name,
        caption,
        " ".join(_flat(value if key in KEYS else {key: value}) for key, value in both.items() if key not in QUIET),
    )
    return tuple(" ".join(words_of(text)) for text in texts)  # type: ignore[return-value]


def _flat(values: Any) -> str:
    """All words of a JSON value: keys and values alike."""
    found: list[str] = []
    waiting = [values]
    while waiting:  # a deep one must not meet the recursion limit
        value = waiting.pop()
        if isinstance(value, dict):
            found.extend(value)
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif value is not None:
            found.append(str(value))
    return " ".join(found).encode("utf-8", "replace").decode()
