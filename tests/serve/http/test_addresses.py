"""Addresses of the API: the list of items, what is no address, a proxy's path, pages of other origins, docs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serve.engine.settings import Settings, SettingsError
from serve.library.library import Library
from tests.serve import tiny
from tests.serve.live import Live, live

KEY = "a-key-of-this-server"
OTHER = "https://app.example"


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    for number in range(7):
        tiny.picture(tmp_path / "media" / f"{number}.png", number)
    (tmp_path / "media" / "note.txt").write_text("a dog barks")
    (tmp_path / "media" / "3.png.json").write_text('{"camera": "X100"}')
    with Library.open(tmp_path / "library", tiny.seven()) as opened:
        opened.index(tmp_path / "media")
        yield opened


@pytest.fixture
def served(library: Library) -> Iterator[Live]:
    with live(library) as running:
        yield running


def pages(served: Live, **asked: object) -> list[list[str]]:
    found, after = [], 0
    while after is not None:
        answer = served.http.get("/v1/items", params={**asked, "after": after})
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert told["has_more"] == (told["next"] is not None)
        found.append([Path(row["path"]).name for row in told["data"]])
        after = told["next"]
    return found


def test_items_are_listed_page_by_page(served: Live) -> None:
    by_three = pages(served, limit=3)
    every = [name for page in by_three for name in page]
    assert [len(page) for page in by_three] == [3, 3, 2]
    assert sorted(every) == [*(f"{number}.png" for number in range(7)), "note.txt"]
    assert pages(served) == [every]
    assert pages(served, limit=8) == [every]
    assert pages(served, where="modality = 'text'") == [["note.txt"]]
    assert pages(served, where="camera = 'X100'") == [["3.png"]]
    assert [len(page) for page in pages(served, limit=2, where="name like '%.png'")] == [2, 2, 2, 1]
    assert pages(served, where="name = 'x'") == [[]]


def test_an_upload_is_listed_under_its_own_id(served: Live, tmp_path: Path) -> None:
    content = (tmp_path / "media" / "0.png").read_bytes()
    (added,) = served.http.post("/v1/items", files={"file": ("mine.png", content)}).json()["data"]
    told = {row["id"]: row for row in served.http.get("/v1/items").json()["data"]}
    assert len(told) == 8
    listed = next(row for row in told.values() if any("0.png" in path for path in (row["path"], *row["also"])))
    assert {added["path"], str(tmp_path / "media" / "0.png")} == {listed["path"], *listed["also"]}
    assert served.http.get(f"/v1/items/{listed['id']}").status_code == 200


@pytest.mark.parametrize(("asked", "param"), [
    ({"where": "name ="}, "where"), ({"where": "smell = 1"}, "where"), ({"limit": 0}, None), ({"limit": 1001}, None),
    ({"after": -1}, None), ({"after": 2**70}, None),
])  # fmt: skip
def test_pages_that_make_no_sense(served: Live, asked: dict[str, object], param: str | None) -> None:
    answer = served.http.get("/v1/items", params=asked)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] and answer.json()["error"]["param"] == param


@pytest.mark.parametrize("page", [False, True])
def test_what_is_no_address_is_refused_in_the_shape_of_errors(library: Library, page: bool) -> None:
    with live(library, page=page) as running:
        for method, path, status, allowed in [
            ("GET", "/v1", 404, None), ("GET", "/v1/", 404, None), ("POST", "/v1/chat/completions", 404, None),
            ("GET", "/v1/embeddings", 405, "POST"), ("PUT", "/v1/items", 405, "GET, POST"),
            ("POST", "/v1/items/1", 405, "DELETE, GET"), ("POST", "/v1/openapi.json", 405, "GET"),
            ("GET", "/v1/items/x", 400, None), ("GET", "/v1x", 404, None),
        ]:  # fmt: skip
            answer = running.http.request(method, path)
            assert answer.status_code == status, (method, path, answer.text)
            told = answer.json()
            assert set(told["error"]) == {"message", "type", "param", "code"}, (path, told)
            assert told["error"]["type"] == "invalid_request_error"
            assert answer.headers.get("allow") == allowed
        client_error = running.http.get("/v1/embeddings").json()["error"]
        assert client_error["code"] == "method_not_allowed" and "takes POST" in client_error["message"]


def test_docs_are_a_page_without_scripts(served: Live) -> None:
    answer = served.http.get("/docs")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in answer.text and not re.search(r"(?:src|href)=.?https?:", answer.text)
    for path in served.http.get("/v1/openapi.json").json()["paths"]:
        assert f"<code>{path}</code>" in answer.text


def test_the_description_has_examples_that_work_and_the_key(library: Library) -> None:
    with live(library, Settings(port=0, api_keys=(KEY,))) as running:
        schema = running.http.get("/v1/openapi.json").json()
        assert schema["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
        assert schema["security"] == [{"key": []}] and schema["paths"]["/health"]["get"]["security"] == []
        tried = 0
        for path in ("/v1/embeddings", "/v1/search"):
            content = schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]
            for example in content["examples"].values():
                answer = running.http.post(path, json=example["value"])
                assert answer.status_code == 200, (example, answer.text)
                tried += 1
        assert tried >= 5
        assert httpx.get(f"{running.address}/docs").status_code == 401


def test_a_proxy_may_take_its_path_off_or_leave_it(library: Library) -> None:
    with live(library, Settings(port=0, root_path="/media/search/"), page=True) as running:
        for begin in ("", "/media/search"):
            asked = {"where": "modality = 'image'"}
            (first, *_) = running.http.get(f"{begin}/v1/items", params=asked).json()["data"]
            assert first["thumbnail"] == f"/media/search/v1/items/{first['id']}/thumbnail"
            assert running.http.get(f"{begin}/health").json() == {"status": "ok"}
            assert running.http.get(f"{begin}/v1/items/{first['id']}/thumbnail").status_code == 200
            page = running.http.get(f"{begin}/")
            assert page.status_code == 200 and "/media/search" in page.text
            assert running.http.get(f"{begin}/v1/nothing").status_code == 404
            assert "/media/search/v1/items" in running.http.get(f"{begin}/docs").text
        schema = running.http.get("/media/search/v1/openapi.json").json()
        assert schema["servers"] == [{"url": "/media/search"}]
        assert running.http.get("/media/searching/v1/items").status_code == 404


def test_signing_in_stays_below_the_path_of_the_proxy(library: Library) -> None:
    settings = Settings(port=0, root_path="/search", api_keys=(KEY,))
    with live(library, settings, page=True) as running, httpx.Client(base_url=running.address) as browser:
        sent = browser.get("/search/", headers={"accept": "text/html"})
        assert (sent.status_code, sent.headers["location"]) == (303, "/search/login")
        assert 'action="/search/login"' in browser.get("/search/login").text
        done = browser.post("/search/login", data={"key": KEY})
        assert done.headers["location"] == "/search/" and "Path=/search/;" in done.headers["set-cookie"]
        assert browser.get("/search/v1/items").status_code == 200
        assert httpx.get(f"{running.address}/search/v1/items").status_code == 401


def test_pages_of_an_allowed_origin_may_use_the_api(library: Library) -> None:
    with live(library, Settings(port=0, allowed_origin=(OTHER,), api_keys=(KEY,))) as running:
        asked = {"origin": OTHER, "access-control-request-method": "POST"}
        preflight = httpx.options(f"{running.address}/v1/search", headers=asked)  # browsers send no key with it
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == OTHER
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in preflight.headers
        from_page = {"origin": OTHER, "sec-fetch-site": "cross-site"}
        answer = running.http.post("/v1/search", json={"query": "a dog"}, headers=from_page)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == OTHER and "Origin" in answer.headers["vary"]
        # Its key is asked for all the same, and nobody else gains anything.
        assert httpx.post(f"{running.address}/v1/search", json={"query": "x"}, headers=from_page).status_code == 401
        for origin in ("https://evil.example", f"{OTHER}.evil.example", "null", "http://app.example"):
            refused = running.http.post("/v1/search", json={"query": "x"}, headers={"origin": origin})
            assert refused.status_code == 403 and "access-control-allow-origin" not in refused.headers
        assert "access-control-allow-origin" not in running.http.get("/v1/models").headers


def test_settings_of_addresses_are_checked() -> None:
    found = Settings(allowed_origin="https://One.example, http://localhost:3000", root_path="/a/b/")  # type: ignore[arg-type]
    assert found.allowed_origin == ("https://one.example", "http://localhost:3000") and found.root_path == "/a/b"
    for wrong, reason in [
        ({"allowed_origin": ("app.example",)}, "allowed_origin: expected schemes and hosts"),
        ({"allowed_origin": ("https://a.example/path",)}, "allowed_origin: expected"),
        ({"allowed_origin": ("*",)}, "only where keys are asked for"),
        ({"root_path": "search"}, "root_path: expected a path"),
        ({"root_path": '/"><script>'}, "root_path: expected a path"),
    ]:
        with pytest.raises(SettingsError, match=re.escape(reason)):
            Settings(**wrong)  # type: ignore[arg-type]
    assert Settings(allowed_origin=("*",), api_keys=(KEY,)).allowed_origin == ("*",)
