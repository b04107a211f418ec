"""A server that answers before its model is loaded: that it is up, and that it is not ready yet."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.engine.metrics import Metrics
from serve.engine.settings import Settings
from serve.http.guard import Guard, error_body

RETRY_S = 2
"""Seconds after which a client may ask again: the model loads in some of these."""
_PAGE = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="1"><title>Crossbind starts</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; display: grid; place-items: center; min-height: 90vh; margin: 0 1rem }
@media (prefers-color-scheme: dark) { body { background: #111; color: #eee } }
</style></head><body><main role="status"><h1>Crossbind starts</h1>
<p>The model is being loaded, which takes some seconds. This page goes on by itself.</p></main></body></html>
"""
"""The page that people see until the model is there; it loads itself again."""
_POLICY = b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""What that page may load: nothing but its own style."""


class Starting:
    """Answers with the app that `make` returns as soon as it is there. `make` runs in a thread of its own.

    Until then `/health` is ok, `/ready` says 503 and `starting`, `/` is a page that looks again, and everything else is
    503. `loaded` is called when the app answers. Where `make` raises, `failed` is called; `error` is what it raised.
    """

    def __init__(
        self,
        settings: Settings,
        make: Callable[[], ASGIApp],
        loaded: Callable[[], None],
        failed: Callable[[], None],
    ) -> None:
        self._make = make
        self._loaded = loaded
        self._failed = failed
        self._app: ASGIApp = Guard(_not_yet, settings, Metrics())
        self._inner: _Lifespan | None = None
        self.error: BaseException | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, as ASGI calls an application."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        loading = asyncio.ensure_future(self._load())
        await receive()
        await loading  # a model that is being loaded cannot be interrupted
        if self._inner is not None:
            await self._inner.shutdown()
        await send({"type": "lifespan.shutdown.complete"})

    async def _load(self) -> None:
        try:
            app = await asyncio.to_thread(self._make)
            self._inner = _Lifespan(app)
            await self._inner.startup()
        except BaseException as error:
            self.error = error
            self._failed()
            return
        self._app = app
        # A garbage collection over the model's objects would hold up answers.
        gc.collect()
        gc.freeze()
        self._loaded()


class _Lifespan:
    """Starts and ends an ASGI application, as a server does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._running: asyncio.Future[Any] | None = None

    async def startup(self) -> None:
        """Starts the application. Raises RuntimeError where it refuses."""
        scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        self._running = asyncio.ensure_future(self._app(scope, self._to_app.get, self._from_app.put))
        await self._ask("startup")

    async def shutdown(self) -> None:
        """Ends the application, which finishes what it accepted."""
        await self._ask("shutdown")
        assert self._running is not None
        await self._running

    async def _ask(self, phase: str) -> None:
        await self._to_app.put({"type": f"lifespan.{phase}"})
        answer = await self._from_app.get()
        if answer["type"] != f"lifespan.{phase}.complete":
            raise RuntimeError(f"the {phase} failed: {answer.get('message', '')}")


async def _not_yet(scope: Scope, receive: Receive, send: Send) -> None:
    """The answers of a server whose model is being loaded."""
    path, status, kind, headers = scope["path"], 503, b"application/json", []
    if path == "/health":
        status, body = 200, b'{"status":"ok"}'
    elif path == "/ready":
        body = b'{"status":"starting"}'
    elif path == "/":
        status, body, kind, headers = 200, _PAGE, b"text/html; charset=utf-8", [(b"content-security-policy", _POLICY)]
    else:
        message = f"the model is being loaded; try again in {RETRY_S} s"
        body, headers = error_body(503, "starting", message), [(b"retry-after", str(RETRY_S).encode())]
    headers += [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
