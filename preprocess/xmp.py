"""XMP: what pictures and their `.xmp` files say, from the packet's text, without a parser that follows anything."""

from __future__ import annotations

import html
import re
from typing import Any

from preprocess.encodings import encoding_of
from preprocess.metadata import bounded, camera_of, moment

MAX_BYTES = 2**20
"""Bytes of an XMP packet that are looked at; behind them lie histories of edits and thumbnails."""
_NAMESPACES = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "aux": "http://ns.adobe.com/exif/1.0/aux/",
    "exifEX": "http://cipa.jp/exif/1.0/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
}
"""The usual prefix of each namespace that is read -> its name."""
_LIST_ITEM = re.compile(r"<rdf:li(?:\s[^>]*)?>([^<]*)</rdf:li>")
"""An entry of an RDF list."""


def facts_of(packet: bytes | str) -> dict[str, Any]:
    """An XMP packet (ISO 16684-1) -> metadata; {} for anything else. More than `MAX_BYTES` of it are not looked at."""
    if isinstance(packet, bytes):
        encoding = encoding_of(packet[:MAX_BYTES]) or "utf-8"
        packet = packet[:MAX_BYTES].decode(encoding if encoding.startswith("utf") else "utf-8", "replace")
    text = _usual(packet[:MAX_BYTES])
    if "rdf:Description" not in text:
        return {}
    times = (_one(text, name) for name in ("exif:DateTimeOriginal", "photoshop:DateCreated", "xmp:CreateDate"))
    taken = moment(next(filter(None, times), ""))
    facts: dict[str, Any] = {
        "title": _first(text, "dc:title") or _one(text, "photoshop:Headline"),
        "description": _first(text, "dc:description"),
        "keywords": _every(text, "dc:subject"),
        "people": _every(text, "Iptc4xmpExt:PersonInImage"),
        "artist": _first(text, "dc:creator"),
        "copyright": _first(text, "dc:rights"),
        "camera": camera_of(_one(text, "tiff:Make"), _one(text, "tiff:Model")),
        "lens": _one(text, "aux:Lens") or _one(text, "exifEX:LensModel"),
        "city": _one(text, "photoshop:City"),
        "country": _one(text, "photoshop:Country"),
        "latitude": _degrees(_one(text, "exif:GPSLatitude")),
        "longitude": _degrees(_one(text, "exif:GPSLongitude")),
    }
    if taken:
        facts |= {"taken": taken, "taken_from": "xmp"}
    return bounded(facts)


def _usual(text: str) -> str:
    """The text with the usual prefixes, and without marks of plain text."""
    first, *marked = text.split("<![CDATA[")
    plain = (part.partition("]]>") for part in marked)
    text = first + "".join(html.escape(inside, quote=False) + behind for inside, _, behind in plain)
    declared = dict(re.findall(r"""\sxmlns:([\w.-]{1,32})\s*=\s*["']([^"']{1,100})["']""", text))
    usual = {uri: prefix for prefix, uri in _NAMESPACES.items()}
    others = {prefix: usual[uri] for prefix, uri in declared.items() if usual.get(uri, prefix) != prefix}
    if not others:
        return text
    either = "|".join(map(re.escape, others))
    return re.sub(rf"(?<=[\s</])({either}):", lambda match: f"{others[match[1]]}:", text)


def _one(text: str, name: str) -> str:
    """The value of a simple property, written as an attribute or as an element."""
    match = re.search(rf"""\s{name}\s*=\s*(?:"([^"]*)"|'([^']*)')|<{name}>([^<]*)</{name}>""", text)
    return html.unescape(next(filter(None, match.groups()), "")) if match else ""


def _every(text: str, name: str) -> list[str]:
    """The entries of a bag, a sequence or of alternatives."""
    start = text.find(f"<{name}>")
    end = text.find(f"</{name}>", start)
    return [html.unescape(entry) for entry in _LIST_ITEM.findall(text[start:end])] if 0 <= start < end else []


def _first(text: str, name: str) -> str:
    return next(iter(_every(text, name)), "") or _one(text, name)


def _degrees(value: str) -> float | None:
    """`48,8.232N` or `48,8,13.9N` (degrees, minutes, seconds) -> degrees."""
    match = re.fullmatch(r"(\d+),(\d+(?:\.\d+)?)(?:,(\d+(?:\.\d+)?))?([NSEW])", value.strip())
    if match is None:
        return None
    size = float(match[1]) + float(match[2]) / 60 + float(match[3] or 0) / 3600
    return round(-size if match[4] in "SW" else size, 7)
