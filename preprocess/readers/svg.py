"""SVG drawings -> pictures, and the words in them. Neither files nor addresses that a drawing points at are read."""

from __future__ import annotations

import html
import io
import re
from typing import BinaryIO

from PIL import ImageFile
from PIL.PngImagePlugin import PngImageFile

from preprocess.encodings import encoding_of
from preprocess.extras import needs

OWN_WORDS = "crossbind drawing"
"""The key of a drawing's own words in the `info` of its picture."""
_SIDE = 512
"""Pixels of a drawing's shorter side: more than twice the 224 that the shipped image encoders see."""
_LONGEST = 64.0
"""The largest ratio of its sides: `_SIDE` times so much of it are 17 million pixels."""
_MOST_BYTES = 2**24
"""Bytes of a drawing, unpacked where it was gzipped; the parser takes time and memory in proportion."""
_MOST_SEARCHED = 2**20
"""Characters of a drawing that are searched for its title, description and texts."""
# What is no part of the file and no picture within it: a path, an address, or an entity that may stand for one.
_REFERENCE = re.compile(r"""href\s*=\s*(?:"(?!\s*(?:#|data:))[^"]*"|'(?!\s*(?:#|data:))[^']*')""")
_ENTITY = re.compile(r"""<!ENTITY\s+[^\s"']+\s+(?:SYSTEM|PUBLIC|"[^"]*[<&%]|'[^']*[<&%])|<!ENTITY\s+%""")
_ROOT = re.compile(r"<(?:[\w.-]+:)?svg\b[^>]*>")
_WORDS = re.compile(r"<(?:[\w.-]+:)?(title|desc|text)\b[^>]*>(.*?)</(?:[\w.-]+:)?\1>", re.DOTALL)


def decode(file: BinaryIO) -> ImageFile.ImageFile:
    """An SVG file -> its drawing, the short side 512 pixels, with what is not drawn transparent.

    Its title, description and text are in `info[SAID]`; letters are not drawn, as fonts lie in files. References to
    other files are removed. Raises ValueError for damage, and for a drawing that is too large or too long.
    """
    with needs("pictures", "an SVG drawing"):
        import resvg_py  # only drawings need it
    raw = file.read(_MOST_BYTES + 1)
    if len(raw) > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
    encoding = encoding_of(raw[:4096])
    text = raw.decode("utf-8-sig" if encoding in (None, "utf-8") else encoding, "replace").lstrip("\ufeff")
    if _ENTITY.search(text):
        raise ValueError("it has entities with markup in them or of other files")
    text = _REFERENCE.sub('href="#"', text)
    width, height = _sides(text)
    if not 1 / _LONGEST <= width / height <= _LONGEST:
        raise ValueError(f"its sides are {width:g} x {height:g}, more than {_LONGEST:g} to 1")
    across = max(_SIDE, round(_SIDE * width / height))  # its height follows
    png = bytes(resvg_py.svg_to_bytes(svg_string=text, skip_system_fonts=True, width=across, dpi=96))
    picture = PngImageFile(io.BytesIO(png))
    if picture.getchannel("A").getextrema()[1] == 0:
        raise ValueError("nothing is drawn in it (references to other files are not followed)")
    picture.info[OWN_WORDS] = _words(text)
    return picture


def _sides(text: str) -> tuple[float, float]:
    """Width and height of the drawing, of which only the ratio counts; (1, 1) where it does not say."""
    found = _ROOT.search(text)
    root = found[0] if found else ""
    box = re.search(r"""\bviewBox\s*=\s*["']([^"']*)["']""", root)
    inside = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", box[1])] if box else []
    sides = []
    for place, name in enumerate(("width", "height")):
        value = re.search(rf"""\s{name}\s*=\s*["']\s*(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*(%?)""", root)
        if value and not value[2]:
            sides.append(float(value[1]))
        elif len(inside) == 4:
            sides.append(inside[2 + place])
    if len(sides) == 2 and min(sides) > 0:
        return sides[0], sides[1]
    return 1.0, 1.0


def _words(text: str) -> dict[str, str]:
    """The first title and description, and all text, as `preprocess.metadata` has them."""
    found: dict[str, str] = {}
    texts = []
    for name, inside in _WORDS.findall(text[:_MOST_SEARCHED]):
        words = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", inside)).split())
        if name == "text":
            texts.append(words)
        else:
            found.setdefault("title" if name == "title" else "description", words)
    return found | {"text": "\n".join(filter(None, texts))}
