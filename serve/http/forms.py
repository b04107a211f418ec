"""Multipart forms -> the terms, files and fields of a request."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from serve.engine.service import Service
from serve.engine.terms import Term
from serve.http.errors import RequestError
from serve.http.limited_json import read_json
from serve.http.schemas import CONTENTS, FILE, MAX_ID

MAX_TEXT_BYTES = 4_000_000
"""Bytes of one text field: a text of a million characters, the limit of `preprocess.readers.text`, in UTF-8."""
MAX_METADATA_BYTES = 65_536
"""Characters of the metadata of an upload."""
SEARCH_FIELDS = ("k", "where", "min_score", "min_probability", "cursor", "every_segment", "locate")
"""The form's parts that are options of a search, beside its terms."""
_FIELDS = {*SEARCH_FIELDS, "model", "encoding_format", "dimensions", "user"}
"""The form's parts that are no terms."""


@asynccontextmanager
async def read_form(request: Request, service: Service) -> AsyncIterator[FormData]:
    """The form of a request; its files are closed when the block ends. Raises RequestError."""
    most = service.settings.max_terms
    try:
        form = await request.form(max_files=most, max_fields=most + 16, max_part_size=MAX_TEXT_BYTES)
    except (MultiPartException, HTTPException) as error:
        if isinstance(error, HTTPException) and error.status_code != 400:
            raise
        reason = error.detail if isinstance(error, HTTPException) else error.message
        raise RequestError(400, "bad_form", f"the form cannot be read: {reason}") from None
    except (ValueError, LookupError) as error:  # the charset is unknown
        raise RequestError(400, "bad_form", f"the form cannot be read: {error}") from None
    try:
        yield form
    finally:
        await form.close()


async def terms_of(form: FormData) -> tuple[list[Term], dict[str, Any]]:
    """A form -> its terms in order, weighted by `weights`, and its other fields. Raises RequestError."""
    terms: list[Term] = []
    others: dict[str, Any] = {}
    weights = ""
    for name, value in form.multi_items():
        if name in CONTENTS and isinstance(value, UploadFile):
            modality = None if name == FILE else name
            terms.append(Term(await value.read(), modality, name=value.filename or ""))
        elif isinstance(value, UploadFile):
            raise RequestError(
                400, "bad_form", f"expected one of {', '.join(CONTENTS)}, got a file called that", name[:40]
            )
        elif name == "text":
            terms.append(Term(value))
        elif name == "item":
            if len(value) > 19 or not value.isascii() or not value.isdecimal() or not 1 <= int(value) <= MAX_ID:
                raise RequestError(400, "bad_form", "expected the id of an item", "item")
            terms.append(Term(int(value)))
        elif name == "weights":
            weights = value
        elif name == "want":
            others.setdefault("want", []).extend(value.split(","))
        elif name in _FIELDS:
            others[name] = value
        elif name in CONTENTS:
            raise RequestError(400, "bad_form", f"expected a file: -F {name}=@FILE", name)
        else:
            raise RequestError(400, "bad_form", "no such field", name[:40])
    if not terms:
        raise RequestError(400, "bad_form", f"expected a part named {', '.join(CONTENTS)} or item")
    if weights:
        given = _weights(weights, len(terms))
        terms = [Term(t.content, t.modality, w, t.name, t.hints) for t, w in zip(terms, given, strict=True)]
    return terms, others


def _weights(value: str, count: int) -> list[float]:
    """`1,-0.5` -> as many weights as there are terms. Raises RequestError."""
    parts = value.split(",", count)
    if len(parts) != count:
        got = value.count(",") + 1
        raise RequestError(400, "bad_form", f"expected {count} weights, one a term, got {got}", "weights")
    try:
        weights = [float(part) for part in parts]
    except ValueError:
        weights = [2.0]
    if not all(-1 <= weight <= 1 for weight in weights):
        raise RequestError(400, "bad_form", "expected numbers from -1 to 1 with commas between", "weights")
    return weights


def metadata_of(value: Any) -> dict[str, Any]:
    """The field `metadata` of a form -> the JSON object in it; {} for an absent field. Raises RequestError."""
    if value is None or value == "":
        return {}
    if not isinstance(value, str) or len(value) > MAX_METADATA_BYTES:
        raise RequestError(
            400, "bad_metadata", f"expected a text of at most {MAX_METADATA_BYTES:,} characters", "metadata"
        )
    found = read_json(value.encode("utf-8", "surrogatepass"))
    try:
        json.dumps(found, allow_nan=False)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RequestError(400, "bad_metadata", "expected one JSON object, with numbers that JSON has", "metadata")
    return found
