"""Values of the library -> answers: JSON, and files that are already open."""

from __future__ import annotations

import base64
import json
import math
import os
from dataclasses import asdict
from typing import IO, Any

import numpy as np
from fastapi import Response
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from bind.model.locating import Located
from preprocess.formats import sniff
from preprocess.source import MediaError, Opened, Source
from serve.engine.service import Service
from serve.engine.values import About
from serve.library.items import Hit, Item
from serve.library.moments import Moments
from serve.library.text import shown

# The types that browsers show and that cannot run as a page. All other files are offered for download.
_TYPES = {
    "png": "image/png", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp", "avif": "image/avif",
    "bmp": "image/bmp", "tiff": "image/tiff", "wav": "audio/wav", "flac": "audio/flac", "mp3": "audio/mpeg",
    "aac": "audio/aac", "aiff": "audio/aiff", "text": "text/plain; charset=utf-8", "csv": "text/plain; charset=utf-8",
}  # fmt: skip  # fmt: skip
_MOVING = {"mp4": "mp4", "matroska": "webm", "ogg": "ogg"}


class JsonAnswer(Response):
    """JSON in ASCII, because file names and metadata may hold lone surrogates, which UTF-8 cannot encode."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """A value -> its JSON."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


class OpenFileAnswer(FileResponse):
    """A response with an open file, which nobody can exchange after it was checked."""

    def __init__(self, file: IO[bytes], **named: Any) -> None:
        # The path is not used to open the file: this name leads to the open descriptor.
        super().__init__(f"/dev/fd/{file.fileno()}", stat_result=os.fstat(file.fileno()), **named)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the file and closes it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


def content_type_of(file: IO[bytes], name: str, service: Service) -> str | None:
    """The content type with which an open file may be shown, or None where it is not to be shown."""
    try:
        found = sniff(Source(Opened(file.fileno()), name), service.library_limits)
    except MediaError:
        return None
    if found.name in _MOVING:
        return f"{found.family}/{_MOVING[found.name]}"
    return _TYPES.get(found.name)


def item_json(item: Item, root: str) -> dict[str, Any]:
    """An item -> an `ItemAnswer`, of a server whose addresses begin with `root`."""
    place = f"{root}/v1/items/{item.item_id}"
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


def hit_json(hit: Hit, root: str, located: Located | None = None) -> dict[str, Any]:
    """A hit, and where it shows the query -> a `HitAnswer`, as `item_json`."""
    own = {key: getattr(hit, key) for key in ("score", "cosine", "keyword", "probability", "likely")}
    places = None if located is None else places_json(located)
    return item_json(hit, root) | own | {"lines": [asdict(line) for line in hit.lines], "places": places}


def places_json(located: Located) -> dict[str, Any]:
    """Where something is in a picture -> a `PlacesAnswer`."""
    boxes = [dict(zip(("x0", "y0", "x1", "y1", "score"), box, strict=True)) for box in located.boxes]
    return {"width": located.width, "height": located.height, "boxes": boxes}


def located_json(located: Located) -> dict[str, Any]:
    """Where something is in a picture -> a `LocatedAnswer`."""
    height, width = located.heat.shape
    heat = {"width": width, "height": height, "data": vector_json(located.heat.ravel(), "base64")}
    return {"object": "located", **places_json(located), "heat": heat}


def moments_json(found: Moments) -> dict[str, Any]:
    """The moments of a recording -> a `MomentsAnswer`."""
    starts, ends = found.spans.T.tolist() if len(found.spans) else ([], [])
    threshold = found.threshold if math.isfinite(found.threshold) else None
    curve = {"start_s": starts, "end_s": ends, "score": found.scores.tolist(), "ids": list(found.item_ids)}
    moments = [asdict(one) for one in found]
    return {"object": "list", "data": moments, "curve": curve | {"threshold": threshold}}


def model_json(about: About) -> dict[str, Any]:
    """The facts about a service -> a `ModelAnswer`."""
    return {
        "id": about.model,
        "object": "model",
        "created": 0,
        "owned_by": "crossbind",
        "modalities": list(about.modalities),
        "dimensions": about.dim,
        "shorter_dimensions": list(about.shorter),
        "space": about.space,
        "license": about.license,
    }


def shortened(vector: np.ndarray, length: int | None) -> np.ndarray:
    """A unit vector (D,) -> its first `length` numbers as a unit vector; as it is for None."""
    if length is None:
        return vector
    front = vector[:length].astype(np.float64)
    return (front / max(float(np.linalg.norm(front)), 1e-12)).astype(np.float32)


def vector_json(vector: np.ndarray, encoding_format: str | None) -> str | list[float]:
    """A vector (D,) -> base64 of little-endian float32 where `encoding_format` is `base64`, else a list of numbers."""
    if encoding_format == "base64":
        return base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers
