"""Metrics against plain formulas, and a whole report."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

import bind
from bind import zoo
from bind.description import Description
from preprocess import manifest
from tests.train import scenes
from tests.train.conftest import MakeRun
from train.evaluate import evaluation as evaluate
from train.trainer import loop


def plain_rank(scores: np.ndarray, right: np.ndarray) -> int:
    """How many wrong targets are at least as good as the best right one, and one."""
    best = max(score for score, is_right in zip(scores, right, strict=True) if is_right)
    return 1 + sum(score >= best for score, is_right in zip(scores, right, strict=True) if not is_right)


small_vectors = arrays.arrays(np.float32, (7, 3), elements=st.integers(-2, 2).map(float))


@given(small_vectors, small_vectors, arrays.arrays(np.int64, 7, elements=st.integers(0, 3)))
def test_ranks_equal_the_plain_formula(a: np.ndarray, b: np.ndarray, items: np.ndarray) -> None:
    found = evaluate.ranks(a, b, items, items)
    expected = [plain_rank(b @ query, items == item) for query, item in zip(a, items, strict=True)]
    assert found.tolist() == expected


def test_ranks_of_more_queries_than_a_block() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 1500, 4)).astype(np.float32)
    items = np.arange(1500)
    scores = a @ b.T
    expected = 1 + (scores > np.diag(scores)[:, None]).sum(1)
    assert np.abs(evaluate.ranks(a, b, items, items) - expected).max() <= 1  # products differ in their last bit


def test_collapsed_vectors_rank_last() -> None:
    same = np.ones((20, 4), np.float32)
    assert (evaluate.ranks(same, same, np.arange(20), np.arange(20)) == 20).all()
    assert evaluate.mean_recall(same, same, np.arange(20)) == 0
    assert evaluate.mean_recall(np.eye(20), np.eye(20), np.arange(20)) == 1


@given(
    arrays.arrays(bool, 12),
    arrays.arrays(np.float64, 12, elements=st.integers(0, 6).map(float)),
    arrays.arrays(np.int64, 12, elements=st.integers(0, 3)),
)
def test_average_precision_equals_scikit_learn(relevant: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> None:
    found = evaluate.average_precision(relevant, scores, np.stack([np.ones(12), weights]))
    for value, of in zip(found, (np.ones(12), weights), strict=True):
        if not (relevant * of).sum():
            assert np.isnan(value)
        else:
            assert value == pytest.approx(average_precision_score(relevant, scores, sample_weight=of))


@given(
    arrays.arrays(np.int64, 9, elements=st.integers(0, 6)),
    arrays.arrays(np.int64, 9, elements=st.integers(10, 16)),
)
def test_same_item_is_the_transitive_closure(first: np.ndarray, second: np.ndarray) -> None:
    linked = (first[:, None] == first) | (second[:, None] == second)
    for _ in range(9):
        linked = linked @ linked
    found = evaluate.same_item([first, second])
    assert ((found[:, None] == found) == linked).all()


def test_bootstrap_of_a_mean_is_the_normal_interval() -> None:
    rng = np.random.default_rng(0)
    hits = (rng.random(400) < 0.3).astype(float)
    low, high = evaluate.bootstrap(hits, lambda drawn: drawn.mean(-1), rng)
    error = 1.96 * np.sqrt(hits.mean() * (1 - hits.mean()) / 400)
    assert low == pytest.approx(hits.mean() - error, abs=0.01)
    assert high == pytest.approx(hits.mean() + error, abs=0.01)


def test_probe_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 8))
    y = np.repeat(np.arange(3), 20)
    x, test = (centres[y] + rng.normal(size=(60, 8)) for _ in range(2))
    # Its penalty is |W|^2 / (2 C) beside the sum of losses, ours beside their mean.
    reference = LogisticRegression(C=1 / (2 * 60 * 1e-3), tol=1e-8, max_iter=1000).fit(x, y)
    found = evaluate.probe(x, y, test, 3)
    assert (found == reference.predict(test)).mean() >= 59 / 60
    assert (found == y).mean() > 0.8


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

    evaluate.write(report, tmp_path / "report")
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


def test_without_matplotlib_the_figures_are_written_and_the_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    score = evaluate.Score("m", "retrieval", "a", "b", "emergent", "recall@1", 0.5, 0.4, 0.6, 9)
    with pytest.raises(ValueError, match=r"pip install 'crossbind\[train\]'"):
        evaluate.write(evaluate.Report("x", "y", [score]), tmp_path)
    assert "0.500" in (tmp_path / "scores.txt").read_text()


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
