"""Decoding for many callers: clients take turns, and slow media wait in a queue apart from the quick ones.

Every medium first gets `QUICK_S` seconds. A medium that takes longer starts again in the queue of slow media. At least
one worker never takes slow media (where there are several workers), and each client has one slow medium at a time.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, replace
from typing import Any

from preprocess.decoding.cores import available_cores
from preprocess.decoding.pool import DecodePool
from preprocess.decoding.protocol import Read
from preprocess.source import Limits, MediaError, Plan, Segment, Source
from serve.engine.fairness import CLIENT, Turns

QUICK_S = 2.0
"""Seconds that every medium gets at first. Most media take less, and one that takes more must not hold those up."""
_GUESS_S = 0.05
"""The assumed cost of a decode in seconds, until its real cost is known."""
_LATE_S = 1.0
"""Seconds that a decode may go on behind the deadline of its request, so that the reason arrives and not a timeout."""


@dataclass(eq=False)
class _QueuedRead:
    future: Future[list[Segment]]
    read: Read
    source: Source
    config: Any
    limits: Limits
    plan: Plan
    deadline: float
    may_start: Callable[[], bool]
    is_slow: bool = False


class Decoder:
    """Passes media to a pool of decode workers, as many as it has workers. The caller keeps and closes the pool."""

    def __init__(self, pool: DecodePool, workers: int | None = None) -> None:
        self._pool = pool
        self._workers = workers or available_cores()
        self._lock = threading.Lock()
        self._waiting: Turns[_QueuedRead] = Turns()
        self._running = 0
        self._slow: Counter[str] = Counter()

    def submit(
        self,
        read: Read,
        source: Source,
        config: Any,
        limits: Limits,
        plan: Plan,
        *,
        client: str | None = None,
        request: Hashable = None,
        deadline: float = float("inf"),
        may_start: Callable[[], bool] = lambda: True,
    ) -> Future[list[Segment]]:
        """Queues one read, as `DecodePool.submit` does it, for a client (default: that of this context) and one of its
        requests.

        The read does not start while `may_start()` is false (`pump` asks again), and it ends at the deadline (a time of
        `time.monotonic`). Cancelling the future removes it from the queue.
        """
        client = CLIENT.get() if client is None else client
        future: Future[list[Segment]] = Future()
        queued = _QueuedRead(future, read, source, config, limits, plan, deadline, may_start)
        row = future if request is None else request
        with self._lock:
            self._waiting.push(client, row, queued)
        self.pump()
        return future

    def forget(self, client: str, request: Hashable) -> None:
        """Cancels the waiting reads of a request and removes them."""
        with self._lock:
            removed = self._waiting.remove(client, request)
        for queued in removed:
            queued.future.cancel()

    def pump(self) -> None:
        """Starts as many waiting reads as there are free workers."""
        while True:
            with self._lock:
                if self._running >= self._workers:
                    return
                found = self._waiting.pop(self._fits)
                if found is None:
                    return
                client, queued = found
                if queued.future.cancelled():
                    continue
                self._running += 1
                self._slow[client] += queued.is_slow
                self._waiting.charge(client, _GUESS_S)
            self._start(client, queued)

    def _fits(self, client: str, queued: _QueuedRead) -> bool:
        if queued.future.cancelled():
            return True  # such a read is started, and dropped at once
        if not queued.is_slow:
            return queued.may_start()
        return self._slow[client] == 0 and self._slow.total() < max(1, self._workers - 1)

    def _start(self, client: str, queued: _QueuedRead) -> None:
        now = time.monotonic()
        most_s = min(queued.limits.decode_timeout_s, max(0.1, queued.deadline - now + _LATE_S))
        limits = replace(queued.limits, decode_timeout_s=most_s if queued.is_slow else min(most_s, QUICK_S))
        try:
            running = self._pool.submit(queued.read, queued.source, queued.config, limits, queued.plan)
        except BaseException as error:
            running = Future()
            running.set_exception(error)

        def done(finished: Future[list[Segment]]) -> None:
            seconds = time.monotonic() - now
            with self._lock:
                self._running -= 1
                self._slow[client] -= queued.is_slow
                self._slow += Counter()  # this drops counts of 0
                self._waiting.charge(client, seconds - _GUESS_S)
                # A read that had little time gets more, in the other queue.
                late = seconds >= queued.source.decode_allowance_s(limits) and limits.decode_timeout_s < most_s
                again = late and not queued.future.cancelled() and _is_refused(finished)
                if again:
                    queued.is_slow = True
                    self._waiting.push(client, ("slow", queued.future), queued)
            if not again:
                _pass_on(finished, queued.future)
            self.pump()

        running.add_done_callback(done)


def _is_refused(finished: Future[list[Segment]]) -> bool:
    return not finished.cancelled() and isinstance(finished.exception(), MediaError)


def _pass_on(finished: Future[list[Segment]], wanted: Future[list[Segment]]) -> None:
    if finished.cancelled():
        wanted.cancel()
        return
    with contextlib.suppress(InvalidStateError):  # the future was cancelled in the meantime
        error = finished.exception()
        if error is None:
            wanted.set_result(finished.result())
        else:
            wanted.set_exception(error)
