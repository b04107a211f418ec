"""A model and a folder of real data -> one table of its scores there, beside chance and ImageBind's own figures.

    crossbind eval small --suite real --data DIR

A suite is a table, `suite-NAME.toml`, which explains its keys; a data set is a table of `data.toml`. This module knows
no data set and no model by name. Intervals are 95 %, by bootstrap over groups (a person, a recording, a scene), because
items of one group are not independent; where a set has no groups, the bootstrap is over items.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter

from bind.model.model import BindModel
from preprocess.manifest import Event
from preprocess.source import Limits
from train.evaluate import evaluation as evaluate
from train.evaluate.items import Items, embedded, paired
from train.evaluate.metrics import ranks
from train.evaluate.report import Score, plot
from train.small.data import Data, Part, datasets, find, group_of

_RESAMPLES = 1000
"""Bootstrap samples for an interval of 95 %."""
Seen = Literal["trained on", "other part trained on", "never", "not recorded"]


class Row(BaseModel):
    """One `[[rows]]` table; see the comments of `suite-real.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sets: tuple[str, ...]
    task: Literal["zero-shot", "retrieval", "class"]
    query: str
    target: str = "text"
    k: tuple[int, ...] = (1,)
    gallery: tuple[str, ...] = ()
    within: Literal["", "group"] = ""
    same: dict[str, tuple[str, ...]] = {}
    templates: tuple[str, ...] = ()
    imagebind: str = ""


@dataclass(frozen=True)
class Measured(Score):
    """A score of a suite. `chance` is the score of random vectors, `gallery` the number of items that are searched.

    `seen` says whether the model's own record has these rows, or another part of the set, among its training data.
    """

    part: Part
    chance: float
    gallery: int
    seen: Seen
    imagebind: str


@dataclass
class Report:
    """All scores of a suite; `left_out` lists sets that were missing or not measured, `skipped` lists bad media."""

    suite: str
    model: str
    space: str
    scores: list[Measured] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def table(self) -> str:
        """The scores as aligned text, one on a line, and below them what was left out."""
        head = ("set", "part", "task", "pair", "pair is", "this data", "metric", "value", "95 %", "chance", "x chance")
        rows = [(*head, "n", "gallery", "ImageBind, on other data")]
        for s in self.scores:
            value, low, high = (f"{number:.3f}" for number in (s.value, s.low, s.high))
            pair, interval, times = f"{s.query} -> {s.target}", f"{low} .. {high}", f"{s.value / s.chance:.1f}"
            figures = (s.metric, value, interval, f"{s.chance:.3f}", times, f"{s.n:,}", f"{s.gallery:,}")
            rows.append((s.manifest, s.part, s.task, pair, s.kind, s.seen, *figures, s.imagebind))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join([*lines, *(f"left out: {reason}" for reason in self.left_out)])

    def plot(self, file: Path) -> None:
        """Draws the scores; raises as `train.evaluate.report.plot` does."""
        plot(self.model, self.scores, file)

    def json(self) -> str:
        """Suite, model, space, scores and what was left out as JSON."""
        return json.dumps(asdict(self), indent=1)


def names() -> list[str]:
    """The names of the suites."""
    return sorted(file.stem.removeprefix("suite-") for file in Path(__file__).parent.glob("suite-*.toml"))


def rows(name: str) -> tuple[Row, ...]:
    """A suite's rows. Raises ValueError for an unknown suite, unknown keys and unknown data sets."""
    if name not in names():
        raise ValueError(f"no suite {name!r}; known: {', '.join(names())}")
    table = tomllib.loads((Path(__file__).parent / f"suite-{name}.toml").read_text(encoding="utf-8"))
    found = TypeAdapter(tuple[Row, ...]).validate_python(table["rows"])
    if unknown := {one for row in found for one in (*row.sets, *row.gallery)} - set(datasets()):
        raise ValueError(f"suite {name}: no data sets {sorted(unknown)} in data.toml")
    return found


def run(
    model: BindModel,
    name: str,
    folder: str | os.PathLike[str],
    *,
    batch_size: int = 64,
    limits: Limits | None = None,
    seed: int = 0,
) -> Report:
    """A model, a suite and a folder of manifests -> every score of the suite that both allow.

    Raises ValueError for an unknown suite or a folder without any of its sets, ManifestError for a broken manifest, and
    OSError where something cannot be read.
    """
    report = Report(name, model.description.name, model.space)
    data = find(folder)
    report.left_out.extend(data.left_out)
    measure = _Measure(model, data, report, batch_size, limits, seed)
    for row in rows(name):
        if lacking := [one for one in (row.query, row.target) if one not in model.modalities]:
            report.left_out.append(f"{', '.join(row.sets)}: the model has no {' and no '.join(lacking)}")
            continue
        if row.same:
            measure.joined(row)
        else:
            for one in row.sets:
                measure.each(row, one)
    if not report.scores:
        raise ValueError(f"{folder}: nothing of suite {name!r} can be measured; {'; '.join(report.left_out)}")
    return report


def parts(data: Data, name: str) -> list[Part]:
    """The parts of a set that are measured: dev and test, or train where the set has neither."""
    held_out: list[Part] = [part for part in ("dev", "test") if data.manifest(name, part)]
    return held_out or (["train"] if data.manifest(name, "train") else [])


def seen(model: BindModel, data: Data, name: str, part: Part) -> Seen:
    """Whether the model's own record (`trained_on`) has this part of a set, another part, or one that overlaps
    with it.
    """
    patterns = model.description.trained_on
    if not patterns:
        return "not recorded"

    def trained(manifest: str) -> bool:
        return any(fnmatchcase(manifest, pattern) for pattern in patterns)

    if any(trained(one.name) for one in data.manifests[name, part]):
        return "trained on"
    family = [datasets()[one] for one in (name, *datasets()[name].overlaps)]
    named = [pattern for pattern in patterns if any(one.part(pattern.replace("*", "1")) for one in family)]
    return "other part trained on" if named else "never"


class _Measure:
    """One run of a suite; embedded items are kept, because several rows need the same items."""

    def __init__(
        self, model: BindModel, data: Data, report: Report, batch_size: int, limits: Limits | None, seed: int
    ) -> None:
        self._model, self._data, self._report = model, data, report
        self._batch_size, self._limits, self._seed = batch_size, limits, seed
        self._known: dict[tuple[str, Part, str], Items] = {}

    def each(self, row: Row, name: str) -> None:
        """Adds the scores of a row on every part of one set."""
        for part in parts(self._data, name):
            events = self._events(name, part)
            query = self._items(name, part, row.query)
            groups = _groups(name, events, query)
            if row.task == "zero-shot":
                self._zero_shot(row, name, part, query, groups)
                continue
            target = self._items(name, part, row.target)
            if row.task == "class":
                if row.query == "text":  # a sentence that many events have is one query, and a group of its own
                    query = query.of(_first_of_each(query.contents))
                    groups = np.array([str(content) for content in query.contents])
                query_labels, target_labels = _labels(events, query), _labels(events, target)
                usable, gallery = np.isin(query_labels, target_labels[target_labels != ""]), target_labels != ""
                classes = {label: number for number, label in enumerate(np.unique(target_labels))}
                right, query_labels = (
                    np.array([classes[label] for label in one])
                    for one in (target_labels[gallery], query_labels[usable])
                )
                place = (name, part)
                self._retrieval(
                    row, place, query.of(usable), target.of(gallery), query_labels, right, groups[usable], None
                )
                continue
            query, target, asked_items, given_items = paired(query, target)
            groups = _groups(name, events, query)
            galleries = (groups, _groups(name, events, target)) if row.within == "group" else None
            self._retrieval(row, (name, part), query, target, asked_items, given_items, groups, galleries)

    def joined(self, row: Row) -> None:
        """Adds the scores of a row whose queries and gallery come from several sets."""
        classes: dict[str, int] = {}
        # Two kinds of queries (snare drum, bass drum) may have one right answer; they are then one class.
        for label, same in row.same.items():
            number = next((classes[one] for one in same if one in classes), len(classes))
            classes.update(dict.fromkeys((label, *same), number))
        queried = [(name, part) for name in row.sets for part in parts(self._data, name)]
        searched = [(name, part) for name in row.gallery for part in parts(self._data, name)]
        gallery, right = self._classified(searched, row.target, classes)
        for name, part in queried:
            query, query_labels = self._classified([(name, part)], row.query, {k: classes[k] for k in row.same})
            usable = np.isin(query_labels, right)
            if usable.sum() and len(right):
                groups = _groups(name, self._events(name, part), query)[usable]
                self._retrieval(row, (name, part), query.of(usable), gallery, query_labels[usable], right, groups, None)

    def _classified(
        self, places: Sequence[tuple[str, Part]], modality: str, classes: dict[str, int]
    ) -> tuple[Items, np.ndarray]:
        """Parts of sets -> their items whose label is one of the classes, and the number of each item's class."""
        found: list[tuple[Items, np.ndarray]] = []
        for name, part in places:
            items = self._items(name, part, modality)
            numbers = np.array([classes.get(label, -1) for label in _labels(self._events(name, part), items)], int)
            found.append((items.of(numbers >= 0), numbers[numbers >= 0]))
        if not found:
            return Items(np.zeros((0, self._model.dim), np.float32), np.zeros(0, int), []), np.zeros(0, int)
        vectors = np.concatenate([items.vectors for items, _ in found])
        events = np.concatenate([items.events for items, _ in found])
        contents = [content for items, _ in found for content in items.contents]
        return Items(vectors, events, contents), np.concatenate([numbers for _, numbers in found])

    def _events(self, name: str, part: Part) -> tuple[Event, ...]:
        return self._data.events(name, part)

    def _items(self, name: str, part: Part, modality: str) -> Items:
        place = (name, part, modality)
        if place not in self._known:
            events = self._events(name, part)
            skipped = self._report.skipped
            self._known[place] = embedded(self._model, modality, events, skipped, self._batch_size, self._limits)
        return self._known[place]

    def _zero_shot(self, row: Row, name: str, part: Part, items: Items, groups: np.ndarray) -> None:
        found = self._data.manifest(name, part)
        assert found is not None
        labels = _labels(found.events, items)
        classes = found.classes or tuple(sorted({label for event in found.events for label in event.labels}))
        labelled = np.isin(labels, classes)
        if labelled.sum() < 2 or len(classes) < 2:
            self._report.left_out.append(f"{found.name}: too few labelled {row.query} items for zero-shot")
            return
        templates = row.templates or found.templates or evaluate.TEMPLATES
        scores = evaluate.class_scores(self._model, items.vectors[labelled], classes, templates)
        truth = np.array([classes.index(label) for label in labels[labelled]])
        own = scores[np.arange(len(truth)), truth][:, None]
        # Classes of the same score stand before the right one: equal vectors must not look like a hit.
        rank = (scores >= own).sum(1)
        for k in row.k:
            self._add(row, (name, part), f"top {k}", rank <= k, groups[labelled], k / len(classes), len(classes))

    def _retrieval(
        self,
        row: Row,
        place: tuple[str, Part],
        query: Items,
        target: Items,
        query_labels: np.ndarray,
        target_labels: np.ndarray,
        groups: np.ndarray,
        galleries: tuple[np.ndarray, np.ndarray] | None,
    ) -> None:
        """Adds the recalls of a row on one part of a set.

        `query_labels` (Q,) and `target_labels` (T,) are equal where a target is right; `galleries` are equal where a
        target may be searched.
        """
        if len(query.vectors) < 2 or len(target.vectors) < 2:
            return
        parts = np.unique(galleries[0]) if galleries else [None]
        rank = np.zeros(len(query_labels), int)
        size, right = np.zeros(len(query_labels)), np.zeros(len(query_labels))
        for part in parts:
            q = np.ones(len(query_labels), bool) if galleries is None else galleries[0] == part
            t = np.ones(len(target_labels), bool) if galleries is None else galleries[1] == part
            rank[q] = ranks(query.vectors[q], target.vectors[t], query_labels[q], target_labels[t])
            size[q] = t.sum()
            right[q] = (query_labels[q, None] == target_labels[t]).sum(1)
        usable = size > max(row.k)  # in a smaller gallery every search would succeed
        if not usable.any():
            self._report.left_out.append(f"{place[0]}: no gallery of more than {max(row.k)} {row.target} items")
            return
        for k in row.k:
            chance = float(_chance(right[usable], size[usable], k).mean())
            self._add(
                row,
                place,
                f"recall@{k}",
                rank[usable] <= k,
                groups[usable],
                chance,
                int(size[usable].mean()),
            )

    def _add(
        self,
        row: Row,
        place: tuple[str, Part],
        metric: str,
        hits: np.ndarray,
        groups: np.ndarray,
        chance: float,
        gallery: int,
    ) -> None:
        name, part = place
        task = {"class": "same class", "retrieval": "retrieval"}.get(row.task, row.task)
        task += ", in its scene" if row.within else ""
        rng = np.random.default_rng(self._seed)
        low, high = interval(hits.astype(np.float64), groups, rng)
        self._report.scores.append(
            Measured(
                manifest=name,
                task=task,
                query=row.query,
                target=row.target,
                kind=evaluate.pair_kind(self._model.description, row.query, row.target),
                metric=metric,
                value=float(hits.mean()),
                low=low,
                high=high,
                n=len(hits),
                part=part,
                chance=chance,
                gallery=gallery,
                seen=seen(self._model, self._data, name, part),
                imagebind=row.imagebind,
            )
        )


def interval(values: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """(N,) values and the group of each -> the 2.5 % and 97.5 % points of their mean over resamples of the groups."""
    numbers = np.unique(groups, return_inverse=True)[1]
    sums, counts = np.bincount(numbers, values), np.bincount(numbers)
    if len(sums) < 2:
        return interval(values, np.arange(len(values)), rng) if len(values) > 1 else (0.0, 1.0)
    drawn = rng.integers(len(sums), size=(_RESAMPLES, len(sums)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), (2.5, 97.5))
    return float(low), float(high)


def _groups(name: str, events: Sequence[Event], items: Items) -> np.ndarray:
    return np.array([group_of(name, events[number]) for number in items.events])


def _first_of_each(contents: Sequence[object]) -> np.ndarray:
    """(N,) contents -> (N,) bool, true at the first occurrence of each content."""
    first: dict[object, int] = {}
    return np.array([first.setdefault(content, number) == number for number, content in enumerate(contents)])


def _labels(events: Sequence[Event], items: Items) -> np.ndarray:
    """The one label of each item, "" where it has none or several."""
    return np.array([labels[0] if len(labels := events[number].labels) == 1 else "" for number in items.events])


def _chance(right: np.ndarray, size: np.ndarray, k: int) -> np.ndarray:
    """(Q,) numbers of right answers among (Q,) items -> (Q,) the probability that one is among k drawn at random."""
    missed = np.ones(len(right))
    for drawn in range(k):
        missed *= np.clip((size - right - drawn) / np.maximum(size - drawn, 1), 0, 1)
    return 1 - missed
