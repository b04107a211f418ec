"""The routes of the API."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.routing import Match

from serve.engine import metrics
from serve.engine.jobs import EncodedSegment
from serve.engine.lots import embed_many
from serve.engine.service import Service
from serve.engine.terms import Term
from serve.engine.values import TermError
from serve.http.answers import (
    JsonAnswer,
    OpenFileAnswer,
    content_type_of,
    item_json,
    model_json,
    shortened,
    vector_json,
)
from serve.http.bodies import entry_terms, parsed
from serve.http.docs_page import POLICY, docs_page
from serve.http.errors import RequestError
from serve.http.forms import metadata_of, read_form
from serve.http.openapi import BINARY, json_or_form, upload_form
from serve.http.routes_browse import ItemId, add_browse_routes, check_writable
from serve.http.routes_folders import add_folder_routes
from serve.http.routes_marks import add_mark_routes
from serve.http.routes_search import add_search_routes
from serve.http.schemas import (
    FILE,
    MAX_INPUTS,
    EmbeddingsAnswer,
    EmbeddingsRequest,
    Items,
    ModelAnswer,
    Models,
    State,
)
from serve.library.text import shown

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
"""Methods for which an unknown path of the API is answered in the API's own form."""


def add_routes(app: FastAPI, service: Service) -> None:
    """Adds all routes of the API over a service."""
    _add_embedding_route(app, service)
    add_search_routes(app, service)
    _add_item_routes(app, service)
    add_browse_routes(app, service)
    add_mark_routes(app, service)
    add_folder_routes(app, service)
    _add_media_routes(app, service)
    _add_model_routes(app, service)
    _add_state_routes(app, service)
    _add_docs(app, service)
    _refuse_others(app)


def _add_embedding_route(app: FastAPI, service: Service) -> None:
    model = service.model.description.name

    @app.post("/v1/embeddings", response_model=EmbeddingsAnswer, openapi_extra=json_or_form("EmbeddingsRequest"))
    async def embeddings(request: Request) -> Response:
        """Embed texts and media. As a form, each part named after a modality (or `file`) is an entry of `input`."""
        async with parsed(request, EmbeddingsRequest, service) as (body, parts):
            if body.model not in (None, model):
                raise RequestError(404, "model_not_found", f"this server has {model!r}, not {body.model!r}", "model")
            length = _length_of(body.dimensions, service)
            entries = parts or (body.input if isinstance(body.input, list) else [body.input])
            groups = [entry_terms(entry, f"input[{place}]") for place, entry in enumerate(entries)]
        rows = await _embed_groups(service, groups)
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": vector_json(shortened(vector, length), body.encoding_format),
            }
            for index, (vector, _) in enumerate(rows)
        ]
        tokens = sum(count for _, count in rows)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        space = service.model.space if length is None else f"{service.model.space}:{length}"
        return JsonAnswer({"object": "list", "data": data, "model": model, "usage": usage, "space": space})


def _add_item_routes(app: FastAPI, service: Service) -> None:
    root = service.settings.root_path

    @app.post("/v1/items", response_model=Items, status_code=201, openapi_extra=upload_form())
    async def add_item(request: Request) -> Response:
        """Add a file to the library: `file`, and `metadata` (a JSON object: caption, date, unit, ...)."""
        check_writable(service)
        async with read_form(request, service) as form:
            upload = form.get(FILE)
            if not isinstance(upload, UploadFile):
                raise RequestError(400, "no_file", "expected a form with a part `file` that has a file name", FILE)
            metadata = metadata_of(form.get("metadata"))
            items = await service.add(upload.file, upload.filename or "", metadata)
        return JsonAnswer({"object": "list", "data": [item_json(item, root) for item in items]}, status_code=201)

    @app.delete("/v1/items/{item_id}", response_model=Items)
    async def delete_item(item_id: ItemId) -> Response:
        """Forget an item's file with all its items. Uploaded files are deleted, files of indexed folders are not."""
        check_writable(service)
        removed = await service.remove(item_id)
        return JsonAnswer({"object": "list", "data": [item_json(entry, root) for entry in removed]})


def _add_media_routes(app: FastAPI, service: Service) -> None:
    @app.get(
        "/v1/items/{item_id}/media",
        response_class=FileResponse,
        responses={
            200: {"content": {"application/octet-stream": BINARY}, "description": "The file."},
            206: {"content": {"application/octet-stream": BINARY}, "description": "A part of it."},
            416: {"description": "There is no such part."},
        },
    )
    async def media(item_id: ItemId) -> Response:
        """The file of an item, whole or by ranges; a film starts where you like with `#t=START,END`."""
        file = await service.open_original(item_id)
        name = Path((await service.item(item_id)).path).name
        kind = await service.read(content_type_of, file, name, service)
        # A file may be a disguised page: it must not run, and is not shown unless it is a medium.
        headers = {"content-security-policy": "default-src 'none'; sandbox", "cache-control": "private, no-cache"}
        disposition = "inline" if kind else "attachment"
        return OpenFileAnswer(
            file,
            headers=headers,
            media_type=kind or "application/octet-stream",
            filename=shown(name),
            content_disposition_type=disposition,
        )

    @app.get(
        "/v1/items/{item_id}/thumbnail",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": BINARY}, "description": "A small picture."}},
    )
    async def thumbnail(item_id: ItemId) -> Response:
        """A small JPEG of a picture, a film's moment, a depth map or a thermal image."""
        content = await service.thumbnail(item_id)
        return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})


