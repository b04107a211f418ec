"""A typed client of the HTTP API, for programs on this machine or another one.

>>> with Client("http://127.0.0.1:8000") as client:
...     embeddings = client.embed(["a dog", Path("dog.jpg")])
...     hits = client.search([Term(Path("dog.jpg")), Term("indoors", weight=-1)], want=["image"])
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bind.model.locating import Located
from bind.space import Embeddings, concatenate
from preprocess.readers.lines import Line
from serve.engine.terms import Term
from serve.http_client.browsing import Browsing
from serve.http_client.values import ApiError, FoundHit, FoundHits, FoundItem, item_fields
from serve.library.moments import Moment, Moments, Which

_MOST_WAIT_S = 30.0
"""Seconds that a client waits at most before it tries again, whatever a server asks for."""
_PER_REQUEST = 32
"""Contents that are sent in one request, so that a long list does not meet a server's limit of a body."""


class Client(Browsing):
    """A connection to the server at an address. Close the client, or use it in a `with` statement.

    Content is as in `serve.Term`: a str is words, bytes and a Path are a medium, an int is the id of an item of the
    library. All methods raise ApiError where the server answers with an error, and httpx.TransportError where there is
    no server.

    Args:
        address: The address of the server, as `http://127.0.0.1:8000`.
        api_key: A key, where the server asks for one.
        timeout_s: The longest time to wait for one answer, in seconds.
        tries: How often a request is sent while the server answers that it is busy. Between two tries the client waits
            as long as the server says.

    Example:
        >>> with Client(address) as client:
        ...     hits = client.search("a dog", k=5)
        >>> hits[0].modality
        'image'
    """

    def __init__(self, address: str, api_key: str | None = None, *, timeout_s: float = 60.0, tries: int = 5) -> None:
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout_s)
        self._tries = tries

    def close(self) -> None:
        """Closes the connections to the server."""
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
            ApiError: The server cannot use one of the contents.

        Example:
            >>> client.embed(["a dog", Path("dog.jpg")]).vectors.shape
            (2, 384)
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
        *,
        every_segment: bool = False,
        min_score: float | None = None,
        min_probability: float | None = None,
        cursor: str | None = None,
    ) -> FoundHits:
        """The k best hits, best first, for words, a file, an item, or terms with weights.

        Args:
            query: Words, the path of a file, the id of an item, or terms.
            k: The largest number of hits.
            want: The modalities to find; None means all.
            where: A filter, as in `Library.search`.
            every_segment: Each stretch of a recording is a hit of its own.
            min_score: Hits with a lower score are left out.
            min_probability: Hits that are less likely to be right are left out.
            cursor: `next` of the page before, for the same query and options.

        Raises:
            ApiError: The server refuses the query, for example because its filter cannot be read.

        Example:
            >>> hits = client.search([Term(Path("dog.jpg")), Term("indoors", weight=-1)], want=["image"], k=2)
            >>> len(hits), hits[0].score >= hits[1].score
            (2, True)
        """
        given: dict[str, Any] = {"want": None if want is None else list(want), "where": where, "cursor": cursor}
        given |= {"min_score": min_score, "min_probability": min_probability}
        body: dict[str, Any] = {"terms": _terms(query), "k": k, "every_segment": every_segment}
        body |= {key: value for key, value in given.items() if value is not None}
        answer = self._ask("POST", "/v1/search", json=body).json()
        hits = [
            FoundHit(
                **item_fields(row),
                **{key: row[key] for key in ("score", "cosine", "keyword", "probability", "likely")},
                lines=tuple(Line(**line | {"box": line["box"] and tuple(line["box"])}) for line in row["lines"]),
            )
            for row in answer["data"]
        ]
        return FoundHits(hits, answer["next"], answer["nothing"])

    def moments(
        self,
        item_id: int,
        query: str | Path | int | Sequence[Term],
        *,
        fine: bool = False,
        which: Which = "all",
        min_score: float | None = None,
        after_s: float | None = None,
        before_s: float | None = None,
    ) -> Moments:
        """All stretches of a recording that match a query, as `Library.moments`.

        Args:
            item_id: Any item of the recording.
            query: As of `search`.
            fine: The file is read again in stretches of about two seconds.
            which: All moments, or the first or the last one alone.
            min_score: The least score of a moment's peak.
            after_s: Only moments that begin at this second or later.
            before_s: Only moments that end at this second or earlier.

        Raises:
            ApiError: There is no such item, it has no times, or the server cannot use the query.

        Example:
            >>> film = next(item for item in client.add(Path("film.mp4")) if item.modality == "video")
            >>> moments = client.moments(film.id, "people riding bicycles", min_score=0.0)
            >>> moments.scores.shape == moments.spans.shape[:1]
            True
        """
        given = {"min_score": min_score, "after_s": after_s, "before_s": before_s}
        body: dict[str, Any] = {"terms": _terms(query), "fine": fine, "which": which}
        body |= {key: value for key, value in given.items() if value is not None}
        told = self._ask("POST", f"/v1/items/{item_id}/moments", json=body).json()
        curve = told["curve"]
        spans = np.array([curve["start_s"], curve["end_s"]], np.float64).T.reshape(-1, 2)
        threshold = np.inf if curve["threshold"] is None else curve["threshold"]
        found = [Moment(**row) for row in told["data"]]
        return Moments(found, spans, np.array(curve["score"], np.float64), threshold, curve["ids"])

    def locate(self, picture: bytes | Path | int | Term, query: str | Path | int | Sequence[Term]) -> Located:
        """Where a picture shows what a query asks for: a heat map, and boxes in its pixels, best first.

        Args:
            picture: The path or bytes of a picture, or the id of an item.
            query: As of `search`.

        Raises:
            ApiError: The server cannot use the picture or the query.

        Example:
            >>> found = client.locate(Path("dog.jpg"), "a dog")
            >>> found.heat.dtype, len(found.boxes[0])
            (dtype('float32'), 5)
        """
        body = {"picture": _term(picture), "terms": _terms(query)}
        answer = self._ask("POST", "/v1/locate", json=body).json()
        shape = answer["heat"]["height"], answer["heat"]["width"]
        heat = np.frombuffer(base64.b64decode(answer["heat"]["data"]), "<f4").astype(np.float32).reshape(shape)
        boxes = [(box["x0"], box["y0"], box["x1"], box["y1"], box["score"]) for box in answer["boxes"]]
        return Located(heat, boxes, answer["width"], answer["height"])

    def add(self, file: Path, metadata: Mapping[str, Any] | None = None) -> list[FoundItem]:
        """Uploads a file to the library -> its items (a film has several).

        Args:
            file: The file to upload.
            metadata: A caption, a date, a unit and other facts about the file.

        Raises:
            ApiError: The file cannot be used, or the server is read-only.

        Example:
            >>> (item,) = client.add(Path("cat.png"), {"caption": "a cat"})
            >>> item.metadata["caption"]
            'a cat'
        """
        content = file.read_bytes()  # read once, because the request may be sent again where the server is busy
        form = {"metadata": json.dumps(dict(metadata or {}))}
        answer = self._ask("POST", "/v1/items", files={"file": (file.name, content)}, data=form)
        return [FoundItem(**item_fields(row)) for row in answer.json()["data"]]

    def item(self, item_id: int) -> FoundItem:
        """The facts about an item.

        Args:
            item_id: The id of the item, as a hit has it.

        Raises:
            ApiError: There is no such item (status 404).

        Example:
            >>> (hit,) = client.search("a dog", k=1)
            >>> client.item(hit.id).path == hit.path
            True
        """
        return FoundItem(**item_fields(self._ask("GET", f"/v1/items/{item_id}").json()))

    def media(self, item_id: int) -> bytes:
        """The bytes of an item's file.

        Args:
            item_id: The id of the item, as a hit has it.

        Raises:
            ApiError: There is no such item, or its file has changed since it was indexed (status 404).

        Example:
            >>> (item,) = client.add(Path("cat.png"))
            >>> client.media(item.id) == Path("cat.png").read_bytes()
            True
        """
        return self._ask("GET", f"/v1/items/{item_id}/media").content

    def thumbnail(self, item_id: int) -> bytes:
        r"""A small JPEG of an item that can be shown as a picture.

        Args:
            item_id: The id of the item, as a hit has it.

        Raises:
            ApiError: There is no such item, or it has no picture (status 404).

        Example:
            >>> (hit,) = client.search("a dog", k=1)
            >>> client.thumbnail(hit.id)[:3]
            b'\xff\xd8\xff'
        """
        return self._ask("GET", f"/v1/items/{item_id}/thumbnail").content

    def delete(self, item_id: int) -> list[FoundItem]:
        """Removes the file of an item from the library -> all items of that file.

        Args:
            item_id: The id of any item of the file.

        Raises:
            ApiError: There is no such item, or the server is read-only.

        Example:
            >>> (item,) = client.add(Path("cat.png"))
            >>> client.delete(item.id) == [item]
            True
        """
        return [FoundItem(**item_fields(row)) for row in self._ask("DELETE", f"/v1/items/{item_id}").json()["data"]]

    def models(self) -> list[dict[str, Any]]:
        """The models of the server, as dictionaries: name, modalities, dimension and space.

        Raises:
            ApiError: The server refuses the request, for example because it asks for a key.

        Example:
            >>> client.models()[0].get("id")
            'small'
        """
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


def _terms(query: str | Path | int | Sequence[Term]) -> list[dict[str, Any]]:
    """A query -> the JSON of its terms in the API."""
    return [_term(term) for term in ([Term(query)] if isinstance(query, (str, Path, int)) else query)]


def _term(content: str | bytes | Path | int | Term) -> dict[str, Any]:
    """A term -> its JSON in the API."""
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
