"""What a subverted decoder tries. Each test also takes its guard away and sees the attack succeed."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.decoding import pool as pools
from preprocess.decoding import sandbox
from preprocess.decoding.pool import DecodePool, guards
from preprocess.decoding.protocol import MalformedReplyError, Returns, announced, header_of, returns
from preprocess.source import Limits, MediaError, Plan, Segment, Source

pytestmark = [
    pytest.mark.attack,
    pytest.mark.skipif(sys.platform != "linux", reason="the guards are those of Linux"),
]
LIMITS = Limits(decode_timeout_s=20)


def says(answer: Any) -> list[Segment]:
    return [Segment(np.zeros((1, 1), np.uint8), notes=(json.dumps(answer),))]


def tries(attempt: Callable[[], Any]) -> list[Segment]:
    """What came of it: 'done', or the error's name."""
    try:
        attempt()
    except OSError as error:
        return says(f"{type(error).__name__} {error.errno}")
    except ValueError as error:  # what `resource` makes of EPERM
        return says("PermissionError 1" if "not allowed" in str(error) else str(error))
    return says("done")


def read_file(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    return tries(lambda: Path(config).read_bytes())


def list_folder(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    return tries(lambda: os.listdir(config))


def write_file(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    return tries(lambda: Path(config).write_bytes(b"x"))


def connect(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    return tries(lambda: socket.create_connection(("127.0.0.1", config)).close())


def fork(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    def attempt() -> None:
        if os.fork() == 0:
            os.setsid()
            time.sleep(60)
            os._exit(0)

    return tries(attempt)


def execute(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    return tries(lambda: subprocess.run(["/bin/true"], check=False))


def kill_parent(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    return tries(lambda: os.kill(config, 0))


def raise_limits(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    import resource

    return tries(lambda: resource.setrlimit(resource.RLIMIT_AS, (resource.getrlimit(resource.RLIMIT_AS)[1],) * 2))


def survive_parent(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    libc = ctypes.CDLL(None, use_errno=True)

    def attempt() -> None:
        if libc.prctl(1, 0, 0, 0, 0) < 0:
            raise OSError(ctypes.get_errno(), "prctl")

    return tries(attempt)


def tell_environment(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    return says({"environment": dict(os.environ), "folder": os.getcwd(), "path": sys.path, "session": os.getsid(0)})


def tell_descriptors(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    def kind(number: int) -> str | None:
        try:
            return f"{os.fstat(number).st_mode:o}"[:-4]
        except OSError:
            return None

    return says([found for number in range(64) if (found := kind(number))])


def swallow(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    return says(len(source.content))


def eat(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    return says(len(bytes(config)))


def burn(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    while True:
        pass


@returns(lambda config, limits, plan: Returns("uint8", (2, 2), views=1))
def too_much(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    return [Segment(np.zeros(config[0], config[1]))] * config[2]


def lie(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    """Writes the bytes `config` in place of a reply, wherever that pipe is."""
    for number in range(3, 64):
        try:
            os.write(number, config)
        except OSError:
            continue
    time.sleep(30)
    return []


def answer(pool: DecodePool, read: Any, config: Any = None, limits: Limits = LIMITS) -> Any:
    (segment,) = pool.submit(read, Source(b"abc", "x.bin"), config, limits, "whole").result()
    return json.loads(segment.notes[0])


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(workers=1) as pool:
        yield pool


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], DecodePool]]:
    """A pool whose workers leave one guard of the sandbox out."""
    opened = []

    def open_pool(guard: str) -> DecodePool:
        program = (
            "import sys, json; from preprocess.decoding import sandbox, worker; "
            f"sandbox.{guard} = lambda *_: 'left out'; worker.main(json.loads(sys.argv[-1]))"
        )
        popen = subprocess.Popen

        def start(command: list[str], **options: Any) -> Any:
            return popen([command[0], "-P", "-c", program, command[-1]], **options)

        monkeypatch.setattr(pools.subprocess, "Popen", start)
        opened.append(DecodePool(workers=1))
        return opened[-1]

    yield open_pool
    for pool in opened:
        pool.close()


@pytest.fixture(scope="module", autouse=True)
def _here() -> None:
    missing = [guard.name for guard in guards() if not guard.active]
    if missing:
        pytest.skip(f"this kernel lacks {', '.join(missing)}; `crossbind doctor` says why")


def test_no_file_of_the_user_can_be_read(pool: DecodePool, without: Any, tmp_path: Path) -> None:
    secret = tmp_path / "id_rsa"
    secret.write_text("secret")
    for place in (str(secret), "/etc/passwd", f"/proc/{os.getpid()}/environ", f"/proc/{os.getpid()}/cmdline"):
        assert answer(pool, read_file, place) == "PermissionError 13", place
    assert answer(pool, list_folder, str(tmp_path)) == "PermissionError 13"
    open_pool = without("_close_files")
    assert answer(open_pool, read_file, str(secret)) == "done"
    assert answer(open_pool, list_folder, str(tmp_path)) == "done"


def test_nothing_can_be_written(pool: DecodePool, tmp_path: Path) -> None:
    new = f"crossbind-{os.getpid()}"
    for place in (
        tmp_path / "x",
        Path(sandbox.__file__).parent / "planted.py",
        Path("/tmp", new),
        Path("/dev/shm", new),
    ):
        assert answer(pool, write_file, str(place)) == "PermissionError 13"
        assert not place.exists()


def test_writing_is_refused_without_landlock_too(without: Any, tmp_path: Path) -> None:
    assert answer(without("_close_files"), write_file, str(tmp_path / "x")) == "PermissionError 13"


@pytest.mark.parametrize("read", [connect, fork, execute, kill_parent, raise_limits, survive_parent])
def test_no_network_no_process_no_signal_no_more_rights(pool: DecodePool, without: Any, read: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = server.getsockname()[1] if read is connect else os.getpid()
        assert answer(pool, read, config) == "PermissionError 1"
        open_pool = without("_close_calls")
        if read in (fork, raise_limits, survive_parent):  # the others are held by Landlock as well
            assert answer(open_pool, read, config) == "done"


def test_a_child_that_left_its_group_is_unreachable_for_us_but_not_possible(without: Any) -> None:
    """Without the list of system calls, a child in the worker's group still dies with the worker."""
    open_pool = without("_close_calls")
    number = answer(open_pool, fork_and_tell)
    open_pool.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _runs(number):
        time.sleep(0.01)
    assert not _runs(number)


def fork_and_tell(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    number = os.fork()
    if number == 0:
        time.sleep(60)
        os._exit(0)
    return says(number)


def _runs(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_worker_knows_no_key_and_no_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
    monkeypatch.setenv("CROSSBIND_API_KEY", "key")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", ".", "planted", "/absolute"]))
    monkeypatch.setenv("LD_LIBRARY_PATH", f":{tmp_path}:relative")
    monkeypatch.setenv("CROSSBIND_MODALITIES", "sensors")
    with DecodePool(workers=1) as pool:
        said = answer(pool, tell_environment)
    assert "key" not in said["environment"].values()
    assert said["folder"] == "/"
    assert str(tmp_path) not in said["path"] and "" not in said["path"] and "." not in said["path"]
    assert "/absolute" in said["path"]
    assert said["environment"]["LD_LIBRARY_PATH"] == str(tmp_path)
    assert said["environment"]["CROSSBIND_MODALITIES"] == str(tmp_path / "sensors")
    assert said["session"] != os.getsid(0)


def test_a_worker_has_its_medium_open_and_no_other_file_of_ours(pool: DecodePool, tmp_path: Path) -> None:
    with open(tmp_path / "ours", "wb") as ours:
        os.set_inheritable(ours.fileno(), True)
        (tmp_path / "x.bin").write_bytes(b"x")
        (segment,) = pool.submit(tell_descriptors, Source.from_path(tmp_path / "x.bin"), None, LIMITS, "whole").result()
        # The medium and the scratch file are the only regular ones.
        assert json.loads(segment.notes[0]).count("10") == 2
        assert (
            json.loads(
                pool.submit(tell_descriptors, Source(b"x", "x"), None, LIMITS, "whole").result()[0].notes[0]
            ).count("10")
            == 1
        )


def test_a_worker_that_does_not_read_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with DecodePool(workers=1) as pool:
        assert answer(pool, swallow) == 3
        number = int(subprocess.check_output(["pgrep", "-n", "-P", str(os.getpid()), "-f", "decoding.worker"]))
        os.kill(number, signal.SIGSTOP)
        began = time.monotonic()
        large = Source(bytes(2**24), "x.bin")
        with pytest.raises(MediaError, match="took longer"):
            pool.submit(swallow, large, None, Limits(decode_timeout_s=0.5, decode_bytes_per_s=1e9), "whole").result()
        assert time.monotonic() - began < 10
        assert answer(pool, swallow) == 3


def test_memory_is_limited_by_the_task_and_not_by_the_first(pool: DecodePool) -> None:
    small = replace(LIMITS, worker_memory_bytes=2**30)
    assert answer(pool, eat, 10) == 10
    with pytest.raises(MediaError, match="more memory"):
        answer(pool, eat, 2**31, small)
    assert answer(pool, eat, 2**30) == 2**30
    with pytest.raises(MediaError, match="more memory"):
        answer(pool, eat, 2**31, small)


def test_processor_time_is_limited(pool: DecodePool) -> None:
    with pytest.raises(MediaError, match="processor's time"):
        pool.submit(burn, Source(b"abc", "x"), None, Limits(decode_cpu_s=0.2), "whole").result()
    assert answer(pool, swallow) == 3


@pytest.mark.parametrize(
    "config", [((1, 2, 3), "uint8", 1), ((2, 2, 2), "uint8", 1), ((1, 2, 2), "float32", 1), ((1, 2, 2), "uint8", 2)]
)
def test_more_than_a_reader_declares_is_refused(pool: DecodePool, config: Any) -> None:
    good = pool.submit(too_much, Source(b"abc", "x"), ((1, 2, 2), "uint8", 1), LIMITS, "whole").result()
    assert good[0].views.shape == (1, 2, 2)
    with pytest.raises(MediaError, match="no reader returns"):
        pool.submit(too_much, Source(b"abc", "x"), config, LIMITS, "whole").result()
    assert answer(pool, swallow) == 3  # by a new worker


FRAME = struct.Struct("<Q")


@pytest.mark.parametrize(
    "reply",
    [
        FRAME.pack(2**40),
        FRAME.pack(5) + b"hello",
        FRAME.pack(2) + b"[]",
        FRAME.pack(10**5) + b"[" * 10**5,
        *(
            FRAME.pack(len(header)) + header
            for header in (
                b'{"segments": [{"dtype": "|O", "shape": [1], "start_s": null, "end_s": null, "notes": []}]}',
                b'{"segments": [{"dtype": "<f8", "shape": [-1], "start_s": null, "end_s": null, "notes": []}]}',
                b'{"segments": [{"dtype": "<f8", "shape": [9999999999], "start_s": null, "end_s": null, "notes": []}]}',
                b'{"segments": [{"dtype": "<f8", "shape": [1], "start_s": "1", "end_s": null, "notes": []}]}',
                b'{"segments": [{"dtype": "<f8", "shape": [1], "start_s": 1e999, "end_s": null, "notes": []}]}',
                b'{"segments": [{"dtype": "<f8", "shape": [1], "start_s": null, "end_s": null, "notes": [3]}]}',
                b'{"segments": []}',
                b'{"segments": [3]}',
                b'{"reason": 3}',
            )
        ),
    ],
)
def test_a_malformed_reply_is_a_media_error_and_a_new_worker(pool: DecodePool, reply: bytes) -> None:
    with pytest.raises(MediaError, match="no reader returns"):
        pool.submit(lie, Source(b"abc", "x.bin"), reply, LIMITS, "whole").result()
    assert answer(pool, swallow) == 3


def test_a_reply_that_fits_no_memory_is_refused_before_it_is_read() -> None:
    header = header_of([Segment(np.zeros((1, 1000)))]).replace(b"[1, 1000]", b"[1000]")
    assert announced(header, None, 8000)[0].count == 8000  # type: ignore[union-attr]
    with pytest.raises(MalformedReplyError, match="more than 7,999 bytes"):
        announced(header, None, 7999)


def test_workers_end_with_a_parent_that_was_killed() -> None:
    program = (
        "import os, time; from preprocess.decoding.pool import DecodePool; from preprocess.readers import depth;"
        "from preprocess.source import Limits, Source\n"
        "pool = DecodePool(2)\n"
        "task = depth.read, Source(b'x', 'x'), depth.DepthConfig(), Limits(), 'whole'\n"
        "for f in [pool.submit(*task) for _ in range(8)]:\n"
        "    f.exception()\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=Path(sandbox.__file__).parents[2]
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    workers = [int(n) for n in subprocess.check_output(["pgrep", "-P", str(parent.pid)]).split()]
    assert len(workers) == 2
    for number in workers:
        os.kill(number, signal.SIGSTOP)  # such a one would not notice that its pipe is closed
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(map(_runs, workers)):
        time.sleep(0.01)
    assert not any(map(_runs, workers))


def test_the_memory_of_the_parent_is_hidden() -> None:
    libc = ctypes.CDLL(None)
    assert libc.prctl(3, 0, 0, 0, 0) == 0  # PR_GET_DUMPABLE, once a pool was made


def test_packages_in_a_folder_of_their_own_can_be_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As of `pip install --target`, where a folder has packages; another folder of the user's is only listed."""
    installed, own = tmp_path / "installed", tmp_path / "own"
    (installed / "some-1.0.dist-info").mkdir(parents=True)
    own.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(installed), str(own)])
    rights = dict(sandbox.readable_paths([]))
    assert rights[installed] & sandbox._READ_FILE
    assert not rights[own] & sandbox._READ_FILE


def test_readers_work_where_their_packages_lie_in_a_folder_of_the_user(tmp_path: Path) -> None:
    """Each package by its name, also what it imports itself, without anything that says that it was installed."""
    place = tmp_path / "packages"
    place.mkdir()
    for name in ("soundfile", "_soundfile", "_soundfile_data", "cffi", "_cffi_backend", "soxr"):
        for found in sandbox._places_of(name):
            target = place / found.name
            if not target.exists():
                shutil.copytree(found, target) if found.is_dir() else shutil.copy(found, target)
    close = "import os; from preprocess.decoding import sandbox; sandbox.close(os.getppid(), [])"
    code = f"{close}; import soundfile; print(soundfile.__file__)"
    root = Path(sandbox.__file__).resolve().parents[2]
    path = os.pathsep.join([str(place), str(root), *(p for p in sys.path if p.endswith("site-packages"))])
    environment = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == str(place / "soundfile.py"), done.stderr
