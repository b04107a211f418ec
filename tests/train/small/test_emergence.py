"""The emergence experiment: its numbers are what they say, and on real scenes unpaired modalities do meet."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

import bind
from data_manifests import build
from preprocess import manifest
from train.evaluate.metrics import RECALLS, ranks
from train.small import emergence
from train.trainer import loop
from train.trainer import run as runs

RECIPE = Path(emergence.__file__).parents[1] / "runs" / "emergence.toml"
SCENES = 40


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 32 simulated scenes to train on and 6 held out, and the recipe made small."""
    folder = tmp_path_factory.mktemp("emergence")
    (folder / "simulated.toml").write_text(f"scenes = {SCENES}\nseed = 11\nprocesses = 2\n")
    build("simulated", folder, folder / "sim")
    (folder / "small.toml").write_text(tomli_w.dumps(small_recipe()))
    return folder


def small_recipe(**train: Any) -> dict[str, Any]:
    """Depth and thermal only, on 32 pixels and without variants of the pictures."""
    table = tomllib.loads(RECIPE.read_text())
    pairs = [pair | {"batch_size": 16, "augment": {}} for pair in table["train"]["pairs"][:2]]
    sensors = {"encoder": {"widths": [16, 32]}, "preprocess": {"size": 32}}
    train = {"epochs": 3, "warmup_epochs": 1, "ema_decay": 0.0} | train
    return table | {
        "modalities": {"depth": sensors, "thermal": sensors},
        "train": table["train"] | train | {"pairs": pairs},
    }


def test_chance_is_that_of_random_orders() -> None:
    items = np.array([0, 0, 0, 3, 4, 4, 6, 7, 8, 9, 10, 11])
    rng = np.random.default_rng(0)
    best = [[np.flatnonzero(items[rng.permutation(12)] == item)[0] + 1 for item in items] for _ in range(4000)]
    for k in RECALLS:
        assert emergence.chance(items, k) == pytest.approx((np.array(best) <= k).mean(), abs=0.01)
    assert emergence.chance(np.arange(50), 5) == pytest.approx(0.1)


def test_interval_and_mean_over_seeds() -> None:
    rng = np.random.default_rng(0)
    of_seeds = rng.integers(1, 40, (3, 200))
    rows = emergence.rows_of("depth", "thermal", "emergent", of_seeds, np.arange(200))
    for row in rows:
        assert row.value == pytest.approx((of_seeds <= row.k).mean()) == pytest.approx(np.mean(row.seeds))
        assert row.low < row.value < row.high
        assert row.high - row.low < 0.15
        assert abs(row.chance - row.k / 200) < 1e-9


def test_direct_runs_differ_in_the_pair_only(data: Path) -> None:
    whole = tomllib.loads(RECIPE.read_text())
    for first, second in emergence.EMERGENT:
        table = emergence.table_of(whole, first, second)
        run = runs.parse(table, data, "direct")
        assert [(pair.modality, pair.anchor) for pair in run.train.pairs] == [(first, second)]
        assert set(run.modalities) == {first, second} - {"text"}
        for name, modality in run.modalities.items():
            assert modality.model_dump(exclude_defaults=True) == whole["modalities"][name] | {}
        assert run.train.epochs == whole["train"]["epochs"]
        (own,) = (pair for pair in whole["train"]["pairs"] if pair["modality"] == first)
        assert run.train.pairs[0].temperature == own["temperature"]
        assert run.train.pairs[0].augment.views == (own["augment"]["views"] if second == "thermal" else 1)
    assert runs.parse(whole, data, "bound").trained == ("depth", "imu", "thermal")


def test_captions_that_scenes_share_are_one_item(data: Path) -> None:
    header, *events = (json.loads(line) for line in (data / "sim-test.jsonl").read_text().splitlines())
    events[1]["text"] = events[4]["text"] = "the same"
    manifest.write(data / "shared.jsonl", header, events)
    found = manifest.read(data / "shared.jsonl").events
    assert emergence.items_of(found, "depth", "text").tolist() == [0, 1, 2, 3, 1, 5]
    assert emergence.items_of(found, "depth", "thermal").tolist() == [0, 1, 2, 3, 4, 5]


def test_the_whole_experiment(data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [str(data / "small.toml"), str(data / "sim-test.jsonl"), str(data / "out"), "--seeds", "4"]
    assert emergence.main(arguments) == 0
    table = capsys.readouterr().out
    rows = json.loads((data / "out" / "emergence.json").read_text())
    kinds: dict[tuple[str, str], set[str]] = {(row["query"], row["target"]): set() for row in rows}
    for row in rows:
        kinds[row["query"], row["target"]].add(row["kind"])
        assert len(row["seeds"]) == 1 and row["n"] == 6
        assert row["low"] <= row["value"] <= row["high"]
    assert kinds["depth", "image"] == {"trained"} == kinds["image", "thermal"]
    for pair in (("depth", "thermal"), ("thermal", "depth"), ("depth", "text"), ("text", "thermal")):
        assert kinds[pair] == {"emergent", "direct"}
    assert not {pair for pair in kinds if "imu" in pair}
    assert table.count("emergent") == 6 == table.count("direct")
    assert len(list((data / "out" / "seed4").rglob(loop.STATE))) == 1 + 3

    def refuse(*_: Any) -> Any:
        raise AssertionError("it was trained before")

    monkeypatch.setattr(loop, "train", refuse)
    assert emergence.main(arguments) == 0
    assert capsys.readouterr().out == table
    arguments[1] = str(data / "sim-train.jsonl")
    assert emergence.main(arguments) == 1
    assert "another run file or test set" in capsys.readouterr().err


def test_bad_input_is_said_in_a_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert emergence.main([str(data / "small.toml"), str(data / "nowhere.jsonl"), str(data / "x")]) == 1
    assert "nowhere.jsonl" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("shuffled", [False, True])
def test_modalities_that_were_never_paired_can_be_compared(shuffled: bool, tmp_path: Path) -> None:
    """256 scenes to train on: depth finds thermal at twice chance at least. Not if pictures are of other scenes."""
    (tmp_path / "simulated.toml").write_text("scenes = 320\nseed = 0\nprocesses = 2\n")
    build("simulated", tmp_path, tmp_path / "sim")
    header, *events = (json.loads(line) for line in (tmp_path / "sim-train.jsonl").read_text().splitlines())
    if shuffled:
        pictures = [event["image"] for event in events]
        order = np.random.default_rng(0).permutation(len(events))
        events = [event | {"image": pictures[i]} for event, i in zip(events, order, strict=True)]
        manifest.write(tmp_path / "sim-train.jsonl", header, events)
    recipe = small_recipe(epochs=25, learning_rate=2e-3)
    recipe["modalities"] = {
        name: {"encoder": {"widths": [24, 48, 96]}, "preprocess": {"size": 64}} for name in ("depth", "thermal")
    }
    recipe["train"]["pairs"] = [pair | {"batch_size": 128} for pair in recipe["train"]["pairs"]]
    run = runs.parse(recipe | {"out": str(tmp_path / "out")}, tmp_path)
    made = loop.train(run).model
    assert made
    test = manifest.read(tmp_path / "sim-test.jsonl")
    vectors, items = emergence.embedded(bind.load(made), test.events, ("depth", "thermal")), np.arange(len(test.events))
    both = [ranks(vectors[a], vectors[b], items, items) for a, b in (("depth", "thermal"), ("thermal", "depth"))]
    recall, chance = np.mean([(found <= 10).mean() for found in both]), emergence.chance(items, 10)
    assert recall < 1.5 * chance if shuffled else recall > 2 * chance
