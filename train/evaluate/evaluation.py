"""How good a model is on manifests: retrieval between every two modalities, zero-shot classes, few-shot probes.

Every number has a 95% interval from bootstrap over its queries or items, and says whether the checkpoint records that
the two modalities were trained together ("trained") or not ("emergent").
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from bind.description import Description
from bind.model.model import BindModel
from bind.model.pooling import mean_of_views
from preprocess import manifest
from preprocess.manifest import Event, Manifest
from preprocess.source import Limits
from train.evaluate.items import Items, embedded, paired
from train.evaluate.metrics import RECALLS, average_precision, bootstrap, probe, ranks
from train.evaluate.report import Report, Score

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
SHOTS = (1, 2, 4, 8, 16)
"""Examples of each class from which a few-shot classifier is fitted."""
_RESAMPLES_OF_MAP = 200
"""Bootstrap samples of a mean average precision; each is a sort for every class, so they are fewer than of other
figures."""
_DRAWS = 3
"""Sets of examples that a few-shot result is the mean of."""


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


def pair_kind(description: Description, first: str, second: str) -> str:
    """Whether a model's own record has this pair: "trained" or "emergent".

    A modality that shares another's encoder counts as that one: video is no news to what was trained against images.
    """
    owners = description.towers()
    wanted = {owners.get(first, first), owners.get(second, second)}
    trained = [{owners.get(a, a), owners.get(b, b)} for a, b in description.trained]
    return "trained" if wanted in trained or len(wanted) == 1 else "emergent"


def _retrieval(query: Items, target: Items, rng: np.random.Generator) -> Iterable[tuple[str, float, float, float, int]]:
    query, target, query_keys, target_keys = paired(query, target)
    if len(np.unique(query.events)) < 2:
        return
    count = len(query_keys)
    found = ranks(query.vectors, target.vectors, query_keys, target_keys)
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
    vectors_of_prompts = torch.tensor(model.embed(prompts, "text").vectors)
    class_vectors = mean_of_views(vectors_of_prompts, [len(templates)] * len(names)).numpy()
    first_names = np.flatnonzero(np.diff([number for number, _ in names], prepend=-1))
    scores: np.ndarray = np.maximum.reduceat(vectors @ class_vectors.T, first_names, axis=1)
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
