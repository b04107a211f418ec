"""A checkpoint becomes a named model in half precision; what a person wrote of the model stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import bind
from bind import checkpoint, description
from bind.files import SUMS
from bind.model import loading
from bind.model.model import BindModel
from train.small.install import install

KEPT = ("image", "video", "text")


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """A named model of pictures, films and texts, with a licence of its own: its table lies beside its folder."""
    whole = bind.load("small", modalities=KEPT)
    tables = {name: whole.description.modalities[name] for name in KEPT}
    facts = {"modalities": tables, "name": "one", "license": "ours", "shorter": (64,), "trained_on": ("ours-train",)}
    folder = tmp_path / "zoo" / "one"
    checkpoint.write(folder, whole.description.model_copy(update=facts), {name: whole.tower(name) for name in KEPT})
    (folder / checkpoint.TABLE).replace(folder.with_suffix(".toml"))
    checkpoint.write_sums(folder)
    return folder


def trained(folder: Path) -> Path:
    """A checkpoint of `small`'s pictures, films, texts and motion, in single precision."""
    names = (*KEPT, "imu")
    whole = bind.load("small", modalities=names)
    tables = {name: whole.description.modalities[name] for name in names}
    changed = whole.description.model_copy(update={"modalities": tables, "license": "another", "trained_on": ()})
    checkpoint.write(folder, changed, {name: whole.tower(name) for name in names})
    return folder


def read(named: Path) -> BindModel:
    return loading.load_described(description.read(named.with_suffix(".toml")), named)


def test_a_checkpoint_becomes_the_named_model(named: Path, tmp_path: Path) -> None:
    made = trained(tmp_path / "made")
    install(made, named)
    after = read(named)
    about = after.description
    assert set(after.modalities) == {*KEPT, "imu"}
    assert (about.name, about.license, about.shorter, about.trained_on) == ("one", "ours", (64,), ("ours-train",))
    files = sorted(file.name for file in named.iterdir())
    assert files == [SUMS, *sorted(f"{name}.safetensors" for name in ("image", "text", "imu"))]
    assert sorted(file.name for file in named.parent.iterdir()) == ["one", "one.toml"]
    for name in ("image", "text", "imu"):
        stored = load_file(checkpoint.verified(named, f"{name}.safetensors", checkpoint.read_sums(named)))
        assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
        for key, tensor in load_file(made / f"{name}.safetensors").items():
            torch.testing.assert_close(stored[key], tensor.half(), rtol=0, atol=0)
    np.testing.assert_allclose(
        after.embed(["a dog"], "text").vectors, bind.load(made).embed(["a dog"], "text").vectors, atol=2e-3
    )
    first = after.space
    install(made, named)
    assert read(named).space == first


def test_a_checkpoint_of_another_dimension_is_refused(named: Path, tmp_path: Path) -> None:
    """And the model is left as it was."""
    files = [named.with_suffix(".toml"), *sorted(named.iterdir())]
    before = [file.read_bytes() for file in files]
    table = named.with_suffix(".toml").read_text().replace("dim = 384", "dim = 256")
    named.with_suffix(".toml").write_text(table)
    with pytest.raises(ValueError, match="expected 256 dimensions as one has, got 384"):
        install(trained(tmp_path / "made"), named)
    named.with_suffix(".toml").write_bytes(before[0])
    assert [file.read_bytes() for file in files] == before
    assert sorted(file.name for file in named.parent.iterdir()) == ["one", "one.toml"]
