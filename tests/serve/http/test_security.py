"""Attacks on a running server. Each fails, and works once the guard against it is taken off: so it is the guard."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol

from bind import modalities, owned
from preprocess.source import Limits, Plan, Segment, Source
from serve.engine.settings import Settings, SettingsError
from serve.http import guard, server
from serve.library import uploads
from serve.library import where as filters
from serve.library.library import Library
from serve.library.schema import FILE
from serve.library.verified_files import VerifiedFiles
from serve.library.where import Where
from tests.serve import bad, tiny
from tests.serve.live import Live, live

KEYS = ("first-key-of-this-server", "second-key-of-this-server")
SECRET = "the secret of this machine"
PATIENCE_S = 2.0
"""How long an attack waits before it counts as having got what it wanted; the guards below act within 0.3 s."""

Patch = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    tiny.picture(tmp_path / "media" / "a.png", 1)
    tiny.picture(tmp_path / "media" / "b.png", 2)
    (tmp_path / "secret.png").write_text(SECRET)
    with Library.open(tmp_path / "library", tiny.model()) as opened:
        opened.index(tmp_path / "media")
        yield opened


def raw(running: Live, content: bytes) -> bytes:
    """Sends bytes and returns what comes until the server ends the connection; TimeoutError if it waits."""
    with socket.create_connection(running.place) as connection:
        connection.settimeout(PATIENCE_S)
        connection.sendall(content)
        parts = []
        while part := connection.recv(65_536):
            parts.append(part)
        return b"".join(parts)


def post(path: str, body: bytes = b"", **headers: str) -> bytes:
    lines = {"Host": "127.0.0.1", "Content-Type": "application/json", "Connection": "close", **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def ask(running: Live, **headers: str) -> httpx.Response:
    return httpx.post(f"{running.address}/v1/embeddings", json={"input": "a dog"}, headers=headers)


def stranger(running: Live) -> bool:
    answers = [ask(running), ask(running, authorization="Bearer first-key-of-this-servex")]
    answers += [ask(running, authorization=f"Basic {KEYS[0]}"), ask(running, cookie=f"{guard.COOKIE}=99999999999.00")]
    answers += [httpx.get(running.address + path) for path in ("/metrics", "/v1/models", "/v1/items/1/media")]
    return any(answer.status_code != 401 for answer in answers)


def other_name(running: Live) -> bool:
    return ask(running, host="evil.example").status_code == 200


def other_page(running: Live) -> bool:
    """A form of another site that a browser sends here, to add and to delete."""
    picture = {"file": ("x.png", Path(running.service.library.item(1).path).read_bytes())}
    address = f"{running.address}/v1/items"
    answers = [
        httpx.post(address, files=picture, headers={"origin": "http://evil.example"}),
        httpx.post(address, files=picture, headers={"origin": "null"}),
        httpx.post(address, files=picture, headers={"sec-fetch-site": "cross-site"}),
        httpx.delete(f"{address}/1", headers={"origin": "http://evil.example"}),
    ]
    return any(answer.status_code != 403 for answer in answers)


def endless_body(running: Live) -> bool:
    """More than is allowed, in chunks that never say how much there will be."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    head = post("/v1/embeddings", Transfer_Encoding="chunked")
    try:
        return b" 413 " not in raw(running, head + chunk * 20 + b"0\r\n\r\n").split(b"\r\n")[0]
    except ConnectionError:
        return False  # ended before all of it was sent


def announced_body(running: Live) -> bool:
    return b" 413 " not in raw(running, post("/v1/embeddings", Content_Length="99999999999"))


def slow_body(running: Live) -> bool:
    try:
        return b" 408 " not in raw(running, post("/v1/embeddings", b"{", Content_Length="1000"))
    except TimeoutError:
        return True


def slow_head(running: Live) -> bool:
    head = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    for before in (b"", head + b"\r\n"):
        with socket.create_connection(running.place) as connection:
            connection.settimeout(PATIENCE_S)
            if before:
                connection.sendall(before)
                assert _answers(connection)
            connection.sendall(head + b"X-Slow: ")
            try:
                connection.recv(100)
            except ConnectionError:
                continue
            except TimeoutError:
                return True
    return False


