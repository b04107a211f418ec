"""The order of hits: what is likely first, by vectors and words together.

Hits are ordered by their group, then by their key, then by their id:

    group 0    the query is the whole name of the file
    group 1    the vector stands out, and all words of the query are there
    group 2    all words are in the name, the caption or the metadata
    group 3    the vector stands out, or all words are in the picture or the speech
    group 4    none of that: probably not what was asked for
    key        score + WORDS x (w / 2, or (1 + w) / 2 where all words are there), w the weight of the shared words

So a hit with both is above every hit with its words only. Group and key of an item follow from the item, the query and
the library alone. So two items are in the same order under every filter, for every number of hits, and on every page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serve.library.keywords import Match

WORDS = 6.0
"""The most that words add to a score, in the score's standard deviations: a file that has all words, and of which the
vector says nothing, comes among those that stand out.
"""


@dataclass(frozen=True)
class Candidate:
    """A segment that may become a hit; `likely` says whether its vector stands out."""

    segment: int
    content: int
    modality: str
    cosine: float
    score: float
    probability: float | None
    likely: bool


@dataclass(frozen=True)
class Ranked:
    """A candidate with its place in the order, `group` and `key`; `likely` says whether words or vector stand out."""

    candidate: Candidate
    group: int
    key: float
    likely: bool

    @property
    def order(self) -> tuple[int, float, int]:
        """A value that is smaller for what comes earlier."""
        return self.group, -self.key, self.candidate.segment


def ranked(
    found: Sequence[Candidate], matches: Mapping[int, Match], calibrate: bool, every_segment: bool
) -> list[Ranked]:
    """All candidates in order, only the best of each content unless `every_segment`.

    `matches` are the contents that share words with the query; of a content's segments the best one has the words.
    Without `calibrate` all but whole names are ordered by their cosines alone.
    """
    ordered = sorted({one.segment: one for one in found}.values(), key=lambda one: (-_by(one, calibrate), one.segment))
    best: dict[int, Candidate] = {}
    for candidate in ordered:
        best.setdefault(candidate.content, candidate)
    places = [
        _placed(one, matches.get(one.content) if best[one.content] is one else None, calibrate)
        for one in (ordered if every_segment else best.values())
    ]
    return sorted(places, key=lambda place: place.order)


def _by(candidate: Candidate, calibrate: bool) -> float:
    return candidate.score if calibrate else candidate.cosine


def _placed(candidate: Candidate, match: Match | None, calibrate: bool) -> Ranked:
    if match is not None and match.place is not None:
        return Ranked(candidate, 0, -float(match.place), True)
    whole, about = (match.is_whole, match.is_about) if match else (False, False)
    likely = candidate.likely or whole
    if not calibrate:
        return Ranked(candidate, 1, candidate.cosine, likely)
    group = 1 if candidate.likely and whole else 2 if about else 3 if likely else 4
    bonus = WORDS * (whole + match.weight) / 2 if match else 0.0
    return Ranked(candidate, group, candidate.score + bonus, likely)
