"""The routes of marks, albums, tags and exports."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve import Client, Library
from serve.client import ApiError
from serve.engine.settings import Settings
from tests.serve import tiny
from tests.serve.live import Live, live

ODD = "=cmd('<b>')"


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    for number in range(4):
        tiny.picture(tmp_path / "media" / f"{number}.png", number)
    tiny.picture(tmp_path / "media" / f"{ODD}.png", 9)
    tiny.picture(tmp_path / "media" / "two\nlines.png", 10)
    with Library.open(tmp_path / "library", tiny.seven()) as opened:
        opened.index(tmp_path / "media")
        yield opened


@pytest.fixture
def served(library: Library) -> Iterator[Live]:
    with live(library) as running:
        yield running


def ids(served: Live) -> dict[str, int]:
    told = served.http.get("/v1/items", params={"files": True, "hidden": True}).json()["data"]
    return {Path(row["path"]).name: row["id"] for row in told}


def test_marks_albums_and_tags_over_http(served: Live) -> None:
    known = ids(served)
    body: dict[str, Any] = {"ids": [known["0.png"], known["1.png"]], "favourite": True}
    assert served.http.post("/v1/marks", json=body).json() == {"object": "marks", "files": 2}
    served.http.post("/v1/marks", json={"ids": [known["3.png"]], "hidden": True})
    rows = served.http.get("/v1/items", params={"files": True, "where": "favourite = true"}).json()["data"]
    assert {row["id"] for row in rows} == set(body["ids"]) and all(row["favourite"] for row in rows)
    assert known["3.png"] not in [row["id"] for row in served.http.get("/v1/items?files=true").json()["data"]]
    hits = served.http.post("/v1/search", json={"query": "x", "k": 50}).json()["data"]
    assert len(hits) == 5 and known["3.png"] not in [hit["id"] for hit in hits]
    made = served.http.post("/v1/albums", json={"name": "<i>best", "ids": body["ids"]})
    assert made.status_code == 201 and made.json()["count"] == 2
    place = f"/v1/albums/{made.json()['id']}"
    assert served.http.patch(place, json={"add": [known["2.png"]]}).json()["count"] == 3
    assert served.http.get("/v1/albums").json()["data"][0]["name"] == "<i>best"
    assert served.http.get("/v1/facets").json()["albums"] == [{"name": "<i>best", "count": 3}]
    assert served.http.delete(place).json() == {"object": "deleted", "id": made.json()["id"]}
    assert served.http.delete(place).status_code == 404
    refused = served.http.post("/v1/tags", json={"words": ["dog"]})
    assert refused.status_code == 400 and "no probabilities" in refused.json()["error"]["message"]
    assert served.http.get("/v1/tags").json()["data"] == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("POST", "/v1/marks", {"ids": []}, 400, "ids"),
        ("POST", "/v1/marks", {"ids": [10**9], "hidden": True}, 404, None),
        ("POST", "/v1/marks", {"ids": [1], "smell": True}, 400, "smell"),
        ("POST", "/v1/albums", {"name": "\u0000"}, 400, None),
        ("POST", "/v1/albums", {"name": "x", "where": "smell = 1"}, 400, "where"),
        ("POST", "/v1/albums", {"name": "x" * 201}, 400, "name"),
        ("PATCH", "/v1/albums/999", {"name": "x"}, 404, None),
        ("PATCH", "/v1/tags/999", {"name": "x"}, 404, None),
        ("POST", "/v1/tags", {"words": []}, 400, "words"),
        ("POST", "/v1/tags", {"words": ["x"], "min_probability": 2}, 400, "min_probability"),
    ],
)
def test_changes_that_make_no_sense(
    served: Live, method: str, path: str, body: dict[str, Any], status: int, param: str | None
) -> None:
    answer = served.http.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == param


def test_a_read_only_server_changes_nothing(library: Library) -> None:
    with live(library, Settings(port=0, read_only=True)) as running:
        for method, path, body in [
            ("POST", "/v1/marks", {"ids": [1], "favourite": True}),
            ("POST", "/v1/albums", {"name": "x"}),
            ("PATCH", "/v1/albums/1", {"name": "x"}),
            ("DELETE", "/v1/albums/1", None),
            ("POST", "/v1/tags", {"words": ["x"]}),
            ("PATCH", "/v1/tags/1", {"name": "x"}),
            ("DELETE", "/v1/tags/1", None),
        ]:
            answer = running.http.request(method, path, json=body)
            assert answer.status_code == 403 and answer.json()["error"]["code"] == "read_only", path
        assert running.http.get("/v1/albums").json()["data"] == []


def test_exports_hold_every_file_and_no_formula(served: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    from serve.http import routes_marks

    monkeypatch.setattr(routes_marks, "MAX_PAGE", 2)  # several parts
    paths = served.http.get("/v1/export", params={"format": "paths"})
    assert paths.headers["content-type"].startswith("text/plain")
    lines = paths.text.splitlines()
    assert len(lines) == 6 and sum("two\\nlines.png" in line for line in lines) == 1
    table = served.http.get("/v1/export", params={"format": "csv", "where": "size_bytes > 10"})
    assert "attachment" in table.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert len(rows) == 6 and {row["kind"] for row in rows} == {"image"}
    assert sum(row["name"] == f"'{ODD}.png" for row in rows) == 1
    known = ids(served)
    assert len(served.http.get("/v1/export", params={"format": "json"}).json()) == 6
    some = served.http.get("/v1/export", params={"format": "json", "ids": f"{known['2.png']},{known['0.png']}"})
    assert [row["name"] for row in json.loads(some.text)] == ["2.png", "0.png"]
    assert served.http.get("/v1/export", params={"format": "json", "where": "name = 'x'"}).json() == []
    for asked in ({"ids": "1,x"}, {"ids": "1", "where": "size_bytes > 1"}, {"where": "x ="}, {"format": "xls"}):
        assert served.http.get("/v1/export", params=asked).status_code == 400
    assert served.http.get("/v1/export", params={"ids": "999999"}).status_code == 404


def test_the_client_marks_and_exports(served: Live) -> None:
    known = ids(served)
    with Client(served.address) as client:
        assert client.mark([known["0.png"]], favourite=True) == 1
        assert client.file(known["0.png"]).favourite
        album = client.make_album("best", item_ids=[known["0.png"]])
        assert client.change_album(album.id, name="worst", add=[known["1.png"]]).count == 2
        assert [(one.name, one.count) for one in client.albums()] == [("worst", 2)]
        assert client.export("album = 'worst'", form="paths").splitlines() == [
            client.item(known[name]).path for name in ("0.png", "1.png")
        ]
        client.delete_album(album.id)
        assert client.albums() == [] and client.tags() == []
        with pytest.raises(ApiError, match="no probabilities"):
            client.tag(["dog"])
