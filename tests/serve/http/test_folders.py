"""Folders of the server's machine: only those that the settings allow, indexed in the background, with live events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve import Client
from serve.client import ApiError
from serve.engine.settings import Settings
from serve.library.library import Library
from tests.serve import tiny
from tests.serve.live import Live, live


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for number in range(3):
        tiny.picture(tmp_path / "photos" / "trip" / f"{number}.png", number)
    (tmp_path / "photos" / "trip" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    tiny.picture(tmp_path / "private" / "x.png", 9)
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "private")
    return tmp_path


@pytest.fixture
def served(place: Path) -> Iterator[Live]:
    settings = Settings(port=0, allow_folders=(str(place / "photos"),))
    with Library.open(place / "library", tiny.seven()) as library, live(library, settings) as running:
        yield running


def events(running: Live) -> list[dict[str, Any]]:
    """All events of a stream, which ends when there is nothing left to do."""
    with running.http.stream("GET", "/v1/indexing") as answer:
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
        lines = list(answer.iter_lines())
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def test_an_allowed_folder_is_indexed_with_events_and_a_report(served: Live, place: Path) -> None:
    assert [event["state"] for event in events(served)] == ["idle"]
    answer = served.http.post("/v1/folders", json={"path": str(place / "photos" / "trip")})
    assert answer.status_code == 202, answer.text
    told = events(served)
    last = told[-1]
    assert (last["state"], last["path"], last["done"]) == ("done", str(place / "photos" / "trip"), last["total"])
    assert last["report"]["added"] == 3 and last["report"]["skipped"] == 1
    assert last["report"]["first"][0]["path"].endswith("bad.png") and last["report"]["first"][0]["reason"]
    assert [event["number"] for event in told] == sorted(event["number"] for event in told)
    assert served.http.get("/v1/facets").json()["total"] == 3
    folders = served.http.get("/v1/folders").json()
    assert folders["allowed"] == [str(place / "photos")]
    assert [(root["files"], root["skipped"], root["is_there"]) for root in folders["data"]] == [(3, 1, True)]


def test_skipped_files_are_listed_and_tried_again(served: Live, place: Path) -> None:
    served.http.post("/v1/folders", json={"path": str(place / "photos" / "trip")})
    events(served)
    told = served.http.get("/v1/skipped", params={"limit": 1}).json()
    assert told["total"] == 1 and told["next"] is None and told["data"][0]["path"].endswith("bad.png")
    tiny.picture(place / "photos" / "trip" / "bad.png", 7)
    with Client(served.address) as client:
        assert [path for path, _ in client.skipped()] == [told["data"][0]["path"]]
        client.retry_skipped()
        last = client.wait_for_indexing()
        assert (last["state"], last["path"], last["report"]["added"]) == ("done", None, 1)
        assert client.skipped() == []
        with pytest.raises(ApiError, match="folder_refused"):
            client.add_folder("/etc")


@pytest.mark.parametrize(
    "path",
    ["private", "photos/../private", "photos/link", "library", ".", "/etc", "no/such", "photos/no/../../private"],
)
def test_no_other_folder_is_taken(served: Live, place: Path, path: str) -> None:
    refused = served.http.post("/v1/folders", json={"path": str(place / path) if path[0] != "/" else path})
    assert refused.status_code == 403, refused.text
    assert refused.json()["error"]["code"] == "folder_refused"
    assert "--allow-folders" in refused.json()["error"]["message"] and str(place) not in refused.text
    assert served.http.get("/v1/facets").json()["total"] == 0


def test_what_is_no_folder_is_said(served: Live, place: Path) -> None:
    for path in (place / "photos" / "none", place / "photos" / "trip" / "0.png"):
        answer = served.http.post("/v1/folders", json={"path": str(path)})
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "path"
    for body in ({"path": ""}, {"path": "x\0y"}, {"path": "\ud800"}, {}):
        answer = served.http.post("/v1/folders", content=json.dumps(body), headers={"content-type": "application/json"})
        assert 400 <= answer.status_code < 500, (body, answer.text)


def test_without_the_setting_or_read_only_nothing_is_added(place: Path) -> None:
    with Library.open(place / "library", tiny.seven()) as library:
        with live(library) as running:
            refused = running.http.post("/v1/folders", json={"path": str(place / "photos")})
            assert refused.status_code == 403 and running.http.get("/v1/folders").json()["allowed"] == []
        settings = Settings(port=0, read_only=True, allow_folders=(str(place),))
        with live(library, settings) as running:
            for path, body in (("/v1/folders", {"path": str(place / "photos")}), ("/v1/skipped/retry", None)):
                assert running.http.post(path, json=body).json()["error"]["code"] == "read_only"


def test_a_run_ends_with_the_server_and_goes_on_later(place: Path) -> None:
    for number in range(300):
        tiny.picture(place / "photos" / "many" / f"{number}.bmp", 1000 + number)
    settings = Settings(port=0, allow_folders=(str(place / "photos"),))
    with Library.open(place / "library", tiny.seven()) as library:
        with live(library, settings) as running:
            running.http.post("/v1/folders", json={"path": str(place / "photos" / "many")})
            while running.service.folder_jobs.state.done < 3:
                pass
        assert running.service.folder_jobs.state.state == "running", "it was ended on its way"
        assert library.index(place / "photos" / "many").seconds > 0 and len(library) == 300
