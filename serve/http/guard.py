"""An ASGI middleware that checks every request to the API and the page before the application sees it.

The guard checks the API key (or a browser's sign-in cookie), the headers Host and Origin, and the size and the speed of
a body. It adds the headers that restrict what a browser may do with an answer. It logs one line for each request,
without contents.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import hmac
import ipaddress
import json
import logging
import secrets
import sys
import time
import traceback
from collections import Counter
from collections.abc import Awaitable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.engine.fairness import CLIENT
from serve.engine.metrics import Metrics
from serve.engine.settings import Settings
from serve.http import sign_in
from serve.http.request_body import Refusal, RequestBody

COOKIE = "crossbind_session"  # the name of the page's cookie
SESSION_S = 12 * 3600  # a working day, after which the page asks for the key again
OPEN_PATHS = frozenset({"/health", "/ready"})
"""The paths that need no key: they tell whether the server runs, and nothing else."""
SIGN_IN = "/login"  # where the page's form is sent, and where a browser without a session is sent to
SIGN_OUT = "/logout"  # where the page sends whoever signs out
MAX_HEAD_BYTES = 32_768
"""The largest size of the address and all headers of a request together; h11 stops reading at 64 KiB."""
MAX_ADDRESS_BYTES = 8_192  # path and query; what browsers and proxies accept too
_SIGN_IN_BYTES = 4096  # of the sign-in form: a key and little else
_LARGE_BYTES = 2**20  # bodies above share the rate below, and their memory is given back
RECEIVED_BYTES_PER_S = 64e6
"""The rate of all large bodies together, because the thread that receives them also answers all other requests."""
_GIVE_BACK_AFTER_S = 5.0  # a burst of large requests costs one such call
_LEFT = 499
"""nginx's status for a client that left before it was answered. It appears only in the log."""
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})  # they change nothing, so other sites may send them

_API = ("/v1/", "/metrics", "/health", "/ready")  # paths of the API, which serves data and no pages

API_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""The content security policy of the API: a browser may neither run nor show what it is sent."""


PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'self'; form-action 'self'; "
    "require-trusted-types-for 'script'"
)
"""The page runs scripts of this server only, loads nothing from another host, and never turns text into HTML."""

_PREFLIGHT = {
    "access-control-allow-methods": "GET, POST, PATCH, DELETE",
    "access-control-allow-headers": "authorization, content-type, range",
    "access-control-max-age": "600",
}
"""What scripts of an allowed page may ask for. It names no credentials, so browsers send no cookies with it."""
_HEADERS = {  # of every answer: against guessed types, frames, leaked addresses, reading by other sites
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # `no-referrer` would hide the origin of the sign-in form from our own check
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(self), geolocation=(), payment=(), usb=()",
    "cache-control": "no-store",
}

log = logging.getLogger("crossbind.serve")


class _LeftError(Exception):
    """The client left before it was answered."""


def client_of(place: tuple[str, int] | None) -> str:
    """The address and port of a connection -> the client's name: its address or, for IPv6, its network of 64 bits."""
    try:
        address = ipaddress.ip_address(place[0] if place else "")
    except ValueError:
        return place[0] if place else ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


