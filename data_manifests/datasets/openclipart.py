"""Debian's copy of the Open Clip Art Library: drawings with titles and keywords."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator
from pathlib import Path

from data_manifests import Builder, Download, Entry, Split, is_filled

_PLACES = ("usr/share/openclipart", "share/openclipart", "openclipart", ".")
"""Where the drawings lie: in an unpacked Debian package, in an installed one's prefix, or in the folder itself."""
_METADATA = re.compile(r"<metadata.*?</metadata>", re.DOTALL)
"""The RDF description inside a drawing."""
_TITLE = re.compile(r"<dc:title>([^<]*)</dc:title>")
"""The title of a drawing, which stands first in its description."""
_AUTHOR = re.compile(r"<dc:creator>.*?<dc:title>([^<]*)</dc:title>", re.DOTALL)
"""The name of a drawing's author."""
_KEYWORD = re.compile(r"<rdf:li>([^<]*)</rdf:li>")
"""A keyword of a drawing."""
_LICENSE = re.compile(r'license rdf:resource="([^"]*)"')
"""The address of a drawing's licence."""
_PUBLIC_DOMAIN = re.compile(r"public_?domain/?$", re.IGNORECASE)
"""The end of the licence's address; drawings under another licence are left out."""
# Flags and maps: hundreds of nearly the same picture under a country's name.
_LEFT_OUT = re.compile(r"(^|/)flags/|^geography/")
_MOST_KEYWORDS = 6


def splits(download: Download) -> Iterator[Split]:
    """One manifest: an event a drawing of the public domain, its texts the title and the first keywords as a list.

    Drawings of one title share a group; the class is the top folder. Flags and maps are left out.
    """
    base = next((download.path / place for place in _PLACES if (download.path / place / "svg").is_dir()), None)
    if base is None:
        download.lacks("folder", "svg")
        return
    classes = sorted({folder.name for folder in (base / "svg").iterdir() if folder.is_dir()})
    yield Split("", _events(download, base), classes, ("a drawing of {}.", "clip art of {}."), base=base)


def _events(download: Download, base: Path) -> Iterator[Entry]:
    for folder, subfolders, names in os.walk(base / "svg"):
        subfolders.sort()
        for name in sorted(names):
            place = Path(folder, name).relative_to(base / "svg")
            stem = place.with_suffix("").as_posix()
            if place.suffix != ".svg" or _LEFT_OUT.search(stem):
                continue
            picture = f"png/{stem}.png"
            if not is_filled(base / picture):
                download.lacks("PNG", stem)
                continue
            found = _METADATA.search(Path(folder, name).read_text(encoding="utf-8", errors="replace"))
            about = found[0] if found else ""
            license_ = _LICENSE.search(about)
            if not license_ or not _PUBLIC_DOMAIN.search(license_[1]):
                download.lacks("dedication to the public domain", stem)
                continue
            # The first title is the drawing's; those of its publisher and author follow. Some name only the author.
            title, author = _TITLE.search(about), _AUTHOR.search(about)
            name = _plain(author[1]).lower() if author else ""
            keywords = [word for word in map(_plain, _KEYWORD.findall(about)) if word and word.lower() != name]
            texts = [_plain(title[1]) if title else "", ", ".join(keywords[:_MOST_KEYWORDS])]
            texts = [text for text in texts if re.search(r"[^\W\d_]", text) and text.lower() != name]
            if not texts:
                download.lacks("title or keywords", stem)
                continue
            yield {
                "id": stem,
                "image": {"path": picture},
                "text": texts,
                "labels": [stem.split("/")[0]],
                "group": texts[0],
            }


def _plain(text: str) -> str:
    return html.unescape(text).strip()


BUILDER = Builder(
    title="Open Clip Art Library.",
    license="public domain (each drawing is dedicated by its author)",
    obtain="the Debian packages openclipart-svg (titles and keywords) and openclipart-png (pictures), installed, or "
    "`apt-get download` and `dpkg -x` both into one folder",
    layout="usr/share/openclipart below the folder: svg/TOPIC/NAME.svg and png/TOPIC/NAME.png",
    splits=splits,
)
