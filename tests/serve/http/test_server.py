"""`crossbind serve` as a process: how it starts, what it refuses, and that it ends without losing a request."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import typer

from serve.cli import commands as cli
from serve.library.library import Library
from tests.serve import tiny
from tests.serve.load import CROSSBIND


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("server")
    tiny.picture(place / "media" / "a.png", 1)
    with Library.open(place / "library", "small") as opened:
        opened.index(place / "media")
    return place / "library"


@contextmanager
def process(
    *arguments: object, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A crossbind that serves, and the line in which it says where."""
    running = subprocess.Popen(
        [str(CROSSBIND), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | dict(environment or {}),
    )
    assert running.stdout is not None and running.stderr is not None
    try:
        line = next((line for line in running.stdout if "http://" in line), "")
        assert line, running.stderr.read()
        yield running, line
    finally:
        running.kill()
        running.wait()
        running.stdout.close()
        running.stderr.close()


def request(texts: int) -> bytes:
    body = json.dumps({"input": [f"text number {n}" for n in range(texts)], "encoding_format": "base64"}).encode()
    head = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    return f"{head}{len(body)}\r\n\r\n".encode() + body


def test_it_answers_what_it_took_before_it_ends(library: Path) -> None:
    with process("serve", "--library", library, "--port", 0, "--no-page", "--json", "--client-share", 1) as (
        running,
        line,
    ):
        told = json.loads(line)
        assert told["library"] == str(library)
        address = told["address"]
        place = ("127.0.0.1", int(address.rpartition(":")[2]))
        connections = [socket.create_connection(place, timeout=120) for _ in range(8)]
        for connection in connections:
            connection.sendall(request(100))
        # The signal comes when all of it was taken and little of it is done.
        while httpx.get(f"{address}/metrics").text.count("crossbind_queue_depth 0.0"):
            pass
        taken = 0.0
        while taken < 800:
            measured = httpx.get(f"{address}/metrics").text
            waiting = float(re.findall(r"^crossbind_queue_depth (\S+)", measured, re.MULTILINE)[0])
            encoded = re.findall(r"^crossbind_stage_seconds_count.*pre.* (\S+)", measured, re.MULTILINE)
            taken = waiting + sum(map(float, encoded))
        assert waiting > 0, "nothing was left to do"
        running.send_signal(signal.SIGTERM)
        for connection in connections:
            answer = b""
            while part := connection.recv(1 << 20):
                answer += part
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert len(json.loads(body)["data"]) == 100
            connection.close()
        assert running.wait(60) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/health")


def test_every_option_is_a_variable_too(library: Path) -> None:
    variables = {
        "CROSSBIND_SERVE_LIBRARY": str(library),
        "CROSSBIND_SERVE_PORT": "0",
        "CROSSBIND_SERVE_PAGE": "0",
        "CROSSBIND_SERVE_MAX_HITS": "3",
        "CROSSBIND_SERVE_LOG_LEVEL": "info",
        "CROSSBIND_API_KEYS": "first-key-of-this-server, second-key-of-this-server",
    }
    with process("serve", environment=variables) as (running, line):
        match = re.search(r"on (http://\S+)/v1\. Ctrl-C ends it\.", line)
        assert match, line
        key = {"authorization": "Bearer second-key-of-this-server"}
        assert httpx.get(f"{match[1]}/v1/models").status_code == 401
        answer = httpx.post(f"{match[1]}/v1/search", json={"query": "x", "k": 4}, headers=key, timeout=60)
        assert answer.status_code == 400 and "3" in answer.text
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0
        assert running.stderr is not None
        lines = [json.loads(entry) for entry in running.stderr.read().splitlines()]
        assert [entry["status"] for entry in lines if entry["event"] == "request"] == [401, 400]
    command = typer.main.get_command(cli.app)
    for name, sub in command.commands.items():  # type: ignore[attr-defined]
        with sub.make_context(
            name, [], parent=command.make_context("crossbind", [name]), resilient_parsing=True
        ) as told:
            assert told.auto_envvar_prefix == f"CROSSBIND_{name.upper()}"


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["--host", "0.0.0.0"], 2, "needs API keys"),
        (["--host", "0.0.0.0", "--api-keys-file", "no-such-file"], 2, "could not be read"),
        (["--max-terms", "500", "--max-waiting", "10"], 2, "max_terms: expected at most max_waiting"),
        (["--log-level", "loud"], 2, "log_level: expected"),
        (["--deadline-s", "0"], 2, "deadline_s"),
        (["--model", "smal"], 2, "no model 'smal'"),
    ],
)
def test_settings_that_cannot_be_served(library: Path, arguments: list[str], status: int, reason: str) -> None:
    command = [CROSSBIND, "serve", "--library", library, "--port", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == status
    assert reason in done.stderr and "Traceback" not in done.stderr


def test_a_taken_port_is_said(library: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [CROSSBIND, "serve", "--library", library, "--port", str(taken.getsockname()[1]), "--no-page"]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "choose another with --port" in done.stderr and "Traceback" not in done.stderr


def test_the_demonstration_opens_the_page(tmp_path: Path) -> None:
    with process("demo", "--folder", tmp_path, "--serve", "--port", 0) as (running, line):
        match = re.search(r"on (http://\S+) \(page on /, API on /v1\)", line)
        assert match, line
        assert "Crossbind" in httpx.get(match[1], timeout=60).text
        hits = httpx.post(f"{match[1]}/v1/search", json={"query": "a cup of coffee"}, timeout=60).json()["data"]
        assert hits
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0


def test_it_answers_before_its_model_is_loaded(library: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [str(CROSSBIND), "serve", "--library", str(library), "--port", str(port), "--json"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None and running.stderr is not None
    try:
        assert json.loads(running.stderr.readline())["event"] == "starting", "a line before anything is loaded"
        seen: list[tuple[int, str]] = []
        while not seen or seen[-1][0] != 200:
            with suppress(httpx.TransportError):
                assert httpx.get(f"{address}/health", timeout=60).json() == {"status": "ok"}
                early = [
                    httpx.get(f"{address}/v1/models", timeout=60),
                    httpx.get(f"{address}/", timeout=60, headers={"accept": "text/html"}),
                ]
                ready = httpx.get(f"{address}/ready", timeout=60)
                seen.append((ready.status_code, ready.json()["status"]))
                if ready.status_code == 503:
                    assert [answer.status_code for answer in early] in ([503, 200], [200, 200])
                    if early[0].status_code == 503:
                        assert early[0].json()["error"]["code"] == "starting" and early[0].headers["retry-after"]
                        assert "x-frame-options" in early[1].headers
            assert running.poll() is None
        assert seen[0] == (503, "starting") and seen[-1] == (200, "ok")
        assert json.loads(running.stdout.readline())["address"] == address
        assert httpx.get(f"{address}/v1/models", timeout=60).json()["data"][0]["id"] == "small"
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
    finally:
        running.kill()
        running.communicate()
