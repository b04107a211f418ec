"""`--where` filters: `folder = 'trip' and duration_s < 30` -> SQL with every value bound, nothing pasted.

    expression = conjunction { "or" conjunction }
    conjunction = negation { "and" negation }
    negation   = "not" negation | "(" expression ")" | comparison
    comparison = name ( "=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=" ) value
               | name ["not"] "like" text            % stands for any characters, _ for one; case does not count
               | name ["not"] "in" "(" value { "," value } ")"
               | name ["not"] "between" value "and" value    both ends count, an end that is a day or a month wholly
               | name "is" ["not"] "null"
    value      = 'text' | "text" | number | true | false        a doubled quote mark inside stands for one

A name is one of `COLUMNS`, `album`, `tag` or a metadata key (`camera`, `place.city` inside another object). What an
item lacks is null and matches no comparison, as in SQL. Words of the grammar may be in either case.

`album = 'trip'` passes what is in an album of the library (one that is a filter stands for that filter), and sound that
names this album itself; `tag = 'dog'` passes what has the tag. An item may be in several, so that `!=` means in none of
that name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from bind.query import PointedError

COLUMNS: Mapping[str, str] = {
    "path": "f.shown",
    "name": "f.name",
    "folder": "f.folder",
    "size_bytes": "f.size_bytes",
    "date": "f.date",
    "caption": "f.caption",
    "modality": "s.modality",
    "start_s": "s.start_s",
    "end_s": "s.end_s",
    "duration_s": "c.duration_s",
    "date_source": "f.date_source",
    "at": "s.at",
    "id": "coalesce((SELECT u.id FROM uploads u WHERE u.segment = s.id AND u.file = f.id), s.id)",
    "kind": "c.modality",
    "favourite": "(c.digest IN (SELECT digest FROM marks WHERE favourite))",
    "hidden": "(c.digest IN (SELECT digest FROM marks WHERE hidden))",
}
"""Name in a filter -> column of the catalogue's join of segments s, contents c and files f."""
MEMBERSHIPS = ("album", "tag")
"""Names that an item has several values of."""
_OWN_ALBUM = "coalesce(json_extract(f.metadata, '$.album'), json_extract(c.metadata, '$.album'))"
"""The album that a medium's own tags name: of a song, the record."""
MAX_LENGTH = 10_000
"""Characters of a filter."""
MAX_VALUES = 500
"""The largest number of values in a filter, which keeps it below SQLite's own limits (depth 1,000, 32,766 values)."""
MAX_DEPTH = 50
"""Brackets within brackets; each is a call of Python's and an expression of SQLite's."""
MAX_PATTERN = 256
"""The longest pattern after `like`: SQLite compares n characters with a pattern of m in n x m steps, without a
break.
"""

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>'(?:[^']|'')*+'|"(?:[^"]|"")*+")
      | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<name>[^\W\d][\w-]*(?:\.[^\W\d][\w-]*)*)
      | (?P<mark><=|>=|<>|!=|==|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE,
)
"""A text, number, name or mark of a filter, in linear time (possessive quantifiers)."""
_DAY = re.compile(r"\d{4}(-\d\d){0,2}")
"""A date without a time: a year, a month or a day, of which the end is meant where a range ends."""
_COMPARISONS = {"=": "=", "==": "=", "!=": "<>", "<>": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
"""Comparison in a filter -> in SQL."""
_WORDS = {"and", "or", "not", "in", "like", "between", "is", "null", "true", "false"}
"""Names that have a meaning in a filter, so that they are no keys."""
_INTEGERS = range(-(2**63), 2**63)
"""Integers that SQLite has."""


class WhereError(PointedError):
    """A filter cannot be read."""

    @property
    def where(self) -> str:
        """The whole filter."""
        return self.text


@dataclass(frozen=True)
class Where:
    """A parsed filter: an SQL condition, the values to bind, the metadata keys in it with their positions, and all
    names.
    """

    sql: str
    values: tuple[str | int | float, ...]
    keys: Mapping[str, int] = field(default_factory=dict)
    names: frozenset[str] = frozenset()

    @property
    def is_of_segments(self) -> bool:
        """Whether it looks at segments, and not only at files and their contents."""
        return re.search(r"\bs\.", self.sql) is not None


EVERYTHING = Where("1", ())
"""The filter that every file passes."""


def parse(where: str, albums: Mapping[str, str | None] | None = None) -> Where:
    """A filter -> its condition over the join of s, c and f. Raises WhereError, which points at the character.

    `albums` are the names of the albums that are no lists: of a filter the filter, of a saved query None.
    """
    return _Parser(where, albums or {}).parse()


def quoted(text: str) -> str:
    """A text as a filter writes it: `it's` -> `'it''s'`."""
    return "'" + text.replace("'", "''") + "'"


def json_path(key: str) -> str:
    """`place.city` -> `$."place"."city"`, the path of a metadata key as SQLite's JSON functions take it."""
    return "$" + "".join(f'."{part}"' for part in key.split("."))


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


def _text_of(token: _Token) -> str:
    """A text in quotes -> the text."""
    mark = token.text[0]
    return token.text[1:-1].replace(mark * 2, mark)


class _Parser:
    def __init__(self, where: str, albums: Mapping[str, str | None]) -> None:
        self.where = where
        self.albums = albums
        self.names: set[str] = set()
        self.values: list[str | int | float] = []
        self.keys: dict[str, int] = {}
        self.at = 0
        self.depth = 0
        self.count = 0
        if len(where) > MAX_LENGTH:
            self.fail(f"the filter has {len(where):,} characters, the limit is {MAX_LENGTH:,}", 0)
        self.tokens = self.split()

    def parse(self) -> Where:
        sql = self.expression()
        if self.token.kind != "end":
            self.fail(f"expected `and`, `or` or the end, got {self.token.text!r}", self.token.position)
        return Where(sql, tuple(self.values), self.keys, frozenset(self.names))

    def split(self) -> list[_Token]:
        tokens = []
        at = 0
        end = len(self.where.rstrip())
        while at < end:
            match = _TOKEN.match(self.where, at)
            if match is None or match.lastgroup is None:
                start = at + len(self.where[at:]) - len(self.where[at:].lstrip())
                quote = self.where[start] in "'\""
                self.fail("this quote mark is never closed" if quote else "cannot be read from here", start)
            text, at = match[match.lastgroup], match.end()
            kind = match.lastgroup
            if kind == "name" and text.lower() in _WORDS:
                kind, text = "word", text.lower()
            tokens.append(_Token(kind, text, match.start(match.lastgroup)))
        return [*tokens, _Token("end", "", len(self.where.rstrip()))]

    @property
    def token(self) -> _Token:
        return self.tokens[self.at]

    def take(self, *texts: str) -> str | None:
        """The next token's text if it is one of these marks or words, which is then consumed; else None."""
        if self.token.kind in ("mark", "word") and self.token.text in texts:
            self.at += 1
            return self.tokens[self.at - 1].text
        return None

    def expression(self) -> str:
        parts = [self.conjunction()]
        while self.take("or"):
            parts.append(self.conjunction())
        return parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})"

    def conjunction(self) -> str:
        parts = [self.negation()]
        while self.take("and"):
            parts.append(self.negation())
        return parts[0] if len(parts) == 1 else f"({' AND '.join(parts)})"

    def negation(self) -> str:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"is nested more than {MAX_DEPTH} deep", self.token.position)
        if self.take("not"):
            sql = f"(NOT {self.negation()})"
        elif self.take("("):
            sql = self.expression()
            self.expect(")")
        else:
            sql = self.comparison()
        self.depth -= 1
        return sql

    def comparison(self) -> str:
        if self.token.kind == "name" and self.token.text in MEMBERSHIPS:
            return self.membership()
        return self.test(self.column())

    def membership(self) -> str:
        """A comparison with the albums or tags of an item, of which one has to pass, or with `not` none may."""
        kind = self.token.text
        self.names.add(kind)
        self.at += 1
        negated = "NOT " if self.take("!=", "<>") else ""
        if (negated or self.take("=", "==")) and kind == "album" and self.is_filter():
            return f"({negated}{self.filter_of_album()})"
        before = len(self.values)
        if negated or self.tokens[self.at - 1].text in ("=", "=="):
            passes = f"(a.name = {self.value()})"
        elif self.take("is"):
            negated = "" if self.take("not") else "NOT "
            self.expect("null")
            passes = "(a.name IS NOT NULL)"
        else:
            negated = "NOT " if self.take("not") else ""
            passes = self.test("a.name")
        sql = (
            "EXISTS (SELECT 1 FROM members m JOIN albums a ON a.id = m.album "
            f"WHERE m.digest = c.digest AND a.kind = '{kind}' AND {passes})"
        )
        if kind == "album":
            self.values += self.values[before:]
            sql = f"({sql} OR coalesce({passes.replace('a.name', _OWN_ALBUM)}, 0))"
        return f"({negated}{sql})"

    def is_filter(self) -> bool:
        """Whether the next token names an album that is a filter."""
        return self.token.kind == "text" and _text_of(self.token) in self.albums

    def filter_of_album(self) -> str:
        """The condition of the album that the next token names."""
        name = _text_of(self.token)
        saved = self.albums[name]
        if saved is None:
            self.fail(
                f"album {name!r} is a saved query, which no filter can stand for: search with it", self.token.position
            )
        inner = _Parser(saved, {}).parse()
        for value in inner.values:
            self.bind(value, self.token)
        self.at += 1
        return f"({inner.sql})"

    def test(self, column: str) -> str:
        """What stands behind a name -> the condition on its column."""
        start = self.token
        if comparison := self.take(*_COMPARISONS):
            return f"({column} {_COMPARISONS[comparison]} {self.value()})"
        if self.take("is"):
            negated = "NOT " if self.take("not") else ""
            self.expect("null")
            return f"({column} IS {negated}NULL)"
        negated = "NOT " if self.take("not") else ""
        if self.take("like"):
            if self.token.kind != "text":
                self.fail("expected a text in quotes after `like`", self.token.position)
            if len(self.token.text) > MAX_PATTERN + 2:
                self.fail(f"the pattern has more than {MAX_PATTERN} characters", self.token.position)
            return f"({column} {negated}LIKE {self.value()})"
        if self.take("between"):
            low = self.value()
            self.expect("and")
            return f"({column} {negated}BETWEEN {low} AND {self.value(is_end=True)})"
        if self.take("in"):
            self.expect("(")
            values = [self.value()]
            while self.take(","):
                values.append(self.value())
            self.expect(")")
            return f"({column} {negated}IN ({', '.join(values)}))"
        self.fail("expected one of = != < <= > >= like in between is", start.position)

    def column(self) -> str:
        token = self.token
        if token.kind != "name":
            self.fail(f"expected a column or metadata key (columns: {', '.join(COLUMNS)})", token.position)
        self.names.add(token.text)
        self.at += 1
        if token.text in COLUMNS:
            return COLUMNS[token.text]
        self.keys.setdefault(token.text, token.position)
        paths = [self.bind(json_path(token.text), token) for _ in range(2)]
        return f"coalesce(json_extract(f.metadata, {paths[0]}), json_extract(c.metadata, {paths[1]}))"

    def value(self, is_end: bool = False) -> str:
        token = self.token
        if token.kind == "text":
            text = _text_of(token)
            # With a mark that sorts behind every time of that day.
            value: str | int | float = text + "~" if is_end and _DAY.fullmatch(text) else text
        elif token.kind == "number":
            value = float(token.text) if re.search(r"[.eE]", token.text) else int(token.text)
            if isinstance(value, int) and value not in _INTEGERS:
                value = float(value)
        elif token.kind == "word" and token.text in ("true", "false"):
            value = int(token.text == "true")  # SQLite turns JSON's true and false into these
        else:
            hint = f"; put quotes around {token.text}" if token.kind == "name" else ""
            self.fail(f"expected a text in quotes or a number{hint}", token.position)
        self.at += 1
        return self.bind(value, token)

    def bind(self, value: str | int | float, token: _Token) -> str:
        if len(self.values) >= MAX_VALUES:
            self.fail(f"the filter has more than {MAX_VALUES} names and values", token.position)
        if isinstance(value, str) and re.search(r"[\ud800-\udfff]", value):
            self.fail("is not valid Unicode", token.position)
        self.values.append(value)
        return "?"

    def expect(self, text: str) -> None:
        if not self.take(text):
            self.fail(f"expected `{text}`", self.token.position)

    def fail(self, reason: str, position: int) -> NoReturn:
        raise WhereError(reason, self.where, position)
