"""Training the audio recipe (`train/runs/audio.toml`) on one GPU with cached image features: the real loop, from disk.

`python -m tests.bench train_gpu`. The anchors come from the cache, so any image tower will do; what encoding them in
every step would add is measured with ViT-H/14 in the same process.
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image

from bind import description
from bind.encoders import imagebind
from bind.kernels.transformer import Fused
from bind.model import loading
from tests.bench.bench_encode_gpu import CASES, Encoder, examples, operations
from tests.bench.gpu import matrix_rate, milliseconds, result
from train.trainer import loop
from train.trainer import run as runs

RECIPE = Path(runs.__file__).parents[1] / "runs" / "audio.toml"
STEPS, WARM = 8, 3
WAYS = {
    "gradient caching": (2048, 512, False),
    "one pass": (512, 0, False),
    "one pass, compiled": (512, 0, True),
}
"""Batch, micro-batch, `compile`: the recipe's batch, which does not fit one GPU at once, and one that does."""


def make_data(folder: Path, count: int) -> None:
    """`count` sounds of 3 s with a picture each, and their manifest."""
    rng = np.random.default_rng(0)
    lines: list[dict[str, Any]] = [{"manifest": 1, "name": "sounds", "root": ".", "license": "none"}]
    for number in range(count):
        soundfile.write(folder / f"{number}.wav", rng.normal(0, 0.1, 48_000), 16_000, "PCM_16")
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{number}.png")
        event = {"image": {"path": f"{number}.png"}, "audio": {"path": f"{number}.wav"}}
        lines.append({"id": str(number), **event})
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def make_base(folder: Path) -> None:
    """A small frozen image tower in a space of 1,024 dimensions, as a checkpoint folder."""
    encoder = {"module": "imagebind", "modality": "vision", "width": 64, "depth": 2, "heads": 2}
    table = {
        "format": 1,
        "name": "base",
        "dim": 1024,
        "license": "none",
        "about": "random weights",
        "trained": [],
        "modalities": {"image": {"encoder": encoder, "head": {"type": "linear"}}},
    }
    loading.random(description.parse(table, "base"), "cpu", torch.float32, None).save(folder)


def recipe(folder: Path, name: str, batch: int, micro_batch: int, compile: bool) -> runs.Run:
    """The recipe on that data: its encoder, optimizer, augmentation and precision; a few steps."""
    table = tomllib.loads(RECIPE.read_text())
    table |= {"out": f"out-{name}", "base": {"model": "base"}, "cache": {"folder": "cache"}, "compile": compile}
    table.pop("evaluate", None)
    table["modalities"]["audio"]["preprocess"] = {"clips": 1}
    (pair,) = table["train"]["pairs"]
    pair |= {"manifests": ["train.jsonl"], "batch_size": batch}
    table["train"] |= {"steps": STEPS, "micro_batch": micro_batch, "log_every": 1}
    return runs.parse(table, folder, name)


def step_seconds(run: runs.Run) -> float:
    """Trains and gives the median time of a step, the first ones left out."""
    with contextlib.redirect_stderr(io.StringIO()):
        loop.train(run)
    lines = [json.loads(line) for line in (Path(run.out) / loop.LOG).read_text().splitlines()]
    ends = [line["seconds"] for line in lines if "loss" in line]
    return statistics.median(np.diff(ends)[WARM - 1 :].tolist())


def images_per_s() -> float:
    """ViT-H/14, fused bfloat16, batches of 256."""
    case = CASES["image, ViT-H/14"]
    with torch.device("cuda"):
        model = Encoder(case).eval().bfloat16()
    model.encoder.trunk.fused = Fused(model.encoder.trunk.blocks)
    batch = examples(case, 256, "cuda").bfloat16()
    return 1000 * 256 / milliseconds(lambda: model(batch), least_s=1.0)


def run() -> list[dict[str, Any]]:
    """A row a way to fit the batch."""
    assert (
        tomllib.loads(RECIPE.read_text())["modalities"]["audio"]["encoder"]["width"] == imagebind.HUGE["audio"]["width"]
    )
    rate, images = matrix_rate(), images_per_s()
    torch.cuda.empty_cache()
    clip = operations(CASES["audio, 3 clips"]) / 3
    most = rate * 1e12 / (3 * clip)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder, max(batch for batch, *_ in WAYS.values()))
        make_base(folder / "base")
        for number, (way, settings) in enumerate(WAYS.items()):
            batch = settings[0]
            torch.cuda.reset_peak_memory_stats()
            seconds = step_seconds(recipe(folder, f"run-{number}", *settings))
            with_images = seconds + batch / images
            rows.append(
                result(
                    f"training the audio recipe, batch {batch:,}, {way}",
                    "sounds/s",
                    batch / seconds,
                    peer=batch / with_images,
                    peer_is=f"encoding the images every step (ViT-H/14 at {images:,.0f}/s)",
                    ceiling=most,
                    ceiling_is=f"3 x {clip / 1e9:.1f} GFLOP a sound at {rate:.0f} TFLOP/s",
                    note=f"share {batch / seconds / most:.2f}; {seconds:.2f} s a step; "
                    f"{torch.cuda.max_memory_allocated() / 2**30:.0f} GiB at most",
                )
            )
            torch.cuda.empty_cache()
    return rows
