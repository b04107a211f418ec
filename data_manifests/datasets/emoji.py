"""Emoji as several artists drew them, with their names: several drawings show the same thing."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_manifests import Builder, Download, Entry, Split, is_filled

_RENDERED = ("png",)
"""Where `python -m train.small.fetch` renders what a package has as SVG or as a font only."""
# Package -> artist and where its pictures are, the largest first. Apple's and Facebook's art may not be used freely.
_SETS = {
    "emoji-datasource-google": ("google", ("img/google/64",)),
    "emoji-datasource-twitter": ("twitter", ("img/twitter/64",)),
    "@lobehub/fluent-emoji-3d": ("fluent", ("assets",)),
    "openmoji": ("openmoji", ("color/618x618", "color/72x72")),
    "@iconify-json/noto-v1": ("noto-1", _RENDERED),
    "@iconify-json/emojione": ("emojione", _RENDERED),
    "@iconify-json/fxemoji": ("firefox", _RENDERED),
    "@iconify-json/fluent-emoji-flat": ("fluent-flat", _RENDERED),
    "@iconify-json/fluent-emoji": ("fluent-gradient", _RENDERED),
    "@iconify-json/fluent-emoji-high-contrast": ("fluent-outline", _RENDERED),
    "@iconify-json/emojione-monotone": ("emojione-outline", _RENDERED),
    "@iconify-json/streamline-emojis": ("streamline", _RENDERED),
    "@iconify-json/dinkie-icons": ("dinkie", _RENDERED),
    "@expo-google-fonts/noto-emoji": ("noto-outline", _RENDERED),
    "fonts-symbola": ("symbola", _RENDERED),
}
_DEBIAN = "fonts-symbola"
_TONES = {"1f3fb": "light", "1f3fc": "medium-light", "1f3fd": "medium", "1f3fe": "medium-dark", "1f3ff": "dark"}


@dataclass
class _Emoji:
    """`group` is the code without skin tone, so that all drawings and tones of one emoji share it."""

    texts: list[str]
    group: str
    category: str = ""


def splits(download: Download) -> Iterator[Split]:
    """One manifest: an event a picture, `group` the emoji without its skin tone, the class its category."""
    packages = _packages(download.path)
    for package in _SETS:
        if package not in packages and _SETS[package][1] != _RENDERED:
            download.lacks("package", package)
    catalogue = _catalogue(download, packages)
    if catalogue:
        classes = sorted({emoji.category for emoji in catalogue.values() if emoji.category})
        yield Split("", _events(download, packages, catalogue), classes, ("an emoji of {}", "a symbol for {}"))


def _packages(root: Path) -> dict[str, Path]:
    """The folders of the packages, up to four levels down, by the name in their package.json, Debian's by their own."""
    found: dict[str, Path] = {}
    for depth in range(5):
        for path in sorted(root.glob("*/" * depth + "package.json")):
            try:
                name = json.loads(path.read_bytes()).get("name")
            except (OSError, ValueError, AttributeError):
                continue
            if name in _SETS:
                found.setdefault(name, path.parent)
    if (root / _DEBIAN).is_dir():
        found[_DEBIAN] = root / _DEBIAN
    return found


def _catalogue(download: Download, packages: dict[str, Path]) -> dict[str, _Emoji]:
    """Names by code: Unicode's from emoji-datasource, and OpenMoji's, which add emoji that are not in Unicode."""
    catalogue: dict[str, _Emoji] = {}
    source = next((packages[name] for name in packages if name.startswith("emoji-datasource")), None)
    if source:
        for entry in download.json((source / "emoji.json").relative_to(download.path).as_posix()):
            group = code_of(entry["unified"])
            name = entry["name"].lower() if entry["name"].isupper() else entry["name"]
            catalogue[group] = _Emoji([name], group, entry["category"])
            for tones, variant in entry.get("skin_variations", {}).items():
                text = f"{name}, {' and '.join(_TONES[tone] for tone in tones.lower().split('-'))} skin tone"
                catalogue[code_of(variant["unified"])] = _Emoji([text], group, entry["category"])
    if "openmoji" in packages:
        for entry in download.json((packages["openmoji"] / "data/openmoji.json").relative_to(download.path).as_posix()):
            code = code_of(entry["hexcode"])
            emoji = catalogue.setdefault(code, _Emoji([], code_of(entry["skintone_base_hexcode"] or entry["hexcode"])))
            if entry["annotation"] not in emoji.texts:
                emoji.texts.append(entry["annotation"])
    return catalogue


def _events(download: Download, packages: dict[str, Path], catalogue: dict[str, _Emoji]) -> Iterator[Entry]:
    for package, folder in packages.items():
        artist, places = _SETS[package]
        pictures: dict[str, str] = {}
        for path in itertools.chain.from_iterable(sorted((folder / place).glob("*.*")) for place in places):
            if path.suffix in (".png", ".webp") and is_filled(path):
                pictures.setdefault(code_of(path.stem), path.relative_to(download.path).as_posix())
        for code, emoji in catalogue.items():
            if code not in pictures and places != _RENDERED and (emoji.category or artist == "openmoji"):
                download.lacks(f"picture (.png or .webp) by {artist}", code)
        for code, picture in pictures.items():
            named = catalogue.get(code)
            if named is None or not named.texts:
                download.lacks("name", picture)
                continue
            event: Entry = {"id": f"{artist}/{code}", "image": {"path": picture}, "text": named.texts}
            yield event | ({"labels": [named.category]} if named.category else {}) | {"group": named.group}


def code_of(name: str) -> str:
    """Code points in lower case, without leading zeros and the variation selector FE0F: sets differ in both."""
    return "-".join(part.lstrip("0") for part in name.lower().replace("_", "-").split("-") if part != "fe0f")


BUILDER = Builder(
    title="Emoji by several artists.",
    license="pictures: Google Noto Apache-2.0, Twitter CC BY 4.0, Microsoft Fluent MIT, OpenMoji CC BY-SA 4.0, "
    "EmojiOne 2 and Streamline CC BY 4.0, Firefox OS Apache-2.0, Dinkie MIT, Noto Emoji's font OFL-1.1, Symbola free "
    "for any use; names: MIT",
    obtain="the JavaScript packages emoji-datasource-google, emoji-datasource-twitter, @lobehub/fluent-emoji-3d and "
    "openmoji (`npm pack` and unpack each into a folder of its own, or `npm install`); OpenMoji's package has SVG "
    "only, which has no reader: add color/618x618 or color/72x72 with the PNG of its release; more hands are in "
    "@iconify-json/noto-v1, emojione, emojione-monotone, fxemoji, streamline-emojis, dinkie-icons, fluent-emoji, "
    "fluent-emoji-flat and fluent-emoji-high-contrast, and in the fonts @expo-google-fonts/noto-emoji and Debian's "
    "fonts-symbola, all of which `python -m train.small.fetch` renders",
    layout="the unpacked packages below one folder; any of them is enough for its pictures, one emoji-datasource or "
    "openmoji for the names",
    splits=splits,
)
