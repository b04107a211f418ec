"""The files of the page: HTML, CSS, a drawing and ES modules, which a browser loads as they lie in `front/`.

There is no build step. The modules import each other by relative names, and all of them are served below a folder
that is named after a hash of everything in it. So a browser may keep them for ever, and a page never mixes the modules
of two versions.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent / "front"  # the files as they are served
FOREVER = "public, max-age=31536000, immutable"  # the cache-control of files whose address changes with them
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
"""Suffix -> content type of what is served; all else in the folder is not."""
_VERSION_CHARACTERS = 12  # 48 bits of the hash


@dataclass(frozen=True)
class Asset:
    """One file: its content, plain and compressed, and its content type."""

    content: bytes
    packed: bytes
    kind: str


@dataclass(frozen=True)
class Front:
    """All files of the page by name, and the version that their addresses begin with."""

    version: str
    assets: Mapping[str, Asset]

    def page(self, root: str) -> bytes:
        """The HTML of the page, for a server whose addresses begin with `root`."""
        html = (FOLDER / "index.html").read_text("utf-8")
        base = f'<base href="{escape(root)}/">' if root else ""
        return html.replace("<!-- base -->", base).replace("ASSETS", f"assets/{self.version}").encode()


@cache
def front() -> Front:
    """The files of `front/`, read once."""
    found: dict[str, Asset] = {}
    digest = hashlib.sha256()
    for file in sorted(FOLDER.iterdir()):
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)}\n".encode() + content)
        if file.suffix in _TYPES:
            found[file.name] = Asset(content, gzip.compress(content, 9, mtime=0), _TYPES[file.suffix])
    return Front(digest.hexdigest()[:_VERSION_CHARACTERS], found)
