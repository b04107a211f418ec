"""Paired data: manifests -> batches of views of the trained side with the vectors of their frozen anchors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from bind import modalities
from bind.model import BindModel
from bind.pipeline import shared_pool
from preprocess import manifest
from preprocess.isolation import available_cores, read_here
from preprocess.media import Limits, MediaError, Segment, Source
from train import augment
from train.cache import Table, content_digest, table_name
from train.run import Augment, Cache, Pair

_ENCODED_AT_ONCE = 64
"""Views that a frozen encoder sees at once."""


class DataError(ValueError):
    """Data that cannot be trained on: too few pairs, or too many that are missing or unreadable."""


@dataclass(frozen=True)
class Batch:
    """B pairs: `x` (B, *shape) float32 views of the trained side, `anchors` (B, D) unit rows, `ids` (B,) int64.

    Pairs of one id have the same anchor content and are not each other's negatives.
    """

    x: Tensor
    anchors: Tensor
    ids: Tensor


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


class PairData:
    """The pairs of one modality and its frozen anchor that a list of manifests holds.

    Making one reads everything once: digests, then what the tables of the cache lack. `bad` lists what is missing or
    unreadable; its events are left out. A side that is not cached is decoded at that point all the same, so that the
    pairs, and with them the whole course of a training, do not depend on the cache.

    Raises DataError when more than `max_bad_share` of the events are bad or fewer than two are left.
    """

    def __init__(
        self,
        pair: Pair,
        manifests: Iterable[manifest.Manifest],
        model: BindModel,
        config: Any,
        cache: Cache,
        *,
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
        self._model = model
        self._autocast = dtype == "bfloat16" and model.device.type == "cuda"
        self._limits = limits or Limits()
        self._seed = seed
        self._config = config
        self._shape = modalities.spec(pair.modality).shape(config)
        anchor_shape = modalities.spec(pair.anchor).shape(model.config(pair.anchor))
        self._anchor_variants = self.augment.views if augment.is_picture(anchor_shape) else 1
        ranks = ranks or Ranks()

        events = [event for part in manifests for event in part.pairs(pair.modality, pair.anchor)]
        sources = [(event.media[pair.modality], event.media[pair.anchor]) for event in events]
        faults: dict[int, MediaError] = {}
        digests = [self._digests(number, both, faults) for number, both in enumerate(sources)]
        bar = f"reading {pair.name}"
        folder = Path(cache.folder)
        views = {"modality": pair.modality, "config": asdict(config)}
        self._views = Table(folder / table_name(pair.modality, views), self._shape, np.dtype(np.float16))
        features = {"space": model.space, "modality": pair.anchor, "augment": self._augment_of_anchors(), "type": dtype}
        self._features = Table(folder / table_name(pair.anchor, features), (model.dim,), np.dtype(np.float32))
        self._cached = (cache.views, cache.features)

        unreadable: dict[bytes, MediaError] = {}
        for side, (table, fill) in enumerate(((self._views, self._fill_views), (self._features, self._fill_features))):
            wanted = {digests[i][side]: sources[i][side] for i in range(len(events)) if i not in faults}
            missing = [digest for digest in wanted if digest not in table]
            own = missing[ranks.rank :: ranks.count]
            progress = tqdm(total=len(own), desc=bar, unit="item", delay=2, disable=None if ranks.rank == 0 else True)
            with progress:
                failed = fill(own, [wanted[digest] for digest in own], progress.update)
            unreadable |= ranks.union(failed)
            table.refresh()
        kept = []
        for number, both in enumerate(digests):
            fault = faults.get(number) or unreadable.get(both[0]) or unreadable.get(both[1])
            if fault:
                self.bad.append(fault)
            else:
                kept.append(number)
        self._sources = [sources[number] for number in kept]
        self._digests_of = [digests[number] for number in kept]
        self.ids, self.anchor_ids = (
            np.array([int.from_bytes(both[side][:8], "little", signed=True) for both in self._digests_of], np.int64)
            for side in (0, 1)
        )
        self._check(len(events), max_bad_share)

    def __len__(self) -> int:
        return len(self._sources)

    def batch(self, rows: Sequence[int] | np.ndarray, turn: int) -> Batch:
        """The pairs `rows` as the epoch `turn` shows them: a variant and a view of each, at random."""
        # Drawn from (seed, turn, row) alone: the same in whatever batch and on whatever rank the pair is.
        draws = [np.random.default_rng([self._seed, turn, int(row)]).random(2) for row in rows]
        variants = [int(draw[0] * self.augment.views) for draw in draws]
        arrays = self._view_arrays(rows)
        chosen = np.stack([array[int(draw[1] * len(array))] for array, draw in zip(arrays, draws, strict=True)])
        device = self._model.device
        x = torch.from_numpy(chosen).to(device, non_blocking=True).float()
        digests = [self._digests_of[row][1] for row in rows]
        if augment.is_picture(self._shape) and self.augment.views > 1:
            x = augment.crop(x, augment.variants(digests, variants, self.augment).to(device))
        x = augment.blank(x, [[self._seed, turn, int(row), 1] for row in rows], self.augment)
        anchors = torch.from_numpy(self._anchor_rows(rows, variants)).to(device, non_blocking=True)
        return Batch(x, anchors, torch.from_numpy(self.anchor_ids[np.asarray(rows)]).to(device))

    def anchors(self) -> Tensor:
        """The vectors (N, D) of all anchors, in their first variant."""
        parts = [
            self._anchor_rows(part, [0] * len(part))
            for part in np.array_split(np.arange(len(self)), -(-len(self) // _ENCODED_AT_ONCE))
        ]
        return torch.from_numpy(np.concatenate(parts)).to(self._model.device)

    @torch.no_grad()
    def embed(self, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """All items of the trained side through `encode`, (B, *shape) -> (B, D), each the mean of its views: (N, D)."""
        vectors = []
        for part in np.array_split(np.arange(len(self)), -(-len(self) // _ENCODED_AT_ONCE)):
            arrays = self._view_arrays(part)
            x = torch.from_numpy(np.concatenate(arrays)).to(self._model.device).float()
            unit = F.normalize(encode(x).float(), dim=1)
            vectors.append(torch.stack([views.mean(0) for views in unit.split([len(array) for array in arrays])]))
        return F.normalize(torch.cat(vectors), dim=1)

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

    def _digests(self, number: int, both: Sequence[Source], faults: dict[int, MediaError]) -> tuple[bytes, bytes]:
        try:
            return content_digest(both[0], self._limits), content_digest(both[1], self._limits)
        except MediaError as error:
            faults[number] = error
            return b"", b""

    def _augment_of_anchors(self) -> dict[str, Any]:
        """The settings that change an anchor's vectors."""
        if self._anchor_variants == 1:
            return {}
        return {key: getattr(self.augment, key) for key in ("views", "crop", "flip", "jitter")}

    def _fill_views(
        self, digests: list[bytes], sources: list[Source], advance: Callable[[], Any]
    ) -> dict[bytes, MediaError]:
        failed = {}
        with self._views as table:
            for digest, result in zip(digests, self._read(self.pair.modality, sources), strict=True):
                advance()
                if isinstance(result, MediaError):
                    failed[digest] = result
                elif self._cached[0]:
                    table.add(digest, _stored(result))
        return failed

    def _fill_features(
        self, digests: list[bytes], sources: list[Source], advance: Callable[[], Any]
    ) -> dict[bytes, MediaError]:
        failed = {}
        waiting: list[tuple[bytes, Tensor]] = []

        def encode() -> None:
            names = [digest for digest, _ in waiting]
            rows = [
                self._encode([views for _, views in waiting], names, [view] * len(names))
                for view in range(self._anchor_variants)
            ]
            for digest, variants in zip(names, np.stack(rows, 1), strict=True):
                self._features.add(digest, variants)
            waiting.clear()

        with self._features:
            for digest, result in zip(digests, self._read(self.pair.anchor, sources), strict=True):
                advance()
                if isinstance(result, MediaError):
                    failed[digest] = result
                elif self._cached[1]:
                    waiting.append((digest, result))
                    if len(waiting) >= _ENCODED_AT_ONCE:
                        encode()
            if waiting:
                encode()
        return failed

    def _view_arrays(self, rows: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        digests = [self._digests_of[row][0] for row in rows]
        if self._cached[0]:
            return [self._views[digest] for digest in digests]
        return [_stored(views) for views in self._again(self.pair.modality, [self._sources[row][0] for row in rows])]

    def _anchor_rows(self, rows: Sequence[int] | np.ndarray, variants: list[int]) -> np.ndarray:
        digests = [self._digests_of[row][1] for row in rows]
        if self._cached[1]:
            of_items = [self._features[digest] for digest in digests]
            return np.stack([rows[view % len(rows)] for rows, view in zip(of_items, variants, strict=True)])
        return self._encode(self._again(self.pair.anchor, [self._sources[row][1] for row in rows]), digests, variants)

    def _again(self, modality: str, sources: list[Source]) -> list[Tensor]:
        """What could be read before, read again."""
        found = list(self._read(modality, sources))
        for result in found:
            if isinstance(result, MediaError):
                raise DataError(f"{result} (it could be read when this run began)")
        return [result for result in found if isinstance(result, Tensor)]

    def _encode(self, prepared: list[Tensor], digests: list[bytes], variants: list[int]) -> np.ndarray:
        """Items of (K, *shape) views -> (N, D) float32 unit rows of the frozen anchor encoder."""
        modality = self.pair.anchor
        counts = [len(views) for views in prepared]
        x = torch.cat(prepared)
        if self._anchor_variants > 1:
            each = augment.variants(digests, variants, self.augment).repeat_interleave(torch.tensor(counts), 0)
            x = augment.jitter(augment.crop(x, each), each)
        with torch.autocast("cuda", torch.bfloat16, enabled=self._autocast):
            unit = torch.cat([self._model.encode_views(modality, part) for part in x.split(_ENCODED_AT_ONCE)])
        means = torch.stack([views.mean(0) for views in unit.split(counts)])
        vectors: np.ndarray = F.normalize(means, dim=1).cpu().numpy()
        return vectors

    def _read(self, modality: str, sources: Sequence[Source]) -> Iterator[Tensor | MediaError]:
        """Sources -> prepared (K, *shape) views or the reason why not, in order; decoded ahead in worker processes."""
        spec = modalities.spec(modality)
        config = self._config if modality == self.pair.modality else self._model.config(modality)
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


def _done(read: Callable[[Source], list[Segment]], source: Source) -> Future[list[Segment]]:
    future: Future[list[Segment]] = Future()
    try:
        future.set_result(read(source))
    except MediaError as error:
        future.set_exception(error)
    return future


def _stored(views: Tensor) -> np.ndarray:
    """Prepared views -> float16: its 11 bits exceed what 8-bit pictures and most sensors hold. Clipped to its range."""
    largest = torch.finfo(torch.float16).max
    rows: np.ndarray = views.clamp(-largest, largest).half().numpy()
    return rows
