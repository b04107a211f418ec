"""What media say of themselves: when, where and with what they were made, and the words that people gave them.

One set of keys for pictures (EXIF, IPTC, XMP), films and sound (tags of their containers). Whatever a file says is
untrusted: it is read by decode workers, and `bounded` holds it against the keys and kinds that there are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

TEXTS = ("title", "description", "artist", "album", "genre", "copyright", "camera", "lens", "city", "country", "url")
"""Keys whose values are texts."""
LISTS = ("keywords", "people")
"""Keys whose values are lists of texts."""
NUMBERS = ("latitude", "longitude", "altitude_m", "width", "height", "orientation", "focal_length_mm", "iso", "pages")
"""Keys whose values are finite numbers, in the units of their names (degrees for a position)."""
TIMES = ("taken", "taken_from")
"""Keys whose values are ISO 8601 dates and times, and where they are from."""
QUIET = frozenset({*NUMBERS, *TIMES, "url"})
"""Keys whose values are no words that anybody searches for."""
KEYS = frozenset({*TEXTS, *LISTS, *NUMBERS, *TIMES, "text", "place"})
"""Every key that metadata may have; others are left out."""
POSITIONS = frozenset({"latitude", "longitude", "altitude_m", "city", "country", "place"})
"""Keys that say where somebody was."""
_MOST_CHARACTERS = 2_000
"""Characters of one text, as many as IPTC allows for a caption (IIM 4.2, data set 2:120)."""
_MOST_TEXT = 100_000
"""Characters of the words inside a medium, such as the text of a PDF: some 30 pages."""
_MOST_ENTRIES = 64
"""Entries of one list. Agencies allow 50 keywords a picture."""


def bounded(facts: Any) -> dict[str, Any]:
    """Any mapping -> the entries of it that have a known key and its kind, texts cut to a bearable length.

    It is its own fixed point: what comes out goes through unchanged.
    """
    found: dict[str, Any] = {}
    for key, value in facts.items() if isinstance(facts, Mapping) else ():
        if key in NUMBERS:
            if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
                found[key] = value
        elif key in LISTS:
            texts = [text for entry in _listed(value)[:_MOST_ENTRIES] if (text := cleaned(entry, 200))]
            if texts:
                found[key] = list(dict.fromkeys(texts))
        elif key in KEYS and (text := cleaned(value, _MOST_TEXT if key == "text" else _MOST_CHARACTERS)):
            found[key] = text
    if not (abs(found.get("latitude", 999)) <= 90 and abs(found.get("longitude", 999)) <= 180):
        found = {key: value for key, value in found.items() if key not in ("latitude", "longitude")}
    return found


def cleaned(value: Any, most: int = _MOST_CHARACTERS) -> str:
    """A text without control characters and halves of pairs, of at most so many characters; '' for anything else."""
    if not isinstance(value, str):
        return ""
    text = value.encode("utf-8", "ignore").decode()[: 2 * most]
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f]+", " ", text)[:most].strip()


def moment(text: Any, offset: Any = None) -> str:
    """A time as EXIF, XMP or a container writes it -> ISO 8601 with its offset where it has one; '' for no time.

    >>> moment("2019:06:15 10:20:30", "+02:00")
    '2019-06-15T10:20:30+02:00'
    """
    match = _MOMENT.match(cleaned(text, 64))
    if match is None:
        return ""
    year, month, day, hour, minute, second, zone = match.groups()
    zone = zone or cleaned(offset, 8)
    zone = "Z" if zone in ("Z", "z") else f"{zone[:3]}:{zone[-2:]}" if re.fullmatch(r"[+-]\d\d:?\d\d", zone) else ""
    found = f"{year}-{month}-{day}" + (f"T{hour}:{minute}:{second or '00'}{zone}" if hour else "")
    try:
        datetime.fromisoformat(found.replace("Z", "+00:00"))
    except ValueError:
        return ""
    return found


def camera_of(make: Any, model: Any) -> str:
    """Maker and model as one name: `Google`, `Pixel 4` -> `Google Pixel 4`, but `Canon`, `Canon EOS` -> `Canon EOS`."""
    maker, name = cleaned(make, 100), cleaned(model, 100)
    first = maker.split(" ")[0]
    return name if not maker or name.lower().startswith(first.lower()) else f"{maker} {name}".strip()


def iso_position(text: Any) -> dict[str, float]:
    """ISO 6709 as cameras write it into films, `+48.1372+011.5755+519.1/` -> latitude, longitude and altitude_m."""
    match = re.match(r"([+-]\d+(?:\.\d+)?)([+-]\d+(?:\.\d+)?)([+-]\d+(?:\.\d+)?)?", cleaned(text, 64))
    if match is None:
        return {}
    names = ("latitude", "longitude", "altitude_m")
    return {name: float(value) for name, value in zip(names, match.groups(), strict=True) if value}


def of_container(tags: Mapping[str, str]) -> dict[str, Any]:
    """The tags of a film or of sound, as FFmpeg and libsndfile name them -> metadata."""
    by_name = {key.lower().removeprefix("com.apple.quicktime."): value for key, value in tags.items()}

    def first(*names: str) -> str | None:
        return next((by_name[name] for name in names if by_name.get(name)), None)

    facts: dict[str, Any] = {
        "title": first("title"),
        "artist": first("artist", "album_artist", "author", "composer"),
        "album": first("album"),
        "genre": first("genre"),
        "description": first("description", "synopsis", "comment"),
        "keywords": [word.strip() for word in re.split(r"[;,]", first("keywords") or "")],
        "copyright": first("copyright"),
        "camera": camera_of(first("make"), first("model")),
        **iso_position(first("location.iso6709", "location")),
    }
    # A clock that was never set stands at the epoch of its format.
    taken = moment(first("creationdate", "creation_time", "date_recorded", "date"))
    if taken and not taken.startswith(("1904-01-01", "1970-01-01")):
        facts |= {"taken": taken, "taken_from": "container"}
    return bounded(facts)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


_MOMENT = re.compile(
    r"(\d{4})[:\-/](\d\d)[:\-/](\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,]\d+)?)?\s*(Z|z|[+-]\d\d:?\d\d)?)?"
)
"""`2019:06:01 12:30:00.5+02:00` of EXIF and the forms of ISO 8601; time, fraction and zone may be missing."""