async def _give_back_memory() -> None:
    """Returns the memory of large requests to the system, soon after: glibc would keep it, scattered over all
    threads.
    """
    await asyncio.sleep(_GIVE_BACK_AFTER_S)
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library has no malloc_trim
            await asyncio.to_thread(ctypes.CDLL(None).malloc_trim, 0)


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def error_body(status: int, code: str, message: str, param: str | None = None) -> bytes:
    """The JSON of an error, in the form of OpenAI's API."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}}).encode()


class Guard:
    """Wraps `app`. Where the server needs keys, only `OPEN_PATHS` and the sign-in form are answered without one."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        # Keys are stored and compared as digests, which all have one length and do not show the key in memory.
        self._keys = [hashlib.sha256(key.encode()).digest() for key in settings.api_keys]
        self._secret = secrets.token_bytes(32)
        self._giving_back: asyncio.Future[None] | None = None
        self._receiving = 0
        self._receiving_of: Counter[str] = Counter()
        self._next_at: dict[str, float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, as ASGI calls an application."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        started = time.monotonic()
        scope = self._below_root(scope)
        headers = Headers(scope=scope)
        client = client_of(scope.get("client"))
        CLIENT.set(client)
        body = RequestBody(receive, self, self._settings, client)
        answer = _Answer(send, scope["path"], body, self._shared_with(headers))
        reason = ""
        try:
            try:
                self._check_size(scope)
                self._check_address(headers, scope["method"])
                if answer.shared_with and scope["method"] == "OPTIONS":
                    await answer.send_whole(204, b"", _PREFLIGHT)  # without a key: browsers send none with this
                elif self._keys and scope["path"] == SIGN_IN:
                    await self._sign_in(scope["method"], body, answer)
                elif self._keys and (scope["method"], scope["path"]) == ("POST", SIGN_OUT):
                    await self._set_session(answer, "", 0, self._settings.root_path + SIGN_IN)
                else:
                    self._check_key(scope, headers)
                    body.expect(headers)
                    await self._while_wanted(self._app(scope, body, answer), body)
            except (ClientDisconnect, _LeftError):
                answer.status = answer.status or _LEFT
            except Refusal as refusal:
                body.refusal = body.refusal or refusal
                await answer.refuse(refusal)
            except Exception as error:
                # The log gets the place of the error but not its message, which may hold contents.
                places = [f"{f.filename}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
                log.error("failed", extra={"fields": {"error": type(error).__name__, "places": places[-8:]}})
                await answer.refuse(Refusal(500, "internal_error", "this is a fault of the server; its log says more"))
        finally:
            self._receiving -= body.size
            self._receiving_of[client] -= body.size
            if self._receiving_of[client] <= 0:
                del self._receiving_of[client]
                self._next_at.pop(client, None)
            if body.size > _LARGE_BYTES:
                self._give_back_soon()
            reason = body.refusal.code if body.refusal else ""
            self._count(scope, answer.status, time.monotonic() - started, body.size, reason)

    def _below_root(self, scope: Scope) -> Scope:
        """A request as it would be without the proxy's path in its address; whether the proxy took that off already."""
        root, path = self._settings.root_path, scope["path"]
        if not root or not (path + "/").startswith(root + "/"):
            return scope
        raw = scope.get("raw_path")
        below = {"path": path[len(root) :] or "/"}
        return {**scope, **below, **({"raw_path": raw[len(root) :] or b"/"} if raw else {})}

    def _shared_with(self, headers: Headers) -> str:
        """The origin of the page that asks, where it is another one's and allowed; else ''."""
        origin = headers.get("origin", "").lower()
        allowed = self._settings.allowed_origin
        return origin if origin and (origin in allowed or "*" in allowed) else ""

    def _give_back_soon(self) -> None:
        if self._giving_back is None or self._giving_back.done():
            self._giving_back = asyncio.ensure_future(_give_back_memory())

    async def _while_wanted(self, answering: Awaitable[None], body: RequestBody) -> None:
        """Answers, and raises _LeftError as soon as the client has left."""
        answer = asyncio.ensure_future(answering)
        leaving = asyncio.ensure_future(body.left())
        try:
            await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                answer.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await answer
                raise _LeftError
            await answer
        finally:
            answer.cancel()
            leaving.cancel()

    def has_room(self, client: str) -> bool:
        """Whether more bytes of bodies may be received at the moment from this client."""
        settings = self._settings
        own = self._receiving_of[client]
        return self._receiving <= settings.max_bodies_bytes and own <= settings.max_bodies_bytes_each

    def received(self, client: str, count: int) -> float:
        """Counts received bytes of a body, until its request is finished -> the seconds to wait before reading more."""
        self._receiving += count
        self._receiving_of[client] += count
        if self._receiving_of[client] <= _LARGE_BYTES:
            return 0.0
        now = time.monotonic()
        self._next_at.setdefault(client, now)
        share = RECEIVED_BYTES_PER_S / len(self._next_at)
        self._next_at[client] = max(self._next_at[client], now) + count / share
        return self._next_at[client] - now

    def _check_size(self, scope: Scope) -> None:
        address = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        if address > MAX_ADDRESS_BYTES:
            raise Refusal(414, "too_long", f"expected an address of at most {MAX_ADDRESS_BYTES:,} bytes")
        if address + sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > MAX_HEAD_BYTES:
            raise Refusal(431, "too_large", f"expected at most {MAX_HEAD_BYTES:,} bytes of headers")

    def _check_address(self, headers: Headers, method: str) -> None:
        hosts = headers.getlist("host")
        if len(hosts) != 1:
            raise Refusal(400, "bad_host", f"expected one Host header, got {len(hosts)}")
        name = hosts[0].rsplit(":", 1)[0] if not hosts[0].endswith("]") else hosts[0]
        allowed = self._settings.hosts
        if allowed and name.lower() not in allowed:
            raise Refusal(
                421, "unknown_host", "this server does not answer to that name; --allowed-host lets it (see the README)"
            )
        if method in _SAFE_METHODS or self._shared_with(headers):
            return
        # A page of another site can make a browser send forms here without asking, but it cannot hide its origin.
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise Refusal(403, "other_origin", "requests from pages of other sites are refused")
        origin = headers.get("origin")
        if origin is not None and _host_of(origin) != hosts[0].lower():
            raise Refusal(403, "other_origin", "requests from pages of other sites are refused")

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        if not self._keys or scope["path"] in OPEN_PATHS:
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_key(key.strip()):
            return
        if self._is_session(headers.get("cookie", "")):
            return
        if scope["method"] == "GET" and "text/html" in headers.get("accept", "") and scope["path"] == "/":
            raise Refusal(303, "sign_in", "sign in first", {"location": self._settings.root_path + SIGN_IN})
        raise Refusal(
            401, "invalid_api_key", "expected an API key: Authorization: Bearer KEY", {"www-authenticate": "Bearer"}
        )

    def _is_key(self, key: str) -> bool:
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        known = False
        for own in self._keys:  # all keys are compared, whichever fits, so that the time reveals nothing
            known |= secrets.compare_digest(own, digest)
        return known

    def _is_session(self, cookie: str) -> bool:
        # The header is parsed here, because the standard library's parser takes quadratic time for some values.
        pairs = (part.partition("=") for part in cookie.split(";"))
        session = next((value.strip() for name, _, value in pairs if name.strip() == COOKIE), "")
        if not session:
            return False
        until, _, mark = session.partition(".")
        if not secrets.compare_digest(self._mark(until).encode(), mark.encode("utf-8", "surrogateescape")):
            return False
        return int(until) > time.time()

    def _mark(self, until: str) -> str:
        return hmac.new(self._secret, until.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()

    async def _sign_in(self, method: str, body: RequestBody, answer: _Answer) -> None:
        root = self._settings.root_path
        if method == "GET":
            await answer.page(200, "", root)
            return
        if method != "POST":
            raise Refusal(405, "method_not_allowed", "expected GET or POST", {"allow": "GET, POST"})
        body.most_bytes = _SIGN_IN_BYTES
        try:
            form = parse_qs((await body.all()).decode("utf-8", "replace"), max_num_fields=4)
        except ValueError:
            raise Refusal(400, "bad_form", "expected a form with one field, `key`") from None
        if not self._is_key(form.get("key", [""])[0].strip()):
            await answer.page(401, sign_in.WRONG, root)
            return
        until = str(int(time.time()) + SESSION_S)
        await self._set_session(answer, f"{until}.{self._mark(until)}", SESSION_S, f"{root}/")

    async def _set_session(self, answer: _Answer, session: str, seconds: int, then: str) -> None:
        place = f"{self._settings.root_path}/"
        cookie = f"{COOKIE}={session}; Path={place}; Max-Age={seconds}; HttpOnly; SameSite=Strict"
        await answer.send_whole(303, b"", {"location": then, "set-cookie": cookie})

    def _count(self, scope: Scope, status: int, seconds: float, size: int, reason: str) -> None:
        route = getattr(scope.get("route"), "path", None) or ("page" if 200 <= status < 400 else "other")
        method = scope["method"] if scope["method"] in (*_SAFE_METHODS, "POST", "DELETE") else "other"
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if reason:
            self._metrics.refused.labels(reason).inc()
        client = scope.get("client") or ("",)
        fields: dict[str, Any] = {"method": method, "route": route, "status": status, "seconds": round(seconds, 4)}
        fields |= {"received_bytes": size, "client": client[0]} | ({"refused": reason} if reason else {})
        log.info("request", extra={"fields": fields})


class _Answer:
    """The `send` of a request: it adds headers, and sends a refusal even where the application sends something else."""

    def __init__(self, send: Send, path: str, body: RequestBody, shared_with: str) -> None:
        self.shared_with = shared_with
        self._send = send
        self._body = body
        self._policy = API_POLICY if path.startswith(_API) else PAGE_POLICY
        self._started = False
        self._replaced = False
        self.status = 0

    async def __call__(self, message: Message) -> None:
        """Sends a message of the application, with the headers that every answer has."""
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            if self._body.refusal is not None:  # the application answered the refusal in its own way
                await self.refuse(self._body.refusal)
                return
            self._started = True
            self.status = message["status"]
            message.setdefault("headers", [])
            headers = MutableHeaders(scope=message)
            for name, value in (*_HEADERS.items(), ("content-security-policy", self._policy)):
                headers.setdefault(name, value)
            if self.shared_with:
                headers["access-control-allow-origin"] = self.shared_with
                headers["access-control-expose-headers"] = "content-range, retry-after"
                headers.add_vary_header("Origin")
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Answers with a refusal; an answer that has begun is cut off."""
        if self._replaced:
            return
        if not self._started:
            self._body.refusal = None  # it is answered now
            body = error_body(refusal.status, refusal.code, refusal.message)
            # The rest of the body will not be read.
            await self.send_whole(refusal.status, body, {"connection": "close", **refusal.headers})
            self._body.refusal = refusal
        self._replaced = True

    async def page(self, status: int, message: str, root: str) -> None:
        """Answers with the sign-in form of a server that lies at `root`."""
        self._policy = sign_in.POLICY
        body = sign_in.page(message, root + SIGN_IN)
        await self.send_whole(status, body, {"content-type": "text/html; charset=utf-8"})

    async def send_whole(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Answers with a body, JSON unless said otherwise."""
        headers = {"content-type": "application/json", "content-length": str(len(body))} | headers
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self({"type": "http.response.start", "status": status, "headers": raw})
        await self._send({"type": "http.response.body", "body": body})
