"""Sounds named by their files, effects and names that people say, with drawings of the same name."""

from __future__ import annotations

import itertools
import re
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_manifests import Builder, BuildError, Download, Entry, Split, is_filled
from data_manifests.datasets import emoji, stamps

_GCOMPRIS = ("instruments", "explore_farm_animals")
"""Resource files of gcompris-qt in which a sound's name says what is heard."""
_SAME = {"flute_traversiere": "flute", "drum_kit": "drum", "snare_drum": "drum", "timpani": "drum", "bongo": "drum"}
"""Names of files -> the simpler thing that the drawings show."""
_WESNOTH = re.compile(
    r"(axe|bat|bow|campfire|crossbow|dagger|dragon|elf|fire|goblin|horse|lightning|mermaid|ogre|skeleton|spear|sword"
    r"|torch|troll|wolf|yeti|zombie)"
    r"(-(hit|die|canter|growl|flapping|attack|charge|big|small|elf|\d+))*"
)
"""Wesnoth names a sound by who makes it and what happens: horse-hit-2. A miss is only a swish, and left out."""
# Of a theme of KTuberling: pizzeria_tomato, xmas_owl; costumes of its penguin are named otherwise than what is shown.
_THEME = re.compile(r"(?:egypt|moon|pizzeria|tv|xmas|butterflies)_(.+)|(\w+)")
_PICTURES = {"effects": 4, "spoken": 1}
"""How many drawings of its name a sound goes with; people's recordings are many."""


@dataclass(frozen=True)
class _Sound:
    """A file, its name in English, and the drawing that another manifest has with it already."""

    name: str
    path: Path
    has: Path | None = None


def splits(download: Download) -> Iterator[Split]:
    """Two manifests, `effects` and `spoken`: an event a sound and a drawing of the same name, `group` the name.

    Drawings are stamps and emoji whose caption or name is the sound's but for article and number. There are no texts.
    Stamps' own sounds come with drawings by other hands. Raises BuildError for a resource file that is none.
    """
    captioned = _captioned(download)
    drawings = _drawings(download, captioned)
    effects = [_of_stamp(stamp, stamp.effect) for stamp in captioned if stamp.effect]
    spoken = [_of_stamp(stamp, path) for stamp in captioned for _, path in stamp.spoken]
    sounds = {
        "effects": [*effects, *_gcompris(download), *_wesnoth(download)],
        "spoken": [*spoken, *_ktuberling(download)],
    }
    for name, found in sounds.items():
        yield Split(name, _events(download, found, drawings, _PICTURES[name]), base=download.common)


def _events(
    download: Download, sounds: Iterable[_Sound], drawings: dict[str, list[Path]], most: int
) -> Iterator[Entry]:
    for sound in sounds:
        place = sound.path.relative_to(download.common).as_posix()
        if not is_filled(sound.path):
            download.lacks("sound", place)
            continue
        # By lot, and the same whether or not another drawing is there.
        lots = sorted(
            (zlib.crc32(f"{sound.path.name} {picture.name} {picture.parent.name}".encode()), picture)
            for picture in drawings.get(_plain(sound.name), [])
            if picture != sound.has
        )
        if not lots and sound.has is None:
            download.lacks("drawing of", sound.name)
        for _, picture in lots[:most]:
            drawing = picture.relative_to(download.common).as_posix()
            yield {
                "id": f"{place} {drawing}",
                "image": {"path": drawing},
                "audio": {"path": place},
                "group": sound.name,
            }


def _plain(name: str) -> str:
    """`A cow.` -> `cow`, `chickens` -> `chicken`: what names of the same thing have in common."""
    words = re.findall(r"\w+", name.lower().replace("_", " "))
    words = [word for word in words if word not in ("a", "an", "the", "some")] or words
    return " ".join(word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] != "s" else word for word in words)


