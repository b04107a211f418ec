"""Run files: typed, every fault at once, and the shipped recipes."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.train.conftest import MakeRun, table
from train import run as runs

RECIPES = sorted((Path(runs.__file__).parent / "runs").glob("*.toml"))


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


def test_a_modality_that_the_base_has_and_an_anchor_that_it_lacks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").touch()
    with pytest.raises(runs.RunError, match="small already has text"):
        runs.parse(table(tmp_path, pair={"modality": "text"}) | {"modalities": {}}, tmp_path)
    with pytest.raises(runs.RunError, match="small has no audio; it has image"):
        runs.parse(table(tmp_path, pair={"anchor": "audio"}), tmp_path)


def test_a_file_that_is_no_toml_or_missing_is_a_run_error(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("name = ")
    for name in ("a.toml", "b.toml"):
        with pytest.raises(runs.RunError, match=name):
            runs.read(tmp_path / name)


def test_defaults_come_from_the_modality(make_run: MakeRun, tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "out")
    assert run.train.pairs[0].name == "depth-image"
    assert run.train.pairs[0].manifests == (str(data / "train.jsonl"),)
    from bind import zoo

    described = runs.extended(zoo.describe("small"), run)
    assert described.modalities["depth"].encoder == {"module": "convnet", "shape": [1, 32, 32], "widths": [8, 16]}
    assert described.trained == (("image", "text"), ("image", "depth"))


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
    for name in (*content["train"]["pairs"][0]["manifests"], *content["evaluate"]["manifests"]):
        (tmp_path / name).touch()
    assert runs.parse(content, tmp_path).name == recipe.stem


def test_the_four_pairings_of_imagebind_have_a_recipe() -> None:
    pairs = {
        (pair["modality"], pair["anchor"])
        for recipe in RECIPES
        for pair in tomllib.loads(recipe.read_text())["train"]["pairs"]
        if "anchor" in pair
    }
    assert pairs >= {("audio", "image"), ("depth", "image"), ("thermal", "image"), ("imu", "video")}
