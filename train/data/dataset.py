"""Paired data: manifests -> batches of what the trained parts of two towers take; what is frozen is computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from preprocess import manifest
from preprocess.manifest import Event
from preprocess.source import Limits, MediaError, Source
from train.data.cache import content_digest
from train.data.sides import DataError, Part, Ranks, Side
from train.trainer.schema import Augment, Cache, Pair


@dataclass(frozen=True)
class Batch:
    """B pairs. `sides` are (B, ...) each: what the trained part of its tower takes, or else vectors, unit rows.

    Pairs of one of the `ids` (B,) int64 show the same anchor and are not each other's negatives. `teacher` holds a
    teacher's vectors (B, E) of both sides.
    """

    sides: tuple[Tensor, Tensor]
    ids: Tensor
    teacher: tuple[Tensor, Tensor] | None = None


class PairData:
    """The pairs of two modalities that a list of manifests holds; `parts` says what is frozen of each, in their order.

    Making one reads everything once: digests, then what the tables of the cache lack. `bad` lists what is missing or
    unreadable; its events are left out. Of an event's several texts an epoch sees one, at random. `teacher` are towers
    of a teacher for the two sides.

    Raises DataError when more than `max_bad_share` of the events are bad or fewer than two are left.
    """

    def __init__(
        self,
        pair: Pair,
        manifests: Iterable[manifest.Manifest],
        parts: tuple[Part, Part],
        cache: Cache,
        device: torch.device,
        *,
        teacher: tuple[Part, Part] | None = None,
        settings: Augment | None = None,
        dtype: str = "float32",
        max_bad_share: float = 0.0,
        ranks: Ranks | None = None,
        limits: Limits | None = None,
        seed: int = 0,
    ) -> None:
        self.pair = pair
        self.augment = settings or Augment()
        self.bad: list[MediaError] = []
        self._seed = seed
        self._device = device
        limits, ranks = limits or Limits(), ranks or Ranks()
        names = (pair.modality, pair.anchor)
        events = [event for part in manifests for event in part.pairs(*names)]
        of_events = [tuple(_alternatives(event, name) for name in names) for event in events]
        faults: dict[int, MediaError] = {}
        contents: list[tuple[list[bytes], ...]] = []
        for number, both in enumerate(of_events):
            try:
                contents.append(tuple([content_digest(source, limits) for source in sources] for sources in both))
            except MediaError as error:
                faults[number] = error
                contents.append(([], []))
        wanted: tuple[dict[bytes, Source], ...] = ({}, {})
        for digests, sources in zip(contents, of_events, strict=True):
            for n in range(2) if all(digests) else ():
                wanted[n].update(zip(digests[n], sources[n], strict=True))

        self.sides, self._teachers = (
            tuple(Side(part, self.augment, cache, device, dtype, limits) for part in group or ())
            for group in (parts, teacher)
        )
        # A teacher sees a side that it lacks through the other.
        self._seen_by_teachers = [names.index(side.part.modality) for side in self._teachers]
        unreadable: dict[bytes, MediaError] = {}
        for seen, side in zip([0, 1, *self._seen_by_teachers], [*self.sides, *self._teachers], strict=True):
            unreadable |= side.fill(wanted[seen], ranks, f"reading {pair.name}")
        self._contents: list[tuple[list[bytes], ...]] = []
        for number, found in enumerate(contents):
            fault = faults.get(number) or next((unreadable[d] for part in found for d in part if d in unreadable), None)
            if fault:
                self.bad.append(fault)
            else:
                self._contents.append(found)
        self.ids = tuple(_numbers([both[side][0] for both in self._contents]) for side in range(2))
        self._check(len(events), max_bad_share)

    def __len__(self) -> int:
        return len(self._contents)

    def batch(self, rows: Sequence[int] | np.ndarray, turn: int) -> Batch:
        """The pairs `rows` as the epoch `turn` shows them: a variant, a text and a view of each, at random."""
        # Drawn from (seed, turn, row) alone: the same in whatever batch and on whatever rank the pair is.
        draws = _draws([self._seed, turn], np.asarray(rows), 6)
        variants = (draws[:, 0] * self.augment.views).astype(int).tolist()
        digests: list[list[bytes]] = [[], []]
        for row, draw in zip(rows, draws[:, 1:3], strict=True):
            for side, texts in enumerate(self._contents[row]):
                digests[side].append(texts[int(draw[side] * len(texts))])
        seeds = [[self._seed, turn, int(row), 1] for row in rows]
        others = [self._contents[int(draw * len(self))] for draw in draws[:, 5]]

        def batch(side: Side, n: int) -> Tensor:
            return side.batch(digests[n], variants, draws[:, 3 + n])

        def other(side: Side, n: int) -> Tensor:
            return side.batch([both[n][0] for both in others], variants, draws[:, 3 + n])

        sides = [side.varied(batch(side, n), partial(other, side, n), seeds) for n, side in enumerate(self.sides)]
        teacher = [batch(side, n) for side, n in zip(self._teachers, self._seen_by_teachers, strict=True)]
        ids = torch.from_numpy(_numbers(digests[1])).to(self._device)
        return Batch((sides[0], sides[1]), ids, (teacher[0], teacher[1]) if teacher else None)

    def embed(self, encode: Sequence[Callable[[Tensor], Tensor] | None]) -> tuple[Tensor, Tensor]:
        """Both sides of all pairs as vectors (N, D), unit rows, of their first texts and variants.

        `encode` is the trained part of each side's tower, None for a frozen one.
        """
        first = [[both[n][0] for both in self._contents] for n in range(2)]
        one, other = (side.embed(first[n], encode[n]) for n, side in enumerate(self.sides))
        return one, other

    def _check(self, total: int, max_bad_share: float) -> None:
        shown = "".join(f"\n  {fault}" for fault in self.bad[:10])
        if len(self.bad) > max_bad_share * total:
            raise DataError(
                f"{self.pair.name}: {len(self.bad)} of {total} pairs are missing or unreadable, more than "
                f"max_bad_share = {max_bad_share:g} allows:{shown}"
            )
        if len(self) < 2:
            raise DataError(
                f"{self.pair.name}: expected at least two events with both {self.pair.modality} and "
                f"{self.pair.anchor} in {', '.join(self.pair.manifests)}, got {len(self)}{shown}"
            )


def _alternatives(event: Event, modality: str) -> tuple[Source, ...]:
    """What may stand for a side of an event: its medium, or any of its texts."""
    if modality == "text":
        return tuple(Source(text, f"text:{text[:60]}") for text in event.texts)
    return (event.media[modality],)


def _numbers(digests: Sequence[bytes]) -> np.ndarray:
    """Digests -> (N,) int64."""
    return np.array([int.from_bytes(digest[:8], "little", signed=True) for digest in digests], np.int64)


def _draws(seed: Sequence[int], rows: np.ndarray, count: int) -> np.ndarray:
    """Numbers (B,) -> (B, count) from [0, 1), each row a function of the seed and its number alone: SplitMix64."""
    key = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    places = rows.astype(np.uint64)[:, None] * np.uint64(count) + np.arange(1, count + 1, dtype=np.uint64)
    z: np.ndarray = key + places * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    drawn: np.ndarray = (z >> np.uint64(11)) * 2.0**-53
    return drawn
