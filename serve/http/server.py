"""The HTTP server: uvicorn with bounds on connections that send no request, and a log in JSON."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from serve.engine.settings import Settings
from serve.http.guard import client_of

_KEEP_ALIVE_S = 15
"""Seconds that an idle connection stays open: longer than a person looks at a page of results."""
_SWITCH_S = 0.001
"""The longest time that one thread runs while others wait.

Python's default, 5 ms, adds up over the steps of a request.
"""
_DESCRIPTORS = 512
"""The number of open files besides connections: the library's files, pipes to decode workers, and uploads."""


class JsonFormatter(logging.Formatter):
    """Formats a log record as one JSON object on a line; a line break or quote in a value cannot begin another
    record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """A record -> its line."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0]:
            entry["error"] = record.exc_info[0].__name__
        return json.dumps(entry)


def configure_logging(level: str) -> None:
    """Sends the whole log of the server to standard error, one JSON object on a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name in ("crossbind", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level.upper())


def protocol(settings: Settings) -> type[asyncio.Protocol]:
    """uvicorn's protocol, which closes connections that send no request in time, and connections beyond the limits.

    The class is uvicorn's protocol in Python (h11), which bounds the size of a request's head to 64 KiB. The other one
    reads without a bound.
    """

    connections_of: Counter[str] = Counter()

    class BoundedProtocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None
        _client_name = ""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            name = self._client_name = client_of(self.client)
            connections_of[name] += 1
            if len(self.connections) > settings.max_connections or connections_of[name] > settings.max_connections_each:
                transport.abort()
                return
            self._await_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            connections_of[self._client_name] -= 1
            if connections_of[self._client_name] <= 0:
                del connections_of[self._client_name]
            super().connection_lost(exc)

        def _await_head(self) -> None:
            """Bounds the time until a whole head has arrived, from its first byte (or from the connection) on."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_timer()
            elif self._timer is None:
                self._timer = self.loop.call_later(settings.head_timeout_s, self._end)

        def _end(self) -> None:
            self._timer = None
            if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
                self.transport.abort()

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return BoundedProtocol


class Server(uvicorn.Server):
    """uvicorn's server, which calls a function as soon as it answers."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves until SIGTERM or SIGINT, then finishes its answers.

        Both signals are the usual way to end it, so no failure.
        """
        # An answer must not wait long for a thread that computes, nor for a garbage collection over the model's
        # objects.
        sys.setswitchinterval(_SWITCH_S)
        gc.collect()
        gc.freeze()
        before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            super().run(sockets)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts as uvicorn does, then calls the function."""
        await super().startup(sockets)
        self._announce()


def bind(settings: Settings) -> socket.socket:
    """A socket bound to the settings' address. Nobody can connect before the server runs. Raises OSError."""
    family, kind, _, _, place = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(place)
    except OSError:
        bound.close()
        raise
    return bound


def address(bound: socket.socket) -> str:
    """A bound socket -> the address to type into a browser."""
    host, port = bound.getsockname()[:2]
    if ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{port}"


def server(app: ASGIApp, settings: Settings, announce: Callable[[], None]) -> Server:
    """A server that is not running yet. `announce` is called once it answers."""
    _raise_descriptor_limit(settings.max_connections + _DESCRIPTORS)
    config = uvicorn.Config(
        app,
        http=protocol(settings),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        # Each request ends by itself, because its body and its answer have deadlines.
        timeout_graceful_shutdown=int(settings.body_timeout_s + settings.deadline_s) + 1,
        backlog=min(settings.max_connections, 2048),
    )
    return Server(config, announce)


def _raise_descriptor_limit(wanted: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
