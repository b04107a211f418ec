"""Queries of two parts, on held-out names: picture plus name, picture plus sound, a scene less one of its things.

    python -m train.small.composed OUT [MODEL]      # OUT as `train.small` leaves it; MODEL is `small` unless said

prints, for each form, how often the composed query ranks its target higher than either part alone does. How much the
second part counts is chosen on the validation side; the figures are those of the test side. The features of composed
pictures are kept in OUT/composed.

*Picture plus B*: A is an emoji, its picture Google's; B is an emoji's name, or the caption, a recording or the sound
effect of a stamp. The target shows A as Twitter drew it beside B (Twitter's, or the stamp). Each A and each B stands in
16 pictures of the gallery, both in one only; every picture of the gallery is asked for. Even where each picture is the
very sum of its parts, A alone finds the right one of S first in 1 of S cases, by luck, and so does B: at best
((S - 1) / S)^2 of the queries are better than both, 0.88 where S is 16, 0.77 where it is 8.

*Scene less Y*: in a simulated scene three or four things can be seen well. The query is the picture with only the two
largest of them, X and Y, less Y: cut out on white, or its name. The target is the picture with only X, of the same
place, camera and light. The gallery holds the pictures with every subset of the things (none, X, Y, Z, X and Z, ...,
all) of all scenes; the query's own picture is left out.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, combinations, count
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tqdm import tqdm

import bind
from bind import combine, modalities
from bind.model.model import BindModel
from bind.model.pooling import mean_of_views
from bind.space import Embeddings, unit
from data_manifests.simulation.motion import MIDDLE_S
from data_manifests.simulation.render import Stage, photograph, prominent
from data_manifests.simulation.scenes import Scene, draw
from preprocess import manifest
from preprocess.manifest import Event
from preprocess.source import Limits, Source
from train.small.hearing import embed
from train.small.splits import Side, key, side

WEIGHTS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
"""How much the second part may count; the one that wins on the validation side is taken."""
_NAMES, _SHOWN = 100, 16
"""A's, at most, and in how many pictures of the gallery each stands."""
_ROOMS, _LEAST, _MOST = 60, 0.02, 4
"""Scenes, at most, the share of the picture that each of their things covers, and how many of these count."""
_PLACES: dict[Side, range] = {"validation": range(16, 17), "test": range(17, 20)}
"""Numbers of scenes modulo 20, as in the data set `simulated`: rendered anew, none of them was trained on."""
_SEED, _LESS = 0, " less "
"""The seed of the scenes, and what stands between the names of a scene and of the thing that it lacks."""
_SIZE, _MARGIN = (256, 192), 6
"""Pixels (width, height) of a scene, and those around a thing that is cut out."""
_AT_ONCE = 4
"""Pictures that are encoded at once, which bounds the memory of a run on a CPU."""
_RESAMPLES = 2000
"""Bootstrap samples (over things) for an interval of 95 %."""
K = 10


@dataclass(frozen=True, eq=False)
class Task:
    """Queries `first` + weight * `sign` * `second`, both (Q, D) unit rows, against `gallery` (G, D).

    `target` (Q,) is the row asked for, `hidden` (Q,) the row that does not count, -1 for none. `clusters` are arrays
    (Q,) of numbers: queries of one number rise and fall together, so numbers are what intervals draw anew.
    """

    name: str
    first: np.ndarray
    second: np.ndarray
    gallery: np.ndarray
    target: np.ndarray
    hidden: np.ndarray
    clusters: tuple[np.ndarray, ...]
    sign: float = 1.0

    def ranks(self, queries: np.ndarray) -> np.ndarray:
        """(Q, D) -> how many pictures stand before the target; those of the same score do."""
        found = np.empty(len(queries), np.int64)
        for start in range(0, len(queries), 1024):
            rows = np.arange(start, min(start + 1024, len(queries)))
            cosines = queries[rows] @ self.gallery.T
            here = np.arange(len(rows))
            before = cosines >= cosines[here, self.target[rows]][:, None]
            before[here, self.target[rows]] = False
            hidden = self.hidden[rows]
            before[here[hidden >= 0], hidden[hidden >= 0]] = False
            found[rows] = before.sum(1)
        return found

    def composed(self, weight: float) -> np.ndarray:
        """The queries (Q, D), by the arithmetic that users have."""
        pairs = np.stack([self.first, self.second], 1)
        return np.stack([combine(Embeddings(pair, "composed"), [1, self.sign * weight]).vectors[0] for pair in pairs])


