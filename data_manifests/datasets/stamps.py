"""Tux Paint stamps: pictures with captions, sound effects and spoken descriptions in many languages."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_manifests import Builder, Download, Entry, Split, is_filled

_PLACES = ("usr/share/tuxpaint/stamps", "share/tuxpaint/stamps", "tuxpaint/stamps", "stamps")
"""Where the stamps lie: in an unpacked Debian package, in an installed one's prefix, or in the folder itself."""
_LANGUAGE = r"([a-z]{2,3}(?:_[A-Za-z]{2})?(?:@\w+)?)"
"""A locale in the name of a file: `de`, `pt_BR`, `ca@valencia`."""
_SPOKEN = re.compile(rf"(.+?)_desc(?:_{_LANGUAGE})?")
"""`NAME_desc_LANGUAGE`: the spoken caption of a stamp."""
_LOCAL_EFFECT = re.compile(rf"(.+?)_{_LANGUAGE}")
"""`NAME_LANGUAGE`: an effect in which somebody says the name of a letter or number."""
_TRANSLATION = re.compile(r"([\w@]+)\.utf8=(.*)")
"""`LANGUAGE.utf8=CAPTION`: a line of a stamp's text file."""


@dataclass
class Stamp:
    """The files of one stamp, as paths below the folder of stamps; `spoken` are (language, path)."""

    picture: str = ""
    drawing: str = ""
    effect: str = ""
    spoken: list[tuple[str, str]] = field(default_factory=list)
    captions: dict[str, str] = field(default_factory=dict)


def splits(download: Download) -> Iterator[Split]:
    """One manifest of pictures with English captions and sound effects, and `spoken`: one event a spoken caption.

    What is spoken stands with the picture and the caption in its language. Stamps that have the same English
    caption share a group; the class is the top folder.
    """
    below = base(download) or download.path
    stamps = read(download, below)
    classes = sorted({name.split("/")[0] for name in stamps})
    yield Split("", _events(download, stamps), classes, ("a picture of {}.", "a drawing of {}."), base=below)
    yield Split("spoken", _spoken_events(stamps), base=below)


def base(download: Download) -> Path | None:
    """The folder of stamps in a download, None where none is found by its name."""
    return next((download.path / place for place in _PLACES if (download.path / place).is_dir()), None)


def read(download: Download, base: Path) -> dict[str, Stamp]:
    """The stamps below a folder by their path without ending; what is empty is noted in `download`."""
    stamps: dict[str, Stamp] = {}
    for folder, subfolders, names in os.walk(base):
        subfolders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            place = path.relative_to(base).as_posix()
            stem, suffix = os.path.splitext(place)
            if suffix not in (".png", ".svg", ".txt", ".ogg", ".wav"):
                continue
            if not is_filled(path):
                download.lacks("content", place)
            elif suffix == ".png":
                stamps.setdefault(stem, Stamp()).picture = place
            elif suffix == ".svg":
                stamps.setdefault(stem, Stamp()).drawing = place
            elif suffix == ".txt":
                stamps.setdefault(stem, Stamp()).captions = _captions(path)
            elif spoken := _SPOKEN.fullmatch(stem):
                stamps.setdefault(spoken[1], Stamp()).spoken.append((spoken[2] or "en", place))
            else:
                stamps.setdefault(stem, Stamp()).effect = place
    for name in [name for name, stamp in stamps.items() if stamp.effect and not (stamp.picture or stamp.drawing)]:
        # Letters and numbers have an effect a language (7_de.ogg beside 7.svg), in which somebody says them.
        local = _LOCAL_EFFECT.fullmatch(name)
        if local and local[1] in stamps:
            language, _, region = local[2].partition("_")
            code = f"{language}_{region.upper()}" if region else language
            stamps[local[1]].spoken.append((code, stamps.pop(name).effect))
    return stamps


def _captions(path: Path) -> dict[str, str]:
    """The first line is English; each of the others is LANGUAGE.utf8=CAPTION."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = {"en": lines[0].strip()} if lines else {}
    for match in filter(None, map(_TRANSLATION.fullmatch, lines[1:])):
        found[match[1]] = match[2].strip()
    return {language: caption for language, caption in found.items() if caption}


def _events(download: Download, stamps: dict[str, Stamp]) -> Iterator[Entry]:
    for name, stamp in stamps.items():
        if not stamp.picture:
            what = "PNG beside an SVG, which has no reader (render it to NAME.png)" if stamp.drawing else "picture"
            download.lacks(what, name)
        if (stamp.picture or stamp.drawing) and "en" not in stamp.captions:
            download.lacks("caption", name)
        event = _media(stamp.picture, stamp.effect, stamp.captions.get("en", ""))
        if len(event) > 1:
            yield {"id": name, **event, "labels": [name.split("/")[0]], "group": stamp.captions.get("en", name)}


def _spoken_events(stamps: dict[str, Stamp]) -> Iterator[Entry]:
    for name, stamp in stamps.items():
        for language, audio in stamp.spoken:
            event = _media(stamp.picture, audio, stamp.captions.get(language, ""))
            if len(event) > 1:
                yield {"id": audio, **event, "group": stamp.captions.get("en", name)}


def _media(picture: str, sound: str, caption: str) -> Entry:
    """What there is of an event."""
    event: Entry = {}
    if picture:
        event["image"] = {"path": picture}
    if sound:
        event["audio"] = {"path": sound}
    if caption:
        event["text"] = caption
    return event


BUILDER = Builder(
    title="Tux Paint stamps.",
    license="GPL-2",
    obtain="the Debian package tuxpaint-stamps-default, installed, or `apt-get download` and `dpkg -x` into a folder",
    layout="usr/share/tuxpaint/stamps below the folder, or the folder of stamps itself: NAME.png or NAME.svg, "
    "NAME.txt, NAME.ogg, NAME_desc_LANGUAGE.ogg",
    splits=splits,
)
