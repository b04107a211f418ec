"""The drawings and sounds that `small` is trained on, fetched as packages with their own clients.

    python -m train.small.fetch FOLDER

unpacks into FOLDER the inputs of `crossbind manifest`: `stamps`, `clipart` and the nouns of WordNet (Debian,
`apt-get download`), `emoji` and `icons` (`npm pack`), 1.2 GB; and `sounds`, the sound files of Debian packages. Files
that are there already are not changed. Drawings that exist as SVG only are rendered to PNG beside them, which needs the
package resvg-py (pip install 'crossbind[data]').
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from data_manifests.datasets.emoji import code_of
from data_manifests.datasets.icons import packages, things, wordnet

DEBIAN = {
    "tuxpaint-stamps-default": "stamps",
    "openclipart-png": "clipart",
    "openclipart-svg": "clipart",
    "wordnet-base": "icons/wordnet",
    "fonts-symbola": "emoji/fonts-symbola",
}
"""Package -> folder.

Debian 12 has the versions 2022.06.04-1, 1:0.18+dfsg-19 (both of openclipart), 1:3.0-37 and 2.60-1.1.
"""
EMOJI = (
    "emoji-datasource-google@16.0.0",
    "emoji-datasource-twitter@16.0.0",
    "@lobehub/fluent-emoji-3d@1.1.0",
    "openmoji@17.0.0",
    "emojibase-data@17.0.0",
    "cldr-annotations-full@48.2.0",
    "@iconify-json/noto-v1@1.2.5",
    "@iconify-json/emojione@1.2.3",
    "@iconify-json/fxemoji@1.2.2",
    "@iconify-json/fluent-emoji-flat@1.2.6",
    "@iconify-json/fluent-emoji@1.2.7",
    "@iconify-json/fluent-emoji-high-contrast@1.2.6",
    "@iconify-json/emojione-monotone@1.2.1",
    "@iconify-json/streamline-emojis@1.2.4",
    "@iconify-json/dinkie-icons@1.2.0",
    "@expo-google-fonts/noto-emoji@0.4.7",
)
"""Packages (npm) with drawings of emoji, their names and their translations, with exact versions."""
ICONS = (
    "@iconify-json/fa7-solid@1.2.5",
    "@iconify-json/flat-color-icons@1.2.3",
    "@iconify-json/game-icons@1.2.4",
    "@iconify-json/healthicons@1.2.13",
    "@iconify-json/icon-park@1.2.4",
    "@iconify-json/lucide@1.2.137",
    "@iconify-json/marketeq@1.2.2",
    "@iconify-json/mdi@1.2.3",
    "@iconify-json/meteocons@1.2.4",
    "@iconify-json/ph@1.2.2",
    "@iconify-json/pinhead@1.2.28",
    "@iconify-json/solar@1.2.13",
    "@iconify-json/streamline-color@1.2.2",
    "@iconify-json/streamline-cyber-color@1.2.2",
    "@iconify-json/streamline-flex-color@1.2.2",
    "@iconify-json/streamline-freehand-color@1.2.2",
    "@iconify-json/streamline-kameleon-color@1.2.2",
    "@iconify-json/streamline-plump-color@1.2.2",
    "@iconify-json/streamline-sharp-color@1.2.2",
    "@iconify-json/streamline-stickies-color@1.2.2",
    "@iconify-json/streamline-ultimate@1.2.2",
    "@iconify-json/streamline-ultimate-color@1.2.2",
    "@iconify-json/tabler@1.2.41",
    "@iconify-json/temaki@1.2.6",
)
"""Packages (npm) with icons of things, with exact versions."""
SOUNDS = """
amoebax-data amphetamine-data ardentryst asterisk-core-sounds-en-wav atanks-data bambam boswars-data
brainparty-data brewtarget btanks-data bucklespring-data bzflag-data caveexpress-data chuck-data codec2-examples
colobot-common-sounds crossfire-client crrcsim-data csmash-data csoundqt-examples cube2-data davegnukem-data
deepin-sound-theme drascula-music emacspeak enigma-data epiphany-data etw-data extremetuxracer-data
fillets-ng-data flare-game flobopuyo freeciv-data freedink-data freedroid-data freetennis-common
frozen-bubble-data gamine-data garden-of-coloured-lights-data gigalomania-data gnome-audio guitarix-common
hedgewars-data heroes-sound-effects hex-a-hop-data hydrogen-data hydrogen-drumkits hydrogen-drumkits-effects jag
klettres-data krank ktuberling-data laby lbreakout2-data lbreakouthd-data lincity-ng-data lmms-common
lomiri-sounds lugaru-data manaplus-data marsshooter-data mazeofgalious-data micropolis-data minetest-data
minetest-mod-homedecor minetest-mod-mesecons mirrormagic-data netpanzer-data neverball-common njam-data
overgod-data oxygen-sounds pathological pekka-kana-2-data performous pinball-data planetblupi-common
plee-the-bear-data pokerth-data powermanga-data psi-plus-sounds pysiogame qabcs-data scorched3d-data scratch
sdl-ball-data seahorse-adventures searchandrescue-data simutrans-pak64 solarwolf sonic-pi-samples sound-icons
sound-theme-freedesktop starvoyager-data supertux-data tecnoballz-data trackballs-data triplea tuxfootball
tuxmath-data tuxpaint-data tuxpaint-plugins-default tuxtype-data tworld-data ukui-media unknown-horizons
warmux-data wesnoth-1.16-data widelands-data wims-help wizznic-data wordwarvi-sound workrave-data
yaru-theme-sound zaz-data
""".split()  # noqa: SIM905 (115 names, a line each as a list)
"""Debian 12's packages with sounds, for distilling the teacher: most are of games. Only their sound files are kept."""
_FONTS = {
    "expo-google-fonts-noto-emoji": "500Medium/NotoEmoji_500Medium.ttf",
    "fonts-symbola": "usr/share/fonts/truetype/ancient-scripts/Symbola_hint.ttf",
}
"""The folder of a package below `emoji` -> its font, whose emoji are drawings by another artist."""
_ENDINGS = frozenset({".wav", ".ogg", ".oga", ".flac", ".mp3", ".opus"})
"""Suffixes of sounds that are taken from packages."""
_PIXELS = 224
"""The side of a drawing, which is what the image encoder sees."""
_NO_LETTERS, _UNASSIGNED = 0x200, "\U0010ffff"
"""The first code point above Latin letters and digits, and an unassigned one, which shows how a font draws a missing
glyph.
"""
_PREFIX, _VARIANT = re.compile(r"^u[0-9a-f]{4,6}-"), re.compile(r"-(\d|filled)$")
"""What icons' names have around the name of an emoji: its code point, the number of a variant."""


