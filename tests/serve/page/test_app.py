"""What the page's server side answers, refuses and writes into HTML. How it behaves: test_browser.py."""

from __future__ import annotations

import asyncio
import base64
import csv
import io
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
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
from serve.library.items import Hit, Item
from serve.library.library import Library
from serve.page import app as app_module
from serve.page import plots, views
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


def test_a_composed_query_of_words_an_item_and_an_upload(call: Call, media: Path, service: Service) -> None:
    embedded = call("embed", upload=("beach.png", (media / "beach.png").read_bytes()))
    assert embedded["modality"] == "image"
    vector = np.frombuffer(base64.b64decode(embedded["vector"]), "<f4")
    assert vector.shape == (service.model.dim,) and abs(np.linalg.norm(vector) - 1) < 1e-5

    alone = call("search", _query({"vector": embedded["vector"], "weight": 1}, want=["image"]))
    assert alone["count"] == 3 and _names(alone["html"])[0] == "beach.png"
    item = _ids(alone["html"])[1]
    both = call("search", _query({"words": "a", "weight": 0.5}, {"item": item, "weight": -1}, k=5))
    assert both["count"] == 5
    similar = call("search", _query({"item": item, "weight": 1}, k=20))
    assert item not in _ids(similar["html"])


def test_an_upload_leaves_nothing_behind(client: TestClient, call: Call, media: Path, tmp_path: Path) -> None:
    before = {path for path in Path(gr.utils.get_upload_folder()).rglob("*") if path.is_file()}
    secret = b"\x89PNG only for me" + bytes(100)
    assert "problem" in call("embed", upload=("secret.png", secret))
    call("embed", upload=("beach.png", (media / "beach.png").read_bytes()))
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
def test_a_bad_upload_is_refused_with_its_reason(call: Call, name: str, content: bytes, reason: str) -> None:
    problem = call("embed", upload=(name, content))["problem"]
    assert problem["title"] == f"{name} could not be used"
    assert reason in problem["text"]


def test_what_a_content_does_not_tell_can_be_said(call: Call) -> None:
    out = io.BytesIO()
    np.save(out, np.full((48, 64), 2.0, np.float32))
    told = call("embed", upload=("values.npy", out.getvalue()))["problem"]
    assert told["read_as"] == ["depth", "thermal", "imu"]
    assert call("embed", upload=("values.npy", out.getvalue()), modality="depth")["modality"] == "depth"


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ({}, "cannot be read"),
        (None, "cannot be read"),
        ({"terms": [], "k": 5, "want": None, "where": ""}, "cannot be searched for"),
        ({"terms": [{"words": "a", "weight": 7}], "k": 5, "want": None, "where": ""}, "cannot be searched for"),
        ({"terms": [{"words": "a", "weight": 1}], "k": 10**6, "want": None, "where": ""}, "cannot be searched for"),
        ({"terms": [{"words": "a", "weight": 1}], "k": 5, "want": ["smell"], "where": ""}, "cannot be searched for"),
        ({"terms": [{"item": 10**9, "weight": 1}], "k": 5, "want": None, "where": ""}, "gone"),
        ({"terms": [{"vector": "!!", "weight": 1}], "k": 5, "want": None, "where": ""}, "cannot be searched for"),
        ({"terms": [{"words": "a", "weight": 1}], "k": 5, "want": "image", "where": ""}, "cannot be read"),
        ({"terms": [{"vector": "AACAPw==", "weight": 1}], "k": 5, "want": None, "where": ""}, "cannot be used"),
    ],
)
def test_a_wrong_query_is_explained(call: Call, sent: Any, text: str) -> None:
    assert text in call("search", sent)["problem"]["title"]


