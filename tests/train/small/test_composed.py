"""Composed queries: ranks and shares are what they say, galleries show what they should, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image, ImageDraw

import bind
from bind.model.model import BindModel
from bind.space import unit
from preprocess import manifest
from preprocess.source import Source
from train.small import composed
from train.small.composed import Pictures, Task, choose, measure
from train.small.splits import Side, key, side


def random(count: int, seed: int, dim: int = 64) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((count, dim)))


def pairs(sign: float = 1.0, shuffled: bool = False, count: int = 40, shown: int = 8) -> Task:
    """Pictures that are the sums of what they show: two things each, each thing in `shown` of them.

    To take away: the scenes A and B, with a third thing, and A alone, which is asked for.
    """
    a, b, c = (random(count, seed) for seed in range(3))
    rows = np.array([(n, (n + shift) % count) for shift in range(shown) for n in range(count)])
    both = unit(a[rows[:, 0]] + b[rows[:, 1]])
    gallery, first, second, target, hidden = (
        both,
        a[rows[:, 0]],
        b[rows[:, 1]],
        np.arange(len(rows)),
        rows[:, 0] * 0 - 1,
    )
    if sign < 0:
        gallery = np.concatenate([both, unit(a + b + c), a])
        rows, first, second, hidden = rows[:count], both[:count], b, np.arange(count)
        target = len(gallery) - count + np.arange(count)
    if shuffled:
        target = np.random.default_rng(9).permutation(target)
    return Task("", first, second, gallery, target, hidden, tuple(rows.T), sign)


def test_ranks_count_ties_and_leave_out_what_is_hidden() -> None:
    x, y = np.eye(2, dtype=np.float32)
    gallery = np.stack([x, x, unit([[1, 1]])[0], y])
    task = Task("", x[None], y[None], gallery, np.array([2]), np.array([-1]), (np.zeros(1),))
    assert task.ranks(np.stack([x])).tolist() == [2]
    assert task.ranks(np.stack([y])).tolist() == [1]
    assert Task("", x[None], y[None], gallery, np.array([2]), np.array([0]), ()).ranks(x[None]).tolist() == [1]
    assert Task("", x[None], y[None], gallery, np.array([0]), np.array([-1]), ()).ranks(x[None]).tolist() == [1]
    assert task.composed(1.0) == pytest.approx(unit([[1, 1]]))
    assert task.composed(0.5) == pytest.approx(unit([[1, 0.5]]))


@pytest.mark.parametrize("shown", [4, 24])
def test_what_sums_of_parts_reach_at_best(shown: int) -> None:
    """A part alone cannot tell its pictures apart, but one of them comes first: there, nothing can be better."""
    row = measure(pairs(shown=shown), 1.0)
    assert row.found[0] > 0.99
    assert row.higher == row.possible == pytest.approx((1 - 1 / shown) ** 2, abs=0.1)
    assert row.low <= row.higher <= row.high
    assert row.than_first == pytest.approx(1 - 1 / shown, abs=0.06)


def test_a_thing_is_taken_away() -> None:
    row = measure(pairs(-1.0), 1.0)
    assert row.higher == row.low == row.high == row.found[0] == 1


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_with_shuffled_targets_nothing_is_gained(sign: float) -> None:
    row = measure(pairs(sign, shuffled=True), 1.0)
    assert row.found[0] < 0.25
    assert sign < 0 or row.higher < 0.45  # 40 scenes are too few to tell 0.45 from 1 in 3


def test_intervals_are_wider_where_fewer_things_are_behind_the_queries() -> None:
    task = pairs()
    alone = Task("", task.first, task.second, task.gallery, task.target, task.hidden, (np.arange(len(task.target)),))
    few = Task("", task.first, task.second, task.gallery, task.target, task.hidden, (task.clusters[0] % 5,))
    width = [row.high - row.low for row in (measure(alone, 1.0), measure(few, 1.0))]
    assert 0.02 < width[0] < 0.2
    assert measure(few, 1.0).higher == measure(alone, 1.0).higher


def test_the_weight_is_the_one_that_wins() -> None:
    task = pairs()
    noisy = unit(0.15 * task.second + random(len(task.second), 5))
    weak = Task("", task.first, noisy, task.gallery, task.target, task.hidden, task.clusters)
    assert measure(weak, choose(weak)).higher == max(measure(weak, weight).higher for weight in composed.WEIGHTS)
    useless = Task("", task.first, random(len(noisy), 6), task.gallery, task.target, task.hidden, task.clusters)
    assert measure(useless, choose(useless)).higher < 0.6


@pytest.fixture(scope="module")
def model() -> BindModel:
    return bind.load("small", modalities=["image", "text", "audio"])


def drawing(number: int, size: int = 96) -> Image.Image:
    """A shape of its own colour on nothing."""
    rng = np.random.default_rng(number)
    picture = Image.new("RGBA", (size, size))
    colour = (*(int(v) for v in rng.integers(0, 200, 3)), 255)
    box = [10, 10, int(rng.integers(50, size)), int(rng.integers(50, size))]
    draw = ImageDraw.Draw(picture)
    draw.ellipse(box, colour) if number % 2 else draw.rectangle(box, colour)
    return picture


def test_vectors_of_made_pictures_are_those_of_the_model_and_features_are_kept(tmp_path: Path) -> None:
    model = bind.load("small", modalities=["image"])
    shown = [drawing(n).convert("RGB") for n in range(6)]
    made = []

    def make() -> Iterator[tuple[str, Image.Image]]:
        for number, picture in enumerate(shown):
            made.append(number)
            yield f"n{number}", picture

    def vectors(about: str) -> np.ndarray:
        found = Pictures(model, tmp_path).vectors(about, make)
        assert list(found) == [f"n{number}" for number in range(6)]
        return np.stack(list(found.values()))

    expected = model.embed([Source(picture, "") for picture in shown], "image").vectors
    np.testing.assert_allclose(vectors("six"), expected, atol=2e-3)
    # Another head, and nothing is made again.
    parameter = model.tower("image").head.get_parameter("linear.weight")
    parameter.copy_(parameter.roll(1, 0))
    assert np.abs(vectors("six") - expected).max() > 0.05
    assert made == list(range(6))
    vectors("others")
    assert len(made) == 12


def names(wanted: Side, start: str, count: int) -> list[str]:
    found = (f"{start}{n}x" for n in range(10_000))
    return [name for _, name in zip(range(count), (name for name in found if side(name) == wanted), strict=False)]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifests as train.small leaves them: a few things drawn and spoken."""
    root = tmp_path_factory.mktemp("out")
    emoji: list[dict[str, Any]] = []
    stamps: list[dict[str, Any]] = []
    spoken: list[dict[str, Any]] = []
    number = 0
    for wanted in ("validation", "test", "train"):
        for name in names(wanted, "face", 8):
            number += 1
            for hand in ("google", "twitter", "fluent"):
                drawing(number).save(root / f"{hand}{number}.png")
                event = {"id": f"{hand}/{number:x}", "image": {"path": f"{hand}{number}.png"}, "text": ["kw", name]}
                emoji.append(event | {"group": f"{number:x}"})
        for name in names(wanted, "stamp", 5):
            number += 1
            drawing(number).save(root / f"stamp{number}.png")
            noise = np.random.default_rng(number).normal(0, 0.1, 8000)
            soundfile.write(root / f"stamp{number}_desc.wav", noise, 16000)
            event = {"image": {"path": f"stamp{number}.png"}, "text": name, "group": name}
            stamps.append({"id": f"a/stamp{number}"} | event)
            stamps.append({"id": f"a/again{number}", "audio": {"path": f"stamp{number}_desc.wav"}} | event)
            for language in ("fr", "ca"):
                said = {"id": f"{number}-{language}", "audio": {"path": f"stamp{number}_desc.wav"}, "group": name}
                spoken.append(said | {"text": "mot"})
    dark = next(event for event in emoji if side(str(event["text"][1])) == "test")
    emoji.append(dark | {"id": "google/dark", "text": ["kw", f"{dark['text'][1]}: dark skin tone"]})
    shown = stamps[0] | {"id": "google/stamp", "text": ["kw", stamps[0]["group"]]}
    emoji += [shown, shown | {"id": "twitter/stamp"}]
    header = {"license": "CC0-1.0", "root": str(root)}
    for name, events in (("emoji", emoji), ("stamps", stamps), ("stamps-spoken", spoken)):
        manifest.write(root / f"{name}.jsonl", header | {"name": name}, events)
    return root


