"""Decoding in processes of its own, so that a decoder that hangs, crashes or eats memory takes nothing down.

A worker is `python -P -m preprocess.decoding.worker`, started with an environment of its own and in the root folder:
the folder that is being indexed is on none of its paths. What it may do after that, `preprocess.decoding.sandbox` says.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import pickle
import queue
import selectors
import signal
import site
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.decoding import sandbox
from preprocess.decoding.cores import available_cores
from preprocess.decoding.protocol import (
    LENGTH,
    MAX_HEADER_BYTES,
    MalformedReplyError,
    Read,
    Refusal,
    announced,
    most,
    with_parts,
)
from preprocess.decoding.sandbox import Guard
from preprocess.extras import OWN_PACKAGES
from preprocess.source import Limits, MediaError, Opened, Plan, Segment, Source

_PIPE_BYTES = 2**20
"""A pipe holds 64 KiB as a rule: a picture's views would wake both sides several times."""
_NICENESS = 5
"""Of decode workers: whoever answers or encodes comes first, so that what is slow to decode slows nothing else down."""
_START_S = 120.0
"""A worker imports numpy, from a cold disk and beside others."""
_CORES_OF_A_FILM = 4
"""Its decoder uses several threads, and each of them counts as CPU time."""
_KEPT_BY_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**26)}
"""glibc gives large blocks back to the system at once, and new pages for the next medium cost more than decoding it."""
_PASSED_ON = (
    *("LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_NUMERIC", "TZ", "TMPDIR", "HOME"),
    *("PYTHONHOME", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PYTHONUTF8", "PYTHONPLATLIBDIR"),
    *_KEPT_BY_MALLOC,
)
"""Environment variables that a worker gets: language, time zone, temporary folder and Python's own. Keys and tokens
stay out."""
_PATHS_PASSED_ON = ("PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""Variables with lists of folders; a worker gets their entries as absolute paths, because its current folder is another
one."""
_ROOT = Path(__file__).resolve().parents[2]
"""The folder of the packages, from which a worker imports them where they are not installed."""


class DecodePool:
    """A fixed number of decode workers. Each is started when first needed and replaced when it dies.

    The first pool of a process takes its memory from other processes of its user, see `sandbox.hide_memory`.

    Args:
        workers: The number of processes; by default one for each processor core that this process may use.
        readable: Files and folders that workers may read besides the medium, such as the model of a reader.

    Raises:
        MediaError: From the future of `submit`: the medium is not read, or its decoder hung, crashed or ran out of
            memory.
        RuntimeError: From `submit`: the pool is closed.

    Example:
        >>> with DecodePool(workers=1) as pool:
        ...     segments = pool.submit(read, source, config, limits, "whole").result()
        >>> segments[0].views.shape
        (1, 224, 224, 3)
    """

    def __init__(self, workers: int | None = None, readable: Sequence[str] = ()) -> None:
        self._readable = tuple(map(os.path.abspath, readable))
        self._tasks: queue.SimpleQueue[tuple[Future[list[Segment]], Any] | None] = queue.SimpleQueue()
        self._closed = False
        _hide_memory()
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
            try:
                worker = _ready(worker, arguments[0], arguments[1], self._readable)
                future.set_result(worker.run(*arguments))
            except BaseException as error:
                future.set_exception(error)
        if worker is not None:
            worker.end()


def guards() -> list[Guard]:
    """The guards of a decode worker on this machine, as a worker that is started for this reports them.

    Raises MediaError where no worker starts.
    """
    hidden = _hide_memory()
    worker = _Worker((), "a worker")
    worker.end()
    return [
        Guard("own session", True, "children of a decoder would be killed with it; there is no terminal"),
        Guard("environment", True, "a short list of variables: no keys, no tokens; no folder but Python's on the path"),
        Guard("memory of this process", hidden, "hidden from workers" if hidden else f"not on {sys.platform}"),
        *worker.guards,
    ]


@cache
def _hide_memory() -> bool:
    return sandbox.hide_memory()


def _ready(worker: _Worker | None, read: Read, source: Source, readable: tuple[str, ...]) -> _Worker:
    """The worker, or a new one where it died or cannot import the reader from within its sandbox."""
    foreign = _foreign(read)
    if worker is not None and worker.alive and foreign <= worker.modules:
        return worker
    modules = set(foreign)
    if worker is not None:
        modules |= worker.modules
        worker.end()
    return _Worker(tuple(sorted(modules)), source.name, readable)


def _foreign(read: Read) -> set[str]:
    """The reader's module, where it belongs to nobody whose files a worker may read."""
    name = getattr(read, "__module__", None) or ""
    return set() if name.partition(".")[0] in OWN_PACKAGES else {name}


class _Worker:
    """One process. It is killed, with whatever it has started, as soon as it does what no worker does."""

    def __init__(self, modules: tuple[str, ...], name: str, readable: tuple[str, ...] = ()) -> None:
        self.modules = frozenset(modules)
        settings = {"parent": os.getpid(), "readable": [*_modality_folders(), *readable], "modules": modules}
        self._tasks, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "preprocess.decoding.worker", json.dumps(settings)],
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(),
                cwd="/",
                start_new_session=True,
            )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._stdout, self._stderr = self._process.stdout, self._process.stderr
        if hasattr(fcntl, "F_SETPIPE_SZ"):  # Linux
            with contextlib.suppress(OSError):  # what one user's pipes may hold together is limited
                fcntl.fcntl(self._stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._replies = selectors.DefaultSelector()
        self._replies.register(self._stdout, selectors.EVENT_READ)
        self.guards: list[Guard] = []
        try:
            hello = json.loads(bytes(self._read(time.monotonic() + _START_S, MAX_HEADER_BYTES)))
            self.guards = [Guard(*guard) for guard in hello]
        except (EOFError, TimeoutError) as error:
            self._kill()
            words = self._stderr.read().decode(errors="replace").strip().splitlines()
            why = words[-1] if words else "it took too long" if isinstance(error, TimeoutError) else "it said nothing"
            self.end()
            raise MediaError(name, f"no decode worker could be started ({why}); `crossbind doctor` says more") from None
        self._stderr.close()  # it has nothing more to say
        self._own_bytes = _mapped_bytes(self._process.pid)

    @property
    def alive(self) -> bool:
        if self._process.returncode is not None:
            return False
        if not hasattr(os, "waitid"):  # macOS
            return self._process.poll() is None
        # Left as it is until its group has been killed: till then no other process can get its number.
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def run(self, read: Read, source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
        """One task. Raises MediaError, also for whatever the worker does that it should not."""
        name, allowance_s = source.name, source.decode_allowance_s(limits)
        with contextlib.ExitStack() as stack:
            descriptors = []
            if isinstance(source.content, Path):
                source = with_parts(read, source)
                descriptors = [stack.enter_context(one.open(limits)).fileno() for one in (source, *source.parts)]
                source = replace(source, content=Opened(-1), parts=tuple(_without_path(part) for part in source.parts))
            task = pickle.dumps((read, source, config, limits, plan), protocol=pickle.HIGHEST_PROTOCOL)
            allowed = most(read, config, limits, plan)
            deadline = time.monotonic() + allowance_s
            try:
                cpu_s = limits.decode_cpu_s + allowance_s - limits.decode_timeout_s
                self._limit(limits, _CORES_OF_A_FILM * allowance_s if allowed and allowed.is_film else cpu_s)
                self._send(task, descriptors, deadline)
                header = self._read(deadline, MAX_HEADER_BYTES)
                found = announced(header, allowed, limits.worker_memory_bytes)
                if isinstance(found, Refusal):
                    raise found.of(name)
                return [
                    Segment(
                        self._array(entry.count, entry.dtype, entry.shape, deadline),
                        entry.start_s,
                        entry.end_s,
                        entry.notes,
                        entry.metadata,
                        entry.at,
                    )
                    for entry in found
                ]
            except MediaError:
                raise
            except TimeoutError:
                self.end()
                raise MediaError(name, f"decoding took longer than {allowance_s:.3g} s (decode_timeout_s)") from None
            except MalformedReplyError as error:
                self.end()
                raise MediaError(name, f"its decoder sent back what no reader returns: {error}") from None
            except (EOFError, BrokenPipeError, ConnectionResetError):
                raise MediaError(name, f"its decoder {self._cause_of_death()}") from None
            except BaseException:
                self.end()
                raise

    def end(self) -> None:
        """Kills the worker and what it may have started. It holds nothing that could be lost. Safe to call twice."""
        self._kill()
        self._process.wait()
        self._tasks.close()
        self._replies.close()
        self._stdout.close()
        self._stderr.close()

    def _kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: a group of zombies
                os.killpg(self._process.pid, signal.SIGKILL)

    def _limit(self, limits: Limits, cpu_s: float) -> None:
        """Memory and CPU time of the next task, set from outside: the worker can neither raise nor forget them.

        What the worker had mapped before its first task (Python, and the libraries that a reader of somebody else's
        imports, PyTorch perhaps) does not count.
        """
        import resource

        if not hasattr(resource, "prlimit"):  # macOS, which keeps no limit of memory either
            return
        used_s = 0.0
        with contextlib.suppress(OSError):
            used_s = time.clock_gettime((~self._process.pid << 3) | 2)  # clock_getcpuclockid(3)
        seconds = math.ceil(used_s + cpu_s)
        memory = self._own_bytes + limits.worker_memory_bytes
        for which, most_of_it in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, seconds)):
            with contextlib.suppress(OSError):  # it has just died: the next call says so
                hard = resource.prlimit(self._process.pid, which)[1]
                soft = most_of_it if hard == resource.RLIM_INFINITY else min(most_of_it, hard)
                resource.prlimit(self._process.pid, which, (soft, hard))

    def _cause_of_death(self) -> str:
        self._stdout.close()
        if hasattr(os, "waitid"):
            for _ in range(50):
                if not self.alive:
                    break
                time.sleep(0.1)
        self._kill()
        code = self._process.wait()
        self.end()
        if code == -signal.SIGXCPU:
            return "took more of the processor's time than a file of its size should (decode_cpu_s)"
        if code < 0:
            return f"was ended by signal {-code} ({signal.Signals(-code).name}); the file is damaged or too large"
        return f"ended unexpectedly (exit status {code})"

    def _send(self, task: bytes, descriptors: list[int], deadline: float) -> None:
        self._tasks.settimeout(max(0.001, deadline - time.monotonic()))
        prefix = LENGTH.pack(len(task))
        if descriptors:
            socket.send_fds(self._tasks, [prefix], descriptors)
        else:
            self._tasks.sendall(prefix)
        self._tasks.settimeout(max(0.001, deadline - time.monotonic()))
        self._tasks.sendall(task)

    def _array(self, count: int, dtype: np.dtype[Any], shape: tuple[int, ...], deadline: float) -> np.ndarray:
        view = self._read(deadline, count, count)
        return np.frombuffer(view, dtype=dtype).reshape(shape)

    def _read(self, deadline: float, most_bytes: int, exactly: int | None = None) -> memoryview:
        (length,) = LENGTH.unpack(self._read_exactly(LENGTH.size, deadline))
        if length > most_bytes or exactly not in (None, length):
            raise MalformedReplyError(f"{length:,} bytes where {most_bytes:,} were announced or are the most")
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


def _without_path(part: Source) -> Source:
    return replace(part, content=Opened(-1))


def _mapped_bytes(process: int) -> int:
    """The address space of a process; 0 where the system does not say, or the process has just died."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _environment() -> dict[str, str]:
    """What a worker gets to know: where Python and its packages lie, the locale, and no more."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    for name in _PATHS_PASSED_ON:
        # A relative entry, and so an empty one, means the current folder, where anybody's files may lie.
        if paths := [path for path in os.environ.get(name, "").split(os.pathsep) if os.path.isabs(path)]:
            kept[name] = os.pathsep.join(paths)
    if str(_ROOT) not in map(os.path.realpath, [*site.getsitepackages(), site.getusersitepackages()]):
        kept["PYTHONPATH"] = os.pathsep.join([str(_ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    if folders := _modality_folders():
        kept["CROSSBIND_MODALITIES"] = os.pathsep.join(folders)
    return {
        **_KEPT_BY_MALLOC,
        **kept,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _modality_folders() -> list[str]:
    """The folders of CROSSBIND_MODALITIES, absolute: a worker runs in another folder."""
    return [os.path.abspath(path) for path in os.environ.get("CROSSBIND_MODALITIES", "").split(os.pathsep) if path]
