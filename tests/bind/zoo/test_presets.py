"""Strong models by a short name: what the table says, and weights that are kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.pretrained import list_pretrained_tags_by_model
from safetensors.torch import save_file

import bind
from bind import zoo
from bind.zoo import fetching, hub, presets, speed
from tests.bind.encoders import tiny_models

NAMES = tuple(presets.presets())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CROSSBIND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


@pytest.mark.parametrize("name", NAMES)
def test_the_table_says_what_the_model_is(name: str) -> None:
    preset = presets.presets()[name]
    if hub.is_name(preset.model):
        with pytest.raises(ValueError, match="could not be fetched"):
            bind.load(name)
        return
    found = zoo.describe(name)
    assert (found.dim, set(found.modalities)) == (preset.dim, set(preset.modalities))
    if preset.model.startswith("clip-"):
        model, _, tag = preset.model.removeprefix("clip-").partition(":")
        assert tag in list_pretrained_tags_by_model(model) and found.source == tag


def test_a_file_is_checked_kept_and_loaded(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "weights.safetensors"
    torch.manual_seed(0)
    state = open_clip.create_model("MobileCLIP2-S0").state_dict()
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, other)
    (tmp_path / "half.safetensors").write_bytes(file.read_bytes()[:1000])
    for source, wanted, sentence in (
        (other, None, "does not hold the weights of MobileCLIP2-S0"),
        (tmp_path / "half.safetensors", None, "does not hold the weights of MobileCLIP2-S0"),
        (file, "0" * 64, f"its SHA-256 is {digest}, expected 0000"),
        (tmp_path / "none", None, "no such file or folder"),
    ):
        with pytest.raises(ValueError, match=sentence):
            fetching.get("mobileclip2-s0", source, wanted)
        assert presets.kept("mobileclip2-s0") is None
        assert not list(cache.rglob("*.safetensors"))
    place = fetching.get("mobileclip2-s0", file, digest)
    assert presets.kept("mobileclip2-s0") == place and presets.is_here("mobileclip2-s0")
    named = bind.load("mobileclip2-s0", modalities=["text"])
    assert named.space == bind.load("clip-MobileCLIP2-S0:dfndr2b", weights=file, modalities=["text"]).space


def test_a_folder_is_checked_kept_and_loaded(tmp_path: Path) -> None:
    folder = tiny_models.embedding_gemma2(tmp_path / "gemma")
    assert not presets.is_here("embeddinggemma-2")
    with pytest.raises(ValueError, match="expected the folder of a CLAP"):
        fetching.get("clap-general", folder)
    with pytest.raises(ValueError, match="is a folder, and --sha256 is for a file"):
        fetching.get("embeddinggemma-2", folder, "0" * 64)
    fetching.get("embeddinggemma-2", folder)
    assert presets.is_here("embeddinggemma-2") and not presets.is_here("clap-general")
    assert bind.load("embeddinggemma-2").space == bind.load(f"st:{folder}").space


def test_what_cannot_be_fetched_is_said_in_a_sentence() -> None:
    for name, sentence in {
        "siglip2-base": "could not be downloaded",
        "clip-vit-b32": "its weights 'laion2b_s34b_b79k' could not be downloaded",
        "clap-general": "could not be fetched; get its folder",
        "clip-vit-b-32:none": "has no weights 'none'",
        "clip-nothing:none": "open_clip has none of that name",
        "timm:resnet18": "could not be downloaded",
        "imagebind-huge": "lies on no hub; get imagebind_huge.pth",
        "small": "no weights to get for 'small'",
        "what": "no weights to get for 'what'; known: mobileclip2-s0",
    }.items():
        with pytest.raises(ValueError, match=sentence):
            fetching.get(name)
    with pytest.raises(ValueError, match="--from is for"):
        fetching.get("timm:resnet18", Path("file"))
    assert presets.kept("/") is None


def test_advice_fits_the_memory() -> None:
    assert presets.advice(1.0) is None
    assert presets.advice(3.0) == "mobileclip2-s0"
    strongest = presets.advice(1000.0)
    assert strongest == max(NAMES, key=lambda name: presets.presets()[name].strength)
    assert presets.free_memory_gb() >= 0.0


def test_speed_is_measured_and_remembered(cache: Path) -> None:
    assert speed.remembered("small") == {}
    found = speed.measure(bind.load("small", modalities=["image", "text"]))
    assert found["images_per_s"] > 0 and found["text_ms"] > 0
    speed.remember("small", "cpu", found)
    assert speed.remembered("small") == found and speed.remembered("small", "cuda") == {}
    (cache / "speeds.json").write_text("{")
    assert speed.remembered("small") == {}
