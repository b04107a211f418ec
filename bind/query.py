"""The one-line language of queries (`image:dog.jpg + audio:rain.wav - text:indoors`): text -> terms, and back."""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NoReturn

_WEIGHT = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\*\s*")
"""The weight in front of a term: `0.5 * image:dog.jpg`."""
_PREFIX = re.compile(r"([a-z][a-z0-9_]+):")
"""The modality in front of a term: `image:dog.jpg`."""
_OPERATOR = re.compile(r"(?<=\s)[+-](?=\s|$)")
"""A `+` or `-` between spaces, which joins terms; others belong to names and words."""


@dataclass(frozen=True)
class Term:
    """One summand of a query.

    Where the query names no modality, `modality` is None and the caller decides: path or text.
    """

    modality: str | None
    value: str
    weight: float = 1.0


class PointedError(ValueError):
    """An unreadable text: the message shows `text` with a caret below the character at `position`, counted from 0."""

    def __init__(self, reason: str, text: str, position: int) -> None:
        # Each character must take one column: a line break or a tab would move the caret.
        shown = "".join(character if character.isprintable() else " " for character in text)
        super().__init__(f"{reason}\n  {shown}\n  {' ' * position}^")
        self.reason = reason
        self.text = text
        self.position = position

    def __reduce__(self) -> tuple[type[PointedError], tuple[str, str, int]]:
        return type(self), (self.reason, self.text, self.position)


class QueryError(PointedError):
    """A query that cannot be read."""

    @property
    def query(self) -> str:
        """The whole query."""
        return self.text


def parse_query(query: str, modalities: Collection[str] | None = None) -> list[Term]:
    r"""`image:dog.jpg + 0.5*audio:rain.wav - text:'indoors'` -> its terms, in order.

    `modalities` are the names that may stand before a colon; None means all registered ones. The grammar:

        query   = [sign] term { space sign space term }       sign is + or -
        term    = [number "*"] [modality ":"] value           spaces may follow the number, the star and the colon
        value   = quoted | plain
        quoted  = '...' or "..."                              a doubled quote mark inside stands for one; \ is itself
        plain   = everything up to the next sign that has white space on both sides (or ends the query)

    So `a-b.jpg`, `c++ logo.png`, `my dog.jpg` and `it's` need no quotes, while `'rock + roll'` and text that starts
    with a quote mark do. A sign that starts the query needs no white space after it. A drive letter (`C:\x.png`) is
    not a prefix: names have two letters or more, in lower case. An unknown name directly before a colon and a known
    one in the middle of a plain value (a forgotten sign) are errors; quotes keep such colons in the value.

    Raises QueryError, which points at the character.
    """
    if modalities is None:
        from bind.modalities import specs  # imported here, so that parsing alone loads no modality

        modalities = specs()
    return _Parser(query, modalities).terms()


def resolved(term: Term) -> Term:
    """A term without a modality -> a term with a file where one exists, else with text."""
    if term.modality is not None:
        return term
    given = os.path.expanduser(term.value)
    # What is typed may compose letters otherwise than the name on the disk.
    for path in dict.fromkeys((given, *(unicodedata.normalize(form, given) for form in ("NFC", "NFD")))):
        try:
            if os.path.isfile(path):
                return Term(None, path, term.weight)
        except ValueError:  # a NUL character
            break
    return Term("text", term.value, term.weight)


def format_query(terms: Sequence[Term]) -> str:
    """Terms -> a query that `parse_query` turns into the same terms.

    Raises ValueError for terms that no query can express.
    """
    written = ""
    for term in terms:
        if not term.value or not math.isfinite(term.weight):
            raise ValueError(f"expected a value and a finite weight, got {term}")
        negative = term.weight < 0
        if written:
            written += " - " if negative else " + "
        elif negative:
            written += "-"
        if abs(term.weight) != 1:
            written += f"{abs(term.weight)!r}*"
        if term.modality is not None:
            written += f"{term.modality}:"
        written += "'" + term.value.replace("'", "''") + "'"
    return written


class _Parser:
    """A parser that walks over the query once; `at` is the position of the next character."""

    def __init__(self, query: str, modalities: Collection[str]) -> None:
        self.query = query
        self.modalities = modalities
        self.at = 0

    def terms(self) -> list[Term]:
        self.skip_space()
        sign = 1.0
        if self.query[self.at : self.at + 1] in ("+", "-"):
            sign = self.sign()
        found = [self.term(sign)]
        while self.at < len(self.query):
            found.append(self.term(self.sign()))
        return found

    def sign(self) -> float:
        self.at += 1
        return -1.0 if self.query[self.at - 1] == "-" else 1.0

    def term(self, sign: float) -> Term:
        self.skip_space()
        weight = sign
        if match := _WEIGHT.match(self.query, self.at):
            weight *= float(match[1])
            if not math.isfinite(weight):
                self.fail("this weight is too large for a number", self.at)
            self.at = match.end()
        modality = None
        if match := _PREFIX.match(self.query, self.at):
            following = self.query[match.end() : match.end() + 1]
            if match[1] in self.modalities:
                modality = match[1]
                self.at = match.end()
            elif following and not following.isspace():
                known = ", ".join(sorted(self.modalities))
                self.fail(f"no modality {match[1]!r}; known: {known}; put quotes around a value with a colon", self.at)
        self.skip_space()
        return Term(
            modality, self.quoted() if self.query[self.at : self.at + 1] in ("'", '"') else self.plain(), weight
        )

    def quoted(self) -> str:
        opened = self.at
        mark = self.query[opened]
        match = re.compile(f"{mark}((?:[^{mark}]|{mark}{mark})*+){mark}").match(self.query, opened)
        if match is None:
            self.fail("this quote mark is never closed; double it inside quotes of its kind", opened)
        if not match[1]:
            self.fail("expected a value, got empty quotes", opened)
        closed = self.at = match.end()
        self.skip_space()
        spaced = self.at > closed and _OPERATOR.match(self.query, self.at)
        if self.at < len(self.query) and not spaced:
            self.fail("expected + or - with white space on both sides after the closing quote mark", self.at)
        return match[1].replace(mark * 2, mark)

    def plain(self) -> str:
        start = self.at
        operator = _OPERATOR.search(self.query, start)
        self.at = operator.start() if operator else len(self.query)
        value = self.query[start : self.at].rstrip()
        if not value:
            self.fail("expected a path, a text or modality:value here", start)
        # A known prefix inside a value nearly always means that a sign, or the white space around it, was forgotten.
        names = "|".join(map(re.escape, sorted(self.modalities)))
        forgotten = re.search(rf"\s([+-]?(?:[\d.]+\*)?(?:{names}):\S)", value) if names else None
        if forgotten:
            self.fail(
                "expected + or - with white space on both sides before this term; "
                "put quotes around the value if this belongs to it",
                start + forgotten.start(1),
            )
        return value

    def skip_space(self) -> None:
        while self.at < len(self.query) and self.query[self.at].isspace():
            self.at += 1

    def fail(self, reason: str, position: int) -> NoReturn:
        raise QueryError(reason, self.query, position)
