"""Decoding of trusted bytes: many sources at once, by threads of this process, where a GPU's decoder wants batches."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from preprocess.decoding.pool import DecodePool
from preprocess.decoding.protocol import Read
from preprocess.source import Limits, Plan, Segment, Source

ReadMany = Callable[[Sequence[Source], Any, Limits, torch.device], list[list[Segment] | None]]
"""`(sources, preprocessing constants, limits, device) -> segments of each`, for either plan; None: not read so."""

BATCH = 256
"""Pictures that nvJPEG decodes at once at most, which bounds the GPU memory of a batch."""
_LINGER_S = 0.002
"""A batch is closed when nothing more came for so long."""


@dataclass(frozen=True)
class _Task:
    future: Future[list[Segment]]
    read: Read
    source: Source
    config: Any
    limits: Limits
    plan: Plan
    isolated: DecodePool


class TrustedPool:
    """Threads that call `read_many` on what was submitted; what that leaves out goes to isolated workers, one by one.

    Two threads: one reads files and headers while the other's batch is decoded. They end with the process.
    """

    def __init__(self, read_many: ReadMany, device: torch.device, threads: int = 2) -> None:
        self._read_many = read_many
        self._device = device
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._gathering = threading.Lock()
        for number in range(threads):
            threading.Thread(target=self._serve, name=f"trusted-{number}", daemon=True).start()

    def submit(
        self, read: Read, source: Source, config: Any, limits: Limits, plan: Plan, isolated: DecodePool
    ) -> Future[list[Segment]]:
        """As `DecodePool.submit`; `isolated` takes what cannot be read in a batch."""
        task = _Task(Future(), read, source, config, limits, plan, isolated)
        self._tasks.put(task)
        return task.future

    def _serve(self) -> None:
        with contextlib.ExitStack() as stack:
            if self._device.type == "cuda":
                # Ahead of the encoder's kernels: those wait for these few, and not the other way round.
                stack.enter_context(torch.cuda.device(self._device))
                stack.enter_context(torch.cuda.stream(torch.cuda.Stream(self._device, priority=-1)))
            while True:
                tasks = self._gather()
                while tasks:  # as a rule all are alike
                    config, limits = tasks[0].config, tasks[0].limits
                    self._read([task for task in tasks if (task.config, task.limits) == (config, limits)])
                    tasks = [task for task in tasks if (task.config, task.limits) != (config, limits)]

    def _gather(self) -> list[_Task]:
        with self._gathering:
            tasks = [self._tasks.get()]
            with contextlib.suppress(queue.Empty):
                while len(tasks) < BATCH:
                    tasks.append(self._tasks.get(timeout=_LINGER_S))
        return [task for task in tasks if task.future.set_running_or_notify_cancel()]

    def _read(self, tasks: list[_Task]) -> None:
        sources = [task.source for task in tasks]
        try:
            found = self._read_many(sources, tasks[0].config, tasks[0].limits, self._device)
        except BaseException as error:
            for task in tasks:
                task.future.set_exception(error)
            return
        for task, segments in zip(tasks, found, strict=True):
            if segments is not None:
                task.future.set_result(segments)
                continue
            try:
                isolated = task.isolated.submit(task.read, task.source, task.config, task.limits, task.plan)
            except RuntimeError as error:  # the pool was closed
                task.future.set_exception(error)
            else:
                isolated.add_done_callback(partial(_forward, task.future))


def _forward(future: Future[list[Segment]], done: Future[list[Segment]]) -> None:
    if done.cancelled():
        future.set_exception(RuntimeError("the decode pool was closed"))
    elif error := done.exception():
        future.set_exception(error)
    else:
        future.set_result(done.result())
