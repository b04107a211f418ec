"""The progress of long work: a bar on a terminal, and a line now and then in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

LINE_S = 10.0
"""The least time between two lines in a log."""


@contextlib.contextmanager
def show_progress(unit: str = "file", every_s: float = LINE_S) -> Iterator[Callable[[int, int], None]]:
    """A function of the finished and of all files (or other units), which shows them on standard error."""
    if not sys.stderr.isatty():
        yield Lines(unit, every_s)
        return
    from tqdm import tqdm

    with tqdm(unit=unit, delay=2) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


class Lines:
    """Writes `1,200 of 5,000 files, 35.2 a second, 1:48 left` to standard error, at most one line in `every_s`."""

    def __init__(self, unit: str, every_s: float = LINE_S) -> None:
        self._unit = unit
        self._every_s = every_s
        self._began = self._told = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Says how far the work is, where the last line is old enough."""
        now = time.monotonic()
        if now - self._told < self._every_s:
            return
        self._told = now
        rate = done / (now - self._began)
        left = f", {duration((total - done) / rate)} left" if rate and total > done else ""
        print(f"{done:,} of {total:,} {self._unit}s, {rate:.1f} a second{left}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds -> `1:48` or `2:03:10`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def say(message: str) -> None:
    """Says before long work what it is; a pipe's result stays as it is, because this goes to standard error."""
    print(f"crossbind: {message}", file=sys.stderr, flush=True)