@dataclass(frozen=True)
class Row:
    """Shares of a task's queries, the second part taken `weight` times.

    `higher`: those whose target stands higher for both parts than for either alone, with its 95 % interval; chance is
    1 in 3. `possible`: those where it could, as neither part alone finds the target first. `than_first`, `than_second`:
    higher than for that part. `found`: recall@10 of both parts, of the first, of the second.
    """

    name: str
    weight: float
    queries: int
    gallery: int
    higher: float
    low: float
    high: float
    possible: float
    than_first: float
    than_second: float
    found: tuple[float, float, float]

    def __str__(self) -> str:
        shares = " | ".join(f"{share:.2f}" for share in (self.possible, self.than_first, self.than_second, *self.found))
        both = f"**{self.higher:.2f}** | {self.low:.2f} to {self.high:.2f}"
        return f"| {self.name} | {self.weight:g} | {self.queries:,} | {self.gallery:,} | {both} | {shares} |"


HEADER = (
    "| query | weight | queries | gallery | higher than both parts | 95 % | at best | than the first | than the second "
    "| recall@10 | of the first | of the second |\n" + "|---" * 12 + "|"
)
"""The first lines of the printed table."""


def measure(task: Task, weight: float) -> Row:
    """A task and the weight of the second part -> its row. A tie with a part counts as lost."""
    queries = (task.composed(weight), task.first, task.second)
    both, first, second = (task.ranks(rows) for rows in queries)
    higher = (both < first) & (both < second)
    rng = np.random.default_rng(0)
    draws = np.ones((_RESAMPLES, len(both)), np.float32)
    for numbers in task.clusters:
        _, cluster = np.unique(numbers, return_inverse=True)
        things = cluster.max() + 1
        draws *= rng.multinomial(things, np.full(things, 1 / things), _RESAMPLES)[:, cluster]
    low, high = np.nanpercentile((draws @ higher) / draws.sum(1), (2.5, 97.5))
    one, two, three = (float((ranks < K).mean()) for ranks in (both, first, second))
    return Row(
        task.name,
        weight,
        len(both),
        len(task.gallery),
        float(higher.mean()),
        float(low),
        float(high),
        float(((first > 0) & (second > 0)).mean()),
        float((both < first).mean()),
        float((both < second).mean()),
        (one, two, three),
    )


def choose(task: Task) -> float:
    """A task of the validation side -> the weight with which most composed queries are better than both parts."""
    return max(WEIGHTS, key=lambda weight: (measure(task, weight).higher, -abs(np.log(weight))))


class Pictures:
    """Made pictures -> vectors of `model`. Their features before the head are kept in `folder`, as float16."""

    def __init__(self, model: BindModel, folder: Path) -> None:
        self._config = model.config("image")
        self._tower = model.tower("image")
        self._trunk = [model.digests.get("image"), model.description.modalities["image"].encoder, asdict(self._config)]
        self._folder = folder

    def vectors(self, about: object, make: Callable[[], Iterator[tuple[str, Image.Image]]]) -> dict[str, np.ndarray]:
        """What is made (all that it depends on), and how: names with pictures -> the vector (D,) of each name.

        Made anew only where `about` or the trunk is another than before; remove the folder when the making changes.
        """
        identity = json.dumps([self._trunk, about], default=str)
        file = self._folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npz"
        if not file.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            aside = file.with_suffix(".part.npz")
            names, features = self._features(make())
            np.savez(aside, names=np.array(names), features=features)
            aside.replace(file)
        with np.load(file) as stored:
            names, views = stored["names"].tolist(), torch.from_numpy(stored["features"]).float()
        with torch.inference_mode():
            each = F.normalize(self._tower.head(views.flatten(0, 1)), dim=1)
            means = mean_of_views(each, [views.shape[1]] * len(views))
        return dict(zip(names, means.numpy(), strict=True))

    @torch.inference_mode()
    def _features(self, pictures: Iterator[tuple[str, Image.Image]]) -> tuple[list[str], np.ndarray]:
        """-> names and (N, K, width) features of the pictures' K views."""
        spec = modalities.spec("image")
        names: list[str] = []
        found: list[np.ndarray] = []
        waiting: list[torch.Tensor] = []

        def encode() -> None:
            if waiting:
                features = self._tower.encoder(torch.cat(waiting))
                found.append(features.unflatten(0, (len(waiting), -1)).numpy().astype(np.float16))
                waiting.clear()

        for name, picture in tqdm(pictures, unit="picture", delay=2, disable=None):
            (segment,) = spec.read(Source(picture, name), self._config, Limits(), "whole")
            names.append(name)
            waiting.append(spec.prepare(segment.views, self._config))
            if len(waiting) == _AT_ONCE:
                encode()
        encode()
        return names, np.concatenate(found)


@dataclass(frozen=True)
class Held:
    """What a side holds, by `splits.key` of its name: emoji by two hands, stamps, and recordings of their names.

    Emoji that are stamps too are left out: a picture would show one thing twice.
    """

    google: dict[str, Event]
    twitter: dict[str, Event]
    stamps: dict[str, Event]
    spoken: dict[str, list[Event]]
    effects: dict[str, list[Event]]


