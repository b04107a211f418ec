"""What a picture file says of itself (EXIF, IPTC, XMP) -> metadata. For decode workers: its bytes are untrusted."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from typing import Any

from PIL import Image, IptcImagePlugin

from preprocess import xmp
from preprocess.metadata import bounded, camera_of, moment
from preprocess.readers.svg import OWN_WORDS

# EXIF 3.0, sections 4.6.4 to 4.6.6; XP tags are those of Windows, in UTF-16.
_EXIF, _GPS = 0x8769, 0x8825
_ORIENTATION, _MAKE, _MODEL, _DESCRIPTION, _ARTIST, _COPYRIGHT = 0x0112, 0x010F, 0x0110, 0x010E, 0x013B, 0x8298
_XP_TITLE, _XP_COMMENT, _XP_KEYWORDS, _XP_SUBJECT = 0x9C9B, 0x9C9C, 0x9C9E, 0x9C9F
_TAKEN, _TAKEN_OFFSET, _DIGITISED, _DIGITISED_OFFSET = 0x9003, 0x9011, 0x9004, 0x9012
_SPEAKING = frozenset({"exif", "xmp", "photoshop"})
_ISO, _FOCAL_LENGTH, _LENS = 0x8827, 0x920A, 0xA434
# IPTC-IIM 4.2, record 2
_IPTC_TITLE, _IPTC_KEYWORDS, _IPTC_BYLINE, _IPTC_CITY, _IPTC_COUNTRY, _IPTC_CAPTION = 5, 25, 80, 90, 101, 120


Tags = Mapping[int, Any]
NO_TAGS: tuple[Tags, Tags, Tags] = ({}, {}, {})
"""Of a picture that lies in no raw file."""


def facts_of(picture: Image.Image, size: tuple[int, int], around: tuple[Tags, Tags, Tags] = NO_TAGS) -> dict[str, Any]:
    """An opened picture of (width, height) as it is stored -> its metadata. Damaged parts are left out.

    EXIF comes before XMP, and that before IPTC, where several say the same. `around` are the tags of EXIF (IFD0, EXIF,
    GPS) of a raw file that the picture lies in.
    """
    if (
        not any(around) and picture.format == "JPEG" and not picture.info.keys() & _SPEAKING
    ):  # as most of the web's pictures are
        return {"width": size[0], "height": size[1]}
    if OWN_WORDS in picture.info:  # the size of its raster is no fact of a drawing
        return bounded(picture.info[OWN_WORDS])
    exif: dict[str, Any] = {}
    # Damage in these is no reason to refuse sound pixels, and Pillow raises what it likes.
    with contextlib.suppress(Exception):
        own = picture.getexif()
        exif = _from_exif(own, own.get_ifd(_EXIF), own.get_ifd(_GPS))
    with contextlib.suppress(Exception):
        exif = _from_exif(*around) | exif
    orientation = exif.get("orientation", 1)
    width, height = size[::-1] if orientation in (5, 6, 7, 8) else size
    found = {"width": width, "height": height}
    with contextlib.suppress(Exception):
        if "photoshop" in picture.info or picture.format == "TIFF":
            found |= _from_iptc(IptcImagePlugin.getiptcinfo(picture) or {})  # type: ignore[arg-type]
    if packet := picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp"):
        with contextlib.suppress(Exception):
            found |= xmp.facts_of(packet)
    return bounded(found | exif)


def _from_exif(exif: Tags, inner: Tags, gps: Tags) -> dict[str, Any]:
    if not exif:
        return {}
    taken = moment(_text(inner.get(_TAKEN)), _text(inner.get(_TAKEN_OFFSET))) or moment(
        _text(inner.get(_DIGITISED)), _text(inner.get(_DIGITISED_OFFSET))
    )
    iso = inner.get(_ISO)
    facts: dict[str, Any] = {
        "orientation": exif.get(_ORIENTATION),
        "camera": camera_of(_text(exif.get(_MAKE)), _text(exif.get(_MODEL))),
        "lens": _text(inner.get(_LENS)),
        "focal_length_mm": _number(inner.get(_FOCAL_LENGTH)),
        "iso": iso[0] if isinstance(iso, tuple) and iso else iso,
        "title": _utf16(exif.get(_XP_TITLE)),
        "description": _text(exif.get(_DESCRIPTION)) or _utf16(exif.get(_XP_COMMENT)) or _utf16(exif.get(_XP_SUBJECT)),
        "keywords": [word.strip() for word in _utf16(exif.get(_XP_KEYWORDS)).split(";")],
        "artist": _text(exif.get(_ARTIST)),
        "copyright": _text(exif.get(_COPYRIGHT)),
        **_position(gps),
    }
    if taken:
        facts |= {"taken": taken, "taken_from": "exif"}
    return bounded(facts)


def _position(gps: Mapping[int, Any]) -> dict[str, float]:
    latitude, longitude = _degrees(gps.get(2), gps.get(1)), _degrees(gps.get(4), gps.get(3))
    if latitude is None or longitude is None or (latitude == 0 and longitude == 0):  # no fix
        return {}
    found = {"latitude": latitude, "longitude": longitude}
    altitude = _number(gps.get(6))
    if altitude is not None:
        below = gps.get(5) in (1, b"\x01")
        found["altitude_m"] = round(-altitude if below else altitude, 1)
    return found


def _degrees(value: Any, side: Any) -> float | None:
    numbers = [_number(entry) for entry in value] if isinstance(value, (tuple, list)) else []
    if not numbers or len(numbers) > 3 or None in numbers:
        return None
    size = sum((number or 0.0) / float(60**place) for place, number in enumerate(numbers))
    return round(-size if _text(side).upper() in ("S", "W") else size, 7)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return round(number, 7) if math.isfinite(number) else None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.partition(b"\0")[0].decode("utf-8", "replace")
    if not isinstance(value, str):
        return ""
    with contextlib.suppress(UnicodeError):  # Pillow takes all for Latin-1; most programs write UTF-8
        value = value.encode("latin-1").decode("utf-8")
    return re.sub(r"\s+", " ", value.partition("\0")[0]).strip()


def _utf16(value: Any) -> str:
    return value.decode("utf-16-le", "ignore").rstrip("\0") if isinstance(value, bytes) else ""


def _from_iptc(records: Mapping[tuple[int, int], Any]) -> dict[str, Any]:
    def of(number: int) -> list[str]:
        value = records.get((2, number), [])
        return [_iptc_text(entry) for entry in (value if isinstance(value, list) else [value])]

    return bounded(
        {
            "title": next(iter(of(_IPTC_TITLE)), ""),
            "description": next(iter(of(_IPTC_CAPTION)), ""),
            "artist": next(iter(of(_IPTC_BYLINE)), ""),
            "city": next(iter(of(_IPTC_CITY)), ""),
            "country": next(iter(of(_IPTC_COUNTRY)), ""),
            "keywords": of(_IPTC_KEYWORDS),
        }
    )


def _iptc_text(value: Any) -> str:
    if not isinstance(value, bytes):
        return ""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
