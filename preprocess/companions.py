"""Files of other programs beside a medium that describe it: Google Takeout's, XMP, and img2dataset's.

    IMG_1.jpg      IMG_1.jpg.json, IMG_1.jpg.supplemental-metadata.json (also cut off), IMG_1.jpg(1).json    Takeout
                   IMG_1.xmp, IMG_1.jpg.xmp                                                                  XMP
    0017.jpg       0017.json, 0017.txt                                                                       img2dataset
    IMG_1.HEIC     IMG_1.MOV, which is the moving part of a live photo                                       Apple

Names are looked up in the folder's list of such files, which is read once as long as the folder does not change.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from preprocess import xmp
from preprocess.files import open_regular
from preprocess.metadata import bounded, cleaned
from preprocess.sidecar import MAX_SIDECAR_BYTES

_SUFFIXES = (".json", ".xmp", ".txt")
"""Endings of files that say something about the medium beside them."""
_TAKEOUT = ".supplemental-metadata"
"""What Google Takeout puts between the medium's whole name and `.json`."""
_TAKEOUT_LENGTH = 46
"""Takeout cuts what stands before `.json` to so many characters."""
_NUMBER = re.compile(r"(.+)(\(\d+\))(\.[^.]+)$")
"""`NAME(1).jpg`: Takeout writes the number of a namesake behind the suffix of its sidecar, `NAME.jpg(1).json`."""
_EDITED = re.compile(r"-[^\W\d_]+(?: [^\W\d_]+)*$")
"""How Takeout ends the name of an edited picture, in the language of its owner (`-edited`, `-bearbeitet`)."""
_FILMS = (".mp4", ".mov", ".mp", ".mv")
"""Suffixes of the moving part of a live photo, to which Takeout gives no sidecar of its own."""
_NUMBER_AT_END = re.compile(r"\(\d+\)$")
"""The number of a namesake, behind the name that a sidecar describes."""
_PICTURES = (".jpg", ".jpeg", ".png", ".webp")
"""Pictures of an img2dataset shard, whose caption lies in `NAME.json` or `NAME.txt`."""
_STILLS = (".HEIC", ".heic", ".JPG", ".jpg", ".JPEG", ".jpeg")
"""Suffixes of the photograph of a live photo, those that iPhones write first."""
_LIVE = b"com.apple.quicktime.content.identifier"
"""The key under which Apple's films name the photograph to which they belong."""
_MOVIE_HEAD_BYTES = 2**18
"""Bytes at each end of a film that are searched for that key; the index of a film of 3 s lies in one of them."""
_MOST_CAPTION = 4_096
"""Characters of a caption. Captions of web pages that are longer are whole articles."""
_SETTLED_NS = 10**9
"""A folder changed later than so long ago may change again within the same tick of its clock."""


def beside(path: str) -> list[str]:
    """The paths of the files that describe a medium, most telling first; ours, `NAME.json`, is none of them."""
    folder, name = os.path.split(path)
    known = _names(folder)
    if not known:
        return []
    stem, suffix = os.path.splitext(name)
    wanted = [*_takeout_names(name), f"{name}.xmp", f"{stem}.xmp"]
    if suffix.lower() in _FILMS:  # the moving part of a live photo has none of its own
        wanted += [other for end in _STILLS for other in _takeout_names(stem + end)]
    if suffix.lower() in _PICTURES:
        wanted += [f"{stem}.json", f"{stem}.txt"]
    own = f"{name}.json"
    named = (one if one in known.values() else known.get(one.lower(), "") for one in wanted)
    return [os.path.join(folder, found) for found in dict.fromkeys(named) if found and found not in (own, name)]


def describes_another(path: str) -> bool:
    """Whether a file only describes a medium beside it, and so is no item itself.

    The text of img2dataset's pairs is one only where the `.json` of the pair is there too.
    """
    folder, name = os.path.split(path)
    stem, suffix = os.path.splitext(name)

    def is_there(*names: str) -> bool:
        return any(os.path.lexists(os.path.join(folder, other)) for other in names)

    if suffix == ".json":
        # Where Takeout has cut a name, it cannot be told whose it was.
        return len(_NUMBER_AT_END.sub("", stem)) == _TAKEOUT_LENGTH or is_there(
            stem, *_of_takeout_name(stem), *(stem + end for end in _PICTURES)
        )
    if suffix == ".txt":
        return is_there(f"{stem}.json") and is_there(*(stem + end for end in _PICTURES))
    return suffix.lower() == ".xmp"


