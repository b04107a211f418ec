"""The body of a request, as JSON or as a form -> a checked request and its terms."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Any

import numpy as np
from fastapi import Request
from pydantic import BaseModel, ValidationError

from preprocess.source import Hints, MediaError
from serve.engine.service import Service
from serve.engine.terms import Term
from serve.http.errors import RequestError, invalid_request
from serve.http.forms import read_form, terms_of
from serve.http.limited_json import read_json
from serve.http.schemas import CONTENTS, FILE, Composed, EmbeddingsRequest

_DATA = re.compile(r"data:[^,;]{0,100}(?:;[^,;]{0,100})*?;base64,", re.IGNORECASE)
"""The beginning of a `data:` URL with base64, whose type says what the content claims to be."""


def entry_terms(entry: Any, place: str) -> list[Term]:
    """One entry of `input`, found at `place` -> the terms whose sum it is. Raises RequestError."""
    if isinstance(entry, Term):
        return [entry]
    if isinstance(entry, str):
        return [Term(entry)]
    if isinstance(entry, Composed):
        return [term_of(term, f"{place}.terms[{number}]") for number, term in enumerate(entry.terms)]
    return [term_of(entry, place)]


def term_of(body: Any, place: str) -> Term:
    """A term of a JSON body. Raises RequestError."""
    if body.item is not None:
        return Term(body.item, weight=body.weight)
    if body.text is not None:
        return Term(body.text, weight=body.weight)
    if body.vector is not None:
        return Term(_vector(body.vector, place), body.vector_of, body.weight)
    name, value = next((name, getattr(body, name)) for name in CONTENTS if getattr(body, name) is not None)
    match = _DATA.match(value, 0, 512)
    if match is None:
        raise RequestError(
            400, "not_data", "expected the medium itself as data:TYPE;base64,...; addresses are not fetched", place
        )
    try:
        content = base64.b64decode(value[match.end() :], validate=True)
        hints = Hints.from_mapping(_known_hints(body.hints), place)
    except (binascii.Error, ValueError) as error:
        reason = error.reason if isinstance(error, MediaError) else f"is not base64: {error}"
        raise RequestError(400, "not_data", reason, place) from None
    return Term(content, None if name == FILE else name, body.weight, body.name, hints)


def _vector(text: str, place: str) -> np.ndarray:
    """Base64 of little-endian float32 -> the vector. Raises RequestError."""
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
    except (binascii.Error, ValueError) as error:
        raise RequestError(400, "not_data", f"expected base64 of float32: {error}", place) from None


def _known_hints(values: Mapping[str, Any]) -> dict[str, Any]:
    known = {field.name for field in fields(Hints)}
    if unknown := sorted(set(values) - known):
        raise MediaError("hints", f"no hint {unknown[0]!r}; known: {', '.join(sorted(known))}")
    return dict(values)


@asynccontextmanager
async def parsed(request: Request, kind: type[Any], service: Service) -> AsyncIterator[tuple[Any, list[Term]]]:
    """A JSON body or a form -> the checked request, and the terms that the parts of a form are. Raises RequestError."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "multipart/form-data":
        async with read_form(request, service) as form:
            parts, others = await terms_of(form)
            key = "input" if kind is EmbeddingsRequest else "query"
            yield checked(kind, {key: "", **others}), parts
        return
    if content_type != "application/json":
        raise RequestError(415, "bad_type", f"expected application/json or multipart/form-data, got {content_type!r}")
    yield await asyncio.to_thread(_read_body, kind, await request.body()), []


def _read_body(kind: type[BaseModel], body: bytes) -> Any:
    return checked(kind, read_json(body))


def checked(kind: type[BaseModel], value: Any) -> Any:
    """A JSON value -> a request of this kind. Raises RequestError."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise invalid_request(error.errors(include_url=False, include_context=False, include_input=False)) from None
