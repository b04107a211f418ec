"""Paired data: manifests -> batches of what the trained parts of two towers take; what is frozen is computed once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from bind import modalities
from bind.model.model import BindModel
from bind.model.pipeline import shared_pool
from preprocess import manifest
from preprocess.decoding.cores import available_cores
from preprocess.decoding.protocol import read_here
from preprocess.manifest import Event
from preprocess.source import Limits, MediaError, Segment, Source
from train.data import augment
from train.data.cache import Table, content_digest, table_name
from train.trainer.schema import Augment, Cache, Pair

_ENCODED_AT_ONCE = 64
"""Views that a frozen encoder sees at once."""


_STORED: dict[str, type[np.generic]] = {"text": np.int32}
"""Types of prepared views in the cache where not float16: tokens are numbers."""


class DataError(ValueError):
    """Data that cannot be trained on: too few pairs, or too many that are missing or unreadable."""


@dataclass(frozen=True)
class Batch:
    """B pairs. `sides` are (B, ...) each: what the trained part of its tower takes, or else vectors, unit rows.

    Pairs of one of the `ids` (B,) int64 show the same anchor and are not each other's negatives. `teacher` holds a
    teacher's vectors (B, E) of both sides.
    """

    sides: tuple[Tensor, Tensor]
    ids: Tensor
    teacher: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Part:
    """What a run leaves as it is of a modality: nothing (`encode` is None), a trunk, or (`pooled`) a whole tower.

    `encode` maps prepared views (N, *shape) to (N, width) and depends on nothing but `identity`. A tower's are unit
    rows, and those of one item's views are averaged.
    """

    modality: str
    config: Any
    encode: Callable[[Tensor], Tensor] | None = None
    width: int = 0
    identity: Mapping[str, Any] = field(default_factory=dict)
    pooled: bool = False


@dataclass(frozen=True)
class Ranks:
    """This process among those that share the work."""

    rank: int = 0
    count: int = 1

    def union(self, own: dict[bytes, MediaError]) -> dict[bytes, MediaError]:
        """The entries of all ranks, on every rank."""
        if self.count == 1:
            return own
        everyones: list[Any] = [None] * self.count
        dist.all_gather_object(everyones, own)
        return {key: value for part in everyones for key, value in part.items()}


def frozen_tower(model: BindModel, modality: str) -> Part:
    """A whole tower of a model that is not trained."""
    encode = partial(model.encode_views, modality)
    return Part(modality, model.config(modality), encode, model.dim, {"space": model.space}, pooled=True)


class Side:
    """One side of the pairs, as its frozen part gives it: read and computed once where `cache` says so.

    What is not kept is decoded by `fill` all the same, so that the pairs, and with them the whole course of a training,
    do not depend on the cache.
    """

    def __init__(
        self, part: Part, settings: Augment, cache: Cache, device: torch.device, dtype: str, limits: Limits
    ) -> None:
        self.part = part
        self._settings = settings
        self._device = device
        self._autocast = dtype == "bfloat16" and device.type == "cuda"
        self._limits = limits
        self._sources: dict[bytes, Source] = {}
        spec = modalities.spec(part.modality)
        shape = spec.shape(part.config)
        self._picture = augment.is_picture(shape)
        self._variants = settings.views if self._picture and part.encode else 1
        self._kept = cache.features if part.encode else cache.views
        name: dict[str, Any] = {"modality": part.modality, "config": asdict(part.config), **part.identity}
        name |= spec.identity
        if part.encode:
            keys = ("views", "crop", "flip", "jitter") if self._variants > 1 else ()
            name |= {"augment": {key: getattr(settings, key) for key in keys}, "type": dtype}
        kind: type[np.generic] = np.float32 if part.encode else _STORED.get(part.modality, np.float16)
        folder = Path(cache.folder) / table_name(part.modality, name)
        self._table = Table(folder, (part.width,) if part.encode else shape, np.dtype(kind))

    def fill(self, sources: Mapping[bytes, Source], ranks: Ranks, title: str) -> dict[bytes, MediaError]:
        """Contents by digest -> those that cannot be used. Each rank does its share of what the table lacks."""
        self._sources.update(sources)
        own = [digest for digest in sources if digest not in self._table][ranks.rank :: ranks.count]
        failed = {}
        waiting: dict[bytes, Tensor] = {}

        def store() -> None:
            names, prepared = list(waiting), list(waiting.values())
            variants = [self._compute(prepared, names, [view] * len(names)) for view in range(self._variants)]
            for digest, rows in zip(names, zip(*variants, strict=True), strict=True):
                self._table.add(digest, np.concatenate(rows))
            waiting.clear()

        progress = tqdm(total=len(own), desc=title, unit="item", delay=2, disable=None if ranks.rank == 0 else True)
        with progress, self._table:
            for digest, result in zip(own, self._read([sources[digest] for digest in own]), strict=True):
                progress.update()
                if isinstance(result, MediaError):
                    failed[digest] = result
                elif self._kept:
                    waiting[digest] = result
                    if len(waiting) >= _ENCODED_AT_ONCE:
                        store()
            if waiting:
                store()
        everyones = ranks.union(failed)
        self._table.refresh()
        return everyones

    def items(self, digests: Sequence[bytes], variants: Sequence[int]) -> list[np.ndarray]:
        """The given variant of each item -> its rows (K, ...), one a view (one in all, where they are averaged)."""
        if not self._kept:
            found = list(self._read([self._sources[digest] for digest in digests]))
            for result in found:
                if isinstance(result, MediaError):
                    raise DataError(f"{result} (it could be read when this run began)")
            prepared = [result for result in found if isinstance(result, Tensor)]
            return self._compute(prepared, digests, variants)
        of_items = [self._table[digest] for digest in digests]
        counts = [len(rows) // self._variants for rows in of_items]
        starts = [view % self._variants * count for view, count in zip(variants, counts, strict=True)]
        return [rows[at : at + count] for rows, at, count in zip(of_items, starts, counts, strict=True)]

    def batch(self, digests: Sequence[bytes], variants: Sequence[int], draws: np.ndarray) -> Tensor:
        """The given variant of each item, one of its views by `draws` (B,) from [0, 1) -> (B, ...) on the device."""
        of_items = self.items(digests, variants)
        x = self._tensor(np.stack([rows[int(draw * len(rows))] for rows, draw in zip(of_items, draws, strict=True)]))
        if self._picture and self._settings.views > 1 and not self.part.encode:
            x = augment.crop(x, augment.variants(digests, variants, self._settings).to(self._device))
        return x

    def varied(self, x: Tensor, others: Callable[[], Tensor], seeds: list[list[int]]) -> Tensor:
        """A `batch` as this step alone shows it: what is trained from its views on gets the random augmentations.

        `others` gives a batch of other items, which may be mixed in.
        """
        if self.part.encode or not x.is_floating_point():
            return x
        if self._settings.mix and self.part.modality == "audio":
            x = augment.mix(x, others(), self.part.config, seeds, self._settings)
        x = augment.sense(x, self.part.modality, self.part.config, seeds, self._settings)
        return augment.blank(x, seeds, self._settings)

    @torch.no_grad()
    def embed(self, digests: Sequence[bytes], encode: Callable[[Tensor], Tensor] | None) -> Tensor:
        """Items -> (N, D) unit rows, each the mean of its views' after `encode`, the trained rest of the tower."""
        vectors = []
        for start in range(0, len(digests), _ENCODED_AT_ONCE):
            part = digests[start : start + _ENCODED_AT_ONCE]
            of_items = self.items(part, [0] * len(part))
            x = self._tensor(np.concatenate(of_items))
            unit = F.normalize(encode(x).float(), dim=1) if encode else x
            vectors.append(torch.stack([views.mean(0) for views in unit.split([len(rows) for rows in of_items])]))
        return F.normalize(torch.cat(vectors), dim=1)

    def _tensor(self, rows: np.ndarray) -> Tensor:
        x = torch.from_numpy(rows).to(self._device, non_blocking=True)
        return x.float() if x.is_floating_point() else x.long()

    def _compute(self, items: list[Tensor], digests: Sequence[bytes], variants: Sequence[int]) -> list[np.ndarray]:
        """Items of (K, *shape) prepared views -> the given variant's rows of each, as the table holds them."""
        if not self.part.encode:
            return [_stored(views) for views in items]
        counts = [len(views) for views in items]
        x = torch.cat(items)
        if self._variants > 1:
            each = augment.variants(digests, variants, self._settings)
            each = each.repeat_interleave(torch.tensor(counts), 0)
            x = augment.jitter(augment.crop(x, each), each)
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=self._autocast):
            parts = [self.part.encode(views.to(self._device)) for views in x.split(_ENCODED_AT_ONCE)]
        of_items = torch.cat(parts).float().split(counts)
        if self.part.pooled:
            of_items = F.normalize(torch.stack([views.mean(0) for views in of_items]), dim=1).split(1)
        return [rows.cpu().numpy() for rows in of_items]

    def _read(self, sources: Sequence[Source]) -> Iterator[Tensor | MediaError]:
        """Sources -> prepared (K, *shape) views or the reason why not, in order; decoded ahead in worker processes."""
        spec, config = modalities.spec(self.part.modality), self.part.config
        ahead: deque[Future[list[Segment]]] = deque()
        waiting = deque(sources)
        for source in sources:
            while waiting and len(ahead) < 2 * available_cores() + 2:
                following = waiting.popleft()
                if following.is_encoded and spec.isolated:
                    ahead.append(shared_pool().submit(spec.read, following, config, self._limits, "whole"))
                else:
                    ahead.append(_done(lambda at: read_here(spec.read, at, config, self._limits, "whole"), following))
            try:
                (segment,) = ahead.popleft().result()
                yield spec.prepare(segment.views, config)
            except MediaError as error:
                yield error
            except ValueError as error:
                yield MediaError(source.name, str(error))


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


def _done(read: Callable[[Source], list[Segment]], source: Source) -> Future[list[Segment]]:
    future: Future[list[Segment]] = Future()
    try:
        future.set_result(read(source))
    except MediaError as error:
        future.set_exception(error)
    return future


def _stored(views: Tensor) -> np.ndarray:
    """Prepared views -> float16: its 11 bits exceed what 8-bit pictures and most sensors hold. Clipped to its range.

    Tokens -> int32.
    """
    if not views.is_floating_point():
        tokens: np.ndarray = views.int().numpy()
        return tokens
    largest = torch.finfo(torch.float16).max
    rows: np.ndarray = views.clamp(-largest, largest).half().numpy()
    return rows