def test_what_a_side_holds(out: Path) -> None:
    for wanted in ("validation", "test"):
        things = composed.held(out, wanted)
        assert set(things.google) == set(things.twitter) == {key(name) for name in names(wanted, "face", 8)}
        assert set(things.stamps) == set(things.spoken) == {key(name) for name in names(wanted, "stamp", 5)}
        assert {len(events) for events in things.spoken.values()} == {2}
        assert all(event.id.startswith("google/") for event in things.google.values())
        assert not any("skin tone" in event.texts[-1] for event in things.google.values())


def test_pictures_stand_side_by_side(out: Path) -> None:
    scene = composed.side_by_side(Source.from_path(out / "google1.png"), Source.from_path(out / "google2.png"))
    left, right = (np.asarray(scene)[56:168, start : start + 112] for start in (0, 112))
    for half, number in ((left, 1), (right, 2)):
        on_white = Image.new("RGBA", (96, 96), "white")
        on_white.alpha_composite(drawing(number))
        expected = np.asarray(on_white.convert("RGB").resize((112, 112), Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(half - expected).mean() < 4
    assert (np.asarray(scene)[:56] == 255).all() and (np.asarray(scene)[168:] == 255).all()


def test_each_a_and_b_stand_in_as_many_pictures_and_both_in_one(
    model: BindModel, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composed, "_SHOWN", 3)
    tasks = list(composed.beside(model, Pictures(model, tmp_path), composed.held(out, "test")))
    assert [len(task.gallery) for task in tasks] == [12] * 5
    # Two recordings of each stamp's name, then both at once, and one effect.
    assert [len(task.target) for task in tasks] == [12, 12, 24, 12, 12]
    for row, together in zip(tasks[3].target, tasks[3].second, strict=True):
        np.testing.assert_allclose(together, unit(tasks[2].second[tasks[2].target == row].mean(0)[None])[0], atol=1e-6)
    for task in tasks:
        a, b = task.clusters
        shown = set(zip(task.target.tolist(), a.tolist(), b.tolist(), strict=True))
        assert len(shown) == len({(x, y) for _, x, y in shown}) == 12
        for part in (1, 2):
            assert set(Counter(row[part] for row in shown).values()) == {3}
        # One A has one picture, whatever the B; the second part belongs to B alone.
        for number in range(4):
            assert np.ptp(task.first[a == number], axis=0).max() < 1e-5
    assert np.ptp(tasks[0].second[tasks[0].clusters[1] == 1], axis=0).max() < 1e-5
    assert measure(tasks[0], 1.0).gallery == 12


def test_a_cut_out_is_a_white_square_that_just_holds_the_thing() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 200, (40, 60, 3), np.uint8))
    kept = np.zeros((40, 60), bool)
    kept[10:14, 20:50] = True
    kept[12, 30] = False
    cut = np.asarray(composed.cut_out(picture, kept))
    assert cut.shape == (30 + 12, 30 + 12, 3)
    expected = np.where(kept[10:14, 20:50, None], np.asarray(picture)[10:14, 20:50], 255)
    np.testing.assert_array_equal(cut[19:23, 6:36], expected)
    rest = cut.copy()
    rest[19:23, 6:36] = 255
    assert (rest == 255).all()


