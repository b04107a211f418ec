"""The contract of every model of the zoo in every modality it has, and of every modality's SPEC."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import bind
from bind import modalities, zoo
from bind.model.model import BindModel

MODALITIES = tuple(modalities.specs())


def views(model: BindModel, modality: str, batch: int, count: int, seed: int = 0) -> torch.Tensor:
    """(B, K, *shape) random prepared views."""
    generator = torch.Generator().manual_seed(seed)
    shape = modalities.spec(modality).shape(model.config(modality))
    if modality == "text":
        words = np.array(["red", "car", "dog", "rain", "on", "the", "river", "old", "house", "two", "people", "sing"])
        chosen = words[torch.randint(len(words), (batch * count, 9), generator=generator).numpy()]
        rows = modalities.spec("text").prepare(np.array([" ".join(row) for row in chosen]), model.config("text"))
        return rows.view(batch, count, *shape)
    return torch.randn(batch, count, *shape, generator=generator)


PAIRS = [(name, modality) for name in zoo.names() for modality in zoo.describe(name).modalities]
every_pair = pytest.mark.parametrize(("random_model", "modality"), PAIRS, indirect=["random_model"], scope="session")


@every_pair
def test_rows_are_unit_float32(random_model: BindModel, modality: str) -> None:
    vectors = random_model.encode(modality, views(random_model, modality, 2, 2))
    assert vectors.shape == (2, random_model.dim)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2), rtol=0, atol=1e-5)


@every_pair
def test_batch_order_does_not_matter(random_model: BindModel, modality: str) -> None:
    x = views(random_model, modality, 3, 1)
    order = torch.tensor([2, 0, 1])
    straight, turned = random_model.encode(modality, x), random_model.encode(modality, x[order])
    torch.testing.assert_close(straight[order], turned, rtol=0, atol=1e-5)
    assert (straight - turned).abs().max() > 2e-5  # the three items do differ


@every_pair
def test_views_are_averaged_then_normalised(random_model: BindModel, modality: str) -> None:
    x = views(random_model, modality, 1, 3)
    single = torch.cat([random_model.encode(modality, x[:, k : k + 1]) for k in range(3)])
    expected = torch.nn.functional.normalize(single.mean(0, keepdim=True), dim=1)
    torch.testing.assert_close(random_model.encode(modality, x), expected, rtol=0, atol=1e-5)


@every_pair
def test_wrong_shape_names_the_right_one(random_model: BindModel, modality: str) -> None:
    x = views(random_model, modality, 1, 1)
    for wrong in (x[0], x[..., :-1], x[:, :0]):
        with pytest.raises(ValueError, match=rf"{modality}: expected \(B, K, "):
            random_model.encode(modality, wrong)


def test_saved_and_loaded_is_the_same_model(random_model: BindModel, tmp_path: Path) -> None:
    random_model.save(tmp_path / "model")
    loaded = bind.load(tmp_path / "model")
    assert (loaded.space, loaded.dim, loaded.modalities) == (
        random_model.space,
        random_model.dim,
        random_model.modalities,
    )
    for modality in loaded.modalities:
        x = views(loaded, modality, 1, 1)
        # Not bit for bit: mapped weights may be aligned otherwise, and then take another kernel.
        torch.testing.assert_close(loaded.encode(modality, x), random_model.encode(modality, x), rtol=0, atol=1e-6)
    part = bind.load(tmp_path / "model", modalities=["image"])
    assert part.modalities == ("image",)
    assert part.space == loaded.space


@every_pair
def test_bfloat16_stays_close(random_model: BindModel, modality: str) -> None:
    import copy

    x = views(random_model, modality, 2, 1)
    half = copy.deepcopy(random_model).to(torch.bfloat16).encode(modality, x)
    assert half.dtype == torch.float32
    assert (half * random_model.encode(modality, x)).sum(1).min() > 0.99


def test_says_what_it_has_no_encoder_for(random_model: BindModel) -> None:
    for modality in set(MODALITIES) - set(random_model.modalities):
        with pytest.raises(ValueError, match=f"no encoder for {modality} yet"):
            random_model.config(modality)


@pytest.mark.parametrize("name", MODALITIES)
def test_spec_is_complete(name: str) -> None:
    spec = modalities.spec(name)
    config = spec.config()
    assert all(isinstance(size, int) and size > 0 for size in spec.shape(config))
    assert spec.anchor is None or spec.anchor in MODALITIES
    assert spec.families
    assert spec.default_for <= spec.families


def test_the_seven_are_there() -> None:
    assert {"image", "text", "video", "audio", "depth", "thermal", "imu"} <= set(MODALITIES)


def test_default_content_is_claimed_once() -> None:
    claims = [family for spec in modalities.specs().values() for family in spec.default_for]
    assert len(claims) == len(set(claims))


def test_imagebind_has_every_modality() -> None:
    assert set(zoo.describe("imagebind-huge").modalities) == set(MODALITIES)


def test_unit_rows_of_real_values(random_model: BindModel) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    found = random_model.embed([picture, picture[::-1]], modality="image")
    assert found.space == random_model.space
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
