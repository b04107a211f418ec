"""Pictures of a coloured shape before a wall, each with its depth map: pairs in which there is something to learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from preprocess import manifest

SIDE = 96
COLOURS = {"red": (200, 30, 30), "green": (30, 160, 40), "blue": (40, 60, 200), "yellow": (220, 200, 30)}
SHAPES = ("disc", "box", "triangle", "cross", "ring", "bars")


def scene(seed: int) -> tuple[Image.Image, np.ndarray, str, str]:
    """Seed -> RGB picture, uint16 depth in mm, name of the shape, colour. The colour says how far the shape is."""
    rng = np.random.default_rng(seed)
    shape = SHAPES[rng.integers(len(SHAPES))]
    number = int(rng.integers(len(COLOURS)))
    colour = list(COLOURS)[number]
    depth_mm = 1000 + 500 * number + int(rng.integers(150))
    size = int(rng.integers(30, 46))
    x, y = (int(v) for v in rng.integers(size // 2 + 4, SIDE - size // 2 - 4, 2))
    mask = Image.new("L", (SIDE, SIDE))
    _draw(ImageDraw.Draw(mask), shape, x, y, size / 2)
    inside = np.asarray(mask) > 0
    wall = np.linspace(60, 160, SIDE)[None, :, None] + rng.normal(0, 8, (SIDE, SIDE, 1))
    pixels = np.broadcast_to(wall, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8).copy()
    pixels[inside] = COLOURS[colour]
    depths = np.full((SIDE, SIDE), 4000, np.uint16)
    depths[inside] = depth_mm
    return Image.fromarray(pixels), depths, shape, colour


def _draw(draw: ImageDraw.ImageDraw, shape: str, x: int, y: int, half: float) -> None:
    box = (x - half, y - half, x + half, y + half)
    thin = half / 3
    if shape == "disc":
        draw.ellipse(box, fill=255)
    elif shape == "box":
        draw.rectangle(box, fill=255)
    elif shape == "triangle":
        draw.polygon([(x, y - half), (x - half, y + half), (x + half, y + half)], fill=255)
    elif shape == "cross":
        draw.rectangle((x - thin, y - half, x + thin, y + half), fill=255)
        draw.rectangle((x - half, y - thin, x + half, y + thin), fill=255)
    elif shape == "ring":
        draw.ellipse(box, outline=255, width=int(half / 2))
    else:
        for left in (x - half, x - thin / 2, x + half - thin):
            draw.rectangle((left, y - half, left + thin, y + half), fill=255)


def build(root: Path, name: str, seeds: range, shuffled: bool = False) -> Path:
    """Files and a manifest of a set of scenes; `shuffled` pairs each picture with the depth map of another scene."""
    folder = root / "media"
    folder.mkdir(parents=True, exist_ok=True)
    events = []
    partner = np.roll(list(seeds), 1) if shuffled else list(seeds)
    for seed, other in zip(seeds, partner, strict=True):
        picture, depths, shape, colour = scene(seed)
        if not (folder / f"{seed}.depth.png").is_file():
            picture.save(folder / f"{seed}.png")
            Image.fromarray(depths).save(folder / f"{seed}.depth.png")
        events.append(
            {
                "id": str(seed),
                "image": {"path": f"{seed}.png"},
                "depth": {"path": f"{other}.depth.png", "unit": "mm"},
                "text": f"a {colour} {shape}",
                "labels": [shape],
            }
        )
    path = root / f"{name}.jsonl"
    manifest.write(path, {"name": name, "root": "media", "license": "CC0-1.0", "classes": list(SHAPES)}, events)
    return path
