"""What the page's server side answers, refuses and writes into HTML. How it behaves: test_browser.py."""

from __future__ import annotations

import base64
import csv
import dataclasses
import gzip
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from torch import nn

from bind import description
from bind.modalities import specs
from bind.model.model import BindModel
from bind.model.towers import Tower
from serve.engine.jobs import Busy, LateError
from serve.engine.service import Service
from serve.engine.settings import Settings
from serve.http.api import create_app
from serve.library import projection
from serve.library.items import Item
from serve.library.library import Library
from serve.page import app as app_module
from serve.page import figures, plots
from serve.page.examples import examples
from serve.page.front import FOLDER, FOREVER, front
from tests.serve import tiny

HACK = '"><img src=x onerror=alert(1)>'
Call = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "media"
    for number, name in enumerate(("beach", "forest", "mountain")):
        tiny.picture(folder / f"{name}.png", number)
    tiny.clip(folder / "film.mp4")
    tiny.sound(folder / "tone.wav", 440.0, 4.0)
    (folder / f"{HACK.replace('/', '')}.txt").write_text(f"Quoted {HACK} ${{1}} {{{{2}}}} " + "word " * 100)
    (folder / "bad\udcff.txt").write_text("a name that is not UTF-8")
    (folder / "half.txt").write_text("a caption that is not Unicode")
    (folder / "half.txt.json").write_text('{"caption": "half \\ud800 a pair", "k<b>": {"x": ["<i>"]}, "y": "\\ud800"}')
    metres = np.linspace(1, 5, 64 * 48, dtype=np.float32).reshape(48, 64)
    Image.fromarray((metres * 1000).astype(np.uint16)).save(folder / "room.depth.png")
    warm = np.full((32, 32), 29_315, np.uint16)
    warm[8:24, 8:24] = 30_815
    Image.fromarray(warm).save(folder / "cup.thermal.png")
    (folder / "cup.thermal.png.json").write_text('{"unit": "centikelvin"}')
    with open(folder / "walk.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            ["time [s]", "acc_x [g]", "acc_y [g]", "acc_z [g]", "gyro_x [deg/s]", "gyro_y [deg/s]", "gyro_z [deg/s]"]
        )
        for step in range(800):
            rows.writerow([step / 100, np.sin(step / 20), 0, 1, 90 * np.cos(step / 20), 0, 0])
    return folder


@pytest.fixture(scope="module")
def service(media: Path) -> Iterator[Service]:
    with Library.open(media.parent / "library", _all_modalities()) as library:
        report = library.index(media)
        assert report.skipped == []
        opened = Service(library)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service), base_url="http://127.0.0.1") as opened:
        yield opened


@pytest.fixture
def call(client: TestClient) -> Call:
    return _caller(client)


@pytest.fixture(scope="module")
def ids(service: Service) -> dict[str, int]:
    """File name -> the id of its first item."""
    found: dict[str, int] = {}
    for item, _ in service.library.sample(100):
        found.setdefault(Path(item.path).name, item.item_id)
    return found


def test_a_file_becomes_a_vector_that_can_be_searched_with(client: TestClient, media: Path, service: Service) -> None:
    embedded = vector_of(client, "beach.png", (media / "beach.png").read_bytes())
    assert embedded["modality"] == "image"
    vector = np.frombuffer(base64.b64decode(embedded["vector"]), "<f4")
    assert vector.shape == (service.model.dim,) and abs(np.linalg.norm(vector) - 1) < 1e-5
    term = {"vector": embedded["vector"], "vector_of": "image"}
    alone = client.post("/v1/search", json={"terms": [term], "want": ["image"]}).json()["data"]
    assert len(alone) == 3 and Path(alone[0]["path"]).name == "beach.png"
    mixed = [term, {"text": "a", "weight": 0.5}, {"item": alone[1]["id"], "weight": -1}]
    assert len(client.post("/v1/search", json={"terms": mixed, "k": 5}).json()["data"]) == 5