def still_of(path: str) -> str | None:
    """A `.mov` -> the photograph `STEM.heic` or `.jpg` beside it of whose live photo it is the moving part, else None.

    Two files of one name alone are no live photo: the film says by Apple's content identifier that it belongs to one.
    Raises OSError.
    """
    stem, suffix = os.path.splitext(path)
    if suffix.lower() != ".mov":
        return None
    still = next((stem + end for end in _STILLS if os.path.lexists(stem + end)), None)
    if still is None:
        return None
    with os.fdopen(open_regular(path), "rb") as file:
        size = file.seek(0, os.SEEK_END)
        for place in (0, max(0, size - _MOVIE_HEAD_BYTES)):  # where players and cameras put the index
            file.seek(place)
            if _LIVE in file.read(_MOVIE_HEAD_BYTES):
                return still
    return None


def read(path: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A medium -> what the files of other programs beside it say of it, and notes on those that say nothing usable.

    Raises OSError where one cannot be read.
    """
    found: dict[str, Any] = {}
    notes: list[str] = []
    for other in beside(path):
        with os.fdopen(open_regular(other), "rb") as file:
            raw = file.read(MAX_SIDECAR_BYTES + 1)
        facts = _facts(other, raw) if len(raw) <= MAX_SIDECAR_BYTES else None
        if facts is None:
            notes.append(f"{os.path.basename(other)} beside it describes nothing that is known; it was ignored")
        else:
            found = facts | found
    return found, tuple(notes)


def of_json(values: Any) -> dict[str, Any] | None:
    """The object of a Takeout or img2dataset file -> metadata; None for any other."""
    if not isinstance(values, Mapping):
        return None
    if "photoTakenTime" in values or ("geoData" in values and "title" in values):
        return _of_takeout(values)
    if "key" in values and "url" in values and ("caption" in values or "status" in values):
        facts = bounded({"url": values.get("url"), "keywords": []})
        caption = cleaned(values.get("caption"), _MOST_CAPTION)
        return facts | ({"caption": caption} if caption else {})
    return None


def _facts(path: str, raw: bytes) -> dict[str, Any] | None:
    suffix = Path(path).suffix.lower()
    if suffix == ".xmp":
        return xmp.facts_of(raw) or None
    if suffix == ".txt":
        text = cleaned(raw[: 4 * _MOST_CAPTION].decode("utf-8", "replace"), _MOST_CAPTION)
        return {"caption": text} if text else None
    try:
        return of_json(json.loads(raw))
    except (ValueError, RecursionError):
        return None


def _of_takeout(values: Mapping[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {"description": values.get("description"), "url": values.get("url")}
    people = values.get("people")
    if isinstance(people, list):
        facts["people"] = [person.get("name") for person in people if isinstance(person, Mapping)]
    for key in ("geoData", "geoDataExif"):
        place = values.get(key)
        if isinstance(place, Mapping) and (place.get("latitude") or place.get("longitude")):
            facts |= {"latitude": place.get("latitude"), "longitude": place.get("longitude")}
            break
    taken = values.get("photoTakenTime")
    if isinstance(taken, Mapping) and re.fullmatch(r"-?\d{1,11}", seconds := str(taken.get("timestamp", ""))):
        moment = datetime.fromtimestamp(0, UTC).timestamp() + int(seconds)
        if 0 < moment < 253_402_300_799:
            text = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            facts |= {"taken": text, "taken_from": "takeout"}
    return bounded(facts)


def _takeout_names(name: str) -> list[str]:
    stem, suffix = os.path.splitext(name)
    numbered = _NUMBER.fullmatch(name)
    bases = [(name, "")]
    if numbered:  # IMG_1(2).jpg is described by IMG_1.jpg(2).json
        bases.insert(0, (numbered[1] + numbered[3], numbered[2]))
    if (plain := _EDITED.sub("", stem)) != stem:
        bases.append((plain + suffix, ""))
    ends = [_TAKEOUT[:length] for length in range(len(_TAKEOUT), 1, -1)]  # it is cut short for reasons of its own
    return [f"{(base + end)[:_TAKEOUT_LENGTH]}{number}.json" for base, number in bases for end in (*ends, "")]


def _of_takeout_name(stem: str) -> list[str]:
    """`IMG_1.jpg.supplemental-metadata(2)` -> `IMG_1(2).jpg`, the medium that it may describe."""
    number = _NUMBER_AT_END.search(stem)
    whole = stem[: number.start()] if number else stem
    base, _, end = whole.rpartition(".")
    found = []
    for name in (whole, base) if _TAKEOUT.startswith(f".{end}") else (whole,):
        root, suffix = os.path.splitext(name)
        found.append(f"{root}{number[0]}{suffix}" if number else name)
    return found


def _names(folder: str) -> Mapping[str, str]:
    """The names in a folder of files that may describe others, by their small letters."""
    try:
        changed = os.stat(folder or ".").st_mtime_ns
    except OSError:
        return {}
    return _listed(folder, changed) if time.time_ns() - changed > _SETTLED_NS else _listed.__wrapped__(folder, changed)


@lru_cache(maxsize=16)
def _listed(folder: str, changed: int) -> Mapping[str, str]:
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name.lower(): entry.name for entry in entries if entry.name.lower().endswith(_SUFFIXES)}
    except OSError:
        return {}
