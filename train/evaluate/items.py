"""What a manifest has of a modality, as vectors, and which of them belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from bind.model.model import BindModel
from bind.model.pipeline import Failed
from preprocess.manifest import Event
from preprocess.source import Limits, Source
from train.evaluate.metrics import same_item


@dataclass(frozen=True)
class Items:
    """Vectors (N, D) of one modality, (N,) the position of the event each belongs to, and a name of its content."""

    vectors: np.ndarray
    events: np.ndarray
    contents: list[object]

    def of(self, kept: np.ndarray) -> Items:
        """(N,) bool -> these items only."""
        contents = [content for content, one in zip(self.contents, kept, strict=True) if one]
        return Items(self.vectors[kept], self.events[kept], contents)


def embedded(
    model: BindModel,
    modality: str,
    found: Sequence[Event],
    skipped: list[tuple[str, str]],
    batch_size: int = 64,
    limits: Limits | None = None,
) -> Items:
    """Events -> what they have of one modality as vectors, all captions where it is text.

    Media that cannot be read are left out and appended to `skipped` as (path, reason).
    """
    sources: list[Source] = []
    events: list[int] = []
    for number, event in enumerate(found):
        if modality == "text":
            sources += [Source(text, f"text:{text[:60]}") for text in event.texts]
            events += [number] * len(event.texts)
        elif modality in event.media:
            sources.append(event.media[modality])
            events.append(number)
    vectors = np.zeros((len(sources), model.dim), np.float32)
    good = np.ones(len(sources), bool)
    stream = model.stream(sources, modality, batch_size, limits)
    for result in tqdm(stream, desc=modality, total=len(sources), unit="item", delay=2, disable=None):
        if isinstance(result, Failed):
            good[result.position] = False
            skipped.append((result.error.path, result.error.reason))
        else:
            vectors[result.position] = result.vector
    contents = [(str(source.content), source.hints) for source, kept in zip(sources, good, strict=True) if kept]
    return Items(vectors[good], np.array(events, np.int64)[good], list(contents))


def paired(query: Items, target: Items) -> tuple[Items, Items, np.ndarray, np.ndarray]:
    """Items of two modalities -> those of events that have both, with (Q,) and (T,) labels of what is right.

    Events that share a content (one caption of two clips) are one item: either answer is right.
    """
    both = np.intersect1d(query.events, target.events)
    query, target = (items.of(np.isin(items.events, both)) for items in (query, target))
    if not len(both):
        return query, target, query.events, target.events
    named = [("a", content) for content in query.contents] + [("b", content) for content in target.contents]
    numbers: dict[object, int] = {}
    contents = np.array([numbers.setdefault(name, len(numbers)) for name in named])
    labels = same_item([np.concatenate([query.events, target.events]), contents])
    return query, target, labels[: len(query.events)], labels[len(query.events) :]
