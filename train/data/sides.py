"""One side of the pairs: what is frozen of its tower computes it once, and a table keeps it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from bind.model.pooling import mean_of_views
from preprocess.source import Limits, MediaError, Source
from train.data import augment, reading
from train.data.cache import Table, table_name
from train.trainer.schema import Augment, Cache

_ENCODED_AT_ONCE = 64
"""Views that a frozen encoder sees at once."""


_STORED: dict[str, type[np.generic]] = {"text": np.int32}
"""Types of prepared views in the cache where not float16: tokens are numbers."""


class DataError(ValueError):
    """Data that cannot be trained on: too few pairs, or too many that are missing or unreadable."""


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
        lengths = (part.width,) if part.encode else tuple(length for length in shape if length is not None)
        if not part.encode and len(lengths) < len(shape):
            raise DataError(
                f"{part.modality}: views of raw media differ in shape, so their encoder can be frozen only; "
                "leave it out of `train`, or choose another encoder"
            )
        self._table = Table(folder, lengths, np.dtype(kind))

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
            vectors.append(mean_of_views(unit, [len(rows) for rows in of_items]))
        return torch.cat(vectors)

    def _read(self, sources: Sequence[Source]) -> Iterator[Tensor | MediaError]:
        return reading.prepared(sources, self.part.modality, self.part.config, self._limits)

    def _tensor(self, rows: np.ndarray) -> Tensor:
        x = torch.from_numpy(rows).to(self._device, non_blocking=True)
        return x.float() if x.is_floating_point() else x.long()

    def _compute(self, items: list[Tensor], digests: Sequence[bytes], variants: Sequence[int]) -> list[np.ndarray]:
        """Items of (K, *shape) prepared views -> the given variant's rows of each, as the table holds them."""
        if not self.part.encode:
            return [_stored(views) for views in items]
        counts = [len(views) for views in items]
        # Views of raw media differ in shape: what is alike and side by side is encoded together.
        alike = [torch.cat(list(part)) for _, part in itertools.groupby(items, key=lambda views: views.shape[1:])]
        if self._variants > 1:
            each = augment.variants(digests, variants, self._settings)
            each = each.repeat_interleave(torch.tensor(counts), 0)
            alike = [augment.jitter(augment.crop(torch.cat(alike), each), each)]
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=self._autocast):
            parts = [self.part.encode(views.to(self._device)) for x in alike for views in x.split(_ENCODED_AT_ONCE)]
        rows = torch.cat(parts).float()
        of_items = mean_of_views(rows, counts).split(1) if self.part.pooled else rows.split(counts)
        return [rows.cpu().numpy() for rows in of_items]


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
