"""Values of the library -> answers: JSON, and files that are open already."""

from __future__ import annotations

import base64
import json
import os
from typing import IO, Any

import numpy as np
from fastapi import Response
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from preprocess.formats import sniff
from preprocess.source import MediaError, Opened, Source
from serve.engine.service import Service
from serve.engine.values import About
from serve.library.items import Hit, Item
from serve.library.text import shown

# What browsers show by themselves and cannot be made to run as a page. All else is handed out to be saved.
_TYPES = {
    "png": "image/png", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp", "avif": "image/avif",
    "bmp": "image/bmp", "tiff": "image/tiff", "wav": "audio/wav", "flac": "audio/flac", "mp3": "audio/mpeg",
    "aac": "audio/aac", "aiff": "audio/aiff", "text": "text/plain; charset=utf-8", "csv": "text/plain; charset=utf-8",
}  # fmt: skip  # fmt: skip
_MOVING = {"mp4": "mp4", "matroska": "webm", "ogg": "ogg"}


class JsonAnswer(Response):
    """JSON in ASCII: file names and metadata may hold halves of character pairs, which UTF-8 cannot encode."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """A value -> its JSON."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


class OpenFileAnswer(FileResponse):
    """A response with a file that is open already, which nobody can exchange any more."""

    def __init__(self, file: IO[bytes], **named: Any) -> None:
        # Not its path: this name leads to the open file.
        super().__init__(f"/dev/fd/{file.fileno()}", stat_result=os.fstat(file.fileno()), **named)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the file and closes it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


def content_type_of(file: IO[bytes], name: str, service: Service) -> str | None:
    """What a browser may take an open file for; None where it is nothing to be shown."""
    try:
        found = sniff(Source(Opened(file.fileno()), name), service.library_limits)
    except MediaError:
        return None
    if found.name in _MOVING:
        return f"{found.family}/{_MOVING[found.name]}"
    return _TYPES.get(found.name)


def item_json(item: Item) -> dict[str, Any]:
    """An item -> an `ItemAnswer`."""
    place = f"/v1/items/{item.item_id}"
    return {
        "object": "item",
        "id": item.item_id,
        "modality": item.modality,
        "path": shown(item.path),
        "also": [shown(path) for path in item.also],
        "start_s": item.start_s,
        "end_s": item.end_s,
        "at": item.at,
        "date": item.date,
        "date_source": item.date_source,
        "notes": list(item.notes),
        "metadata": item.metadata,
        "media": f"{place}/media",
        "thumbnail": f"{place}/thumbnail",
    }


def hit_json(hit: Hit) -> dict[str, Any]:
    """A hit -> a `HitAnswer`."""
    return item_json(hit) | {key: getattr(hit, key) for key in ("score", "cosine", "keyword", "probability")}


def model_json(about: About) -> dict[str, Any]:
    """The facts of a service -> a `ModelAnswer`."""
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


def vector_json(vector: np.ndarray, encoding_format: str | None) -> str | list[float]:
    """A vector (D,) -> base64 of little-endian float32 where `encoding_format` is `base64`, else numbers."""
    if encoding_format == "base64":
        return base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers
