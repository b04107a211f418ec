"""Run files: typed, every fault at once, and the shipped recipes."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from bind import zoo
from tests.train.conftest import BASE, MakeRun, table
from train.trainer import run as runs
from train.trainer.plan import resolve

RECIPES = sorted((Path(runs.__file__).parents[1] / "runs").glob("*.toml"))


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").touch()
    wrong: dict[str, Any] = {
        "name": "x",
        "out": "out",
        "colour": "red",
        "dtype": "float8",
        "base": {"model": "huge"},
        "train": {
            "learning_rate": -1,
            "pairs": [
                {"modality": "depth", "manifests": ["missing.jsonl"], "batch_size": "many"},
                {"modality": "smell", "anchor": "image", "manifests": ["train.jsonl"], "augment": {"flip": True}},
            ],
        },
        "evaluate": {"patience": 3},
        "modalities": {"audio": {}},
    }
    with pytest.raises(runs.RunError) as caught:
        runs.parse(wrong, tmp_path)
    for part in (
        "colour",
        "dtype",
        "base.model: no model 'huge'",
        "train.learning_rate",
        "train.pairs.0.batch_size",
        "train.pairs.0.manifests: there is no file",
        "train.pairs.1.modality: no modality 'smell'",
        "train.pairs.1.augment: crop, flip and jitter need views > 1",
        "evaluate.patience",
        "modalities.audio: no pair",
    ):
        assert part in str(caught.value)
    assert "10 error(s)" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": {"module": "convnet", "widths": [7]}}, "modalities.depth: convnet: expected widths"),
        ({"encoder": {"module": "no_such"}}, "modalities.depth: encoder: module is 'no_such'"),
        ({"encoder": {"depth": 2}}, "modalities.depth: encoder: unknown keys"),
        ({"head": {"type": "identity"}}, "modalities.depth: head: identity needs encoder width"),
        ({"preprocess": {"sise": 32}}, "unknown keys"),
        ({"preprocess": {"size": "large"}}, "size"),
    ],
)
def test_encoder_head_and_preprocessing_are_checked_before_anything_loads(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    (tmp_path / "train.jsonl").touch()
    wrong = table(tmp_path / "out") | {"modalities": {"depth": change}}
    with pytest.raises(runs.RunError, match=message):
        runs.parse(wrong, tmp_path)


def test_an_anchor_and_modalities_that_the_base_lacks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").touch()
    faulty = table(tmp_path) | {"base": {"model": "small", "modalities": ["image", "smell"]}}
    with pytest.raises(runs.RunError, match=r"base.modalities: small has no smell; it has image"):
        runs.parse(faulty, tmp_path)
    with pytest.raises(runs.RunError, match="small has no audio; it has image"):
        runs.parse(table(tmp_path, pair={"anchor": "audio"}) | {"base": {"modalities": ["image"]}}, tmp_path)


def test_a_file_that_is_no_toml_or_missing_is_a_run_error(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("name = ")
    for name in ("a.toml", "b.toml"):
        with pytest.raises(runs.RunError, match=name):
            runs.read(tmp_path / name)


def test_defaults_come_from_the_modality(make_run: MakeRun, tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "out")
    assert run.train.pairs[0].name == "depth-image"
    assert run.train.pairs[0].manifests == (str(data / "train.jsonl"),)
    described = resolve(zoo.load("small", modalities=BASE).description, run).finished
    assert described.modalities["depth"].encoder == {"module": "convnet", "shape": [1, 32, 32], "widths": [8, 16]}
    assert ("image", "depth") in described.trained


def test_changed_keys_are_named() -> None:
    old = {"a": 1, "b": {"c": [1, {"d": 2}], "e": 3}}
    new = {"a": 1, "b": {"c": [1, {"d": 4}], "f": 3}}
    assert list(runs.changed(old, new)) == ["b.c.1.d: 2 -> 4", "b.e: 3 -> None", "b.f: None -> 3"]
    assert not list(runs.changed(old, old))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(runs.RunError, match="there is no file") as caught:
        runs.read(recipe)
    assert all("there is no file" in line for line in str(caught.value).splitlines()[1:])
    content = tomllib.loads(recipe.read_text())
    of_pairs = [name for pair in content["train"]["pairs"] for name in pair["manifests"]]
    for name in (*of_pairs, *content.get("evaluate", {}).get("manifests", ())):
        (tmp_path / name).touch()
    assert runs.parse(content, tmp_path).name == recipe.stem


# arXiv 2305.05665, table 9: learning rate, weight decay, clip, epochs, batch, replication, temperature, drop path
TABLE_9 = {
    ("audio", "image"): (1.6e-3, 0.2, 1.0, 64, 2048, 1.25, 0.05, 0.1),
    ("depth", "image"): (1.6e-3, 0.2, 1.0, 64, 512, 50, 0.2, 0.0),
    ("thermal", "image"): (5e-4, 0.05, 5.0, 64, 512, 25, 0.1, 0.0),
    ("imu", "video"): (5e-4, 0.5, 1.0, 8, 512, 1, 0.2, 0.7),
}


@pytest.mark.parametrize(("modality", "anchor"), TABLE_9)
def test_the_four_pairings_of_imagebind_have_its_numbers(modality: str, anchor: str, tmp_path: Path) -> None:
    content = tomllib.loads((Path(runs.__file__).parents[1] / "runs" / f"{modality}.toml").read_text())
    for name in (*content["train"]["pairs"][0]["manifests"], *content["evaluate"]["manifests"]):
        (tmp_path / name).touch()
    run = runs.parse(content, tmp_path)
    train, (pair,) = run.train, run.train.pairs
    assert (pair.modality, pair.anchor) == (modality, anchor)
    found = (train.learning_rate, train.weight_decay, train.clip_norm, train.epochs)
    found += (pair.batch_size, pair.repeat, pair.temperature, run.modalities[modality].encoder.get("drop_path", 0.0))
    assert found == TABLE_9[modality, anchor]
    assert (train.betas, train.warmup_epochs) == ((0.9, 0.95), 2)