class FetchError(RuntimeError):
    """A package could not be obtained. The message has its client's output."""


def fetch(folder: Path) -> None:
    """Downloads, unpacks and renders everything that is missing in `folder`. Raises FetchError."""
    folder = folder.resolve()  # clients run in other folders
    for package, place in DEBIAN.items():
        _once(folder / place, package, _debian)
    for package in SOUNDS:
        _once(folder / "sounds" / package, package, _sounds_of)
    for place, wanted in (("emoji", EMOJI), ("icons", ICONS)):
        for package in wanted:
            _once(folder / place / package.rpartition("@")[0].replace("/", "-").strip("@"), package, _npm)
    render_stamps(folder / "stamps")
    render_emoji(folder / "emoji")
    render_icons(folder / "icons")


def _once(target: Path, package: str, get: Any) -> None:
    done = target / f".{package.replace('/', '-')}"
    if not done.exists():
        print(f"{package} -> {target}", flush=True)
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as aside:
            get(package, Path(aside), target)
        done.touch()


def _debian(package: str, aside: Path, target: Path) -> None:
    _run(["apt-get", "download", package], aside)
    _run(["dpkg-deb", "-x", str(next(aside.glob("*.deb"))), str(target.resolve())], aside)


def _sounds_of(package: str, aside: Path, target: Path) -> None:
    whole = aside / "whole"
    _debian(package, aside, whole)
    for path in sorted(whole.rglob("*")):
        if is_sound(path):
            place = target / path.relative_to(whole)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)


def is_sound(path: Path) -> bool:
    """Whether a path is a sound file by its ending, and no link."""
    return path.suffix.lower() in _ENDINGS and path.is_file() and not path.is_symlink()


def _npm(package: str, aside: Path, target: Path) -> None:
    _run(["npm", "pack", "--silent", package], aside)
    with tarfile.open(next(aside.glob("*.tgz"))) as archive:
        archive.extractall(aside / "out", filter="data")
    shutil.copytree(next((aside / "out").iterdir()), target, dirs_exist_ok=True)


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise FetchError(f"{command[0]} is not installed; it is needed to get {command[-1]}") from None
    if done.returncode:
        raise FetchError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")


