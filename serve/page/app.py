"""The web page: one gradio component of our own (`page.html`, `page.css`, `page.js`) over a `Service`.

The server keeps no data of a user. A query is a list of terms that the browser keeps. An upload becomes a vector, which
the browser keeps too. So there are no files that others could be served, and no sessions that fill memory. The page
calls the functions in `_functions` only; of gradio's own routes, only those answer that these calls need.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
import shlex
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from bind.modalities import specs
from serve.engine.jobs import Busy, LateError
from serve.engine.terms import Term
from serve.engine.values import TermError
from serve.http.errors import RequestError
from serve.http.guard import error_body, page_policy
from serve.http.limited_json import read_json
from serve.http.schemas import MAX_QUERY_TERMS
from serve.library.calibration import LIKELY
from serve.library.errors import UnknownItemError
from serve.library.query import path_notes
from serve.library.text import shown
from serve.library.where import WhereError
from serve.page import views
from serve.page.examples import PICTURED, Answer, examples, item_term

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from serve.engine.service import Service

MAP_ITEMS = 2000
"""The number of items on the map: more points could not be told apart, and would take long to lay out."""
MAX_CALL_BYTES = 2**20  # of one call of the page, which sends names and numbers; files travel as forms
MAX_CALL_VALUES = 2000
"""The largest number of JSON values in one call of the page.

