"""Sources -> vectors as a stream: decoding in worker processes overlaps with encoding in this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bind import modalities
from preprocess.isolation import DecodePool, available_cores, read_here
from preprocess.media import Limits, MediaError, Plan, Segment, Source

if TYPE_CHECKING:
    from bind.model import BindModel


@dataclass(frozen=True)
class Embedded:
    """One embedded segment of the source at `position`: `vector` (D,) float32 of norm 1; `last` closes that source."""

    position: int
    modality: str
    vector: np.ndarray
    start_s: float | None
    end_s: float | None
    notes: tuple[str, ...]
    last: bool


@dataclass(frozen=True)
class Failed:
    """The source at `position` could not be used, and why."""

    position: int
    error: MediaError


@dataclass
class _Pending:
    position: int
    segment: Segment
    views: Tensor
    last: bool


@cache
def shared_pool() -> DecodePool:
    """The decode workers of this process: started when first used, ended with it."""
    return DecodePool()


def embed(
    model: BindModel,
    sources: Iterable[tuple[Source, str | None]],
    *,
    plan: Plan = "whole",
    batch_size: int = 64,
    limits: Limits | None = None,
    pool: DecodePool | None = None,
) -> Iterator[Embedded | Failed]:
    """(source, modality or None) pairs -> one result a segment, in order within a source but not across sources.

    At most a few decoded sources and one batch a modality are held in memory, however many sources there are.
    `batch_size` counts views.
    """
    limits = limits or Limits()
    # Enough to keep every worker busy while one batch is encoded.
    ahead = 2 * available_cores() + 2
    decoding: deque[tuple[int, Source, str, Future[list[Segment]]]] = deque()
    pending: dict[str, list[_Pending]] = {}

    def collect() -> Iterator[Embedded | Failed]:
        position, source, modality, future = decoding.popleft()
        try:
            segments = future.result()
            prepared = [_prepare(model, modality, source, segment) for segment in segments]
        except MediaError as error:
            yield Failed(position, error)
            return
        batch = pending.setdefault(modality, [])
        for segment, views in zip(segments, prepared, strict=True):
            batch.append(_Pending(position, segment, views, segment is segments[-1]))
            if sum(len(entry.views) for entry in batch) >= batch_size:
                yield from _encode(model, modality, batch, batch_size)
                batch.clear()

    for position, (source, said) in enumerate(sources):
        try:
            modality = said or _recognise(source, limits)
            decoding.append((position, source, modality, _read(model, source, modality, plan, limits, pool)))
        except MediaError as error:
            yield Failed(position, error)
        while len(decoding) > ahead:
            yield from collect()
    while decoding:
        yield from collect()
    for modality, batch in pending.items():
        if batch:
            yield from _encode(model, modality, batch, batch_size)


def _recognise(source: Source, limits: Limits) -> str:
    if source.is_encoded:
        return modalities.detect(source, limits)
    if type(source.content).__module__.startswith("PIL."):
        return "image"
    raise MediaError(source.name, f"{type(source.content).__name__} does not tell its modality; pass modality=...")


def _read(
    model: BindModel, source: Source, modality: str, plan: Plan, limits: Limits, pool: DecodePool | None
) -> Future[list[Segment]]:
    try:
        config = model.config(modality)
    except ValueError as error:
        raise MediaError(source.name, str(error)) from None
    spec = modalities.spec(modality)
    if source.is_encoded and spec.isolated:
        return (pool or shared_pool()).submit(spec.read, source, config, limits, plan)
    done: Future[list[Segment]] = Future()
    done.set_result(read_here(spec.read, source, config, limits, plan))
    return done


def _prepare(model: BindModel, modality: str, source: Source, segment: Segment) -> Tensor:
    try:
        return modalities.spec(modality).prepare(segment.views, model.config(modality))
    except ValueError as error:
        raise MediaError(source.name, str(error)) from None


def _encode(model: BindModel, modality: str, batch: list[_Pending], batch_size: int) -> Iterator[Embedded]:
    views = torch.cat([entry.views for entry in batch])
    unit = torch.cat([model.encode_views(modality, part) for part in views.split(batch_size)])
    counts = [len(entry.views) for entry in batch]
    means = torch.stack([part.mean(0) for part in unit.split(counts)])
    vectors = torch.nn.functional.normalize(means, dim=1).cpu().numpy()
    for entry, vector in zip(batch, vectors, strict=True):
        segment = entry.segment
        yield Embedded(entry.position, modality, vector, segment.start_s, segment.end_s, segment.notes, entry.last)