def test_scenes_less_a_thing(tmp_path: Path, model: BindModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composed, "_ROOMS", 2)
    shots = dict(composed._shots(range(17, 20)))
    (room, other) = dict.fromkeys(int(name.split()[0]) for name in shots)
    assert {room % 20, other % 20} <= {17, 18, 19}
    for number in (room, other):
        mine = {name: np.asarray(shot).astype(int) for name, shot in shots.items() if name.split()[0] == str(number)}
        subsets = {name.partition(" ")[2]: shot for name, shot in mine.items() if " less " not in name}
        whole = max(subsets, key=len)
        things = whole.split("+")
        assert len(subsets) == 2 ** len(things) and len(mine) == len(subsets) + 2
        x, y = things[:2]
        # The scene changes where Y was, and only there.
        gone = np.abs(subsets[f"{x}+{y}"] - subsets[x]).max(2) > 12
        assert 0.01 <= gone.mean() <= 0.6
        cut = mine[f"{number} {x}+{y} less {y}"]
        assert (cut[:6] == 255).all() and (cut < 250).any()
    tasks = list(composed.less(model, Pictures(model, tmp_path), "test"))
    assert [task.sign for task in tasks] == [-1, -1]
    for task in tasks:
        assert len(task.gallery) == sum(" less " not in name for name in shots) and len(task.target) == 4
        np.testing.assert_allclose(task.gallery[task.hidden], task.first)
        assert (task.target != task.hidden).all() and len(set(task.target.tolist())) == 4


def test_the_whole_table(out: Path, model: BindModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composed, "_ROOMS", 1)
    found = list(composed.rows(model, out))
    titles = list(dict.fromkeys(row.name for row in found))
    assert len(titles) == 7 and len(found) >= 7
    for row in found:
        assert row.low <= row.higher <= row.high
        assert str(row).count("|") == composed.HEADER.splitlines()[0].count("|")
    assert {row.weight for row in found if row.name == titles[0]} >= {1.0}
