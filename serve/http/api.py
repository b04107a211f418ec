"""The HTTP API: OpenAI's embeddings, extended to all modalities; search; the library's items and their media.

Everything that a request names is either in the request itself or an item of the library: no address is fetched, no
path of this machine is read.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator, model_validator
from pydantic.json_schema import models_json_schema
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.types import ASGIApp, Receive, Scope, Send

from bind.modalities import specs
from preprocess.extras import needs
from preprocess.formats import sniff
from preprocess.source import Hints, MediaError, Source
from serve.engine import metrics
from serve.engine.batching import Busy, Embedded, LateError
from serve.engine.service import About, PictureError, Service, TermError
from serve.engine.terms import Term
from serve.http.guard import Guard, error_body
from serve.library.catalogue import LibraryError, UnknownItemError, shown
from serve.library.library import Hit, Item
from serve.library.where import WhereError

MAX_JSON_VALUES = 100_000
"""Values of a JSON body: each costs far more memory than its bytes, and an error message of its own."""
MAX_TEXT_BYTES = 4_000_000
MAX_METADATA_BYTES = 65_536
MAX_QUERY_TERMS = 64
_MAX_ID = 2**63 - 1
_SCHEMAS = "#/components/schemas/{model}"
_FILE = "file"
"""The term whose content tells its modality."""
_CONTENTS = (*specs(), _FILE)

# What browsers show by themselves and cannot be made to run as a page. All else is handed out to be saved.
_TYPES = {
    "png": "image/png", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp", "avif": "image/avif",
    "bmp": "image/bmp", "tiff": "image/tiff", "wav": "audio/wav", "flac": "audio/flac", "mp3": "audio/mpeg",
    "aac": "audio/aac", "aiff": "audio/aiff", "text": "text/plain; charset=utf-8", "csv": "text/plain; charset=utf-8",
}  # fmt: skip
_MOVING = {"mp4": "mp4", "matroska": "webm", "ogg": "ogg"}
_MARKS = (b",", b"[", b"{")
_JSON_BLOCK_BYTES = 2**18
_DATA = re.compile(r"data:[^,;]{0,100}(?:;[^,;]{0,100})*?;base64,", re.IGNORECASE)
_DATA_PATTERN = "^data:[a-z]{0,9}/?[a-z0-9]{0,9};base64,(?:[A-Za-z0-9+/]{4})+$"
"""For the description: what certainly is one."""


class ApiError(Exception):
    """An answer other than the one asked for: its status, a word for programs, a sentence, what it is about."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param


class Strict(BaseModel):
    """Unknown keys are errors: a misspelt one must not be left out silently."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(BaseModel):
    """What is wrong: `param` names the part of the request, `code` is for programs."""

    message: str
    type: str
    param: str | None
    code: str


class Error(BaseModel):
    """Every answer but a good one."""

    error: ErrorDetail


def _exactly_one(*names: str) -> Callable[[dict[str, Any]], None]:
    """Says in a model's JSON schema that just one of these is given, which its validator sees to."""

    def say(schema: dict[str, Any]) -> None:
        for name in names:
            kind = schema["properties"][name]
            (given,) = (option for option in kind.pop("anyOf") if option.get("type") != "null")
            kind.pop("default", None)
            kind.update(given)
        schema["oneOf"] = [{"required": [name]} for name in names]

    return say


