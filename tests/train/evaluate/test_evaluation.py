"""A whole report of a model on manifests."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

import bind
from bind import zoo
from bind.description import Description
from preprocess import manifest
from tests.train import scenes
from tests.train.conftest import MakeRun
from train.evaluate import evaluation as evaluate
from train.evaluate import report as reports
from train.trainer import loop


def test_pairs_are_trained_by_the_record_alone() -> None:
    kinds = {
        pair: evaluate.pair_kind(zoo.describe("imagebind-huge"), *pair)
        for pair in (("audio", "image"), ("image", "audio"), ("audio", "text"), ("depth", "thermal"), ("text", "image"))
    }
    assert kinds == {
        ("audio", "image"): "trained",
        ("image", "audio"): "trained",
        ("audio", "text"): "emergent",
        ("depth", "thermal"): "emergent",
        ("text", "image"): "trained",
    }
    tables = {"image": {"encoder": {}}, "video": {"shares": "image"}, "depth": {"encoder": {}}}
    shared = Description.model_validate(
        {"format": 1, "name": "", "dim": 1, "license": "", "trained": [["image", "depth"]], "modalities": tables}
    )
    assert evaluate.pair_kind(shared, "video", "depth") == "trained"  # the same encoder as image


def test_report_of_a_trained_model(make_run: MakeRun, tmp_path: Path, data: Path) -> None:
    made = loop.train(make_run(tmp_path / "out")).model
    assert made
    scenes.build(tmp_path, "held-out", range(2000, 2060))
    (tmp_path / "media" / "2003.png").unlink()
    model = bind.load(made)
    report = evaluate.evaluate(model, [tmp_path / "held-out.jsonl"], shots=(1, 2))
    assert [path for path, _ in report.skipped] == [str(tmp_path / "media" / "2003.png")]
    found = {(s.task, s.query, s.target, s.metric): s for s in report.scores}
    assert len(found) == len(report.scores) == 6 * 4 + 2 + 2 * 2
    kinds = {(s.query, s.target): s.kind for s in report.scores}
    assert kinds["depth", "image"] == kinds["image", "depth"] == "trained"
    assert kinds["depth", "text"] == kinds["text", "depth"] == "emergent"
    assert kinds["depth", "labels"] == ""
    for score in report.scores:
        assert score.low <= score.value <= score.high
    assert found["retrieval", "image", "depth", "recall@1"].n == 59
    assert found["retrieval", "depth", "text", "recall@1"].n == 60

    reports.write(report, tmp_path / "report")
    assert len((tmp_path / "report" / "scores.txt").read_text().splitlines()) == 1 + len(report.scores)
    assert len(json.loads((tmp_path / "report" / "scores.json").read_text())["scores"]) == len(report.scores)
    shares = [s for s in report.scores if s.metric != "median rank"]
    groups = ElementTree.parse(tmp_path / "report" / "scores.svg").iter("{http://www.w3.org/2000/svg}g")
    marks = {group.get("id"): ElementTree.tostring(group).decode() for group in groups}
    for row, score in enumerate(shares):
        assert ("#ffffff" in marks[f"score-{row}"]) == (score.kind == "emergent")
    assert f"score-{len(shares)}" not in marks
    assert (tmp_path / "report" / "scores.png").read_bytes().startswith(b"\x89PNG")
    assert evaluate.evaluate(model, [tmp_path / "held-out.jsonl"], shots=(1, 2)) == report


def test_events_with_several_labels_give_mean_average_precision(tmp_path: Path) -> None:
    words = ("dog", "cat", "car", "tree")
    events = [
        {"id": "0", "text": "dog", "image": {"path": "0.png"}, "labels": ["dog", "cat"]},
        {"id": "1", "text": "car", "image": {"path": "1.png"}, "labels": ["car"]},
    ]
    for number in range(2):
        scenes.scene(number)[0].save(tmp_path / f"{number}.png")
    header = {"name": "labels", "license": "CC0-1.0", "classes": words, "templates": ["{}"]}
    manifest.write(tmp_path / "m.jsonl", header, events)
    model = bind.load("small")
    (score,) = (
        s
        for s in evaluate.evaluate(model, [tmp_path / "m.jsonl"]).scores
        if (s.task, s.query) == ("zero-shot", "image")
    )
    assert score.metric == "mAP"
    vectors = model.embed([tmp_path / "0.png", tmp_path / "1.png"]).vectors @ model.embed(words, "text").vectors.T
    truth = np.array([[1, 1, 0, 0], [0, 0, 1, 0]])
    expected = np.mean([average_precision_score(truth[:, c], vectors[:, c]) for c in range(3)])
    assert score.value == pytest.approx(expected)


def test_the_best_of_a_class_s_names_counts(tmp_path: Path) -> None:
    """The cat is found by the second name of its class; without it, the other class is nearer."""
    from serve.demo.samples import EVERYDAY

    photos = {sample.caption: sample.path for sample in EVERYDAY}
    root = photos["a cat"].parent
    events = [
        {"id": "1", "image": {"path": photos["a cat"].name}, "labels": ["a spaceship | a cat"]},
        {"id": "2", "image": {"path": photos["a cup of coffee"].name}, "labels": ["a cup of coffee"]},
    ]
    for second_name, accuracy in ((" | a cat", 1.0), ("", 0.5)):
        classes = [f"a spaceship{second_name}", "a cup of coffee", "a dog"]
        for event, name in zip(events, classes, strict=False):
            event["labels"] = [name]
        header = {"name": "x", "license": "CC0-1.0", "root": str(root), "classes": classes, "templates": ["{}"]}
        manifest.write(tmp_path / "x.jsonl", header, events)
        scores = evaluate.evaluate(bind.load("small"), [tmp_path / "x.jsonl"]).scores
        assert [s.value for s in scores if s.task == "zero-shot"] == [accuracy]
