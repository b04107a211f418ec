"""The web page: HTML and ES modules of our own (`front/`) over the API of `/v1`, and gradio's API engine beside it.

Gradio's own front end loads megabytes before anything is seen, cannot page through a library, and swallows the error
of a server that is gone. So the page brings its own front end, in the way that gradio calls server mode: a `Blocks`
without components, whose functions (`serve.page.functions`) are an API, with `gr.api`. What the page shares with other
programs is in `/v1` and not here.

The server keeps no data of a user. A query is a list of terms that the browser keeps, also in its address, behind `#`,
which browsers do not send. A file that one searches with becomes a vector, which the browser keeps too. Of gradio's
routes only the calls of our functions are answered: no uploads, no files, no queue, no sessions that fill memory.
"""

from __future__ import annotations

import base64
import json
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import gradio as gr
from fastapi import Path as InPath
from fastapi import Request, Response
from gradio.events import api
from starlette.datastructures import Headers, UploadFile
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from serve.engine.terms import Term
from serve.engine.values import TermError
from serve.http.answers import JsonAnswer
from serve.http.errors import RequestError
from serve.http.forms import read_form
from serve.http.guard import error_body
from serve.http.limited_json import read_json
from serve.http.schemas import FILE, MAX_ID
from serve.page.figures import Figures
from serve.page.front import FOREVER, front
from serve.page.functions import functions

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from serve.engine.service import Service

MAX_CALL_BYTES = 2**16  # of one call, which sends words and a filter; files travel as forms
MAX_CALL_VALUES = 100
"""The largest number of JSON values in one call of the page's functions."""
_CALLS = "/gradio_api/run/"  # where gradio answers calls of functions, each below its name
_FIGURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
"""The policy of a figure that is opened by itself: nothing in it runs."""


def engine(service: Service) -> gr.Blocks:
    """The page's functions over a service, as a gradio app without a front end; `mount` serves it."""
    blocks = gr.Blocks(mode="server", title="Crossbind", analytics_enabled=False)
    with blocks:
        for name, function in functions(service).items():
            api(function, api_name=name, queue=False)
    # No function uses gradio's queue; should one ever do, the queue is bounded.
    blocks.queue(max_size=64, default_concurrency_limit=2, api_open=False)
    return blocks


def mount(app: FastAPI, service: Service) -> None:
    """Serves the page at `/`, behind all routes that the app has already."""
    _add_front(app, service)
    _add_figures(app, service)
    gr.mount_gradio_app(
        app,
        engine(service),
        "/",
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
    mounted.app = _OnlyCalls(mounted.app, frozenset(functions(service)))  # type: ignore[attr-defined]


def _add_front(app: FastAPI, service: Service) -> None:
    root = service.settings.root_path

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        """The page."""
        return Response(front().page(root), media_type="text/html")

    @app.get("/assets/{version}/{name}", include_in_schema=False)
    async def asset(version: str, name: str, request: Request) -> Response:
        """A file of the page, which a browser may keep for ever."""
        found = front().assets.get(name) if version == front().version else None
        if found is None:
            return Response(error_body(404, "not_found", "the page has changed; load it again"), 404)
        headers = {"cache-control": FOREVER, "vary": "accept-encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(found.packed, headers=headers | {"content-encoding": "gzip"}, media_type=found.kind)
        return Response(found.content, headers=headers, media_type=found.kind)

    @app.get("/favicon.ico", include_in_schema=False)
    async def favicon() -> Response:
        """The drawing in the browser's tab, where a browser asks for it by its old name."""
        return Response(front().assets["icon.svg"].content, media_type="image/svg+xml")


def _add_figures(app: FastAPI, service: Service) -> None:
    figures = Figures(service)

    @app.get("/figures/{item_id}", include_in_schema=False)
    async def figure(item_id: Annotated[int, InPath(ge=1, le=MAX_ID)]) -> Response:
        """The plot, the colour map or the first words that show an item."""
        found = await figures.figure(item_id)
        headers = {"content-security-policy": _FIGURE_POLICY, "cache-control": "private, max-age=3600"}
        headers |= {"x-label": quote(found.label)} if found.label else {}
        return Response(found.content, media_type=found.kind, headers=headers)

    @app.post("/vectors", include_in_schema=False)
    async def vector(request: Request) -> Response:
        """A file to search with (`file`), read as `modality` where that is given -> its vector, which is not kept."""
        async with read_form(request, service) as form:
            upload, modality = form.get(FILE), form.get("modality") or None
            if not isinstance(upload, UploadFile) or isinstance(modality, UploadFile):
                raise RequestError(400, "no_file", "expected a form with a part `file` that has a file name", FILE)
            if modality not in (None, *service.model.modalities):
                raise RequestError(400, "bad_query", "expected a modality of this model", "modality")
            name = PurePath(upload.filename or "file").name
            term = Term(await upload.read(), modality, name=name)
        try:
            (embedded,) = await service.embed([term])
        except TermError as error:
            others = [other for other in _also(name) if other in service.model.modalities and other != modality]
            told = json.loads(error_body(422, "unusable_medium", error.reason, FILE))
            return JsonAnswer(told | {"read_as": others}, 422)
        vector = base64.b64encode(embedded.vector.astype("<f4").tobytes()).decode()
        return JsonAnswer({"vector": vector, "modality": embedded.modality, "notes": list(embedded.notes)})


def _also(name: str) -> tuple[str, ...]:
    """The modalities that a file of this name may have although its content does not say so, as for sensors' files."""
    suffix = PurePath(name).suffix.lower()
    if suffix in (".npy", ".exr"):
        return ("depth", "thermal", "imu")
    return ("depth", "thermal") if suffix in (".png", ".tif", ".tiff") else ()


class _OnlyCalls:
    """Answers 404 for all that is no call of a function of ours, and 400 for calls that gradio cannot read.

    A call is parsed here first, within bounds, because gradio has none.
    """

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self.app = app
        self.paths = {_CALLS + name for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http" or scope["path"] not in self.paths or scope["method"] != "POST":
            await JSONResponse({"detail": "Not Found"}, 404)(scope, receive, send)
            return
        try:
            receive = await _checked_call(scope, receive)
        except RequestError as error:
            body = json.loads(error_body(error.status, error.code, error.message))
            await JSONResponse(body, error.status)(scope, receive, send)
            return
        unreadable = False

        async def look(message: Message) -> None:
            nonlocal unreadable
            # Our functions never raise (see `functions`), so gradio raised before it called them.
            unreadable = unreadable or message.get("status") == 500
            if not unreadable:
                await send(message)

        try:
            await self.app(scope, receive, look)
        except Exception:
            unreadable = True
        if unreadable:
            body = json.loads(error_body(400, "bad_call", "expected the arguments of this function"))
            await JSONResponse(body, 400)(scope, receive, send)


async def _checked_call(scope: Scope, receive: Receive) -> Receive:
    """The `receive` of a call -> a `receive` that returns the same message.

    Raises RequestError for too large a call, and for one that is not `{"data": [...]}`.
    """
    if Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError(415, "bad_type", "expected application/json")
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
    if not isinstance(request, dict) or not isinstance(request.get("data"), list) or len(request) != 1:
        raise RequestError(400, "bad_call", "expected an object with a list `data`")
    # Gradio keeps a state for every session that a call names; our calls name none.
    content = json.dumps(request | {"session_hash": "page"}).encode()
    waiting = [{"type": "http.request", "body": content, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
