"""Dynamic batching: what many callers want encoded meanwhile is encoded together, by modality.

    submit -> pre (decode workers; a thread for texts) -> encode (one thread) -> post (one thread) -> the future

While one batch is encoded the next one gathers, so batches grow with the load and nothing ever waits for company. All
stages are bounded: `max_waiting` texts and media are taken in all, of which a batch and a few are decoded ahead.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bind import modalities, pipeline
from preprocess.decoding.cores import available_cores
from preprocess.decoding.pool import DecodePool
from preprocess.decoding.protocol import read_here
from preprocess.media import Limits, MediaError, Segment, Source

if TYPE_CHECKING:
    from bind.model import BindModel
    from serve.metrics import Metrics

_NOTHING = torch.empty(0)
_POST_AHEAD = 4
_TEXTS_PER_PASS = 16
"""On a CPU. Texts are padded to the longest of a pass: 32 in two passes of like lengths take 0.8 of the time of one."""
_MAX_RETRY_S = 30


class Busy(Exception):
    """There is too much to do already: worth another try after `retry_after_s` seconds."""

    def __init__(self, retry_after_s: int, reason: str = "too much is waiting already") -> None:
        super().__init__(f"{reason}; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class LateError(Exception):
    """An answer was not there before its deadline."""


class ItemError(ValueError):
    """The item at `index` of what was submitted cannot be used, and why."""

    def __init__(self, index: int, error: MediaError) -> None:
        super().__init__(str(error))
        self.index = index
        self.error = error


@dataclass(frozen=True, eq=False)
class Embedded:
    """One embedded text or medium: `vector` (D,) float32 of norm 1, what was repaired or assumed, tokens of a text."""

    vector: np.ndarray
    modality: str
    notes: tuple[str, ...] = ()
    tokens: int = 0


@dataclass
class _Job:
    """What was submitted together."""

    future: Future[list[Embedded]]
    deadline: float
    results: list[Embedded | None]
    missing: int

    def fail(self, error: BaseException) -> None:
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)

    def is_over(self) -> bool:
        """Whether nobody waits for it any more: failed, cancelled, or too late (which this tells the caller)."""
        if time.monotonic() > self.deadline:
            self.fail(LateError())
        return self.future.done()


@dataclass
class _Task:
    job: _Job
    index: int
    source: Source
    modality: str | None
    since: float
    views: Tensor = _NOTHING
    notes: tuple[str, ...] = ()
    tokens: int = 0


class Batcher:
    """Encodes for many callers, from any thread. `close` finishes what was taken."""

    def __init__(
        self,
        model: BindModel,
        metrics: Metrics,
        *,
        max_batch: int,
        max_waiting: int,
        limits: Limits,
        pool: DecodePool | None = None,
    ) -> None:
        self._model = model
        self._metrics = metrics
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._limits = limits
        self._pool = pool or pipeline.shared_pool()
        self._changed = threading.Condition()
        self._taken = 0
        self._closing = False
        self._stopped = False
        self._undecoded: deque[_Task] = deque()
        self._decoding = 0
        # Decoded media are large, so there are no more of them than keep the encoder and the decode workers busy.
        self._max_decoding = max_batch + available_cores()
        self._ready: dict[str, deque[_Task]] = {}
        self._encoded: queue.Queue[tuple[str, list[_Task], Tensor] | None] = queue.Queue(_POST_AHEAD)
        self._rate = 0.0
        self._texts = ThreadPoolExecutor(1, "prepare")
        self._threads = [
            threading.Thread(target=target, name=target.__name__.strip("_"), daemon=True)
            for target in (self._encode, self._post)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many texts and media were taken and are not done."""
        return self._taken

    def submit(self, sources: Sequence[tuple[Source, str | None]], deadline_s: float) -> Future[list[Embedded]]:
        """(source, modality or None) pairs -> the future of one result each, in order. Cancelling it saves the work.

        The future raises ItemError for one that cannot be used, LateError after `deadline_s` seconds. Raises Busy when
        they cannot be taken: none of them is then.
        """
        now = time.monotonic()
        future: Future[list[Embedded]] = Future()
        job = _Job(future, now + deadline_s, [None] * len(sources), len(sources))
        with self._changed:
            if self._closing:
                raise Busy(_MAX_RETRY_S, "the server is shutting down")
            if self._taken + len(sources) > self._max_waiting:
                raise Busy(self._retry_after_s())
            self._taken += len(sources)
        if not sources:
            future.set_result([])
        for index, (source, modality) in enumerate(sources):
            self._begin(_Task(job, index, source, modality, now))
        self._decode_more()
        return future

    def close(self) -> None:
        """Takes nothing more, waits for what was taken and ends the threads. Safe to call twice."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._taken == 0)
            self._stopped = True
            self._changed.notify_all()
        self._texts.shutdown()
        for thread in self._threads:
            thread.join()

    def _begin(self, task: _Task) -> None:
        try:
            task.modality = task.modality or modalities.detect(task.source, self._limits)
            spec, config = modalities.spec(task.modality), self._model.config(task.modality)
        except MediaError as error:
            self._refuse(task, error)
        except (ValueError, KeyError) as error:  # not loaded, or unknown
            self._refuse(task, MediaError(task.source.name, str(error.args[0])))
        else:
            if spec.isolated and task.source.is_encoded:
                with self._changed:
                    self._undecoded.append(task)
            else:
                self._texts.submit(self._read_here, task, spec, config)

    def _read_here(self, task: _Task, spec: modalities.ModalitySpec, config: object) -> None:
        if task.job.is_over():
            self._leave([task])
            return
        try:
            self._prepare(task, read_here(spec.read, task.source, config, self._limits, "whole"))
        except MediaError as error:
            self._refuse(task, error)
        except BaseException as error:
            self._fail([task], error)

    def _decode_more(self) -> None:
        """Hands media to the decode workers while there is room for what comes out of them."""
        while True:
            with self._changed:
                if not self._undecoded or self._decoding >= self._max_decoding:
                    return
                task = self._undecoded.popleft()
                over = task.job.is_over()
                self._decoding += not over
            if over:
                self._leave([task])
                continue
            assert task.modality is not None
            spec = modalities.spec(task.modality)
            self._pool.submit(
                spec.read, task.source, self._model.config(task.modality), self._limits, "whole"
            ).add_done_callback(lambda done, task=task: self._decoded(task, done))  # type: ignore[misc]

    def _decoded(self, task: _Task, done: Future[list[Segment]]) -> None:
        try:
            self._prepare(task, done.result())
            return
        except MediaError as error:
            self._refuse(task, error)
        except BaseException as error:
            self._fail([task], error)
        self._make_room(1)

    def _prepare(self, task: _Task, segments: list[Segment]) -> None:
        assert task.modality is not None
        (segment,) = segments
        config = self._model.config(task.modality)
        try:
            task.views = modalities.spec(task.modality).prepare(segment.views, config)
        except ValueError as error:
            raise MediaError(task.source.name, str(error)) from None
        task.notes = segment.notes
        task.tokens = 0 if task.views.is_floating_point() else int((task.views != 0).sum())
        with self._changed:
            self._ready.setdefault(task.modality, deque()).append(task)
            self._changed.notify_all()

    def _encode(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: any(self._ready.values()) or self._stopped)
                if not any(self._ready.values()):
                    break
                modality, tasks, over = self._next_batch()
            self._make_room(sum(self._is_decoded(task) for task in (*tasks, *over)))
            self._leave(over)
            if not tasks:
                continue
            started = time.monotonic()
            for task in tasks:
                self._metrics.stage_seconds.labels("pre").observe(started - task.since)
            self._metrics.batch_size.labels(modality).observe(len(tasks))
            try:
                tasks.sort(key=lambda task: task.tokens)
                views = torch.cat([task.views for task in tasks])
                small = self._model.device.type == "cpu" and not views.is_floating_point()
                size = _TEXTS_PER_PASS if small else self._max_batch
                parts = [self._model.encode_views(modality, part) for part in views.split(size)]
            except BaseException as error:
                self._fail(tasks, error)
                continue
            seconds = time.monotonic() - started
            self._metrics.stage_seconds.labels("encode").observe(seconds)
            rate = len(tasks) / max(seconds, 1e-6)
            self._rate = rate if self._rate == 0 else 0.9 * self._rate + 0.1 * rate
            self._encoded.put((modality, tasks, torch.cat(parts)))
        self._encoded.put(None)

    def _next_batch(self) -> tuple[str, list[_Task], list[_Task]]:
        """The modality whose first task waits longest, its tasks for one batch, and those nobody waits for."""
        modality = min((name for name, tasks in self._ready.items() if tasks), key=lambda n: self._ready[n][0].since)
        waiting, tasks, over = self._ready[modality], [], []
        views = 0
        while waiting and (views == 0 or views + len(waiting[0].views) <= self._max_batch):
            task = waiting.popleft()
            if task.job.is_over():
                over.append(task)
            else:
                tasks.append(task)
                views += len(task.views)
        return modality, tasks, over

    def _post(self) -> None:
        while (encoded := self._encoded.get()) is not None:
            modality, tasks, unit = encoded
            started = time.monotonic()
            try:
                means = torch.stack([part.mean(0) for part in unit.split([len(task.views) for task in tasks])])
                vectors = torch.nn.functional.normalize(means, dim=1).cpu().numpy()
                for task, vector in zip(tasks, vectors, strict=True):
                    self._hand_out(task, Embedded(vector, modality, task.notes, task.tokens))
            except BaseException as error:
                self._fail(tasks, error)
                continue
            self._leave(tasks)
            self._metrics.stage_seconds.labels("post").observe(time.monotonic() - started)

    def _hand_out(self, task: _Task, result: Embedded) -> None:
        job = task.job
        job.results[task.index] = result
        job.missing -= 1  # by this thread alone
        if job.missing == 0:
            with contextlib.suppress(InvalidStateError):  # cancelled
                job.future.set_result([entry for entry in job.results if entry is not None])

    def _refuse(self, task: _Task, error: MediaError) -> None:
        self._fail([task], ItemError(task.index, error))

    def _fail(self, tasks: list[_Task], error: BaseException) -> None:
        for task in tasks:
            task.job.fail(error)
        self._leave(tasks)

    def _leave(self, tasks: Sequence[_Task]) -> None:
        if tasks:
            with self._changed:
                self._taken -= len(tasks)
                self._changed.notify_all()

    def _is_decoded(self, task: _Task) -> bool:
        return task.source.is_encoded and task.modality is not None and modalities.spec(task.modality).isolated

    def _make_room(self, count: int) -> None:
        if count:
            with self._changed:
                self._decoding -= count
            self._decode_more()

    def _retry_after_s(self) -> int:
        return max(1, min(_MAX_RETRY_S, math.ceil(self._taken / self._rate))) if self._rate else 1
