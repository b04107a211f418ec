"""What a run may train: heads of frozen trunks, both sides of a pair, and low-rank changes of an encoder."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import bind
from bind import checkpoint, encoders, zoo
from bind.model.towers import Tower
from preprocess.source import Limits
from tests.train import scenes
from tests.train.conftest import BASE
from train.data.sides import Part, Side
from train.trainer import loop, towers
from train.trainer import run as runs
from train.trainer.plan import resolve
from train.trainer.schema import Augment, Cache, Lora

HEADS = {"image": {"train": "head"}, "text": {"train": "head"}}


def run(
    data: Path, out: Path, modality: str, anchor: str, tables: dict[str, Any], base: Any = "small", **train: Any
) -> runs.Run:
    pair = {"modality": modality, "anchor": anchor, "manifests": ["train.jsonl"], "batch_size": 20}
    pair |= train.pop("pair", {})
    settings = {"epochs": 3, "warmup_epochs": 0, "log_every": 1, "pairs": [pair], **train}
    table = {"name": "test", "out": str(out), "modalities": tables, "train": settings}
    kept = {"modalities": list(BASE)} if base == "small" else {}
    return runs.parse(table | {"base": {"model": str(base)} | kept}, data)


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / loop.LOG).read_text().splitlines()]


def test_heads_of_both_sides_learn_on_features_that_are_computed_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    augmented = {"pair": {"augment": {"views": 2, "crop": 0.5, "flip": True, "jitter": 0.2}}, "epochs": 30}
    made = loop.train(run(data, tmp_path / "out", "image", "text", HEADS, **augmented)).model
    assert made
    base, model = bind.load("small", modalities=BASE), bind.load(made)
    assert model.description.trained == (("image", "text"),)
    assert model.space != base.space
    for name in ("image", "text"):
        stored = load_file(made / f"{name}.safetensors")
        assert sorted(stored) == ["head.bias", "head.weight"]  # the trunk is read from its makers' file again
        assert not torch.equal(stored["head.weight"], base.tower(name).head.weight)
    picture, words = data / "media" / "0.png", f"text:{scenes.scene(0)[2]}"
    assert not (model.embed([picture]).vectors == base.embed([picture]).vectors).all()
    assert not (model.embed([words]).vectors == base.embed([words]).vectors).all()
    found = losses(tmp_path / "out")
    assert sum(found[-3:]) < 0.8 * sum(found[:3])

    def refuse(*_: Any) -> Any:
        raise AssertionError("a frozen trunk was asked again")

    monkeypatch.setattr("bind.encoders.efficientnet.EfficientNet.forward", refuse)
    monkeypatch.setattr("bind.encoders.sentence.SentenceEncoder.forward", refuse)
    loop.train(run(data, tmp_path / "again", "image", "text", HEADS, **augmented))
    assert losses(tmp_path / "again") == found


def test_other_outputs_of_the_base_s_trunk_get_a_new_head(data: Path, tmp_path: Path) -> None:
    image = {"train": "head", "encoder": {"outputs": ["pooled", "probabilities"]}}
    made = loop.train(run(data, tmp_path / "out", "image", "text", {"image": image}, steps=1)).model
    assert made
    model = bind.load(made)
    assert model.tower("image").head.weight.shape == (384, 2280)
    words, picture = "text:a red disc", data / "media" / "0.png"
    # Not bit for bit: mapped weights may be aligned otherwise, and then take another kernel.
    np.testing.assert_allclose(model.embed([words]).vectors, bind.load("small").embed([words]).vectors, atol=1e-6)
    assert model.embed([picture]).vectors.shape == (1, 384)


def test_an_encoder_of_the_base_is_trained_on(data: Path, tmp_path: Path) -> None:
    """Both depth from its own weights, and small's image encoder, whose weights are stored from then on."""
    new = {"depth": {"encoder": {"widths": [8, 16]}, "preprocess": {"size": 32}}}
    first = loop.train(run(data, tmp_path / "first", "depth", "image", new, epochs=20)).model
    assert first
    second = loop.train(run(data, tmp_path / "second", "depth", "image", {}, first, learning_rate=1e-5)).model
    assert second
    assert losses(tmp_path / "second")[0] < losses(tmp_path / "first")[0] - 0.2
    assert bind.load(second).description.trained == (("image", "text"), ("image", "depth"))

    both: dict[str, Any] = {"image": {}, "depth": {}}
    with pytest.raises(runs.RunError, match=r"image: text was bound to image, which moves; add a pair of the two, or"):
        run(data, tmp_path / "third", "depth", "image", both, first)
    table = run(data, tmp_path / "third", "depth", "image", {"depth": {}}, first).model_dump(exclude_none=True)
    table["base"]["modalities"], table["modalities"] = ["image", "video", "depth"], both
    table["train"]["steps"], table["train"]["pairs"][0]["batch_size"] = 1, 4
    third = loop.train(runs.parse(table, data)).model
    assert third
    model = bind.load(third)
    assert model.modalities == ("image", "video", "depth")
    assert model.description.trained == (("image", "depth"),)
    assert "source" not in (model.description.modalities["image"].encoder or {})
    stored, before = load_file(third / "image.safetensors"), bind.load("small").tower("image").state_dict()
    assert stored.keys() == before.keys()
    assert not torch.equal(stored["encoder.stem.weight"], before["encoder.stem.weight"])


