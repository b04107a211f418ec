"""Dynamic batching: texts and media of many callers are encoded together, by modality.

    submit -> preprocess (decode workers; threads for texts) -> encode (one thread) -> the future

While one batch is encoded, the next one gathers: batches grow with the load, and no item waits for others to come. At
most `max_waiting` texts and media are accepted, of which a batch and a few more are decoded ahead. Long items become
single views, and clients take turns by cost (`serve.engine.fairness`). What nobody waits for leaves all queues at once.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bind import modalities
from bind.model import pipeline
from preprocess.decoding.cores import available_cores
from preprocess.decoding.pool import DecodePool
from preprocess.decoding.protocol import read_here
from preprocess.source import Limits, MediaError, Plan, Segment, Source
from serve.engine.decoding import Decoder
from serve.engine.fairness import CLIENT, Turns
from serve.engine.jobs import Busy, EncodedSegment, ItemError, Job, Part, Piece, Task, is_long

if TYPE_CHECKING:
    from bind.model.model import BindModel
    from serve.engine.metrics import Metrics

_PASS_S = 0.1
"""The longest time that one batch should take, in seconds, because items that arrive meanwhile wait for its end."""
_SHORT_TOKENS, _LEAST_PIECES = 32, 2  # short texts fill a batch whatever that costs; others are at least two
_GUESS_S = 0.001
"""The assumed time for a view, or for one token of a text, before any item of its modality was encoded."""
_TEXTS_PER_PASS = 16
"""The texts of one batch on a CPU: two sorted batches of 16 take 0.8 of the time of one padded batch of 32."""
_MAX_RETRY_S = 30  # the longest wait that a client is asked for


class Batcher:
    """Encodes media and texts for many callers, from any thread. `close` finishes the jobs that were accepted."""

    def __init__(
        self,
        model: BindModel,
        metrics: Metrics,
        *,
        max_batch: int,
        max_waiting: int,
        limits: Limits,
        max_waiting_each: int | None = None,
        pool: DecodePool | None = None,
        decoder: Decoder | None = None,
    ) -> None:
        self._model = model
        self._metrics = metrics
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._max_waiting_each = max_waiting_each or max_waiting
        self._limits = limits
        self._decoder = decoder or Decoder(pool or pipeline.shared_pool())
        self._changed = threading.Condition()
        self._taken: dict[str, int] = {}
        self._closing = False
        self._stopped = False
        self._decoding = 0
        # Decoded media are large, so only as many wait as keep the encoder and the decode workers busy.
        self._max_decoding = max_batch + available_cores()
        self._unread: dict[bool, Turns[Task]] = {False: Turns(), True: Turns()}
        self._ready: Turns[Piece] = Turns()
        self._cost_s: dict[str, float] = {}
        self._rate = 0.0
        self._threads = [
            threading.Thread(target=target, args=arguments, name=name, daemon=True)
            for name, target, arguments in (
                ("encode", self._encode, ()),
                ("prepare", self._read_texts, (False,)),
                ("prepare-long", self._read_texts, (True,)),
            )
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """The number of texts and media that were accepted and are not finished."""
        return sum(self._taken.copy().values())

    def submit(
        self, sources: Sequence[tuple[Source, str | None]], deadline_s: float, client: str | None = None
    ) -> Future[list[EncodedSegment]]:
        """(source, modality or None) pairs -> a future with one result for each, in order; it may be cancelled.

        `client` is who asks (default: that of this context). The future raises ItemError for an unusable source, and
        LateError after `deadline_s` seconds. Raises Busy when there is no room for all; then none is accepted.
        """
        whole: Future[list[EncodedSegment]] = Future()
        parts = self._submit(sources, deadline_s, client, self._limits, "whole")

        def pass_on(done: Future[list[list[EncodedSegment]]]) -> None:
            with contextlib.suppress(InvalidStateError):
                if done.cancelled():
                    whole.cancel()
                elif (error := done.exception()) is not None:
                    whole.set_exception(error)
                else:
                    whole.set_result([row[0] for row in done.result()])

        whole.add_done_callback(lambda done: parts.cancel() and None)
        parts.add_done_callback(pass_on)
        return whole

    def submit_segments(
        self, source: Source, modality: str | None, deadline_s: float, limits: Limits
    ) -> Future[list[list[EncodedSegment]]]:
        """One source -> a future with a list of one list: all timed segments of the source. Otherwise as `submit`."""
        return self._submit([(source, modality)], deadline_s, None, limits, "segments")

    def _submit(
        self,
        sources: Sequence[tuple[Source, str | None]],
        deadline_s: float,
        client: str | None,
        limits: Limits,
        plan: Plan,
    ) -> Future[list[list[EncodedSegment]]]:
        now = time.monotonic()
        client = CLIENT.get() if client is None else client
        future: Future[list[list[EncodedSegment]]] = Future()
        job = Job(client, future, now + deadline_s, limits, plan, [[] for _ in sources], len(sources))
        tasks = [Task(job, index, source, modality, now) for index, (source, modality) in enumerate(sources)]
        with self._changed:
            if self._closing:
                raise Busy(_MAX_RETRY_S, "the server is shutting down")
            own = self._taken.get(client, 0) + len(sources)
            if own > self._max_waiting_each or sum(self._taken.values()) + len(sources) > self._max_waiting:
                raise Busy(self._retry_after_s())
            if sources:
                self._taken[client] = own
        if not sources:
            future.set_result([])
        future.add_done_callback(lambda _: self._forget(job, tasks))
        for task in tasks:
            self._begin(task)
        self._decoder.pump()
        return future

    def close(self) -> None:
        """Accepts nothing more, finishes the accepted jobs and ends the threads. It can be called twice."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._taken)
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _begin(self, task: Task) -> None:
        try:
            modality = task.recognise(self._model.modalities)
            spec, config = modalities.spec(modality), self._model.config(modality)
        except MediaError as error:
            self._refuse(task, error)
        except (ValueError, KeyError) as error:  # the modality is not loaded, or unknown
            self._refuse(task, MediaError(task.source.name, str(error.args[0])))
        else:
            job = task.job
            if not (spec.isolated and task.source.is_encoded):
                with self._changed:
                    if not task.has_left:
                        self._unread[is_long(task.source)].push(job.client, job, task)
                        self._changed.notify_all()
                return
            decoding = self._decoder.submit(
                spec.read,
                task.source,
                config,
                job.limits,
                job.plan,
                client=job.client,
                request=job,
                deadline=job.deadline,
                may_start=lambda: job.future.done() or self._may_decode(),
            )
            decoding.add_done_callback(lambda done: self._decoded(task, done))

    def _may_decode(self) -> bool:
        return self._decoding < self._max_decoding

    def _read_texts(self, long: bool) -> None:
        """Tokenizes texts, in one thread for long texts and one for all others."""
        turns = self._unread[long]
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(turns) or self._stopped)
                found = turns.pop()
                if found is None:
                    return
            client, task = found
            if task.job.is_over():
                self._leave([task])
                continue
            started = time.monotonic()
            try:
                assert task.modality is not None
                spec, config = modalities.spec(task.modality), self._model.config(task.modality)
                self._prepare(task, read_here(spec.read, task.source, config, task.job.limits, task.job.plan))
            except MediaError as error:
                self._refuse(task, error)
            except BaseException as error:
                self._fail([task], error)
            with self._changed:
                turns.charge(client, time.monotonic() - started)

    def _decoded(self, task: Task, done: Future[list[Segment]]) -> None:
        if done.cancelled() or task.job.is_over():
            self._leave([task])
            return
        if task.read_as_picture(done.exception()):
            self._begin(task)
            return
        with self._changed:
            if task.has_left:
                return
            task.is_decoded = True
            self._decoding += 1
        try:
            self._prepare(task, done.result())
        except MediaError as error:
            self._refuse(task, error)
        except BaseException as error:
            self._fail([task], error)

    def _prepare(self, task: Task, segments: list[Segment]) -> None:
        assert task.modality is not None
        spec, config = modalities.spec(task.modality), self._model.config(task.modality)
        pieces: list[Piece] = []
        for place, segment in enumerate(segments):
            try:
                views = spec.prepare(segment.views, config)
            except ValueError as error:
                raise MediaError(task.source.name, str(error)) from None
            part = Part(task, place, segment, views, len(views))
            sizes = [1] * len(views) if views.is_floating_point() else (views != 0).flatten(1).sum(1).tolist()
            part.tokens = 0 if views.is_floating_point() else sum(sizes)
            pieces += [Piece(part, number, size) for number, size in enumerate(sizes)]
        with self._changed:
            if task.has_left:
                return
            task.missing = len(segments)
            task.found = [None] * len(segments)
            for piece in pieces:
                # Segments are sorted by modality, because a batch has one modality.
                self._ready.push(task.job.client, (task.job, task.modality), piece)
            self._changed.notify_all()

    def _encode(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._ready) or self._stopped)
                if not len(self._ready):
                    return
                modality, pieces = self._next_batch()
            over = {piece.part.task.job for piece in pieces if piece.part.task.job.is_over()}
            if over:
                self._leave([piece.part.task for piece in pieces if piece.part.task.job in over])
                pieces = [piece for piece in pieces if piece.part.task.job not in over]
            if not pieces:
                continue
            started = time.monotonic()
            for piece in (piece for piece in pieces if piece.place == 0):
                self._metrics.stage_seconds.labels("pre").observe(started - piece.part.task.since)
            self._metrics.batch_size.labels(modality).observe(len(pieces))
            try:
                views = torch.stack([piece.part.views[piece.place] for piece in pieces])
                rows = self._model.encode_views(modality, views).cpu()
            except BaseException as error:
                self._fail([piece.part.task for piece in pieces], error)
                continue
            seconds = time.monotonic() - started
            self._metrics.stage_seconds.labels("encode").observe(seconds)
            self._charge(modality, pieces, seconds)
            self._deliver(modality, pieces, rows)
            self._metrics.stage_seconds.labels("post").observe(time.monotonic() - started - seconds)

    def _next_batch(self) -> tuple[str, list[Piece]]:
        """The next piece in turn, and other pieces of its modality and about its length, in their turn."""
        found = self._ready.pop()
        assert found is not None
        first = found[1]
        modality = first.part.task.modality
        assert modality is not None
        # Texts are padded to the longest of a batch.
        is_text = not first.part.views.is_floating_point()
        most = _TEXTS_PER_PASS if is_text and self._model.device.type == "cpu" else self._max_batch
        cost_s = self._cost_s.get(modality, _GUESS_S)
        pieces = [first]

        def fits(_: str, piece: Piece) -> bool:
            near = piece.size <= max(2 * first.size, 16) and first.size <= max(2 * piece.size, 16)
            return piece.part.task.modality == modality and near

        self._ready.charge(found[0], first.size * cost_s)
        spent_s = first.size * cost_s
        # On a busy machine every batch takes long, and smaller batches of short texts would take longer in all.
        least = most if is_text and first.size <= _SHORT_TOKENS else _LEAST_PIECES
        while len(pieces) < min(most, self._max_batch) and (
            len(pieces) < least or spent_s + first.size * cost_s <= _PASS_S
        ):
            found = self._ready.pop(fits)
            if found is None:
                break
            pieces.append(found[1])
            self._ready.charge(found[0], found[1].size * cost_s)
            spent_s += found[1].size * cost_s
        return modality, pieces

    def _charge(self, modality: str, pieces: list[Piece], seconds: float) -> None:
        known = self._cost_s.get(modality, _GUESS_S)
        # A batch that took very long, because the machine was busy, says little about the next one.
        found = min(max(seconds / sum(piece.size for piece in pieces), known / 4), 4 * known)
        with self._changed:
            self._cost_s[modality] = 0.8 * known + 0.2 * found
            rate = len(pieces) / max(seconds, 1e-6)
            self._rate = rate if self._rate == 0 else 0.9 * self._rate + 0.1 * rate

    def _deliver(self, modality: str, pieces: list[Piece], rows: Tensor) -> None:
        done: list[Task] = []
        for piece, row in zip(pieces, rows, strict=True):
            part, task = piece.part, piece.part.task
            part.total = row if part.total is None else part.total + row
            part.missing -= 1  # only this thread changes the number
            if part.missing:
                continue
            vector = torch.nn.functional.normalize(part.total, dim=0).numpy()
            segment = part.segment
            notes, facts = (*task.notes, *segment.notes), (segment.metadata, segment.at)
            found = EncodedSegment(vector, modality, notes, part.tokens, segment.start_s, segment.end_s, *facts)
            part.views, part.total = torch.empty(0), None
            task.found[part.place] = found
            task.missing -= 1
            if task.missing == 0:
                done.append(task)
        # Room is made first, because the caller may submit more as soon as it has the answer.
        self._leave(done)
        for task in done:
            job = task.job
            job.results[task.index] = [entry for entry in task.found if entry is not None]
            job.missing -= 1
            if job.missing == 0:
                with contextlib.suppress(InvalidStateError):  # the future was cancelled
                    job.future.set_result(job.results)

    def _forget(self, job: Job, tasks: list[Task]) -> None:
        """Removes the waiting tasks of a finished job from all queues."""
        with self._changed:
            for turns in self._unread.values():
                turns.remove(job.client, job)
            for modality in {task.modality for task in tasks}:
                self._ready.remove(job.client, (job, modality))
        self._decoder.forget(job.client, job)
        self._leave(tasks)

    def _refuse(self, task: Task, error: MediaError) -> None:
        self._fail([task], ItemError(task.index, error))

    def _fail(self, tasks: list[Task], error: BaseException) -> None:
        for task in tasks:
            task.job.fail(error)
        self._leave(tasks)

    def _leave(self, tasks: Sequence[Task]) -> None:
        room = False
        with self._changed:
            for task in tasks:
                if task.has_left:
                    continue
                task.has_left = True
                room |= task.is_decoded
                self._decoding -= task.is_decoded
                left = self._taken[task.job.client] - 1
                if left:
                    self._taken[task.job.client] = left
                else:
                    del self._taken[task.job.client]
                self._changed.notify_all()
        if room:
            self._decoder.pump()

    def _retry_after_s(self) -> int:
        taken = sum(self._taken.values())
        return max(1, min(_MAX_RETRY_S, math.ceil(taken / self._rate))) if self._rate else 1
