"""Sources -> vectors as a stream: worker processes decode while this process encodes."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bind import modalities
from bind.model.pooling import mean_of_views
from preprocess.decoding.cores import available_cores
from preprocess.decoding.pool import DecodePool
from preprocess.decoding.protocol import read_here
from preprocess.decoding.trusted import BATCH, ReadMany, TrustedPool
from preprocess.source import Limits, MediaError, OrdinaryPictureError, Plan, Segment, Source


class Encoder(Protocol):
    """The part of `BindModel` that the pipeline needs."""

    @property
    def device(self) -> torch.device:
        """The device of the weights."""

    def config(self, modality: str) -> Any:
        """The preprocessing constants of a modality. Raises ValueError for one that is not loaded."""

    def encode_views(self, modality: str, x: Tensor) -> Tensor:
        """(B, *shape) single prepared views -> (B, D) float32 unit rows."""


@dataclass(frozen=True)
class Embedded:
    """One embedded segment of the source at `position`: `vector` (D,) float32 of norm 1; `last` marks its last
    segment.

    `metadata`, of a source's first segment, and `at` are those of `preprocess.source.Segment`.
    """

    position: int
    modality: str
    vector: np.ndarray
    start_s: float | None
    end_s: float | None
    notes: tuple[str, ...]
    last: bool
    metadata: Mapping[str, Any] = field(default_factory=dict)
    at: str | None = None


@dataclass(frozen=True)
class Failed:
    """The source at `position` could not be used; `error` says why."""

    position: int
    error: MediaError


@dataclass
class _Pending:
    """A segment that waits for its batch; `views` are prepared, or raw where the GPU prepares them."""

    position: int
    segment: Segment
    views: Tensor | np.ndarray
    last: bool


@dataclass
class _Running:
    """A batch that is being encoded; its vectors (N, D) are on the CPU after the event `ready` (None: they are there
    now).
    """

    modality: str
    entries: list[_Pending]
    vectors: Tensor
    ready: torch.cuda.Event | None


@cache
def shared_pool() -> DecodePool:
    """The decode workers of this process, started when first used and ended with the process.

    Where a GPU encodes, there are 1.5 workers for each core: one worker decodes while the task or the result of another
    is transferred.
    """
    cores = available_cores()
    return DecodePool(cores + cores // 2 if torch.cuda.is_available() else cores)


@cache
def _trusted_pool(read_many: ReadMany, device: torch.device) -> TrustedPool:
    return TrustedPool(read_many, device)


def embed(
    model: Encoder,
    sources: Iterable[tuple[Source, str | None]],
    *,
    plan: Plan = "whole",
    batch_size: int = 64,
    limits: Limits | None = None,
    pool: DecodePool | None = None,
) -> Iterator[Embedded | Failed]:
    """(source, modality or None) pairs -> one result for each segment, in order within a source but not across sources.

    At most a few decoded sources and one batch of each modality are in memory, however many sources there are.
    `batch_size` counts views. A GPU encodes one batch while the next is decoded and collated. Raises ValueError where
    `limits.decode` is "gpu" and the model is not on a GPU, or nvJPEG is missing.
    """
    limits = limits or Limits()
    ahead = _decoded_ahead(model.device.type, limits)
    decoding: deque[tuple[int, Source, str, Future[list[Segment]]]] = deque()
    pending: dict[str, list[_Pending]] = {}
    running: deque[_Running] = deque()
    overlapping = 1 if model.device.type == "cuda" else 0

    def collect() -> Iterator[Embedded | Failed]:
        position, source, modality, future = decoding.popleft()
        try:
            try:
                segments = future.result()
            except OrdinaryPictureError:
                if not isinstance(modality, modalities.Guess):
                    raise
                segments = with_note(_read(model, source, "image", plan, limits, pool).result(), modality.note)
                modality = "image"
            prepared = [_prepare(model, modality, source, segment) for segment in segments]
        except MediaError as error:
            yield Failed(position, error)
            return
        batch = pending.setdefault(modality, [])
        for segment, views in zip(segments, prepared, strict=True):
            batch.append(_Pending(position, segment, views, segment is segments[-1]))
            if sum(len(entry.views) for entry in batch) >= batch_size:
                running.append(_encode(model, modality, pending.pop(modality), batch_size))
                batch = pending.setdefault(modality, [])
        while len(running) > overlapping:
            yield from _finished(running.popleft())

    for position, (source, named) in enumerate(sources):
        try:
            modality = named or _recognise(source, limits)
            decoding.append((position, source, modality, _read(model, source, modality, plan, limits, pool)))
        except MediaError as error:
            yield Failed(position, error)
        while len(decoding) > ahead:
            yield from collect()
    while decoding:
        yield from collect()
    for modality, batch in pending.items():
        if batch:
            running.append(_encode(model, modality, batch, batch_size))
    for last in running:
        yield from _finished(last)


def _decoded_ahead(device: str, limits: Limits) -> int:
    """How many sources are decoded before their turn. Raises ValueError where the device cannot decode."""
    # Enough to keep every worker busy while one batch is encoded, or while one is put together for a GPU.
    ahead = (2 if device == "cpu" else 12) * available_cores() + 2
    if limits.decode != "gpu":
        return ahead
    if device != "cuda":
        raise ValueError(
            f'decode="gpu": expected a model on a CUDA device, got {device}; move it there with .to("cuda")'
        )
    return max(ahead, 3 * BATCH)  # two being decoded, one that gathers


def with_note(segments: list[Segment], note: str) -> list[Segment]:
    """Segments whose first one has one more note."""
    return [replace(segments[0], notes=(note, *segments[0].notes)), *segments[1:]]


def _recognise(source: Source, limits: Limits) -> str:
    if source.is_encoded:
        return modalities.detect(source, limits)
    if type(source.content).__module__.startswith("PIL."):
        return "image"
    raise MediaError(source.name, f"{type(source.content).__name__} does not tell its modality; pass modality=...")


def _read(
    model: Encoder, source: Source, modality: str, plan: Plan, limits: Limits, pool: DecodePool | None
) -> Future[list[Segment]]:
    try:
        config = model.config(modality)
    except ValueError as error:
        if isinstance(modality, modalities.Guess) and modality.is_ordinary:
            refuted: Future[list[Segment]] = Future()
            refuted.set_exception(OrdinaryPictureError(source.name, str(error)))
            return refuted
        raise MediaError(source.name, str(error)) from None
    spec = modalities.spec(modality)
    if source.is_encoded and spec.isolated:
        isolated = pool or shared_pool()
        if limits.decode == "gpu" and spec.read_on_gpu:
            trusted = _trusted_pool(spec.read_on_gpu, model.device)
            return trusted.submit(spec.read, source, config, limits, plan, isolated)
        return isolated.submit(spec.read, source, config, limits, plan)
    done: Future[list[Segment]] = Future()
    done.set_result(read_here(spec.read, source, config, limits, plan))
    return done


def _prepare(model: Encoder, modality: str, source: Source, segment: Segment) -> Tensor | np.ndarray:
    spec = modalities.spec(modality)
    if spec.prepare_tensor and model.device.type == "cuda":
        return segment.views
    try:
        return spec.prepare(segment.views, model.config(modality))
    except ValueError as error:
        raise MediaError(source.name, str(error)) from None


def _encode(model: Encoder, modality: str, entries: list[_Pending], batch_size: int) -> _Running:
    # Raw views of one shape are prepared together. The views of one source have one shape and stay in their order.
    entries = sorted(entries, key=lambda entry: entry.views.shape[1:])
    groups = [list(group) for _, group in itertools.groupby(entries, key=lambda entry: entry.views.shape[1:])]
    prepared = [_together(model, modality, [entry.views for entry in group]) for group in groups]
    # Views that still differ in shape (those of encoders with a preprocessing of their own) are encoded group by group.
    same = itertools.groupby(prepared, key=lambda views: views.shape[1:])
    batches = [part for _, alike in same for part in torch.cat(list(alike)).split(batch_size)]
    encoded = [model.encode_views(modality, part) for part in batches]
    unit = encoded[0] if len(encoded) == 1 else torch.cat(encoded)
    counts = [len(entry.views) for entry in entries]
    vectors = unit if len(counts) == len(unit) else mean_of_views(unit, counts)  # a single view is its own mean
    if not vectors.is_cuda:
        return _Running(modality, entries, vectors, None)
    fetched = torch.empty(vectors.shape, pin_memory=True).copy_(vectors, non_blocking=True)
    ready = torch.cuda.Event()
    ready.record(torch.cuda.current_stream(vectors.device))
    return _Running(modality, entries, fetched, ready)


def _together(model: Encoder, modality: str, views: list[Tensor | np.ndarray]) -> Tensor:
    """Views of several segments -> one batch; raw views are prepared on the model's device."""
    if isinstance(views[0], Tensor):
        return torch.cat([part for part in views if isinstance(part, Tensor)])
    arrays = [part for part in views if isinstance(part, np.ndarray)]
    shape = (sum(map(len, arrays)), *arrays[0].shape[1:])
    # The memory is pinned, so that the copy to the GPU runs while this thread goes on.
    raw = torch.empty(shape, dtype=torch.from_numpy(arrays[0]).dtype, pin_memory=True)
    np.concatenate(arrays, out=raw.numpy())
    prepare = modalities.spec(modality).prepare_tensor
    assert prepare is not None  # otherwise the views would be prepared already
    return prepare(raw.to(model.device, non_blocking=True), model.config(modality))


def _finished(batch: _Running) -> Iterator[Embedded]:
    if batch.ready:
        batch.ready.synchronize()
    for entry, vector in zip(batch.entries, batch.vectors.numpy(), strict=True):
        segment = entry.segment
        times, facts = (segment.start_s, segment.end_s), (segment.metadata, segment.at)
        yield Embedded(entry.position, batch.modality, vector, *times, segment.notes, entry.last, *facts)
