"""Pages, likely hits and "nothing here looks like that", from the library to the API and the command line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from serve import Client, Library
from serve.cli import commands as cli
from serve.cli import library_commands, moments_command
from serve.client import ApiError
from tests.serve import tiny
from tests.serve.live import live

COUNT = 24


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    place = tmp_path_factory.mktemp("nothing")
    for number in range(COUNT):
        tiny.picture(place / "media" / f"{number}.png", number)
    tiny.clip(place / "media/film.mp4", 7.0, None)
    with Library.open(place / "library", tiny.model()) as opened:
        opened.index(place / "media")
        yield opened


def test_the_api_and_its_client_have_pages_and_say_what_is_likely(library: Library, tmp_path: Path) -> None:
    query = Path(library.search("1.png", k=1)[0].path)
    other = tiny.picture(tmp_path / "other.png", 99)
    whole = library.search(f"image:{query}", k=100)
    with live(library) as served, Client(served.address) as client:
        found, cursor = [], None
        while True:
            page = client.search(query, k=7, cursor=cursor)
            found += page
            assert not page.nothing
            cursor = page.next
            if cursor is None:
                break
        assert [(hit.id, hit.likely) for hit in found] == [(hit.item_id, hit.likely) for hit in whole]
        assert [hit.likely for hit in found].count(True) == whole.likely >= 1 and found[0].path == str(query)
        assert client.search(other, want=["image"]).nothing, "a picture that is like no other"
        answer = httpx.post(f"{served.address}/v1/search", json={"query": "1.png", "k": 3}).json()
        assert answer["likely"] >= 1 and answer["nothing"] is False and answer["next"]
        assert answer["data"][0]["likely"] and answer["data"][0]["places"] is None
        segments = client.search(query, k=100, want=["video"], every_segment=True)
        assert len(segments) > len(client.search(query, k=100, want=["video"])) == 1
        assert client.search(query, min_score=1e6) == []
        with pytest.raises(ApiError, match="bad_cursor"):
            client.search(query, k=7, cursor="x")
        form = {"k": "3", "min_score": "-1000", "every_segment": "true"}
        told = httpx.post(f"{served.address}/v1/search", files={"image": query.read_bytes()}, data=form).json()
        assert len(told["data"]) == 3


def test_search_says_where_pictures_show_it(library: Library) -> None:
    with live(library) as served:
        body = {"query": "a red boat", "k": 6, "want": ["image", "video"], "locate": True}
        told = httpx.post(f"{served.address}/v1/search", json=body).json()["data"]
        places = [row["places"] for row in told if row["modality"] == "image"]
        assert all(one is not None for one in places[:4]) and not any(places[4:])
        assert {(one["width"], one["height"]) for one in places[:4]} == {(24, 20)}
        boxes = [box for one in places[:4] for box in one["boxes"]]
        assert boxes and all(0 <= box["x0"] < box["x1"] <= 24 and 0 <= box["y0"] < box["y1"] <= 20 for box in boxes)


def test_the_command_line_folds_what_is_probably_wrong_away(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_commands, "open_library", lambda *_, **__: contextlib.nullcontext(library))

    def run(query: str, *options: str) -> tuple[str, str]:
        place = ["--library", str(library.folder), "--want", "image", "--format", "table"]
        result = CliRunner().invoke(cli.app, ["search", query, *place, *options])
        assert result.exit_code == 0, result.output
        return result.stdout, result.stderr

    other = f"image:{tiny.picture(tmp_path / 'other.png', 99)}"
    assert run(other)[0] == "nothing here looks like that\n(--nearest shows the nearest 10)\n"
    told = run(other, "--nearest")[0]
    assert told.startswith("nothing here looks like that; the nearest:") and told.count(" image ") == 10
    held = f"image:{library.search('1.png', k=1)[0].path}"
    told, err = run(held)
    assert told.count(" image ") == 1 and "9 more are probably not what was asked for" in told
    assert err.startswith("more: --cursor ")
    told, err = run(held, "--cursor", err.split()[-1], "--k", "50", "--json")
    rows = json.loads(told)
    assert len(rows) == COUNT - 10 and not any(row["likely"] for row in rows) and err == ""
    assert json.loads(run(held, "--min-score", "1e6", "--json")[0]) == []
    assert (
        CliRunner().invoke(cli.app, ["search", held, "--library", str(library.folder), "--cursor", "x"]).exit_code == 2
    )


def test_moments_over_http_and_on_the_command_line(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    film = library.search("x", k=1, want=["video"], keywords=False)[0]
    expected = library.moments(film.item_id, "text:x", min_score=-100.0)
    assert expected
    with live(library) as served, Client(served.address) as client:
        told = client.moments(film.item_id, "x", min_score=-100.0)
        assert [one.start_s for one in told] == [one.start_s for one in expected]
        np.testing.assert_allclose(told.scores, expected.scores, atol=1e-3)
        np.testing.assert_array_equal(told.spans, expected.spans)
        assert told.item_ids == expected.item_ids
        fine = client.moments(film.item_id, "x", fine=True, which="last", min_score=-100.0, after_s=0.0, before_s=99.0)
        assert len(fine) <= 1 and fine.item_ids == () and len(fine.scores) >= len(told.scores)
        still = library.search("x", k=1, want=["image"], keywords=False)[0]
        for item, message in ((still.item_id, "bad_query"), (10**9, "unknown_item")):
            with pytest.raises(ApiError, match=message):
                client.moments(item, "x")
    monkeypatch.setattr(moments_command, "open_library", lambda *_, **__: contextlib.nullcontext(library))
    place = ["--library", str(library.folder)]
    result = CliRunner().invoke(cli.app, ["moments", film.path, "text:x", *place, "--min-score", "-100", "--json"])
    assert result.exit_code == 0, result.output
    assert [one["start_s"] for one in json.loads(result.stdout)["moments"]] == [one.start_s for one in expected]
    result = CliRunner().invoke(cli.app, ["moments", film.path, "text:x", *place, "--min-score", "1000"])
    assert result.stdout == "nothing in it looks like that\n"
    result = CliRunner().invoke(cli.app, ["moments", film.path, "text:x", *place, "--min-score", "-100"])
    assert result.stdout.count(" score ") == len(expected)
    result = CliRunner().invoke(cli.app, ["moments", "nowhere.mp4", "text:x", *place])
    assert result.exit_code == 2 and "no recording of this library" in result.stderr
