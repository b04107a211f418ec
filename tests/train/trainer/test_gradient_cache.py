"""A cached step against the plain step it stands for, also with dropout, autocast and several real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from bind.loss.contrastive import LogitScale, info_nce
from train.trainer.gradient_cache import cached_step

ROOT = Path(__file__).parents[3]


class Pair(nn.Module):
    """Two encoders of two layers with dropout between."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoders = nn.ModuleList(
            nn.Sequential(nn.Linear(7, 16), nn.GELU(), nn.Dropout(0.5), nn.Linear(16, 5)).double() for _ in range(2)
        )

    def forward(self, sides: Tensor) -> tuple[Tensor, ...]:
        pairs = zip(self.encoders, sides, strict=True)
        return tuple(functional.normalize(encoder(rows), dim=1) for encoder, rows in pairs)


def batches(rank: int = 0) -> list[Tensor]:
    """Three batches of different sizes, (2, b, 7)."""
    generator = torch.Generator().manual_seed(rank)
    return [torch.randn(2, size, 7, dtype=torch.float64, generator=generator) for size in (4, 4, 3)]


def plain_step(model: nn.Module, scale: LogitScale) -> Tensor:
    sides = zip(*(model(batch) for batch in batches()), strict=True)
    value = info_nce(*(torch.cat(side) for side in sides), scale())
    value.backward()
    return value.detach()


def results(step: str, seed: int = 1) -> list[Tensor]:
    """Value, gradients of encoders and scale, and the next random number."""
    model, scale = Pair(), LogitScale().double()
    torch.manual_seed(seed)
    if step == "plain":
        value = plain_step(model, scale)
    else:
        value = cached_step(model, batches(), lambda a, b: info_nce(a, b, scale()))
    gradients = [parameter.grad for parameter in (*model.parameters(), *scale.parameters())]
    return [value, *(gradient for gradient in gradients if gradient is not None), torch.rand(1)]


def test_equals_the_plain_step_in_every_gradient() -> None:
    cached, plain = results("cached"), results("plain")
    assert len(cached) == len(plain) == 11
    for mine, expected in zip(cached, plain, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-14)


def test_other_dropout_gives_other_gradients() -> None:
    cached, plain = results("cached"), results("plain", seed=2)
    for mine, expected in zip(cached, plain, strict=True):
        assert (mine - expected).abs().max() > 1e-3 * expected.abs().max()


def test_activations_of_one_batch_at_a_time() -> None:
    held: list[int] = []
    alive = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal alive
        alive += 1
        held.append(alive)
        return tensor

    def unpack(tensor: Tensor) -> Tensor:
        nonlocal alive
        alive -= 1
        return tensor

    model = Pair()

    def most(count: int, cached: bool) -> int:
        nonlocal alive
        alive = 0
        held.clear()
        same = batches()[:1] * count
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            if cached:
                cached_step(model, same, lambda a, b: (a * b).sum())
            else:
                sum((a * b).sum() for a, b in map(model, same)).backward()  # type: ignore[union-attr]
        return max(held)

    assert most(8, cached=True) == most(1, cached=True)
    assert most(8, cached=False) == 8 * most(1, cached=False)


def test_autocast_around_the_step_keeps_the_gradients() -> None:
    model = Pair().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cached_step(model, [batch.float() for batch in batches()], lambda a, b: info_nce(a.float(), b.float(), 10.0))
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())


def test_no_batches_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        cached_step(Pair(), [], info_nce)


def one_rank(rank: int, folder: Path) -> None:
    """Writes DDP's gradients after a cached step on this rank's batches."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(Pair().eval())
    cached_step(model, batches(rank), lambda a, b: info_nce(a, b, 10.0), no_sync=model.no_sync)
    torch.save([parameter.grad for parameter in model.parameters()], folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_real_processes_equal_one(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ranks = [subprocess.Popen([sys.executable, __file__, str(tmp_path), str(rank)], env=environment) for rank in (0, 1)]
    assert [rank.wait(120) for rank in ranks] == [0, 0]
    model = Pair().eval()
    sides = model(torch.cat([*batches(0), *batches(1)], dim=1))
    expected = torch.autograd.grad(info_nce(*sides, 10.0), list(model.parameters()))
    for rank in (0, 1):
        for mine, right in zip(torch.load(tmp_path / f"{rank}.pt"), expected, strict=True):
            torch.testing.assert_close(mine, right, rtol=1e-10, atol=1e-14)


if __name__ == "__main__":
    one_rank(int(sys.argv[2]), Path(sys.argv[1]))
