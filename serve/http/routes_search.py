"""The routes of the API that answer queries of the library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi import Path as InPath

from preprocess.source import MediaError
from serve.engine import places as places_engine
from serve.engine.service import Service
from serve.engine.terms import Term
from serve.engine.values import TermError
from serve.http.answers import JsonAnswer, hit_json, located_json, moments_json
from serve.http.bodies import parsed, term_of
from serve.http.errors import RequestError
from serve.http.openapi import json_only, json_or_form
from serve.http.schemas import MAX_ID, MAX_QUERY_TERMS
from serve.http.schemas_search import Hits, LocatedAnswer, LocateRequest, MomentsAnswer, MomentsRequest, SearchRequest
from serve.library.errors import CursorError, LibraryError, UnknownItemError
from serve.library.moments import MomentOptions
from serve.library.query import path_notes
from serve.library.where import WhereError


def add_search_routes(app: FastAPI, service: Service) -> None:
    """Adds `/v1/search`, `/v1/locate` and the moments of an item."""
    root = service.settings.root_path

    @app.post("/v1/search", response_model=Hits, openapi_extra=json_or_form("SearchRequest"))
    async def search(request: Request) -> Response:
        """Search with words, media and items. As a form, its parts are the terms and `weights=1,-0.5` theirs."""
        async with parsed(request, SearchRequest, service) as (body, parts):
            terms = _terms(body, parts)
        with _refusals():
            hits = await service.search(
                terms,
                k=body.k,
                want=body.want,
                where=body.where,
                every_segment=body.every_segment,
                min_score=body.min_score,
                min_probability=body.min_probability,
                cursor=body.cursor,
            )
            located = await places_engine.locate_hits(service, hits, terms) if body.locate else {}
        notes = path_notes([term.content for term in terms if isinstance(term.content, str)], hits)
        found = [hit_json(hit, root, located.get(hit.item_id)) for hit in hits]
        told = {"likely": hits.likely, "nothing": hits.nothing, "next": hits.next, "notes": notes}
        return JsonAnswer({"object": "list", "data": found, **told})

    @app.post("/v1/locate", response_model=LocatedAnswer, openapi_extra=json_only("LocateRequest"))
    async def locate(request: Request) -> Response:
        """Where a picture shows what a query asks for: boxes in its pixels, and a heat map."""
        async with parsed(request, LocateRequest, service) as (body, _):
            picture = term_of(body.picture, "picture")
            if picture.is_words:
                raise RequestError(400, "bad_query", "expected a picture or an item, got words", "picture")
            terms = _terms(body, [])
        with _refusals():
            try:
                located = await places_engine.locate(service, picture, terms)
            except MediaError as error:
                raise RequestError(422, "unusable_medium", error.reason, "picture") from None
        return JsonAnswer(located_json(located))

    moments_body = json_only("MomentsRequest")

    @app.post("/v1/items/{item_id}/moments", response_model=MomentsAnswer, openapi_extra=moments_body)
    async def moments(item_id: Annotated[int, InPath(ge=1, le=MAX_ID)], request: Request) -> Response:
        """All stretches of a film, a sound or a motion recording that match a query, and its scores over time."""
        async with parsed(request, MomentsRequest, service) as (body, _):
            terms = _terms(body, [])
        options = MomentOptions(body.fine, body.which, body.min_score, body.after_s, body.before_s)
        with _refusals():
            return JsonAnswer(moments_json(await service.moments(item_id, terms, options)))


def _terms(body: Any, parts: list[Term]) -> list[Term]:
    """The terms of a request: the parts of a form, `terms`, or `query`. Raises RequestError."""
    given = parts or body.terms
    if given is None:
        return [Term(body.query)]
    if len(given) > MAX_QUERY_TERMS:
        raise RequestError(413, "too_many", f"expected at most {MAX_QUERY_TERMS} terms, got {len(given)}", "terms")
    return [term if isinstance(term, Term) else term_of(term, f"terms[{place}]") for place, term in enumerate(given)]


@contextmanager
def _refusals() -> Iterator[None]:
    """Turns what a search refuses into a RequestError that names the part of the request."""
    try:
        yield
    except TermError as error:
        raise RequestError(422, "unusable_medium", error.reason, f"terms[{error.index}]") from None
    except WhereError as error:
        raise RequestError(400, "bad_where", str(error), "where") from None
    except CursorError as error:
        raise RequestError(400, "bad_cursor", str(error), "cursor") from None
    except (UnknownItemError, LibraryError):
        raise
    except ValueError as error:  # terms that cancel out, an unknown modality, or a bad k
        raise RequestError(400, "bad_query", str(error)) from None