def render_stamps(folder: Path) -> int:
    """Renders stamps that are SVG only, a PNG beside each -> their number. Drawings without a size are left out."""
    drawings = [path for path in folder.rglob("*.svg") if not path.with_suffix(".png").exists()]
    return sum(_rendered(path.read_text("utf-8", "replace"), path.with_suffix(".png")) for path in sorted(drawings))


def render_emoji(folder: Path) -> int:
    """Renders OpenMoji's SVG to `color/618x618`, icon collections and fonts to `png`, named by code -> their number."""
    count = 0
    names: dict[str, str] = {}
    for entry in json.loads((folder / "openmoji/data/openmoji.json").read_bytes()):
        names.setdefault(_slug(entry["annotation"]), code_of(entry["hexcode"]))
    for entry in json.loads((folder / "emoji-datasource-google/emoji.json").read_bytes()):
        names.setdefault(_slug(entry["name"]), code_of(entry["unified"]))
    for path in sorted((folder / "openmoji/color/svg").glob("*.svg")):
        count += _rendered(path.read_text("utf-8"), folder / "openmoji/color/618x618" / f"{path.stem}.png")
    for file in sorted(folder.glob("iconify-json-*/icons.json")):
        icons = json.loads(file.read_bytes())
        for name, icon in icons["icons"].items():
            name = _PREFIX.sub("", name)
            code = names.get(name) or names.get(_VARIANT.sub("", name))
            if code is not None:
                count += _rendered(_svg(icon, icons), file.parent / "png" / f"{code}.png")
    for place, file_name in _FONTS.items():
        if (folder / place / file_name).exists():
            font = ImageFont.truetype(folder / place / file_name, _PIXELS)
            for code in names.values():
                count += _drawn(font, code, folder / place / "png" / f"{code}.png")
    return count


def render_icons(folder: Path) -> int:
    """Renders the icons that show a thing to `png`, under the icon's name -> their number."""
    known = wordnet(folder)
    if known is None:
        raise FetchError(
            f"{folder}/wordnet: the files of the package wordnet-base are not there; remove it and try again"
        )
    count = 0
    for place in packages(folder):
        icons = json.loads((place / "icons.json").read_bytes())
        for name in things(icons, known):
            count += _rendered(_svg(icons["icons"][name], icons), place / "png" / f"{name}.png")
    return count


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _svg(icon: dict[str, Any], icons: dict[str, Any]) -> str:
    """An icon of a collection -> a whole SVG; attributes that several icons share are stored once in the collection."""
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} viewBox="{box}" width="{width}" height="{height}">{icon["body"]}</svg>'


def _rendered(svg: str, target: Path) -> bool:
    if target.exists():
        return False
    import resvg_py  # imported here, because it is needed only where there is something to render

    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.write_bytes(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=_PIXELS)))
    except ValueError as error:
        print(f"{target.name} was not rendered: {error}", file=sys.stderr)
        return False
    return True


def _drawn(font: ImageFont.FreeTypeFont, code: str, target: Path) -> bool:
    """Writes an emoji as a font draws it, black on white and as large as fits -> whether it did.

    Letters and sequences of several characters are not drawn.
    """
    if target.exists() or "-" in code or int(code, 16) < _NO_LETTERS:
        return False
    ink = _ink(font, chr(int(code, 16)))
    if ink is None or ink == _ink(font, _UNASSIGNED):
        return False
    side = round(1.1 * max(ink.size))
    picture = Image.new("L", (side, side), "white")
    picture.paste("black", ((side - ink.width) // 2, (side - ink.height) // 2), ink)
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.resize((_PIXELS, _PIXELS)).save(target)
    return True


def _ink(font: ImageFont.FreeTypeFont, character: str) -> Image.Image | None:
    """A character, white on black without a margin, or None where the font draws nothing."""
    left, top, right, bottom = map(int, font.getbbox(character))
    ink = Image.new("L", (max(right - left, 1), max(bottom - top, 1)))
    ImageDraw.Draw(ink).text((-left, -top), character, "white", font)
    box = ink.getbbox()
    return ink.crop(box) if box else None


def main() -> None:
    """Fetches everything into the folder that is named on the command line."""
    fetch(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
