"""The search of a library: nearest vectors, calibrated scores, keywords, and the fusion of both rankings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bind.index.index import Index
from bind.space import Embeddings, SpaceError
from preprocess.readers.lines import Line
from serve.library import calibration
from serve.library.calibration import Scale
from serve.library.catalogue import Catalogue
from serve.library.errors import DamagedError
from serve.library.filters import checked_filter
from serve.library.records import Entry
from serve.library.where import EVERYTHING, Where

if TYPE_CHECKING:
    from bind.model.model import BindModel
from serve.library.items import Hit, item_of
from serve.library.live_index import LiveIndex

RANK_OFFSET = 60
"""The constant k of reciprocal rank fusion, 1 / (k + rank) (Cormack, Clarke, Buettcher: SIGIR 2009)."""
EXACT_ITEMS = 4096
"""The largest number of filtered items that are scored one by one, without the index."""
_KEYWORD_SEGMENTS = 4096
"""Segments of contents that only words have found whose vectors are compared; a film has thousands."""
_MOST_SEGMENTS_A_HIT = 64
"""The most segments that are asked for to find one more item: films of many alike segments need some."""
_FETCHED_FOR_A_FILTER = 4  # as a multiple of the wanted number, before all items that pass a filter are listed


@dataclass
class _Candidate:
    """A segment that may become a hit: its `cosine` with the query, and the calibrated `score`."""

    segment: int
    content: int
    cosine: float
    score: float
    probability: float | None


class Search:
    """Finds the items of a library that are nearest to one embedding. Several threads may search at once."""

    def __init__(self, catalogue: Catalogue, model: BindModel, live_index: LiveIndex) -> None:
        self._catalogue = catalogue
        self._model = model
        self._live_index = live_index
        self._samples: dict[str, tuple[int, np.ndarray]] = {}
        self._segments_a_hit: dict[str, int] = {}

    def find(
        self,
        query: Embeddings,
        k: int = 10,
        want: Sequence[str] | None = None,
        where: str | None = None,
        *,
        words: str = "",
        calibrate: bool = True,
        every_segment: bool = False,
        modality: str | None = None,
        min_probability: float | None = None,
    ) -> list[Hit]:
        """The k best hits for one embedding, with `words` to look for in names, captions and metadata; otherwise as
        `search`.

        `modality` is the modality of the query, None for a mixture: only a single modality has probabilities.
        """
        self._check_arguments(query, k, min_probability)
        filtered = checked_filter(self._catalogue, where)
        index = self._live_index.current()
        with self._catalogue.snapshot():
            scales = self._scales(index, query, _wanted(index, want), modality)
            if min_probability is not None and scales and not any(scale.calibrated for scale in scales.values()):
                raise ValueError(
                    f"search: model {self._model.description.name!r} has no probabilities for "
                    f"{modality or 'a mixture'} -> {', '.join(scales)}; leave out min_probability"
                )
            # A candidate below this place in both rankings cannot reach the first k of the fused ranking.
            depth = RANK_OFFSET + 2 * k if words else k
            candidates = self._candidates(index, query, scales, depth, filtered, every_segment)
            matched: dict[int, int] = {}
            named: dict[int, int] = {}
            shown: set[int] = set()
            if words:
                named = self._catalogue.named_contents(words, list(scales), filtered)
                by_words = named | self._catalogue.keyword_contents(words, list(scales), filtered, depth) | named
                matched = {content: rank for rank, content in enumerate(by_words, 1)}
                shown = set(by_words.values())
                known = {candidate.content for candidate in candidates}
                # A candidate of this ranking alone reaches the first k only from a place among its first k.
                missing = [content for content in list(by_words)[:k] if content not in known]
                candidates += self._score(missing, query, scales, filtered)
            if min_probability is not None:
                candidates = [c for c in candidates if c.probability is not None and c.probability >= min_probability]
            ranked = _rank(candidates, matched, calibrate, every_segment)
            if named:  # a file whose whole name was typed comes first
                order = {content: place for place, content in enumerate(named)}
                ranked.sort(key=lambda candidate: order.get(candidate.content, len(order)))
            ranked = ranked[:k]
            entries = self._catalogue.entries([candidate.segment for candidate in ranked], filtered, shown)
            entries = self._catalogue.as_uploads(entries.values(), shown)
            lines = self._catalogue.matching_lines(words, {c.content for c in ranked if c.content in matched})
        return [
            _hit(candidate, entries[candidate.segment], candidate.content in matched, lines.get(candidate.content, ()))
            for candidate in ranked
            if candidate.segment in entries
        ]

    def _check_arguments(self, query: Embeddings, k: int, min_probability: float | None) -> None:
        if k < 1:
            raise ValueError(f"search: expected k >= 1, got {k}")
        if min_probability is not None and not 0 <= min_probability <= 1:
            raise ValueError(f"search: expected min_probability from 0 to 1, got {min_probability}")
        if query.space != self._model.space:
            raise SpaceError(self._model.space, query.space)
        if len(query) != 1:
            raise ValueError(f"search: expected one embedding, got {len(query)}")

    def _scales(
        self, index: Index, query: Embeddings, modalities: Sequence[str], modality: str | None
    ) -> dict[str, Scale]:
        """Modality to find -> the scale that turns its cosines into comparable scores."""
        samples = {name: self._sample(index, name) for name in modalities}
        counts = {name: index.count(name) for name in modalities}
        return calibration.scales(query.vectors[0], samples, calibration.Worth.of(self._model, modality, counts))

    def _candidates(
        self,
        index: Index,
        query: Embeddings,
        scales: Mapping[str, Scale],
        depth: int,
        where: Where,
        every_segment: bool,
    ) -> list[_Candidate]:
        """The `depth` nearest candidates of each modality that pass a filter, with their scores."""
        candidates: list[_Candidate] = []
        passing: dict[str, np.ndarray] | None = None
        for name, scale in scales.items():
            nearest = None
            if where is EVERYTHING:
                nearest = self._nearest(index, query, name, depth, None, every_segment)
            elif passing is None:
                nearest = self._nearest_mostly(index, query, name, depth, where, every_segment)
            if nearest is None:
                passing = passing if passing is not None else self._catalogue.passing(where)
                allowed = passing.get(name, np.empty(0, np.int64))
                nearest = self._nearest(index, query, name, depth, allowed, every_segment)
            candidates += _scored(*nearest, scale)
        return candidates

    def _nearest(
        self,
        index: Index,
        embedding: Embeddings,
        modality: str,
        depth: int,
        allowed: np.ndarray | None,
        every_segment: bool,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(n,) segment ids, cosines and contents, best first; n is `depth` where there are as many.

        `allowed` are the ids that pass the filter, None where there is none.
        """
        total = index.count(modality)
        if allowed is not None and len(allowed) <= EXACT_ITEMS:
            ids, vectors = self._catalogue.vectors(allowed.tolist())
            cosines = vectors @ embedding.vectors[0]
            order = np.lexsort((ids, -cosines))
            return self._first_of_each(ids[order], cosines[order], depth, every_segment)
        share = 1.0 if allowed is None else len(allowed) / total
        # A file may have many segments among the best; the last search tells how many.
        factor = self._segments_a_hit.get(modality, 1)
        while True:
            fetch = min(int(factor * depth / share) + 1, total)
            scores, found = index.search(embedding, fetch, modality)
            chosen = found[0] >= 0
            if allowed is not None:
                chosen &= np.isin(found[0], allowed, assume_unique=True)
            best = self._first_of_each(found[0][chosen], scores[0][chosen], depth, every_segment)
            if len(best[0]) >= depth or fetch == total:
                return best
            factor *= 4
            if allowed is None and not every_segment:
                self._segments_a_hit[modality] = min(factor, _MOST_SEGMENTS_A_HIT)

    def _nearest_mostly(
        self, index: Index, embedding: Embeddings, modality: str, depth: int, where: Where, every_segment: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """As `_nearest`, for a filter that most items pass: the items that pass are not listed.

        The result is None where too few of the best pass, so that the list is needed.
        """
        total = index.count(modality)
        fetch = min(_FETCHED_FOR_A_FILTER * depth, total)
        scores, found = index.search(embedding, fetch, modality)
        chosen = np.isin(found[0], self._catalogue.passing_of(found[0][found[0] >= 0].tolist(), where))
        best = self._first_of_each(found[0][chosen], scores[0][chosen], depth, every_segment)
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

    def _score(
        self, contents: Sequence[int], embedding: Embeddings, scales: Mapping[str, Scale], where: Where
    ) -> list[_Candidate]:
        """The best segment of each content, for contents that the vector search did not find."""
        segments = [number for number, modality in self._catalogue.segments_of(contents) if modality in scales]
        del segments[_KEYWORD_SEGMENTS:]
        entries = self._catalogue.entries(segments, where)
        ids, vectors = self._catalogue.vectors(list(entries))
        best: dict[int, _Candidate] = {}
        for number, cosine in zip(ids.tolist(), (vectors @ embedding.vectors[0]).tolist(), strict=True):
            entry = entries[number]
            score = float(scales[entry.modality].score(np.array(cosine)))
            if entry.content not in best or score > best[entry.content].score:
                (likely,) = scales[entry.modality].probability(np.array([cosine]))
                best[entry.content] = _Candidate(number, entry.content, cosine, score, likely)
        return list(best.values())

    def _sample(self, index: Index, modality: str) -> np.ndarray:
        """(n, D) vectors spread evenly over a modality's items; drawn again when their number has changed much."""
        total = index.count(modality)
        known = self._samples.get(modality)
        if known is None or not 0.8 * known[0] <= total <= 1.25 * known[0] or total != known[0] < calibration.SAMPLE:
            ids = self._catalogue.ids(modality)
            if not len(ids):
                raise DamagedError(self._catalogue.folder, f"the index has {total:,} of {modality}, the catalogue none")
            chosen = ids[np.unique(np.linspace(0, len(ids) - 1, calibration.SAMPLE).round().astype(np.int64))]
            known = self._samples[modality] = (total, self._catalogue.vectors(chosen.tolist())[1])
        return known[1]


def _wanted(index: Index, want: Sequence[str] | None) -> list[str]:
    if want is None:
        return list(index.modalities)
    if isinstance(want, str):
        raise ValueError(f"search: expected a list of modalities, got the text {want!r}; use [{want!r}]")
    from bind.modalities import specs

    if unknown := [name for name in want if name not in specs()]:
        raise ValueError(f"search: no modality {unknown[0]!r}; known: {', '.join(specs())}")
    return [name for name in index.modalities if name in want]


def _hit(candidate: _Candidate, entry: Entry, keyword: bool, lines: tuple[Line, ...]) -> Hit:
    return Hit(
        **item_of(entry).__dict__,
        score=candidate.score,
        cosine=candidate.cosine,
        keyword=keyword,
        probability=candidate.probability,
        lines=lines,
    )


def _scored(ids: np.ndarray, cosines: np.ndarray, contents: np.ndarray, scale: Scale) -> list[_Candidate]:
    scores, likely = scale.score(cosines).tolist(), scale.probability(cosines)
    columns = (ids.tolist(), contents.tolist(), cosines.tolist(), scores, likely)
    return [_Candidate(*row) for row in zip(*columns, strict=True)]


def _rank(
    found: list[_Candidate], matched: Mapping[int, int], calibrate: bool, every_segment: bool
) -> list[_Candidate]:
    """All candidates, best first, only the best of each content unless `every_segment`. `matched`: content -> rank."""
    ordered = sorted(found, key=lambda c: (-(c.score if calibrate else c.cosine), c.segment))
    first: dict[int, _Candidate] = {}
    for candidate in ordered:
        first.setdefault(candidate.content, candidate)
    if not every_segment:
        ordered = list(first.values())
    if not matched:
        return ordered
    fused = {}
    for rank, candidate in enumerate(ordered, 1):
        fused[candidate.segment] = 1 / (RANK_OFFSET + rank)
        if candidate.content in matched and first[candidate.content] is candidate:
            fused[candidate.segment] += 1 / (RANK_OFFSET + matched[candidate.content])
    return sorted(ordered, key=lambda c: -fused[c.segment])
