"""`model.locate` on mosaics of four of the demonstration's 17 photographs: does it point at the one that is asked for?

The pointing game counts how often the hottest place lies in the right quarter (chance 0.25). The overlap is that of the
best box with the right quarter (intersection over union). Queries are captions, all of them and those that name their
photograph right among the 17, and mirrored photographs; the control compares with another quarter. One thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

import bind
from bind.model import locating
from bind.space import Embeddings
from serve.demo.samples import EVERYDAY, SCIENTIFIC
from tests.bench.cpu import result

MOSAICS, SIDE = 20, 224
_OF_WINDOWS = 6
_QUARTER = [(x * SIDE, y * SIDE, (x + 1) * SIDE, (y + 1) * SIDE) for y in (0, 1) for x in (0, 1)]
Placed = tuple[Image.Image, list[int]]


def mosaics(tiles: list[Image.Image], count: int = MOSAICS) -> list[Placed]:
    """Square pictures -> mosaics of two by two of them, and which four each shows, row by row."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        chosen = [int(number) for number in rng.choice(len(tiles), 4, replace=False)]
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
    figures = (("pointing", "share"), ("pointing, control", "share"), ("overlap", "IoU"), ("one query", "s"))
    rows = []
    for name, vectors, asked in games:
        ours = measured(model, placed, vectors, asked)
        with patch("bind.encoders.efficientnet.EfficientNet.places", None):
            peer = measured(model, placed[:_OF_WINDOWS], vectors, asked)
        for (what, unit), own, other in zip(figures, ours, peer, strict=True):
            is_windows = f"windows, {_OF_WINDOWS} mosaics"
            rows.append(result(f"locate, {name}: {what}", unit, own, peer=other, peer_is=is_windows))
    return rows
