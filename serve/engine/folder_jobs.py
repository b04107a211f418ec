"""Indexing in the background of a server: folders of this machine, and what was skipped before, one after the other."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from serve.engine.fairness import StoppedError
from serve.engine.threads import give_way
from serve.library.errors import LibraryError, WriterBusyError
from serve.library.library import Library
from serve.library.reports import IndexReport

MAX_WAITING = 32
"""The largest number of folders that wait for their turn."""
_RETRY_S = 2.0
"""Seconds before a folder is tried again while another process writes to the library."""
_TRIES = 30
"""How often it is tried, a minute in all."""
_PATIENCE_S = 30.0
"""Seconds that closing waits for a folder that is being indexed."""


class FolderRefusedError(ValueError):
    """The settings of the server do not allow a folder."""


@dataclass(frozen=True)
class IndexState:
    """What is being indexed: `path` is a folder, None for what was skipped before. `state` is idle, waiting (for
    another process that writes), running, done or failed.

    `rate` is in files a second, `left_s` the time that is left at that rate, None where nobody knows. `report` is that
    of the last run that ended, `error` why the last one failed. `number` grows with every change.
    """

    number: int = 0
    state: str = "idle"
    path: str | None = None
    done: int = 0
    total: int = 0
    rate: float = 0.0
    left_s: float | None = None
    waiting: int = 0
    report: dict[str, Any] | None = None
    error: str | None = None

    @property
    def is_busy(self) -> bool:
        """Whether something is being indexed or waits for that."""
        return self.state in ("waiting", "running") or self.waiting > 0


@dataclass
class _Job:
    path: str | None
    work: Callable[..., IndexReport] = field(repr=False)


class FolderJobs:
    """Indexes folders with a library in one thread. `roots` are the folders in which folders may be added.

    While a folder is indexed, nothing else can be written to the library; searching goes on.
    """

    def __init__(self, library: Library, roots: tuple[str, ...]) -> None:
        self._library = library
        self._roots = [Path(os.path.realpath(os.path.expanduser(root))) for root in roots]
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._jobs: deque[_Job] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._state = IndexState()

    @property
    def roots(self) -> list[str]:
        """The folders in which folders may be added."""
        return [str(root) for root in self._roots]

    @property
    def state(self) -> IndexState:
        """What is being indexed at the moment."""
        return self._state

    def add(self, path: str) -> str:
        """Lets a folder be indexed -> its real path. Raises FolderRefusedError; ValueError for what is no folder."""
        place = Path(os.path.realpath(os.path.expanduser(path)))
        if "\0" in path or not any(place.is_relative_to(root) for root in self._roots):
            raise FolderRefusedError("this server does not add that folder (--allow-folders names those that it does)")
        if not place.is_dir():
            raise ValueError(f"there is no folder {path}")
        self._put(_Job(str(place), lambda **named: self._library.index(place, **named)))
        return str(place)

    def retry(self) -> None:
        """Lets everything be tried again that was skipped. Raises ValueError where too much is waiting."""
        self._put(_Job(None, self._library.retry_skipped))

    def close(self) -> None:
        """Ends the run that is going on after the file that is being stored; the next one goes on where it was."""
        with self._lock:
            self._closed = True
            self._jobs.clear()
            self._wake.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(_PATIENCE_S)

    def _put(self, job: _Job) -> None:
        with self._lock:
            if self._closed or len(self._jobs) >= MAX_WAITING:
                raise ValueError(f"{MAX_WAITING} folders are waiting already")
            if all(other.path != job.path for other in self._jobs):
                self._jobs.append(job)
            self._state = replace(self._state, number=self._state.number + 1, waiting=len(self._jobs))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="index", daemon=True)
                self._thread.start()
            self._wake.notify_all()

    def _run(self) -> None:
        give_way()
        while True:
            with self._lock:
                while not self._jobs and not self._closed:
                    self._wake.wait()
                if self._closed:
                    return
                job = self._jobs.popleft()
            self._change(state="running", path=job.path, done=0, total=0, rate=0.0, left_s=None, error=None)
            try:
                report = self._do(job)
            except StoppedError:
                return
            except (LibraryError, ValueError, OSError) as error:
                self._change(state="failed", error=str(error))
            else:
                self._change(state="done", left_s=None, report=asdict(report))

    def _do(self, job: _Job) -> IndexReport:
        """One run. Another process that writes is waited for, a minute at most."""
        began = time.monotonic()

        def progress(done: int, total: int) -> None:
            if self._closed:
                raise StoppedError
            rate = done / max(time.monotonic() - began, 1e-3)
            left_s = (total - done) / rate if rate else None
            self._change(state="running", done=done, total=total, rate=rate, left_s=left_s)

        for left in reversed(range(_TRIES)):
            with contextlib.suppress(WriterBusyError) if left else contextlib.nullcontext():
                return job.work(progress=progress)
            self._change(state="waiting")
            with self._lock:
                self._wake.wait_for(lambda: self._closed, _RETRY_S)
            if self._closed:
                raise StoppedError
        raise AssertionError("the last try raises")

    def _change(self, **values: Any) -> None:
        with self._lock:
            number = self._state.number + 1
            self._state = replace(self._state, **{"number": number, "waiting": len(self._jobs), **values})
