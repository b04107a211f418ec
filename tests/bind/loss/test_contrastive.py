"""Both losses against their plain formulas: value, gradients, memory; one process and several real ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from bind.loss.contrastive import LogitScale, info_nce, sigmoid_loss

ROOT = Path(__file__).parents[3]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
Loss = Callable[..., Tensor]


def plain_info_nce(a: Tensor, b: Tensor, scale: Tensor, ids: Tensor | None = None) -> Tensor:
    logits = scale * a @ b.T
    if ids is not None:
        logits = logits.masked_fill(repeated(ids), -torch.inf)
    targets = torch.arange(len(a))
    return (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2


def plain_sigmoid(a: Tensor, b: Tensor, scale: Tensor, bias: Tensor, ids: Tensor | None = None) -> Tensor:
    signs = 2 * torch.eye(len(a), dtype=a.dtype) - 1
    terms = -functional.logsigmoid(signs * (scale * a @ b.T + bias))
    if ids is not None:
        terms = terms.masked_fill(repeated(ids), 0)
    return terms.sum() / len(a)


def repeated(ids: Tensor) -> Tensor:
    """(B, B): the same item, but not the pair."""
    return (ids[:, None] == ids) & ~torch.eye(len(ids), dtype=torch.bool)


LOSSES: list[tuple[Loss, Loss, tuple[float, ...]]] = [
    (info_nce, plain_info_nce, (12.0,)),
    (sigmoid_loss, plain_sigmoid, (12.0, -4.0)),
]
both = pytest.mark.parametrize(("loss", "plain", "scalars"), LOSSES, ids=["info_nce", "sigmoid"])


def unit_rows(count: int, dim: int, dtype: torch.dtype, seed: int) -> Tensor:
    rows = torch.randn(count, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(rows, dim=1).to(dtype)


def inputs(count: int, dim: int, dtype: torch.dtype, scalars: tuple[float, ...]) -> list[Tensor]:
    """a, b and the scalars: all of them leaves with gradients."""
    leaves = [unit_rows(count, dim, dtype, seed) for seed in (1, 2)]
    leaves += [torch.tensor(scalar, dtype=dtype) for scalar in scalars]
    return [leaf.requires_grad_() for leaf in leaves]


def evaluated(loss: Loss, leaves: list[Tensor], **options: object) -> list[Tensor]:
    """The value and the gradient of 3 times the value by every leaf."""
    value = loss(*leaves, **options)
    return [value.detach(), *torch.autograd.grad(3 * value, leaves)]


def difference(ours: list[Tensor], plain: list[Tensor]) -> float:
    """The largest over value and gradients: of an entry, in parts of the largest entry (or of 1)."""
    pairs = zip(ours, plain, strict=True)
    return max(float((x.double() - y.double()).abs().max() / y.double().abs().max().clamp(min=1)) for x, y in pairs)


@both
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("chunk", [None, 1, 7, 16, 23, 24])
@pytest.mark.parametrize("mask", [False, True], ids=["", "ids"])
def test_equals_plain_in_value_and_every_gradient(
    loss: Loss, plain: Loss, scalars: tuple[float, ...], dtype: torch.dtype, chunk: int | None, mask: bool
) -> None:
    ids = torch.arange(23) // 3 % 5 if mask else None
    leaves = inputs(23, 9, dtype, scalars)
    expected = evaluated(plain, leaves, ids=ids)
    assert difference(evaluated(loss, leaves, ids=ids, chunk=chunk), expected) < TOLERANCE[dtype]


@both
def test_the_comparison_can_fail(loss: Loss, plain: Loss, scalars: tuple[float, ...]) -> None:
    leaves = inputs(24, 9, torch.float64, scalars)
    ids = torch.arange(24) // 3
    expected = evaluated(plain, leaves, ids=ids)
    halves = [[leaves[0][rows], leaves[1][rows]] for rows in (slice(12), slice(12, 24))]

    def negatives_of_the_own_half(*all_leaves: Tensor, ids: Tensor) -> Tensor:
        return sum(loss(*half, *leaves[2:], ids=ids[:12]) for half in halves) / 2  # type: ignore[return-value]

    assert difference(evaluated(loss, leaves), expected) > 1e-3
    assert difference(evaluated(negatives_of_the_own_half, leaves, ids=ids), expected) > 1e-3
    leaves[2] = (leaves[2] * 1.00001).detach().requires_grad_()
    assert difference(evaluated(loss, leaves, ids=ids), expected) > 1e-6


@both
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_shape_chunk_and_mask(loss: Loss, plain: Loss, scalars: tuple[float, ...], data: st.DataObject) -> None:
    count, dim, chunk = (data.draw(st.integers(1, most)) for most in (19, 5, 25))
    scalars = (data.draw(st.floats(1e-3, 1e3)), *scalars[1:])
    ids = torch.tensor(data.draw(st.lists(st.integers(-2, 3), min_size=count, max_size=count)))
    leaves = inputs(count, dim, torch.float64, scalars)
    ours = evaluated(loss, leaves, ids=ids, chunk=chunk)
    assert difference(ours, evaluated(plain, leaves, ids=ids)) < 1e-10
    order = torch.tensor(data.draw(st.permutations(range(count))))
    shuffled = loss(leaves[0][order], leaves[1][order], *leaves[2:], ids=ids[order], chunk=chunk)
    torch.testing.assert_close(shuffled, ours[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1e4, 1e30])
def test_extreme_temperatures_neither_overflow_nor_vanish(scale: float) -> None:
    leaves = inputs(24, 9, torch.float32, (scale,))
    in_double = [leaf.detach().double().requires_grad_() for leaf in leaves]
    ours, exact = evaluated(info_nce, leaves, chunk=5), evaluated(plain_info_nce, in_double)
    for mine, expected in zip(ours, exact, strict=True):
        assert mine.isfinite().all()
        torch.testing.assert_close(mine.double(), expected, rtol=1e-2, atol=1e-5 * float(expected.abs().max()))


@both
def test_half_precision_rows_are_summed_in_float32(loss: Loss, plain: Loss, scalars: tuple[float, ...]) -> None:
    halves = inputs(150, 24, torch.bfloat16, ())[:2] + inputs(1, 1, torch.float32, scalars)[2:]
    in_double = [leaf.detach().double().requires_grad_() for leaf in halves]
    ours, exact = evaluated(loss, halves, chunk=11), evaluated(plain, in_double)  # 14 blocks in 4 panels
    torch.testing.assert_close(ours[0].double(), exact[0], rtol=1e-6, atol=0)
    assert ours[1].dtype == ours[2].dtype == torch.bfloat16
    for mine, expected in zip(ours[1:], exact[1:], strict=True):
        assert (mine.double() - expected).norm() < 5e-3 * expected.norm()


class Largest(TorchDispatchMode):
    """Notes the most numbers that any tensor made under it holds."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        tensors = [tensor for tensor in (made if isinstance(made, (tuple, list)) else [made])]
        self.numbers = max([self.numbers, *(tensor.numel() for tensor in tensors if isinstance(tensor, Tensor))])
        return made