def test_a_fault_of_our_own_is_told_and_logged(
    call: Call, service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("private detail")

    monkeypatch.setattr(service, "about", broken)
    problem = call("overview")["problem"]
    assert problem["title"] == "Something went wrong in the server" and "private" not in problem["text"]
    assert any(record.exc_info for record in caplog.records)


def test_a_wrong_filter_points_at_the_character(call: Call) -> None:
    answer = call("search", _query({"words": "a", "weight": 1}, where="name lik 'x'"))
    assert answer["where_error"].splitlines()[-1].endswith("^")


@pytest.mark.parametrize(
    ("error", "kind", "text"), [(Busy(7), "busy", "is busy"), (LateError(), "failed", "took too long")]
)
def test_a_server_that_cannot_answer_says_so(
    call: Call, service: Service, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: str, text: str
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(service, "search", refuse)
    problem = call("search", _query({"words": "a", "weight": 1}))["problem"]
    assert problem["kind"] == kind and text in problem["title"]
    assert problem.get("retry_after_s") == (7 if kind == "busy" else None)


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
]


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_gradios_other_routes_are_closed(client: TestClient, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


def test_without_the_page_guard_gradio_would_answer(service: Service, media: Path) -> None:
    bare = FastAPI()
    gr.mount_gradio_app(bare, app_module.page(service), "/")
    with TestClient(bare) as client:
        uploaded = client.post("/gradio_api/upload", files={"files": ("x.txt", b"mine")})
        assert uploaded.status_code == 200
        assert client.get(f"/gradio_api/file={uploaded.json()[0]}").content == b"mine"


def test_files_of_the_library_and_the_system_cannot_be_had_from_gradios_routes(
    client: TestClient, service: Service, media: Path
) -> None:
    for path in (media / "beach.png", service.library.folder / "catalogue.sqlite", Path(app_module.__file__)):
        for prefix in ("/gradio_api/file=", "/file=", "/assets/../../..", "/static/..%2f..%2f..%2f..", "/assets/"):
            answer = client.get(f"{prefix}{path}")
            assert answer.status_code in (403, 404), (prefix, path)
            assert b"PNG" not in answer.content and b"SQLite" not in answer.content


def test_the_page_asks_nothing_of_other_hosts(client: TestClient) -> None:
    page = client.get("/").text
    assert "fonts.googleapis" not in page and "cdn" not in page.lower()
    config = client.get("/config").json()
    assert config["analytics_enabled"] is False
    assert [component["type"] for component in config["components"]].count("html") == 1
    assert config["dependencies"] == []  # no function can be reached through gradio's own API


def test_only_the_pages_functions_can_be_called(client: TestClient) -> None:
    component = _component(client)
    for name in ("load_event", "__init__", "postprocess", "get_config", "push_to_hub"):
        body = {"data": None, "component_id": component, "fn_name": name, "session_hash": "s"}
        assert client.post("/gradio_api/component_server/", json=body).status_code == 404


@pytest.mark.parametrize(
    "sent",
    [
        {"content": b"{"},
        {"json": []},
        {"json": {"data": None, "component_id": 999, "fn_name": "search", "session_hash": "s"}},
        {"data": {"x": "1"}, "files": {"file": ("a", b"b")}},
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
    ],
)
def test_calls_that_cannot_be_read_are_refused(client: TestClient, sent: dict[str, Any]) -> None:
    assert client.post("/gradio_api/component_server/", **sent).status_code == 400


def test_a_call_without_its_upload_is_explained(client: TestClient, call: Call) -> None:
    for sent in (None, {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, "x"):
        assert "cannot be read" in call("embed", sent)["problem"]["title"]
    form = {"component_id": str(_component(client)), "fn_name": "embed", "session_hash": "s"}
    two = [("file", ("a.txt", b"a")), ("file", ("b.txt", b"b"))]
    assert "problem" in client.post("/gradio_api/component_server/", data=form, files=two).json()


class _Tags(HTMLParser):
    """What a browser would make of some HTML: its tags, and attributes that could run something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.dangerous: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.dangerous += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_everything_from_files_is_escaped(call: Call) -> None:
    html = call("search", _query({"words": "a", "weight": 1}, k=20, want=["text"]))["html"]
    found = _Tags(html)
    assert f"{HACK}.txt" in found.text and f"Quoted {HACK}" in found.text
    assert {"img", "script", "i<b"} & {*found.tags} == set() and found.dangerous == []
    assert "half ? a pair" in found.text  # valid Unicode, or the answer could not be sent
    for number in _ids(html):
        told = _Tags(call("details", number)["html"])
        assert {"img", "script", "b"} & {*told.tags} == set() and told.dangerous == []
    # The control: unescaped, the parser would see it.
    assert _Tags(f"<p>{HACK}</p>").dangerous == ["onerror"]


def test_each_modality_is_shown_as_what_it_is(call: Call) -> None:
    html = call("search", _query({"words": "a", "weight": 1}, k=40))["html"]
    card = {name: part for name, part in zip(_names(html), html.split("<article")[1:], strict=True)}
    assert "/thumbnail" in card["beach.png"]
    film = call("search", _query({"words": "a", "weight": 1}, want=["video"]))["html"]
    assert 'preload="none"' in film and "/media#t=" in film and "Play film.mp4 from 0:0" in film
    assert '<path d="M' in card["tone.wav"] and "<audio controls" in card["tone.wav"]
    assert "1.04 m" in card["room.depth.png"] and "4.96 m" in card["room.depth.png"]
    assert "20 °C" in card["cup.thermal.png"] and "35 °C" in card["cup.thermal.png"]
    assert ">deg/s<" in card["walk.csv"] and ">g<" in card["walk.csv"]
    assert card[f"{HACK}.txt"].count("word ") < 70 and "…</blockquote>" in card[f"{HACK}.txt"]


def test_a_file_that_is_gone_is_shown_as_that(call: Call, tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    (media / "note.txt").write_text("here today")
    with Library.open(tmp_path / "library", tiny.model()) as library:
        library.index(media)
        service = Service(library)
        (item,) = [item for item, _ in library.sample(5)]
        figures = views.Figures(service)
        (media / "note.txt").unlink()
        assert "is gone" in asyncio.run(figures.figure(item))
        (media / "note.txt").write_text("something private that took its place")
        assert "private" not in asyncio.run(figures.figure(item))
        service.close()


def test_scores_have_words() -> None:
    assert [views.meaning(score)[1] for score in (9, 5, 4.9, 3, 2.5, 1.9, -3)] == [
        "strong match", "strong match", "likely match", "likely match", "weak match", "may be chance", "may be chance",
    ]  # fmt: skip
    shown = views.card(_hit(score=-0.04), 1, "")
    assert "<b>0.0</b>" in shown and "0.0 standard deviations" in shown
    assert "Cosine 0.25" in shown


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
    found = app_module.examples([sound, *pictures], ["image", "audio", "text"])
    words = [term["words"] for example in found for term in example["terms"] if "words" in term]
    assert words[0] == "beach" and "IMG 1" not in words
    assert {term["name"] for example in found for term in example["terms"] if "item" in term} == {
        "beach.png", "rain on a roof",
    }  # fmt: skip
    assert any(term["weight"] < 0 for example in found for term in example["terms"])
    assert all(example["want"] in (None, "image", "audio") for example in found)
    silent = app_module.examples([sound, *pictures], ["image", "audio"])
    assert not any("words" in term for example in silent for term in example["terms"])
    assert app_module.examples([], ["image", "text"]) == []


def test_what_an_empty_library_says_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with Library.open(tmp_path / "my library", tiny.model()) as library:
        service = Service(library, Settings())
        with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
            told = _caller(client)("overview")
    assert told["files"] == 0 and told["examples"] == [] and told["glimpse"] == []
    assert told["index_command"] == "crossbind index FOLDER --library ~/'my library'"


def test_the_map_is_sent_once_a_revision(call: Call, service: Service) -> None:
    first = call("explore")
    assert len(first["points"]) == sum(service.counts().values()) == first["total"]
    assert all(0 <= x <= 1 and 0 <= y <= 1 for _, x, y, _, _ in first["points"])
    assert call("explore", first["revision"]) == {"unchanged": True}


def test_about_names_model_space_licence_and_limits(call: Call, service: Service) -> None:
    told = _Tags(call("about")["html"]).text
    for fact in (
        service.model.space,
        service.about().license,
        "64 MB",
        "50 million pixels",
        f"{len(service.library):,}",
    ):
        assert fact in told


def _caller(client: TestClient) -> Call:
    component = _component(client)

    def call(
        name: str, data: Any = None, upload: tuple[str, bytes] | None = None, modality: str = ""
    ) -> dict[str, Any]:
        place = {"component_id": component, "fn_name": name, "session_hash": "s"}
        if upload is None:
            answer = client.post("/gradio_api/component_server/", json={"data": data, **place})
        else:
            form = {"modality": modality, **{key: str(value) for key, value in place.items()}}
            answer = client.post("/gradio_api/component_server/", data=form, files={"file": upload})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    return call


def _component(client: TestClient) -> int:
    (number,) = [each["id"] for each in client.get("/config").json()["components"] if each["type"] == "html"]
    return int(number)


def _query(*terms: dict[str, Any], k: int = 10, want: list[str] | None = None, where: str = "") -> dict[str, Any]:
    return {"terms": list(terms), "k": k, "want": want, "where": where}


class _Cards(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[int, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag == "article":
            self.found.append((int(told["data-id"] or 0), told["data-name"] or ""))


def _ids(html: str) -> list[int]:
    return [number for number, _ in _Cards(html).found]


def _names(html: str) -> list[str]:
    return [name for _, name in _Cards(html).found]


def _item(number: int, path: str, modality: str, **metadata: Any) -> Item:
    return Item(number, path, modality, None, None, metadata, (), None, (), "", "")


def _hit(score: float) -> Hit:
    return Hit(1, "/m/x.png", "image", None, None, {}, (), None, (), "", "", score, 0.25, False)


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
