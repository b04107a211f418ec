"""mteb's form: the adapter of a model, and tasks that are made of manifests."""

from __future__ import annotations

from pathlib import Path

import mteb
import numpy as np
import pytest
from mteb.mocks.mock_tasks.retrieval import MockAny2AnyRetrievalI2TTask, MockAny2AnyRetrievalT2ITask
from mteb.models.models_protocols import EncoderProtocol
from PIL import Image

import bind
from bind import scoreboard
from bind.model.model import BindModel
from preprocess import manifest
from preprocess.source import Hints, Source
from train.evaluate import scoreboard as tasks


@pytest.fixture(scope="module")
def model() -> BindModel:
    return bind.load("small", modalities=["image", "text", "depth", "thermal", "imu", "audio"])


@pytest.fixture
def events(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    colours = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "white": (240, 240, 240)}
    rows = []
    for number, (name, colour) in enumerate(colours.items()):
        Image.new("RGB", (64, 48), colour).save(tmp_path / f"{name}.png")
        depth = (1000 + 3000 * rng.random((48, 64))).astype(np.uint16)
        Image.fromarray(depth).save(tmp_path / f"{name}.depth.png")
        motion = rng.normal(0, 1, (400, 6)) + number
        lines = [f"{i / 50}," + ",".join(f"{value:.4f}" for value in row) for i, row in enumerate(motion)]
        (tmp_path / f"{name}.imu.csv").write_text("\n".join(["time_s,ax,ay,az,gx,gy,gz", *lines]))
        media = {"image": {"path": f"{name}.png"}, "depth": {"path": f"{name}.depth.png", "unit": "mm"}}
        rows.append({"id": name, "text": [f"a {name} wall"]} | media | {"imu": {"path": f"{name}.imu.csv"}})
    file = tmp_path / "walls.jsonl"
    manifest.write(file, {"name": "walls-test", "root": ".", "license": "CC0-1.0"}, rows)
    return file


def test_the_adapter_is_an_encoder_of_mteb(model: BindModel) -> None:
    encoder = scoreboard.Encoder(model)
    assert isinstance(encoder, EncoderProtocol)
    meta = encoder.mteb_model_meta
    assert (meta.name, meta.revision, meta.embed_dim) == ("crossbind/small", model.space, 384)
    assert set(meta.modalities) == {"text", "image", "audio"}


@pytest.mark.parametrize("kind", [MockAny2AnyRetrievalI2TTask, MockAny2AnyRetrievalT2ITask])
def test_mtebs_own_tasks_run(model: BindModel, kind: type) -> None:
    found = mteb.evaluate(scoreboard.Encoder(model), kind(), cache=None, show_progress_bar=False)
    (result,) = found.task_results
    assert 0 <= result.get_score() <= 1


def test_vectors_are_those_of_the_model(model: BindModel) -> None:
    encoder = scoreboard.Encoder(model)
    fixed = {"task_metadata": None, "hf_split": "test", "hf_subset": "default"}
    picture, wave = Image.new("RGB", (40, 30), "red"), np.sin(np.arange(32_000) / 9).astype(np.float32)
    batches = [{"text": ["a dog", "rain"]}, {"text": ["snow"]}]
    texts = model.embed(["a dog", "rain", "snow"], "text").vectors
    assert np.allclose(encoder.encode(batches, **fixed), texts, atol=1e-6)
    sound = encoder.encode([{"audio": [{"array": wave, "sampling_rate": 16_000}]}], **fixed)
    assert np.allclose(sound, model.embed([Source(wave, "x", Hints(rate_hz=16_000.0))], "audio").vectors, atol=1e-6)
    both = encoder.encode([{"image": [picture], "text": ["a dog"]}], **fixed)
    sum_of = model.embed([picture]).vectors + model.embed(["a dog"], "text").vectors
    assert np.allclose(both, sum_of / np.linalg.norm(sum_of), atol=1e-5)
    with pytest.raises(ValueError, match="expected rows with text, image"):
        encoder.encode([{"smell": ["rose"]}], **fixed)


def test_a_manifest_becomes_tasks_of_every_pair(model: BindModel, events: Path) -> None:
    rows = {row["task"]: row for row in tasks.run(model, [str(events)])}
    assert len(rows) == 12  # image, text, depth and motion in both directions
    assert rows["WallsTestText2ImageRetrieval"]["score"] > 0.9
    assert rows["WallsTestImage2TextRetrieval"]["scores"]["recall_at_1"] >= 0.5
    assert 0 < rows["WallsTestDepth2ImuRetrieval"]["score"] <= 1
    (same,) = [t for t in tasks.tasks_of(manifest.read(events), ["image", "depth"]) if "Depth2" in t.metadata.name]
    same.load_data()
    queries = same.dataset["default"]["test"]["queries"]
    vectors = scoreboard.Encoder(model).encode(
        [{name: queries[name] for name in queries.column_names if name != "image"}],
        task_metadata=None,
        hf_split="test",
        hf_subset="default",
    )
    found = manifest.read(events)
    own = model.embed([event.media["depth"] for event in found.events], "depth").vectors
    assert np.allclose(vectors, own, atol=1e-6)  # the row holds the file with its unit
    assert queries[0]["image"].size == (64, 48)  # what a model of pictures gets


def test_wrong_names_are_one_sentence(model: BindModel, events: Path) -> None:
    with pytest.raises(ValueError, match="mteb has no task 'NoSuchTask'"):
        tasks.run(model, ["NoSuchTask"])
    text = bind.load("small", modalities=["text"])
    with pytest.raises(ValueError, match="has no two of text in an event"):
        tasks.run(text, [str(events)])
