"""The encoders of depth and thermal, and the dimensions of layout, on features that are drawn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bind import description, heads
from bind.encoders.efficientnet import EfficientNet
from bind.model.model import BindModel
from bind.model.towers import Tower
from train.small import layout, sensors
from train.small.sensor_heads import contrasts


def test_grey_keeps_range_and_differs() -> None:
    photographs = torch.rand(12, 3, 30, 30, generator=torch.Generator().manual_seed(0))
    grey = sensors.as_grey(photographs, torch.Generator().manual_seed(1))
    assert grey.shape == (12, 1, 30, 30)
    assert grey.min() >= 0
    assert grey.max() <= 1
    assert not torch.equal(grey, sensors.as_grey(photographs, torch.Generator().manual_seed(2)))


def test_layout_takes_the_directions_that_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(600, 200, generator=generator)

    def side(mixture: Tensor) -> Tensor:
        own = 3 * torch.randn(600, 200, generator=generator)
        return torch.cat([shared @ mixture, own], 1)

    mixture = torch.randn(200, 200, generator=generator) / 14
    first, second = side(mixture), side(mixture)
    directions = layout.agreeing(first, second)
    assert directions.shape == (400, layout.LAID_OUT)
    energy = directions.square().sum(1)
    assert energy[:200].sum() > 5 * energy[200:].sum()  # what both sides share, not what is loudest


def pictures_and_words() -> BindModel:
    """A space of pictures, with a gated head and quarters, and of words."""
    encoder = {"module": "efficientnet", "model": "tf_efficientnet_lite0", "outputs": ["pooled", "quarters"]}
    table: dict[str, Any] = {
        "format": 1,
        "name": "layout",
        "dim": 384,
        "license": "none",
        "modalities": {
            "image": {"encoder": encoder, "head": {"type": "gated", "gated": 10}},
            "text": {"encoder": {"module": "sentence"}, "head": {"type": "linear"}},
        },
    }
    torch.manual_seed(0)
    trunk = EfficientNet("tf_efficientnet_lite0", ("pooled", "quarters"))
    towers = {
        "image": Tower(trunk, heads.build({"type": "gated", "gated": 10}, trunk.width, 384)),
        "text": Tower(nn.Identity(), nn.Linear(20, 384, bias=False)),
    }
    return BindModel(description.parse(table, "layout"), towers, {"image": "0", "text": "0"}).requires_grad_(False)


def test_layout_has_its_share_and_leaves_texts_their_order() -> None:
    space = pictures_and_words()
    width, generator = sensors.QUARTERED, torch.Generator().manual_seed(0)
    quarters = torch.randn(300, 150, generator=generator) @ torch.randn(150, width, generator=generator)
    photographs = torch.cat([torch.randn(300, 1280, generator=generator), quarters], 1)
    tone = 3 * torch.randn(1, width // 4, generator=generator).repeat_interleave(4, 1)  # of another camera
    changed = layout.with_layout(space, photographs, quarters + tone)
    head = changed.tower("image").head
    vectors = F.normalize(head(photographs), dim=1)
    shares = vectors[:, -layout.LAID_OUT :].square().sum(1)
    torch.testing.assert_close(shares, torch.full_like(shares, layout.SHARE))
    shifted = torch.cat([photographs[:, :1280], quarters + tone], 1)
    seen, other = head(photographs)[:, -layout.LAID_OUT :], head(shifted)[:, -layout.LAID_OUT :]
    torch.testing.assert_close(seen, other, atol=1e-4, rtol=1e-3)  # a tone is the same in all quarters
    words = changed.tower("text").head.weight.T
    assert not words[:, -layout.LAID_OUT :].any() and words[:, : -layout.LAID_OUT].any()
    before = F.normalize(space.tower("image").head(photographs)[:, : -layout.LAID_OUT], dim=1)
    asked = space.tower("text").head.weight.T[:, : -layout.LAID_OUT]
    assert torch.equal((vectors @ words.T).argsort(0), (before @ asked.T).argsort(0))
    assert changed.space != space.space
    assert changed.description.modalities["image"].head == {"type": "gated", "gated": 10, "split": 128, "share": 0.25}
    with pytest.raises(ValueError, match="200 photographs"):
        layout.with_layout(space, photographs[:100], quarters[:100])


def test_a_folded_head_takes_features_as_they_are() -> None:
    head = nn.Linear(1280 + sensors.QUARTERED, 8).requires_grad_(False)
    features = torch.randn(4, 1280 + sensors.QUARTERED, generator=torch.Generator().manual_seed(0))
    of_contrasts = torch.cat([features[:, :1280], contrasts(features[:, 1280:])], 1)
    wanted = head(of_contrasts)
    assert not torch.allclose(head(features), wanted, atol=1e-3)
    torch.testing.assert_close(sensors.folded(head)(features), wanted, atol=1e-4, rtol=1e-4)