The longest call has 64 terms, each of which may be a vector.
"""
_EXAMPLE_ITEMS = 100  # items of the library from which the page's examples are chosen
_GLIMPSE_ITEMS = 14  # pictures of the library that an empty page shows


_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
"""Fonts that systems have: the page loads none."""
_FONT_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")  # the same for code
_CALLS = "/gradio_api/component_server/"  # where gradio's front end sends the calls of our component
_OPEN = re.compile(rf"/|/config|/theme\.css|/robots\.txt|/favicon\.ico|/(?:assets|static)/.*|{_CALLS}")
"""The paths that are answered. gradio's uploads, its file and proxy routes, its queue and its tools are left out."""
_INLINE = re.compile(rb"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL)
"""The inline scripts of gradio's page, which hold nothing of a library."""
_HERE = Path(__file__).parent  # the folder of the page's own files

log = logging.getLogger("crossbind.serve")


Function = Callable[[Any], Awaitable[Answer]]


def page(service: Service) -> gr.Blocks:
    """The page over a service, as a gradio app; `mount` serves it."""
    blocks = gr.Blocks(title="Crossbind", analytics_enabled=False, fill_width=True)
    with blocks:
        gr.HTML(
            html_template=(_HERE / "page.html").read_text("utf-8"),
            js_on_load=(_HERE / "page.js").read_text("utf-8"),
            server_functions=_functions(service),
            apply_default_css=False,
            elem_id="crossbind",
        )
    # No function uses gradio's queue; should one ever do, the queue is bounded.
    blocks.queue(max_size=64, default_concurrency_limit=2, api_open=False)
    return blocks


def mount(app: FastAPI, service: Service) -> None:
    """Serves the page at `/`, behind all routes that the app has already."""
    gr.mount_gradio_app(
        app,
        page(service),
        "/",
        theme=gr.themes.Base(font=_FONT, font_mono=_FONT_MONO),
        head=f"<style>{(_HERE / 'page.css').read_text('utf-8')}</style>",
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        allowed_paths=[],
        max_file_size=service.settings.max_body_bytes,
        root_path=service.settings.root_path,
    )
    mounted = app.router.routes[-1]
    mounted.app = _OnlyOpen(mounted.app)  # type: ignore[attr-defined]


class _OnlyOpen:
    """Answers 404 for paths that the page does not need, and 400 for calls that gradio cannot read.

    A JSON call is parsed here first, within bounds, because gradio has none.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and not (scope["type"] == "http" and _OPEN.fullmatch(scope["path"])):
            await JSONResponse({"detail": "Not Found"}, 404)(scope, receive, send)
            return
        if scope["path"] == _CALLS and not _is_form(scope):
            try:
                receive = await _checked_call(receive)
            except RequestError as error:
                body = json.loads(error_body(error.status, error.code, error.message))
                await JSONResponse(body, error.status)(scope, receive, send)
                return
        if scope["path"] == "/":
            await _with_hashes(self.app, scope, receive, send)
            return
        unreadable = False

        async def look(message: Message) -> None:
            nonlocal unreadable
            # Our functions never raise (see `_with_problems`), so gradio raised before it called them.
            if scope["path"] == _CALLS and message.get("status") == 500:
                unreadable = True
            if not unreadable:
                await send(message)

        try:
            await self.app(scope, receive, look)
        except Exception:
            if not unreadable:
                raise
            await JSONResponse({"detail": "Bad Request"}, 400)(scope, receive, send)


async def _with_hashes(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with a page of gradio, and a policy that allows exactly the inline scripts of that page."""
    head = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
    started: Message = {}
    parts: list[bytes] = []

    async def keep(message: Message) -> None:
        nonlocal started
        if message["type"] == "http.response.start":
            started = message
            return
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            content = b"".join(parts)
            scripts = [script.decode() for script in _INLINE.findall(content)]
            MutableHeaders(scope=started)["content-security-policy"] = page_policy(scripts)
            await send(started)
            await send({"type": "http.response.body", "body": content})

    await app({**scope, "headers": head}, receive, keep)


def _is_form(scope: Scope) -> bool:
    return Headers(scope=scope).get("content-type", "").startswith("multipart/form-data")


async def _checked_call(receive: Receive) -> Receive:
    """The `receive` of a call -> a `receive` that returns the same message.

    Raises RequestError for too large a call.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_CALL_BYTES:
            raise RequestError(413, "too_large", f"expected at most {MAX_CALL_BYTES:,} bytes in a call of the page")
        if not message.get("more_body", False):
            break
    request = read_json(b"".join(parts), MAX_CALL_VALUES)
    if not isinstance(request, dict):
        raise RequestError(400, "bad_call", "expected an object")
    # Gradio keeps a state for every session that a call names; our calls name none.
    content = json.dumps(request | {"session_hash": "page"}).encode()
    waiting = [{"type": "http.request", "body": content, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


def _functions(service: Service) -> list[Function]:
    """The functions that page.js calls: each maps one JSON value to an object, which has a `problem` where it
    failed.
    """
    figures = views.Figures(service)
    overview, details, explore, about = _library_functions(service, figures)
    search, embed = _query_functions(service, figures)
    return [overview, search, embed, details, explore, about]


def _library_functions(service: Service, figures: views.Figures) -> tuple[Function, ...]:
    @_with_problems
    async def overview(_: Any) -> Answer:
        facts = await service.read(service.about)
        sample = await service.sample(_EXAMPLE_ITEMS)
        return {
            "model": facts.model,
            "modalities": facts.modalities,
            "files": facts.files,
            "items": dict(facts.items),
            "names": {name: (views.singular(name), views.plural(name)) for name in specs()},
            "max_bytes": service.limits.max_bytes,
            "examples": examples(sample, facts.modalities),
            "glimpse": [item_term(item) for item in sample if item.modality in PICTURED][:_GLIMPSE_ITEMS],
            "where_help": views.where_help(),
            "index_command": f"crossbind index FOLDER --library {_library(service)}",
        }

    @_with_problems
    async def details(item_id: Any) -> Answer:
        with _reading():
            number = int(item_id)
        return {"html": await figures.details(await service.item(number))}

    @_with_problems
    async def explore(known: Any) -> Answer:
        revision = await service.revision()
        if known == revision:
            return {"unchanged": True}
        points = await service.points(MAP_ITEMS)
        names = list(dict.fromkeys(point.modality for point in points))
        return {
            "revision": revision,
            "modalities": names,
            "shown": len(points),
            "total": sum((await service.read(service.counts)).values()),
            "points": [
                (p.item_id, round((p.x + 1) / 2, 4), round((p.y + 1) / 2, 4), names.index(p.modality), p.name)
                for p in points
            ],
        }

    @_with_problems
    async def about(_: Any) -> Answer:
        return {"html": views.about(await service.read(service.about), service.limits, service.limits.max_bytes)}

    return overview, details, explore, about


def _query_functions(service: Service, figures: views.Figures) -> tuple[Function, ...]:
    @_with_problems
    async def search(request: Any) -> Answer:
        with _reading():
            if len(request["terms"]) > MAX_QUERY_TERMS:
                raise ValueError(f"query: expected at most {MAX_QUERY_TERMS} terms, got {len(request['terms'])}")
            terms = [_term(sent) for sent in request["terms"]]
            k, want, where = int(request["k"]), request["want"], request["where"]
            if not (want is None or isinstance(want, list)) or not isinstance(where, str):
                raise TypeError
        try:
            hits = await service.search(terms, k=k, want=want, where=where)
        except WhereError as error:
            return {"where_error": str(error)}
        # An item whose name or caption has the words is a match, whatever it looks like.
        unlikely = bool(hits) and all(
            hit.probability is not None and hit.probability < LIKELY and not hit.keyword for hit in hits
        )
        notes = path_notes([term.content for term in terms if isinstance(term.content, str)], hits)
        return {"count": len(hits), "html": await figures.cards(hits), "unlikely": unlikely, "notes": notes}

    @_with_problems
    async def embed(sent: Any) -> Answer:
        with _reading():
            if len(sent.files) != 1:
                raise TypeError
            name, content = sent.files[0]
            modality = sent.data.get("modality") or None
            term = Term(bytes(content), modality, name=PurePath(name or "file").name)
        try:
            (embedded,) = await service.embed([term])
        except TermError as error:
            others = [other for other in _also(name) if other in service.model.modalities and other != modality]
            return {"problem": _problem(f"{name} could not be used", error.reason) | {"read_as": others}}
        vector = base64.b64encode(embedded.vector.astype("<f4").tobytes()).decode()
        return {"vector": vector, "modality": embedded.modality, "notes": embedded.notes}

    return search, embed


def _with_problems(function: Callable[[Any], Awaitable[Answer]]) -> Callable[[Any], Awaitable[Answer]]:
    """A function -> the same function, whose errors become a `problem` that the page shows."""

    @wraps(function)
    async def answered(sent: Any) -> Answer:
        try:
            return await function(sent)
        except Busy as error:
            reason = "It has as much to do as it takes at once."
            return {"problem": _problem("The server is busy", reason, "busy") | {"retry_after_s": error.retry_after_s}}
        except LateError:
            return {"problem": _problem("This took too long", "Try again; a smaller file or fewer terms are quicker.")}
        except UnknownItemError:
            return {"problem": _problem("This item is gone", "It has left the library; search again.")}
        except TermError as error:
            return {"problem": _problem("A term cannot be used", error.reason)}
        except _UnreadableError:
            return {"problem": _problem("This request cannot be read", "Load the page again.")}
        except ValueError as error:  # terms that cancel out, or k out of range
            return {"problem": _problem("This query cannot be searched for", str(error).rpartition(": ")[2])}
        except Exception as error:
            log.error("failed", exc_info=error, extra={"fields": {"function": function.__name__}})
            return {"problem": _problem("Something went wrong in the server", "Its log says more. Try again.")}

    return answered


class _UnreadableError(Exception):
    """A call is not one that page.js sends."""


@contextmanager
def _reading() -> Iterator[None]:
    """A block whose errors become _UnreadableError."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise _UnreadableError from error


def _problem(title: str, reason: str, kind: str = "failed") -> Answer:
    return {"kind": kind, "title": title, "text": reason}


def _term(sent: Mapping[str, Any]) -> Term:
    """A term as page.js sends it -> the term. Raises ValueError for something else."""
    weight = float(sent["weight"])
    if "words" in sent:
        return Term(str(sent["words"]), weight=weight)
    if "item" in sent:
        return Term(int(sent["item"]), weight=weight)
    try:
        vector = np.frombuffer(base64.b64decode(sent["vector"], validate=True), "<f4")
    except binascii.Error:
        raise ValueError("expected a vector in base64") from None
    return Term(vector.astype(np.float32), weight=weight)


def _also(name: str) -> tuple[str, ...]:
    """The modalities that a file of this name may have although its content does not say so, as for sensors' files."""
    suffix = PurePath(name).suffix.lower()
    if suffix in (".npy", ".exr"):
        return ("depth", "thermal", "imu")
    return ("depth", "thermal") if suffix in (".png", ".tif", ".tiff") else ()


def _library(service: Service) -> str:
    """The folder of the library as a person would type it; only its name where other machines can see the page."""
    folder = service.library.folder
    if not service.settings.is_loopback:
        return shlex.quote(shown(folder.name))
    home = Path.home()
    inside = folder.is_relative_to(home) and folder != home
    return f"~/{shlex.quote(shown(str(folder.relative_to(home))))}" if inside else shlex.quote(shown(str(folder)))
