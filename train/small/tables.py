"""Retrieval of `small` on held-out names: pictures by name, names by picture, one artist's drawings by another's.

    python -m train.small.tables DATA PACKAGES OUT [MODEL]      # MODEL is a checkpoint folder, else `small` as shipped

prints each figure with its 95 % interval (bootstrap over names) and chance. DATA, PACKAGES and OUT are those of
`train.small.pictures`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bind import zoo
from bind.model.model import BindModel
from train.small.pictures import Item, features_of, prepared
from train.small.splits import key

_HANDS = ("google", "twitter", "fluent", "openmoji")
"""The artists of the emoji tables; the last one was not trained on."""
_RESAMPLES = 2000
"""Bootstrap samples for an interval of 95 %."""


@dataclass(frozen=True)
class Figure:
    """A share of right answers over `count` queries, its 95 % interval, and the share of random answers."""

    name: str
    share: float
    low: float
    high: float
    chance: float
    count: int

    def __str__(self) -> str:
        between = f"{self.low:.2f} to {self.high:.2f}"
        return f"| {self.name} | {self.share:.3f} | {between} | {self.chance:.3f} | {self.count} |"


class Projections(Protocol):
    """Features of pictures (N, W) and of texts (N, V) -> their vectors (N, D), unit rows."""

    def pictures(self, features: Tensor) -> Tensor:
        """Of pictures."""
        ...

    def texts(self, features: Tensor) -> Tensor:
        """Of texts."""
        ...


class Shipped:
    """The heads of a model, with all that they do, on features of its trunks."""

    def __init__(self, model: BindModel) -> None:
        self._image, self._text = (model.tower(name).head for name in ("image", "text"))

    @torch.inference_mode()
    def pictures(self, features: Tensor) -> Tensor:
        """Features of pictures (N, W) -> (N, D) unit rows."""
        return F.normalize(self._image(features), dim=1)

    @torch.inference_mode()
    def texts(self, features: Tensor) -> Tensor:
        """Features of texts (N, V) -> (N, D) unit rows."""
        return F.normalize(self._text(features), dim=1)


def figures(items: list[Item], features: Tensor, vectors: dict[str, Tensor], heads: Projections) -> Iterator[Figure]:
    """All items and their features (N, W) -> the figures on the test side. A gallery has one picture of each name."""
    rows: dict[str, dict[str, int]] = {}
    for row, item in enumerate(items):
        if item.side == "test":
            gallery = rows.setdefault(item.artist, {})
            # Of twins ("man X", "woman X") the one with the shortest name is taken.
            old = gallery.get(key(item.name))
            if old is None or len(item.name) < len(items[old].name):
                gallery[key(item.name)] = row
    pictures = heads.pictures(features)
    # OpenMoji has emoji of its own, which no other artist drew.
    unicode = rows.get("google", {})
    shown = {
        artist: [row for name, row in gallery.items() if artist not in _HANDS or name in unicode]
        for artist, gallery in rows.items()
    }
    emoji = [shown[artist] for artist in _HANDS if artist in shown]
    for name, parts, k in (
        ("emoji", emoji, 10),
        ("stamps", [shown["stamps"]], 10),
        ("clip art", [shown["openclipart"]], 10),
        ("all three in one gallery (emoji by google)", [shown["google"] + shown["stamps"] + shown["openclipart"]], 10),
    ):
        forth, back, size = [], [], 0
        for part in parts:
            texts = heads.texts(torch.stack([vectors[items[row].captions[0]] for row in part]))
            names = np.array([key(items[row].name) for row in part])
            right = torch.from_numpy(names[:, None] == names)
            cosines = texts @ pictures[part].T
            forth.append(_found(cosines, right, k))
            back.append(_found(cosines.T, right, k))
            size = len(part)
        yield _figure(f"{name}: text -> picture, recall@{k} of {size}", forth, k / size)
        yield _figure(f"{name}: picture -> text, recall@{k} of {size}", back, k / size)
    for other in _HANDS:
        found = []
        for artist in _HANDS:
            both = sorted(set(rows.get(artist, {})) & set(rows.get(other, {})))
            if artist != other and both:
                a, b = (pictures[[rows[h][name] for name in both]] for h in (artist, other))
                found.append(_found(a @ b.T, torch.eye(len(both), dtype=torch.bool), 1))
        if found:
            yield _figure(f"the same emoji by {other}, recall@1 of {len(found[0])}", found, 1 / len(found[0]))


def _found(cosines: Tensor, right: Tensor, k: int) -> Tensor:
    """(Q, G) cosines, and which are right -> (Q,) 1 where a right one is among the first k."""
    best = cosines.masked_fill(~right, -2).amax(1, keepdim=True)
    return (((cosines >= best) & ~right).sum(1) < k).float()


def _figure(name: str, found: list[Tensor], chance: float) -> Figure:
    """The mean over galleries; the bootstrap draws names, the same in all galleries."""
    shares = torch.cat(found).numpy()
    rng = np.random.default_rng(0)
    parts = [part.numpy() for part in found]
    draws = rng.random((_RESAMPLES, max(map(len, parts))))
    means = np.mean([part[(draws[:, : len(part)] * len(part)).astype(int)].mean(1) for part in parts], 0)
    low, high = np.quantile(means, (0.025, 0.975))
    return Figure(name, float(np.mean([part.mean() for part in parts])), low, high, chance, len(shares))


def in_languages(
    items: list[Item], features: Tensor, vectors: dict[str, Tensor], heads: Projections
) -> Iterator[Figure]:
    """All items and their features (N, W) -> for each language, how well names of held-out emoji find their pictures.

    Names are CLDR's; the gallery is one artist's held-out emoji that have a name in that language.
    """
    galleries: dict[str, dict[str, int]] = {}
    for row, item in enumerate(items):
        if item.side == "test" and item.artist in _HANDS:
            galleries.setdefault(item.artist, {}).setdefault(key(item.name), row)
    unicode = galleries.get("google", {})
    pictures = heads.pictures(features)
    for language in sorted({language for item in items if item.kind == "emoji" for language in item.spoken}):
        found, size = [], 0
        for gallery in galleries.values():
            rows = [row for name, row in gallery.items() if name in unicode and items[row].spoken.get(language)]
            texts = heads.texts(torch.stack([vectors[items[row].spoken[language][0]] for row in rows]))
            found.append(_found(texts @ pictures[rows].T, torch.eye(len(rows), dtype=torch.bool), 10))
            size = len(rows)
        yield _figure(f"emoji by their names in {language}, recall@10 of {size}", found, 10 / size)


def main() -> None:
    """Prints the tables."""
    data, packages, out = map(Path, sys.argv[1:4])
    model = zoo.load(sys.argv[4] if len(sys.argv) > 4 else "small", modalities=["image", "text"])
    items, pixels, vectors, trunks = prepared(data, packages, out, free=False)
    rows = [row for row, item in enumerate(items) if item.side == "test"]
    trunks.image.load_state_dict(model.tower("image").encoder.state_dict())
    test_items = [items[row] for row in rows]
    features = features_of(trunks.image, test_items, pixels[rows], 0)[0].float().cpu()
    heads = Shipped(model)
    vectors = {text: vector.float() for text, vector in vectors.items()}
    print("| held-out names | share | 95 % | chance | queries |\n|---|---|---|---|---|")
    for figure in (*figures(test_items, features, vectors, heads), *in_languages(test_items, features, vectors, heads)):
        print(figure, flush=True)


if __name__ == "__main__":
    main()
