"""The routes that list files, against what the library says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serve import Client, Library
from serve.client import ApiError
from tests.serve import tiny
from tests.serve.live import Live, live


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    media = tmp_path_factory.mktemp("browse") / "media"
    for number in range(5):
        tiny.picture(media / f"{number}.png", number)
    tiny.clip(media / "<b>film.mp4")
    (media / "0.png.json").write_text(
        '{"caption": "a harbour", "camera": "X100", "date": "2021-03-04", "latitude": 60, "longitude": 5}'
    )
    (media / "1.png.json").write_text('{"camera": "\\ud800", "latitude": 61, "longitude": 5, "place": "<i>x"}')
    with Library.open(media.parent / "library", tiny.seven()) as library:
        library.index(media)
        with live(library) as running:
            yield running


def test_files_are_listed_in_orders_page_by_page(served: Live) -> None:
    found: list[str] = []
    asked = {"files": True, "sort": "name", "order": "desc", "limit": 2}
    cursor = None
    while True:
        told = served.http.get("/v1/items", params=asked | ({"cursor": cursor} if cursor else {})).json()
        assert told["has_more"] == (told["cursor"] is not None) and told["total"] == 6 and told["next"] is None
        found += [Path(row["path"]).name for row in told["data"]]
        cursor = told["cursor"]
        if cursor is None:
            break
    assert found == ["<b>film.mp4", *(f"{number}.png" for number in range(4, -1, -1))]
    film = served.http.get("/v1/items", params={"files": True, "where": "kind = 'video'"}).json()["data"][0]
    assert film["segments"] > 1 and film["start_s"] is None and film["kind"] == "video"
    assert served.http.get(film["thumbnail"]).status_code == 200


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"sort": "date"}, "bad_query"),
        ({"order": "desc"}, "bad_query"),
        ({"cursor": "x"}, "bad_query"),
        ({"files": True, "after": 3}, "bad_query"),
        ({"files": True, "cursor": "x"}, "bad_cursor"),
        ({"files": True, "sort": "colour"}, "invalid_request"),
        ({"files": True, "where": "smell = 1"}, "bad_where"),
        ({"files": True, "limit": 1001}, "invalid_request"),
    ],
)
def test_lists_that_make_no_sense(served: Live, asked: dict[str, object], code: str) -> None:
    answer = served.http.get("/v1/items", params=asked)
    assert answer.status_code == 400 and answer.json()["error"]["code"] == code


def test_details_say_all_of_an_item(served: Live) -> None:
    first = served.http.get("/v1/items", params={"files": True, "where": "name = '0.png'"}).json()["data"][0]
    told = served.http.get(f"/v1/items/{first['id']}").json()
    assert (told["kind"], told["date"], told["date_source"]) == ("image", "2021-03-04", "sidecar")
    assert told["metadata"]["camera"] == "X100" and told["size_bytes"] == Path(told["path"]).stat().st_size
    assert [one["id"] for one in told["related"]] == [first["id"]] and not told["favourite"]
    stretch = served.http.get("/v1/items", params={"where": "modality = 'audio'"}).json()["data"][0]
    told = served.http.get(f"/v1/items/{stretch['id']}").json()
    assert (told["modality"], told["kind"]) == ("audio", "video") and told["end_s"] is not None
    assert {one["modality"] for one in told["related"]} == {"audio", "video"}


def test_facets_and_neighbours(served: Live) -> None:
    told = served.http.get("/v1/facets").json()
    assert told["total"] == 6 and {row["name"]: row["count"] for row in told["kinds"]} == {"image": 5, "video": 1}
    assert {"month": "2021-03", "count": 1} in told["months"] and told["folders"] == [{"path": "", "count": 6}]
    assert {"name": "<i>x", "count": 1} in told["places"]
    assert served.http.get("/v1/facets", params={"where": "camera = 'X100'"}).json()["total"] == 1
    assert served.http.get("/v1/facets", params={"where": "camera ="}).json()["error"]["param"] == "where"
    harbour = served.http.get("/v1/items", params={"files": True, "where": "camera = 'X100'"}).json()["data"][0]
    near = served.http.get(f"/v1/items/{harbour['id']}/near", params={"by": "place"}).json()["data"]
    assert [Path(row["path"]).name for row in near] == ["1.png"]
    assert len(served.http.get(f"/v1/items/{harbour['id']}/near").json()["data"]) == 5
    assert served.http.get("/v1/items/999999/near").status_code == 404


def test_the_client_lists_as_the_library_does(served: Live) -> None:
    library = served.service.library
    with Client(served.address) as client:
        page, expected = client.files(sort="size", limit=4), library.files(sort="size", limit=4)
        assert [file.id for file in page.files] == [file.item_id for file in expected.files]
        assert (page.cursor, page.total) == (expected.cursor, expected.total)
        assert client.files(sort="size", limit=4, cursor=page.cursor).cursor is None
        assert client.file(page.files[0].id) == page.files[0]
        assert client.facets()["total"] == library.facets().total
        assert [file.id for file in client.near(page.files[0].id)] == [
            file.item_id for file in library.near(page.files[0].id, "time")
        ]
        groups = client.duplicates(0.5)
        assert [len(files) for _, files in groups] == [len(files) for _, files in library.duplicate_files(0.5)[0]]
        with pytest.raises(ApiError, match="bad_where"):
            client.files("smell = 1")
