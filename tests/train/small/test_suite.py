"""The suite of real data sets: which parts are measured, what counts as right, chance, what was trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bind.model.model import BindModel
from preprocess import manifest
from preprocess.manifest import Event
from tests.serve import tiny
from train.evaluate import evaluation as evaluate
from train.evaluate.items import Items
from train.small import suite
from train.small.suite import Measured, Row

DIM = 64


def write(folder: Path, name: str, entries: Sequence[dict[str, Any]], **header: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    manifest.write(folder / f"{name}.jsonl", {"name": name, "license": "CC0"} | header, entries)


def event(number: int, *modalities: str, **more: Any) -> dict[str, Any]:
    return {"id": f"{number:03d}", **{one: {"path": f"{number}.{one}"} for one in modalities}, **more}


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> BindModel:
    """A model for which whatever has the same "meaning" (label, else id) has the same vector, in any modality."""

    def vector(meaning: str) -> np.ndarray:
        one = np.random.default_rng(list(meaning.encode())).normal(size=DIM)
        found: np.ndarray = (one / np.linalg.norm(one)).astype(np.float32)
        return found

    def embedded(_: object, modality: str, events: Sequence[Event], *__: object) -> Items:
        found = []
        for number, one in enumerate(events):
            if modality == "text":
                found += [(number, text) for text in one.texts]
            elif modality in one.media:
                found.append((number, one.media[modality].name))
        vectors = [
            vector(events[number].labels[0] if events[number].labels else events[number].id) for number, _ in found
        ]
        return Items(
            np.array(vectors).reshape(-1, DIM), np.array([n for n, _ in found], int), [name for _, name in found]
        )

    def class_scores(_: object, vectors: np.ndarray, classes: Sequence[str], __: Sequence[str]) -> np.ndarray:
        found: np.ndarray = vectors @ np.array([vector(name) for name in classes]).T
        return found

    monkeypatch.setattr(suite, "embedded", embedded)
    monkeypatch.setattr(evaluate, "class_scores", class_scores)
    return tiny.seven()


def scores(report: suite.Report, name: str, **wanted: str) -> dict[str, Measured]:
    chosen = [s for s in report.scores if s.manifest == name]
    chosen = [s for s in chosen if all(getattr(s, key) == value for key, value in wanted.items())]
    return {f"{s.part} {s.metric}": s for s in chosen}


def test_rows_of_the_suite_are_sound() -> None:
    assert "real" in suite.names()
    for row in suite.rows("real"):
        assert row.task != "zero-shot" or row.target == "text"
        assert not row.same or row.gallery
    with pytest.raises(ValueError, match="no suite 'other'; known: real"):
        suite.rows("other")


def test_held_out_parts_are_measured_and_train_only_without_them(tmp_path: Path, model: BindModel) -> None:
    for part in ("train", "dev", "test"):
        write(
            tmp_path,
            f"flickr8k-{part}",
            [event(i, "image", text=[f"{part} {i} {j}" for j in (1, 2)]) for i in range(12)],
        )
    write(tmp_path, "wisdm-train", [event(i, "imu", labels=["ab"[i % 2]], group=f"p{i % 3}") for i in range(9)])
    report = suite.run(model, "real", tmp_path)
    found = scores(report, "flickr8k", query="text")
    assert set(found) == {f"{part} recall@{k}" for part in ("dev", "test") for k in (1, 5, 10)}
    one = found["dev recall@1"]
    assert (one.value, one.n, one.gallery) == (1.0, 24, 12) and one.chance == pytest.approx(1 / 12)
    assert found["dev recall@10"].chance == pytest.approx(10 / 12)
    assert set(scores(report, "wisdm")) == {"train top 1"} and scores(report, "wisdm")["train top 1"].chance == 0.5
    assert any("not in" in reason and "esc10" in reason for reason in report.left_out)


def test_chance_is_that_of_drawing_without_replacement() -> None:
    rng = np.random.default_rng(0)
    for right, size, k in ((1, 5, 1), (2, 7, 3), (4, 4, 2), (3, 30, 10)):
        drawn = np.array([(rng.permutation(size)[:k] < right).any() for _ in range(20_000)])
        assert suite._chance(np.array([right]), np.array([size]), k)[0] == pytest.approx(drawn.mean(), abs=0.015)


def test_a_scene_is_a_gallery_of_its_own(tmp_path: Path, model: BindModel) -> None:
    entries = [event(i, "image", "depth", text="a room", group=f"scene {i % 2}") for i in range(24)]
    write(tmp_path, "rgbd-real", [*entries, event(99, "image", "depth", group="tiny")])
    found = scores(suite.run(model, "real", tmp_path), "rgbd", query="depth")
    assert found["train recall@1"].task == "retrieval, in its scene"
    assert (found["train recall@1"].n, found["train recall@1"].gallery) == (
        24,
        12,
    )  # in a gallery of one none is missed
    assert found["train recall@1"].chance == pytest.approx(1 / 12)


def test_sound_finds_a_picture_of_its_class_in_another_set(
    tmp_path: Path, model: BindModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Row(
        sets=("animals",),
        gallery=("imagen", "caltech101"),
        task="class",
        query="audio",
        target="image",
        same={"a dog barking": ("dog", "dalmatian"), "a cat meowing": ("cat",), "a cow mooing": ("cow",)},
    )
    monkeypatch.setattr(suite, "rows", lambda _: (row,))
    labels = ["a dog barking", "a cat meowing", "a cow mooing", "a lion roaring"]
    write(tmp_path, "animals-train", [event(i, "audio", labels=[labels[i % 4]]) for i in range(16)])
    write(
        tmp_path,
        "imagen-five-per-synset",
        [event(i, "image", labels=[["dog", "cat", "sofa"][i % 3]]) for i in range(9)],
    )
    write(tmp_path, "caltech101", [event(i, "image", labels=["dalmatian"]) for i in range(2)])
    (found,) = suite.run(model, "real", tmp_path).scores
    # 4 dogs and 4 cats are asked for: no picture of a cow is there. 5 of 8 pictures are dogs, 3 cats.
    assert (found.n, found.gallery) == (8, 8) and found.chance == pytest.approx((5 / 8 + 3 / 8) / 2)


def test_equal_vectors_are_no_hits(tmp_path: Path, model: BindModel, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "wisdm-train", [event(i, "imu", labels=["ab"[i % 2]]) for i in range(8)])
    monkeypatch.setattr(evaluate, "class_scores", lambda _, vectors, classes, __: np.ones((len(vectors), len(classes))))
    assert scores(suite.run(model, "real", tmp_path), "wisdm")["train top 1"].value == 0


def test_what_was_trained_on_is_marked(tmp_path: Path, model: BindModel) -> None:
    write(tmp_path, "esc10-fold1", [event(i, "audio", labels=["ab"[i % 2]], group=f"{i}") for i in range(8)])
    write(tmp_path, "wisdm-test", [event(i, "imu", labels=["ab"[i % 2]]) for i in range(8)])
    write(tmp_path, "animals-train", [event(i, "audio", labels=["ab"[i % 2]]) for i in range(8)])

    def marks(*trained_on: str) -> dict[str, str]:
        model.description = model.description.model_copy(update={"trained_on": trained_on})
        return {s.manifest: s.seen for s in suite.run(model, "real", tmp_path).scores}

    assert set(marks().values()) == {"not recorded"}
    assert marks("esc10-fold*", "wisdm-train") == {
        "esc10": "trained on",
        "wisdm": "other part trained on",
        "animals": "never",
    }
    assert marks("esc50-fold3", "stamps")["esc10"] == "other part trained on"  # a part of ESC-50
    assert marks("esc10-fold2")["esc10"] == "other part trained on"


def test_intervals_draw_groups() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 50)
    values = (np.arange(10) < 5).astype(float)[groups]
    low, high = suite.interval(values, groups, rng)
    assert high - low > 0.4  # ten witnesses, not 500
    low, high = suite.interval(values, np.arange(500), rng)
    assert high - low < 0.1
    assert suite.interval(values, np.zeros(500), rng) == pytest.approx((low, high), abs=0.02)


def test_table_and_json_say_what_was_measured(tmp_path: Path, model: BindModel) -> None:
    write(
        tmp_path,
        "utd-mhad-train",
        [event(i, "imu", "depth", text="x", labels=["ab"[i % 2]], group=f"{i % 4}") for i in range(24)],
    )
    report = suite.run(model, "real", tmp_path)
    lines = report.table().splitlines()
    assert lines[0].split()[:3] == ["set", "part", "task"]
    assert any("depth -> imu" in line and "emergent" in line and "not recorded" in line for line in lines)
    assert any("Ego4D" in line for line in lines) and lines[-1].startswith("left out: not in")
    content = json.loads(report.json())
    assert content["suite"] == "real" and len(content["scores"]) == len(report.scores)
    assert {"chance", "low", "high", "seen", "imagebind", "part"} <= set(content["scores"][0])


def test_modalities_that_a_model_lacks_are_left_out(tmp_path: Path, model: BindModel) -> None:
    write(tmp_path, "flickr8k-dev", [event(i, "image", text=f"text {i}") for i in range(12)])
    write(tmp_path, "wisdm-train", [event(i, "imu", labels=["ab"[i % 2]]) for i in range(8)])
    smaller = tiny.model()  # no imu
    report = suite.run(smaller, "real", tmp_path)
    assert {s.manifest for s in report.scores} == {"flickr8k"}
    assert any(reason.startswith("utd, wisdm, sisfall: the model has no imu") for reason in report.left_out)
    (tmp_path / "flickr8k-dev.jsonl").unlink()
    with pytest.raises(ValueError, match="nothing of suite 'real' can be measured"):
        suite.run(smaller, "real", tmp_path)


def test_a_real_model_runs_through(tmp_path: Path) -> None:
    """With nothing put in its place: pictures that are read, one of them damaged."""
    for number in range(13):
        tiny.picture(tmp_path / f"{number}.png", number)
    (tmp_path / "12.png").write_bytes(b"\x89PNG damaged")
    write(
        tmp_path,
        "flickr8k-dev",
        [{"id": f"{i}", "image": {"path": f"{i}.png"}, "text": f"text {i}"} for i in range(13)],
    )
    report = suite.run(tiny.model(), "real", tmp_path)
    assert {s.gallery for s in report.scores} == {12}
    assert len(report.skipped) == 1 and report.skipped[0][0].endswith("12.png")
