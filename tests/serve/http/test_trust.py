"""What a client or a library can do to a server: nothing that others notice. Each attack works without its guard."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bind.index.index import Index
from preprocess.source import Limits, MediaError, Plan, Segment, Source
from serve.engine import decoding, fairness
from serve.engine.batching import Batcher
from serve.engine.decoding import Decoder
from serve.engine.fairness import StoppedError, Turns, stopping
from serve.engine.metrics import Metrics
from serve.engine.settings import Settings
from serve.http import guard
from serve.http.guard import client_of
from serve.library import where as filters
from serve.library.connections import connect
from serve.library.library import Library
from serve.library.schema import sign
from serve.library.where import WhereError
from serve.page import app as page_module
from tests.serve import siege, tiny
from tests.serve.engine.test_batching import Gate, hold, text
from tests.serve.live import live

pytestmark = pytest.mark.attack

LONG_S = 60.0
BOOK = "boats and trains " * 6_000
HACK = '"><img src=x onerror=hacked()><script>hacked()</script>'


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    tiny.picture(tmp_path / "media" / "a.png", 1)
    with Library.open(tmp_path / "library", tiny.seven()) as opened:
        opened.index(tmp_path / "media")
        yield opened


def behind_a_book(batcher: Batcher, gate: Gate) -> bool:
    """Whether one short text of somebody has to wait for a book of somebody else that came before."""
    first = hold(batcher, gate)
    book = batcher.submit([text(BOOK)], LONG_S, "attacker")
    with batcher._changed:
        assert batcher._changed.wait_for(lambda: len(batcher._ready) > 1000, LONG_S)
    short = batcher.submit([text("a dog")], LONG_S, "honest")
    with batcher._changed:
        assert batcher._changed.wait_for(lambda: batcher._ready.count_of("honest") == 1, LONG_S)
    order: list[str] = []
    book.add_done_callback(lambda _: order.append("book"))
    short.add_done_callback(lambda _: order.append("short"))
    gate.open.set()
    wait([first, book, short], LONG_S)
    return order[0] == "book"


@pytest.mark.parametrize("guarded", [True, False])
def test_nobody_waits_for_the_book_of_somebody_else(guarded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model()
    gate = Gate(model, monkeypatch)
    batcher = Batcher(model, Metrics(), max_batch=8, max_waiting=40, limits=Limits())
    if not guarded:
        monkeypatch.setattr(Turns, "charge", lambda *_: None)
    assert behind_a_book(batcher, gate) is not guarded
    batcher.close()


@pytest.mark.parametrize("guarded", [True, False])
def test_what_nobody_waits_for_leaves_all_queues(guarded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model()
    gate = Gate(model, monkeypatch)
    batcher = Batcher(model, Metrics(), max_batch=8, max_waiting=40, limits=Limits())
    if not guarded:
        monkeypatch.setattr(batcher, "_forget", lambda *_: None)
    first = hold(batcher, gate)
    book = batcher.submit([text(BOOK)], LONG_S)
    with batcher._changed:
        assert batcher._changed.wait_for(lambda: len(batcher._ready) > 1000, LONG_S)
    assert book.cancel()
    assert (len(batcher._ready) == 0 and batcher.waiting == 1) is guarded
    gate.open.set()
    wait([first], LONG_S)
    batcher.close()


class Sleepers:
    """Two decode workers that take as many seconds as their file says, or are ended when their time is over."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(2)

    def submit(self, read: Any, source: Source, config: Any, limits: Limits, plan: Plan) -> Future[list[Segment]]:
        return self._threads.submit(self._sleep, source, limits)

    def _sleep(self, source: Source, limits: Limits) -> list[Segment]:
        seconds = float(source.content)
        time.sleep(min(seconds, source.decode_allowance_s(limits)))
        if seconds > limits.decode_timeout_s:
            raise MediaError(source.name, "took too long")
        return [Segment(np.zeros((1, 1), np.uint8))]


@pytest.mark.parametrize("guarded", [True, False])
def test_slow_media_do_not_stop_the_quick_ones(guarded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "QUICK_S", 0.2 if guarded else LONG_S)
    decoder = Decoder(Sleepers(), 2)  # type: ignore[arg-type]
    limits = Limits(decode_timeout_s=3.0)

    def submit(client: str, seconds: float) -> Future[list[Segment]]:
        source = Source(str(seconds).encode(), client)
        return decoder.submit(None, source, None, limits, "whole", client=client)  # type: ignore[arg-type]

    slow = [submit("attacker", 99) for _ in range(6)]
    quick = submit("honest", 0)
    done, _ = wait([quick], 2.0)
    for future in slow:
        future.cancel()
    wait([quick])
    assert bool(done) is guarded
    assert quick.result()


