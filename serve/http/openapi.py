"""The OpenAPI description of the API, where it differs from the one that FastAPI derives."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from bind.modalities import specs
from serve.engine.service import Service
from serve.http.examples import EXAMPLES as _EXAMPLES
from serve.http.forms import SEARCH_FIELDS
from serve.http.guard import OPEN_PATHS
from serve.http.schemas import CONTENTS, FILE, EmbeddingsRequest, Error
from serve.http.schemas_browse import AlbumChange, AlbumRequest, FolderRequest, MarksRequest, TagsRequest
from serve.http.schemas_search import LocateRequest, MomentsRequest, SearchRequest

_SCHEMAS = "#/components/schemas/{model}"
"""Where a body's schema lies in the document."""
_BODY = (
    EmbeddingsRequest, SearchRequest, LocateRequest, MomentsRequest,
    MarksRequest, AlbumRequest, AlbumChange, TagsRequest, FolderRequest,
)  # fmt: skip
"""Bodies whose routes read the request themselves, so that FastAPI does not see their schemas."""
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Error, "description": "The request makes no sense as it is."},
    401: {"model": Error, "description": "An API key is missing or wrong."},
    403: {"model": Error, "description": "Not from here, or this server is read-only."},
    404: {"model": Error, "description": "There is no such item or model."},
    408: {"model": Error, "description": "The body came too slowly."},
    413: {"model": Error, "description": "Too large, or too many."},
    414: {"model": Error, "description": "The address is too long."},
    415: {"model": Error, "description": "Another content type is expected."},
    421: {"model": Error, "description": "This server does not answer to that name."},
    422: {"model": Error, "description": "A medium cannot be used, and why."},
    429: {"model": Error, "description": "Too much to do: try again after Retry-After seconds."},
    503: {"model": Error, "description": "The library cannot be used at the moment."},
    504: {"model": Error, "description": "The answer was not there in time."},
}
"""Status -> what it means, for the document of every route."""
_KEY = {"type": "http", "scheme": "bearer", "description": "One of the server's API keys, where it asks for any."}
"""How keys are sent."""
BINARY = {"schema": {"type": "string", "format": "binary"}}
"""The schema of a file."""


def json_or_form(model: str) -> dict[str, Any]:
    """The description of a body that is JSON of a schema, or a form with the same content."""
    parts = {name: {"type": "string", "format": "binary"} for name in CONTENTS if name != "text"}
    fields_ = {
        name: {"type": "string"} for name in ("text", "weights", "item", "model", "encoding_format", "dimensions")
    }
    if model == "SearchRequest":
        fields_ = {name: {"type": "string"} for name in ("text", "weights", "item", "want", *SEARCH_FIELDS)}
    form = {"type": "object", "properties": {**parts, **fields_}, "additionalProperties": False}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": _SCHEMAS.format(model=model)}, "examples": _EXAMPLES[model]},
                "multipart/form-data": {"schema": form},
            },
        }
    }


def json_only(model: str) -> dict[str, Any]:
    """The description of a body that is JSON of a schema."""
    content = {"schema": {"$ref": _SCHEMAS.format(model=model)}, "examples": _EXAMPLES[model]}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def upload_form() -> dict[str, Any]:
    """The description of a form that uploads a file."""
    properties = {FILE: {"type": "string", "format": "binary"}, "metadata": {"type": "string"}}
    form = {"type": "object", "properties": properties, "required": [FILE]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


def describe(app: FastAPI, service: Service) -> dict[str, Any]:
    """The OpenAPI description of an app, with the bounds of its service."""
    if app.openapi_schema is None:
        schema = FastAPI.openapi(app)
        _, bodies = models_json_schema([(model, "validation") for model in _BODY], ref_template=_SCHEMAS)
        schema["components"]["schemas"].update(bodies["$defs"])
        about = service.about()
        properties = bodies["$defs"]["EmbeddingsRequest"]["properties"]
        properties["model"] |= {"anyOf": [{"const": about.model}, {"type": "null"}]}
        lengths = sorted({*about.shorter, about.dim})
        properties["dimensions"] |= {"anyOf": [{"enum": lengths}, {"type": "null"}]}
        properties = bodies["$defs"]["SearchRequest"]["properties"]
        properties["k"]["maximum"] = service.settings.max_hits
        properties["want"]["anyOf"][0]["items"]["enum"] = list(specs())
        for path in schema["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None) if "requestBody" not in operation else None
        schema["components"]["securitySchemes"] = {"key": _KEY}
        if service.settings.api_keys:
            schema["security"] = [{"key": []}]
            for path in OPEN_PATHS:
                schema["paths"][path]["get"]["security"] = []
    assert app.openapi_schema is not None
    return app.openapi_schema