def crowd(running: Live) -> bool:
    """More connections than are allowed, all of them open."""
    connections = [socket.create_connection(running.place) for _ in range(30)]
    try:
        for connection in connections:
            connection.settimeout(PATIENCE_S)
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        return all(_answers(connection) for connection in connections)
    finally:
        for connection in connections:
            connection.close()


def _answers(connection: socket.socket) -> bool:
    try:
        return connection.recv(100).startswith(b"HTTP/1.1 200")
    except ConnectionError:
        return False


def flood(running: Live) -> bool:
    """Bodies that are allowed one by one, but not together."""
    connections = [socket.create_connection(running.place) for _ in range(6)]
    try:
        for connection in connections:
            connection.settimeout(PATIENCE_S)
            connection.sendall(post("/v1/embeddings", b" " * 900_000, Content_Length="1000000"))
        return not any(_refused(connection) for connection in connections)
    finally:
        for connection in connections:
            connection.close()


def _refused(connection: socket.socket) -> bool:
    try:
        return b" 429 " in connection.recv(100)
    except TimeoutError:
        return False


def escape(running: Live) -> bool:
    """A file name that leads out of the place where uploads are kept."""
    picture = Path(running.service.library.item(1).path).read_bytes()
    names = ["../../escaped.png", "..\\..\\escaped.png", str(running.service.library.folder / "escaped.png")]
    for name in names:
        httpx.post(f"{running.address}/v1/items", files={"file": (name, picture)})
    folder = running.service.library.folder  # an upload that fails is deleted: by that name, the library itself
    return (folder / "escaped.png").exists() or not (folder / FILE).exists()


def swapped(running: Live) -> bool:
    """A file of the library that became a link to somebody else's since."""
    place = Path(running.service.library.item(1).path)
    place.unlink()
    place.symlink_to(place.parent.parent / "secret.png")
    return SECRET in httpx.get(f"{running.address}/v1/items/1/media").text


def bomb(running: Live) -> bool:
    """90 million pixels in some kilobytes."""
    content = bad.bomb(9_500)
    assert len(content) < 100_000
    answer = httpx.post(f"{running.address}/v1/embeddings", files={"image": ("x.png", content)}, timeout=60)
    return "pixels" not in answer.text  # of another answer, the many pixels are not the reason


def injection(running: Live) -> bool:
    body = {"query": "x", "where": "1=1"}
    return httpx.post(f"{running.address}/v1/search", json=body).status_code == 200


def sniffing(running: Live) -> bool:
    headers = httpx.get(f"{running.address}/v1/items/1/media").headers
    wanted = {"x-content-type-options": "nosniff", "x-frame-options": "DENY", "referrer-policy": "same-origin"}
    return any(headers.get(name) != value for name, value in wanted.items())


def set_attribute(target: object, name: str, value: object) -> Patch:
    return lambda patch: patch.setattr(target, name, value)


def let_names_lead_out(patch: pytest.MonkeyPatch) -> None:
    """Takes off both guards of a file name: its own check, and that of the folders opened by descriptors."""
    patch.setattr(uploads, "safe_name", lambda name: name)
    patch.setattr(owned, "_check_name", lambda name: name)


