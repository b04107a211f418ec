"""The sides of names."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from preprocess import manifest
from train.small import splits


@pytest.mark.parametrize(
    "twins",
    [
        ("A frog.", "frogs", "the frog", "Frog"),
        ("man running", "woman running: dark skin tone", "person running", "running, dark skin tone"),
        ("flag: France", "Mexico Flag", "white flag"),
        ("one o'clock", "eight-thirty", "ten oclock"),
        ("kiss: woman, man", "kiss"),
    ],
)
def test_twins_share_a_side(twins: tuple[str, ...]) -> None:
    assert len({splits.key(name) for name in twins}) == 1
    assert len({splits.side(name) for name in twins}) == 1


def test_different_things_have_different_keys() -> None:
    names = ["cat", "cat face", "man", "glass", "gla", "7", "!?", "kissing cat"]
    assert len({splits.key(name) for name in names}) == len(names)


def test_shares_are_those_meant_and_never_change() -> None:
    count = Counter(splits.side(f"thing number {number}") for number in range(20_000))
    shares = [count[one] / 20_000 for one in splits.SIDES]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.01)
    # Frozen: the shipped model must never have seen what is called held out.
    assert [splits.side(name) for name in ("A frog.", "airplane", "penguin", "volcano")] == FROZEN


FROZEN = ["train", "test", "test", "test"]


def test_folds_are_fifths_and_the_first_is_the_test_side() -> None:
    names = [f"thing number {number}" for number in range(5000)]
    count = Counter(map(splits.fold, names))
    assert [count[number] / 5000 for number in range(splits.FOLDS)] == pytest.approx([0.2] * 5, abs=0.02)
    assert all((splits.fold(name) == 0) == (splits.side(name) == "test") for name in names)
    assert all(splits.fold(name) == 1 for name in names if splits.side(name) == "validation")


def test_written_manifests_are_disjoint_and_whole(tmp_path: Path) -> None:
    events = [{"id": str(n), "text": [f"thing {n % 50}"], "group": "1f44b-200d" if n % 2 else ""} for n in range(200)]
    manifest.write(tmp_path / "all.jsonl", {"name": "all", "license": "CC0-1.0", "root": "."}, events)
    counts = splits.write(tmp_path / "all.jsonl", tmp_path / "out")
    assert sum(counts.values()) == 200 and set(counts) == set(splits.SIDES)
    names: list[set[str]] = []
    for one in splits.SIDES:
        part = manifest.read(tmp_path / "out" / f"all-{one}.jsonl")
        assert part.root == tmp_path.resolve()
        assert len(part.events) == counts[one]
        names.append({event.texts[0] for event in part.events})
    assert not names[0] & names[1] and not names[0] & names[2] and not names[1] & names[2]


def test_an_emojis_code_is_no_name() -> None:
    event = {"id": "google/1f44b", "text": ["waving hand sign", "waving hand"], "group": "1f44b"}
    assert splits.name_of(event) == "waving hand"
    assert splits.name_of(event | {"group": "A bee."}) == "A bee."
    assert splits.name_of(json.loads('{"id": "x"}')) == "x"
