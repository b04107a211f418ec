"""Duplicates: groups of files with the same or nearly the same content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from bind.index.index import Index
from bind.space import Embeddings
from serve.library.catalogue import Catalogue
from serve.library.items import Duplicates

_QUERIES_PER_BLOCK = 256
"""Segments that are searched for at a time, which bounds memory."""
_NEIGHBOURS = 16
"""Nearest segments that are compared. A group of more copies is found through its members' neighbours."""


@dataclass(frozen=True)
class Group:
    """Contents that are nearly the same, or one that several files have; the `paths`, and `cosine` as `Duplicates`."""

    contents: tuple[int, ...]
    paths: tuple[str, ...]
    cosine: float


def find(catalogue: Catalogue, index: Index, threshold: float) -> list[Group]:
    """The groups of files that are the same or nearly so, largest first; see `Library.duplicates`."""
    with catalogue.snapshot():
        groups = _Groups()
        for modality in index.modalities:
            content_of = catalogue.own_segments(modality)
            matched = _matched(catalogue, index, modality, content_of, threshold)
            sizes = Counter(content_of.values())
            for (own, other), best in matched.items():
                if len(best) == sizes[own]:
                    groups.join(own, other, min(best.values()))
        return _with_paths(catalogue, groups)


def paths_only(groups: Iterable[Group]) -> list[Duplicates]:
    """Groups -> their paths."""
    return [Duplicates(group.paths, group.cosine) for group in groups]


def _matched(
    catalogue: Catalogue, index: Index, modality: str, content_of: Mapping[int, int], threshold: float
) -> dict[tuple[int, int], dict[int, float]]:
    """(content, other content) -> the segments of the first that have a match in the second, with its cosine."""
    matched: dict[tuple[int, int], dict[int, float]] = {}
    segments = list(content_of)
    for start in range(0, len(segments), _QUERIES_PER_BLOCK):
        ids, vectors = catalogue.vectors(segments[start : start + _QUERIES_PER_BLOCK])
        scores, neighbours = index.search(Embeddings(vectors, index.space), _NEIGHBOURS, modality)
        for row, column in np.argwhere((scores >= threshold) & (neighbours >= 0)).tolist():
            segment = int(ids[row])
            own, other = content_of[segment], content_of.get(int(neighbours[row, column]))
            if other is not None and other != own:
                best = matched.setdefault((own, other), {})
                best[segment] = max(best.get(segment, -1.0), float(scores[row, column]))
    return matched


def _with_paths(catalogue: Catalogue, groups: _Groups) -> list[Group]:
    found = []
    alone = {content: [content] for content in catalogue.shared_contents() if content not in groups.parent}
    for root, members in (groups.members() | alone).items():
        paths = sorted(path for content in members for path in catalogue.paths_of(content))
        if len(paths) > 1:
            found.append(Group(tuple(sorted(members)), tuple(paths), groups.cosine.get(root, 1.0)))
    return sorted(found, key=lambda group: (-len(group.paths), group.paths))


class _Groups:
    """Groups of contents (union-find), with the least cosine that joined each group."""

    def __init__(self) -> None:
        self.parent: dict[int, int] = {}
        self.cosine: dict[int, float] = {}

    def find(self, content: int) -> int:
        while (above := self.parent.setdefault(content, content)) != content:
            self.parent[content] = content = self.parent[above]
        return content

    def join(self, one: int, other: int, cosine: float) -> None:
        first, second = sorted((self.find(one), self.find(other)))
        self.parent[second] = first
        joined = (self.cosine.get(root, 1.0) for root in (first, second))
        self.cosine[first] = min(cosine, *joined)

    def members(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for content in list(self.parent):
            found.setdefault(self.find(content), []).append(content)
        return found
