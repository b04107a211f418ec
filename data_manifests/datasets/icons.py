"""Icons of open collections that show a thing, with its name: an ambulance, not an arrow or a menu."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_manifests import Builder, Download, Entry, Split, is_filled
from data_manifests.shared.wordnet import Nouns, nouns

_FREE = {"MIT", "ISC", "Apache-2.0", "CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "BSD-3-Clause", "Unlicense"}
"""SPDX names of licences that ask for credit at most."""
# What WordNet takes for a thing and an icon does not mean so: parts of interfaces, files, trade marks, what is done.
_NOT_THINGS = frozenset(
    re.findall(
        r"\w+",
        """
        arrow arrows add remove delete edit file files folder folders document documents plus minus off slash
        cancel check checkmark upload download share search setting settings sync refresh chart graph text
        align alignment sort filter menu list grid layout code coding database api html css app apps
        application browser website web page cursor click login logout log user users account profile avatar
        notification alert warning error info information help question logo brand brackets bracket variable
        function facebook twitter instagram google spotify meta youtube paypal tiktok linkedin pinterest
        amazon microsoft github gitlab windows android bluetooth wifi network signal square circle triangle
        rectangle hexagon octagon rhombus border letter numeric percent dollar euro pound yen ruble rupee
        bitcoin currency left right up down top bottom vertical horizontal forward backward previous next play
        pause stop record zoom rotate flip crop resize expand collapse row column cell font format indent
        paragraph heading quote bold italic underline toggle tab panel sidebar widget button input form
        multiple status unlock view hide show visible invisible progress loading loader spinner version
        subtract exclude merge split connect disconnect link unlink attach attachment tag tags label badge
        banner tooltip new copy paste cut save undo redo not no ok yes good bad level low high medium full
        empty half abstract symbol glyph shape ai seo data queue task todo selection select vector path node
        nodes layer layers mask pixel blur brightness contrast exposure iso rating review like dislike
        favorite follow subscribe chat comment comments message messages mail email inbox outbox send reply
        receive feedback payment pay transfer transaction exchange invoice tax finance investment business
        team meeting management strategy process analytics performance scan access security policy permission
        verified approve approved reject pin location gps navigation direction directions route x xmark cog
        dial drag swipe small number alpha
        """,
    )
)
_FILLED = ("duotone", "duo", "fill", "filled", "flat", "")
"""Of several drawings of one name those are taken that fill their outline; '' is a name without style."""
_STYLE = re.compile(
    r"duo(tone)?|fill(ed)?|flat|outlined?|solid|bold|line(ar)?|thin|light|regular|broken|color|alt(ernate)?"
)
"""A last word of a name that says how an icon is drawn and not what it shows."""
_NUMBER = re.compile(r"\d+(px)?")
"""A last word of a name that is a variant or a size: `24`, `24px`."""
_MOST_DRAWINGS, _MOST_ALIASES, _DEEPEST = 2, 3, 5
"""At most so many drawings of a thing in one collection, so many other names of it, and so many steps from alias to
alias."""


def splits(download: Download) -> Iterator[Split]:
    """One manifest: an event an icon, its texts the name and other names of it, `group` the name."""
    known = wordnet(download.path)
    if known is None:
        download.lacks("package", "wordnet-base")
        return
    yield Split("", _events(download, known))


def _events(download: Download, known: Nouns) -> Iterator[Entry]:
    for folder in packages(download.path):
        place = folder.relative_to(download.path)
        info = (place / "info.json").as_posix()
        if not download.has(info, "licence"):
            continue
        license_ = download.json(info)["license"].get("spdx", "none")
        if license_ not in _FREE:
            download.lacks("licence that asks for credit at most", f"{folder.name} ({license_})")
            continue
        icons = download.json((place / "icons.json").as_posix())
        for icon, texts in things(icons, known).items():
            name = f"{icons['prefix']}/{icon}"
            if is_filled(folder / "png" / f"{icon}.png"):
                picture = (place / "png" / f"{icon}.png").as_posix()
                yield {"id": name, "image": {"path": picture}, "text": texts, "group": texts[0]}
            else:
                download.lacks("PNG (`python -m train.small.fetch` renders them)", name)


def wordnet(root: Path) -> Nouns | None:
    """The nouns of WordNet, unpacked into the folder `wordnet` below this one, or into this one."""
    return nouns(root / "wordnet") or nouns(root)


def packages(root: Path) -> list[Path]:
    """The folders of unpacked `@iconify-json` packages, up to four levels down, in alphabetical order."""
    found = []
    for depth in range(_DEEPEST):
        for path in root.glob("*/" * depth + "package.json"):
            try:
                name = str(json.loads(path.read_bytes())["name"])
            except (OSError, ValueError, LookupError, TypeError):
                continue
            if name.startswith("@iconify-json/") and (path.parent / "icons.json").is_file():
                found.append(path.parent)
    return sorted(found)


def things(icons: dict[str, Any], known: Nouns) -> dict[str, list[str]]:
    """A collection (icons.json) -> its icons of things and their names, the first the icon's own: `apple core`.

    A name is one of a thing if WordNet says so of its last noun and none of its words is of an interface; styles and
    sizes at its end do not count. Of several drawings of a name the first two by style are taken.
    """
    drawings: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for icon, about in icons["icons"].items():
        words, rank = _words(icon)
        if not about.get("hidden") and not _NOT_THINGS.intersection(words) and known.thing(words):
            drawings[" ".join(words)].append((rank, icon))
    aliases: dict[str, list[str]] = defaultdict(list)
    for alias, about in icons.get("aliases", {}).items():
        if set(about) == {"parent"}:  # not one that is turned
            aliases[about["parent"]].append(" ".join(_words(alias)[0]))
    chosen = {}
    for name, several in drawings.items():
        for _, icon in sorted(several)[:_MOST_DRAWINGS]:
            others = [alias for alias in dict.fromkeys(aliases[icon]) if alias != name]
            chosen[icon] = [name, *others[:_MOST_ALIASES]]
    return chosen


def _words(icon: str) -> tuple[list[str], int]:
    """`apple-core-2-fill` -> its words `apple core`, and the rank of its style."""
    words, styles = icon.split("-"), []
    while len(words) > 1 and (_STYLE.fullmatch(words[-1]) or _NUMBER.fullmatch(words[-1])):
        styles.append(words.pop())
    named = [style for style in styles if not _NUMBER.fullmatch(style)] or [""]
    rank = min(_FILLED.index(style) if style in _FILLED else len(_FILLED) for style in named)
    return [re.sub(r"(?<=[a-z]{3})\d{1,2}$", "", word) for word in words], rank


BUILDER = Builder(
    title="Icons of things.",
    license="each collection's own, which its info.json names: MIT, ISC, Apache-2.0, CC0-1.0, CC BY 3.0 or 4.0",
    obtain="JavaScript packages @iconify-json/NAME (`npm pack`, each unpacked into a folder of its own) and the Debian "
    "package wordnet-base; `python -m train.small.fetch` obtains some and renders their SVG",
    layout="the unpacked packages below one folder, the drawings rendered to png/ICON.png beside icons.json, and "
    "WordNet's files in usr/share/wordnet or wordnet/usr/share/wordnet",
    splits=splits,
)
