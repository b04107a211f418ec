"""Encoders that are added to a model: what stays keeps its identity, what is replaced does not."""

from __future__ import annotations

import copy
from pathlib import Path

import bind
from bind import checkpoint
from train.small.widening import widened


def test_a_replaced_encoder_makes_another_space(tmp_path: Path) -> None:
    space = bind.load("small")
    tower = copy.deepcopy(space.tower("imu"))
    for weight in tower.parameters():
        weight.data *= 2
    table = space.description.modalities["imu"]
    description, towers = widened(space, {"imu": table}, {"imu": tower}, [("text", "imu")])
    assert towers["imu"] is tower
    assert set(towers) == set(space.modalities)
    assert description.trained == space.description.trained
    checkpoint.write(tmp_path / "model", description, towers)
    found = bind.load(tmp_path / "model")
    kept = {name: digest for name, digest in space.digests.items() if name != "imu"}
    assert {name: digest for name, digest in found.digests.items() if name != "imu"} == kept
    assert found.digests["imu"] != space.digests["imu"]
    assert found.space != space.space
