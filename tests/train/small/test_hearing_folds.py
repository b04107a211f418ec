"""Cross-validation: every sound is scored once, by a model that never heard its name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from safetensors import safe_open

import bind
from preprocess import manifest
from tests.train.small.test_hearing import listener
from train.small import hearing_folds, splits
from train.trainer.run import RunError

RUN = """
name = "ears"
out = "elsewhere"
device = "cpu"
[base]
modalities = ["image"]
[modalities.audio]
encoder = { module = "sound", channels = 8, blocks = 4 }
preprocess = { clips = 1, num_mel_bins = 64, mean = 0.0, std = 1.0 }
[train]
steps = 2
[[train.pairs]]
modality = "audio"
manifests = ["stamps-spoken-train.jsonl", "stamps-spoken-validation.jsonl", "stamps-train.jsonl", "stamps-train.jsonl"]
batch_size = 4
[evaluate]
manifests = ["stamps-spoken-test.jsonl"]
"""
THINGS = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Whole manifests of things, each with an effect and two recordings; and of effects from elsewhere."""
    stamps, spoken, effects = [], [], []
    for n in range(THINGS):
        name, picture = f"thing{n}", {"path": f"thing{n}.png"}
        stamps.append({"id": name, "group": name, "image": picture, "audio": {"path": f"{name}_x.wav"}})
        for language in ("_fr", ""):
            place = f"{name}_desc{language}.wav"
            spoken.append({"id": place, "group": name, "image": picture, "audio": {"path": place}})
        effects.append({"id": f"{n}/own", "group": name, "image": picture, "audio": {"path": f"{name}_x.wav"}})
        for drawing in range(2):
            sound = {"path": f"{name}_y.wav"}
            effects.append({"id": f"{n}/{drawing}", "group": f"{name}s", "image": picture, "audio": sound})
    effects.append({"id": "unseen", "group": "no picture", "image": {"path": "a.png"}, "audio": {"path": "a.wav"}})
    for stem, events in {"stamps": stamps, "stamps-spoken": spoken, "sounds-effects": effects}.items():
        manifest.write(tmp_path / f"{stem}.jsonl", {"name": stem, "license": "CC0-1.0"}, events)
    return tmp_path


def test_every_sound_is_scored_in_one_fold(folder: Path) -> None:
    parts = [hearing_folds.hear(listener(), folder, number) for number in range(splits.FOLDS)]
    assert all({splits.fold(name) for name in part.keys} == {number} for number, part in enumerate(parts))
    rows = {(row.sounds, row.targets): row for row in hearing_folds.rows(parts)}
    for target in hearing_folds.TARGETS:
        # An effect from elsewhere counts once, however many drawings it goes with; the stamps' own are not its.
        assert rows["sound effects of stamps", target].n == rows["sound effects of others", target].n == THINGS
        assert (rows["sound effects", target].n, rows["speech", target].n) == (2 * THINGS, 2 * THINGS)
        assert rows["speech, fr", target].n == rows["speech, en", target].n == THINGS
    # Chance is that of the fold in which a sound was scored, not of all pictures.
    sizes = np.array([sum(splits.fold(f"thing{n}") == number for n in range(THINGS)) for number in range(splits.FOLDS)])
    expected = (np.minimum(10 / sizes, 1) * sizes).sum() / THINGS
    assert rows["speech", "pictures"].chance == pytest.approx(expected)
    assert rows["speech", "pictures"].recall == 1


def test_a_deaf_one_is_at_chance(folder: Path) -> None:
    parts = [hearing_folds.hear(listener(deaf=True), folder, number) for number in range(splits.FOLDS)]
    (row,) = (row for row in hearing_folds.rows(parts) if (row.sounds, row.targets) == ("speech", "pictures"))
    assert row.low < row.chance < row.high


def test_what_was_heard_is_kept(folder: Path) -> None:
    heard = hearing_folds.hear(listener(), folder, 1)
    hearing_folds.save(heard, folder / "heard.npz")
    kept = hearing_folds.load(folder / "heard.npz")
    assert all(np.array_equal(getattr(kept, name), getattr(heard, name)) for name in type(heard).__annotations__)


def test_a_model_is_trained_on_the_other_folds_alone(folder: Path) -> None:
    rng = np.random.default_rng(0)
    paths = {
        Path(str(source.content))
        for stem in ("stamps", "stamps-spoken")
        for event in manifest.read(folder / f"{stem}.jsonl").events
        for source in event.media.values()
    }
    for path in paths:
        if path.suffix == ".png":
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(path)
        else:
            soundfile.write(path, rng.uniform(-0.5, 0.5, 8000), 16000)
    run_file = folder / "ears.toml"
    run_file.write_text(RUN)
    model = hearing_folds.model_without(run_file, folder, folder / "out", [0, 3])
    written = sorted((folder / "out").glob("*.jsonl"))
    assert [path.name for path in written] == ["stamps-spoken-train.jsonl", "stamps-train.jsonl"]
    names = [{event.group for event in manifest.read(path).events} for path in written]
    whole = {f"thing{n}" for n in range(THINGS)}
    assert names == [{name for name in whole if splits.fold(name) not in (0, 3)}] * 2
    # Named twice in the run, an effect counts twice; train and validation of one set are the set.
    with safe_open(folder / "out/run/state.safetensors", "pt") as state:
        (pair,) = json.loads(state.metadata()["run"])["train"]["pairs"]
    assert [Path(path).name for path in pair["manifests"]] == [written[n].name for n in (0, 1, 1)]
    assert {"image", "audio"} == set(bind.load(str(model)).modalities)
    run_file.write_text(RUN.replace("stamps-train.jsonl", "stamps.jsonl"))
    with pytest.raises(RunError, match="expected manifests NAME-train"):
        hearing_folds.model_without(run_file, folder, folder / "other", [0])
