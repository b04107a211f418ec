"""A small set of scenes on disk, and runs on it that take a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import pytest
import torch

from tests.train import scenes
from train.trainer import run as runs
from train.trainer.schema import Run

BASE = ("image", "video", "text")
"""What of `small` the runs bind to; the others of its modalities are bound anew."""


class MakeRun(Protocol):
    def __call__(self, out: Path, **train: Any) -> Run: ...


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process and those that a test starts: with more, sums would differ in their last bit from run to run."""
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl (40 scenes) and test.jsonl (20), and the cache of all runs on them."""
    root = tmp_path_factory.mktemp("scenes")
    scenes.build(root, "train", range(40))
    scenes.build(root, "test", range(1000, 1020))
    return root


def table(out: Path, **train: Any) -> dict[str, Any]:
    """The table of a run of 12 steps."""
    pair = {"modality": "depth", "manifests": ["train.jsonl"], "batch_size": 12, "augment": {"erase": 0.5}}
    pair |= train.pop("pair", {})
    return {
        "name": "test",
        "out": str(out),
        "base": {"modalities": list(BASE)},
        "modalities": {"depth": {"encoder": {"widths": [8, 16]}, "preprocess": {"size": 32}}},
        "train": {"epochs": 4, "warmup_epochs": 1, "log_every": 1, "pairs": [pair], **train},
    }


@pytest.fixture
def make_run(data: Path) -> MakeRun:
    def make(out: Path, **train: Any) -> Run:
        return runs.parse(table(out, **train), data)

    return make
