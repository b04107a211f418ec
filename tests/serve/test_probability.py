"""Probabilities of hits, from the library to the API, the command line and the page's words."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from bind.calibration import Calibration, background
from bind.model.model import BindModel
from serve import Client, Library, Term
from serve.cli import commands as cli
from serve.cli import library_commands
from serve.library import calibration
from tests.serve import tiny
from tests.serve.live import live


def unit(vectors: np.ndarray) -> np.ndarray:
    found: np.ndarray = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return found


def calibrated(
    model: BindModel, *pairs: tuple[str, str], weights: tuple[float, ...] = (2.0, 0.0, 0.0, -6.0)
) -> BindModel:
    """The model, with probabilities for some pairs: a hit is likely from three deviations above the background on."""
    any_items = unit(np.random.default_rng(0).normal(size=(400, model.dim)))
    backgrounds = {name: background(any_items) for name in model.modalities}
    made = {pair: np.array([2, 0, 0, -6], np.float32) for pair in pairs}
    model.calibration = Calibration(model.space, backgrounds, made)
    return model


@pytest.fixture
def media(tmp_path: Path) -> Path:
    for number in range(8):
        tiny.picture(tmp_path / "media" / f"{number}.png", number)
    tiny.sound(tmp_path / "media/tone.wav", 440)
    return tmp_path / "media"


@pytest.fixture
def library(media: Path, tmp_path: Path) -> Iterator[Library]:
    model = calibrated(tiny.model(), ("image", "image"), ("text", "image"))
    with Library.open(tmp_path / "library", model) as opened:
        opened.index(media)
        yield opened


def test_the_picture_itself_is_likely_and_others_are_not(library: Library, media: Path) -> None:
    hits = library.search(f"image:{media / '3.png'}", k=8, want=["image"])
    assert hits[0].path.endswith("3.png") and hits[0].probability is not None and hits[0].probability > 0.9
    assert all(hit.probability is not None and hit.probability < 0.5 for hit in hits[1:])
    assert [hit.probability for hit in hits] == sorted((hit.probability or 0 for hit in hits), reverse=True)
    found = library.search(f"image:{media / '3.png'}", k=8, min_probability=0.5)
    assert [Path(hit.path).name for hit in found] == ["3.png"]


def test_nothing_here_looks_like_that(library: Library, tmp_path: Path) -> None:
    other = tiny.picture(tmp_path / "other.png", 99)
    assert len(library.search(f"image:{other}", want=["image"])) == 8
    assert library.search(f"image:{other}", min_probability=0.5) == []


def test_pairs_without_calibration_have_no_probability(library: Library, media: Path) -> None:
    hits = {hit.modality: hit for hit in library.search(f"image:{media / '0.png'}", k=20)}
    assert hits["image"].probability is not None and hits["audio"].probability is None
    assert {hit.modality for hit in library.search(f"image:{media / '0.png'}", k=20, min_probability=0.0)} == {"image"}
    with pytest.raises(ValueError, match=r"no probabilities for audio -> .*leave out min_probability"):
        library.search(f"audio:{media / 'tone.wav'}", min_probability=0.5)
    with pytest.raises(ValueError, match="from 0 to 1, got 50"):
        library.search("a dog", min_probability=50)
    library.model.calibration = None
    assert all(hit.probability is None for hit in library.search("a dog", k=20))
    with pytest.raises(ValueError, match="no probabilities for text"):
        library.search("a dog", min_probability=0.5)


def test_a_mixture_of_modalities_has_none_one_of_the_same_has(library: Library, media: Path) -> None:
    def probabilities(query: object) -> set[bool]:
        hits = library.search(query, k=20, want=["image"])  # type: ignore[arg-type]
        return {hit.probability is None for hit in hits}

    picture = f"image:{media / '0.png'}"
    assert probabilities(f"{picture} + text:night") == {True}
    assert probabilities("text:a dog - text:night") == {False}
    assert probabilities(library.vectors([1])) == {True}
    item = library.search(picture, k=1)[0].item_id
    assert probabilities([Term(item)]) == {False}
    assert probabilities([Term(item), Term("night")]) == {True}
    assert all(hit.probability is not None for hit in library.similar(item, want=["image"]))


def test_what_shares_an_encoder_shares_its_calibration() -> None:
    model = calibrated(tiny.model(), ("image", "image"))
    tables = dict(model.description.modalities)
    tables["video"] = tables["video"].model_copy(update={"shares": "image", "encoder": None, "head": None})
    model.description = model.description.model_copy(update={"modalities": tables})
    rng = np.random.default_rng(1)
    samples = {"video": unit(rng.normal(size=(20, model.dim))), "audio": unit(rng.normal(size=(20, model.dim)))}
    worth = calibration.Worth.of(model, "video", {"video": 20, "audio": 20})
    scales = calibration.scales(unit(rng.normal(size=model.dim)), samples, worth)
    assert scales["video"].calibrated and not scales["audio"].calibrated
    assert scales["audio"].probability(np.zeros(2)) == [None, None]


def test_a_keyword_does_not_make_it_look_like_that(library: Library, media: Path) -> None:
    hits = library.search("tone 5", k=20)
    assert any(hit.keyword for hit in hits)
    assert library.search("tone 5", k=20, min_probability=0.999) == []


def test_no_wrong_hit_of_a_small_library_is_a_strong_match() -> None:
    """Without probabilities: of few items most agree by chance, and the last stood out by any number of deviations."""
    rng = np.random.default_rng(0)
    for n in range(2, calibration.FEW):
        for _ in range(200):
            query, items = unit(rng.normal(size=16)), unit(rng.normal(size=(n, 16)))
            cosines = items @ query
            scores = calibration.scales(query, {"image": items})["image"].score(cosines)
            assert scores.max() < calibration.STANDS_OUT
    # From ten items on, what stands out is called so.
    query = unit(rng.normal(size=64))
    items = np.concatenate([unit(rng.normal(size=(11, 64))), query[None]])
    assert calibration.scales(query, {"image": items})["image"].score(np.ones(1))[0] >= calibration.STANDS_OUT


def test_the_api_and_its_client_tell_it(library: Library, media: Path, tmp_path: Path) -> None:
    other = tiny.picture(tmp_path / "other.png", 99)
    with live(library) as served, Client(served.address) as client:
        hits = client.search(media / "3.png", k=8, want=["image"])
        assert hits[0].probability is not None and hits[0].probability > 0.9
        assert client.search(media / "3.png", min_probability=0.5)[0].path.endswith("3.png")
        assert client.search(other, min_probability=0.5) == []
        answer = httpx.post(f"{served.address}/v1/search", json={"query": "x", "min_probability": 1.5})
        assert answer.status_code in (400, 422)
        body = {"query": "x", "min_probability": 0.5, "want": ["audio"]}
        refused = httpx.post(f"{served.address}/v1/search", json=body)
        assert refused.status_code == 400 and "no probabilities for text -> audio" in refused.text


def test_the_command_line_says_that_nothing_looks_like_that(
    library: Library, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_commands, "open_library", lambda *_, **__: contextlib.nullcontext(library))
    other = tiny.picture(tmp_path / "other.png", 99)
    place = ["--library", str(library.folder)]
    result = CliRunner().invoke(cli.app, ["search", f"image:{other}", *place, "--min-probability", "0.5"])
    assert result.exit_code == 0 and "nothing here looks like that" in result.output
    asked = f"image:{media / '3.png'}"
    result = CliRunner().invoke(cli.app, ["search", asked, *place, "--min-probability", "0.5", "--json"])
    (row,) = json.loads(result.stdout)
    assert row["probability"] > 0.9


def test_eval_wants_manifests_or_a_suite(tmp_path: Path) -> None:
    for arguments in (
        [],
        ["--suite", "real"],
        ["x.jsonl", "--suite", "real", "--data", "d"],
        ["x.jsonl", "--data", "d"],
    ):
        result = CliRunner().invoke(cli.app, ["eval", "small", *arguments])
        assert result.exit_code == 2, arguments