IMAGE_TEXT, VIDEO_TEXT, DEPTH_IMAGE = ("image", "text"), ("video", "text"), ("depth", "image")


IDENTITY = {"train": "head", "encoder": {"layers": []}, "head": {"type": "identity"}}
"""The sentence vector alone is as wide as the space."""


@pytest.mark.parametrize(
    ("tables", "pairs", "message"),
    [
        ({}, [VIDEO_TEXT], "video: shares the encoder of image; train that"),
        (HEADS, [IMAGE_TEXT, ("text", "video")], "video is no frozen anchor, as it shares what .*: image"),
        ({"video": {"train": "head"}}, [VIDEO_TEXT, IMAGE_TEXT], "its encoder, image's, is not frozen"),
        ({"depth": {"train": "head"}}, [DEPTH_IMAGE], "what is only headed or adapted needs weights"),
        ({"text": IDENTITY}, [("text", "image")], "an identity has nothing"),
        ({"image": {"train": "some"}}, [IMAGE_TEXT], "'all' or 'head'"),
        ({"text": {}}, [DEPTH_IMAGE], "text: no pair of this run trains text"),
        ({}, [("text", "text")], "text cannot be bound to itself"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    data: Path, tables: dict[str, Any], pairs: list[tuple[str, str]], message: str
) -> None:
    entries = [{"modality": a, "anchor": b, "manifests": ["train.jsonl"]} for a, b in pairs]
    base = {"modalities": list(BASE)}
    with pytest.raises(runs.RunError, match=message):
        runs.parse({"name": "x", "out": "x", "base": base, "modalities": tables, "train": {"pairs": entries}}, data)


def test_events_with_several_texts_show_all_of_them(data: Path, tmp_path: Path) -> None:
    lines = (data / "train.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines[1:]]
    for event in events:
        event["text"] = [event["text"], f"a picture of {event['text']}", "a shape"]
    (data / "texts.jsonl").write_text("\n".join([lines[0], *map(json.dumps, events)]) + "\n")
    settings = run(data, tmp_path, "image", "text", HEADS, pair={"manifests": ["texts.jsonl"]})
    trainer = loop._Trainer(settings, loop.Ranks(), torch.device("cpu"))
    seen = {tuple(vector.tolist()) for turn in range(40) for vector in trainer.data[0].batch([5], turn).sides[1]}
    assert len(seen) == 3
    ids = {int(trainer.data[0].batch([5], turn).ids[0]) for turn in range(40)}
    assert len(ids) == 3  # of the text that was shown: "a shape" is no negative of another "a shape"


LORA = {"text": {"lora": {"rank": 4, "alpha": 8, "targets": ["in_proj", "fc1"]}}}


def test_low_rank_changes_are_merged_into_plain_weights(data: Path, tmp_path: Path) -> None:
    settings = run(data, tmp_path / "out", "text", "image", LORA, steps=4, learning_rate=1e-2)
    trainer = loop._Trainer(settings, loop.Ranks(), torch.device("cpu"))
    made = trainer.train().model
    assert made
    model, base = bind.load(made), bind.load("small", modalities=BASE)
    tower = trainer.starts["text"].tower.eval()
    tokens = torch.randint(1, 1000, (3, 128))
    with torch.no_grad():
        torch.testing.assert_close(model.tower("text")(tokens), tower(tokens), rtol=0, atol=1e-6)
    stored = {key: t for key, t in load_file(made / "text.safetensors").items() if key.startswith("encoder.")}
    before = {f"encoder.{key}": t for key, t in base.tower("text").encoder.state_dict().items()}
    assert stored.keys() == before.keys()
    changed = {key for key in stored if not torch.equal(stored[key], before[key])}
    assert changed == {f"encoder.layers.{n}.{layer}.weight" for n in range(6) for layer in ("in_proj", "fc1")}
    for key in changed:
        assert torch.linalg.matrix_rank(stored[key] - before[key], rtol=1e-3) <= 4
    assert "source" not in (model.description.modalities["text"].encoder or {})
    # The frozen weights are no part of the state.
    assert (tmp_path / "out" / loop.STATE).stat().st_size < 10e6 < (made / "text.safetensors").stat().st_size


def test_low_rank_training_is_resumed_bit_for_bit(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = (
        run(data, tmp_path / name, "text", "image", LORA, steps=4, ema_decay=0.9, save_every=2)
        for name in ("whole", "parts")
    )
    loop.train(whole)

    def crash(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        plain = loop._Trainer._step
        patch.setattr(loop._Trainer, "_step", lambda self, step, b: crash() if step == 3 else plain(self, step, b))
        with pytest.raises(KeyboardInterrupt):
            loop.train(parts)
    loop.train(parts)
    for file in (loop.STATE, "model/text.safetensors"):
        one, other = load_file(tmp_path / "whole" / file), load_file(tmp_path / "parts" / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())


def test_low_rank_changes_reach_every_block_of_our_transformer() -> None:
    """The last block computes one query alone, by taking its projection apart, unless that is wrapped."""
    options = {"module": "transformer", "shape": [6, 64], "kernel": [8], "stride": [8], "width": 16, "depth": 2}
    encoder = encoders.build(options | {"heads": 2}).eval()
    adapted = towers.adapted(copy.deepcopy(encoder), Lora(targets=("in_proj",), rank=2))
    x = torch.randn(3, 6, 64)
    torch.testing.assert_close(adapted(x), encoder(x))  # changes start at 0
    for name, p in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p)
    adapted(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in adapted.parameters() if p.requires_grad)
    merged = towers.Start(Tower(adapted, torch.nn.Identity())).finished().encoder
    torch.testing.assert_close(merged(x), adapted(x), rtol=0, atol=1e-5)
    assert (merged(x) - encoder(x)).abs().max() > 1e-2


def test_lora_without_peft_or_with_unknown_layers_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.trainer.checks.importlib.util.find_spec", lambda name: None)
    wrong = {"text": {"train": "head", "lora": {"targets": ["query", "fc1"]}}}
    with pytest.raises(runs.RunError) as caught:
        run(data, data, "text", "image", wrong)
    for part in ("pip install 'crossbind[train]'", "no layer is called 'query'; there are ", "leave out one of"):
        assert part in str(caught.value)
    assert "3 error(s)" in str(caught.value)


def test_video_can_have_a_head_of_its_own_on_the_encoder_it_shares(data: Path, tmp_path: Path) -> None:
    base = bind.load("small", modalities=BASE)
    settings = run(data, tmp_path, "video", "text", {"video": {"train": "head"}})
    start = towers.start(base, resolve(base.description, settings), "video")
    assert start.trunk is base.tower("image").encoder
    own, shared = (head.get_parameter("linear.weight") for head in (start.tower.head, base.tower("image").head))
    assert torch.equal(own, shared)
    torch.nn.init.normal_(own)
    description = resolve(base.description, settings).finished
    assert description.modalities["video"].shares == "image"
    whole = {name: base.tower(name) for name in base.modalities} | {"video": start.finished()}
    checkpoint.write(tmp_path / "model", description, whole)
    model = bind.load(tmp_path / "model")
    assert torch.equal(model.tower("video").head.get_parameter("linear.weight"), own)
    assert torch.equal(model.tower("image").head.get_parameter("linear.weight"), shared)


def test_what_a_batch_holds_follows_from_what_is_trained(data: Path, tmp_path: Path) -> None:
    """What moves is never taken from a cache of vectors or features."""
    both = run(data, tmp_path, "text", "image", LORA | {"image": {"train": "head"}})
    assert [both.stage(name) for name in ("text", "image", "video")] == ["views", "features", "vectors"]
    trainer = loop._Trainer(both, loop.Ranks(), torch.device("cpu"))
    of_text, of_image = trainer.data[0].sides
    assert of_text.part.encode is None
    assert of_image.part.encode is trainer.starts["image"].trunk
    batch = trainer.data[0].batch([0, 1], turn=0)
    assert batch.sides[0].dtype == torch.int64  # tokens
    width = trainer.starts["image"].trunk.width if trainer.starts["image"].trunk else 0
    assert batch.sides[1].shape == (2, width)


def test_rows_of_variants_and_views_are_told_apart(tmp_path: Path) -> None:
    """Three variants of an item of two views lie one after the other."""
    part = Part("image", zoo.describe("small").preprocess("image"), torch.nn.Identity(), 1)
    cpu = torch.device("cpu")
    side = Side(part, Augment(views=3, crop=0.5), Cache(folder=str(tmp_path)), cpu, "float32", Limits())
    with side._table:
        side._table.add(b"a" * 32, np.arange(6.0)[:, None])
        side._table.add(b"b" * 32, np.arange(10.0, 13.0)[:, None])  # of one view
    found = side.items([b"a" * 32, b"b" * 32, b"a" * 32], [1, 2, 0])
    assert [rows.ravel().tolist() for rows in found] == [[2, 3], [12], [0, 1]]
    drawn = side.batch([b"a" * 32] * 2, [2, 2], np.array([0.49, 0.51]))
    assert drawn.ravel().tolist() == [4, 5]


def test_batch_norms_of_a_pretrained_encoder_keep_their_statistics() -> None:
    tower = Tower(torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5)), torch.nn.Linear(3, 2))
    towers.set_training(tower)
    norm, dropout = tower.encoder
    assert dropout.training
    x = 5 + torch.randn(8, 3)
    assert torch.equal(norm(x)[:4], norm(x[:4]))
    assert torch.equal(norm.running_mean, torch.zeros(3))


@pytest.mark.parametrize("train", ["all", "head"])
def test_a_trunk_of_timm_is_trained_on_depth_or_stays_frozen(train: str, data: Path, tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    from bind.files import sha256

    whole = timm.create_model("resnet10t", pretrained=False, num_classes=0).state_dict()
    file = tmp_path / "published.safetensors"
    save_file({key: value.contiguous() for key, value in whole.items()}, file)
    encoder = {"module": "timm", "model": "resnet10t", "source": f"file:{file}", "sha256": sha256(file)}
    depth = {"train": train, "encoder": encoder, "head": {"type": "linear"}, "preprocess": {"size": 32}}
    made = loop.train(run(data, tmp_path / "out", "depth", "image", {"depth": depth}, epochs=8)).model
    assert made
    model = bind.load(made)
    table = model.description.modalities["depth"].encoder or {}
    assert table["shape"] == [1, 32, 32]  # that of the views
    trunk = model.tower("depth").encoder.trunk.state_dict()
    grey = whole["conv1.0.weight"].sum(1, keepdim=True)  # as timm adapts weights for colours to one channel
    if train == "head":
        assert table["source"] == f"file:{file}"
        torch.testing.assert_close(trunk["conv1.0.weight"], grey)
    else:
        assert "source" not in table
        assert not torch.allclose(trunk["conv1.0.weight"], grey)
    found = losses(tmp_path / "out")
    assert sum(found[-3:]) < sum(found[:3])
