"""How good a model is on manifests: retrieval between every two modalities, zero-shot classes, few-shot probes.

Every number has a 95% interval from bootstrap over its queries or items, and says whether the checkpoint records that
the two modalities were trained together ("trained") or not ("emergent").
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from bind.description import Description
from bind.model.model import BindModel
from bind.model.pipeline import Failed
from preprocess import manifest
from preprocess.extras import needs
from preprocess.manifest import Event, Manifest
from preprocess.source import Limits, Source

TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
"""The seven prompts that CLIP's authors found enough (notebooks/Prompt_Engineering_for_ImageNet.ipynb)."""
RECALLS = (1, 5, 10)
SHOTS = (1, 2, 4, 8, 16)
_RESAMPLES = 1000
_RESAMPLES_OF_MAP = 200
_DRAWS = 3
"""Sets of examples that a few-shot result is the mean of."""


@dataclass(frozen=True)
class Score:
    """One number with its 95% interval. `kind` is trained, emergent, or "" where no two modalities are compared."""

    manifest: str
    task: str
    query: str
    target: str
    kind: str
    metric: str
    value: float
    low: float
    high: float
    n: int


@dataclass
class Report:
    """All scores of a model, and what could not be read as (path, reason)."""

    model: str
    space: str
    scores: list[Score] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def table(self) -> str:
        """The scores as aligned text, one a line."""
        rows = [("manifest", "task", "pair", "", "metric", "value", "95% interval", "n")]
        for s in self.scores:
            digits = 1 if s.metric == "median rank" else 3
            value, low, high = (f"{number:.{digits}f}" for number in (s.value, s.low, s.high))
            pair = f"{s.query} -> {s.target}"
            rows.append((s.manifest, s.task, pair, s.kind, s.metric, value, f"{low} .. {high}", str(s.n)))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    def json(self) -> str:
        """Model, space, scores and skipped media as JSON."""
        return json.dumps(asdict(self), indent=1)

    def plot(self, file: Path) -> None:
        """Draws the shares (recall, accuracy, mAP) with their intervals; emergent ones are hollow. SVG, PNG or PDF.

        Raises ValueError where matplotlib is not installed.
        """
        plot(self.model, [s for s in self.scores if s.metric != "median rank"], file)


def evaluate(
    model: BindModel,
    manifests: Iterable[str | os.PathLike[str] | Manifest],
    *,
    shots: Sequence[int] = SHOTS,
    batch_size: int = 64,
    limits: Limits | None = None,
    seed: int = 0,
) -> Report:
    """A model and manifests -> every score they allow. Media that cannot be read are left out and listed.

    Retrieval needs two modalities an event (all captions are queries), zero-shot needs `labels`, few-shot probes
    enough events of each label. Raises ManifestError, OSError for a manifest that cannot be read.
    """
    report = Report(model.description.name, model.space)
    for entry in manifests:
        found = entry if isinstance(entry, Manifest) else manifest.read(entry)
        sets = {
            name: embedded(model, name, found.events, report.skipped, batch_size, limits)
            for name in found.modalities
            if name in model.modalities
        }
        sets = {name: items for name, items in sets.items() if len(items.vectors)}
        rng = np.random.default_rng(seed)
        for query, target in itertools.permutations(sets, 2):
            kind = pair_kind(model.description, query, target)
            for metric, value, low, high, n in _retrieval(sets[query], sets[target], rng):
                report.scores.append(Score(found.name, "retrieval", query, target, kind, metric, value, low, high, n))
        labels = [event.labels for event in found.events]
        classes = found.classes or tuple(sorted({label for each in labels for label in each}))
        if len(classes) < 2:
            continue
        for name, items in sets.items():
            if name == "text":
                continue
            if "text" in model.modalities:
                kind = pair_kind(model.description, name, "text")
                for result in _zero_shot(model, items, labels, classes, found.templates or TEMPLATES, rng):
                    report.scores.append(Score(found.name, "zero-shot", name, "text", kind, *result))
            for result in _few_shot(items, found.events, classes, shots, rng):
                report.scores.append(Score(found.name, "few-shot", name, "labels", "", *result))
    return report


