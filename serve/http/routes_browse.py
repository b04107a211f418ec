"""The routes of a library that is looked at without a query: lists, facets, neighbours, duplicates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

from fastapi import FastAPI, Query, Response
from fastapi import Path as InPath

from serve.engine.service import Service
from serve.http.answers import JsonAnswer, item_json
from serve.http.answers_browse import details_json, facets_json, file_json, group_json
from serve.http.errors import RequestError
from serve.http.schemas import MAX_ID
from serve.http.schemas_browse import Details, DuplicatesPage, FacetsAnswer, Files, Groups, ItemsPage
from serve.library.errors import LibraryError
from serve.library.groups import MAX_GROUPS
from serve.library.listing import MAX_PAGE, CursorError, Order, Sort
from serve.library.where import WhereError

ItemId = Annotated[int, InPath(ge=1, le=MAX_ID)]
Filter = Annotated[str | None, Query(alias="where", description="a filter, as of a search")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="entries of a page")]
Hidden = Annotated[bool, Query(description="hidden files are listed too")]


@contextmanager
def refusals() -> Iterator[None]:
    """A block whose wrong filters, cursors and names are refused as such: RequestError with the parameter."""
    try:
        yield
    except WhereError as error:
        raise RequestError(400, "bad_where", str(error), "where") from None
    except CursorError as error:
        raise RequestError(400, "bad_cursor", str(error), "cursor") from None
    except LibraryError:
        raise
    except ValueError as error:
        raise RequestError(400, "bad_query", str(error)) from None


def check_writable(service: Service) -> None:
    """Raises RequestError where the server does not change its library."""
    if service.settings.read_only:
        raise RequestError(403, "read_only", "this server does not change its library (--read-only)")


def add_browse_routes(app: FastAPI, service: Service) -> None:
    """Adds the routes that read lists."""
    _add_list_routes(app, service)
    _add_group_routes(app, service)
    _add_item_routes(app, service)


def _add_list_routes(app: FastAPI, service: Service) -> None:
    library, root = service.library, service.settings.root_path

    @app.get("/v1/items", response_model=ItemsPage)
    async def items(
        after: Annotated[int, Query(ge=0, le=MAX_ID, description="`next` of the page before, of items")] = 0,
        limit: Limit = 100,
        where: Filter = None,
        files: Annotated[bool, Query(description="one entry a file, however many stretches it has")] = False,
        sort: Annotated[Sort, Query(description="other than added: of files")] = "added",
        order: Annotated[Order, Query(description="desc: of files")] = "asc",
        cursor: Annotated[
            str | None,
            Query(max_length=8000, pattern="^[A-Za-z0-9_-]+$", description="`cursor` of the page before, of files"),
        ] = None,
        offset: Annotated[int, Query(ge=0, le=MAX_ID, description="files before the page, instead of a cursor")] = 0,
        hidden: Hidden = False,
    ) -> Response:
        """List the items in the order in which they were added, or with `files=true` the files in any order."""
        with refusals():
            if files and after:
                raise ValueError("after: expected cursor beside files=true")
            if not files and (sort, order, cursor, offset) != ("added", "asc", None, 0):
                raise ValueError(
                    "expected files=true beside sort, order, cursor and offset: items are listed as they were added"
                )
            if files:
                page = await service.read(
                    library.files,
                    where,
                    sort=sort,
                    order=order,
                    limit=limit,
                    cursor=cursor,
                    offset=offset,
                    hidden=hidden,
                )
                data = [file_json(one, root) for one in page.files]
                told = {"has_more": page.cursor is not None, "next": None, "cursor": page.cursor, "total": page.total}
            else:
                found, following = await service.read(library.page, after, limit, where, hidden=hidden)
                data = [item_json(one, root) for one in found]
                told = {"has_more": following is not None, "next": following, "cursor": None, "total": None}
        return JsonAnswer({"object": "list", "data": data, **told})

    @app.get("/v1/facets", response_model=FacetsAnswer)
    async def facets(where: Filter = None, limit: Limit = MAX_PAGE, hidden: Hidden = False) -> Response:
        """Count the files that pass a filter by kind, folder, month, camera, place, album and tag."""
        with refusals():
            return JsonAnswer(facets_json(await service.read(library.facets, where, limit=limit, hidden=hidden)))


def _add_group_routes(app: FastAPI, service: Service) -> None:
    library, root = service.library, service.settings.root_path

    @app.get("/v1/groups", response_model=Groups)
    async def groups(
        n: Annotated[int, Query(ge=1, le=MAX_GROUPS, description="groups to look for")] = 12,
        where: Filter = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="ids of a group")] = 200,
    ) -> Response:
        """Groups of files that are alike, largest first, each with a name: the nearest of some words."""
        with refusals():
            found = await service.take_time(library.groups, n, where=where, limit=limit)
        return JsonAnswer({"object": "list", "data": [group_json(one, root) for one in found]})

    @app.get("/v1/duplicates", response_model=DuplicatesPage)
    async def duplicates(
        threshold: Annotated[float, Query(ge=0.5, le=1, description="the least cosine of near-duplicates")] = 0.98,
        after: Annotated[int, Query(ge=0, le=MAX_ID, description="`next` of the page before")] = 0,
        limit: Limit = 100,
        hidden: Hidden = False,
    ) -> Response:
        """List groups of files that are the same or nearly so, largest first."""
        groups, total = await service.take_time(
            library.duplicate_files, threshold, after=after, limit=limit, hidden=hidden
        )
        data = [{"cosine": cosine, "files": [file_json(one, root) for one in files]} for cosine, files in groups]
        following = after + limit if after + limit < total else None
        return JsonAnswer(
            {"object": "list", "data": data, "has_more": following is not None, "next": following, "total": total}
        )


def _add_item_routes(app: FastAPI, service: Service) -> None:
    library, root = service.library, service.settings.root_path

    @app.get("/v1/items/{item_id}", response_model=Details)
    async def item(item_id: ItemId) -> Response:
        """What is known of an item and its file: metadata, size, date and its source, marks, all stretches."""
        item, file, related = await service.read(library.details, item_id)
        return JsonAnswer(details_json(item, file, related, root))

    @app.get("/v1/items/{item_id}/near", response_model=Files)
    async def near(
        item_id: ItemId,
        by: Annotated[Literal["time", "place"], Query(description="by date, or by distance")] = "time",
        limit: Limit = 20,
        where: Filter = None,
    ) -> Response:
        """The files that were made nearest in time or in place to an item's file, nearest first, without that file."""
        with refusals():
            found = await service.read(library.near, item_id, by, limit=limit, where=where)
        return JsonAnswer({"object": "list", "data": [file_json(one, root) for one in found]})
