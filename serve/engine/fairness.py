"""Turns between clients, by what each has cost so far, and between the requests of one client.

The cost of a request, in seconds, is known afterwards. The client that has cost least is served next. So a client that
sends many requests, or slow media, waits for itself and not for others. Work that nobody waits for any more is stopped,
see `Stop`.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, TypeVar

CLIENT: ContextVar[str] = ContextVar("client", default="")
"""The client whose request is being answered: its address, or '' for this process itself."""

T = TypeVar("T")
_REMEMBERED = 4096
"""Clients whose cost is remembered, so that many addresses do not fill the memory."""


class StoppedError(Exception):
    """The work was stopped, because nobody waits for it any more or because its time was up."""


class Stop:
    """The end of some work: at a deadline, or as soon as `set` is called."""

    def __init__(self) -> None:
        self._clock: Callable[[], float] = time.monotonic
        self._deadline = float("inf")
        self._set = False

    def begin(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Sets the deadline to `seconds` from now, on a clock such as `time.thread_time`, which counts
        processor time.
        """
        self._clock = clock
        self._deadline = clock() + seconds

    def set(self) -> None:
        """Ends the work now."""
        self._set = True

    @property
    def is_over(self) -> bool:
        """Whether the work should have ended."""
        return self._set or self._clock() > self._deadline


_STOP: ContextVar[Stop | None] = ContextVar("stop", default=None)
"""Whether the request that is being answered has been given up, for the code that works for it."""


@contextmanager
def stopping() -> Iterator[Stop]:
    """A context whose work, also in copies of the context, ends when the yielded `Stop` says so, or with the block."""
    stop = Stop()
    token = _STOP.set(stop)
    try:
        yield stop
    finally:
        stop.set()
        _STOP.reset(token)


def is_over() -> bool:
    """Whether the work of this context should have ended."""
    stop = _STOP.get()
    return stop is not None and stop.is_over


class Turns(Generic[T]):
    """A queue of items with a row for each request of each client. Callers hold a lock of their own around every call.

    >>> turns = Turns()
    >>> for number in (1, 2, 3): turns.push("a", "request", number)
    >>> turns.push("b", "another", 4)
    >>> turns.pop(), turns.charge("a", 1.0), turns.pop()
    (('a', 1), None, ('b', 4))
    """

    def __init__(self) -> None:
        self._rows: dict[str, OrderedDict[Hashable, deque[T]]] = {}
        self._spent: OrderedDict[str, float] = OrderedDict()
        self._floor = 0.0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def count_of(self, client: str) -> int:
        """The number of waiting items of a client."""
        return sum(map(len, self._rows.get(client, {}).values()))

    def push(self, client: str, request: Hashable, item: T) -> None:
        """Appends an item to the row of a request."""
        if client not in self._rows:
            self._rows[client] = OrderedDict()
            # A client earns no credit for time in which it asked for nothing.
            self._spent[client] = max(self._spent.get(client, 0.0), self._floor)
            self._spent.move_to_end(client)
        self._rows[client].setdefault(request, deque()).append(item)
        self._count += 1

    def pop(self, fits: Callable[[str, T], bool] | None = None) -> tuple[str, T] | None:
        """The client with the least cost that has an item for which `fits(client, item)` is true, and that item.

        The requests of a client take turns, and only the first item of each is considered. None where no item fits.
        """
        for client in sorted(self._rows, key=self._spent.__getitem__):
            rows = self._rows[client]
            for request, row in rows.items():
                if fits is None or fits(client, row[0]):
                    self._floor = max(self._floor, min(self._spent[name] for name in self._rows))
                    item = row.popleft()
                    rows.move_to_end(request)
                    if not row:
                        self._drop(client, request)
                    self._count -= 1
                    return client, item
        return None

    def remove(self, client: str, request: Hashable) -> list[T]:
        """Removes the waiting items of a request -> these items."""
        if client not in self._rows or request not in self._rows[client]:
            return []
        row = self._rows[client][request]
        self._drop(client, request)
        self._count -= len(row)
        return list(row)

    def charge(self, client: str, seconds: float) -> None:
        """Adds seconds to the cost of a client."""
        self._spent[client] = self._spent.get(client, self._floor) + seconds
        self._spent.move_to_end(client)
        while len(self._spent) > _REMEMBERED:
            oldest = next((name for name in self._spent if name not in self._rows), None)
            if oldest is None:
                break
            del self._spent[oldest]

    def _drop(self, client: str, request: Hashable) -> None:
        del self._rows[client][request]
        if not self._rows[client]:
            del self._rows[client]
