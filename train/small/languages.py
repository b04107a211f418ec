"""The names of things in the sixteen languages of `small`, from packages that `train.small.fetch` obtains."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from data_manifests.datasets.emoji import code_of

ENGLISH = "en"
"""The language of the annotations that every emoji has."""
STAMPS = {
    "ar": "ar",
    "de": "de",
    "es": "es",
    "fr": "fr",
    "it": "it",
    "ja": "ja",
    "ko": "ko",
    "nl": "nl",
    "pl": "pl",
    "pt": "pt",
    "ru": "ru",
    "th": "th",
    "tr": "tr",
    "zh": "zh_CN",
    "zh-Hant": "zh_TW",
}
"""Languages other than English: the name in CLDR (package cldr-annotations-full) -> the name in Tux Paint."""
_KEYWORDS = 4
"""Keywords of an emoji that make up one phrase."""


def emoji(folder: Path) -> dict[str, dict[str, list[str]]]:
    """The folder of cldr-annotations-full -> {code of an emoji: {language: [its name, its first keywords as a list]}}.

    A language whose file is missing is left out. English is one of the languages.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for language in (ENGLISH, *STAMPS):
        file = folder / "annotations" / language / "annotations.json"
        if not file.is_file():
            continue
        entries: Mapping[str, Mapping[str, list[str]]] = json.loads(file.read_bytes())["annotations"]["annotations"]
        for character, entry in entries.items():
            code = code_of("-".join(f"{ord(part):x}" for part in character))
            phrases = [*entry.get("tts", ()), ", ".join(entry.get("default", ())[:_KEYWORDS])]
            found.setdefault(code, {})[language] = [text for text in phrases if text]
    return found


def stamp(picture: Path) -> dict[str, list[str]]:
    """A stamp's picture -> {language: [its caption]} from the text file beside it, without English."""
    file = picture.with_suffix(".txt")
    if not file.is_file():
        return {}
    lines = file.read_text("utf-8", "replace").splitlines()
    captions = {name: text.strip() for name, mark, text in (line.partition(".utf8=") for line in lines) if mark}
    return {language: [captions[theirs]] for language, theirs in STAMPS.items() if captions.get(theirs)}
