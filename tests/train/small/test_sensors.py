"""The heads of depth and thermal, and the dimensions of layout, on features that are drawn."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from train.small import layout, sensors
from train.small.sensors import Part

W, D = 40, 16


def drawn(name: str, kind: str, count: int, seed: int, *, offset: float = 0.0, related: bool = True) -> Part:
    """Rows whose features are a linear mixture of their targets, with an offset of the camera and noise."""
    generator = torch.Generator().manual_seed(seed)
    mixture = torch.randn(D, W, generator=torch.Generator().manual_seed(99))
    targets = torch.randn(count, D, generator=generator)
    targets[:, 0] += 8  # what all pictures have in common
    source = targets if related else torch.randn(count, D, generator=generator)
    features = (source - source.mean(0)) @ mixture + 0.5 * torch.randn(count, W, generator=generator) + offset
    groups = tuple(f"{name}{row % 10}" for row in range(count))
    return Part(name, kind, features, F.normalize(targets, dim=1), (name,) * count, groups)


def recall_at_1(head: torch.nn.Linear, part: Part) -> float:
    scores = F.normalize(head(part.features), dim=1) @ part.targets.T
    return float((scores.argmax(1) == torch.arange(len(scores))).float().mean())


def test_a_head_finds_pictures_of_another_camera() -> None:
    parts = [drawn("photographs", "photographs", 200, 0), drawn("pairs", "pairs", 60, 1, offset=3.0)]
    unseen = drawn("unseen", "pairs", 60, 2, offset=1.5)
    assert recall_at_1(sensors.fit(parts), unseen) > 0.7
    # Control: features that say nothing of the pictures teach nothing.
    unrelated = [drawn("photographs", "photographs", 200, 0, related=False)]
    assert recall_at_1(sensors.fit(unrelated), unseen) < 0.2


def test_folds_never_train_on_the_group_they_test() -> None:
    # Each group has a code of its own in the features; only who trained on the group can use it.
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(10, W, generator=generator)
    rows = torch.arange(100) % 10
    targets = F.normalize(torch.randn(10, D, generator=generator), dim=1)[rows]
    features = codes[rows] + 0.01 * torch.randn(100, W, generator=generator)
    groups = tuple(str(row) for row in rows.tolist())
    told = Part("told", "described", features, targets, ("told",) * 100, groups)
    assert recall_by_text(sensors.fit([told]), told) == 1
    parts = [told, drawn("photographs", "photographs", 100, 3)]
    found = sensors.measured(parts, {"told": told.group})
    assert found["told"]["R@1"] < 0.3
    assert found["told"]["chance@10"] == 1


def recall_by_text(head: torch.nn.Linear, part: Part) -> float:
    return sensors.recalls(part, F.normalize(head(part.features), dim=1))["R@1"]


def test_places_seen_again_and_again_are_told_apart_from_within() -> None:
    part = drawn("rooms", "pairs", 20, 4)
    part = Part("rooms", "pairs", part.features, part.targets, ("a",) * 10 + ("b",) * 10, part.group)
    found = sensors.recalls(part, part.targets)
    assert found["a R@1"] == found["b R@1"] == 1
    assert found["a chance@10"] == 1


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
