"""Trunks of timm against timm's own calls, with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm as library
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config

import bind
from bind import checkpoint, description, encoders, zoo
from bind.encoders import timm

MODELS = ("resnet18", "vit_tiny_patch16_224", "mobilenetv3_small_050", "dm_nfnet_f0")
"""Cropped with a margin; a transformer of a fixed size; a layer behind the pooling; squashed and not cropped."""
SMALL = {"module": "timm", "model": "resnet18", "shape": [1, 32, 32]}


def photo(number: int) -> Image.Image:
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return coarse.resize((320 + 20 * number, 200), Image.Resampling.BICUBIC)


def cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=1)


@pytest.mark.parametrize("name", MODELS)
def test_pictures_equal_timms_own_call(name: str, tmp_path: Path) -> None:
    model = bind.load(f"timm:{name}", weights="random", modalities=["image"])
    reference = library.create_model(name, pretrained=False, num_classes=0).eval()
    reference.load_state_dict(model.tower("image").encoder.trunk.state_dict())
    transform = create_transform(**resolve_model_data_config(reference), is_training=False)
    files = [tmp_path / f"{number}.png" for number in range(8 if name == "resnet18" else 2)]
    for number, file in enumerate(files):
        photo(number).save(file)
    with torch.inference_mode():
        expected = reference(torch.stack([transform(Image.open(file)) for file in files]))
        other = reference(torch.stack([transform(Image.open(file).transpose(0)) for file in files]))
    found = torch.from_numpy(model.embed(files).vectors.copy())
    assert model.dim == expected.shape[1]
    assert cosines(found, expected).min() >= 0.99999
    assert cosines(found, other).min() < 0.99999  # negative control
    alone = torch.cat([torch.from_numpy(model.embed([file]).vectors.copy()) for file in files])
    assert cosines(found, alone).min() >= 0.999999


def test_its_preprocessing_is_a_part_of_the_space() -> None:
    found = zoo.describe("timm:dm_nfnet_f0")
    config = found.preprocess("image")
    assert (config.size, config.resize, config.resize_mode, config.interpolation) == (192, 213, "squash", "bicubic")
    assert config.mean == (0.485, 0.456, 0.406)
    assert zoo.describe("timm:resnet18").preprocess("image").resize_mode == "shortest"
    image = found.modalities["image"]
    cropped = image.model_copy(update={"preprocess": image.preprocess | {"resize_mode": "shortest"}})
    changed = found.model_copy(update={"modalities": found.modalities | {"image": cropped}})
    assert changed.space({}) != found.space({})


def test_one_tag_has_other_pictures_than_another() -> None:
    sizes = {tag: zoo.describe(f"timm:convnext_tiny.{tag}").preprocess("image").size for tag in ("fb_in1k", "in12k")}
    squashed = zoo.describe("timm:convnext_tiny.fb_in22k_ft_in1k_384").preprocess("image")
    assert sizes == {"fb_in1k": 224, "in12k": 224}
    assert (squashed.size, squashed.resize_mode) == (384, "squash")


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_local_file_gives_its_own_vectors(ending: str, tmp_path: Path) -> None:
    reference = library.create_model("resnet18", pretrained=False).eval()  # with its classifier, as timm publishes it
    file = tmp_path / f"model.{ending}"
    if ending == "pth":
        torch.save({"state_dict": reference.state_dict()}, file)
    else:
        save_file({key: value.contiguous() for key, value in reference.state_dict().items()}, file)
    model = bind.load("timm:resnet18", weights=file)
    reference.reset_classifier(0)
    transform = create_transform(**resolve_model_data_config(reference), is_training=False)
    picture = photo(0)
    with torch.inference_mode():
        expected = reference(transform(picture)[None])
    assert cosines(torch.from_numpy(model.embed([picture]).vectors.copy()), expected).min() >= 0.99999
    assert model.space != bind.load("timm:resnet18", weights="random").space
    checkpoint.write(tmp_path / "saved", model.description, {name: model.tower(name) for name in model.modalities})
    assert bind.load(tmp_path / "saved").space == model.space


def test_weights_for_colours_serve_one_channel(tmp_path: Path) -> None:
    """timm sums the three channels of the first layer, so that a grey picture means what it meant."""
    reference = library.create_model("resnet18", pretrained=False, num_classes=0).eval()
    file = tmp_path / "model.safetensors"
    save_file({key: value.contiguous() for key, value in reference.state_dict().items()}, file)
    trunk = timm.load({"model": "resnet18", "shape": [1, 64, 64]}, file).eval()
    grey = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(trunk(grey), reference(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"expected \(B, 1, H, W\), got \(2, 3, 64, 64\)"):
        trunk(grey.expand(-1, 3, -1, -1))


@pytest.mark.parametrize(
    ("options", "width"),
    [({"model": "vit_tiny_patch16_224", "shape": [1, 112, 112]}, 192), ({"model": "resnet18", "pool": "max"}, 512)],
)
def test_other_sizes_and_poolings(options: dict[str, object], width: int) -> None:
    trunk = timm.build(options).eval()
    channels, height, side = options.get("shape", (3, 64, 64))  # type: ignore[misc]
    assert trunk(torch.rand(2, channels, height, side)).shape == (2, width)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model": "resnet19"}, "no model 'resnet19'; similar: resnet1"),
        ({"model": "vit_tiny"}, "similar: vit_tiny_patch16_224"),
        ({"model": ""}, "no model ''; timm.list_models"),
        ({"model": "resnet18.none"}, "no weights 'none' of resnet18; known: a1_in1k"),
        ({"model": "hf-hub:timm/resnet18"}, "no model 'hf-hub:timm/resnet18'"),
        ({"model": "resnet18", "pool": "best"}, "pool is 'best', expected one of avg, max"),
        ({"model": "resnet18", "pool": "token"}, "cannot build resnet18"),
        ({"model": "resnet18", "shape": [224, 224]}, "expected shape"),
        ({"model": "resnet18", "channels": 1}, r"unknown keys \['channels'\]"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        timm.build(options)


def test_pictures_that_are_padded_are_refused() -> None:
    with pytest.raises(ValueError, match="expected square colour pictures that are cropped or squashed"):
        zoo.describe("timm:vit_base_patch16_sapiens2")


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "ran"),)

    whole = library.create_model("resnet18", pretrained=False, num_classes=0).state_dict()
    lacking = {key: value for key, value in whole.items() if not key.startswith("layer4.1")}
    contents = {"lacking.pth": lacking, "code.pth": {"x": Code()}, "empty.pth": {}, "list.pth": [1]}
    for name, content in contents.items():
        torch.save(content, tmp_path / name)
    other = library.create_model("resnet34", pretrained=False, num_classes=0).state_dict()
    save_file({key: value for key, value in other.items()}, tmp_path / "other.safetensors")
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "other.safetensors").read_bytes()[:1000])
    (tmp_path / "text.pth").write_text("no weights")
    for file in sorted(tmp_path.iterdir()):  # a resnet34 has all tensors of a resnet18, and others
        with pytest.raises(ValueError, match=f"{file.name} does not hold the weights of timm's resnet18"):
            bind.load("timm:resnet18", weights=file)
    assert not (tmp_path / "ran").exists()


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    def refuse(*_: object, **__: object) -> str:
        raise OSError("the hub\nis far away")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    sentence = r"timm:resnet18: its weights could not be downloaded; pass a file .* \(OSError: the hub is far away\)"
    with pytest.raises(ValueError, match=sentence):
        bind.load("timm:resnet18")
    with pytest.raises(checkpoint.CheckpointError, match="could not be downloaded"):
        checkpoint.locate({"source": "timm:resnet18", "sha256": ""})
    with pytest.raises(ValueError, match="no weights 'none' of resnet18"):
        bind.load("timm:resnet18", weights="none")
    file = tmp_path / "cached.safetensors"
    whole = library.create_model("resnet18", pretrained=False, num_classes=0).state_dict()
    save_file({key: value.contiguous() for key, value in whole.items()}, file)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: str(file))
    model = bind.load("timm:resnet18", weights="a2_in1k", modalities=["image"])
    assert model.description.modalities["image"].encoder["model"] == "resnet18.a2_in1k"  # type: ignore[index]
    torch.testing.assert_close(model.tower("image").encoder.trunk.state_dict()["conv1.weight"], whole["conv1.weight"])


def test_a_model_table_may_name_it_for_depth(tmp_path: Path) -> None:
    table = {"encoder": SMALL, "head": {"type": "linear"}, "preprocess": {"size": 32}}
    whole = {"format": 1, "name": "test", "dim": 16, "license": "MIT", "modalities": {"depth": table}}
    from bind.model import loading

    model = loading.random(description.parse(whole, "test"), "cpu", torch.float32)
    checkpoint.write(tmp_path / "saved", model.description, {"depth": model.tower("depth")})
    assert any(key.startswith("encoder.trunk.") for key in load_file(tmp_path / "saved" / "depth.safetensors"))
    views = torch.rand(2, 1, 1, 32, 32)
    torch.testing.assert_close(bind.load(tmp_path / "saved").encode("depth", views), model.encode("depth", views))
    assert "timm" in encoders.names()
