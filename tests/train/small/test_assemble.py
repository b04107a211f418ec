"""What several runs added to one base becomes one model in half precision; what is of another space is refused."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import bind
from bind import checkpoint, description
from bind.files import SUMS
from bind.model import loading
from bind.model.model import BindModel
from preprocess import manifest
from train.small.assemble import assemble
from train.trainer import loop
from train.trainer import run as runs

KEPT = ("image", "video", "text")


def trained(data: Path, out: Path, base: Path, first: str, second: str, tables: Mapping[str, Any]) -> Path:
    """The checkpoint of a run of one step."""
    pair = {"modality": first, "anchor": second, "manifests": ["train.jsonl"], "batch_size": 8}
    train = {"steps": 1, "warmup_epochs": 0, "pairs": [pair]}
    table = {"name": out.name, "out": str(out), "base": {"model": str(base)}, "modalities": tables, "train": train}
    model = loop.train(runs.parse(table, data)).model
    assert model
    return model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder in half precision: pictures, films and texts of `small`, and nothing bound to them."""
    whole = bind.load("small", modalities=KEPT)
    tables = {name: whole.description.modalities[name] for name in KEPT}
    reduced = whole.description.model_copy(update={"modalities": tables, "trained": (("image", "text"),)})
    folder = tmp_path_factory.mktemp("base") / "base"
    checkpoint.write(folder, reduced, {name: whole.tower(name).half() for name in KEPT})
    return folder


@pytest.fixture(scope="module")
def depths(data: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Depth bound to the base's pictures, and to pictures whose head another run had moved before."""
    folder = tmp_path_factory.mktemp("depths")
    depth = {"depth": {"encoder": {"widths": [8, 16]}, "preprocess": {"size": 32}}}
    heads = {"image": {"train": "head"}, "text": {"train": "head"}}
    moved = trained(data, folder / "moved", base, "image", "text", heads)
    return (
        trained(data, folder / "ours", base, "depth", "image", depth),
        trained(data, folder / "others", moved, "depth", "image", depth),
    )


@pytest.fixture
def named(base: Path, tmp_path: Path) -> Path:
    """The base as a named model: its table beside the folder."""
    folder = tmp_path / "zoo" / "one"
    shutil.copytree(base, folder)
    (folder / checkpoint.TABLE).replace(folder.with_suffix(".toml"))
    checkpoint.write_sums(folder)
    return folder


def read(named: Path) -> BindModel:
    return loading.load_described(description.read(named.with_suffix(".toml")), named)


def test_two_checkpoints_of_one_base_become_one_model(
    data: Path, base: Path, depths: tuple[Path, Path], named: Path, tmp_path: Path
) -> None:
    sensor = {"encoder": {"widths": [8]}, "preprocess": {"size": 16}}
    events = []
    for number in range(8):
        picture, thermal = tmp_path / f"{number}.png", tmp_path / f"{number}.thermal.png"
        shutil.copy(data / "media" / picture.name, picture)
        Image.open(picture).convert("L").save(thermal)
        events.append({"id": f"{number}", "image": {"path": picture.name}, "thermal": {"path": thermal.name}})
    manifest.write(tmp_path / "train.jsonl", {"name": "thermal", "license": "CC0-1.0"}, events)
    thermal = trained(tmp_path, tmp_path / "thermal", base, "thermal", "image", {"thermal": sensor})
    before = read(named)
    assemble(named, {"depth": depths[0], "thermal": thermal})
    after = read(named)
    assert after.modalities == (*KEPT, "depth", "thermal")
    assert set(after.description.trained) == {("image", "text"), ("image", "depth"), ("image", "thermal")}
    assert sorted(file.name for file in named.iterdir()) == sorted(
        [SUMS, *(f"{name}.safetensors" for name in ("image", "text", "depth", "thermal"))]
    )
    assert sorted(file.name for file in named.parent.iterdir()) == ["one", "one.toml"]
    for name in ("image", "text", "depth", "thermal"):
        stored = load_file(checkpoint.verified(named, f"{name}.safetensors", checkpoint.read_sums(named)))
        assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    # What was there is the same to the bit; what came is what its run had made, rounded.
    assert (after.digests["image"], after.digests["text"]) == (before.digests["image"], before.digests["text"])
    for name, folder in (("depth", depths[0]), ("thermal", thermal)):
        for key, tensor in load_file(folder / f"{name}.safetensors").items():
            torch.testing.assert_close(after.tower(name).state_dict()[key], tensor.half().float(), rtol=0, atol=0)
    own = bind.load(depths[0]).embed([data / "media" / "3.depth.png"], "depth").vectors
    np.testing.assert_allclose(after.embed([data / "media" / "3.depth.png"], "depth").vectors, own, atol=5e-3)


def test_a_modality_that_is_there_is_replaced(depths: tuple[Path, Path], named: Path) -> None:
    assemble(named, {"depth": depths[0]})
    first = read(named)
    assemble(named, {"depth": depths[0]})
    second = read(named)
    assert second.digests == first.digests and second.description == first.description


def test_what_is_bound_to_another_space_is_refused(depths: tuple[Path, Path], named: Path) -> None:
    """And the model is left as it was."""
    files = [named.with_suffix(".toml"), *sorted(named.iterdir())]
    before = [file.read_bytes() for file in files]
    with pytest.raises(ValueError, match="its image is not that of one; depth is bound to another space"):
        assemble(named, {"depth": depths[1]})
    assert [file.read_bytes() for file in files] == before
    assert sorted(file.name for file in named.parent.iterdir()) == ["one", "one.toml"]
