"""The routes that change what people say of files: marks, albums and tags; and the export of a list."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import StreamingResponse

from bind.space import Embeddings
from serve.engine.service import Service
from serve.engine.terms import Term
from serve.engine.values import TermError
from serve.http.answers import JsonAnswer
from serve.http.answers_browse import album_json
from serve.http.bodies import parsed
from serve.http.errors import RequestError
from serve.http.openapi import json_only
from serve.http.routes_browse import Filter, Hidden, check_writable, refusals
from serve.http.schemas import MAX_ID
from serve.http.schemas_browse import (
    AlbumAnswer,
    AlbumChange,
    AlbumRequest,
    Albums,
    Deleted,
    Marked,
    MarksRequest,
    TagsRequest,
)
from serve.library import export
from serve.library.albums import Kind
from serve.library.listing import MAX_PAGE, FileItem, Page

AlbumId = Annotated[int, InPath(ge=1, le=MAX_ID)]
_EXPORTED = {"paths": "text/plain; charset=utf-8", "csv": "text/csv; charset=utf-8", "json": "application/json"}
"""Form of an export -> its media type."""


def add_mark_routes(app: FastAPI, service: Service) -> None:
    """Adds the routes of marks, albums, tags and exports."""
    _add_marks(app, service)
    _add_albums(app, service)
    _add_tags(app, service)
    _add_change_routes(app, service, "album")
    _add_change_routes(app, service, "tag")
    _add_export(app, service)


def _add_marks(app: FastAPI, service: Service) -> None:
    @app.post("/v1/marks", response_model=Marked, openapi_extra=json_only("MarksRequest"))
    async def marks(request: Request) -> Response:
        """Mark the files of items as favourites or hidden, or take that back. Nothing on disk changes."""
        check_writable(service)
        async with parsed(request, MarksRequest, service) as (body, _):
            pass
        files = await service.change(service.library.mark, body.ids, favourite=body.favourite, hidden=body.hidden)
        return JsonAnswer({"object": "marks", "files": files})


def _add_albums(app: FastAPI, service: Service) -> None:
    library = service.library

    @app.get("/v1/albums", response_model=Albums)
    async def albums() -> Response:
        """The albums, by name: lists, saved queries and saved filters."""
        return JsonAnswer({"object": "list", "data": [album_json(one) for one in await service.read(library.albums)]})

    @app.post("/v1/albums", response_model=AlbumAnswer, status_code=201, openapi_extra=json_only("AlbumRequest"))
    async def make_album(request: Request) -> Response:
        """Make an album: a list of the files of `ids`, or a saved `query`, a filter `where`, or both of these."""
        check_writable(service)
        async with parsed(request, AlbumRequest, service) as (body, _):
            pass
        with refusals():
            made = await service.change(
                library.make_album, body.name, query=body.query, where=body.where, item_ids=body.ids
            )
        return JsonAnswer(album_json(made), status_code=201)


def _add_tags(app: FastAPI, service: Service) -> None:
    library = service.library

    @app.get("/v1/tags", response_model=Albums)
    async def tags() -> Response:
        """The tags, by word."""
        return JsonAnswer({"object": "list", "data": [album_json(one) for one in await service.read(library.tags)]})

    @app.post("/v1/tags", response_model=Albums, openapi_extra=json_only("TagsRequest"))
    async def make_tags(request: Request) -> Response:
        """Tag every file that shows what a word says, as probable as `min_probability` or more."""
        check_writable(service)
        async with parsed(request, TagsRequest, service) as (body, _):
            pass
        words = list(dict.fromkeys(word.strip() for word in body.words))
        with refusals():
            try:
                rows = await service.embed([Term(word) for word in words])
            except TermError as error:
                raise RequestError(422, "unusable_medium", error.reason, f"words[{error.index}]") from None
            vectors = Embeddings(np.stack([row.vector for row in rows]), service.model.space)
            found = await service.take_time(
                service.written,
                library.tag,
                words,
                min_probability=body.min_probability,
                want=body.want,
                embedded=vectors,
            )
        return JsonAnswer({"object": "list", "data": [album_json(one) for one in found]})


def _add_change_routes(app: FastAPI, service: Service, kind: Kind) -> None:
    """Changing and deleting a list, which albums and tags have in common."""

    @app.patch(f"/v1/{kind}s/{{album_id}}", response_model=AlbumAnswer, openapi_extra=json_only("AlbumChange"))
    async def change(album_id: AlbumId, request: Request) -> Response:
        """Rename it, add the files of items to its list, or remove files from it."""
        check_writable(service)
        async with parsed(request, AlbumChange, service) as (body, _):
            pass
        with refusals():
            changed = await service.change(
                service.library.change_album, album_id, name=body.name, add=body.add, remove=body.remove, kind=kind
            )
        return JsonAnswer(album_json(changed))

    @app.delete(f"/v1/{kind}s/{{album_id}}", response_model=Deleted)
    async def delete(album_id: AlbumId) -> Response:
        """Delete it, and no file."""
        check_writable(service)
        await service.change(service.library.delete_album, album_id, kind)
        return JsonAnswer({"object": "deleted", "id": album_id})


def _add_export(app: FastAPI, service: Service) -> None:
    text: dict[str, Any] = {"schema": {"type": "string"}}

    @app.get(
        "/v1/export",
        response_class=Response,
        responses={200: {"content": {kind: text for kind in _EXPORTED.values()}, "description": "The list."}},
    )
    async def export_list(
        form: Annotated[export.Format, Query(alias="format", description="one line a path, a table, or JSON")] = "csv",
        where: Filter = None,
        ids: Annotated[
            str | None, Query(max_length=8000, pattern="^[0-9]+(,[0-9]+)*$", description="ids of items, as 3,17,5")
        ] = None,
        hidden: Hidden = False,
    ) -> Response:
        """The files that pass a filter, or those of some items, as text."""
        if ids is not None:
            if where is not None:
                raise RequestError(400, "bad_query", "expected ids or where, not both", "ids")
            files = await service.read(_files_of, service, _ids(ids))
            first = Page(files, None, len(files))
        else:
            with refusals():
                first = await service.read(service.library.files, where, limit=MAX_PAGE, hidden=hidden)
        headers = {"content-disposition": f'attachment; filename="files.{"txt" if form == "paths" else form}"'}
        return StreamingResponse(_lines(service, first, form, where, hidden), 200, headers, _EXPORTED[form])


def _ids(text: str) -> list[int]:
    """`3,17,5` -> the ids, without repetition. Raises RequestError."""
    parts = text.split(",")
    if not all(part.isascii() and part.isdecimal() and len(part) < 20 and int(part) <= MAX_ID for part in parts):
        raise RequestError(400, "bad_query", "expected ids of items with commas between, as 3,17,5", "ids")
    return list(dict.fromkeys(map(int, parts)))


def _files_of(service: Service, ids: list[int]) -> list[FileItem]:
    found = [service.library.file(number) for number in ids]
    return list({file.item_id: file for file in found}.values())


async def _lines(
    service: Service, first: Page, form: export.Format, where: str | None, hidden: bool
) -> AsyncIterator[str]:
    """The lines of all pages; each page is read when the client has taken the one before."""
    page, number = first, 0
    while True:
        text = await service.read(export.part, page.files, form, number == 0, page.cursor is None)
        yield text
        if page.cursor is None:
            return
        number += 1
        page = await service.read(service.library.files, where, limit=MAX_PAGE, cursor=page.cursor, hidden=hidden)
