"""Where a page of hits ended: a token that the next page begins with, whatever was added to the library meanwhile."""

from __future__ import annotations

import base64
import json
import math
import zlib
from dataclasses import astuple, dataclass

from serve.library.errors import CursorError

_LONGEST = 1000
"""Characters of a cursor that are read: one of ours has about 200."""
_SAME = 1e-3
"""The largest difference between the cosines of one item with one query that is embedded twice."""


@dataclass(frozen=True)
class Cursor:
    """The last hit of a page, and what the first page was made of.

    `asked` is a checksum of the options of the search. `newest` is the highest segment id that the library had at the
    first page: later pages show nothing newer. `shown` is the number of hits up to here. `segment` is that of the last
    hit, `modality` its modality and `cosine` its cosine with the query. `group` and `bonus` (what words add to its
    score) are for the time after it was removed; see `serve.library.ranking`.
    """

    asked: int
    newest: int
    shown: int
    segment: int
    group: int
    bonus: float
    cosine: float
    modality: str

    @classmethod
    def read(cls, token: str | None, asked: int) -> Cursor | None:
        """A token -> its cursor; None for None. Raises CursorError for what is none, or is of another search."""
        if token is None:
            return None
        try:
            if len(token) > _LONGEST:
                raise ValueError("is too long")
            values = json.loads(base64.b64decode(token.encode("ascii"), b"-_", validate=True))
            found = cls(*values)
            integers = (found.asked, found.newest, found.shown, found.group, found.segment)
            if any(type(one) is not int or not 0 <= one < 2**63 for one in integers):
                raise ValueError("has other fields")
            if any(type(one) is not float or not math.isfinite(one) for one in (found.bonus, found.cosine)):
                raise ValueError("has other fields")
            if type(found.modality) is not str:
                raise ValueError("has other fields")
        except (ValueError, TypeError, RecursionError):
            raise CursorError("search: expected a cursor of an earlier page of this search") from None
        if found.asked != asked:
            raise CursorError("search: the cursor is of a search with other options; leave it out for the first page")
        return found

    def token(self) -> str:
        """The cursor as text for a URL or a command line."""
        return base64.urlsafe_b64encode(json.dumps(astuple(self), separators=(",", ":")).encode()).decode()

    def check(self, cosine: float) -> None:
        """Raises CursorError where the last hit has another cosine with the query than it had."""
        if abs(cosine - self.cosine) > _SAME:
            raise CursorError("search: the cursor is of another query; leave it out for the first page")


def checksum(*options: object) -> int:
    """The options of a search -> a number that differs for others."""
    return zlib.crc32(repr(options).encode("utf-8", "surrogatepass"))
