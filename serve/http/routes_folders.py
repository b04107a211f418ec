"""The routes of folders of the server's machine: adding one, how far indexing is, and what was skipped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import StreamingResponse

from serve.engine.folder_jobs import FolderRefusedError, IndexState
from serve.engine.service import Service
from serve.http.answers import JsonAnswer
from serve.http.bodies import parsed
from serve.http.errors import RequestError
from serve.http.openapi import json_only
from serve.http.routes_browse import Limit, check_writable
from serve.http.schemas import MAX_ID
from serve.http.schemas_browse import FolderRequest, Folders, IndexingAnswer, SkippedPage
from serve.library.text import shown

_LOOK_S = 0.2
"""Seconds between two looks at the progress: faster than an eye follows."""
_ALIVE_S = 10.0
"""Seconds without news after which a comment keeps proxies from closing the stream."""
_SHOWN = 100
"""Skipped files in one event; `/v1/skipped` has all."""
_EVENT = {"type": "object", "properties": {name: {"type": "string"} for name in ("id", "event", "data")}}
"""One event, for the document."""
_EVENTS = {"content": {"text/event-stream": {"schema": _EVENT}}, "description": "Events."}
"""The answer of the stream, for the document."""


def add_folder_routes(app: FastAPI, service: Service) -> None:
    """Adds the routes of folders, indexing and skipped files."""
    _add_folders(app, service)
    _add_skipped(app, service)


def _add_folders(app: FastAPI, service: Service) -> None:
    jobs = service.folder_jobs

    @app.get("/v1/folders", response_model=Folders)
    async def folders() -> Response:
        """The folders that the library was made of, and those in which this server adds folders."""
        found = await service.read(service.library.roots)
        keys = ("files", "skipped", "is_there", "last_run")
        data = [{"path": shown(root.path), **{key: getattr(root, key) for key in keys}} for root in found]
        return JsonAnswer({"object": "list", "data": data, "allowed": [shown(root) for root in jobs.roots]})

    @app.post("/v1/folders", response_model=IndexingAnswer, status_code=202, openapi_extra=json_only("FolderRequest"))
    async def add_folder(request: Request) -> Response:
        """Index a folder of the server's machine in the background, where its settings allow that (`allow_folders`)."""
        check_writable(service)
        async with parsed(request, FolderRequest, service) as (body, _):
            pass
        try:
            await service.read(jobs.add, body.path)
        except FolderRefusedError as error:
            raise RequestError(403, "folder_refused", str(error), "path") from None
        except ValueError as error:
            raise RequestError(400, "bad_folder", str(error), "path") from None
        return JsonAnswer(_told(jobs.state), status_code=202)

    @app.get("/v1/indexing", response_class=Response, responses={200: _EVENTS})
    async def indexing() -> Response:
        """How far indexing is, as server-sent events `indexing`, until all is done; the last has the report."""
        return StreamingResponse(_events(service), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


def _add_skipped(app: FastAPI, service: Service) -> None:
    @app.get("/v1/skipped", response_model=SkippedPage)
    async def skipped(
        after: Annotated[int, Query(ge=0, le=MAX_ID, description="`next` of the page before")] = 0, limit: Limit = 100
    ) -> Response:
        """The files of the indexed folders that could not be used, with the reasons, by path."""
        found = await service.read(service.library.skipped)
        data = [{"path": shown(path), "reason": shown(reason)} for path, reason in found[after : after + limit]]
        following = after + limit if after + limit < len(found) else None
        return JsonAnswer({
            "object": "list", "data": data, "has_more": following is not None, "next": following, "total": len(found),
        })  # fmt: skip

    @app.post("/v1/skipped/retry", response_model=IndexingAnswer, status_code=202)
    async def retry() -> Response:
        """Try all skipped files again in the background; `/v1/indexing` says how far that is."""
        check_writable(service)
        try:
            service.folder_jobs.retry()
        except ValueError as error:
            raise RequestError(429, "too_busy", str(error)) from None
        return JsonAnswer(_told(service.folder_jobs.state), status_code=202)


async def _events(service: Service) -> AsyncIterator[str]:
    """Events of what is being indexed, each when it has changed, and a comment now and then that keeps it open."""
    yield "retry: 5000\n\n"
    known, quiet_s = -1, 0.0
    while True:
        state = service.folder_jobs.state
        if state.number != known:
            known, quiet_s = state.number, 0.0
            yield f"event: indexing\nid: {state.number}\ndata: {json.dumps(_told(state))}\n\n"
        if not state.is_busy or not service.is_ready:
            return
        await asyncio.sleep(_LOOK_S)
        quiet_s += _LOOK_S
        if quiet_s >= _ALIVE_S:
            quiet_s = 0.0
            yield ": still there\n\n"


def _told(state: IndexState) -> dict[str, Any]:
    """The state as `IndexingAnswer`."""
    told = asdict(state)
    report = told.pop("report")
    if report is not None:
        skipped = [{"path": shown(path), "reason": shown(reason)} for path, reason in report["skipped"]]
        numbers = ("added", "updated", "renamed", "removed", "unchanged", "seconds")
        report = {name: report[name] for name in numbers} | {"skipped": len(skipped), "first": skipped[:_SHOWN]}
    path = None if state.path is None else shown(state.path)
    return {"object": "indexing", **told, "path": path, "report": report}
