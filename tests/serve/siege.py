"""A server under siege: some clients send the worst inputs we know, the others ask for what a person would.

    python -m tests.serve.siege --seconds 60        prints one JSON object: what each of them met

Every client has an address of its own (127.0.0.N), as they would have on a network: that is what a server can tell
clients apart by. Honest ones search with words, one after the other without a break.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import wave
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from serve.library.library import Library
from serve.library.records import ContentKey, NewFile, NewSegment
from tests.serve import load
from tests.serve.load import resident_bytes

KEY = "the-key-of-the-honest-and-the-others"
HONEST, ATTACKERS = 56, 8
PATIENCE_S = 120.0
MIB = 2**20
_PAGE = "/gradio_api/run/search"
_WORDS = "dog cat park water red car blue sky child house stone rain snow hill tree lamp boat train bread song".split()  # noqa: SIM905


@dataclass
class Met:
    """What clients of one kind met: answers by status (0: none came), and the seconds of each good one."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def quantile_s(self, share: float) -> float:
        """The latency that this share of good answers had at most; infinite where there were none."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("inf")

    def told(self) -> dict[str, Any]:
        """As JSON: statuses, and milliseconds."""
        shares = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0} if self.seconds else {}
        return {"statuses": dict(self.statuses)} | {
            name: round(1000 * self.quantile_s(share), 1) for name, share in shares.items()
        }


@dataclass
class Target:
    """A running server."""

    host: str
    port: int
    pid: int


@dataclass
class Siege:
    """What everybody met; memory of the server before, at most, and after."""

    quiet: Met = field(default_factory=Met)
    honest: Met = field(default_factory=Met)
    quiet_health: Met = field(default_factory=Met)
    health: Met = field(default_factory=Met)
    attackers: dict[str, Met] = field(default_factory=dict)
    before_bytes: int = 0
    most_bytes: int = 0
    after_bytes: int = 0
    processor_s: dict[str, float] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "honest, quiet": self.quiet.told(),
            "honest, besieged": self.honest.told(),
            "health, quiet": self.quiet_health.told(),
            "health, besieged": self.health.told(),
            "attackers": {name: met.told()["statuses"] for name, met in self.attackers.items()},
            "memory_mb": {
                name: round(count / 1e6)
                for name, count in (
                    ("before", self.before_bytes),
                    ("most", self.most_bytes),
                    ("after", self.after_bytes),
                )
            },
            "processor_s, besieged": {name: round(seconds, 1) for name, seconds in self.processor_s.items()},
        }


def make_library(folder: Path, model: object, items: int) -> None:
    """A library of files that are not there, with long captions, such as somebody might send."""
    rng = np.random.default_rng(0)
    with Library.open(folder, model) as library, library._catalogue.write() as writer, writer.transaction():  # type: ignore[arg-type]
        for number in range(items):
            vector = rng.standard_normal(library.model.dim).astype(np.float32)
            vector /= np.linalg.norm(vector)
            content = writer.put_content(
                ContentKey(number.to_bytes(32, "big"), "image", "{}"),
                ("image",),
                [NewSegment("image", None, None, vector)],
                [],
            )
            said = f"{_said(random.Random(number))} " + "a" * 2000
            writer.put_file(NewFile(f"/nowhere/{number:06}.jpg", "/nowhere", (1, 1, ""), content, caption=said))


def _said(rng: random.Random) -> str:
    """Five of some 8,000 words, so that a query shares one with a few files."""
    return " ".join("".join(rng.choices(_WORDS, k=3)) for _ in range(5))


def slow_jpeg(side: int = 7000, repeats: int = 200) -> bytes:
    """A small file that takes long: side x side pixels in progressive scans, the last of which is there many times."""
    noise = np.random.default_rng(0).integers(0, 255, (side // 8, side // 8), np.uint8)
    out = io.BytesIO()
    Image.fromarray(np.kron(noise, np.ones((8, 8), np.uint8))).save(out, "JPEG", progressive=True, quality=30)
    data = out.getvalue()
    start = data.rindex(b"\xff\xda")
    table = data.rindex(b"\xff\xc4", 0, start)
    return data[:-2] + data[table:-2] * repeats + b"\xff\xd9"


def long_sound(megabytes: float, seed: int) -> bytes:
    """A WAV file of noise at 16 kHz: half an hour for 57 MB."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.random.default_rng(seed).bytes(int(megabytes * 1e6)))
    return out.getvalue()


def form(parts: list[tuple[str, str, bytes]]) -> tuple[dict[str, str], bytes]:
    """(field, file name, content) -> headers and body of a multipart form."""
    mark = b"----crossbind"
    pieces = [
        b"--%b\r\ncontent-disposition: form-data; name=%b; filename=%b\r\n\r\n%b\r\n"
        % (mark, name.encode(), file.encode(), content)
        for name, file, content in parts
    ]
    return {"content-type": f"multipart/form-data; boundary={mark.decode()}"}, b"".join(pieces) + b"--%b--\r\n" % mark