def held(out: Path, wanted: Side) -> Held:
    """The manifests in OUT -> what the side `wanted` holds; of twins ("man X", "woman X") the one of the shortest name.

    Raises ManifestError, OSError where one cannot be read.
    """
    emoji, stamps, spoken = (
        manifest.read(out / f"{name}.jsonl").events for name in ("emoji", "stamps", "stamps-spoken")
    )
    found = Held({}, {}, {}, defaultdict(list), defaultdict(list))
    for event in stamps:
        if side(event.group) == wanted and "image" in event.media:
            found.stamps.setdefault(key(event.group), event)
            if "audio" in event.media:
                found.effects[key(event.group)].append(event)
    for event in spoken:
        if side(event.group) == wanted and "audio" in event.media:
            found.spoken[key(event.group)].append(event)
    hands = {"google": found.google, "twitter": found.twitter}
    for event in emoji:
        by_name, name = hands.get(event.id.split("/")[0]), event.texts[-1] if event.texts else ""
        if by_name is None or "skin tone" in name or side(name) != wanted or key(name) in found.stamps:
            continue
        if key(name) not in by_name or len(name) < len(by_name[key(name)].texts[-1]):
            by_name[key(name)] = event
    return found


def beside(model: BindModel, pictures: Pictures, things: Held) -> Iterator[Task]:
    """What a side holds -> the tasks of A's picture plus B's name, caption, recordings and sound effects."""
    emoji = _shuffled(sorted(set(things.google) & set(things.twitter)), 0)
    half = min(_NAMES, len(emoji) // 2)
    first, second = emoji[:half], emoji[half : 2 * half]
    shown = embed(model, "image", [things.google[name].media["image"] for name in first])
    texts = model.embed([things.google[name].texts[-1] for name in second], "text").vectors
    ask = _Gallery(pictures, [things.twitter[n] for n in first], [things.twitter[n] for n in second]).ask
    yield ask("picture of an emoji + name of an emoji", shown, texts, range(half))

    second = _shuffled(sorted(things.stamps), 1)[:half]
    first, shown = first[: len(second)], shown[: len(second)]
    ask = _Gallery(pictures, [things.twitter[n] for n in first], [things.stamps[n] for n in second]).ask
    texts = model.embed([things.stamps[name].group for name in second], "text").vectors
    yield ask("picture of an emoji + caption of a stamp", shown, texts, range(len(second)))
    for title, heard in (("spoken name", things.spoken), ("sound effect", things.effects)):
        events = [(number, event) for number, name in enumerate(second) for event in heard.get(name, ())]
        sounds, of = embed(model, "audio", [event.media["audio"] for _, event in events]), [n for n, _ in events]
        yield ask(f"picture of an emoji + {title} of a stamp", shown, sounds, of)
        if heard is things.spoken:
            each = dict.fromkeys(of)
            means = unit(np.stack([sounds[np.array(of) == number].mean(0) for number in each]))
            yield ask("picture of an emoji + all recordings of a stamp's name at once", shown, means, list(each))


class _Gallery:
    """As many A as B, each in `_SHOWN` pictures that show one of each, both in one only."""

    def __init__(self, pictures: Pictures, first: Sequence[Event], second: Sequence[Event]) -> None:
        shifts, count = range(min(_SHOWN, len(second))), len(first)
        self._rows = np.array([(a, (a + shift) % count) for shift in shifts for a in range(count)])
        pairs = [(first[a].media["image"], second[b].media["image"]) for a, b in self._rows]
        about = [[str(source.content) for source in pair] for pair in pairs]
        made = pictures.vectors(about, lambda: ((str(n), side_by_side(*pair)) for n, pair in enumerate(pairs)))
        self._vectors = np.stack(list(made.values()))

    def ask(self, title: str, first: np.ndarray, second: np.ndarray, of: Sequence[int]) -> Task:
        """(A, D) rows of each A, (n, D) rows of what stands for some B, and for which -> every picture asked for."""
        means = defaultdict(list)
        for number, b in enumerate(of):
            means[b].append(number)
        asked = [(row, a, b, number) for row, (a, b) in enumerate(self._rows) for number in means[int(b)]]
        rows, each_a, each_b, numbers = np.array(asked).reshape(-1, 4).T
        hidden = np.full(len(rows), -1)
        return Task(title, first[each_a], second[numbers], self._vectors, rows, hidden, (each_a, each_b))


def side_by_side(left: Source, right: Source) -> Image.Image:
    """Two files of drawings -> both in the middle of a white picture of 224 x 224, each 112 wide."""
    scene = Image.new("RGBA", (224, 224), "white")
    for x, source in zip((0, 112), (left, right), strict=True):
        assert isinstance(source.content, Path)  # a manifest's
        with Image.open(source.content) as drawing:
            small = drawing.convert("RGBA").resize((112, 112), Image.Resampling.BICUBIC)
        scene.alpha_composite(small, (x, 56))
    return scene.convert("RGB")


def less(model: BindModel, pictures: Pictures, wanted: Side) -> Iterator[Task]:
    """Simulated scenes of a side -> the tasks of a scene less a cut-out, and less the name, of one of its things."""
    about = ["scenes and cut-outs", _SEED, str(_PLACES[wanted]), _ROOMS, _LEAST, _MOST, _SIZE]
    vectors = pictures.vectors(about, lambda: _shots(_PLACES[wanted]))
    gallery = [name for name in vectors if _LESS not in name]
    rows = {name: row for row, name in enumerate(gallery)}
    asked = [tuple(name.split(_LESS)) for name in vectors if _LESS in name]
    targets, names, numbers = [], [], []
    for scene, gone in asked:
        number, both = scene.split(" ")
        (kept,) = set(both.split("+")) - {gone}
        targets.append(rows[f"{number} {kept}"])
        names.append(draw(_SEED, int(number)).names[int(gone)])
        numbers.append(int(number))
    scenes = np.array([rows[scene] for scene, _ in asked])
    shown = np.stack([vectors[name] for name in gallery])
    alone = np.stack([vectors[_LESS.join(pair)] for pair in asked])
    for title, second in (("a cut-out", alone), ("the name", model.embed(names, "text").vectors)):
        title = f"scene less {title} of a thing in it"
        yield Task(title, shown[scenes], second, shown, np.array(targets), scenes, (np.array(numbers),), -1.0)


def _shots(places: range) -> Iterator[tuple[str, Image.Image]]:
    """Renders the first scenes with enough to see: "17 4+2" has only the things 4 and 2 of scene 17.

    "17 4+2 less 2" is thing 2 alone, cut out on white, as the camera sees it there.
    """
    with Stage() as stage:

        def shoot(scene: Scene, number: int) -> tuple[Image.Image, np.ndarray]:
            stage.set(scene)
            shot = stage.shoot(MIDDLE_S, *_SIZE)
            rng = np.random.default_rng([_SEED, number, 2])  # the same noise of the sensor in all
            return photograph(scene, shot, MIDDLE_S, rng), shot.part >= 0

        found = 0
        for number in count():
            if found == _ROOMS:
                return
            if number % 20 not in places:
                continue
            scene = draw(_SEED, number)
            stage.set(scene)
            things = prominent(scene, stage.shoot(MIDDLE_S, *_SIZE), _LEAST, _MOST)
            if len(things) < 3:
                continue
            found += 1
            for some in chain.from_iterable(combinations(things, size) for size in range(len(things) + 1)):
                gone = set(things) - set(some)
                left = replace(scene, parts=tuple(part for part in scene.parts if part.thing not in gone))
                yield f"{number} {'+'.join(map(str, some))}", shoot(left, number)[0]
            for thing in things[:2]:
                one = replace(scene, parts=tuple(part for part in scene.parts if part.thing == thing))
                yield f"{number} {things[0]}+{things[1]}{_LESS}{thing}", cut_out(*shoot(one, number))


def cut_out(picture: Image.Image, kept: np.ndarray) -> Image.Image:
    """A picture and its pixels to keep (H, W), some of them -> a white square that just holds these."""
    left, upper, right, lower = Image.fromarray(kept).getbbox() or (0, 0, *picture.size)
    side_px = max(right - left, lower - upper) + 2 * _MARGIN
    square = Image.new("RGB", (side_px, side_px), "white")
    place = ((side_px - right + left) // 2 - left, (side_px - lower + upper) // 2 - upper)
    square.paste(picture, place, Image.fromarray(kept))
    return square


def _shuffled(names: list[str], seed: int) -> list[str]:
    return [names[n] for n in np.random.default_rng(seed).permutation(len(names))]


def rows(model: BindModel, out: Path) -> Iterator[Row]:
    """A model and what `train.small` left -> the table: of each form, the second part as it comes and as chosen."""
    pictures = Pictures(model, out / "composed")

    def tasks(wanted: Side) -> Iterator[Task]:
        yield from beside(model, pictures, held(out, wanted))
        yield from less(model, pictures, wanted)

    for known, task in zip(tasks("validation"), tasks("test"), strict=True):
        for weight in dict.fromkeys((1.0, choose(known))):
            yield measure(task, weight)


def main() -> None:
    """Prints the table."""
    out, name = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "small"
    print(HEADER)
    for row in rows(bind.load(name, modalities=["image", "text", "audio"]), out):
        print(row, flush=True)


if __name__ == "__main__":
    main()
