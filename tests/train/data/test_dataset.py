"""Paired data and the cache: bad media, same course with and without cache, speed, damage."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.train import scenes
from tests.train.conftest import MakeRun, table
from train.data.sides import DataError
from train.trainer import loop
from train.trainer import run as runs


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / loop.LOG).read_text().splitlines()]


def test_bad_media_are_left_out_counted_and_bounded(tmp_path: Path) -> None:
    scenes.build(tmp_path, "train", range(40))
    media = tmp_path / "media"
    (media / "3.png").unlink()
    (media / "5.depth.png").write_bytes(b"")
    (media / "7.png").write_bytes((media / "7.png").read_bytes()[:60])
    (media / "9.depth.png").write_bytes((media / "9.png").read_bytes())  # a colour picture is no depth map
    result = loop.train(runs.parse(table(tmp_path / "out", max_bad_share=0.1), tmp_path))
    assert len(result.bad) == 4
    assert "3.png: does not exist" in "\n".join(result.bad)
    with pytest.raises(DataError, match=r"4 of 40 pairs are missing or unreadable.*max_bad_share = 0.05"):
        loop.train(runs.parse(table(tmp_path / "strict", max_bad_share=0.05), tmp_path))


def test_manifest_without_pairs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(
        '{"manifest": 1, "name": "n", "license": "CC0-1.0"}\n{"id": "1", "text": "a"}\n'
    )
    with pytest.raises(DataError, match="at least two events with both depth and image"):
        loop.train(runs.parse(table(tmp_path / "out"), tmp_path))


def epoch(trainer: loop._Trainer) -> float:
    """The seconds of a second epoch."""
    started = time.perf_counter()
    for step in range(3, 6):
        trainer._step(step, trainer._batch(step))
    return time.perf_counter() - started


def test_cached_epochs_are_five_times_faster_with_the_same_losses(data: Path, tmp_path: Path) -> None:
    """Variants included: crops of a frozen picture and of its depth map are the same with and without cache."""
    augmented = {"augment": {"views": 2, "crop": 0.5, "flip": True, "jitter": 0.2, "erase": 0.25}}
    seconds = {}
    for cached in (True, False):
        settings = table(tmp_path / str(cached), epochs=2, pair=augmented)
        settings["cache"] = {"features": cached, "views": cached, "folder": str(tmp_path / "cache")}
        trainer = loop._Trainer(runs.parse(settings, data), loop.Ranks(), torch.device("cpu"))
        trainer.train()
        # The second epoch alone, as the loop does it: batch and step. The best of several: other work takes the cores.
        seconds[cached] = min(epoch(trainer) for _ in range(5 if cached else 2))
    np.testing.assert_allclose(losses(tmp_path / "True"), losses(tmp_path / "False"), rtol=0, atol=1e-4)
    assert seconds[True] * 5 < seconds[False], seconds


def test_other_variants_would_give_other_losses(data: Path, tmp_path: Path) -> None:
    """The negative control of the test above."""
    for views in (2, 3):
        loop.train(
            runs.parse(table(tmp_path / str(views), epochs=1, pair={"augment": {"views": views, "crop": 0.5}}), data)
        )
    assert np.abs(np.subtract(losses(tmp_path / "2"), losses(tmp_path / "3"))).max() > 1e-3


def test_second_run_reads_everything_from_the_cache(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.train(make_run(tmp_path / "first"))

    def refuse(*_: Any) -> Any:
        raise AssertionError("a frozen encoder was asked again")

    monkeypatch.setattr("bind.model.model.BindModel.encode_views", refuse)
    monkeypatch.setattr("preprocess.decoding.pool.DecodePool.submit", refuse)
    loop.train(make_run(tmp_path / "second"))
    assert losses(tmp_path / "first") == losses(tmp_path / "second")