def _add_model_routes(app: FastAPI, service: Service) -> None:
    model = service.model.description.name

    @app.get("/v1/models", response_model=Models)
    async def models() -> Response:
        """The model that is served."""
        return JsonAnswer({"object": "list", "data": [model_json(await service.read(service.about))]})

    @app.get("/v1/models/{name}", response_model=ModelAnswer)
    async def one_model(name: str) -> Response:
        """The model, by its name."""
        if name != model:
            raise RequestError(404, "model_not_found", f"this server has {model!r}, not {name!r}")
        return JsonAnswer(model_json(await service.read(service.about)))


def _add_state_routes(app: FastAPI, service: Service) -> None:
    @app.get("/health", response_model=State)
    async def health() -> Response:
        """Whether the server runs."""
        return JsonAnswer({"status": "ok"})

    @app.get("/ready", response_model=State)
    async def ready() -> Response:
        """Whether it takes work."""
        return JsonAnswer(
            {"status": "ok"} if service.is_ready else {"status": "closing"}, 200 if service.is_ready else 503
        )

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Measurements."}},
    )
    async def measurements() -> Response:
        """Requests, latency, queue depth, batch size and items, as Prometheus reads them."""
        return Response(await asyncio.to_thread(service.metrics.text), media_type=metrics.CONTENT_TYPE)


def _add_docs(app: FastAPI, service: Service) -> None:
    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        """The description of the API, for people."""
        content = docs_page(await asyncio.to_thread(app.openapi), service.settings.root_path)
        return Response(content, media_type="text/html", headers={"content-security-policy": POLICY})


def _refuse_others(app: FastAPI) -> None:
    """Answers in the shape of errors what no route of the API takes, before the page below `/` gets to see it."""
    known = list(app.router.routes)

    async def refuse(request: Request) -> Response:
        fitting = [route for route in known if route.matches(request.scope)[0] is not Match.NONE]
        allowed = sorted({method for route in fitting for method in getattr(route, "methods", None) or ()} - {"HEAD"})
        what = f"{request.method} {request.scope['path'][:200]}"
        if allowed:
            takes = ", ".join(allowed)
            raise HTTPException(405, f"{what}: this address takes {takes}", {"allow": takes})
        raise HTTPException(404, f"{what}: there is no such address; /docs lists them")

    app.router.add_route("/v1{rest:path}", refuse, methods=_METHODS, include_in_schema=False)


def _length_of(dimensions: int | None, service: Service) -> int | None:
    """What a request asks for -> the length to cut vectors to, None for whole ones. Raises RequestError."""
    description = service.model.description
    if dimensions in (None, description.dim):
        return None
    if dimensions not in description.shorter:
        lengths = ", ".join(map(str, sorted({*description.shorter, description.dim})))
        ordered = "" if description.shorter else ": its directions do not stand in the order of what they hold"
        reason = f"expected {lengths}, the dimensions of {description.name}, got {dimensions}{ordered}"
        raise RequestError(400, "bad_dimensions", reason, "dimensions")
    return dimensions


async def _embed_groups(service: Service, groups: list[list[Term]]) -> list[tuple[np.ndarray, int]]:
    """Entries of one or several terms -> the vector (D,) and the number of tokens of each entry."""
    terms = [term for group in groups for term in group]
    if len(terms) > max(MAX_INPUTS, service.settings.max_terms):
        raise RequestError(
            413, "too_many", f"expected at most {MAX_INPUTS:,} texts and media, got {len(terms):,}", "input"
        )
    try:
        embedded = iter(await embed_many(service, terms))
    except TermError as error:
        place = next(i for i in range(len(groups)) if sum(map(len, groups[: i + 1])) > error.index)
        raise RequestError(422, "unusable_medium", error.reason, f"input[{place}]") from None
    rows = []
    for place, group in enumerate(groups):
        parts: list[EncodedSegment] = [next(embedded) for _ in group]
        vector = parts[0].vector
        if len(group) > 1 or group[0].weight != 1:
            try:
                vector = service.combined(parts, group).vectors[0]
            except ValueError as error:
                raise RequestError(400, "bad_query", str(error), f"input[{place}]") from None
        rows.append((vector, sum(part.tokens for part in parts)))
    return rows