def test_an_upload_leaves_nothing_behind(client: TestClient, media: Path) -> None:
    before = {path for path in Path(gr.utils.get_upload_folder()).rglob("*") if path.is_file()}
    secret = b"\x89PNG only for me" + bytes(100)
    assert "error" in vector_of(client, "secret.png", secret)
    vector_of(client, "beach.png", (media / "beach.png").read_bytes())
    after = {path for path in Path(gr.utils.get_upload_folder()).rglob("*") if path.is_file()}
    assert after <= before


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.png", b"", "is empty"),
        ("broken.png", b"\x89PNG\r\n\x1a\n" + bytes(64), "decoded"),
        ("list.m3u8", b"#EXTM3U\nfile:///etc/passwd\n", "playlist"),
        ("unknown.bin", bytes(range(256)), "not supported"),
    ],
)
def test_a_bad_upload_is_refused_with_its_reason(client: TestClient, name: str, content: bytes, reason: str) -> None:
    assert reason in vector_of(client, name, content)["error"]["message"]


def test_what_a_content_does_not_tell_can_be_said(client: TestClient) -> None:
    out = io.BytesIO()
    np.save(out, np.full((48, 64), 2.0, np.float32))
    assert vector_of(client, "values.npy", out.getvalue())["read_as"] == ["depth", "thermal", "imu"]
    assert vector_of(client, "values.npy", out.getvalue(), "depth")["modality"] == "depth"
    assert vector_of(client, "values.npy", out.getvalue(), "smell")["error"]["param"] == "modality"
    assert client.post("/vectors", data={"file": "/etc/passwd"}).json()["error"]["code"] == "no_file"


