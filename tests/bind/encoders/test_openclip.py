"""open_clip's models: every published weights' own settings, and vectors equal to open_clip's own pipeline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.pretrained import get_pretrained_cfg, list_pretrained
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image
from safetensors.torch import save_file

import bind
from bind import zoo
from bind.encoders import openclip
from bind.encoders.openclip import CONFIG
from preprocess.readers import image
from preprocess.source import Limits, Source

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
KINDS = {
    "clip": (*CLIP, "bicubic", "shortest"),
    "clip squashed": (*CLIP, "bicubic", "squash"),
    "clip bilinear": (*CLIP, "bilinear", "shortest"),
    "siglip": (*HALF, "bicubic", "squash"),
    "siglip bilinear": (*HALF, "bilinear", "squash"),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear", "squash"),
    "mobileclip": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear", "shortest"),
}
"""The kinds of preprocessing among open_clip's published weights, and the one more of a single tag."""
ONE_MORE = (*HALF, "bicubic", "shortest")
TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def picture(seed: int, size: tuple[int, int] = (90, 60)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def published(model: str, tag: str) -> PreprocessCfg:
    """What open_clip itself makes of a tag: its defaults, the tag's own settings, and the size of the encoder."""
    merged = merge_preprocess_dict(PreprocessCfg(), get_pretrained_cfg(model, tag))
    size = open_clip.get_model_config(model)["vision_cfg"].get("image_size", 224)
    return PreprocessCfg(**merged | {"size": size if isinstance(size, int) else size[0]})


@pytest.mark.parametrize(("model", "tag"), list_pretrained())
def test_every_published_weights_get_their_own_settings(model: str, tag: str) -> None:
    found, wanted = openclip.settings(model, tag), published(model, tag)
    assert (found.size, found.interpolation, found.resize_mode) == (
        wanted.size,
        wanted.interpolation,
        wanted.resize_mode,
    )
    assert (found.mean, found.std) == (tuple(wanted.mean), tuple(wanted.std))
    own = open_clip.get_model_config(model).get("quick_gelu", False)
    assert (own or found.quick_gelu) == bool(own or get_pretrained_cfg(model, tag).get("quick_gelu"))
    described = zoo.describe(f"clip-{model}:{tag}")
    config = described.preprocess("image")
    assert (config.size, config.resize, config.resize_mode) == (wanted.size, wanted.size, wanted.resize_mode)
    assert (config.mean, config.std, config.interpolation) == (found.mean, found.std, found.interpolation)
    frames = described.preprocess("video")
    assert (frames.size, frames.resize_mode, frames.mean) == (wanted.size, wanted.resize_mode, found.mean)


def test_the_kinds_are_all_there_are() -> None:
    found = {
        (tuple(c.mean), tuple(c.std), c.interpolation, c.resize_mode)
        for c in (published(*one) for one in list_pretrained())
    }
    assert found == {*KINDS.values(), ONE_MORE}


@pytest.mark.parametrize("kind", [*KINDS.values(), ONE_MORE])
@pytest.mark.parametrize("size", [(640, 427), (300, 500), (224, 224)])
def test_pictures_are_prepared_as_open_clip_does(kind: Any, size: tuple[int, int]) -> None:
    mean, std, interpolation, mode = kind
    config = image.ImageConfig(224, 224, interpolation, mean, std, mode)
    segment = image.read(Source(picture(1, size), "x"), config, Limits(), "whole")[0]
    cfg = PreprocessCfg(size=224, mean=mean, std=std, interpolation=interpolation, resize_mode=mode)
    wanted = image_transform_v2(cfg, is_train=False)(picture(1, size))
    difference = (image.prepare(segment.views, config)[0] - wanted).abs() * torch.tensor(std).view(3, 1, 1) * 255
    assert difference.max() <= 1.01 and (difference > 0.5).float().mean() < 2e-3  # a level where a sum lies on an edge


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model of open_clip's with few weights, on disk, known to open_clip by its name."""
    folder = tmp_path_factory.mktemp("open_clip")
    (folder / "Tiny-16.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "Tiny-16.json")
    torch.manual_seed(0)
    weights = open_clip.create_model("Tiny-16").state_dict()
    # Fresh weights are so small that neither settings nor activations would matter.
    grown = {name: value * (3 if value.ndim > 1 else 1) for name, value in weights.items()}
    save_file({name: value.contiguous() for name, value in grown.items()}, folder / "weights.safetensors")
    yield folder / "weights.safetensors"
    open_clip.factory._MODEL_CONFIGS.pop("Tiny-16")


def beside(file: Path, kind: Any, quick_gelu: bool = False) -> dict[str, Any]:
    mean, std, interpolation, mode = kind
    preprocess = {"mean": mean, "std": std, "interpolation": interpolation, "resize_mode": mode}
    told = {"model_cfg": TINY | {"quick_gelu": quick_gelu}, "preprocess_cfg": preprocess}
    (file.parent / CONFIG).write_text(json.dumps(told))
    return preprocess


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_open_clip(kind: str, quick_gelu: bool, tiny: Path) -> None:
    preprocess = beside(tiny, KINDS[kind], quick_gelu)
    theirs, _, transform = open_clip.create_model_and_transforms(
        "Tiny-16",
        pretrained=str(tiny),
        force_quick_gelu=quick_gelu,
        **{f"image_{key}": preprocess[key] for key in ("mean", "std", "interpolation", "resize_mode")},
    )
    theirs.eval()
    pictures = [picture(seed, (300, 200) if seed % 2 else (200, 420)) for seed in range(8)]
    words = ["a photo of a dog", "Ein Haus am See, 1999!", "x"]
    with torch.inference_mode():
        seen = F.normalize(theirs.encode_image(torch.stack([transform(one) for one in pictures])), dim=1)
        said = F.normalize(theirs.encode_text(open_clip.get_tokenizer("Tiny-16")(words)), dim=1)
    model = bind.load("clip-tiny16", weights=tiny)
    vectors = model.embed(pictures, "image").vectors
    assert (vectors * seen.numpy()).sum(1).min() > 0.99999
    assert (model.embed(words, "text").vectors * said.numpy()).sum(1).min() > 0.99999
    np.testing.assert_array_equal(vectors, model.embed(pictures, "image").vectors)
    alone = np.concatenate([model.embed([one], "image").vectors for one in pictures])
    np.testing.assert_allclose(alone, vectors, atol=1e-5)
    others = bind.load("clip-tiny16", weights=tiny).space
    beside(tiny, KINDS["siglip" if kind != "siglip" else "clip"], quick_gelu)
    wrong = bind.load("clip-tiny16", weights=tiny)
    assert wrong.space != model.space == others
    assert (wrong.embed(pictures, "image").vectors * seen.numpy()).sum(1).min() < 0.9999


def test_the_activation_is_part_of_the_space(tiny: Path) -> None:
    beside(tiny, KINDS["clip"])
    plain = bind.load("clip-tiny16", weights=tiny)
    beside(tiny, KINDS["clip"], quick_gelu=True)
    quick = bind.load("clip-tiny16", weights=tiny)
    assert plain.space != quick.space
    pictures = [picture(1)]
    assert (plain.embed(pictures).vectors * quick.embed(pictures).vectors).sum() < 0.99999


def test_a_file_whose_settings_nothing_tells_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"")
    with pytest.raises(
        ValueError, match=rf"different ways.*{CONFIG}.*clip-ViT-B-32:laion2b_e16 or clip-ViT-B-32:openai"
    ):
        openclip.settings("ViT-B-32", file=file)
    with pytest.raises(ValueError, match="different ways"):
        bind.load("clip-vit-b-32", weights=file)
    assert openclip.settings("ViT-B-16-SigLIP", file=file).resize_mode == "squash"  # all published ones agree
    (tmp_path / CONFIG).write_text("[]")
    with pytest.raises(ValueError, match="expected model_cfg and preprocess_cfg"):
        openclip.settings("ViT-B-32", file=file)
    (tmp_path / CONFIG).write_text(json.dumps({"model_cfg": {}, "preprocess_cfg": {"resize_mode": "longest"}}))
    with pytest.raises(ValueError, match=r"longest.* not supported"):
        openclip.settings("ViT-B-32", file=file)


def test_weights_have_to_be_named() -> None:
    with pytest.raises(ValueError, match=r"say which weights.*published are webli"):
        bind.load("clip-vit-b-16-siglip")
    with pytest.raises(ValueError, match=r"no weights 'nope'; known: openai"):
        bind.load("clip-vit-b-32:nope")
    with pytest.raises(ValueError, match=r"no weights 'nope'; known: openai"):
        bind.load("clip-vit-b32", weights="nope")
