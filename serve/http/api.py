"""The HTTP API: OpenAI's embeddings, extended to all modalities; search; the library's items and their media.

Everything that a request names is in the request itself or is an item of the library. The server fetches no address and
reads no path of this machine for a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp

from preprocess.extras import needs
from serve.engine.service import Service
from serve.http.errors import handle_errors
from serve.http.guard import Guard
from serve.http.openapi import REFUSALS, describe
from serve.http.routes import add_routes


def create_app(service: Service, *, page: bool = True) -> ASGIApp:
    """The API over a service, behind the guard, with the page on `/` if `page`. Shutting it down closes the service."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="Crossbind",
        description="Embeddings of texts, pictures, sounds and more in one space, and search with any of them.",
        version=service.about().version,
        openapi_url="/v1/openapi.json",
        docs_url=None,  # off, because these pages load scripts from another host
        redoc_url=None,
        lifespan=lifespan,
        responses=REFUSALS,
        redirect_slashes=False,
    )
    handle_errors(app)
    add_routes(app, service)
    app.openapi = lambda: describe(app, service)  # type: ignore[method-assign]
    if page:
        with needs("page", "the web page"):
            from serve.page.app import mount  # imported here, because the page's library takes seconds to import

        mount(app, service)
    return Guard(app, service.settings, service.metrics)
