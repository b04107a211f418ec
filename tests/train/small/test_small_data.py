"""Which real data sets are found in a folder, which are left out and why, and that folds never split a group."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from preprocess import manifest
from train.small import data
from train.small.data import PARTS, datasets, find

LICENSES = {"wisdm-train": "CC BY 4.0", "sisfall-train": "not stated", "rgbd-real": "by group; lab: MIT"}


def write(
    folder: Path, name: str, entries: Sequence[dict[str, Any]], license: str = "CC0", file: str = "", **header: Any
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    manifest.write(folder / (file or f"{name}.jsonl"), {"name": name, "license": license, **header}, entries)


def rows(count: int, groups: int | None = None, prefix: str = "r") -> list[dict[str, Any]]:
    return [
        {"id": f"{prefix}{i}", "text": f"text {i}"} | ({"group": f"g{i % groups}"} if groups else {})
        for i in range(count)
    ]


def test_sets_are_found_by_the_name_in_the_header_wherever_they_lie(tmp_path: Path) -> None:
    write(tmp_path / "a/b", "wisdm-train", rows(4), file="whatever.jsonl")
    write(tmp_path, "wisdm51-test", rows(3))
    write(tmp_path, "esc10-fold1", rows(2, prefix="x"), classes=["rain", "dog"])
    write(tmp_path, "esc10-fold2", rows(2, prefix="y"), classes=["rain", "clock"])
    (tmp_path / "other.jsonl").write_text('{"not": "a manifest"}\n')
    (tmp_path / "broken.jsonl").write_text("{\n")
    found = find(tmp_path)
    assert found.names == ("esc10", "wisdm")
    assert [len(found.events("wisdm", part)) for part in PARTS] == [4, 0, 3]
    joined = found.manifest("esc10")
    assert joined is not None and [event.id for event in joined.events] == ["x0", "x1", "y0", "y1"]
    assert joined.classes == ("rain", "dog", "clock")
    assert found.manifest("sisfall") is None
    with pytest.raises(KeyError):
        found.events("no such set")


def test_what_is_left_out_is_said_with_its_reason(tmp_path: Path) -> None:
    write(tmp_path, "unheard-of", rows(1))
    write(tmp_path, "wisdm-train", rows(2))
    write(tmp_path / "copy", "wisdm-train", rows(2))
    said = "\n".join(find(tmp_path).left_out)
    assert "unheard-of.jsonl: no data set" in said
    assert "wisdm-train.jsonl: copy/wisdm-train.jsonl is the manifest 'wisdm-train' already" in said
    assert "not in" in said and "flickr8k" in said and "wisdm," not in said.rsplit("not in", 1)[1]
    assert len(find(tmp_path).events("wisdm")) == 2
    with pytest.raises(NotADirectoryError, match="expected a folder"):
        find(tmp_path / "nowhere")


def test_free_takes_rows_whose_licence_is_stated_and_free(tmp_path: Path) -> None:
    for name, license in LICENSES.items():
        events = [entry | {"group": ("lab", "cup")[i % 2]} for i, entry in enumerate(rows(6))]
        write(tmp_path, name, events, license)
    assert set(find(tmp_path).names) == {"wisdm", "sisfall", "rgbd"}
    free = find(tmp_path, "free")
    assert set(free.names) == {"wisdm", "rgbd"}
    assert {event.group for event in free.events("rgbd")} == {"lab"} and len(free.events("rgbd")) == 3
    said = "\n".join(free.left_out)
    assert "sisfall-train.jsonl: licence of sisfall: not stated" in said
    assert "rgbd-real.jsonl: 3 of 6 rows" in said
    with pytest.raises(ValueError, match="expected one of all, free"):
        find(tmp_path, "cheap")  # type: ignore[arg-type]


def test_a_manifest_that_states_no_free_licence_is_not_free_whatever_it_is_called(tmp_path: Path) -> None:
    write(tmp_path, "wisdm-train", rows(2), license="CC BY-NC 4.0")
    assert find(tmp_path).names == ("wisdm",)
    assert find(tmp_path, "free").names == ()
    assert "CC BY-NC 4.0" in find(tmp_path, "free").left_out[0]


def test_the_table_is_sound() -> None:
    sets = datasets()
    patterns = [name for one in sets.values() for part in PARTS for name in getattr(one, part)]
    assert len(patterns) == len(set(patterns)), "a manifest belongs to one part of one set"
    for name, one in sets.items():
        assert one.train or one.test, name
        for terms in (one, *one.groups.values()):
            assert not terms.free or data._FREE.search(terms.license), (name, terms)
        for other in one.overlaps:
            assert name in sets[other].overlaps, f"{name} and {other} overlap both ways"


@pytest.mark.parametrize("k", [2, 5])
def test_folds_hold_out_every_row_once_and_split_no_group(tmp_path: Path, k: int) -> None:
    write(tmp_path, "esc10-fold1", rows(23, groups=9, prefix="x"))
    write(tmp_path, "urbansound-fold1", rows(31, groups=11, prefix="y"))
    write(tmp_path, "animals-train", rows(17))
    found = find(tmp_path)
    names = ("esc10", "urbansound", "animals")
    folds = list(found.folds(*names, k=k))
    assert len(folds) == k
    for name in names:
        held_out = [event.id for _, test in folds for event in test[name]]
        assert sorted(held_out) == sorted(event.id for event in found.events(name))
    for train, test in folds:
        for side, other in itertools.product(names, repeat=2):
            groups = {event.group for event in test[side]} - {""}
            assert not groups & {event.group for event in train[other]}, "one recording in two sets is one group"
        sizes = [sum(map(len, side.values())) for side in (train, test)]
        assert sum(sizes) == 71 and abs(sizes[1] - 71 / k) <= 3
    assert folds == list(found.folds(*names, k=k))


def test_a_set_published_in_folds_keeps_them(tmp_path: Path) -> None:
    for fold in (1, 2, 10):
        write(tmp_path, f"urbansound-fold{fold}", rows(3, prefix=f"fold{fold}-"))
    folds = list(find(tmp_path).folds("urbansound"))
    assert [{event.id.split("-")[0] for event in test["urbansound"]} for _, test in folds] == [
        {"fold1"},
        {"fold10"},
        {"fold2"},
    ]
    assert all(len(train["urbansound"]) == 6 for train, _ in folds)


def test_too_few_groups_for_folds_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "wisdm-train", rows(6, groups=1))
    with pytest.raises(ValueError, match="two or more, found 1"):
        list(find(tmp_path).folds("wisdm"))


def test_the_command_prints_sets_and_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "wisdm-train", rows(4))
    write(tmp_path, "sisfall-train", rows(4), license="not stated")
    monkeypatch.setattr("sys.argv", ["data", str(tmp_path), "free"])
    data.main()
    printed = capsys.readouterr()
    assert "| wisdm | 4, 0, 0 | imu, text | CC BY 4.0 |" in printed.out and "sisfall" not in printed.out
    assert "left out: sisfall-train.jsonl" in printed.err
