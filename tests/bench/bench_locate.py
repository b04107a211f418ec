"""`model.locate` on mosaics of four of the demonstration's 17 photographs: does it point at the one that is asked for?

The pointing game counts how often the hottest place lies in the right quarter (chance 0.25). The overlap is that of the
best box with the right quarter (intersection over union). Queries are captions, all of them and those that name their
photograph right among the 17, and mirrored photographs; the control compares with another quarter. One thread.

    python -m tests.bench.bench_locate [DATA [OVERLAY]]

With DATA, a folder with the manifests `imagen-five-per-synset` and `animals`, mosaics show four kinds of animals.
Queries are their sounds, names, other photographs of their kind, and sound and name together. OVERLAY is a picture
that is written: a mosaic, and over it where the sound of one of its animals is (as in ImageBind's figure of sounds).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

import bind
from bind.model import locating
from bind.space import Embeddings
from serve.demo.samples import EVERYDAY, SCIENTIFIC
from tests.bench import table
from tests.bench.cpu import COLUMNS, result

MOSAICS, SIDE = 20, 224
_OF_WINDOWS = 6
_QUARTER = [(x * SIDE, y * SIDE, (x + 1) * SIDE, (y + 1) * SIDE) for y in (0, 1) for x in (0, 1)]
Placed = tuple[Image.Image, list[int]]


def mosaics(tiles: list[Image.Image], count: int = MOSAICS, kinds: Sequence[str] | None = None) -> list[Placed]:
    """Square pictures -> mosaics of two by two of them, of four kinds, and which four each shows, row by row."""
    rng = np.random.default_rng(0)
    found = []
    while len(found) < count:
        chosen = [int(number) for number in rng.choice(len(tiles), 4, replace=False)]
        if kinds is not None and len({kinds[number] for number in chosen}) < 4:
            continue
        canvas = Image.new("RGB", (2 * SIDE, 2 * SIDE))
        for number, box in zip(chosen, _QUARTER, strict=True):
            canvas.paste(tiles[number], box[:2])
        found.append((canvas, chosen))
    return found


def square(picture: Image.Image) -> Image.Image:
    """A picture -> its centre, SIDE x SIDE."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    whole = picture.convert("RGB").crop((left, top, left + side, top + side))
    return whole.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def measured(
    model: bind.BindModel, placed: list[Placed], vectors: np.ndarray, asked: Callable[[int], bool]
) -> tuple[float, float, float, float]:
    """Vectors of queries, one for each picture -> the share of right quarters, that of the control, the mean overlap of
    the best box, and the median seconds of a query.
    """
    hits, moved, overlaps, seconds = [], [], [], []
    for canvas, chosen in placed:
        for place, number in enumerate(chosen):
            if not asked(number):
                continue
            started = time.perf_counter()
            found = model.locate(canvas, Embeddings(vectors[[number]], model.space))
            seconds.append(time.perf_counter() - started)
            row, column = np.unravel_index(int(found.heat.argmax()), found.heat.shape)
            rows, columns = found.heat.shape
            pointed = 2 * (2 * row // rows) + 2 * column // columns
            hits.append(pointed == place)
            moved.append(pointed == (place + 1) % 4)
            overlaps.append(max((locating.overlap(box, _QUARTER[place]) for box in found.boxes[:1]), default=0.0))
    return float(np.mean(hits)), float(np.mean(moved)), float(np.mean(overlaps)), float(np.median(seconds))


def run() -> list[dict[str, Any]]:
    """The rows of the table: places, and windows as their peer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _rows()
    finally:
        torch.set_num_threads(before)


def _rows() -> list[dict[str, Any]]:
    model = bind.load("small", modalities=["image", "text"])
    samples = EVERYDAY + SCIENTIFIC
    tiles = [square(Image.open(sample.path)) for sample in samples]
    words = model.embed([sample.caption for sample in samples], modality="text").vectors
    mirrored = [tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for tile in tiles]
    pictures, prompts = (model.embed(some).vectors for some in (tiles, mirrored))
    named = (pictures @ words.T).argmax(1) == np.arange(len(samples))
    placed = mosaics(tiles)
    games: list[tuple[str, np.ndarray, Callable[[int], bool]]] = [
        (f"words that name their picture ({int(named.sum())} of 17)", words, lambda number: bool(named[number])),
        ("all words", words, lambda _: True),
        ("mirrored pictures", prompts, lambda _: True),
    ]
    return [row for game in games for row in _row(model, placed, *game, _OF_WINDOWS)]


def _row(
    model: bind.BindModel,
    placed: list[Placed],
    name: str,
    vectors: np.ndarray,
    asked: Callable[[int], bool],
    of_windows: int,
) -> list[dict[str, Any]]:
    """The figures of one kind of query, beside those of windows on the first `of_windows` mosaics."""
    figures = (("pointing", "share"), ("pointing, control", "share"), ("overlap", "IoU"), ("one query", "s"))
    ours = measured(model, placed, vectors, asked)
    with patch("bind.encoders.efficientnet.EfficientNet.places", None):
        peer = measured(model, placed[:of_windows], vectors, asked)
    is_windows = f"windows, {of_windows} mosaics"
    return [
        result(f"locate, {name}: {what}", unit, own, peer=other, peer_is=is_windows)
        for (what, unit), own, other in zip(figures, ours, peer, strict=True)
    ]


_ANIMALS = {
    "bird": "a bird singing",
    "domestic cat": "a cat meowing",
    "cattle": "a cow mooing",
    "dog": "a dog barking",
    "frog": "a frog croaking",
    "lion": "a lion roaring",
    "monkey": "a monkey screeching",
    "sheep": "a sheep bleating",
}
"""The label of the pictures of an animal -> that of its sounds."""
_ANIMAL_MOSAICS, _ANIMALS_OF_WINDOWS = 16, 2


def run_animals(data: str, overlay: str | None = None) -> list[dict[str, Any]]:
    """The rows of sounds as queries, on mosaics of animals; `overlay` is the picture to write."""
    from train.small.data import find

    torch.set_num_threads(1)
    model = bind.load("small", modalities=["image", "text", "audio"])
    rng = np.random.default_rng(0)
    sets = find(data, "all")
    events = [one for one in sets.events("imagen", "test") if one.labels[0] in _ANIMALS]
    kinds = [one.labels[0] for one in events]
    tiles = [square(Image.open(str(one.media["image"].content))) for one in events]
    heard: dict[str, list[Any]] = {}
    for one in sets.events("animals", "train"):
        heard.setdefault(one.labels[0], []).append(str(one.media["audio"].content))
    chosen = [str(rng.choice(heard[_ANIMALS[kind]])) for kind in kinds]
    others = [
        int(rng.choice([at for at in range(len(kinds)) if kinds[at] == kinds[to] and at != to]))
        for to in range(len(kinds))
    ]
    sounds = model.embed(chosen, modality="audio").vectors
    words = model.embed([f"a {kind}" for kind in kinds], modality="text").vectors
    pictures = model.embed(tiles).vectors[others]
    both = np.stack(
        [
            bind.combine(Embeddings(np.stack(two), model.space), [1, 1]).vectors[0]
            for two in zip(sounds, words, strict=True)
        ]
    )
    placed = mosaics(tiles, _ANIMAL_MOSAICS, kinds)
    if overlay is not None:
        canvas, shown = placed[0]
        locating.overlay(model.locate(canvas, Embeddings(sounds[shown[:1]], model.space)), canvas).save(overlay)
        print(f"{overlay}: {kinds[shown[0]]} by {chosen[shown[0]]}, upper left", file=sys.stderr)
    games = (("sounds", sounds), ("names", words), ("other pictures of the kind", pictures), ("sounds + names", both))
    return [
        row
        for name, vectors in games
        for row in _row(model, placed, f"animals, {name}", vectors, lambda _: True, _ANIMALS_OF_WINDOWS)
    ]


if __name__ == "__main__":
    found = run_animals(*sys.argv[1:3]) if len(sys.argv) > 1 else run()
    print(table.head(COLUMNS))
    for line in found:
        print(table.line(line, COLUMNS))
