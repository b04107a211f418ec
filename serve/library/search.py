"""The search of a library: nearest vectors, calibrated scores, words, and pages of hits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bind.index.index import Index
from bind.space import Embeddings, SpaceError
from preprocess.readers.lines import Line
from serve.library import calibration, cursor, ranking
from serve.library.calibration import Scale
from serve.library.catalogue import Catalogue
from serve.library.cursor import Cursor
from serve.library.errors import DamagedError
from serve.library.filters import checked_filter
from serve.library.keywords import Match
from serve.library.ranking import Candidate, Ranked
from serve.library.records import Entry
from serve.library.where import EVERYTHING, Where

if TYPE_CHECKING:
    from bind.model.model import BindModel
from serve.library.items import Hit, Hits, item_of
from serve.library.live_index import LiveIndex
from serve.library.query import Asked

EXACT_ITEMS = 4096
"""The largest number of filtered items that are scored one by one, without the index."""
MOST_MATCHES = 1000
"""The number of contents whose words count: those that share the most with the query."""
_MATCHED_SEGMENTS = 4096
"""Segments of contents that only words have found whose vectors are compared; a film has thousands."""
_MOST_SEGMENTS_A_HIT = 64
"""The most segments that are asked for to find one more item: films of many alike segments need some."""
_FETCHED_FOR_A_FILTER = 4  # as a multiple of the wanted number, before all items that pass a filter are listed
_WIDENED = 4  # as a multiple of the depth, where what was there before has moved up behind a cursor
_KEPT_SNAPSHOTS = 8
"""Snapshots that are remembered for pages to come; an older one is made again."""


@dataclass(frozen=True)
class SearchOptions:
    """What a search is asked for beside its query, as the arguments of `Library.search`."""

    k: int = 10
    want: Sequence[str] | None = None
    where: str | None = None
    calibrate: bool = True
    every_segment: bool = False
    min_score: float | None = None
    min_probability: float | None = None
    cursor: str | None = None

    def check(self) -> None:
        """Raises ValueError for a number out of its range."""
        if self.k < 1:
            raise ValueError(f"search: expected k >= 1, got {self.k}")
        if self.min_score is not None and not np.isfinite(self.min_score):
            raise ValueError(f"search: expected a finite min_score, got {self.min_score}")
        if self.min_probability is not None and not 0 <= self.min_probability <= 1:
            raise ValueError(f"search: expected min_probability from 0 to 1, got {self.min_probability}")

    def allows(self, candidate: Candidate) -> bool:
        """Whether a candidate is as good as the least that is asked for."""
        if self.min_score is not None and candidate.score < self.min_score:
            return False
        least = self.min_probability
        return least is None or (candidate.probability is not None and candidate.probability >= least)

    def checksum(self, *others: object) -> int:
        """A number that differs for options that give other hits."""
        own = (self.where, self.calibrate, self.every_segment, self.min_score, self.min_probability)
        return cursor.checksum(None if self.want is None else tuple(self.want), *own, *others)


@dataclass(frozen=True)
class _Snapshot:
    """The items of an index up to the segment id `newest`: for each modality a sample's ids and vectors, and the number
    of all.
    """

    newest: int
    ids: Mapping[str, np.ndarray]
    vectors: Mapping[str, np.ndarray]
    counts: Mapping[str, int]


class Search:
    """Finds the items of a library that are nearest to one embedding. Several threads may search at once."""

    def __init__(self, catalogue: Catalogue, model: BindModel, live_index: LiveIndex) -> None:
        self._catalogue = catalogue
        self._model = model
        self._live_index = live_index
        self._snapshots: tuple[Index | None, dict[int | None, _Snapshot]] = (None, {})
        self._segments_a_hit: dict[str, int] = {}

    def find(self, asked: Asked, options: SearchOptions, without: Collection[int] = ()) -> Hits:
        """A page of hits for an embedded query. The contents of the segments `without` are left out."""
        options.check()
        query, words, modality = asked.embedding, asked.words, asked.modality
        if query.space != self._model.space:
            raise SpaceError(self._model.space, query.space)
        if len(query) != 1:
            raise ValueError(f"search: expected one embedding, got {len(query)}")
        filtered = checked_filter(self._catalogue, options.where)
        search = options.checksum(words, modality, sorted(without))
        start = Cursor.read(options.cursor, search)
        index = self._live_index.current()
        with self._catalogue.snapshot():
            snapshot = self._snapshot(index, start.newest if start else None)
            worth = calibration.Worth.of(self._model, modality, snapshot.counts)
            scales = calibration.scales(query.vectors[0], snapshot.vectors, worth, snapshot.counts)
            scales = {name: scales[name] for name in _wanted(index, options.want) if name in scales}
            self._check_probability(options, scales, modality)
            looked = _Looked(index, query, scales, filtered, options.every_segment, snapshot.newest)
            excluded = set(self._catalogue.contents_of(list(without)).values())
            matches = self._catalogue.matches(words, list(scales), filtered, MOST_MATCHES) if words else {}
            matched = self._scored(list(matches), looked)
            depth = options.k + 1 + len(excluded) + (start.shown if start else 0)
            while True:
                candidates, has_more = self._candidates(looked, depth, options)
                candidates = [one for one in candidates + matched if one.content not in excluded]
                order = ranking.ranked(candidates, matches, options.calibrate, options.every_segment)
                order = [place for place in order if options.allows(place.candidate)]
                following = _after(order, start, scales)
                if len(following) > options.k or not has_more:
                    break
                depth *= _WIDENED
            hits = self._hits(following[: options.k], filtered, words, matches)
        token = None
        if len(following) > options.k:
            last, shown = following[options.k - 1], options.k + (start.shown if start else 0)
            token = _cursor(search, snapshot.newest, shown, last).token()
        return Hits(hits, token, nothing=not any(place.likely for place in order))

    def _check_probability(self, options: SearchOptions, scales: Mapping[str, Scale], modality: str | None) -> None:
        if options.min_probability is not None and scales and not any(scale.calibrated for scale in scales.values()):
            raise ValueError(
                f"search: model {self._model.description.name!r} has no probabilities for "
                f"{modality or 'a mixture'} -> {', '.join(scales)}; leave out min_probability"
            )

    def _hits(self, page: Sequence[Ranked], where: Where, words: str, matches: Mapping[int, Match]) -> list[Hit]:
        """The hits of a page, each with the file whose words match, and with its matching lines."""
        matching = {place.candidate.content for place in page} & set(matches)
        shown = {matches[content].file for content in matching}
        entries = self._catalogue.entries([place.candidate.segment for place in page], where, shown)
        entries = self._catalogue.as_uploads(entries.values(), shown)
        lines = self._catalogue.matching_lines(words, matching)
        return [
            _hit(place, entries[place.candidate.segment], place.candidate.content in matching, lines)
            for place in page
            if place.candidate.segment in entries
        ]

    def _candidates(self, looked: _Looked, depth: int, options: SearchOptions) -> tuple[list[Candidate], bool]:
        """The `depth` nearest candidates of each modality that pass the filter, and whether more may be asked for."""
        candidates: list[Candidate] = []
        has_more = False
        passing: dict[str, np.ndarray] | None = None
        for name, scale in looked.scales.items():
            nearest = None
            if looked.where is EVERYTHING:
                nearest = self._nearest(looked, name, depth, None)
            elif passing is None:
                nearest = self._nearest_mostly(looked, name, depth)
            if nearest is None:
                passing = passing if passing is not None else self._catalogue.passing(looked.where)
                nearest = self._nearest(looked, name, depth, passing.get(name, np.empty(0, np.int64)))
            found = _judged(name, scale, *nearest)
            has_more |= len(found) >= depth and options.allows(found[-1])
            candidates += found
        return candidates, has_more

    def _nearest(
        self, looked: _Looked, modality: str, depth: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(n,) segment ids, cosines and contents, best first; n is `depth` where there are as many.

        `allowed` are the ids that pass the filter, None where there is none.
        """
        total = looked.index.count(modality)
        if allowed is not None and len(allowed) <= EXACT_ITEMS:
            ids, vectors = self._catalogue.vectors(allowed[allowed <= looked.newest].tolist())
            cosines = looked.cosines(vectors)
            order = np.lexsort((ids, -cosines))
            return self._first_of_each(ids[order], cosines[order], depth, looked.every_segment)
        share = 1.0 if allowed is None else len(allowed) / total
        # A file may have many segments among the best; the last search tells how many.
        factor = self._segments_a_hit.get(modality, 1)
        while True:
            fetch = min(int(factor * depth / share) + 1, total)
            scores, found = looked.index.search(looked.query, fetch, modality)
            chosen = (found[0] >= 0) & (found[0] <= looked.newest)
            if allowed is not None:
                chosen &= np.isin(found[0], allowed, assume_unique=True)
            best = self._first_of_each(found[0][chosen], scores[0][chosen], depth, looked.every_segment)
            if len(best[0]) >= depth or fetch == total:
                return best
            factor *= 4
            if allowed is None and not looked.every_segment:
                self._segments_a_hit[modality] = min(factor, _MOST_SEGMENTS_A_HIT)

    def _nearest_mostly(
        self, looked: _Looked, modality: str, depth: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """As `_nearest`, for a filter that most items pass: the items that pass are not listed.

        The result is None where too few of the best pass, so that the list is needed.
        """
        total = looked.index.count(modality)
        fetch = min(_FETCHED_FOR_A_FILTER * depth, total)
        scores, found = looked.index.search(looked.query, fetch, modality)
        known = found[0][(found[0] >= 0) & (found[0] <= looked.newest)]
        chosen = np.isin(found[0], self._catalogue.passing_of(known.tolist(), looked.where))
        best = self._first_of_each(found[0][chosen], scores[0][chosen], depth, looked.every_segment)
        return best if len(best[0]) >= depth or fetch == total else None

    def _first_of_each(
        self, ids: np.ndarray, cosines: np.ndarray, depth: int, every_segment: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The first `depth` of ranked segments, only the best segment of each content unless `every_segment`."""
        known = self._catalogue.contents_of(ids.tolist())
        contents = np.array([known.get(number, -1) for number in ids.tolist()], np.int64)
        chosen = np.flatnonzero(contents >= 0)
        if not every_segment:
            chosen = chosen[np.sort(np.unique(contents[chosen], return_index=True)[1])]
        chosen = chosen[:depth]
        return ids[chosen], cosines[chosen], contents[chosen]

    def _scored(self, contents: Sequence[int], looked: _Looked) -> list[Candidate]:
        """The segments of some contents that pass the filter, as candidates."""
        of = {number: name for number, name in self._catalogue.segments_of(contents) if name in looked.scales}
        segments = [number for number in of if number <= looked.newest][:_MATCHED_SEGMENTS]
        if looked.where is not EVERYTHING:
            segments = self._catalogue.passing_of(segments, looked.where).tolist()
        known = self._catalogue.contents_of(segments)
        ids, vectors = self._catalogue.vectors(list(known))
        cosines, names = looked.cosines(vectors), np.array([of[number] for number in ids.tolist()])
        found: list[Candidate] = []
        for name in dict.fromkeys(names.tolist()):
            own = names == name
            of_own = np.array([known[number] for number in ids[own].tolist()], np.int64)
            found += _judged(name, looked.scales[name], ids[own], cosines[own], of_own)
        return found

    def _snapshot(self, index: Index, newest: int | None) -> _Snapshot:
        """The library up to the segment id `newest`, None for all of it; the last few are kept."""
        known_index, known = self._snapshots
        if known_index is index and newest in known:
            return known[newest]
        latest = known.get(None)
        if known_index is not index or len(known) > _KEPT_SNAPSHOTS:
            known = {}
            self._snapshots = index, known
        found: dict[str, np.ndarray] = {}
        for name in index.modalities:
            ids = index.ids(name)
            found[name] = ids if newest is None else ids[ids <= newest]
        found = {name: ids for name, ids in found.items() if len(ids)}
        counts = {name: len(ids) for name, ids in found.items()}
        last = max((int(ids[-1]) for ids in found.values()), default=0)
        drawn = {name: calibration.sample(ids) for name, ids in found.items()}
        vectors = {name: self._vectors(name, ids, latest) for name, ids in drawn.items()}
        made = _Snapshot(last if newest is None else newest, drawn, vectors, counts)
        known[newest] = known[made.newest] = made
        return made

    def _vectors(self, modality: str, ids: np.ndarray, earlier: _Snapshot | None) -> np.ndarray:
        """The (n, D) vectors of a sample; those of an earlier sample of the same items are used again."""
        if earlier is not None and np.array_equal(earlier.ids.get(modality, ids[:0]), ids):
            return earlier.vectors[modality]
        found, vectors = self._catalogue.vectors(ids.tolist())
        if not len(found):
            raise DamagedError(self._catalogue.folder, f"the index has {modality}, the catalogue none")
        return vectors


@dataclass(frozen=True, eq=False)
class _Looked:
    """Where a search looks: an index up to the segment id `newest`, with the scales of the wanted modalities."""

    index: Index
    query: Embeddings
    scales: Mapping[str, Scale]
    where: Where
    every_segment: bool
    newest: int

    def cosines(self, vectors: np.ndarray) -> np.ndarray:
        """(n, D) vectors -> (n,) cosines with the query, each the same number that the index gives it."""
        found: np.ndarray = np.einsum("md,d->m", vectors, self.query.vectors[0])
        return found


def _cursor(search: int, newest: int, shown: int, last: Ranked) -> Cursor:
    one = last.candidate
    return Cursor(search, newest, shown, one.segment, last.group, last.key - one.score, one.cosine, one.modality)


def _after(order: list[Ranked], start: Cursor | None, scales: Mapping[str, Scale]) -> list[Ranked]:
    """What follows a cursor: behind its segment or, where that is gone, behind the place that it would have.

    Raises CursorError where its segment has another cosine now, as with another query.
    """
    if start is None:
        return order
    for position, place in enumerate(order):
        if place.candidate.segment == start.segment:
            start.check(place.candidate.cosine)
            return order[position + 1 :]
    if start.modality not in scales:
        return order
    score = float(scales[start.modality].score(np.array(start.cosine)))
    return [place for place in order if place.order > (start.group, -score - start.bonus, start.segment)]


def _wanted(index: Index, want: Sequence[str] | None) -> list[str]:
    if want is None:
        return list(index.modalities)
    if isinstance(want, str):
        raise ValueError(f"search: expected a list of modalities, got the text {want!r}; use [{want!r}]")
    from bind.modalities import specs

    if unknown := [name for name in want if name not in specs()]:
        raise ValueError(f"search: no modality {unknown[0]!r}; known: {', '.join(specs())}")
    return [name for name in index.modalities if name in want]


def _hit(place: Ranked, entry: Entry, keyword: bool, lines: Mapping[int, tuple[Line, ...]]) -> Hit:
    candidate = place.candidate
    return Hit(
        **item_of(entry).__dict__,
        score=candidate.score,
        cosine=candidate.cosine,
        keyword=keyword,
        probability=candidate.probability,
        lines=lines.get(candidate.content, ()) if keyword else (),
        likely=place.likely,
    )


def _judged(name: str, scale: Scale, ids: np.ndarray, cosines: np.ndarray, contents: np.ndarray) -> list[Candidate]:
    columns = (ids.tolist(), contents.tolist(), [name] * len(ids), cosines.tolist(), *scale.judge(cosines))
    return [Candidate(*row) for row in zip(*columns, strict=True)]