@pytest.mark.parametrize(
    ("term", "code"),
    [
        ({"vector": "!!"}, "not_data"),
        ({"vector": "AACAPw=="}, "unusable_medium"),
        ({"vector": "AACAPw==", "text": "a"}, "invalid_request"),
        ({"vector": base64.b64encode(np.full(tiny.DIM, np.nan, "<f4").tobytes()).decode()}, "unusable_medium"),
    ],
)
def test_a_wrong_vector_is_refused(client: TestClient, term: dict[str, Any], code: str) -> None:
    answer = client.post("/v1/search", json={"terms": [term]})
    assert (answer.status_code // 100, answer.json()["error"]["code"]) == (4, code)


def test_a_fault_of_our_own_is_told_and_logged(
    call: Call, service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("private detail")

    monkeypatch.setattr(service, "about", broken)
    problem = call("overview")["problem"]
    assert problem["title"] == "Something went wrong in the server" and "private" not in problem["text"]
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    ("error", "kind", "text"), [(Busy(7), "busy", "is busy"), (LateError(), "failed", "took too long")]
)
def test_a_server_that_cannot_answer_says_so(
    call: Call, service: Service, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: str, text: str
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(service, "search", refuse)
    problem = call("search", "a", 5, None, "")["problem"]
    assert problem["kind"] == kind and text in problem["title"]
    assert problem.get("retry_after_s") == (7 if kind == "busy" else None)


def test_programs_of_gradio_can_search_with_words(call: Call) -> None:
    found = call("search", "beach", 5, ["image"], "")
    assert len(found["hits"]) == 3 and found["hits"][0]["path"].endswith("beach.png")
    assert call("search", "a", 5, None, "name lik 'x'")["problem"]["text"].splitlines()[-1].endswith("^")
    assert "cannot be read" in call("search", 1, 2, 3, 4, 5, 6)["problem"]["title"]
    assert "cannot be read" in call("explore", {"x": 1})["problem"]["title"]
    assert "problem" in call("search", "a", 0, None, "") and "problem" in call("search", "a", 5, ["smell"], "")


CLOSED = [
    ("GET", "/gradio_api/file=/etc/passwd"),
    ("GET", "/gradio_api/file=http://198.51.100.1/"),
    ("GET", "/gradio_api/proxy=http://198.51.100.1/"),
    ("POST", "/gradio_api/upload"),
    ("GET", "/gradio_api/upload_progress?upload_id=1"),
    ("POST", "/gradio_api/queue/join"),
    ("GET", "/gradio_api/queue/data?session_hash=1"),
    ("POST", "/gradio_api/run/predict"),
    ("POST", "/gradio_api/call/predict"),
    ("GET", "/gradio_api/openapi.json"),
    ("GET", "/gradio_api/custom_component/1/client/x/..%2f..%2fetc"),
    ("POST", "/gradio_api/process_recording"),
    ("GET", "/gradio_api/runs"),
    ("GET", "/gradio_api/heartbeat/x"),
    ("GET", "/monitoring"),
    ("GET", "/svelte/x"),
    ("GET", "/file=/etc/passwd"),
    ("GET", "/config"),
    ("GET", "/theme.css"),
    ("GET", "/static/img/logo.svg"),
    ("GET", "/gradio_api/info"),
    ("GET", "/gradio_api/run/overview"),
    ("POST", "/gradio_api/run/overview/"),
    ("POST", "/gradio_api/component_server/"),
    ("POST", "/gradio_api/run/api"),
]


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_gradios_other_routes_are_closed(client: TestClient, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


def test_without_the_page_guard_gradio_would_answer(service: Service, media: Path) -> None:
    bare = FastAPI()
    gr.mount_gradio_app(bare, app_module.engine(service), "/")
    with TestClient(bare) as client:
        uploaded = client.post("/gradio_api/upload", files={"files": ("x.txt", b"mine")})
        assert uploaded.status_code == 200
        assert client.get(f"/gradio_api/file={uploaded.json()[0]}").content == b"mine"
        assert client.get("/gradio_api/info").status_code == 200


def test_files_of_the_library_and_the_system_cannot_be_had(client: TestClient, service: Service, media: Path) -> None:
    here = front().version
    for path in (media / "beach.png", service.library.folder / "catalogue.sqlite", Path(app_module.__file__)):
        for prefix in (
            "/gradio_api/file=",
            "/file=",
            "/assets/../../..",
            f"/assets/{here}/..%2f..%2f..",
            "/assets/",
        ):
            answer = client.get(f"{prefix}{path}")
            assert answer.status_code in (403, 404), (prefix, path)
            assert b"PNG" not in answer.content and b"SQLite" not in answer.content
    assert client.get(f"/assets/{here}/index.html").status_code == 404


def test_the_page_asks_nothing_of_other_hosts(client: TestClient) -> None:
    texts = [asset.content.decode() for asset in front().assets.values()] + [client.get("/").text]
    addresses = {
        found for text in texts for found in re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s'\"]*", text)
    }
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of a language, which nobody loads
    policy = client.get("/").headers["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy and "script-src 'self';" in policy
    assert "require-trusted-types-for 'script'" in policy and "frame-ancestors 'none'" in policy


def test_nothing_of_the_page_turns_text_into_html_or_code() -> None:
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|javascript:"
    for name, asset in front().assets.items():
        assert re.findall(sinks, asset.content.decode()) == [], name
    html = (FOLDER / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*src=)|\son\w+=|style=", html) == []


def test_the_page_is_small_and_its_files_are_kept_for_ever(client: TestClient) -> None:
    page = client.get("/")
    named = re.findall(r'(?:href|src)="(assets/[^"]+)"', page.text)
    answers = [client.get(f"/{name}", headers={"accept-encoding": "gzip"}) for name in named]
    assert all(answer.status_code == 200 and answer.headers["cache-control"] == FOREVER for answer in answers)
    assert len(page.content) + sum(int(answer.headers["content-length"]) for answer in answers) < 100_000
    assert {"text/javascript", "text/css", "image/svg+xml"} == {
        answer.headers["content-type"].partition(";")[0] for answer in answers
    }
    name = named[-1]
    assert client.get(f"/{name}", headers={"accept-encoding": "identity"}).content == answers[-1].content
    old = client.get("/" + re.sub(r"assets/\w+/", "assets/000000000000/", name))
    assert old.status_code == 404 and "load it again" in old.text
    assert page.headers["cache-control"] == "no-store"
    for asset in front().assets.values():
        assert gzip.decompress(asset.packed) == asset.content


def test_every_module_that_is_imported_is_there_and_is_short() -> None:
    for name, asset in front().assets.items():
        text = asset.content.decode()
        assert len(text.splitlines()) <= 400, name
        for imported in re.findall(r"(?:from|import\(|lazy\()\s*'\./([\w.]+)'", text):
            assert imported in front().assets, (name, imported)
    loaded = {found for found in re.findall(r'ASSETS/([\w.]+)"', (FOLDER / "index.html").read_text())}
    first = {"app.js"}
    while True:
        more = {m for name in first for m in re.findall(r"from '\./([\w.]+)'", front().assets[name].content.decode())}
        if more <= first:
            break
        first |= more
    assert first == {name for name in loaded if name.endswith(".js")}  # what is loaded first is told to the browser


@pytest.mark.parametrize(
    "sent",
    [
        {"content": b"{"},
        {"json": []},
        {"json": {"data": "x"}},
        {"json": {"data": [], "fn_index": 0}},
        {"json": {"data": [], "session_hash": "s"}},
        {"json": {"data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}] * 60}},
        {"data": {"x": "1"}, "files": {"file": ("a", b"b")}},
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
    ],
)
def test_calls_that_cannot_be_read_are_refused(client: TestClient, sent: dict[str, Any]) -> None:
    answer = client.post("/gradio_api/run/search", **sent)
    assert answer.status_code in (400, 413, 415) and "Traceback" not in answer.text


def test_too_large_a_call_is_refused(client: TestClient) -> None:
    answer = client.post("/gradio_api/run/search", json={"data": ["x" * app_module.MAX_CALL_BYTES]})
    assert answer.status_code == 413


def test_each_modality_is_shown_as_what_it_is(client: TestClient, ids: dict[str, int], call: Call) -> None:
    assert call("overview")["previews"] == {
        "image": "picture", "video": "picture", "audio": "plot", "text": "text", "depth": "picture",
        "thermal": "picture", "imu": "plot",
    }  # fmt: skip
    shown = {name: client.get(f"/figures/{number}") for name, number in ids.items() if not name.endswith(".mp4")}
    svg = {name: answer.text for name, answer in shown.items() if answer.headers["content-type"] == "image/svg+xml"}
    assert {"tone.wav", "room.depth.png", "cup.thermal.png", "walk.csv"} <= svg.keys()
    assert '<path class="bars" d="M' in svg["tone.wav"]
    assert "1.04 m" in svg["room.depth.png"] and "4.96 m" in svg["room.depth.png"]
    assert "20 °C" in svg["cup.thermal.png"] and "35 °C" in svg["cup.thermal.png"]
    assert ">deg/s<" in svg["walk.csv"] and ">g<" in svg["walk.csv"]
    assert "near%20is%20bright" in shown["room.depth.png"].headers["x-label"]
    quoted = next(answer for name, answer in shown.items() if name.startswith('">'))
    assert quoted.headers["content-type"] == "text/plain; charset=utf-8"
    assert len(quoted.text) <= figures.QUOTE_CHARACTERS + 1 and f"Quoted {HACK}" in quoted.text
    for answer in shown.values():
        assert "sandbox" in answer.headers["content-security-policy"]


def test_a_modality_of_ones_own_shows_itself() -> None:
    segment = _segment(np.linspace(0, 1, 2 * 3 * 40, dtype=np.float32).reshape(2, 3, 40))
    drawn = figures._drawn("plot", segment)
    assert drawn.kind == "image/svg+xml" and drawn.content.count(b"<path") == 3
    picture = figures._drawn("picture", _segment(np.random.default_rng(0).random((2, 3, 20, 30), np.float32)))
    assert picture.kind == "image/jpeg" and Image.open(io.BytesIO(picture.content)).size == (30, 20)
    deep = figures._drawn("picture", _segment(np.zeros((1, 2, 5, 20, 30), np.uint8)))
    assert Image.open(io.BytesIO(deep.content)).size == (30, 20)


def test_the_hook_of_a_modality_decides_how_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.seven()
    for said, expected in ((None, "picture"), ("text", "text"), ("plot", "plot")):
        spec = dataclasses.replace(specs()["depth"], preview=said)
        monkeypatch.setattr(figures, "specs", lambda spec=spec: {**specs(), "depth": spec})
        assert figures.previews(model)["depth"] == expected
    spec = dataclasses.replace(specs()["imu"], preview=None)
    monkeypatch.setattr(figures, "specs", lambda: {**specs(), "imu": spec})
    assert figures.previews(model)["imu"] == "plot"


def test_a_file_that_is_gone_or_another_is_not_shown(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    (media / "note.txt").write_text("here today")
    with Library.open(tmp_path / "library", tiny.model()) as library:
        library.index(media)
        with TestClient(create_app(Service(library)), base_url="http://127.0.0.1") as client:
            (item,) = [item for item, _ in library.sample(5)]
            assert client.get(f"/figures/{item.item_id}").text == "here today"
            (media / "note.txt").unlink()
            assert client.get(f"/figures/{item.item_id}").status_code == 404
            (media / "note.txt").write_text("something private that took its place")
            answer = client.get(f"/figures/{item.item_id}")
            assert answer.status_code == 404 and "private" not in answer.text
            assert client.get("/figures/999").status_code == 404


def test_colour_maps_keep_their_order() -> None:
    ramp = np.linspace(1, 5, 100, dtype=np.float32)[None, None]
    near = _pixels(plots.depth_picture(_segment(ramp)))
    assert near[0, 5].sum() > near[0, -5].sum()  # near is bright
    warm = plots.thermal_picture(_segment(ramp * 1000 + 27_315), "centikelvin")
    assert _pixels(warm)[0, -5].sum() > _pixels(warm)[0, 5].sum()
    assert (warm.low, warm.high) == ("10.4 °C", "49.6 °C")
    assert plots.thermal_picture(_segment(ramp), None).high.endswith("(no unit)")
    flat = plots.depth_picture(_segment(np.full((1, 4, 4), 2.0, np.float32)))
    assert (flat.low, flat.high) == ("1.5 m", "2.5 m")


def test_alike_points_lie_together_and_modalities_are_centred() -> None:
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(4, 32))
    gap = {"image": rng.normal(size=32) * 5, "text": rng.normal(size=32) * 5}
    groups = ["image", "text"] * 60
    which = np.arange(120) // 2 % 4
    vectors = np.stack([topics[w] + gap[g] + rng.normal(size=32) * 0.2 for w, g in zip(which, groups, strict=True)])
    places = projection.lay_out(vectors.astype(np.float32), groups)
    assert places.shape == (120, 2) and np.abs(places).max() <= 1
    assert np.array_equal(places, projection.lay_out(vectors.astype(np.float32), groups))
    assert _purity(places, which) > 0.95
    # The control: the neighbours in the plane are of both modalities, which they are not by their vectors.
    kinds = np.array([group == "text" for group in groups])
    assert _purity(vectors, kinds) == 1 and _purity(places, kinds) < 0.8


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 20])
def test_any_number_of_points_can_be_laid_out(count: int) -> None:
    equal = np.ones((count, 4), np.float32)
    assert projection.lay_out(equal, ["image"] * count).shape == (count, 2)
    assert np.isfinite(projection.lay_out(equal, ["image"] * count)).all()


def test_examples_are_of_what_there_is() -> None:
    pictures = [_item(number, f"/m/{name}.png", "image") for number, name in enumerate(("beach", "IMG_1", "forest"), 1)]
    sound = _item(9, "/m/7.wav", "audio", caption="rain on a roof")
    found = examples([sound, *pictures], ["image", "audio", "text"])
    words = [term["words"] for example in found for term in example["terms"] if "words" in term]
    assert words[0] == "beach" and "IMG 1" not in words
    assert {term["name"] for example in found for term in example["terms"] if "item" in term} == {
        "beach.png", "rain on a roof",
    }  # fmt: skip
    assert any(term["weight"] < 0 for example in found for term in example["terms"])
    assert all(example["want"] in (None, "image", "audio") for example in found)
    silent = examples([sound, *pictures], ["image", "audio"])
    assert not any("words" in term for example in silent for term in example["terms"])
    assert examples([], ["image", "text"]) == []


def test_what_an_empty_library_says_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with Library.open(tmp_path / "my library", tiny.model()) as library:
        service = Service(library, Settings())
        with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
            told = _caller(client)("overview")
    assert told["files"] == 0 and told["examples"] == [] and told["glimpse"] == []
    assert told["index_command"] == "crossbind index FOLDER --library ~/'my library'"


def test_the_map_is_sent_once_a_revision(call: Call, service: Service) -> None:
    first = call("explore", None)
    assert len(first["points"]) == sum(service.counts().values()) == first["total"]
    assert all(0 <= x <= 1 and 0 <= y <= 1 for _, x, y, _, _ in first["points"])
    assert call("explore", first["revision"]) == {"unchanged": True}


def test_about_names_model_space_licence_and_limits(call: Call, service: Service) -> None:
    told = call("about")
    facts = {value for _, value in told["model"] + told["limits"]}
    assert {service.model.space, service.about().license, "64 MB", "50 million pixels"} <= facts
    assert told["files"] == len(service.library)


def vector_of(client: TestClient, name: str, content: bytes, modality: str = "") -> dict[str, Any]:
    answer = client.post("/vectors", files={"file": (name, content)}, data={"modality": modality})
    found: dict[str, Any] = answer.json()
    assert answer.status_code == (200 if "vector" in found else 400 if found["error"]["param"] == "modality" else 422)
    return found


def _caller(client: TestClient) -> Call:
    def call(name: str, *given: Any) -> dict[str, Any]:
        answer = client.post(f"/gradio_api/run/{name}", json={"data": given})
        assert answer.status_code == 200, answer.text
        (found,) = answer.json()["data"]
        told: dict[str, Any] = found
        return told

    return call


def _item(number: int, path: str, modality: str, **metadata: Any) -> Item:
    return Item(number, path, modality, None, None, metadata, (), None, (), "", "")


def _segment(views_: np.ndarray) -> Any:
    from preprocess.source import Segment

    return Segment(views_)


def _pixels(colours: plots.ColourMap) -> np.ndarray:
    encoded = colours.address.partition(",")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"), int)


def _purity(places: np.ndarray, labels: np.ndarray) -> float:
    """The share of nearest neighbours with the same label."""
    distances = ((places[:, None] - places[None]) ** 2).sum(2)
    np.fill_diagonal(distances, np.inf)
    return float((labels[distances.argmin(1)] == labels).mean())


def _all_modalities() -> BindModel:
    """`tiny`'s model, with random towers for the other modalities too."""
    preprocess = {**tiny.PREPROCESS, "depth": {"size": 16}, "thermal": {"size": 16}, "imu": {}}
    table = {
        "format": 1,
        "name": "tiny-all",
        "dim": tiny.DIM,
        "license": "none",
        "modalities": {
            name: {"encoder": {"module": "tiny"}, "head": {"type": "identity"}, "preprocess": values}
            for name, values in preprocess.items()
        },
    }
    told = description.parse(table, "tiny-all")
    towers: dict[str, Tower] = dict(tiny.model().towers.items())  # type: ignore[arg-type]
    for name in ("depth", "thermal", "imu"):
        torch.manual_seed(1)
        size = int(np.prod(specs()[name].shape(told.preprocess(name))))
        towers[name] = Tower(nn.Sequential(nn.Flatten(), nn.Linear(size, tiny.DIM)), nn.Identity())
    return BindModel(told, towers, {"all": "0"})
