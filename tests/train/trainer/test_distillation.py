"""Distillation: the loss against its plain formula, and that a teacher is listened to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import bind
from bind import checkpoint
from tests.train.conftest import BASE, MakeRun
from train.trainer import loop
from train.trainer import run as runs
from train.trainer.distillation import similarity_loss


def unit(seed: int, rows: int, width: int) -> Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def divergence(logits: Tensor, target: Tensor) -> Tensor:
    """The plain formula, one row at a time."""
    rows = [
        (q.softmax(0) * (q.softmax(0).log() - p.softmax(0).log())).sum() for p, q in zip(logits, target, strict=True)
    ]
    return torch.stack(rows).mean()


def test_equals_the_plain_formula_in_value_and_gradients() -> None:
    a, b = (unit(seed, 7, 4).requires_grad_() for seed in (0, 1))
    scale = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
    ta, tb = unit(2, 7, 5), unit(3, 7, 5)
    expected = (divergence(scale * a @ b.T, 3 * ta @ tb.T) + divergence(scale * b @ a.T, 3 * tb @ ta.T)) / 2
    found = similarity_loss(a, b, scale, ta, tb, 3.0)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    gradients = [torch.autograd.grad(value, (a, b, scale)) for value in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert abs(similarity_loss(a, b, scale, tb, ta, 3.0) - expected) > 1e-3  # the formula tells the sides apart


def test_is_zero_where_both_find_everything_equally_similar() -> None:
    a, b = unit(0, 7, 4), unit(1, 7, 4)
    turned = torch.linalg.qr(torch.randn(6, 4, dtype=torch.float64)).Q.T  # into another space, of 6 dimensions
    scale = torch.tensor(9.0, dtype=torch.float64)
    assert abs(similarity_loss(a, b, scale, a @ turned, b @ turned, 9.0)) < 1e-12
    assert similarity_loss(a, b, scale, a @ turned, b @ turned, 3.0) > 1e-2


def test_a_teacher_is_listened_to(data: Path, tmp_path: Path) -> None:
    """A new head of texts finds them and their pictures as similar as `small` does; without a teacher it does not."""
    found = {}
    text = {"train": "head", "head": {"type": "linear"}}
    pair = {"modality": "text", "anchor": "image", "manifests": ["train.jsonl"], "batch_size": 40, "temperature": 0.1}
    for name in ("alone", "taught"):
        teacher = {"teacher": {"model": "small", "weight": 20.0, "temperature": 0.1}} if name == "taught" else {}
        settings = {"steps": 100, "warmup_epochs": 0, "pairs": [pair | teacher]}
        table = {"name": "x", "out": str(tmp_path / name), "modalities": {"text": text}, "train": settings}
        table["base"] = {"modalities": list(BASE)}
        trainer = loop._Trainer(runs.parse(table, data), loop.Ranks(), torch.device("cpu"))
        trainer.train()
        texts, pictures = trainer.data[0].embed([trainer.starts["text"].tower, None])
        of_texts = trainer.base.embed(
            [event.texts[0] for event in next(iter(trainer.manifests.values())).events], "text"
        )
        target = torch.tensor(of_texts.vectors)
        found[name] = float(similarity_loss(texts, pictures, torch.tensor(10.0), target, pictures, 10.0))
    assert found["taught"] < 0.5 * found["alone"], found


def test_a_teacher_sees_both_sides_or_one_of_them(make_run: MakeRun, tmp_path: Path) -> None:
    small = bind.load("small", modalities=BASE)
    eyes = {name: small.description.modalities[name] for name in BASE}
    towers = {name: small.tower(name) for name in BASE}
    checkpoint.write(tmp_path / "eyes", small.description.model_copy(update={"modalities": eyes}), towers)
    teacher = {"model": str(tmp_path / "eyes")}
    run = make_run(tmp_path / "out", pair={"teacher": teacher, "augment": {"views": 2, "crop": 0.5}})
    trainer = loop._Trainer(run, loop.Ranks(), torch.device("cpu"))
    batch = trainer.data[0].batch([3, 4, 5], turn=0)
    assert batch.teacher
    assert torch.equal(*batch.teacher)  # it has no depth
    assert torch.equal(batch.teacher[1], batch.sides[1])  # the same pictures in the same crops
    pair = run.train.pairs[0].model_copy(update={"modality": "text"})
    of_text, of_picture = trainer._teacher(pair) or (None, None)
    assert of_text and of_picture
    assert (of_text.modality, of_picture.modality) == ("text", "image")


def test_a_teacher_of_neither_side_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(runs.RunError, match=r"teacher: no model 'large'"):
        make_run(tmp_path, pair={"teacher": {"model": "large"}})
    imu = {"modality": "imu", "anchor": "thermal", "manifests": ["train.jsonl"], "teacher": {"model": "clip-vit-b32"}}
    with pytest.raises(runs.RunError, match="teacher: clip-vit-b32 has neither imu nor thermal"):
        runs.parse({"name": "x", "out": "x", "train": {"pairs": [imu]}}, tmp_path)
