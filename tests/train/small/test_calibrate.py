"""Calibration on planted vectors: probabilities are what they say, absent things stay unsaid, sides share nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bind import calibration, zoo
from bind.calibration import Calibration
from bind.model.model import BindModel
from bind.space import Embeddings
from preprocess import manifest
from preprocess.manifest import Event
from tests.serve import tiny
from train.evaluate.items import Items
from train.small import calibrate
from train.small.calibrate import Asking, Meaning, Pool
from train.small.data import find

CLASSES, EACH = 60, 5


def unit(vectors: np.ndarray) -> np.ndarray:
    found: np.ndarray = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return found


def pools(noise: float, seed: int = 0) -> dict[str, Pool]:
    """Texts (one a class) and pictures (EACH) that lie near their class, each modality in a region of its own."""
    rng = np.random.default_rng(seed)
    meanings, gaps = unit(rng.normal(size=(CLASSES, 48))), unit(rng.normal(size=(2, 48)))
    tested = rng.random(CLASSES) < 0.5
    found = {}
    for gap, (name, each) in zip(gaps, (("text", 1), ("image", EACH)), strict=True):
        classes = np.repeat(np.arange(CLASSES), each)
        vectors = unit(meanings[classes] + 0.7 * gap + noise * rng.normal(size=(len(classes), 48)) / np.sqrt(48))
        events = np.arange(len(classes)) + (0 if name == "text" else 1000)
        found[name] = Pool(vectors, np.zeros(len(classes), int), events, classes, tested[classes])
    return found


def fitted(noise: float) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    given = pools(noise)
    backgrounds = {name: calibration.background(pool.vectors) for name, pool in given.items()}
    unfitted = Calibration("", backgrounds, {})
    rng = np.random.default_rng(0)
    ask = Asking(unfitted, "text", "image", given["text"], given["image"], None, rng)
    features, right, _ = ask.examples(False)
    return calibrate.fit(features, right), ask.examples(True)


@pytest.fixture(autouse=True)
def _fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "_LIBRARIES", 3)
    monkeypatch.setattr(calibrate, "_SIZES", (3, 8, 24, 80))


def test_probabilities_are_what_they_say_on_classes_never_fitted_to() -> None:
    weights, (features, right, _) = fitted(noise=1.2)
    likely = 1 / (1 + np.exp(-features @ weights))
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        some = (likely >= low) & (likely < low + 0.2)
        if some.sum() > 100:
            assert right[some].mean() == pytest.approx(likely[some].mean(), abs=0.13)
    assert ((likely > 0.8).sum() > 100) and ((likely < 0.2).sum() > 100)


def test_absent_things_stay_unsaid_where_the_model_is_good_enough() -> None:
    weights, (features, _, whose) = fitted(noise=0.6)
    found = calibrate._measured(("text", "image"), weights, features, whose)
    assert found.absent <= 0.1 and found.present >= 0.95 and found.n > 200
    assert "says nothing: " in str(found)


def test_larger_libraries_and_lower_cosines_are_less_likely() -> None:
    weights, _ = fitted(noise=1.2)
    assert weights[0] + weights[1] > 0.3 and weights[2] < -0.1


def test_weights_keep_their_sign_whatever_the_data_say() -> None:
    rng = np.random.default_rng(0)
    features = np.column_stack([rng.normal(size=(500, 3)), np.ones(500)])
    weights = calibrate.fit(features, features[:, 0] < 0)  # the higher the cosine, the wronger
    assert weights[0] >= 0 and weights[1] >= 0 and weights[2] <= 0


def test_of_an_absent_query_nothing_right_is_left() -> None:
    given = pools(0.6)
    unfitted = Calibration("", {name: calibration.background(pool.vectors) for name, pool in given.items()}, {})
    ask = Asking(unfitted, "text", "image", given["text"], given["image"], None, np.random.default_rng(0))
    _, right, whose = ask.examples(True)
    assert not right[whose < 0].any()
    shares = [right[whose == query].any() for query in np.unique(whose[whose > 0])]
    assert np.mean(shares) > 0.9


def test_what_sentences_call_alike_is_not_wrong() -> None:
    """Two sets have dogs, under different class names: neither's picture is a wrong answer to the other's word."""
    rng = np.random.default_rng(0)
    dog, cat = unit(rng.normal(size=(2, 48)))
    said = unit(np.stack([dog, dog, cat, *rng.normal(size=(60, 48))]) + 0.02 * rng.normal(size=(63, 48)))
    said[4::2] = unit(said[3:-1:2] + 0.2 * rng.normal(size=(30, 48)) / np.sqrt(48))  # pairs of sentences of one event
    events = np.array([1, 2, 3, *np.repeat(np.arange(10, 40), 2)])
    texts = Pool(said, np.zeros(63, int), events, np.full(63, -1), np.zeros(63, bool))
    assert Meaning(texts).alike(dog[None], np.array([1, 2, 3, 999])).tolist() == [True, True, False, False]
    assert Meaning(texts).alike(np.zeros((0, 48)), np.array([1])).tolist() == [False]


def made(folder: Path, patch: pytest.MonkeyPatch) -> BindModel:
    """Sets with words, pictures and motion, and a model in whose space they meet."""
    rng = np.random.default_rng(0)
    meanings = {f"thing {number}": unit(rng.normal(size=tiny.DIM)) for number in range(40)}

    def write(name: str, modality: str) -> None:
        entries: list[dict[str, Any]] = []
        for number in range(160):
            label = f"thing {number % 40}"
            one = {"id": f"{number}", modality: {"path": f"{number}"}, "labels": [label], "text": f"a photo of {label}"}
            entries.append(one)
        manifest.write(folder / f"{name}.jsonl", {"name": name, "license": "CC0"}, entries)

    folder.mkdir()
    write("grocery-test", "image")
    write("wisdm-test", "imu")
    model = tiny.seven()

    def vector(text: str, noise: float) -> np.ndarray:
        name = text.removeprefix("a photo of ")
        own = np.random.default_rng(list(hashlib.sha256(text.encode()).digest()))
        return unit(meanings[name] + noise * own.normal(size=tiny.DIM) / np.sqrt(tiny.DIM))

    def embedded(_: object, modality: str, events: Sequence[Event], *__: object) -> Items:
        rows = [number for number, one in enumerate(events) if modality in one.media]
        vectors = [
            vector(events[row].texts[0], 0.2)
            if modality == "text"
            else unit(meanings[events[row].labels[0]] + 0.4 * rng.normal(size=tiny.DIM) / np.sqrt(tiny.DIM))
            for row in rows
        ]
        return Items(np.array(vectors, np.float32).reshape(-1, tiny.DIM), np.array(rows, int), list(rows))

    patch.setattr(calibrate, "embedded", embedded)
    patch.setattr(model, "embed", lambda texts, _: Embeddings(np.array([vector(t, 0.2) for t in texts]), model.space))
    return model


def test_every_pair_that_a_set_has_is_calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(tmp_path / "data", monkeypatch)
    found, fits = calibrate.calibrate(model, find(tmp_path / "data"))
    pairs = {one.pair for one in fits}
    assert pairs == {(a, b) for s in ({"text", "image"}, {"text", "imu"}) for a in s for b in s}
    assert set(found.pairs) == pairs and found.space == model.space
    for one in fits:
        if one.pair[0] == "text" and one.pair[1] != "text":
            assert one.absent < 0.2 and one.present > 0.8, one
    calibrate.write(model, found, tmp_path / "out")
    read = calibration.read(tmp_path / "out" / calibration.FILE, model.dim)
    assert set(read.pairs) == pairs and (tmp_path / "out/SHA256SUMS").read_text().count("calibration") == 1


def test_classes_and_groups_are_on_one_side_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(tmp_path / "data", monkeypatch)
    for pool in calibrate.gather(model, find(tmp_path / "data")).values():
        for kind in np.unique(pool.classes[pool.classes >= 0]):
            assert len(set(pool.tested[pool.classes == kind])) == 1
        assert 0.2 < pool.tested.mean() < 0.8


def test_the_command_writes_beside_the_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made(tmp_path / "data", monkeypatch)
    monkeypatch.setattr(zoo, "load", lambda *_, **__: model)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.toml").write_text("")
    calibrate.main([str(tmp_path / "model"), str(tmp_path / "data")])
    assert (tmp_path / "model" / calibration.FILE).is_file()
    printed = capsys.readouterr()
    assert "text -> image: says nothing:" in printed.out and "left out: not in" in printed.err
