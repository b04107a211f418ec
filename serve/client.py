"""A typed client of the API, for programs on this machine or another one.

>>> with Client("http://127.0.0.1:8000") as client:
...     client.embed(["a dog", Path("dog.jpg")]).vectors
...     client.search([Term(Path("dog.jpg")), Term("indoors", weight=-1)], want=["video"])
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bind.space import Embeddings, concatenate
from serve.engine.terms import Term

_MOST_WAIT_S = 30.0
_PER_REQUEST = 32


class ApiError(Exception):
    """The server answered with an error: its HTTP `status`, a `code` for programs, and what to do about it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code


@dataclass(frozen=True)
class FoundItem:
    """An item of the library as the server tells it; see `serve.library.Item`. `path` is one of the server's."""

    id: int
    modality: str
    path: str
    also: tuple[str, ...]
    start_s: float | None
    end_s: float | None
    metadata: Mapping[str, Any]
    at: str | None
    notes: tuple[str, ...]
    date: str
    date_source: str


@dataclass(frozen=True)
class FoundHit(FoundItem):
    """An item that was found; see `serve.library.Hit`."""

    score: float
    cosine: float
    keyword: bool
    probability: float | None


class Client:
    """A connection to the server at an address. Close it, or use it in a `with`.

    Content is as in `serve.Term`: a str is words, bytes and a Path are a medium, an int is the id of an item of the
    library. All methods raise ApiError where the server answers with an error, and httpx.TransportError where there
    is no server.

    Args:
        address: The address of the server, as `http://127.0.0.1:8000`.
        api_key: A key, where the server asks for one.
        timeout_s: How long one answer may take.
        tries: How often a request is sent while the server answers that it is busy. Between two tries the client
            waits as long as the server says.

    Example:
        >>> with Client("http://127.0.0.1:8000") as client:
        ...     hits = client.search("a dog", k=5)
    """

    def __init__(self, address: str, api_key: str | None = None, *, timeout_s: float = 60.0, tries: int = 5) -> None:
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout_s)
        self._tries = tries

    def close(self) -> None:
        """Ends the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def embed(self, contents: Sequence[str | bytes | Path | int | Term]) -> Embeddings:
        """Words, media and items -> Embeddings (N, D), in their order.

        Args:
            contents: Words, media, ids of items, or terms.

        Raises:
            ValueError: There are no contents, or one of them is a vector.

        Example:
            >>> client.embed(["a dog", Path("dog.jpg")]).vectors.shape
        """
        parts = []
        for start in range(0, len(contents), _PER_REQUEST):
            inputs = [_term(content) for content in contents[start : start + _PER_REQUEST]]
            answer = self._ask("POST", "/v1/embeddings", json={"input": inputs, "encoding_format": "base64"}).json()
            rows = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in answer["data"]]
            parts.append(Embeddings(np.stack(rows).astype(np.float32), answer["space"]))
        return concatenate(parts)

    def search(
        self,
        query: str | Path | int | Sequence[Term],
        k: int = 10,
        want: Sequence[str] | None = None,
        where: str | None = None,
        min_probability: float | None = None,
    ) -> list[FoundHit]:
        """The k best hits, best first, for words, a file, an item, or terms with weights.

        Args:
            query: Words, the path of a file, the id of an item, or terms.
            k: How many hits, at most.
            want: The modalities to find; None means all.
            where: A filter, as in `Library.search`.
            min_probability: Hits that are less likely to be right are left out.

        Raises:
            ApiError: The server refuses the query, as one whose filter cannot be read.

        Example:
            >>> client.search([Term(Path("dog.jpg")), Term("indoors", weight=-1)], want=["video"])
        """
        terms = [Term(query)] if isinstance(query, (str, Path, int)) else query
        body: dict[str, Any] = {"terms": [_term(term) for term in terms], "k": k}
        body |= {} if want is None else {"want": list(want)}
        body |= {} if where is None else {"where": where}
        body |= {} if min_probability is None else {"min_probability": min_probability}
        found = self._ask("POST", "/v1/search", json=body).json()["data"]
        return [
            FoundHit(**_item_fields(row), **{key: row[key] for key in ("score", "cosine", "keyword", "probability")})
            for row in found
        ]

    def add(self, file: Path, metadata: Mapping[str, Any] | None = None) -> list[FoundItem]:
        """Uploads a file to the library -> its items (a film has several).

        Args:
            file: The file to upload.
            metadata: A caption, a date, a unit and other facts about the file.

        Raises:
            ApiError: The file cannot be used, or the server is read-only.

        Example:
            >>> client.add(Path("dog.jpg"), {"caption": "a dog on the beach"})
        """
        content = file.read_bytes()  # sent again where the server is busy
        form = {"metadata": json.dumps(dict(metadata or {}))}
        answer = self._ask("POST", "/v1/items", files={"file": (file.name, content)}, data=form)
        return [FoundItem(**_item_fields(row)) for row in answer.json()["data"]]

    def item(self, item_id: int) -> FoundItem:
        """What is known of an item."""
        return FoundItem(**_item_fields(self._ask("GET", f"/v1/items/{item_id}").json()))

    def media(self, item_id: int) -> bytes:
        """The bytes of an item's file."""
        return self._ask("GET", f"/v1/items/{item_id}/media").content

    def thumbnail(self, item_id: int) -> bytes:
        """A small JPEG of an item that can be seen."""
        return self._ask("GET", f"/v1/items/{item_id}/thumbnail").content

    def delete(self, item_id: int) -> list[FoundItem]:
        """Forgets an item's file -> the items that went with it."""
        return [FoundItem(**_item_fields(row)) for row in self._ask("DELETE", f"/v1/items/{item_id}").json()["data"]]

    def models(self) -> list[dict[str, Any]]:
        """What is served: name, modalities, dimensions, space."""
        found: list[dict[str, Any]] = self._ask("GET", "/v1/models").json()["data"]
        return found

    def _ask(self, method: str, path: str, **content: Any) -> httpx.Response:
        for left in reversed(range(self._tries)):
            answer = self._http.request(method, path, **content)
            if answer.is_success:
                return answer
            if answer.status_code != 429 or not left:
                break
            time.sleep(min(float(answer.headers.get("retry-after", 1)), _MOST_WAIT_S))
        try:
            error = answer.json()["error"]
        except (ValueError, KeyError, TypeError):
            error = {"code": "unknown", "message": answer.text[:200]}
        raise ApiError(answer.status_code, error["code"], error["message"])


def _term(content: str | bytes | Path | int | Term) -> dict[str, Any]:
    """A term as the API's JSON."""
    term = content if isinstance(content, Term) else Term(content)
    if isinstance(term.content, str):
        return {"text": term.content, "weight": term.weight}
    if isinstance(term.content, int):
        return {"item": term.content, "weight": term.weight}
    if isinstance(term.content, np.ndarray):
        raise ValueError("client: expected words, a medium or an item, got a vector; search with the library itself")
    data = term.content.read_bytes() if isinstance(term.content, Path) else term.content
    name = term.name or (term.content.name if isinstance(term.content, Path) else "")
    hints = {key: value for key, value in asdict(term.hints).items() if value is not None}
    address = f"data:application/octet-stream;base64,{base64.b64encode(data).decode()}"
    return {term.modality or "file": address, "name": name, "hints": hints, "weight": term.weight}


def _item_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("id", "modality", "path", "start_s", "end_s", "metadata", "at", "date", "date_source")
    return {key: row[key] for key in keys} | {key: tuple(row[key]) for key in ("also", "notes")}