class _TermBase(Strict):
    model_config = ConfigDict(json_schema_extra=_exactly_one("item", *_CONTENTS))

    weight: Annotated[float, Field(ge=-1, le=1, description="from -1 to 1")] = 1.0
    name: Annotated[str, Field(max_length=255, description="file name of the medium: its suffix helps")] = ""
    hints: Annotated[
        dict[str, float | str], Field(max_length=16, description="what the medium does not say, as `unit`, `rate_hz`")
    ] = {}
    item: Annotated[int | None, Field(ge=1, le=_MAX_ID, description="id of an item of the library")] = None

    @model_validator(mode="after")
    def _one_content(self) -> _TermBase:
        given = [name for name in ("item", *_CONTENTS) if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of item, {', '.join(_CONTENTS)}; got {', '.join(given) or 'none'}")
        return self


def _content_fields() -> dict[str, Any]:
    """A field for each modality: words for text, else a data: address."""
    found: dict[str, Any] = {}
    for name in (*specs(), _FILE):
        if name == "text":
            about = Field(description="words", json_schema_extra={"minLength": 1})
        else:
            about = Field(description=f"{name}: data:TYPE;base64,...", json_schema_extra={"pattern": _DATA_PATTERN})
        found[name] = (Annotated[str | None, about], None)
    return found


TermBody = create_model("Term", __base__=_TermBase, **_content_fields())
TermBody.__doc__ = "Words, a medium or an item of the library, with a weight. Exactly one of them."


class Composed(Strict):
    """A weighted sum of terms, which is one embedding."""

    terms: Annotated[list[TermBody], Field(min_length=1, max_length=MAX_QUERY_TERMS)]  # type: ignore[valid-type]


_Input = str | TermBody | Composed


class EmbeddingsRequest(Strict):
    """OpenAI's request; `input` also takes media and composed queries. Each entry becomes one embedding."""

    input: _Input | Annotated[list[_Input], Field(min_length=1, max_length=2048)]  # type: ignore[valid-type]
    model: Annotated[str | None, Field(max_length=255)] = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None

    @field_validator("input", mode="before")
    @classmethod
    def _no_tokens(cls, value: Any) -> Any:
        first = value[0] if isinstance(value, list) and value else None
        if isinstance(first, list) and first:
            first = first[0]
        if isinstance(first, int):
            raise ValueError("expected texts, got tokens; every model has its own: send the texts as they are")
        return value


class Embedding(BaseModel):
    """One row: `embedding` are numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens of the texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """Unit vectors of one space, in the order of the input."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage
    space: str


class SearchRequest(Strict):
    """`query` are words, `terms` anything; one of them. `want` are modalities to find, `where` a filter.

    `min_probability` leaves out hits that are less likely to be right: none at all means that nothing looks like that.
    """

    model_config = ConfigDict(json_schema_extra=_exactly_one("query", "terms"))

    query: str | None = None
    terms: Annotated[list[TermBody], Field(min_length=1, max_length=MAX_QUERY_TERMS)] | None = None  # type: ignore[valid-type]
    k: Annotated[int, Field(ge=1)] = 10
    want: Annotated[list[str], Field(max_length=32)] | None = None
    where: str | None = None
    min_probability: Annotated[float, Field(ge=0, le=1)] | None = None

    @model_validator(mode="after")
    def _one_query(self) -> SearchRequest:
        if (self.query is None) == (self.terms is None):
            raise ValueError("expected one of query (words) and terms")
        return self


class ItemAnswer(BaseModel):
    """A file, or a stretch of it. `also` are other files with the same content."""

    object: Literal["item"]
    id: int
    modality: str
    path: str
    also: list[str]
    start_s: float | None
    end_s: float | None
    metadata: dict[str, Any]
    media: str
    thumbnail: str


class HitAnswer(ItemAnswer):
    """`score` compares across modalities (standard deviations above the usual item), `cosine` does not.

    `probability` says how likely the item is what was asked for; null where the model cannot tell.
    """

    score: float
    cosine: float
    keyword: bool
    probability: float | None


class Items(BaseModel):
    """Items that were added or removed."""

    object: Literal["list"]
    data: list[ItemAnswer]


class Hits(BaseModel):
    """Hits, best first."""

    object: Literal["list"]
    data: list[HitAnswer]


class ModelAnswer(BaseModel):
    """A model: its modalities, the dimension and the identity of its space."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    modalities: list[str]
    dimensions: int
    space: str
    license: str


class Models(BaseModel):
    """The models that are served."""

    object: Literal["list"]
    data: list[ModelAnswer]


class State(BaseModel):
    """Whether it works."""

    status: str


class _Json(Response):
    # Escaped: file names and metadata may hold halves of character pairs, which no UTF-8 can.
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


_BODY = (EmbeddingsRequest, SearchRequest)
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Error, "description": "The request makes no sense as it is."},
    401: {"model": Error, "description": "An API key is missing or wrong."},
    403: {"model": Error, "description": "Not from here, or this server is read-only."},
    404: {"model": Error, "description": "There is no such item or model."},
    408: {"model": Error, "description": "The body came too slowly."},
    413: {"model": Error, "description": "Too large, or too many."},
    415: {"model": Error, "description": "Another content type is expected."},
    421: {"model": Error, "description": "This server does not answer to that name."},
    422: {"model": Error, "description": "A medium cannot be used, and why."},
    429: {"model": Error, "description": "Too much to do: try again after Retry-After seconds."},
    503: {"model": Error, "description": "The library cannot be used at the moment."},
    504: {"model": Error, "description": "The answer was not there in time."},
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
ItemId = Annotated[int, InPath(ge=1, le=_MAX_ID)]


def create_app(service: Service, *, page: bool = True) -> ASGIApp:
    """The API over a service, with the page on `/` unless told otherwise, behind the guard. Closes the service."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="Crossbind",
        description="Embeddings of texts, pictures, sounds and more in one space, and search with any of them.",
        version=service.about().version,
        openapi_url="/v1/openapi.json",
        docs_url=None,  # these pages come from another host
        redoc_url=None,
        lifespan=lifespan,
        responses=_REFUSALS,
        redirect_slashes=False,
    )
    _handle_errors(app)
    _add_routes(app, service)
    app.openapi = lambda: _openapi(app, service)  # type: ignore[method-assign]
    if page:
        with needs("page", "the web page"):
            from serve.page.app import mount  # the page's library takes seconds to import

        mount(app, service)
    return Guard(app, service.settings, service.metrics)


def _add_routes(app: FastAPI, service: Service) -> None:
    model = service.model.description.name

    @app.post("/v1/embeddings", response_model=EmbeddingsAnswer, openapi_extra=_either_body("EmbeddingsRequest"))
    async def embeddings(request: Request) -> Response:
        """Embed texts and media. As a form, each part named after a modality (or `file`) is an entry of `input`."""
        async with _parsed(request, EmbeddingsRequest, service) as (body, parts):
            if body.model not in (None, model):
                raise ApiError(404, "model_not_found", f"this server has {model!r}, not {body.model!r}", "model")
            if body.dimensions not in (None, service.model.dim):
                reason = f"expected {service.model.dim}, the dimensions of {model}, got {body.dimensions}"
                raise ApiError(400, "bad_dimensions", reason, "dimensions")
            entries = parts or (body.input if isinstance(body.input, list) else [body.input])
            groups = [_entry(entry, f"input[{place}]") for place, entry in enumerate(entries)]
        rows = await _embed_groups(service, groups)
        data = [
            {"object": "embedding", "index": index, "embedding": _written(vector, body.encoding_format)}
            for index, (vector, _) in enumerate(rows)
        ]
        tokens = sum(count for _, count in rows)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return _Json({"object": "list", "data": data, "model": model, "usage": usage, "space": service.model.space})

    @app.post("/v1/search", response_model=Hits, openapi_extra=_either_body("SearchRequest"))
    async def search(request: Request) -> Response:
        """Search with words, media and items. As a form, its parts are the terms and `weights=1,-0.5` theirs."""
        async with _parsed(request, SearchRequest, service) as (body, parts):
            if parts or body.terms is not None:
                places = [(f"terms[{place}]", term) for place, term in enumerate(parts or body.terms)]
                terms = [term if isinstance(term, Term) else _term(term, place) for place, term in places]
            else:
                terms = [Term(body.query)]
            if len(terms) > MAX_QUERY_TERMS:
                raise ApiError(413, "too_many", f"expected at most {MAX_QUERY_TERMS} terms, got {len(terms)}", "terms")
        try:
            hits = await service.search(
                terms, k=body.k, want=body.want, where=body.where, min_probability=body.min_probability
            )
        except TermError as error:
            raise ApiError(422, "unusable_medium", error.reason, f"terms[{error.index}]") from None
        except WhereError as error:
            raise ApiError(400, "bad_where", str(error), "where") from None
        except (UnknownItemError, LibraryError):
            raise
        except ValueError as error:  # terms that cancel out, an unknown modality, k
            raise ApiError(400, "bad_query", str(error)) from None
        return _Json({"object": "list", "data": [_hit(hit) for hit in hits]})

    @app.post("/v1/items", response_model=Items, status_code=201, openapi_extra=_upload_body())
    async def add_item(request: Request) -> Response:
        """Add a file to the library: `file`, and `metadata` (a JSON object: caption, date, unit, ...)."""
        _check_writable(service)
        async with _form(request, service) as form:
            upload = form.get(_FILE)
            if not isinstance(upload, UploadFile):
                raise ApiError(400, "no_file", "expected a form with a part `file` that has a file name", _FILE)
            metadata = _metadata(form.get("metadata"))
            items = await service.add(upload.file, upload.filename or "", metadata)
        return _Json({"object": "list", "data": [_item(item) for item in items]}, status_code=201)

    @app.get("/v1/items/{item_id}", response_model=ItemAnswer)
    async def item(item_id: ItemId) -> Response:
        """What is known of an item."""
        return _Json(_item(await service.item(item_id)))

    @app.delete("/v1/items/{item_id}", response_model=Items)
    async def delete_item(item_id: ItemId) -> Response:
        """Forget an item's file with all its items. Uploaded files are deleted, files of indexed folders are not."""
        _check_writable(service)
        return _Json({"object": "list", "data": [_item(entry) for entry in await service.remove(item_id)]})

    @app.get(
        "/v1/items/{item_id}/media",
        response_class=FileResponse,
        responses={
            200: {"content": {"application/octet-stream": _BINARY}, "description": "The file."},
            206: {"content": {"application/octet-stream": _BINARY}, "description": "A part of it."},
            416: {"description": "There is no such part."},
        },
    )
    async def media(item_id: ItemId) -> Response:
        """The file of an item, whole or by ranges; a film starts where you like with `#t=START,END`."""
        file = await service.open_original(item_id)
        name = Path((await service.item(item_id)).path).name
        kind = await service.read(_content_type, file, name, service)
        # A file may be a page in disguise: it may not run anything, and is not to be shown when it is no medium.
        headers = {"content-security-policy": "default-src 'none'; sandbox", "cache-control": "private, no-cache"}
        disposition = "inline" if kind else "attachment"
        return _OpenFileResponse(
            file,
            headers=headers,
            media_type=kind or "application/octet-stream",
            filename=shown(name),
            content_disposition_type=disposition,
        )

    @app.get(
        "/v1/items/{item_id}/thumbnail",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": _BINARY}, "description": "A small picture."}},
    )
    async def thumbnail(item_id: ItemId) -> Response:
        """A small JPEG of a picture, a film's moment, a depth map or a thermal image."""
        content = await service.thumbnail(item_id)
        return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    @app.get("/v1/models", response_model=Models)
    async def models() -> Response:
        """The model that is served."""
        return _Json({"object": "list", "data": [_model(await service.read(service.about))]})

    @app.get("/v1/models/{name}", response_model=ModelAnswer)
    async def one_model(name: str) -> Response:
        """The model, by its name."""
        if name != model:
            raise ApiError(404, "model_not_found", f"this server has {model!r}, not {name!r}")
        return _Json(_model(await service.read(service.about)))

    @app.get("/health", response_model=State)
    async def health() -> Response:
        """Whether the server runs."""
        return _Json({"status": "ok"})

    @app.get("/ready", response_model=State)
    async def ready() -> Response:
        """Whether it takes work."""
        return _Json({"status": "ok"} if service.is_ready else {"status": "closing"}, 200 if service.is_ready else 503)

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Measurements."}},
    )
    async def measurements() -> Response:
        """Requests, latency, queue depth, batch size and items, as Prometheus reads them."""
        return Response(await asyncio.to_thread(service.metrics.text), media_type=metrics.CONTENT_TYPE)


async def _embed_groups(service: Service, groups: list[list[Term]]) -> list[tuple[np.ndarray, int]]:
    """Entries of one or several terms -> the vector (D,) and the number of tokens of each."""
    if len(groups) > service.settings.max_terms or sum(map(len, groups)) > service.settings.max_terms:
        raise ApiError(413, "too_many", f"expected at most {service.settings.max_terms} texts and media", "input")
    try:
        embedded = iter(await service.embed([term for group in groups for term in group]))
    except TermError as error:
        place = next(i for i in range(len(groups)) if sum(map(len, groups[: i + 1])) > error.index)
        raise ApiError(422, "unusable_medium", error.reason, f"input[{place}]") from None
    rows = []
    for place, group in enumerate(groups):
        parts: list[Embedded] = [next(embedded) for _ in group]
        vector = parts[0].vector
        if len(group) > 1 or group[0].weight != 1:
            try:
                vector = service.combined(parts, group).vectors[0]
            except ValueError as error:
                raise ApiError(400, "bad_query", str(error), f"input[{place}]") from None
        rows.append((vector, sum(part.tokens for part in parts)))
    return rows


def _written(vector: np.ndarray, encoding_format: str | None) -> str | list[float]:
    if encoding_format == "base64":
        return base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers


def _entry(entry: Any, place: str) -> list[Term]:
    if isinstance(entry, Term):
        return [entry]
    if isinstance(entry, str):
        return [Term(entry)]
    if isinstance(entry, Composed):
        return [_term(term, f"{place}.terms[{number}]") for number, term in enumerate(entry.terms)]
    return [_term(entry, place)]


