"""Real indexing processes that are killed at chosen moments. Run by `test_crash.py`.

A moment is a step of SQLite's machine inside a statement, or a file that is opened, made, renamed or removed: it is
counted in a run that goes through, so any of them can be chosen. Each run is a fork of this process, which has imported
everything once and started no thread.

    python -m tests.serve.crash_child MEDIA FOLDER SEED MOMENTS

makes `FOLDER/whole` without interruption and `FOLDER/0` ... with one `kill -9` each, then a run to the end.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from serve.library import catalogue, indexing
from serve.library.library import Library
from tests.serve import tiny

STEPS = 50
"""Steps of SQLite's machine between two moments."""
_EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "sqlite3.connect"}


class Moments:
    """Counts moments, and kills this process at one of them."""

    def __init__(self, deadly: int | None) -> None:
        self.count = 0
        self.deadly = deadly

    def pass_one(self) -> int:
        """One more moment. 0, which lets SQLite go on."""
        self.count += 1
        if self.count == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def watch(self) -> None:
        """From now on."""
        connect = catalogue.connect

        def watched(file: Path) -> sqlite3.Connection:
            connection = connect(file)
            connection.set_progress_handler(self.pass_one, STEPS)
            return connection

        catalogue.connect = watched
        sys.addaudithook(lambda event, _: self.pass_one() and None if event in _EVENTS else None)


def index(media: Path, folder: Path, moments: Moments) -> None:
    """Opens the library and indexes, in this process."""
    torch.set_num_threads(1)
    indexing.COMMIT_FILES = 8
    model = tiny.model()
    moments.watch()
    Library.open(folder, model).index(media)


def in_fork(job: Callable[[Path, Moments], None], folder: Path, deadly: int | None = None) -> tuple[int, int]:
    """Does a job in a process of its own -> (its wait status, the moments it counted, 0 where it was killed)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            moments = Moments(deadly)
            job(folder, moments)
            os.write(writing, str(moments.count).encode())
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as file:
        return status, int(file.read() or 0)


def main(media: Path, folder: Path, seed: int, moments: int) -> None:
    """Does all of it. Prints a line a killed run."""
    job = partial(index, media)
    status, total = in_fork(job, folder / "whole")
    assert status == 0, status
    rng = random.Random(seed)
    # Stratified: each part of the run, the saving of the index at its end too, has its turn.
    for number in range(moments):
        deadly = rng.randrange(total * number // moments, total * (number + 1) // moments) + 1
        started = time.monotonic()
        killed, _ = in_fork(job, folder / str(number), deadly)
        status, _ = in_fork(job, folder / str(number))
        assert status == 0, status
        print(number, deadly, total, os.WTERMSIG(killed), f"{time.monotonic() - started:.1f}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
