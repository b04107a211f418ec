"""How well `small` finds pictures by name, names by picture, one hand's drawing by another's: on names held out.

    python -m train.small_tables DATA OUT [HEADS]      # HEADS is a folder, else those shipped

prints each figure with its interval (95 %, bootstrap over names) and what chance would give.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from bind import zoo
from preprocess.media import Source
from train import small
from train.small import Heads, Item, Trunks
from train.splits import key

_HANDS = ("google", "twitter", "fluent", "openmoji")
"""The hands of the emoji tables; the last was not trained on."""
_RESAMPLES = 2000
_COMPOSED, _SCENES = 120, 8
"""Composed queries, and in how many pictures of the gallery each of their things stands."""


@dataclass(frozen=True)
class Figure:
    """A share of right answers over `count` queries, its 95 % interval, and that of an answer at random."""

    name: str
    share: float
    low: float
    high: float
    chance: float
    count: int

    def __str__(self) -> str:
        between = f"{self.low:.2f} to {self.high:.2f}"
        return f"| {self.name} | {self.share:.3f} | {between} | {self.chance:.3f} | {self.count} |"


def read_heads(folder: Path) -> Heads:
    """A folder with `image.safetensors` and `text.safetensors` -> both heads."""
    states = (load_file(folder / f"{name}.safetensors") for name in ("image", "text"))
    return Heads(*((state["head.weight"].float().T, state["head.bias"].float()) for state in states))


def figures(items: list[Item], features: Tensor, vectors: dict[str, Tensor], heads: Heads) -> Iterator[Figure]:
    """All items with their features -> the figures on the side `test`. One picture a name stands in a gallery."""
    rows: dict[str, dict[str, int]] = {}
    for row, item in enumerate(items):
        if item.side == "test":
            gallery = rows.setdefault(item.hand, {})
            # Of twins ("man X", "woman X") the one with the shortest name.
            old = gallery.get(key(item.name))
            if old is None or len(item.name) < len(items[old].name):
                gallery[key(item.name)] = row
    pictures = heads.pictures(features)
    # OpenMoji has emoji of its own, which no other hand drew.
    unicode = rows.get("google", {})
    shown = {
        hand: [row for name, row in gallery.items() if hand not in _HANDS or name in unicode]
        for hand, gallery in rows.items()
    }
    emoji = [shown[hand] for hand in _HANDS if hand in shown]
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
        for hand in _HANDS:
            both = sorted(set(rows.get(hand, {})) & set(rows.get(other, {})))
            if hand != other and both:
                a, b = (pictures[[rows[h][name] for name in both]] for h in (hand, other))
                found.append(_found(a @ b.T, torch.eye(len(both), dtype=torch.bool), 1))
        if found:
            yield _figure(f"the same emoji by {other}, recall@1 of {len(found[0])}", found, 1 / len(found[0]))


def composed(items: list[Item], features: Tensor, vectors: dict[str, Tensor], heads: Heads) -> Iterator[Figure]:
    """Picture A + name B -> a picture with both side by side, drawn by another hand, among pictures with one of them.

    All of held-out emoji; each A and each B stands in eight pictures of the gallery, only one has both. A tie with a
    part counts as lost.
    """
    by = {
        hand: {key(i.name): n for n, i in enumerate(items) if i.hand == hand and i.side == "test"}
        for hand in ("google", "twitter")
    }
    names = sorted(set(by["google"]) & set(by["twitter"]))
    order = np.random.default_rng(0).permutation(len(names))[: 2 * _COMPOSED]
    first, second = ([names[n] for n in order[start::2]] for start in (0, 1))
    trunks, shown = Trunks(), []
    pairs = [(a, second[(n + shift) % len(second)]) for shift in range(_SCENES) for n, a in enumerate(first)]
    for pair in pairs:
        drawings = [Image.open(items[by["twitter"][name]].source.name).convert("RGBA") for name in pair]
        scene = Image.new("RGBA", (224, 224), "white")
        for place, drawing in zip((0, 112), drawings, strict=True):
            scene.alpha_composite(drawing.resize((112, 112), Image.Resampling.BICUBIC), (place, 56))
        shown.append(trunks.picture(Source(scene.convert("RGB"), " and ".join(pair))))
    gallery = heads.pictures(torch.stack(shown))
    a = heads.pictures(features[[by["google"][name] for name in first]])
    b = heads.texts(torch.stack([vectors[items[by["google"][name]].captions[0]] for name in second]))
    ranks = []
    for query in (F.normalize(a + b, dim=1), a, b):
        cosines = query @ gallery.T
        own = cosines.diagonal()[:, None]
        ranks.append((cosines > own).sum(1))
    both, picture, text = ranks
    found = [((both < picture) & (both < text)).float()]
    yield _figure("picture + name: the target higher than for either part", found, 1 / 3)
    yield _figure("picture + name: higher than for the picture", [(both < picture).float()], 1 / 2)
    yield _figure("picture + name: higher than for the name", [(both < text).float()], 1 / 2)
    for name, rank in (("picture + name", both), ("the picture alone", picture), ("the name alone", text)):
        yield _figure(f"{name}: recall@10 of {len(pairs)}", [(rank < 10).float()], 10 / len(pairs))


def _found(cosines: Tensor, right: Tensor, k: int) -> Tensor:
    """(Q, G) cosines, and which are right -> (Q,) 1 where a right one is among the first k."""
    best = cosines.masked_fill(~right, -2).amax(1, keepdim=True)
    return (((cosines >= best) & ~right).sum(1) < k).float()


def _figure(name: str, found: list[Tensor], chance: float) -> Figure:
    """The mean over galleries; what is drawn anew are the names, in all galleries at once."""
    shares = torch.cat(found).numpy()
    rng = np.random.default_rng(0)
    parts = [part.numpy() for part in found]
    draws = rng.random((_RESAMPLES, max(map(len, parts))))
    means = np.mean([part[(draws[:, : len(part)] * len(part)).astype(int)].mean(1) for part in parts], 0)
    low, high = np.quantile(means, (0.025, 0.975))
    return Figure(name, float(np.mean([part.mean() for part in parts])), low, high, chance, len(shares))


def main() -> None:
    """Prints the tables."""
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    folder = Path(sys.argv[3]) if len(sys.argv) > 3 else Path(zoo.__file__).parent / "small"
    items, features, vectors, _ = small.prepared(data, out)
    heads = read_heads(folder)
    print("| held-out names | share | 95 % | chance | queries |\n|---|---|---|---|---|")
    for figure in (*figures(items, features, vectors, heads), *composed(items, features, vectors, heads)):
        print(figure, flush=True)


if __name__ == "__main__":
    main()