def _term(body: Any, place: str) -> Term:
    """A term of a JSON body. Raises ApiError."""
    if body.item is not None:
        return Term(body.item, weight=body.weight)
    if body.text is not None:
        return Term(body.text, weight=body.weight)
    name, value = next((name, getattr(body, name)) for name in _CONTENTS if getattr(body, name) is not None)
    match = _DATA.match(value, 0, 512)
    if match is None:
        raise ApiError(
            400, "not_data", "expected the medium itself as data:TYPE;base64,...; addresses are not fetched", place
        )
    try:
        content = base64.b64decode(value[match.end() :], validate=True)
        hints = Hints.from_mapping(_known_hints(body.hints), place)
    except (binascii.Error, ValueError) as error:
        reason = error.reason if isinstance(error, MediaError) else f"is not base64: {error}"
        raise ApiError(400, "not_data", reason, place) from None
    return Term(content, None if name == _FILE else name, body.weight, body.name, hints)


def _known_hints(values: Mapping[str, Any]) -> dict[str, Any]:
    known = {field.name for field in fields(Hints)}
    if unknown := sorted(set(values) - known):
        raise MediaError("hints", f"no hint {unknown[0]!r}; known: {', '.join(sorted(known))}")
    return dict(values)


@asynccontextmanager
async def _parsed(request: Request, kind: type[Any], service: Service) -> AsyncIterator[tuple[Any, list[Term]]]:
    """A JSON body, or a form -> the checked request, and the terms that the form's parts are. Raises ApiError."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "multipart/form-data":
        async with _form(request, service) as form:
            parts, others = await _terms_of(form)
            key = "input" if kind is EmbeddingsRequest else "query"
            yield _checked(kind, {key: "", **others}), parts
        return
    if content_type != "application/json":
        raise ApiError(415, "bad_type", f"expected application/json or multipart/form-data, got {content_type!r}")
    yield await asyncio.to_thread(_read_body, kind, await request.body()), []


def read_json(body: bytes, most_values: int = MAX_JSON_VALUES) -> Any:
    """The value of a JSON body. Raises ApiError, for one of too many values before it costs any memory."""
    if _has_more_values(body, most_values):
        raise ApiError(413, "too_many", f"expected at most {most_values:,} values in a JSON body")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise ApiError(400, "bad_json", f"the body is not JSON: {reason}") from None


def _has_more_values(body: bytes, most: int) -> bool:
    """Whether JSON has more values than this, by the marks between them. In blocks, between which others may run."""
    if len(body) <= most:
        return False
    count, in_text, rest = 0, False, b""
    for start in range(0, len(body), _JSON_BLOCK_BYTES):
        block = rest + body[start : start + _JSON_BLOCK_BYTES]
        whole = block.rstrip(b"\\")  # a backslash at the end may belong to what comes next
        rest = block[len(whole) :]
        parts = whole.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        count += sum(part.count(mark) for part in parts[in_text::2] for mark in _MARKS)  # in texts, a comma is none
        in_text ^= len(parts) % 2 == 0
        if count > most:
            return True
    return False


def _read_body(kind: type[BaseModel], body: bytes) -> Any:
    return _checked(kind, read_json(body))


def _checked(kind: type[BaseModel], value: Any) -> Any:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _invalid(error.errors(include_url=False, include_context=False, include_input=False)) from None


def _invalid(errors: Any) -> ApiError:
    """The first of pydantic's errors; of a union's, the one that got furthest."""
    worst = max(errors, key=lambda entry: len(entry["loc"]))
    where = ".".join(str(part) for part in worst["loc"][:6])
    return ApiError(400, "invalid_request", f"{where or 'body'}: {worst['msg']}", where or None)


@asynccontextmanager
async def _form(request: Request, service: Service) -> AsyncIterator[FormData]:
    most = service.settings.max_terms
    try:
        form = await request.form(max_files=most, max_fields=most + 16, max_part_size=MAX_TEXT_BYTES)
    except (MultiPartException, HTTPException) as error:
        if isinstance(error, HTTPException) and error.status_code != 400:
            raise
        reason = error.detail if isinstance(error, HTTPException) else error.message
        raise ApiError(400, "bad_form", f"the form cannot be read: {reason}") from None
    except (ValueError, LookupError) as error:  # an unknown charset
        raise ApiError(400, "bad_form", f"the form cannot be read: {error}") from None
    try:
        yield form
    finally:
        await form.close()


async def _terms_of(form: FormData) -> tuple[list[Term], dict[str, Any]]:
    """A form -> its terms in order, weighted by `weights`, and its other fields. Raises ApiError."""
    terms: list[Term] = []
    others: dict[str, Any] = {}
    weights = ""
    for name, value in form.multi_items():
        if name in _CONTENTS and isinstance(value, UploadFile):
            modality = None if name == _FILE else name
            terms.append(Term(await value.read(), modality, name=value.filename or ""))
        elif isinstance(value, UploadFile):
            raise ApiError(
                400, "bad_form", f"expected one of {', '.join(_CONTENTS)}, got a file called that", name[:40]
            )
        elif name == "text":
            terms.append(Term(value))
        elif name == "item":
            if len(value) > 19 or not value.isascii() or not value.isdecimal() or not 1 <= int(value) <= _MAX_ID:
                raise ApiError(400, "bad_form", "expected the id of an item", "item")
            terms.append(Term(int(value)))
        elif name == "weights":
            weights = value
        elif name == "want":
            others.setdefault("want", []).extend(value.split(","))
        elif name in ("k", "where", "model", "encoding_format", "dimensions", "user"):
            others[name] = value
        elif name in _CONTENTS:
            raise ApiError(400, "bad_form", f"expected a file: -F {name}=@FILE", name)
        else:
            raise ApiError(400, "bad_form", "no such field", name[:40])
    if not terms:
        raise ApiError(400, "bad_form", f"expected a part named {', '.join(_CONTENTS)} or item")
    if weights:
        given = _weights(weights, len(terms))
        terms = [Term(t.content, t.modality, w, t.name, t.hints) for t, w in zip(terms, given, strict=True)]
    return terms, others


def _weights(value: str, count: int) -> list[float]:
    """`1,-0.5` -> as many weights as there are terms. Raises ApiError."""
    parts = value.split(",", count)
    if len(parts) != count:
        got = value.count(",") + 1
        raise ApiError(400, "bad_form", f"expected {count} weights, one a term, got {got}", "weights")
    try:
        weights = [float(part) for part in parts]
    except ValueError:
        weights = [2.0]
    if not all(-1 <= weight <= 1 for weight in weights):
        raise ApiError(400, "bad_form", "expected numbers from -1 to 1 with commas between", "weights")
    return weights


def _metadata(value: Any) -> dict[str, Any]:
    if value is None or value == "":
        return {}
    if not isinstance(value, str) or len(value) > MAX_METADATA_BYTES:
        raise ApiError(400, "bad_metadata", f"expected a text of at most {MAX_METADATA_BYTES:,} characters", "metadata")
    found = read_json(value.encode("utf-8", "surrogatepass"))
    try:
        json.dumps(found, allow_nan=False)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ApiError(400, "bad_metadata", "expected one JSON object, with numbers that JSON has", "metadata")
    return found


def _check_writable(service: Service) -> None:
    if service.settings.read_only:
        raise ApiError(403, "read_only", "this server does not change its library (--read-only)")


class _OpenFileResponse(FileResponse):
    """A response with a file that is open already, which nobody can exchange any more."""

    def __init__(self, file: IO[bytes], **named: Any) -> None:
        # Not its path: this name leads to the open file.
        super().__init__(f"/dev/fd/{file.fileno()}", stat_result=os.fstat(file.fileno()), **named)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


def _content_type(file: IO[bytes], name: str, service: Service) -> str | None:
    """What a browser may take an open file for; None where it is nothing to be shown."""
    try:
        head = os.pread(file.fileno(), 4096, 0)
        found = sniff(Source(head, name), service.library_limits)
    except MediaError:
        return None
    if found.name in _MOVING:
        return f"{found.family}/{_MOVING[found.name]}"
    return _TYPES.get(found.name)


def _item(item: Item) -> dict[str, Any]:
    place = f"/v1/items/{item.item_id}"
    return {
        "object": "item",
        "id": item.item_id,
        "modality": item.modality,
        "path": shown(item.path),
        "also": [shown(path) for path in item.also],
        "start_s": item.start_s,
        "end_s": item.end_s,
        "metadata": item.metadata,
        "media": f"{place}/media",
        "thumbnail": f"{place}/thumbnail",
    }


def _hit(hit: Hit) -> dict[str, Any]:
    return _item(hit) | {key: getattr(hit, key) for key in ("score", "cosine", "keyword", "probability")}


def _model(about: About) -> dict[str, Any]:
    return {
        "id": about.model,
        "object": "model",
        "created": 0,
        "owned_by": "crossbind",
        "modalities": list(about.modalities),
        "dimensions": about.dim,
        "space": about.space,
        "license": about.license,
    }


def _handle_errors(app: FastAPI) -> None:
    def answer(status: int, code: str, message: str, param: str | None = None, **headers: str) -> Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return Response(error_body(status, code, message, param), status, names, "application/json")

    handlers: dict[type[Exception], Callable[[Any], Response]] = {
        ApiError: lambda e: answer(e.status, e.code, e.message, e.param),
        Busy: lambda e: answer(429, "too_busy", str(e), retry_after=str(e.retry_after_s)),
        LateError: lambda e: answer(
            504, "too_late", "the answer was not there in time (deadline_s); send less at once"
        ),
        UnknownItemError: lambda e: answer(404, "unknown_item", str(e)),
        PictureError: lambda e: answer(404, "no_picture", str(e)),
        MediaError: lambda e: answer(422, "unusable_medium", e.reason),
        LibraryError: lambda e: answer(503, "library_error", "the library cannot be used at the moment"),
        HTTPException: lambda e: answer(e.status_code, "http_error", str(e.detail), **dict(e.headers or {})),
        Exception: lambda e: answer(500, "internal_error", "this is a fault of the server; its log says more"),
        RequestValidationError: lambda e: answer(400, "invalid_request", _invalid(e.errors()).message),
    }
    for kind, handler in handlers.items():

        async def handle(_: Request, error: Exception, handler: Callable[[Any], Response] = handler) -> Response:
            return handler(error)

        app.add_exception_handler(kind, handle)


def _either_body(model: str) -> dict[str, Any]:
    parts = {name: {"type": "string", "format": "binary"} for name in _CONTENTS if name != "text"}
    fields_ = {name: {"type": "string"} for name in ("text", "weights", "item", "model", "encoding_format")}
    if model == "SearchRequest":
        fields_ = {name: {"type": "string"} for name in ("text", "weights", "item", "k", "want", "where")}
    form = {"type": "object", "properties": {**parts, **fields_}, "additionalProperties": False}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": _SCHEMAS.format(model=model)}},
                "multipart/form-data": {"schema": form},
            },
        }
    }


def _upload_body() -> dict[str, Any]:
    properties = {_FILE: {"type": "string", "format": "binary"}, "metadata": {"type": "string"}}
    form = {"type": "object", "properties": properties, "required": [_FILE]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


def _openapi(app: FastAPI, service: Service) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = FastAPI.openapi(app)
        _, bodies = models_json_schema([(model, "validation") for model in _BODY], ref_template=_SCHEMAS)
        schema["components"]["schemas"].update(bodies["$defs"])
        about = service.about()
        asked = bodies["$defs"]["EmbeddingsRequest"]["properties"]
        asked["model"] |= {"anyOf": [{"const": about.model}, {"type": "null"}]}
        asked["dimensions"] |= {"anyOf": [{"const": about.dim}, {"type": "null"}]}
        asked = bodies["$defs"]["SearchRequest"]["properties"]
        asked["k"]["maximum"] = service.settings.max_hits
        asked["want"]["anyOf"][0]["items"]["enum"] = list(specs())
        for path in schema["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None) if "requestBody" not in operation else None
        if service.settings.api_keys:
            schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"key": []}]
    assert app.openapi_schema is not None
    return app.openapi_schema
