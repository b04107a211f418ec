"""Threads in which clients take turns, and a bound on the time of their work."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from serve.engine import fairness
from serve.engine.fairness import CLIENT, Turns
from serve.engine.jobs import Busy

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(eq=False)
class _Call:
    """A call that waits for a thread, with the context of its caller."""

    future: Future[Any]
    work: Callable[[], Any]
    context: contextvars.Context


class Threads:
    """A few threads in which clients take turns (see `serve.engine.fairness`), with bounds on the number of waiting
    calls.

    A client has at most `share` of the places to wait, and at most `each` calls that run at once.
    """

    def __init__(
        self, name: str, count: int, most: int, share: float, *, each: int | None = None, is_background: bool = False
    ) -> None:
        self._pool = ThreadPoolExecutor(count, name, give_way if is_background else None)
        self._count = count
        self._most = most
        self._most_each = max(1, int(share * most))
        self._each = each or max(1, count - 1)
        self._lock = threading.Lock()
        self._waiting: Turns[_Call] = Turns()
        self._running: Counter[str] = Counter()

    async def run(self, work: Callable[[], T]) -> T:
        """Runs a call in one of the threads -> its result. Raises Busy when too many calls are waiting."""
        call = _Call(Future(), work, contextvars.copy_context())
        client = CLIENT.get()
        with self._lock:
            if len(self._waiting) >= self._most or self._waiting.count_of(client) >= self._most_each:
                raise Busy(1)
            self._waiting.push(client, call, call)
        call.future.add_done_callback(lambda _: self._forget(client, call))
        self._start()
        result: T = await asyncio.wrap_future(call.future)
        return result

    def close(self) -> None:
        """Finishes the accepted calls and ends the threads. It can be called twice."""
        with self._lock:
            self._most = 0
        while True:
            with self._lock:
                if not len(self._waiting) and not self._running.total():
                    break
            time.sleep(0.01)
        self._pool.shutdown()

    def _start(self) -> None:
        with self._lock:
            while self._running.total() < self._count:
                found = self._waiting.pop(lambda client, _: self._running[client] < self._each)
                if found is None:
                    return
                self._running[found[0]] += 1
                self._pool.submit(self._do, *found)

    def _do(self, client: str, call: _Call) -> None:
        started = time.monotonic()
        if not call.future.done():
            try:
                result = call.context.run(call.work)
            except BaseException as error:
                with contextlib.suppress(InvalidStateError):
                    call.future.set_exception(error)
            else:
                with contextlib.suppress(InvalidStateError):
                    call.future.set_result(result)
        with self._lock:
            self._waiting.charge(client, time.monotonic() - started)
            self._running[client] -= 1
            self._running += Counter()  # this drops counts of 0
        self._start()

    def _forget(self, client: str, call: _Call) -> None:
        with self._lock:
            self._waiting.remove(client, call)


def give_way() -> None:
    """Gives this thread a lower priority than others, where the system has priorities for threads."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


async def stopped_after(
    seconds: float,
    run: Callable[[Callable[[], T]], Awaitable[T]],
    work: Callable[[], T],
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Runs `run(work)` -> its result.

    Raises StoppedError after `seconds` of work; the work ends too if nobody waits.
    """

    def limited() -> T:
        # The time in which the call waited for its turn does not count.
        stop.begin(seconds, clock)
        return work()

    with fairness.stopping() as stop:
        return await run(limited)
