"""`crossbind locate` as a person and a program meet it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from serve.demo.samples import EVERYDAY
from tests.serve.cli.test_cli import crossbind


def test_says_where_and_draws_it(tmp_path: Path) -> None:
    cat, coffee = (Image.open(sample.path).convert("RGB").resize((200, 200)) for sample in EVERYDAY[1:3])
    canvas = Image.new("RGB", (400, 200))
    canvas.paste(cat, (0, 0))
    canvas.paste(coffee, (200, 0))
    picture, prompt, out = tmp_path / "both.png", tmp_path / "coffee.png", tmp_path / "overlay.png"
    canvas.save(picture)
    coffee.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(prompt)
    done = crossbind("locate", picture, f"image:{prompt}", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    heat, best = np.array(told["heat"]), told["boxes"][0]
    assert (told["width"], told["height"]) == (400, 200)
    assert heat.argmax() % heat.shape[1] >= heat.shape[1] // 2, "the coffee is on the right"
    assert (best["x0"] + best["x1"]) / 2 > 200
    assert Image.open(out).size == (400, 200)


def test_refusals_name_what_is_wrong(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (40, 40), "red").save(picture)
    done = crossbind("locate", picture, "a dog", "--out", tmp_path / "overlay.txt")
    assert done.returncode == 2 and "--out" in done.stderr
    done = crossbind("locate", tmp_path / "none.png", "a dog")
    assert done.returncode == 1 and "does not exist" in done.stderr
    done = crossbind("locate", picture, "dog + ")
    assert done.returncode == 2 and "expected a path" in done.stderr
