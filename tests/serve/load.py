"""Many clients that ask for embeddings without a break, and what they met. For the load test and the benchmark."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

WARM_S = 3.0
CROSSBIND = Path(sys.executable).parent / "crossbind"
_WORDS = (
    *(
        "dog",
        "barks",
        "in",
        "the",
        "park",
        "near",
        "water",
        "while",
        "red",
        "cars",
        "pass",
        "under",
        "a",
        "blue",
        "sky",
    ),
    *("children", "play", "old", "house", "of", "stone", "someone", "sings", "about", "rain", "snow", "mountains"),
)


@dataclass
class Load:
    """What the clients met: answers by status, the seconds of each good one, how long it took in all."""

    statuses: Counter[int] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    memory_bytes: list[int] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Good answers a second."""
        return self.statuses[200] / self.seconds

    def quantile_s(self, share: float) -> float:
        """The latency that this share of good answers had at most."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def growth(self) -> float:
        """Memory in the last quarter as a share of that in the second: 1 is flat. The first is warming up."""
        quarter = len(self.memory_bytes) // 4
        second, last = self.memory_bytes[quarter : 2 * quarter], self.memory_bytes[-quarter:]
        return (sum(last) / len(last)) / (sum(second) / len(second))


@contextlib.contextmanager
def served(
    library: Path, *options: object, page: bool = False, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[str, int, int]]:
    """`crossbind serve` in a process of its own -> (host, port, process id), ended as a person would."""
    command = [CROSSBIND, "serve", "--library", library, "--port", 0, "--log-level", "error", "--json"]
    command += ["--page" if page else "--no-page", *options]
    process = subprocess.Popen(
        [*map(str, command)], stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"the server ended with {process.wait()}"
        host, _, port = json.loads(line)["address"].removeprefix("http://").rpartition(":")
        yield host, int(port), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(90)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        assert process.stdout is not None
        process.stdout.close()
        assert status == 0


def in_turns(library: Path, clients: int, seconds: float, turns: int) -> tuple[Load, Load]:
    """What the clients meet at a server without batching, and at one with it: `seconds` each, in turns.

    So what else goes on on the machine meets both.
    """
    alone, together = Load(), Load()
    with served(library, "--max-batch", 1) as single, served(library) as batching:
        for place in (single, batching):
            drive(*place, clients, WARM_S, Load())
        for _ in range(turns):
            drive(*single, clients, seconds / turns, alone)
            drive(*batching, clients, seconds / turns, together)
    return alone, together


def drive(host: str, port: int, pid: int, clients: int, seconds: float, load: Load) -> None:
    """Clients that each send one text, wait for its embedding, and send the next; the server's memory beside."""
    asyncio.run(_drive(host, port, pid, clients, seconds, load))


async def _drive(host: str, port: int, pid: int, clients: int, seconds: float, load: Load) -> None:
    started = time.monotonic()
    until = started + seconds
    watch = asyncio.create_task(_watch(pid, load, until))
    await asyncio.gather(*(_client(host, port, number, until, load) for number in range(clients)))
    load.seconds += time.monotonic() - started
    await watch


async def _watch(pid: int, load: Load, until: float) -> None:
    while time.monotonic() < until:
        load.memory_bytes.append(resident_bytes(pid))
        await asyncio.sleep(0.25)


def resident_bytes(pid: int) -> int:
    """Memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


async def _client(host: str, port: int, number: int, until: float, load: Load) -> None:
    rng = random.Random(number)
    reader, writer = await asyncio.open_connection(host, port)
    while time.monotonic() < until:
        text = " ".join(rng.choices(_WORDS, k=rng.randint(4, 16)))
        body = json.dumps({"input": text, "encoding_format": "base64"}).encode()
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: "
        began = time.monotonic()
        writer.write(head.encode() + str(len(body)).encode() + b"\r\n\r\n" + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        status = int(answer.split(b" ", 2)[1])
        load.statuses[status] += 1
        if status == 200:
            load.latencies_s.append(time.monotonic() - began)
        if b"connection: close" in answer:
            writer.close()
            reader, writer = await asyncio.open_connection(host, port)
    writer.close()
