"""Checkpoints: identity, damage, and what a description may say."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bind
from bind import checkpoint, description, modalities, zoo
from bind.checkpoint import CheckpointError
from bind.model import loading
from bind.model.model import BindModel

TINY = {
    "format": 1,
    "name": "tiny",
    "dim": 8,
    "license": "Apache-2.0",
    "modalities": {
        "depth": {
            "encoder": {"module": "imagebind", "modality": "depth", "width": 16, "depth": 1, "heads": 2},
            "head": {"type": "linear"},
        },
        "imu": {
            "encoder": {"module": "imagebind", "modality": "imu", "width": 16, "depth": 1, "heads": 2},
            "head": {"type": "linear", "bias": True},
        },
    },
}


@pytest.fixture
def tiny() -> BindModel:
    return loading.random(description.parse(TINY, "tiny"), "cpu", torch.float32)


@pytest.fixture
def saved(tiny: BindModel, tmp_path: Path) -> Path:
    tiny.save(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_has_the_files_of_the_contract(saved: Path) -> None:
    names = sorted(file.name for file in saved.iterdir())
    assert names == ["SHA256SUMS", "depth.safetensors", "imu.safetensors", "model.toml"]


def test_saving_again_replaces_it_whole(saved: Path, tiny: BindModel) -> None:
    before = sorted(saved.parent.iterdir())
    tiny.save(saved)
    assert sorted(saved.parent.iterdir()) == before
    assert bind.load(saved).space == tiny.space


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="only Linux and macOS exchange folders")
def test_a_checkpoint_is_never_missing_while_it_is_replaced(
    saved: Path, tiny: BindModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing: list[str] = []
    steps: list[str] = []

    def watched(name: str, call: Any) -> Any:
        def step(*arguments: Any, **options: Any) -> Any:
            result = call(*arguments, **options)
            steps.append(f"{name} {Path(arguments[0]).name}")
            if not (saved / "model.toml").is_file():
                missing.append(name)
            return result

        return step

    for module, name in ((os, "replace"), (shutil, "rmtree"), (checkpoint, "sync"), (checkpoint, "exchange")):
        monkeypatch.setattr(module, name, watched(name, getattr(module, name)))
    tiny.save(saved)
    assert not missing
    exchanged = next(number for number, step in enumerate(steps) if step.startswith("exchange"))
    # On the disk before it is seen: a power cut finds whole files behind the name.
    assert {"sync SHA256SUMS", "sync model.toml", "sync imu.safetensors"} <= set(steps[:exchanged])
    monkeypatch.setattr(checkpoint, "exchange", lambda *_: False)  # a system that cannot: the instant is there
    tiny.save(saved)
    assert missing == ["replace"]


def test_damaged_checksums_are_named(saved: Path) -> None:
    (saved / "SHA256SUMS").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"SHA256SUMS: is not UTF-8 text; the file is damaged"):
        bind.load(saved)


@pytest.mark.parametrize("name", ["model.toml", "depth.safetensors"])
def test_a_flipped_byte_is_found(saved: Path, name: str) -> None:
    content = bytearray((saved / name).read_bytes())
    content[len(content) // 2] ^= 1
    (saved / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="the file is damaged"):
        bind.load(saved)


def test_only_what_is_loaded_is_checked(saved: Path) -> None:
    (saved / "depth.safetensors").write_bytes(b"gone")
    assert bind.load(saved, modalities=["imu"]).modalities == ("imu",)


def test_a_missing_file_is_named(saved: Path) -> None:
    (saved / "imu.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"imu\.safetensors is missing"):
        bind.load(saved)


def test_missing_and_unexpected_tensors_are_named(saved: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(saved / "imu.safetensors")
    state["head.other"] = state.pop("head.bias")
    save_file(state, saved / "imu.safetensors")
    checkpoint.write_sums(saved)
    with pytest.raises(CheckpointError, match=r"missing tensors \['bias'\], unexpected \['other'\]"):
        bind.load(saved)


def test_weights_and_configuration_make_the_space(tiny: BindModel, saved: Path) -> None:
    spaces = {tiny.space, loading.random(tiny.description, "cpu", torch.float32, seed=1).space}
    other = TINY | {
        "modalities": TINY["modalities"] | {"imu": TINY["modalities"]["imu"] | {"preprocess": {"rate_hz": 200.0}}}
    }  # type: ignore[operator, index]
    spaces.add(loading.random(description.parse(other, "other"), "cpu", torch.float32).space)
    assert len(spaces) == 3
    renamed = loading.random(description.parse(TINY | {"name": "b", "about": "x"}, "b"), "cpu", torch.float32)
    assert renamed.space == tiny.space


def test_the_revision_of_the_preprocessing_is_a_part_of_the_space(monkeypatch: pytest.MonkeyPatch) -> None:
    described = description.parse(TINY, "tiny")
    known = {name: replace(spec, revision=1) for name, spec in modalities.specs().items()}
    monkeypatch.setattr(modalities, "specs", lambda: known)
    assert described.space({"all": "x"}) == "f83c6d6dc42b571c"  # as before there were revisions
    monkeypatch.setattr(modalities, "specs", lambda: known | {"imu": replace(known["imu"], revision=2)})
    assert described.space({"all": "x"}) != "f83c6d6dc42b571c"
    assert modalities.revisions(["depth", "imu"]) == {"depth": 1, "imu": 2}


def test_all_errors_of_a_description_at_once() -> None:
    bad = {
        "format": 2,
        "name": "x",
        "dim": "many",
        "license": "MIT",
        "surprise": 1,
        "modalities": {"image": {"encodr": {}}},
    }
    with pytest.raises(ValueError, match="4 error") as caught:
        description.parse(bad, "model.toml")
    for place in ("format", "dim", "surprise", "modalities.image.encodr"):
        assert place in str(caught.value)
    bad = TINY | {
        "modalities": {
            "smell": {"shares": "image"},
            "image": {"shares": "touch"},
            "depth": {"encoder": {"module": "x"}, "preprocess": {"sise": 1}},
        }
    }
    with pytest.raises(ValueError, match="4 error") as caught:
        description.parse(bad, "model.toml")
    for part in ("unknown modality", "'touch' has no encoder here", "needs a head", "sise"):
        assert part in str(caught.value)


def test_unknown_names_and_weights_say_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no model 'smal'; known: clip-vit-b32"):
        bind.load("smal")
    with pytest.raises(ValueError, match="open_clip has none"):
        bind.load("clip-nothing", weights="random")
    with pytest.raises(ValueError, match="no such file"):
        bind.load("imagebind-huge", weights=tmp_path / "no.pth")
    with pytest.raises(ValueError, match="takes no weights"):
        bind.load("small", weights="other")
    with pytest.raises(ValueError, match="no modality 'smell'"):
        bind.load("small", modalities=["smell"])
    with pytest.raises(ValueError, match="dtype"):
        bind.load("small", dtype="int8")


def test_any_open_clip_model_by_name() -> None:
    model = bind.load("clip-vit-b-16-plus-240", weights="random", modalities=["text"])
    assert model.dim == 640
    assert zoo.describe("clip-vit-b-16-plus-240").preprocess("image").size == 240


def test_clip_from_a_local_file_equals_open_clip(tmp_path: Path) -> None:
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    reference = open_clip.create_model("ViT-B-32").eval()
    file = tmp_path / "open_clip_model.safetensors"
    save_file({k: v.contiguous() for k, v in reference.state_dict().items()}, file)
    model = bind.load("clip-vit-b32", weights=file)
    tokens = open_clip.tokenize(["a red car", "two dogs"])
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(reference.encode_text(tokens), dim=1)
    torch.testing.assert_close(model.encode("text", tokens[:, None]), expected, rtol=0, atol=1e-5)
    found = model.embed(["text:a red car", "text:two dogs"])
    np.testing.assert_allclose(found.vectors, expected, rtol=0, atol=1e-5)
    assert bind.load("clip-vit-b32", weights="random").space != model.space


def test_shapes_that_do_not_fit_are_refused(saved: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(saved / "imu.safetensors")
    state["head.weight"] = state["head.weight"][:, :-1].contiguous()
    save_file(state, saved / "imu.safetensors")
    checkpoint.write_sums(saved)
    with pytest.raises(CheckpointError, match="size mismatch for weight"):
        bind.load(saved)
