"""Decode workers: whatever a decoder does, the caller gets segments or a MediaError and goes on."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from preprocess.decoding.pool import DecodePool
from preprocess.media import Limits, MediaError, Plan, Segment, Source

LIMITS = Limits(decode_timeout_s=30)


def echo(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    first = np.frombuffer(source.content, np.uint8)[None]
    return [Segment(first, 0.5, 1.5, ("noted",)), Segment(np.zeros((0, 2, 3), np.float32))]


def hang(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    while True:
        time.sleep(60)


def crash(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    ctypes.string_at(0)
    raise AssertionError


def leave(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    os._exit(3)


def eat(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    return [Segment(np.ones((1, 10**10), np.float64))]


def chatter(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    os.write(1, b"a decoder that prints on standard output")
    print("more", file=sys.stdout, flush=True)
    return echo(source, config, limits, plan)


def odd(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    raise AttributeError("of its own kind")


def broken(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    raise SyntaxError("not a PNG file")


SOURCE = Source(b"abc", "x.bin")


def submit(pool: DecodePool, read: Any, limits: Limits = LIMITS) -> Future[list[Segment]]:
    return pool.submit(read, SOURCE, None, limits, "whole")


def test_segments_come_back_whole() -> None:
    with DecodePool(workers=1) as pool:
        first, second = submit(pool, echo).result()
        assert first.views.tolist() == [[97, 98, 99]]
        assert (first.start_s, first.end_s, first.notes) == (0.5, 1.5, ("noted",))
        assert second.views.shape == (0, 2, 3)
        assert second.views.dtype == np.float32


@pytest.mark.parametrize(
    ("read", "limits", "reason"),
    [
        (hang, Limits(decode_timeout_s=0.5), "longer than 0.5 s"),
        (crash, LIMITS, "signal 11"),
        (leave, LIMITS, "exit status 3"),
        (eat, LIMITS, "more memory"),
        (broken, LIMITS, "could not be decoded: SyntaxError: not a PNG file"),
        (odd, LIMITS, "could not be decoded: AttributeError: of its own kind"),
    ],
)
def test_a_bad_decoder_is_a_media_error_and_the_next_task_works(read: Any, limits: Limits, reason: str) -> None:
    with DecodePool(workers=1) as pool:
        tasks = [submit(pool, read, limits), submit(pool, echo), submit(pool, read, limits), submit(pool, chatter)]
        for task in (tasks[0], tasks[2]):
            with pytest.raises(MediaError, match=reason) as caught:
                task.result()
            assert caught.value.path == "x.bin"
        assert tasks[1].result()[0].views.size == tasks[3].result()[0].views.size == 3


def test_a_killed_worker_is_replaced() -> None:
    with DecodePool(workers=1) as pool:
        submit(pool, echo).result()
        (thread,) = pool._threads
        assert thread.is_alive()
        children = os.popen(f"pgrep -P {os.getpid()} -f preprocess.decoding.worker").read().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        results = []
        for _ in range(2):  # the first may still meet the dead one
            try:
                results.append(submit(pool, echo).result())
            except MediaError as error:
                results.append(error.reason)
        assert (
            results[0] == "its decoder was ended by signal 9 (SIGKILL); the file is damaged or too large" or results[0]
        )
        assert isinstance(results[1], list)


def test_closed_pool_refuses() -> None:
    pool = DecodePool(workers=1)
    pool.close()
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        submit(pool, echo)