def plot(model: str, shown: Sequence[Score], file: Path) -> None:
    """Draws shares with their intervals, emergent ones hollow, as SVG, PNG or PDF by the suffix of the file.

    Raises MissingExtra where matplotlib is not installed.
    """
    with needs("train", "a plot of the scores"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(11, 1 + 0.22 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    for row, s in enumerate(shown):
        face = "white" if s.kind == "emergent" else "tab:blue"
        spread = [[s.value - s.low], [s.high - s.value]]
        axes.errorbar(s.value, row, xerr=spread, fmt="o", color="tab:blue", markerfacecolor=face, gid=f"score-{row}")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    names = [
        f"{s.manifest}: {s.query} \u2192 {s.target}, {s.task} {s.metric} {s.kind and f'({s.kind})'}" for s in shown
    ]
    axes.set_yticks(range(len(shown)), names, fontsize=8)
    axes.grid(axis="x", alpha=0.4)
    axes.set_title(f"{model}, 95% intervals")
    figure.savefig(file)


def pair_kind(description: Description, first: str, second: str) -> str:
    """Whether a model's own record has this pair: "trained" or "emergent".

    A modality that shares another's encoder counts as that one: video is no news to what was trained against images.
    """
    owners = description.towers()
    wanted = {owners.get(first, first), owners.get(second, second)}
    trained = [{owners.get(a, a), owners.get(b, b)} for a, b in description.trained]
    return "trained" if wanted in trained or len(wanted) == 1 else "emergent"


def ranks(queries: np.ndarray, targets: np.ndarray, query_items: np.ndarray, target_items: np.ndarray) -> np.ndarray:
    """(Q, D) and (T, D) unit rows, (Q,) and (T,) item labels -> (Q,) ranks of each query's best target, from 1.

    Targets with the query's label are right. Others with the same score stand before them, so that vectors which are
    all equal rank last and not first. Every query needs a right target.
    """
    found = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), 1024):
        part = slice(start, start + 1024)
        scores = queries[part].astype(np.float32) @ targets.T.astype(np.float32)
        right = query_items[part, None] == target_items
        best = np.where(right, scores, -np.inf).max(1, keepdims=True)
        found[part] = 1 + ((scores >= best) & ~right).sum(1)
    return found


def same_item(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Columns of content labels (N,) -> (N,) labels, equal for rows that share a content (also through others)."""
    owner = np.arange(len(columns[0]))

    def root(row: int) -> int:
        while owner[row] != row:
            owner[row] = owner[owner[row]]
            row = int(owner[row])
        return row

    for column in columns:
        first: dict[int, int] = {}
        for row, content in enumerate(column.tolist()):
            owner[root(row)] = root(first.setdefault(content, row))
    return np.array([root(row) for row in range(len(owner))])


def mean_recall(a: np.ndarray, b: np.ndarray, items: np.ndarray) -> float:
    """(N, D) and (N, D) unit rows, pairs row by row, (N,) item labels -> the mean of recall@1, 5, 10, both ways."""
    both = (ranks(a, b, items, items), ranks(b, a, items, items))
    return float(np.mean([(found <= k).mean() for found in both for k in RECALLS]))


def average_precision(relevant: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N,) bool, (N,) scores, (R, N) weights of items -> (R,): sum over thresholds of precision * gain in recall.

    Items of equal score enter together, as in scikit-learn's. NaN where no relevant item has weight.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    weights = weights[:, order]
    true = np.cumsum(weights * relevant[order], 1)[:, ends]
    taken = np.cumsum(weights, 1)[:, ends]
    precision = np.divide(true, taken, out=np.zeros_like(true, np.float64), where=taken > 0)
    gain = np.diff(true, axis=1, prepend=0)
    with np.errstate(invalid="ignore"):
        result: np.ndarray = (precision * gain).sum(1) / true[:, -1]
    return result


def bootstrap(
    values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator
) -> tuple[float, float]:
    """(N,) values and a statistic over the last axis -> the 2.5% and 97.5% points over resamples of the values."""
    at_once = max(1, 5_000_000 // len(values))
    drawn = [
        statistic(values[rng.integers(len(values), size=(min(at_once, _RESAMPLES - start), len(values)))])
        for start in range(0, _RESAMPLES, at_once)
    ]
    low, high = np.percentile(np.concatenate(drawn), (2.5, 97.5))
    return float(low), float(high)


def probe(train: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: int, penalty: float = 1e-3) -> np.ndarray:
    """(N, D) vectors with (N,) class numbers, (M, D) vectors -> (M,) class numbers by a linear softmax probe.

    Multinomial logistic regression with an L2 `penalty` on the weights, by L-BFGS from zero; deterministic.
    """
    x, y = torch.from_numpy(train).double(), torch.from_numpy(labels)
    weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(F.linear(x, weight, bias), y) + penalty * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        found: np.ndarray = F.linear(torch.from_numpy(test).double(), weight, bias).argmax(1).numpy()
    return found


@dataclass(frozen=True)
class Items:
    """Vectors (N, D) of one modality, (N,) the position of the event each belongs to, and a name of its content."""

    vectors: np.ndarray
    events: np.ndarray
    contents: list[object]

    def of(self, kept: np.ndarray) -> Items:
        """(N,) bool -> these items only."""
        contents = [content for content, one in zip(self.contents, kept, strict=True) if one]
        return Items(self.vectors[kept], self.events[kept], contents)


def embedded(
    model: BindModel,
    modality: str,
    found: Sequence[Event],
    skipped: list[tuple[str, str]],
    batch_size: int = 64,
    limits: Limits | None = None,
) -> Items:
    """Events -> what they have of one modality as vectors, all captions where it is text.

    Media that cannot be read are left out and appended to `skipped` as (path, reason).
    """
    sources: list[Source] = []
    events: list[int] = []
    for number, event in enumerate(found):
        if modality == "text":
            sources += [Source(text, f"text:{text[:60]}") for text in event.texts]
            events += [number] * len(event.texts)
        elif modality in event.media:
            sources.append(event.media[modality])
            events.append(number)
    vectors = np.zeros((len(sources), model.dim), np.float32)
    good = np.ones(len(sources), bool)
    stream = model.stream(sources, modality, batch_size, limits)
    for result in tqdm(stream, desc=modality, total=len(sources), unit="item", delay=2, disable=None):
        if isinstance(result, Failed):
            good[result.position] = False
            skipped.append((result.error.path, result.error.reason))
        else:
            vectors[result.position] = result.vector
    contents = [(str(source.content), source.hints) for source, kept in zip(sources, good, strict=True) if kept]
    return Items(vectors[good], np.array(events, np.int64)[good], list(contents))


def paired(query: Items, target: Items) -> tuple[Items, Items, np.ndarray, np.ndarray]:
    """Items of two modalities -> those of events that have both, with (Q,) and (T,) labels of what is right.

    Events that share a content (one caption of two clips) are one item: either answer is right.
    """
    both = np.intersect1d(query.events, target.events)
    query, target = (items.of(np.isin(items.events, both)) for items in (query, target))
    if not len(both):
        return query, target, query.events, target.events
    named = [("a", content) for content in query.contents] + [("b", content) for content in target.contents]
    numbers: dict[object, int] = {}
    contents = np.array([numbers.setdefault(name, len(numbers)) for name in named])
    labels = same_item([np.concatenate([query.events, target.events]), contents])
    return query, target, labels[: len(query.events)], labels[len(query.events) :]


def _retrieval(query: Items, target: Items, rng: np.random.Generator) -> Iterable[tuple[str, float, float, float, int]]:
    query, target, asked, given = paired(query, target)
    if len(np.unique(query.events)) < 2:
        return
    count = len(asked)
    found = ranks(query.vectors, target.vectors, asked, given)
    for k in RECALLS:
        hits = (found <= k).astype(np.float64)
        yield f"recall@{k}", float(hits.mean()), *bootstrap(hits, lambda drawn: drawn.mean(-1), rng), count
    spread = bootstrap(found, lambda drawn: np.median(drawn, axis=-1), rng)
    yield "median rank", float(np.median(found)), *spread, count


def class_scores(model: BindModel, vectors: np.ndarray, classes: Sequence[str], templates: Sequence[str]) -> np.ndarray:
    """(N, D) unit rows -> (N, classes) cosines with each class: the mean of its name in all templates.

    A class may go by several names ("person | man"); the best of them counts (ImageBind, appendix B).
    """
    names = [(number, name) for number, entry in enumerate(classes) for name in entry.split(manifest.OR)]
    prompts = [template.format(name) for _, name in names for template in templates]
    said = model.embed(prompts, "text").vectors.reshape(len(names), len(templates), -1).mean(1)
    said /= np.linalg.norm(said, axis=1, keepdims=True)
    first_names = np.flatnonzero(np.diff([number for number, _ in names], prepend=-1))
    scores: np.ndarray = np.maximum.reduceat(vectors @ said.T, first_names, axis=1)
    return scores


def _zero_shot(
    model: BindModel,
    items: Items,
    labels: Sequence[tuple[str, ...]],
    classes: Sequence[str],
    templates: Sequence[str],
    rng: np.random.Generator,
) -> Iterable[tuple[str, float, float, float, int]]:
    numbers = {name: number for number, name in enumerate(classes)}
    labelled = np.array([bool(labels[event]) for event in items.events])
    if not labelled.any():
        return
    scores = class_scores(model, items.vectors[labelled], classes, templates)
    truth = np.zeros(scores.shape, bool)
    for row, event in enumerate(items.events[labelled]):
        truth[row, [numbers[name] for name in labels[event]]] = True
    n = len(truth)
    if truth.sum(1).max() == 1:
        hits = truth[np.arange(n), scores.argmax(1)].astype(np.float64)
        yield "accuracy", float(hits.mean()), *bootstrap(hits, lambda drawn: drawn.mean(-1), rng), n
        return
    weights = np.ones((1 + _RESAMPLES_OF_MAP, n))  # the first row is the plain value
    weights[1:] = rng.multinomial(n, np.full(n, 1 / n), _RESAMPLES_OF_MAP)
    present = np.flatnonzero(truth.any(0))
    of_classes = [average_precision(truth[:, c], scores[:, c], weights) for c in present]
    means = np.nanmean(of_classes, axis=0)
    low, high = np.percentile(means[1:], (2.5, 97.5))
    yield "mAP", float(means[0]), float(low), float(high), n


def _few_shot(
    items: Items, events: Sequence[Event], classes: Sequence[str], shots: Sequence[int], rng: np.random.Generator
) -> Iterable[tuple[str, float, float, float, int]]:
    numbers: Mapping[str, int] = {name: number for number, name in enumerate(classes)}
    single = np.array([len(events[event].labels) == 1 for event in items.events])
    if not single.any():
        return
    vectors = items.vectors[single]
    of = [events[event] for event in items.events[single]]
    y = np.array([numbers[event.labels[0]] for event in of])
    # Half of the groups (events, where there are none) for examples, half for the test.
    groups = np.unique([event.group or f"event {event.id}" for event in of], return_inverse=True)[1]
    for_test = rng.permutation(groups.max() + 1) % 2 == 0
    tested = for_test[groups]
    available = [np.flatnonzero(~tested & (y == c)) for c in np.unique(y)]
    for k in shots:
        if not tested.any() or min(map(len, available)) < k:
            continue
        hits = np.zeros(int(tested.sum()))
        for _ in range(_DRAWS):
            chosen = np.concatenate([rng.choice(rows, k, replace=False) for rows in available])
            hits += probe(vectors[chosen], y[chosen], vectors[tested], len(classes)) == y[tested]
        hits /= _DRAWS
        spread = bootstrap(hits, lambda drawn: drawn.mean(-1), rng)
        yield f"accuracy, {k} shots", float(hits.mean()), *spread, len(hits)


class Written(Protocol):
    """A report that can be written."""

    def table(self) -> str:
        """Aligned text."""

    def json(self) -> str:
        """Everything."""

    def plot(self, file: Path) -> None:
        """A drawing."""


def write(report: Written, folder: Path) -> None:
    """Writes `scores.txt`, `scores.json`, `scores.svg` and `scores.png` into a folder. Raises as `Report.plot` does."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.txt").write_text(report.table() + "\n")
    (folder / "scores.json").write_text(report.json())
    for name in ("scores.svg", "scores.png"):
        report.plot(folder / name)