NOTHING: Callable[..., None] = lambda *_, **__: None  # noqa: E731
QUICK = Settings(
    port=0,
    max_body_mb=1,
    max_bodies_mb=3,
    max_connections=20,
    head_timeout_s=0.3,
    body_timeout_s=0.3,
)
PATIENT = QUICK.model_copy(update={"body_timeout_s": 30.0, "head_timeout_s": 30.0})
ATTACKS: dict[str, tuple[Callable[[Live], bool], Settings, Patch]] = {
    "stranger": (stranger, Settings(port=0, api_keys=KEYS), set_attribute(guard.Guard, "_check_key", NOTHING)),
    "other name": (other_name, QUICK, set_attribute(Settings, "hosts", ())),
    "other page": (other_page, Settings(port=0), set_attribute(guard, "_SAFE_METHODS", {"GET", "POST", "DELETE"})),
    "endless body": (endless_body, QUICK, set_attribute(guard.RequestBody, "_refuse_size", NOTHING)),
    "announced body": (announced_body, QUICK, set_attribute(guard.RequestBody, "expect", NOTHING)),
    "slow body": (slow_body, QUICK, set_attribute(guard.RequestBody, "__call__", lambda body: body._receive())),
    "slow head": (slow_head, QUICK, set_attribute(server, "protocol", lambda _: H11Protocol)),
    "crowd": (crowd, PATIENT, set_attribute(server, "protocol", lambda _: H11Protocol)),
    "flood": (flood, PATIENT, set_attribute(guard.Guard, "has_room", lambda *_: True)),
    "escape": (escape, Settings(port=0), let_names_lead_out),
    "swapped": (
        swapped,
        Settings(port=0),
        set_attribute(VerifiedFiles, "check", lambda *_: None),
    ),
    "bomb": (bomb, Settings(port=0), set_attribute(Settings, "limits", Limits())),
    "injection": (injection, Settings(port=0), set_attribute(filters, "parse", lambda where, *_: Where(where, ()))),
    "sniffing": (sniffing, Settings(port=0), set_attribute(guard, "_HEADERS", {})),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_the_attack_fails(name: str, library: Library) -> None:
    attack, settings, _ = ATTACKS[name]
    with live(library, settings) as running:
        assert not attack(running)
        assert running.http.get("/health").status_code == 200
        assert running.http.post("/v1/embeddings", json={"input": "a dog"}).status_code == 200


@pytest.mark.parametrize("name", ATTACKS)
def test_the_attack_works_without_its_guard(name: str, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    attack, settings, take_off = ATTACKS[name]
    take_off(monkeypatch)
    with live(library, settings) as running:
        assert attack(running)


def test_an_address_that_others_reach_needs_keys() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(SettingsError, match="needs API keys"):
            Settings(host=host)
        assert Settings(host=host, api_keys=KEYS).hosts == ()
    for host in ("127.0.0.1", "127.0.0.5", "::1", "localhost"):
        assert Settings(host=host).hosts
    with pytest.raises(SettingsError, match=r"max_batch: expected at least 1(?s:.*)API key 1: expected at least 16"):
        Settings(api_keys=("short",), max_batch=0)


def test_what_others_send_is_decoded_in_isolation() -> None:
    assert Settings().limits.decode == "isolated"


def test_every_key_is_compared_in_constant_time(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = secrets.compare_digest

    def spy(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(guard.secrets, "compare_digest", spy)
    with live(library, Settings(port=0, api_keys=KEYS)) as running:
        for key, status in ((KEYS[0], 200), (KEYS[1], 200), ("x", 401), ("é" * 20, 401)):
            compared.clear()
            sent = f"Bearer {key}".encode()
            answer = httpx.get(f"{running.address}/v1/models", headers={b"authorization": sent})
            assert answer.status_code == status, answer.text
            assert len(compared) == len(KEYS)
            assert all(len(one) == len(other) == 32 for one, other in compared)


def test_browsers_sign_in_once(library: Library) -> None:
    with live(library, Settings(port=0, api_keys=KEYS)) as running, httpx.Client(base_url=running.address) as browser:
        first = browser.get("/", headers={"accept": "text/html"})
        assert (first.status_code, first.headers["location"]) == (303, "/login")
        form = browser.get("/login")
        assert "API key" in form.text and "script-src" not in form.headers["content-security-policy"]
        assert browser.post("/login", data={"key": "wrong"}).status_code == 401
        assert browser.post("/login", data={"key": KEYS[1]}, headers={"origin": "http://evil"}).status_code == 403
        assert browser.post("/login", content=b"key=" + b"x" * 10_000).status_code == 413
        assert browser.get("/v1/models").status_code == 401
        done = browser.post("/login", data={"key": KEYS[1]})
        assert done.status_code == 303
        for part in ("HttpOnly", "SameSite=Strict", "Path=/"):
            assert part in done.headers["set-cookie"]
        assert KEYS[1] not in done.headers["set-cookie"]
        assert browser.get("/v1/models").status_code == 200
        until, mark = browser.cookies[guard.COOKIE].split(".")
        for forged in (f"{int(until) + 1}.{mark}", f"{until}.{mark[:-1]}", f"{until}", "x.y", ".", f"{until}.é"):
            headers = {b"cookie": f"{guard.COOKIE}={forged}".encode()}
            assert httpx.get(f"{running.address}/v1/models", headers=headers).status_code == 401, forged


def test_a_session_ends(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    with live(library, Settings(port=0, api_keys=KEYS)) as running, httpx.Client(base_url=running.address) as browser:
        browser.post("/login", data={"key": KEYS[0]})
        now = guard.time.time()
        monkeypatch.setattr(guard.time, "time", lambda: now + guard.SESSION_S + 1)
        assert browser.get("/v1/models").status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/v1/items/../../../../etc/passwd/media",
        "/v1/items/..%2f..%2f..%2fetc%2fpasswd/media",
        "/v1/items/1/../../secret.png",
        "/v1/items/1%00/media",
        "/v1/items/-1/media",
        "/v1/items/99999999999999999999999/media",
        "/v1/items/1e3/media",
        "//etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/files/x.png",
        "/library/catalogue.sqlite",
    ],
)
def test_paths_lead_nowhere(path: str, library: Library) -> None:
    with live(library) as running:
        answer = raw(running, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        assert int(answer.split(b" ", 2)[1]) in (400, 404)
        assert SECRET.encode() not in answer and b"root:" not in answer


def test_no_address_is_ever_fetched(library: Library) -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap, live(library) as running:
        trap.settimeout(0.2)
        address = f"http://127.0.0.1:{trap.getsockname()[1]}/x.png"
        playlist = f"#EXTM3U\n{address}\n".encode()
        for body in ({"input": {"image": address}}, {"input": {"file": address}}, {"input": {"video": address}}):
            assert running.http.post("/v1/embeddings", json=body).status_code == 400
        for name in ("x.m3u8", "x.mp4", "x.txt"):
            assert running.http.post("/v1/embeddings", files={"file": (name, playlist)}).status_code == 422
            assert running.http.post("/v1/items", files={"file": (name, playlist)}).status_code == 422
        with pytest.raises(TimeoutError):
            trap.accept()
        with socket.create_connection(trap.getsockname()):  # the trap would have noticed
            trap.accept()[0].close()


def test_names_cannot_write_headers(library: Library, tmp_path: Path) -> None:
    name = 'a"\r\nx-evil: 1\r\n.png'
    os.rename(tiny.picture(tmp_path / "odd" / "x.png", 5), tmp_path / "odd" / name)
    library.index(tmp_path / "odd")
    with live(library) as running:
        number = library.find(library.vectors([1]), 1, where="folder = '' and name like 'a\"%'")[0].item_id
        answer = running.http.get(f"/v1/items/{number}/media")
        assert answer.status_code == 200 and "x-evil" not in answer.headers
        assert running.http.get(f"/v1/items/{number}").json()["path"].endswith(name)


def test_a_page_in_disguise_runs_nothing(library: Library) -> None:
    with live(library) as running:
        page = "<html><script>alert(document.cookie)</script>"
        items = running.http.post("/v1/items", files={"file": ("page.txt", page.encode())}).json()["data"]
        answer = running.http.get(items[0]["media"])
        assert answer.text == page
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
        for name in ("page.html", "page.svg", "page.xhtml"):
            assert running.http.post("/v1/items", files={"file": (name, page.encode())}).status_code == 422


def test_other_sites_may_not_read(library: Library) -> None:
    with live(library) as running:
        asked = {"origin": "http://evil.example", "access-control-request-method": "POST"}
        assert running.http.options("/v1/embeddings", headers=asked).status_code == 405
        answer = running.http.get("/v1/models", headers={"origin": "http://evil.example"})
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_sockets_of_the_web_are_refused(library: Library) -> None:
    with live(library) as running:
        upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n"
        answer = raw(running, f"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n{upgrade}Connection: close\r\n\r\n".encode())
        assert b" 101 " not in answer.split(b"\r\n")[0]


def test_too_many_parts_are_refused(library: Library) -> None:
    with live(library) as running:
        many = [("text", (None, "x"))] * 400
        assert running.http.post("/v1/embeddings", files=many).status_code == 400
        # Texts of one request are embedded piece by piece; a sum of many counts as many.
        assert running.http.post("/v1/embeddings", json={"input": ["x"] * 2049}).status_code == 400
        sums = [{"terms": [{"text": "x"}] * 2}] * 1025
        assert running.http.post("/v1/embeddings", json={"input": sums}).status_code == 413
        assert running.http.post("/v1/search", json={"terms": [{"text": "x"}] * 65}).status_code == 400


def test_a_thousand_connections(library: Library) -> None:
    with live(library, Settings(port=0, client_share=1.0)) as running:
        connections = [socket.create_connection(running.place) for _ in range(1000)]
        try:
            assert running.http.post("/v1/embeddings", json={"input": "a dog"}).status_code == 200
            body = b'{"input":"a dog","encoding_format":"base64"}'
            request = post("/v1/embeddings", body, Content_Length=str(len(body)))
            for connection in connections:
                connection.sendall(request)
            statuses = set()
            for connection in connections:
                connection.settimeout(60)
                statuses.add(connection.recv(65_536).split(b" ", 2)[1])
            assert b"200" in statuses and statuses <= {b"200", b"429"}
        finally:
            for connection in connections:
                connection.close()
        assert running.http.get("/ready").status_code == 200


def die(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def test_a_killed_decode_worker_costs_one_request(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Path(library.item(1).path).read_bytes()
    with live(library) as running:
        with monkeypatch.context() as patch:
            deadly = dataclasses.replace(modalities.spec("image"), read=die)
            patch.setitem(modalities.specs(), "image", deadly)
            answer = running.http.post("/v1/embeddings", files={"image": ("x.png", picture)})
            assert answer.status_code == 422 and "signal 9" in answer.text
        assert running.http.post("/v1/embeddings", files={"image": ("x.png", picture)}).status_code == 200


def test_a_request_that_takes_too_long_is_given_up(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()
    encode = library.model.encode_views
    monkeypatch.setattr(library.model, "encode_views", lambda *a: (held.wait(60), encode(*a))[1])
    with live(library, Settings(port=0, deadline_s=0.3)) as running:
        answer = running.http.post("/v1/embeddings", json={"input": "a dog"})
        held.set()
        assert answer.status_code == 504 and answer.json()["error"]["code"] == "too_late"
        assert running.http.post("/v1/embeddings", json={"input": "a dog"}).status_code == 200


def test_a_fault_tells_nothing_and_the_log_tells_where(
    library: Library, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(library, "answer", fail)
    caplog.set_level(logging.INFO, "crossbind.serve")
    with live(library) as running:
        answer = running.http.post("/v1/search", json={"query": "a dog"})
        assert answer.status_code == 500 and SECRET not in answer.text
        assert running.http.get("/health").status_code == 200
    (failed,) = [record for record in caplog.records if record.message == "failed"]
    written = server.JsonFormatter().format(failed)
    assert SECRET not in written and "service.py" in written and "RuntimeError" in written


def test_the_log_is_json_without_contents(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "crossbind.serve")
    with live(library, Settings(port=0, api_keys=KEYS)) as running:
        running.http.post("/v1/search", json={"query": SECRET, "where": f"name = '{SECRET}'"})
        running.http.get(f"/v1/items/x%0a{SECRET.replace(' ', '%20')}?key={KEYS[0]}")
        httpx.get(f"{running.address}/v1/models", headers={"authorization": f"Bearer {SECRET}"})
    lines = [server.JsonFormatter().format(record) for record in caplog.records if record.name == "crossbind.serve"]
    entries = [json.loads(line) for line in lines]
    assert all("\n" not in line and SECRET not in line and KEYS[0] not in line for line in lines)
    assert [entry["status"] for entry in entries] == [200, 400, 401]
    assert entries[0]["route"] == "/v1/search" and entries[2]["refused"] == "invalid_api_key"


def test_the_page_hands_out_no_files(library: Library, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    with live(library, page=True) as running:
        found = running.http.get("/")
        assert found.status_code == 200 and "text/html" in found.headers["content-type"]
        assert re.search(r"frame-ancestors 'none'", found.headers["content-security-policy"])
        for path in (
            f"/gradio_api/file={secret}",
            f"/file={secret}",
            f"/gradio_api/file/{secret}",
            "/gradio_api/file=/proc/self/environ",
            "/gradio_api/proxy=http://127.0.0.1:1/",
            "/gradio_api/stream/x/y/z/playlist.m3u8",
            f"/static/..%2f..%2f..%2f..%2f{secret}",
            f"/assets/..%2f..%2f{secret}",
            "/gradio_api/queue/data?session_hash=x",
        ):
            answer = running.http.get(path)
            assert answer.status_code in (400, 403, 404, 405), (path, answer.status_code)
            assert SECRET not in answer.text and "PATH=" not in answer.text
        for path in ("/gradio_api/upload", "/upload", "/gradio_api/queue/join", "/gradio_api/run/predict"):
            answer = running.http.post(path, files={"files": ("x.png", b"x")})
            assert answer.status_code in (400, 403, 404, 405), (path, answer.status_code)
