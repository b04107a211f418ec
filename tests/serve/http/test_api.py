"""The API as programs meet it: over a socket, with the clients that people use."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

import bind
from bind.space import Embeddings
from serve import Client, Library, Term
from serve import client as client_module
from serve.client import ApiError
from serve.engine.settings import Settings
from tests.serve import bad, tiny
from tests.serve.live import Live, live

BAD = bad.files()


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api") / "media"
    for number in range(6):
        tiny.picture(folder / f"{number}.png", number)
    tiny.sound(folder / "tone.wav", 440, 3.0)
    tiny.clip(folder / "film.mp4")
    (folder / "note.txt").write_text("a note about <script>alert(1)</script> boats")
    (folder / "0.png.json").write_text('{"caption": "a harbour", "camera": "X100", "odd": "\\ud800"}')
    return folder


@pytest.fixture(scope="module")
def served(media: Path) -> Iterator[Live]:
    with Library.open(media.parent / "library", tiny.seven()) as library:
        report = library.index(media)
        assert report.added == 9 and not report.skipped
        with live(library) as running:
            yield running


@pytest.fixture
def model(served: Live) -> bind.BindModel:
    return served.service.model


def data(content: bytes) -> str:
    return "data:application/octet-stream;base64," + base64.b64encode(content).decode()


def vectors(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]], np.float32)


def error(answer: httpx.Response) -> dict[str, Any]:
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    found: dict[str, Any] = answer.json()["error"]
    assert set(found) == {"message", "type", "param", "code"} and found["message"]
    return found


def test_the_openai_client_works_unchanged(served: Live, model: bind.BindModel) -> None:
    texts = ["a dog", "rain on a roof", "a dog"]
    expected = model.embed(texts, modality="text").vectors
    client = openai.OpenAI(base_url=f"{served.address}/v1", api_key="none", max_retries=0)
    told = client.embeddings.create(model="tiny-0", input=texts)  # its default is base64
    np.testing.assert_allclose([row.embedding for row in told.data], expected, atol=1e-5)
    assert [row.index for row in told.data] == [0, 1, 2]
    assert told.model == "tiny-0" and told.usage.total_tokens == told.usage.prompt_tokens > 6
    plain = client.embeddings.create(model="tiny-0", input="a dog", encoding_format="float")
    np.testing.assert_allclose(plain.data[0].embedding, expected[0], atol=1e-5)
    assert [entry.id for entry in client.models.list()] == ["tiny-0"]
    assert client.models.retrieve("tiny-0").owned_by == "crossbind"
    for tokens in ([1, 2, 3], [[1, 2], [3]]):
        with pytest.raises(openai.BadRequestError, match="tokens"):
            client.embeddings.create(model="tiny-0", input=tokens)
    with pytest.raises(openai.NotFoundError, match="tiny-0"):
        client.embeddings.create(model="text-embedding-3-small", input="a dog")
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model="tiny-0", input="a dog", dimensions=7)


def test_media_come_as_data_or_as_a_form(served: Live, model: bind.BindModel, media: Path) -> None:
    names = ["0.png", "tone.wav", "film.mp4"]
    contents = [(media / name).read_bytes() for name in names]
    expected = model.embed([media / name for name in names]).vectors
    entries = [{kind: data(content)} for kind, content in zip(("image", "audio", "video"), contents, strict=True)]
    sent = vectors(served.http.post("/v1/embeddings", json={"input": [*entries, {"file": data(contents[0])}]}))
    np.testing.assert_allclose(sent, expected[[0, 1, 2, 0]], atol=1e-5)
    parts = [("image", ("0.png", contents[0])), ("file", ("tone.wav", contents[1])), ("video", ("f", contents[2]))]
    sent = vectors(served.http.post("/v1/embeddings", files=parts))
    np.testing.assert_allclose(sent, expected, atol=1e-5)


def test_a_composed_query_is_one_embedding(served: Live, model: bind.BindModel, media: Path) -> None:
    hit = served.http.post("/v1/search", json={"query": "x", "where": "name = '1.png'"}).json()["data"][0]
    terms = [
        {"image": data((media / "0.png").read_bytes())},
        {"text": "a dog", "weight": 0.5},
        {"item": hit["id"], "weight": -1},
    ]
    sent = vectors(served.http.post("/v1/embeddings", json={"input": {"terms": terms}}))
    parts = model.embed([media / "0.png", "text:a dog", media / "1.png"])
    np.testing.assert_allclose(sent, bind.combine(parts, [1, 0.5, -1]).vectors, atol=1e-5)
    cancelled = {"terms": [{"text": "a dog"}, {"text": "a dog", "weight": -1}]}
    assert "cancel out" in error(served.http.post("/v1/embeddings", json={"input": cancelled}))["message"]


def test_search_finds_what_the_library_finds(served: Live, media: Path) -> None:
    library = served.service.library
    for query, options in [
        ("harbour", {}),
        ("a boat", {"want": ["image", "video"], "k": 3}),
        ("boats", {"where": "name like '%.png' and camera = 'X100'"}),
    ]:
        told = served.http.post("/v1/search", json={"query": query, **options}).json()["data"]
        expected = library.search(f"text:'{query}'", **options)
        assert [row["id"] for row in told] == [hit.item_id for hit in expected]
        np.testing.assert_allclose([row["score"] for row in told], [hit.score for hit in expected], atol=1e-3)
        assert [row["keyword"] for row in told] == [hit.keyword for hit in expected]
    terms = [{"image": data((media / "2.png").read_bytes())}, {"text": "rain", "weight": -0.25}]
    told = served.http.post("/v1/search", json={"terms": terms, "k": 4}).json()["data"]
    expected = library.search(f"image:'{media / '2.png'}' - 0.25*text:'rain'", k=4)
    assert [row["id"] for row in told] == [hit.item_id for hit in expected]
    assert told[0]["path"] == str(media / "2.png")
    form = {"weights": "1,-0.25", "k": "4"}
    parts = [("image", ("x.png", (media / "2.png").read_bytes())), ("text", (None, "rain"))]
    again = served.http.post("/v1/search", files=parts, data=form).json()["data"]
    assert [row["id"] for row in again] == [row["id"] for row in told]
    more = served.http.post("/v1/search", json={"terms": [{"item": told[0]["id"]}], "k": 50}).json()["data"]
    assert str(media / "2.png") not in {row["path"] for row in more}, "an item does not find itself"
    assert len(more) == 8


def test_words_that_look_like_a_path_are_said(served: Live) -> None:
    told = served.http.post("/v1/search", json={"query": "photos/nowhere.png"}).json()
    assert told["notes"] == [
        "'photos/nowhere.png' looks like a path, but there is no such file: it was searched as words"
    ]
    told = served.http.post("/v1/search", json={"query": "2.png", "k": 2}).json()
    assert (told["notes"], told["data"][0]["path"].rpartition("/")[2]) == ([], "2.png")
    assert served.http.post("/v1/search", json={"query": "a boat"}).json()["notes"] == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"query": "x", "where": "name = 'a' or 1=1; drop table files"}, "cannot be read from here"),
        ({"query": "x", "where": "name = 'x"}, "never closed"),
        ({"query": "x", "where": "'1' = '1'"}, "expected a column"),
        ({"query": "x", "want": ["smell"]}, "no modality 'smell'"),
        ({"query": "x", "k": 0}, "k"),
        ({"query": "x", "k": 10_000}, "k from 1 to 200"),
        ({"query": ""}, "blank"),
        ({"query": "x", "terms": [{"text": "y"}]}, "one of query"),
        ({}, "one of query"),
        ({"query": "x", "kay": 3}, "kay"),
        ({"terms": []}, "terms"),
        ({"terms": [{"text": "x", "weight": 3}]}, "weight"),
        ({"terms": [{"text": "x", "image": "y"}]}, "expected one of"),
        ({"terms": [{"image": "http://127.0.0.1:1/x.png"}]}, "not fetched"),
        ({"terms": [{"image": "file:///etc/hostname"}]}, "not fetched"),
        ({"terms": [{"image": "/etc/hostname"}]}, "not fetched"),
        ({"terms": [{"image": "data:image/png;base64,@@@"}]}, "base64"),
        ({"terms": [{"item": 10**9}]}, "no item"),
        ({"terms": [{"item": 2**70}]}, "item"),
        ({"terms": [{"image": data(b"x"), "hints": {"smell": 1}}]}, "no hint 'smell'"),
    ],
)
def test_requests_that_make_no_sense_say_why(served: Live, body: dict[str, Any], reason: str) -> None:
    assert reason in error(served.http.post("/v1/search", json=body))["message"]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"[" + b"1," * 200_000 + b"1]", "application/json", 413),
        (b'{"input": "x", "input\xff": 1}', "application/json", 400),
        (b'{"input": "\\ud800"}', "application/json", 422),
        (b"input=x", "application/x-www-form-urlencoded", 415),
        (b"", "", 415),
        (b"--x\r\nnonsense", "multipart/form-data; boundary=x", 400),
        (b"x", "multipart/form-data", 400),
    ],
)
def test_bodies_that_cannot_be_read(served: Live, content: bytes, kind: str, status: int) -> None:
    answer = served.http.post("/v1/embeddings", content=content, headers={"content-type": kind})
    assert answer.status_code == status, answer.text
    error(answer)


def test_long_texts_may_have_many_commas(served: Live) -> None:
    assert vectors(served.http.post("/v1/embeddings", json={"input": ["a, b, [c], {d} " * 30_000]})).shape == (1, 32)


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_with_a_reason_and_the_server_lives(served: Live, name: str, tmp_path: Path) -> None:
    content, said = BAD[name]
    before = served.service.counts()
    entry = {said or "file": data(content), "name": name}
    told = error(served.http.post("/v1/embeddings", json={"input": ["a dog", entry]}))
    assert told["param"] == "input[1]" and told["code"] == "unusable_medium"
    assert "Traceback" not in told["message"] and "/tmp" not in told["message"]
    if said is None:
        told = error(served.http.post("/v1/items", files={"file": (name, content)}))
        assert told["code"] == "unusable_medium"
        kept = served.service.library.folder / "files"
        assert served.service.counts() == before and not list(kept.iterdir()), "nothing is left of it"
    assert vectors(served.http.post("/v1/embeddings", json={"input": "a dog"})).shape == (1, 32)


def test_words_never_name_a_file_of_the_server(
    served: Live, model: bind.BindModel, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(media)
    for words in (str(media / "0.png"), "0.png", "image:0.png", f"image:{media / '0.png'}", "~/0.png"):
        as_text = model.embed([words], modality="text").vectors[0]
        body = {"input": [words, {"text": words}, {"terms": [{"text": words}]}]}
        for vector in vectors(served.http.post("/v1/embeddings", json=body)):
            np.testing.assert_allclose(vector, as_text, atol=1e-5)
        hits = served.http.post("/v1/search", json={"query": words, "k": 20}).json()["data"]
        assert max(row["cosine"] for row in hits) < 0.99
    # What the library itself makes of such words is what the API must not.
    assert served.service.library.search(str(media / "0.png"))[0].cosine > 0.99


def test_an_item_is_added_shown_and_deleted(served: Live, media: Path, tmp_path: Path) -> None:
    content = tiny.clip(tmp_path / "x.mp4", 4.0, 880.0).read_bytes()
    before = served.service.counts()
    upload = {"file": ("../../evil/../a film.mp4", content)}
    told = served.http.post("/v1/items", files=upload, data={"metadata": json.dumps({"caption": "a zebra"})})
    assert told.status_code == 201, told.text
    items = told.json()["data"]
    assert {item["modality"] for item in items} == {"video", "audio"}
    kept = Path(items[0]["path"])
    assert kept.name == "a film.mp4" and kept.is_relative_to(served.service.library.folder / "files")
    again = served.http.post("/v1/items", files=upload, data={"metadata": json.dumps({"caption": "a zebra"})})
    assert again.json()["data"] == items, "the same file with the same metadata is one"
    found = served.http.post("/v1/search", json={"query": "zebra", "want": ["video"]}).json()["data"]
    assert found[0]["path"] == str(kept) and found[0]["keyword"]
    one = served.http.get(f"/v1/items/{items[0]['id']}").json()
    assert one["metadata"]["caption"] == "a zebra"
    assert served.http.get(one["media"]).content == content
    gone = served.http.delete(f"/v1/items/{items[0]['id']}")
    assert {item["id"] for item in gone.json()["data"]} == {item["id"] for item in items}
    assert not kept.parent.exists() and served.service.counts() == before
    for path in (f"/v1/items/{items[0]['id']}", one["media"], one["thumbnail"]):
        assert error(served.http.get(path))["code"] == "unknown_item"
    assert error(served.http.delete(f"/v1/items/{items[0]['id']}"))["code"] == "unknown_item"


def test_files_of_folders_are_forgotten_but_not_deleted(served: Live, media: Path) -> None:
    hit = served.http.post("/v1/search", json={"query": "x", "where": "name = '5.png'"}).json()["data"][0]
    assert served.http.delete(f"/v1/items/{hit['id']}").status_code == 200
    assert (media / "5.png").is_file()
    assert error(served.http.get(f"/v1/items/{hit['id']}"))["code"] == "unknown_item"
    assert served.service.library.index(media).added == 1


@pytest.mark.parametrize("metadata", ["[1]", "{", '{"a": NaN}', '{"a": 1e999}', "[" * 60_000, '{"unit": 3}'])
def test_metadata_is_an_object_of_json(served: Live, media: Path, metadata: str) -> None:
    upload = {"file": ("x.png", (media / "0.png").read_bytes())}
    error(served.http.post("/v1/items", files=upload, data={"metadata": metadata}))


def test_media_by_ranges(served: Live, media: Path) -> None:
    hit = served.http.post("/v1/search", json={"query": "x", "want": ["video"]}).json()["data"][0]
    whole = (media / "film.mp4").read_bytes()
    answer = served.http.get(hit["media"])
    assert answer.content == whole, hit
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["accept-ranges"] == "bytes"
    part = served.http.get(hit["media"], headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole)}"
    assert served.http.get(hit["media"], headers={"range": "bytes=-50"}).content == whole[-50:]
    assert served.http.get(hit["media"], headers={"range": f"bytes={len(whole)}-"}).status_code == 416
    etag = {"range": "bytes=0-9", "if-range": answer.headers["etag"]}
    assert served.http.get(hit["media"], headers=etag).status_code == 206
    assert served.http.get(hit["media"], headers=etag | {"if-range": '"old"'}).content == whole
    thumbnail = served.http.get(hit["thumbnail"])
    assert thumbnail.headers["content-type"] == "image/jpeg" and thumbnail.content.startswith(b"\xff\xd8")
    sound = served.http.post("/v1/search", json={"query": "x", "where": "name = 'tone.wav'"}).json()["data"][0]
    assert served.http.get(sound["media"]).headers["content-type"] == "audio/wav"
    assert error(served.http.get(sound["thumbnail"]))["code"] == "no_picture"


def test_it_says_how_it_is(served: Live, model: bind.BindModel) -> None:
    assert served.http.get("/health").json() == {"status": "ok"}
    assert served.http.get("/ready").json() == {"status": "ok"}
    (told,) = served.http.get("/v1/models").json()["data"]
    assert (told["id"], told["space"], told["dimensions"]) == ("tiny-0", model.space, 32)
    assert set(told["modalities"]) == set(model.modalities)
    measured = served.http.get("/metrics").text
    for name in (
        'crossbind_requests_total{method="POST",route="/v1/embeddings",status="200"}',
        "crossbind_request_seconds_bucket",
        "crossbind_queue_depth 0.0",
        'crossbind_batch_size_count{modality="text"}',
        f'crossbind_items{{modality="image"}} {served.service.counts()["image"]}.0',
        'crossbind_stage_seconds_count{stage="encode"}',
    ):
        assert name in measured, name
    paths = served.http.get("/v1/openapi.json").json()["paths"]
    assert {"/v1/embeddings", "/v1/search", "/v1/items", "/v1/items/{item_id}", "/metrics"} <= set(paths)


def test_the_client(served: Live, model: bind.BindModel, media: Path, tmp_path: Path) -> None:
    with Client(served.address) as client:
        found = client.embed(["a dog", media / "0.png", Term((media / "tone.wav").read_bytes(), "audio")])
        assert isinstance(found, Embeddings) and found.space == model.space
        expected = model.embed(["text:a dog", media / "0.png", media / "tone.wav"])
        np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-5)
        many = client.embed([f"text {number}" for number in range(300)])
        assert len(many) == 300
        hits = client.search([Term(media / "3.png"), Term("rain", weight=-0.1)], k=2, want=["image"])
        assert hits[0].path == str(media / "3.png") and hits[0].score > hits[1].score
        assert client.search(hits[0].id, k=1)[0].path != hits[0].path
        (added,) = client.add(tiny.picture(tmp_path / "new.png", 99), {"caption": "new"})
        assert client.item(added.id) == added
        assert client.media(added.id) == (tmp_path / "new.png").read_bytes()
        assert client.thumbnail(added.id).startswith(b"\xff\xd8")
        assert client.delete(added.id) == [added]
        with pytest.raises(ApiError, match="no item"):
            client.item(added.id)
        assert client.models()[0]["id"] == "tiny-0"


def test_locate(served: Live, model: bind.BindModel, media: Path) -> None:
    content = (media / "0.png").read_bytes()
    expected = model.locate(media / "0.png", "text:a boat")
    items = served.http.get("/v1/items", params={"where": "name = '0.png'"}).json()["data"]
    item_id = items[0]["id"]
    with Client(served.address) as client:
        for picture in (item_id, media / "0.png", Term(content, "image")):
            found = client.locate(picture, "a boat")
            np.testing.assert_allclose(found.heat, expected.heat, atol=1e-5)
            np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-4)
            assert (found.width, found.height) == (24, 20)
        heard = client.locate(item_id, [Term(media / "tone.wav"), Term("a boat", weight=-0.5)])
        assert not np.allclose(heard.heat, expected.heat, atol=1e-3)
        for picture, words in ((media / "tone.wav", "depth, image, thermal"), (b"no picture", ""), (10**9, "no item")):
            with pytest.raises(ApiError, match=words):
                client.locate(picture, "a boat")
    for body, status in (
        ({"picture": {"text": "a boat"}, "query": "a boat"}, 400),
        ({"picture": {"item": item_id}}, 400),
        ({"picture": {"image": "http://example.org/a.png"}, "query": "a boat"}, 400),
        ({"picture": {"item": item_id}, "terms": [{"image": data(b"bad")}]}, 422),
        ({"picture": {"image": data(b"bad")}, "query": "a boat"}, 422),
        ({"picture": {"item": item_id}, "terms": [{"text": "a"}, {"text": "a", "weight": -1}]}, 400),
    ):
        answer = served.http.post("/v1/locate", json=body)
        assert answer.status_code == status and error(answer), (body, answer.text)


def test_a_read_only_server_changes_nothing(tmp_path: Path) -> None:
    picture = tiny.picture(tmp_path / "media" / "a.png", 1)
    with Library.open(tmp_path / "library", tiny.model()) as library:
        library.index(picture.parent)
        with live(library, Settings(port=0, read_only=True)) as served:
            upload = {"file": ("x.png", tiny.picture(tmp_path / "b.png", 2).read_bytes())}
            assert error(served.http.post("/v1/items", files=upload))["code"] == "read_only"
            assert error(served.http.delete("/v1/items/1"))["code"] == "read_only"
            assert served.service.counts() == {"image": 1}


def test_an_upload_that_was_cut_off_leaves_nothing(tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", tiny.model()) as library:
        tiny.picture(tmp_path / "library" / "files" / "0123" / "whole but never committed.png", 1)
        tiny.picture(tmp_path / "library" / "files" / ".incoming-x" / "half.png", 2)
        kept = library.add(open(tiny.picture(tmp_path / "a.png", 3), "rb"), "a.png")  # noqa: SIM115
        with live(library) as served:
            # Only what is called unfinished is swept: what the catalogue does not know may be all that is left.
            assert {entry.name for entry in (tmp_path / "library" / "files").iterdir()} == {
                Path(kept[0].path).parent.name,
                "0123",
            }
            assert served.http.get(f"/v1/items/{kept[0].item_id}/media").status_code == 200
        library.index(tmp_path)
        assert library.item(kept[0].item_id) is not None, "indexing a folder around the library leaves its files alone"


def test_a_full_server_says_when_to_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model()
    go_on, encode = threading.Event(), model.encode_views
    monkeypatch.setattr(model, "encode_views", lambda *a: (go_on.wait(60), encode(*a))[1])
    settings = Settings(port=0, max_waiting=4, max_terms=4)
    with (
        Library.open(tmp_path / "library", model) as library,
        live(library, settings) as served,
        ThreadPoolExecutor(1) as threads,
    ):
        first = threads.submit(served.http.post, "/v1/embeddings", json={"input": ["a", "b", "c"]})
        while not served.http.get("/metrics").text.count("crossbind_queue_depth 3.0"):
            pass
        full = served.http.post("/v1/embeddings", json={"input": ["d", "e"]})
        assert full.status_code == 429 and 1 <= int(full.headers["retry-after"]) <= 30
        assert full.json()["error"]["code"] == "too_busy"
        waits: list[float] = []
        monkeypatch.setattr(client_module.time, "sleep", lambda seconds: (waits.append(seconds), go_on.set()))
        with Client(served.address, tries=1000) as client:
            assert len(client.embed(["d", "e"])) == 2
        assert waits[0] == float(full.headers["retry-after"])
        assert first.result().status_code == 200


def test_another_process_that_writes_is_waited_for(tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", tiny.model()) as library, live(library) as served:
        upload = {"file": ("x.png", tiny.picture(tmp_path / "b.png", 2).read_bytes())}
        with library._catalogue.write():
            answer = served.http.post("/v1/items", files=upload)
        assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 0
        assert served.http.post("/v1/items", files=upload).status_code == 201