def _drawings(download: Download, captioned: list[stamps.Stamp]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for entry in itertools.chain.from_iterable(split.events for split in emoji.splits(download)):
        artist, _, code = entry["id"].partition("/")
        # Not in other skin tones; and OpenMoji's licence asks that what is made of it be shared alike.
        if code == entry["group"] and artist != "openmoji":
            for name in {_plain(text) for text in entry["text"]}:
                found[name].append(download.path / entry["image"]["path"])
    for stamp in captioned:
        if stamp.picture:
            found[_plain(stamp.captions["en"])].append(Path(stamp.picture))
        else:
            download.lacks("picture (PNG) of a stamp", stamp.captions["en"])
    return found


def _captioned(download: Download) -> list[stamps.Stamp]:
    """The stamps with an English caption; their paths are whole ones."""
    base = stamps.base(download)
    found = stamps.read(download, base) if base else {}
    return [
        stamps.Stamp(
            picture=str(base / stamp.picture) if stamp.picture else "",
            effect=str(base / stamp.effect) if stamp.effect else "",
            spoken=[(language, str(base / path)) for language, path in stamp.spoken],
            captions=stamp.captions,
        )
        for stamp in found.values()
        if base and "en" in stamp.captions
    ]


def _of_stamp(stamp: stamps.Stamp, path: str) -> _Sound:
    return _Sound(stamp.captions["en"], Path(path), Path(stamp.picture) if stamp.picture else None)


def _gcompris(download: Download) -> Iterator[_Sound]:
    for name in _GCOMPRIS:
        file = next(iter(sorted(download.path.glob(f"**/gcompris-qt/rcc/{name}.rcc"))), None)
        if file is None or not is_filled(file):
            download.lacks("resource file of gcompris-qt", f"{name}.rcc")
            continue
        for path, content in resources(file):
            if path.suffix == ".ogg":
                target = download.made / name / path.name
                if not target.is_file():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content)
                yield _Sound(_SAME.get(path.stem, path.stem.replace("_", " ")), target)


def _wesnoth(download: Download) -> Iterator[_Sound]:
    for path in sorted(download.path.glob("**/wesnoth/*/data/core/sounds/**/*.*")):
        if match := _WESNOTH.fullmatch(path.stem):
            yield _Sound(match[1], path)


def _ktuberling(download: Download) -> Iterator[_Sound]:
    for path in sorted(download.path.glob("**/ktuberling/sounds/*/*.*")):
        match = _THEME.fullmatch(path.stem)
        if match and path.suffix in (".ogg", ".wav", ".opus"):
            yield _Sound((match[1] or match[2]).replace("_", " "), path)


def resources(file: Path) -> Iterator[tuple[Path, bytes]]:
    """A Qt resource file (.rcc, versions 1 to 3) -> its files' paths and contents, without those packed with Zstandard.

    Layout: qtbase, src/tools/rcc/rcc.cpp. Raises BuildError where it is laid out otherwise.
    """
    whole = file.read_bytes()
    try:
        magic, version, tree, data, names = struct.unpack_from(">4s4I", whole)
        if magic != b"qres" or version not in (1, 2, 3):
            raise BuildError(f"{file}: expected a Qt resource file of version 1 to 3")
        size = 14 if version == 1 else 22
        waiting = [(0, Path())]
        while waiting:
            number, folder = waiting.pop()
            at = tree + number * size
            name_at, flags, first, second = struct.unpack_from(">IHII", whole, at)
            (length,) = struct.unpack_from(">H", whole, names + name_at)
            start = names + name_at + 6
            path = folder / (whole[start : start + 2 * length].decode("utf-16-be") if number else "")
            if flags & 2:
                waiting.extend((child, path) for child in range(second, second + first))
            elif not flags & 4:
                place = data + second
                (length,) = struct.unpack_from(">I", whole, place)
                content = whole[place + 4 : place + 4 + length]
                yield path, zlib.decompress(content[4:]) if flags & 1 else content
    except (struct.error, UnicodeDecodeError, zlib.error) as error:
        raise BuildError(f"{file}: expected a Qt resource file: {error}") from None


BUILDER = Builder(
    title="Sounds of GCompris, Wesnoth and Tux Paint, names spoken in KTuberling, with drawings of the same name.",
    license="sounds: GPL-2 or later (GCompris GPL-3, its drum kit CC Sampling Plus 1.0); drawings: see emoji, stamps",
    obtain="the Debian packages gcompris-qt-data, ktuberling-data, wesnoth-1.16-data and tuxpaint-stamps-default, each "
    "unpacked with `dpkg -x` below one folder with the packages of `emoji`; any of them will do",
    layout="usr/share of the Debian packages in any depth, the stamps as usr/share/tuxpaint/stamps",
    splits=splits,
)