@pytest.mark.parametrize("seconds", [0.1, 1.0])
def test_what_is_slow_is_read_in_the_end(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "QUICK_S", 0.3)
    decoder = Decoder(Sleepers(), 2)  # type: ignore[arg-type]
    source = Source(str(seconds).encode(), "x")
    assert decoder.submit(None, source, None, Limits(), "whole").result(LONG_S)  # type: ignore[arg-type]
    with pytest.raises(MediaError):
        decoder.submit(None, source, None, Limits(decode_timeout_s=0.05), "whole").result(LONG_S)  # type: ignore[arg-type]


def slow_library(folder: Path) -> Library:
    model = tiny.model()
    siege.make_library(folder, model, 1500)
    return Library.open(folder, model)


@pytest.mark.parametrize("guarded", [True, False])
def test_a_slow_filter_is_stopped(guarded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = "%a" * 100 + "%b"
    where = " or ".join(f"caption like '{pattern}'" for _ in range(40))
    with slow_library(tmp_path / "library") as library:
        query = library.vectors([1])
        if not guarded:
            monkeypatch.setattr(fairness.Stop, "is_over", False)
        with stopping() as stop:
            stop.begin(0.05)
            began = time.monotonic()
            if guarded:
                with pytest.raises(StoppedError):
                    library.find(query, 10, None, where)
                assert time.monotonic() - began < 1.0
            else:
                library.find(query, 10, None, where)
                assert time.monotonic() - began > 0.06, "longer than it was given"
        assert len(library.find(query, 10)) == 10, "the connection is as good as before"


def test_patterns_are_short() -> None:
    with pytest.raises(WhereError, match="more than 256 characters"):
        filters.parse(f"caption like '{'%a' * 200}'")


@pytest.mark.parametrize("guarded", [True, False])
def test_reads_wait_for_nobody(
    guarded: bool, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While an index is brought up to date and written, which may take minutes."""
    release = threading.Event()
    count_of = threading.Event()
    live_index = library._live_index

    def hold_it() -> None:
        with live_index.lock:
            count_of.set()
            release.wait(LONG_S)

    def wait_for_it() -> Index:
        with live_index.lock:
            return live_index.index

    if not guarded:
        monkeypatch.setattr(live_index, "current", wait_for_it)
    with live(library, Settings(port=0, deadline_s=2.0)) as running:
        assert running.http.post("/v1/search", json={"query": "a"}).status_code == 200
        tiny.picture(tmp_path / "media" / "b.png", 2)
        with Library.open(library.folder, library.model) as other:
            other.index(tmp_path / "media")
        holder = threading.Thread(target=hold_it)
        holder.start()
        assert count_of.wait(LONG_S)
        try:
            answers = [running.http.get("/v1/items/1"), running.http.get("/health"), running.http.get("/v1/models")]
            assert [answer.status_code for answer in answers] == [200] * 3
            found = running.http.post("/v1/search", json={"query": "a"}).status_code
        finally:
            release.set()
            holder.join()
    assert found == (200 if guarded else 504)


def seconds_of(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def test_cookies_are_read_in_linear_time(library: Library) -> None:
    cookie = 'a="' + '\\"' * 6_000 + '"'
    checker = guard.Guard(lambda *_: None, Settings(api_keys=("k" * 20,)), Metrics())  # type: ignore[arg-type,return-value]
    ours = seconds_of(lambda: checker._is_session(cookie))
    assert 100 * ours < seconds_of(lambda: SimpleCookie(cookie))
    with live(library, Settings(port=0, api_keys=("k" * 20,))) as running:
        headers = {"cookie": 'a="' + '\\"' * 25_000 + '"'}
        assert httpx.get(f"{running.address}/v1/models", headers=headers).status_code == 431
        assert httpx.get(f"{running.address}/v1/models?" + "a=b&" * 5_000).status_code == 414


def test_large_bodies_share_a_rate(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(guard.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(guard, "RECEIVED_BYTES_PER_S", 10e6)
    checker = guard.Guard(lambda *_: None, Settings(), Metrics())  # type: ignore[arg-type,return-value]
    assert checker.received("small", 2**20) == 0.0
    assert checker.received("a", 2**20 + 1) == pytest.approx(0.105, abs=0.01)
    assert checker.received("b", 2**20 + 1) == pytest.approx(0.21, abs=0.01)
    assert checker.received("a", 10_000_000) == pytest.approx(2.105, abs=0.01)  # also over another connection
    now[0] += 10
    assert checker.received("a", 1_000_000) == pytest.approx(0.2)


@pytest.mark.parametrize("guarded", [True, False])
def test_who_sends_faster_waits(guarded: bool, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "RECEIVED_BYTES_PER_S", 8e6 if guarded else 1e12)
    with live(library, Settings(port=0, body_timeout_s=0.5)) as running:
        began = time.monotonic()
        answer = running.http.post("/v1/items", files={"file": ("a.bin", bytes(12_000_000))})
        assert answer.status_code == 422, answer.text  # the time that it was made to wait is not held against it
        assert (time.monotonic() - began > 1.0) is guarded


@pytest.mark.parametrize("guarded", [True, False])
def test_the_page_takes_no_more_than_the_api(guarded: bool, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    if not guarded:
        monkeypatch.setattr(page_module, "MAX_CALL_BYTES", 2**30)
        monkeypatch.setattr(page_module, "MAX_CALL_VALUES", 2**30)
    with live(library, Settings(port=0), page=True) as running:

        def status(*data: Any) -> int:
            return running.http.post("/gradio_api/run/search", json={"data": data}).status_code

        assert (status(*[[]] * 300_000) == 413) is guarded
        assert (status("a", 1, ["image"] * 2_000, "") == 413) is guarded
        assert (status("a" * 2**20, 1, None, "") == 413) is guarded


@pytest.mark.parametrize("guarded", [True, False])
def test_one_client_cannot_hold_all_connections(guarded: bool, library: Library) -> None:
    settings = Settings(port=0, max_connections=20, client_share=0.5 if guarded else 1.0)
    with live(library, settings) as running:

        async def ask(number: int, client: int) -> int:
            target = siege.Target(*running.place, 0)
            one = siege.Client(target, client)
            async with asyncio.timeout(5):
                status, _ = await one.ask("GET", "/health")
            kept.append(one)
            return status

        kept: list[siege.Client] = []

        async def attack() -> tuple[list[int], int]:
            attacker = [await ask(number, 1) for number in range(20)]
            honest = await ask(0, 2)
            for client in kept:
                client.leave()
            return attacker, honest

        attacker, honest = asyncio.run(attack())
        assert attacker.count(200) == (10 if guarded else 20)
        assert (honest == 200) is guarded


def test_a_client_is_an_address_or_a_network() -> None:
    assert client_of(("127.0.0.2", 5)) == "127.0.0.2" != client_of(("127.0.0.3", 5))
    assert client_of(("2001:db8::1", 5)) == client_of(("2001:db8::ffff:2", 5)) != client_of(("2001:db8:0:1::1", 5))
    assert client_of(None) == ""


@pytest.mark.parametrize("guarded", [True, False])
def test_who_leaves_is_not_worked_for(guarded: bool, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(library.model, monkeypatch)
    if not guarded:

        async def anyway(self: Any, answering: Any, body: Any) -> None:
            await answering

        monkeypatch.setattr(guard.Guard, "_while_wanted", anyway)
    before = library.count()
    with live(library) as running:
        content = tiny.sound(library.folder.parent / "x.wav", 440).read_bytes()
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{running.address}/v1/items", files={"file": ("x.wav", content)}, timeout=2.0)
        batcher = running.service._batcher
        with batcher._changed:
            left = batcher._changed.wait_for(lambda: batcher.waiting == 0, 5.0)
        gate.open.set()
    assert left is guarded
    assert (library.count() == before) is guarded
    assert (list((library.folder / "files").iterdir()) == []) is guarded


@pytest.mark.parametrize("guarded", [True, False])
def test_files_of_the_library_may_be_larger_than_uploads(
    guarded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "media").mkdir()
    film = tiny.clip(tmp_path / "media" / "a.mp4", 20.0)
    settings = Settings(port=0, max_body_mb=(film.stat().st_size - 1) / 2**20)
    if not guarded:
        monkeypatch.setattr(Settings, "library_limits", Settings.limits)
    with Library.open(tmp_path / "library", tiny.model()) as library:
        library.index(tmp_path / "media")
        number = library.search("text:x", want=["video"])[0].item_id
        with live(library, settings) as running:
            media = running.http.get(f"/v1/items/{number}/media")
            assert (media.headers["content-type"] == "video/mp4") is guarded
            assert media.headers["content-disposition"].startswith("inline") is guarded
            assert (running.http.get(f"/v1/items/{number}/thumbnail").status_code == 200) is guarded


ODD: list[tuple[str, dict[str, Any], int]] = [
    ("/v1/embeddings", {"json": {"input": "a dog", "encoding_format": None}}, 200),
    ("/v1/embeddings", {"json": {"input": []}}, 400),
    ("/v1/embeddings", {"json": {"input": [[]]}}, 400),
    ("/v1/embeddings", {"content": b'{"input": {"item": ' + b"1" * 5000 + b"}}"}, 400),
    ("/v1/embeddings", {"files": {"item": (None, "0" * 19 + "1" * 5000)}}, 400),
    ("/v1/search", {"files": {"text": (None, "a"), "weights": (None, ",".join("1" * 65))}}, 400),
    ("/v1/search", {"files": [("text", (None, "a"))] * 65}, 413),
    ("/v1/search", {"json": {"terms": [{"text": "a"}] * 65}}, 400),
    ("/v1/search", {"content": b"[" * 100_000}, 400),
    ("/v1/search", {"json": {"query": "a"}, "headers": {"origin": "http://["}}, 403),
]


@pytest.mark.parametrize(("path", "asked", "status"), ODD)
def test_odd_requests_are_told_what_is_wrong(path: str, asked: dict[str, Any], status: int, library: Library) -> None:
    with live(library) as running:
        headers = {"content-type": "application/json"} if "content" in asked else {}
        answer = running.http.post(path, **{"headers": headers, **asked})
    assert answer.status_code == status, answer.text
    if status != 200:
        assert answer.json()["error"]["message"]


def hostile_library(folder: Path) -> Path:
    """A library in which everything that is text wants to run, written by hand."""
    with Library.open(folder / "library", tiny.seven()) as library:
        library.index(folder / "media")
    with connect(folder / "library" / "catalogue.sqlite") as database:
        metadata = json.dumps({HACK: HACK, "deep": {HACK: [HACK]}})
        columns = "path = ?, shown = ?, name = ?, folder = ?, caption = ?, metadata = ?, date = ?"
        path = f"/nowhere/{HACK}/{HACK.replace('/', '')}.png"
        database.execute(f"UPDATE files SET {columns}", (path.encode(), path, HACK, HACK, HACK, metadata, HACK))
        database.execute("UPDATE segments SET modality = ?", (HACK,))
        database.execute("UPDATE contents SET modality = ?", (HACK,))
        for table in ("files", "segments", "contents"):
            sign(database, table)  # whoever writes it by hand can do this too
    database.close()
    shutil.rmtree(folder / "library" / "index")
    return folder / "library"


SINKS = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|srcdoc|\beval\("
)
"""What makes markup or code of a text."""


def test_text_of_a_library_cannot_run(tmp_path: Path) -> None:
    """The API answers with JSON that no browser takes for a page, and the page's modules make no markup of it."""
    tiny.picture(tmp_path / "media" / "a.png", 1)
    with Library.open(hostile_library(tmp_path), tiny.seven()) as library, live(library, page=True) as running:
        for path in ("/v1/items", "/v1/items/1", "/v1/items?files=true", "/v1/facets", "/v1/duplicates"):
            answer = running.http.get(path)
            assert answer.headers["content-type"].startswith("application/json"), path
            assert answer.headers["x-content-type-options"] == "nosniff", path
        assert "hacked()" in running.http.get("/v1/items").text
        assert "hacked()" not in running.http.get("/").text
    modules = sorted(Path(page_module.__file__).parent.rglob("*.js"))
    assert modules
    assert [module.name for module in modules if SINKS.search(module.read_text("utf-8"))] == []
    assert SINKS.search("element.innerHTML = hit.name")


def test_the_page_runs_its_own_scripts_only(library: Library) -> None:
    with live(library, Settings(port=0), page=True) as running:
        policy = running.http.get("/").headers["content-security-policy"]
    scripts = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert scripts == "script-src 'self'"


def test_a_short_siege(tmp_path: Path) -> None:
    siege.make_library(tmp_path / "library", "small", 2_000)
    with siege.served(tmp_path / "library") as target:
        met = asyncio.run(siege.besiege(target, 8.0, 4.0, 0.0, honest=12))
    told = met.told()
    assert met.honest.statuses[200] > 0 and set(met.honest.statuses) <= {200, 429}, told
    assert set(met.health.statuses) == {200}, told
    assert met.health.quantile_s(0.5) < 1.0, told
    for name, attacker in met.attackers.items():
        assert not {status for status in attacker.statuses if status >= 500 and status != 504}, (name, told)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_minute_of_siege(tmp_path: Path) -> None:
    siege.make_library(tmp_path / "library", "small", 20_000)
    with siege.served(tmp_path / "library") as target:
        met = asyncio.run(siege.besiege(target, 60.0, 20.0, 60.0))
    told = met.told()
    print(json.dumps(told))
    assert met.health.quantile_s(0.99) < 0.1, told
    assert set(met.honest.statuses) == {200}, told
    assert met.honest.quantile_s(0.5) < 3 * met.quiet.quantile_s(0.5), told
    for name, attacker in met.attackers.items():
        assert not {status for status in attacker.statuses if status >= 500 and status != 504}, (name, told)
    assert met.after_bytes < 1.1 * met.before_bytes, told
