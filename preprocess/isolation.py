"""Decoding in processes of its own, so that a decoder that hangs, crashes or eats memory takes nothing down.

A worker is `python -m preprocess.isolation`. Tasks reach it pickled (they are ours); what comes back was touched by
a decoder that may have been subverted, so it is JSON and raw array bytes only, never a pickle.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pickle
import queue
import selectors
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, BinaryIO

import numpy as np

from preprocess.media import Limits, MediaError, Plan, Segment, Source

Read = Callable[[Source, Any, Limits, Plan], list[Segment]]
"""`(source, preprocessing constants, limits, plan) -> segments`. A module-level function; raises MediaError."""

_LENGTH = struct.Struct("<Q")
_MAX_REPLY_BYTES = 8 * 2**30
_PIPE_BYTES = 2**20
"""A pipe holds 64 KiB as a rule: a picture's views would wake both sides several times."""
_NICENESS = 5
"""Of decode workers: whoever answers or encodes comes first, so that what is slow to decode slows nothing else down."""
_KEPT_BY_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**26)}
"""glibc gives large blocks back to the system at once, and new pages for the next medium cost more than decoding it."""


class DecodePool:
    """A fixed number of decode workers. Each is started when first needed and replaced when it dies.

    >>> with DecodePool(workers=2) as pool:
    ...     segments = pool.submit(read, source, config, limits, "whole").result()
    """

    def __init__(self, workers: int | None = None) -> None:
        self._tasks: queue.SimpleQueue[tuple[Future[list[Segment]], Any] | None] = queue.SimpleQueue()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"decode-{i}", daemon=True)
            for i in range(workers or available_cores())
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, read: Read, source: Source, config: Any, limits: Limits, plan: Plan) -> Future[list[Segment]]:
        """Queue one read. The future raises MediaError, also when the decoder hangs, crashes or runs out of memory."""
        if self._closed:
            raise RuntimeError("the decode pool is closed")
        future: Future[list[Segment]] = Future()
        self._tasks.put((future, (read, source, config, limits, plan)))
        return future

    def close(self) -> None:
        """Ends the workers after their current task; queued tasks are cancelled. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(queue.Empty):
            while task := self._tasks.get_nowait():
                task[0].cancel()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        if sys.platform == "linux":  # where each thread has a priority, which its workers inherit
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        worker: _Worker | None = None
        while (task := self._tasks.get()) is not None:
            future, arguments = task
            if not future.set_running_or_notify_cancel():
                continue
            source, limits = arguments[1], arguments[3]
            try:
                if worker is None or not worker.alive:
                    worker = _Worker(limits)
                future.set_result(worker.run(arguments, source, limits))
            except BaseException as error:
                future.set_exception(error)
        if worker is not None:
            worker.stop()


def available_cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


class _Worker:
    def __init__(self, limits: Limits) -> None:
        environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", PYTHONFAULTHANDLER="0")
        for name, value in _KEPT_BY_MALLOC.items():
            environment.setdefault(name, value)
        # Import what the parent imports, from where it does: a test's folder or an editable install.
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "preprocess.isolation", str(limits.worker_memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        if hasattr(fcntl, "F_SETPIPE_SZ"):  # Linux
            for pipe in (self._stdin, self._stdout):
                with contextlib.suppress(OSError):  # what one user's pipes may hold together is limited
                    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._replies = selectors.DefaultSelector()
        self._replies.register(self._stdout, selectors.EVENT_READ)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def run(self, arguments: Any, source: Source, limits: Limits) -> list[Segment]:
        name, allowance_s = source.name, source.decode_allowance_s(limits)
        deadline = time.monotonic() + allowance_s
        try:
            _write_frame(self._stdin, pickle.dumps(arguments, protocol=pickle.HIGHEST_PROTOCOL))
            header = json.loads(bytes(self._read(deadline)))
            arrays = [
                np.frombuffer(self._read(deadline), dtype=np.dtype(spec["dtype"])).reshape(spec["shape"])
                for spec in header.get("segments", [])
            ]
        except TimeoutError:
            self.stop(kill=True)
            raise MediaError(name, f"decoding took longer than {allowance_s:.3g} s (decode_timeout_s)") from None
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise MediaError(name, f"its decoder {self._cause_of_death()}") from None
        except BaseException:
            self.stop(kill=True)
            raise
        if "reason" in header:
            raise MediaError(name, str(header["reason"]))
        return [
            Segment(array, spec["start_s"], spec["end_s"], tuple(spec["notes"]))
            for array, spec in zip(arrays, header["segments"], strict=True)
        ]

    def stop(self, kill: bool = False) -> None:
        with contextlib.suppress(OSError):
            self._stdin.close()
        if kill:
            self._process.kill()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._replies.close()
        self._stdout.close()

    @property
    def _stdin(self) -> BinaryIO:
        assert self._process.stdin is not None
        return self._process.stdin  # type: ignore[return-value]

    @property
    def _stdout(self) -> BinaryIO:
        assert self._process.stdout is not None
        return self._process.stdout  # type: ignore[return-value]

    def _cause_of_death(self) -> str:
        code = self._process.wait()
        self.stop()
        if code < 0:
            return f"was ended by signal {-code} ({signal.Signals(-code).name}); the file is damaged or too large"
        return f"ended unexpectedly (exit status {code})"

    def _read(self, deadline: float) -> memoryview:
        (length,) = _LENGTH.unpack(self._read_exactly(_LENGTH.size, deadline))
        if length > _MAX_REPLY_BYTES:
            raise EOFError
        return self._read_exactly(length, deadline)

    def _read_exactly(self, count: int, deadline: float) -> memoryview:
        view = np.empty(count, np.uint8).data  # its pages are first touched by the read, which other threads overlap
        done = 0
        while done < count:
            if not self._replies.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            got = os.readv(self._stdout.fileno(), [view[done:]])
            if not got:
                raise EOFError
            done += got
        return view


def _write_frame(file: BinaryIO, payload: bytes | memoryview) -> None:
    file.write(_LENGTH.pack(len(payload)))
    file.write(payload)
    file.flush()


def read_here(read: Read, source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    """`read` in this process, every decoder error as a MediaError. For values already in memory, and in workers."""
    try:
        return read(source, config, limits, plan)
    except MediaError:
        raise
    except MemoryError:
        raise MediaError(source.name, "needs more memory than a decode worker may use") from None
    except Exception as error:
        # Decoders raise what they like for bad data (Pillow: SyntaxError, PyAV: its own, tifffile: LookupError).
        raise MediaError(source.name, f"could not be decoded: {type(error).__name__}: {error}") from error


def _work(memory_bytes: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it closes our stdin
    tasks, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a decoder that prints must not write into the replies
    while len(prefix := tasks.read(_LENGTH.size)) == _LENGTH.size:
        read, source, config, limits, plan = pickle.loads(tasks.read(_LENGTH.unpack(prefix)[0]))
        segments: list[Segment] = []
        header: dict[str, Any]
        try:
            segments = read_here(read, source, config, limits, plan)
            header = {
                "segments": [
                    {
                        "dtype": s.views.dtype.str,
                        "shape": s.views.shape,
                        "start_s": s.start_s,
                        "end_s": s.end_s,
                        "notes": s.notes,
                    }
                    for s in segments
                ]
            }
        except MediaError as error:
            header = {"reason": error.reason}
        _write_frame(replies, json.dumps(header).encode())
        for segment in segments:
            array = np.ascontiguousarray(segment.views)
            _write_frame(replies, array.reshape(-1).view(np.uint8).data)


if __name__ == "__main__":
    _work(int(sys.argv[1]))
