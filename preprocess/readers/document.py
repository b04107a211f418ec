"""PDF documents: their pages as pictures, and the text on them."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from preprocess.extras import needs
from preprocess.metadata import bounded, moment
from preprocess.source import Limits, MediaError, Source

MOST_PAGES = 200
"""Pages of one document that become items, so that one file cannot fill a library."""
_MOST_CPU_S = 7.0
"""Of a worker's time for one document: what comes behind is left out and told."""
_MOST_CHARACTERS = 100_000
"""Characters of a document's text that are searched, as `preprocess.metadata` bounds them too."""


@dataclass(frozen=True)
class Page:
    """A page: its picture, its number from 1 on, and the text on it."""

    picture: Image.Image
    number: int
    text: str


class Document:
    """An open PDF. Scripts, forms, links and attachments in it are not looked at.

    Raises MediaError for one that is damaged, has no pages, or needs a password.
    """

    def __init__(self, source: Source, limits: Limits) -> None:
        with needs("pictures", "a PDF document"):
            import pypdfium2  # only documents need it
        self._source, self._limits = source, limits
        try:
            self._pdf = pypdfium2.PdfDocument(source.read_bytes(limits))
        except pypdfium2.PdfiumError as error:
            reason = "needs a password" if "password" in str(error).lower() else f"could not be decoded: {error}"
            raise MediaError(source.name, reason) from None
        self.count = len(self._pdf)
        self.notes: list[str] = []
        if not self.count:
            raise MediaError(source.name, "has no pages")

    def metadata(self, text: str) -> dict[str, Any]:
        """Title, author and date of the document, its pages and the text on them, as `preprocess.metadata` has them."""
        about: dict[str, str] = {}
        with contextlib.suppress(Exception):  # damage there is no reason to refuse sound pages
            about = self._pdf.get_metadata_dict()
        made = about.get("CreationDate", "").removeprefix("D:")
        facts = {
            "title": about.get("Title"),
            "artist": about.get("Author"),
            "description": about.get("Subject"),
            "keywords": [word.strip() for word in about.get("Keywords", "").split(",")],
            "pages": self.count,
            "text": text,
        }
        if taken := moment(f"{made[:4]}-{made[4:6]}-{made[6:8]}T{made[8:10]}:{made[10:12]}:{made[12:14]}"):
            facts |= {"taken": taken, "taken_from": "container"}
        return bounded(facts)

    def pages(self, side: int, most: int = MOST_PAGES) -> Iterator[Page]:
        """Pages from the first on, the short side of their pictures `side` pixels; `notes` tell what was left out."""
        started, left = time.process_time(), _MOST_CHARACTERS
        for index in range(min(self.count, most)):
            if index and time.process_time() - started > _MOST_CPU_S:
                self.notes.append(f"its pages behind the first {index} took too long and were left out")
                return
            page = self._pdf[index]
            width, height = page.get_size()
            short, long = min(width, height), max(width, height)
            if not (short > 0 and math.isfinite(long)) or side * side * long / short > self._limits.max_pixels:
                raise MediaError(
                    self._source.name, f"page {index + 1} is {width:g} x {height:g} points, too long to show"
                )
            picture = page.render(scale=side / short).to_pil()
            words = page.get_textpage()
            text = words.get_text_range(0, min(words.count_chars(), left)) if left else ""
            left -= len(text)
            yield Page(picture.convert("RGB"), index + 1, text)
        if self.count > most > 1:
            self.notes.append(f"its pages behind the first {most} were left out")