class Client:
    """One address that asks a server; connections are kept unless told otherwise."""

    def __init__(self, target: Target, number: int) -> None:
        self.target = target
        self.address = f"127.0.{1 + number // 250}.{1 + number % 250}"
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        leave_after_s: float | None = None,
        key: str | None = KEY,
    ) -> tuple[int, bytes]:
        """-> status and body; 0 when the connection ended, or was left after `leave_after_s`."""
        lines = {"host": self.target.host, "content-length": str(len(body)), "content-type": "application/json"}
        lines |= {"authorization": f"Bearer {key}"} if key else {}
        head = "".join(f"{name}: {value}\r\n" for name, value in (lines | (headers or {})).items())
        try:
            async with asyncio.timeout(leave_after_s or PATIENCE_S):
                if self._open is None:
                    self._open = await asyncio.open_connection(
                        self.target.host, self.target.port, local_addr=(self.address, 0)
                    )
                reader, writer = self._open
                writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)
                answer = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = (
                    int(answer.split(b"content-length:")[1].split(b"\r\n")[0]) if b"content-length" in answer else 0
                )
                content = await reader.readexactly(length)
                if b"connection: close" in answer:
                    self.leave()
                return int(answer.split(b" ", 2)[1]), content
        except (OSError, asyncio.IncompleteReadError, TimeoutError, asyncio.LimitOverrunError):
            self.leave()
            return 0, b""

    def leave(self) -> None:
        """Ends the connection."""
        if self._open is not None:
            self._open[1].transport.abort()
            self._open = None


Attack = Callable[[Client], Awaitable[int]]


def attacks(target: Target) -> dict[str, Attack]:
    """Name -> one attack, which returns the status that it met."""
    book = json.dumps({"input": ("the quick brown fox jumps over lazy dogs " * 25_000)[:1_000_000]}).encode()
    picture = slow_jpeg()
    pictures = form([("image", f"{number}.jpg", picture) for number in range(12)])
    pattern = "%a" * 120 + "%b"
    where = " or ".join(f"caption like '{pattern}'" for _ in range(37))
    search = json.dumps({"query": "a dog", "where": where}).encode()
    lists = b'{"data":[' + b"[]," * 20_000_000 + b"[]]}"
    terms = json.dumps({"data": ["a", 10, ["image"] * 200_000, ""]}).encode()
    cookie = 'a="' + '\\"' * 30_000 + '"'
    long, short = (form([("file", "noise.wav", long_sound(megabytes, 0))]) for megabytes in (57, 15))
    seeds = itertools.count()

    async def read_book(client: Client) -> int:
        return (await client.ask("POST", "/v1/embeddings", book))[0]

    async def slow_pictures(client: Client) -> int:
        return (await client.ask("POST", "/v1/embeddings", pictures[1], pictures[0]))[0]

    async def slow_filter(client: Client) -> int:
        return (await client.ask("POST", "/v1/search", search))[0]

    async def long_cookie(client: Client) -> int:
        return (await client.ask("GET", "/v1/models", headers={"cookie": cookie}, key=None))[0]

    async def many_lists(client: Client) -> int:
        return (await client.ask("POST", _PAGE, lists))[0]

    async def many_terms(client: Client) -> int:
        return (await client.ask("POST", _PAGE, terms))[0]

    def another(body: bytes) -> bytes:
        return body[:-1000] + next(seeds).to_bytes(4, "big") + body[-996:]

    async def long_add(client: Client) -> int:
        return (await client.ask("POST", "/v1/items", another(long[1]), long[0]))[0]

    async def leave_uploads(client: Client) -> int:
        headers, body = short[0], another(short[1])
        others = [Client(target, 900) for _ in range(6)]
        for other in others:
            other.address = client.address
        await asyncio.gather(*(other.ask("POST", "/v1/items", body, headers, leave_after_s=1.0) for other in others))
        return 0

    return {
        "a text of 1 MB": read_book,
        "12 slow JPEGs": slow_pictures,
        "a slow filter": slow_filter,
        "a long cookie": long_cookie,
        "60 MB of JSON lists to the page": many_lists,
        "200,000 terms to the page": many_terms,
        "adding 57 MB": long_add,
        "uploads that are left": leave_uploads,
    }


async def _honest(client: Client, number: int, until: float, met: Met) -> None:
    rng = random.Random(number)
    while time.monotonic() < until:
        body = json.dumps({"query": _said(rng)}).encode()
        began = time.monotonic()
        status, _ = await client.ask("POST", "/v1/search", body)
        met.statuses[status] += 1
        if status == 200:
            met.seconds.append(time.monotonic() - began)
        elif status != 504:
            await asyncio.sleep(0.2)
    client.leave()