@both
def test_no_matrix_of_all_pairs_is_ever_made(loss: Loss, plain: Loss, scalars: tuple[float, ...]) -> None:
    def largest(function: Loss, **options: object) -> int:
        leaves = inputs(500, 8, torch.float32, scalars)
        with Largest() as seen:
            evaluated(function, leaves, ids=torch.arange(500) // 2, **options)
        return seen.numbers

    assert largest(loss, chunk=40) == 500 * 8
    assert largest(plain) == 500 * 500


@both
def test_autocast_leaves_the_loss_alone(loss: Loss, plain: Loss, scalars: tuple[float, ...]) -> None:
    leaves = inputs(24, 9, torch.float32, scalars)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within, plainly = evaluated(loss, leaves), evaluated(plain, leaves)
    assert difference(within, evaluated(loss, leaves)) == 0
    assert difference(plainly, evaluated(loss, leaves)) > 1e-4


def test_frozen_side_and_fixed_scale_get_no_gradient() -> None:
    a, b, _ = inputs(24, 9, torch.float64, (12.1,))
    expected = evaluated(plain_info_nce, [a, b, torch.tensor(12.1, dtype=torch.float64, requires_grad=True)])
    for trained, other, number in [(a, b, 1), (b, a, 2)]:
        pair = (trained, other.detach()) if number == 1 else (other.detach(), trained)
        gradient = torch.autograd.grad(3 * info_nce(*pair, 12.1, chunk=7), trained)[0]
        torch.testing.assert_close(gradient, expected[number], rtol=1e-10, atol=1e-12)
    assert not info_nce(a.detach(), b.detach(), 12.1).requires_grad


def test_logit_scale_is_learned_bounded_and_comes_back() -> None:
    scale = LogitScale(0.07)
    assert scale().item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        scale.log_scale.fill_(50.0)
    assert scale().item() == pytest.approx(100.0)
    (gradient,) = torch.autograd.grad(scale(), scale.log_scale)
    assert gradient.item() == pytest.approx(100.0)  # not cut off: it can come down again
    assert not LogitScale(0.05, learned=False)().requires_grad
    with pytest.raises(ValueError, match=r"temperature: expected at least 0\.01"):
        LogitScale(0.001)


ROWS = torch.ones(4, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((ROWS, ROWS[:3], 1.0), {}, "one shape"),
        ((ROWS[0], ROWS[0], 1.0), {}, "one shape"),
        ((ROWS[:0], ROWS[:0], 1.0), {}, "B and D > 0"),
        ((ROWS, ROWS.bfloat16(), 1.0), {}, "of one type"),
        ((ROWS.long(), ROWS.long(), 1.0), {}, "floating-point"),
        ((ROWS, ROWS, torch.ones(2)), {}, "logit_scale: expected a number or a scalar"),
        ((ROWS, ROWS, 1.0), {"ids": torch.arange(3)}, r"ids: expected int64 \(4,\)"),
        ((ROWS, ROWS, 1.0), {"ids": torch.ones(4)}, r"ids: expected int64 \(4,\)"),
        ((ROWS, ROWS, 1.0), {"chunk": 0}, "chunk: expected a positive number"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: tuple[Tensor, Tensor, float], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        info_nce(*arguments, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        sigmoid_loss(*arguments, 0.0, **options)  # type: ignore[arg-type]


# Several ranks: this file, run as a program, is one rank.

PAIRS, WIDTH, DIM = 12, 7, 5


class Pair(nn.Module):
    """Two encoders of two layers and the learned scalars of both losses, the same on every rank."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoders = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, 6), nn.GELU(), nn.Linear(6, DIM)) for _ in range(2)
        )
        self.scale = LogitScale(0.1)
        self.bias = nn.Parameter(torch.tensor(-4.0))
        self.double()

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        a, b = (functional.normalize(f(rows), dim=1) for f, rows in zip(self.encoders, (x, y), strict=True))
        return a, b, self.scale(), self.bias


def batch() -> tuple[Tensor, Tensor, Tensor]:
    x, y = torch.randn(2, PAIRS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return x, y, torch.arange(PAIRS) % 5  # items repeat across ranks


def total(losses: tuple[Loss, Loss], outputs: tuple[Tensor, ...], **options: object) -> Tensor:
    """One value that both losses and all scalars have a part in."""
    a, b, scale, bias = outputs
    return losses[0](a, b, scale, **options) + losses[1](a, b, scale, bias, **options)


def one_rank(rank: int, count: int, folder: Path) -> None:
    """Writes value and DDP's gradients: of the losses over all ranks, and of each rank's own (the negative control)."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count)
    alone = [dist.new_group([other]) for other in range(count)][rank]
    model = nn.parallel.DistributedDataParallel(Pair())
    x, y, ids = (part.chunk(count)[rank] for part in batch())
    results = {}
    for name, group in {"all": None, "own": alone}.items():
        model.zero_grad()
        value = total((info_nce, sigmoid_loss), model(x, y), ids=ids, group=group, chunk=3)
        value.backward()
        results[name] = [value.detach(), *(parameter.grad for parameter in model.parameters())]
    uneven = torch.ones(3 + rank, 4)
    try:
        info_nce(uneven, uneven, 1.0)
        results["uneven"] = ""
    except ValueError as error:
        results["uneven"] = str(error)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_real_processes_give_the_loss_and_gradients_of_one(count: int, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(count), str(tmp_path)]
    ranks = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(count)]
    assert [rank.wait(120) for rank in ranks] == [0] * count

    model = Pair()
    x, y, ids = batch()
    value = total((plain_info_nce, plain_sigmoid), model(x, y), ids=ids)
    expected = [value.detach(), *torch.autograd.grad(value, list(model.parameters()))]
    for rank in range(count):
        results = torch.load(tmp_path / f"{rank}.pt")
        assert difference(results["all"], expected) < 1e-10
        if count > 1:
            assert difference(results["own"], expected) > 1e-2
            assert "equally many rows on every rank" in results["uneven"]


FUSED_ON_CPU = """
import torch
from bind.kernels import loss as fused
from bind.loss import contrastive as loss
from tests.bind.loss.test_contrastive import evaluated, inputs, plain_info_nce

loss._Logits.fused = fused
worst = 0.0
for count, scale, mask in [(256, 9.0, False), (150, 9.0, True), (150, 150.0, True)]:
    ids = torch.arange(count) // 2 if mask else None
    leaves = inputs(count, 40, torch.float16, ())[:2] + inputs(1, 1, torch.float32, (scale,))[2:]
    exact = evaluated(plain_info_nce, [leaf.detach().double().requires_grad_() for leaf in leaves], ids=ids)
    ours = evaluated(loss.info_nce, leaves, ids=ids, chunk=128)
    assert abs(ours[0] - exact[0]) < 2e-6 * exact[0], (count, scale, ours[0], exact[0])
    for mine, expected in zip(ours[1:], exact[1:]):
        assert (mine.double() - expected).norm() < 3e-3 * expected.norm(), (count, scale)
    if mask:
        wrong = evaluated(loss.info_nce, leaves, chunk=128)
        assert (wrong[1].double() - exact[1]).norm() > 1e-2 * exact[1].norm()
"""


def test_fused_kernels_equal_plain_in_tritons_interpreter() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", FUSED_ON_CPU], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize(("count", "scale", "mask"), [(4096, 14.3, False), (5001, 100.0, True), (300, 1e4, True)])
def test_fused_kernels_equal_plain_on_a_gpu(count: int, scale: float, mask: bool) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    ids = torch.arange(count, device="cuda") // 3 if mask else None
    rows = [unit_rows(count, 256, torch.bfloat16, seed).cuda() for seed in (1, 2)]
    leaves = [leaf.requires_grad_() for leaf in (*rows, torch.tensor(scale, device="cuda"))]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    logits = exact[2] * exact[0] @ exact[1].T
    if ids is not None:
        same = (ids[:, None] == ids) & ~torch.eye(count, dtype=torch.bool, device="cuda")
        logits = logits.masked_fill(same, -torch.inf)
    value = (logits.logsumexp(0) + logits.logsumexp(1) - 2 * logits.diagonal()).mean() / 2
    expected = [value.detach(), *torch.autograd.grad(3 * value, exact)]
    for mine, right in zip(evaluated(info_nce, leaves, ids=ids), expected, strict=True):
        assert (mine.double() - right).norm() < 4e-3 * right.norm()


if __name__ == "__main__":
    one_rank(int(sys.argv[3]), int(sys.argv[1]), Path(sys.argv[2]))
