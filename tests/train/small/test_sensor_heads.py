"""The heads of depth and thermal on features that are drawn."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from train.small import sensor_heads
from train.small.sensor_heads import Part

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
    assert recall_at_1(sensor_heads.fit(parts), unseen) > 0.7
    # Control: features that say nothing of the pictures teach nothing.
    unrelated = [drawn("photographs", "photographs", 200, 0, related=False)]
    assert recall_at_1(sensor_heads.fit(unrelated), unseen) < 0.2


def test_folds_never_train_on_the_group_they_test() -> None:
    # Each group has a code of its own in the features; only who trained on the group can use it.
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(10, W, generator=generator)
    rows = torch.arange(100) % 10
    targets = F.normalize(torch.randn(10, D, generator=generator), dim=1)[rows]
    features = codes[rows] + 0.01 * torch.randn(100, W, generator=generator)
    groups = tuple(str(row) for row in rows.tolist())
    told = Part("told", "described", features, targets, ("told",) * 100, groups)
    assert recall_by_text(sensor_heads.fit([told]), told) == 1
    parts = [told, drawn("photographs", "photographs", 100, 3)]
    found = sensor_heads.measured(parts, {"told": told.group})
    assert found["told"]["R@1"] < 0.3
    assert found["told"]["chance@10"] == 1


def recall_by_text(head: torch.nn.Linear, part: Part) -> float:
    return sensor_heads.recalls(part, F.normalize(head(part.features), dim=1))["R@1"]


def test_places_seen_again_and_again_are_told_apart_from_within() -> None:
    part = drawn("rooms", "pairs", 20, 4)
    part = Part("rooms", "pairs", part.features, part.targets, ("a",) * 10 + ("b",) * 10, part.group)
    found = sensor_heads.recalls(part, part.targets)
    assert found["a R@1"] == found["b R@1"] == 1
    assert found["a chance@10"] == 1


def test_contrasts_forget_what_all_quarters_share() -> None:
    quarters = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    tone = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)).repeat_interleave(4, 1)
    found = sensor_heads.contrasts(quarters)
    torch.testing.assert_close(sensor_heads.contrasts(quarters + tone), found)
    torch.testing.assert_close(found.unflatten(1, (3, 4)).sum(2), torch.zeros(5, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(sensor_heads.contrasts(found), found)
    assert not torch.allclose(found, quarters)