async def _health(client: Client, until: float, met: Met) -> None:
    while time.monotonic() < until:
        began = time.monotonic()
        status, _ = await client.ask("GET", "/health")
        met.statuses[status] += 1
        met.seconds.append(time.monotonic() - began)
        await asyncio.sleep(0.02)
    client.leave()


async def _attacker(client: Client, attack: Attack, until: float, met: Met) -> None:
    while time.monotonic() < until:
        began = time.monotonic()
        met.statuses[await attack(client)] += 1
        await asyncio.sleep(max(0.05, 0.2 - (time.monotonic() - began)))  # what is refused at once is no busy loop here
    client.leave()


async def _attack(target: Target, seconds: float, wanted: list[str] | None) -> tuple[dict[str, Met], float]:
    """-> what each attack met, and the processor time of them all."""
    chosen = {name: attack for name, attack in attacks(target).items() if not wanted or name in wanted}
    met = {name: Met() for name in chosen}
    print("ready", flush=True)
    began_s = time.process_time()
    until = time.monotonic() + seconds
    clients = [Client(target, 700 + number) for number in range(len(chosen))]
    await asyncio.gather(
        *(
            _attacker(client, attack, until, met[name])
            for client, (name, attack) in zip(clients, chosen.items(), strict=True)
        )
    )
    return met, time.process_time() - began_s


async def _memory(pid: int, until: float, siege: Siege) -> None:
    while time.monotonic() < until:
        siege.most_bytes = max(siege.most_bytes, resident_bytes(pid))
        await asyncio.sleep(0.2)


async def besiege(
    target: Target,
    seconds: float,
    quiet_s: float,
    rest_s: float,
    wanted: list[str] | None = None,
    honest: int = HONEST,
) -> Siege:
    """Honest clients alone for `quiet_s`, then with the attackers, then `rest_s` of rest."""
    siege = Siege()

    async def phase(length_s: float, met: Met, health: Met, under: bool) -> None:
        until = time.monotonic() + length_s
        tasks = [_honest(Client(target, number), number, until, met) for number in range(honest)]
        tasks.append(_health(Client(target, 600), until, health))
        if under:
            tasks.append(_memory(target.pid, until, siege))
        await asyncio.gather(*tasks)

    first = Client(target, 601)
    await first.ask("GET", "/")
    first.leave()
    await phase(min(5.0, quiet_s), Met(), Met(), False)
    await phase(quiet_s, siege.quiet, siege.quiet_health, False)
    siege.before_bytes = resident_bytes(target.pid)
    # In a process of its own: making these requests is work, which must not be mistaken for the server's.
    command = [sys.executable, "-m", "tests.serve.siege", "--attack", json.dumps(asdict(target))]
    command += ["--seconds", str(seconds), *(word for name in wanted or () for word in ("--only", name))]
    attacking = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert attacking.stdout is not None
    await attacking.stdout.readline()  # they are ready
    spent = processor_s(target.pid), time.process_time()
    await phase(seconds, siege.honest, siege.health, True)
    siege.processor_s = {"server": processor_s(target.pid) - spent[0], "honest": time.process_time() - spent[1]}
    told, _ = await attacking.communicate()
    met, siege.processor_s["attackers"] = json.loads(told)
    for name, statuses in met.items():
        siege.attackers[name] = Met(Counter({int(status): count for status, count in statuses.items()}))
    await asyncio.sleep(rest_s)
    siege.after_bytes = resident_bytes(target.pid)
    return siege


def processor_s(pid: int) -> float:
    """The processor time of a process so far, all threads together (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def served(library: Path) -> Iterator[Target]:
    """`crossbind serve` with page and keys, in a process of its own."""
    with load.served(library, page=True, environment={"CROSSBIND_API_KEYS": KEY}) as (host, port, process_id):
        yield Target(host, port, process_id)


def main() -> None:
    """Besieges a server of the default model over a library of 20,000 items."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--seconds", type=float, default=60.0)
    asked.add_argument("--quiet", type=float, default=20.0)
    asked.add_argument("--rest", type=float, default=60.0)
    asked.add_argument("--items", type=int, default=20_000)
    asked.add_argument("--only", action="append")
    asked.add_argument("--library", type=Path, help="where to keep the library for another run")
    asked.add_argument("--attack", help="be the attackers of a server, as this program starts them itself")
    given = asked.parse_args()
    if given.attack:
        met, seconds = asyncio.run(_attack(Target(**json.loads(given.attack)), given.seconds, given.only))
        print(json.dumps([{name: dict(entry.statuses) for name, entry in met.items()}, seconds]))
        return
    with tempfile.TemporaryDirectory() as folder:
        library = given.library or Path(folder) / "library"
        if not library.exists():
            make_library(library, "small", given.items)
        with served(library) as target:
            averages = os.getloadavg()
            siege = asyncio.run(besiege(target, given.seconds, given.quiet, given.rest, given.only))
    print(json.dumps(siege.told() | {"load average before": [round(x, 2) for x in averages]}, indent=1))


if __name__ == "__main__":
    main()
