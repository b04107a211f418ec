"""Training of the motion encoder on movements that are computed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from preprocess.manifest import Event
from preprocess.source import Hints, Source
from train.small import motion

CLASSES = ("waving", "shaking", "resting")


def event(label: str, person: int, take: int) -> Event:
    rng = np.random.default_rng([person, take, CLASSES.index(label)])
    time_s = np.arange(400) / 50
    hertz, strength = {"waving": (1.0, 4.0), "shaking": (4.0, 4.0), "resting": (1.0, 0.0)}[label]
    values = 0.2 * rng.standard_normal((400, 6))
    values[:, 2] += 9.81
    values[:, 0] += strength * np.sin(2 * math.pi * hertz * (1 + 0.05 * person) * time_s)
    values[:, 4] += 0.5 * strength * np.cos(2 * math.pi * hertz * time_s)
    source = Source(values.astype(np.float32), f"{label}{person}", Hints(rate_hz=50.0))
    return Event(f"{label}-{person}-{take}", {"imu": source}, (f"a person {label}",), (label,), f"person {person}")


@pytest.fixture(scope="module")
def recordings() -> motion.Recordings:
    events = [event(label, person, take) for person in range(5) for take in range(3) for label in CLASSES]
    return motion.read("computed", events, CLASSES, ("a person {}",))


def vectors(recordings: motion.Recordings) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    texts = sorted({text for said in recordings.texts for text in said})
    return {text: F.normalize(torch.randn(24, generator=generator), dim=0) for text in texts}


def test_movements_of_people_never_met_are_named(
    recordings: motion.Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(motion, "_STEPS", 60)
    said = vectors(recordings)
    kept = motion.bank([recordings], variants=2)
    right = motion.folds([recordings], kept, said, 24)["computed"]
    assert right.float().mean() > 0.9
    # Control: labels that say nothing are learned by nobody.
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(len(recordings.label), generator=generator)
    mixed_up = replace(recordings, label=recordings.label[order])
    wrong = motion.folds([mixed_up], replace(kept, place=mixed_up.label[mixed_up.row]), said, 24)["computed"]
    assert wrong.float().mean() < 0.6


def test_a_group_is_never_on_both_sides(recordings: motion.Recordings) -> None:
    fold = motion._fold_of(recordings.group, 5)
    for number in range(5):
        inside = {group for group, of in zip(recordings.group, fold.tolist(), strict=True) if of == number}
        outside = {group for group, of in zip(recordings.group, fold.tolist(), strict=True) if of != number}
        assert inside and not inside & outside


def test_worn_otherwise_keeps_what_is_missing(recordings: motion.Recordings) -> None:
    x = recordings.windows[:16].clone()
    x[:8, 3:] = 0
    varied = motion.worn_otherwise(x, torch.Generator().manual_seed(0))
    assert varied.shape == x.shape
    assert varied.isfinite().all()
    assert not varied[:8, 3:].any()  # no gyroscope appears
    assert varied[8:, 3:].flatten(1).any(1).sum() >= 4  # and some have lost theirs, not all
    assert (varied[:, :3] - x[:, :3]).abs().mean() > 0.05
    gravity = varied[:, :3].mean(2).norm(dim=1)
    assert ((gravity > 8) | (gravity < 2)).all()  # turned, or taken out


def test_rotations_are_rotations() -> None:
    matrices = motion._rotations(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(matrices @ matrices.mT, torch.eye(3).expand(5, 3, 3), rtol=0, atol=1e-5)
    assert (torch.linalg.det(matrices) > 0).all()


def test_intervals_hold_the_share() -> None:
    right = torch.tensor([True, False, True, True] * 5)
    low, high = motion.interval(right, [str(row // 4) for row in range(20)])
    assert low <= 0.75 <= high
