"""Contrastive losses over a batch of pairs, in O(B D) memory and exact over any number of ranks.

| loss | one pair against | use |
|---|---|---|
| `info_nce` | all others in a softmax, both ways (CLIP; ImageBind, equation 1) | the default |
| `sigmoid_loss` | each other one by itself (SigLIP, arXiv 2303.15343) | small or noisy batches |

Both see the (B, B) logits one block at a time: the forward pass keeps their sums, the backward pass computes the blocks
again. No block leaves out anything: value and gradients are those of the plain formula.

Several ranks. Each rank passes its own rows, equally many on each. A rank compares its rows a with the rows b of all
ranks (gathered once) and the sums over its rows are exchanged, so no logit is computed twice. The returned value is
that of the whole batch, the same on every rank. The gradients of a and b are R times those of one process holding the
whole batch, because `DistributedDataParallel` takes the MEAN of the parameter gradients of its R ranks: with its
default reduction the encoders' gradients equal those of one process (a sum would make them R times as large). The
gradients of the logit scale and bias are the whole batch's, on every rank, inside and outside of DDP.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_CHUNK = 4096
"""Edge of a block where logits are written out."""
_FUSED_CHUNK, _FUSED_WIDTH = 8192, 16_384
"""Rows and columns of a block of the fused kernels: 256 MiB, and long enough sums for cuBLAS."""
_PANELS = 4
"""Parts of b in turn: for half-precision rows the float32 sums of one part are held at a time."""


class LogitScale(nn.Module):
    """() -> the factor on cosines, 1 / temperature: one for each pair of modalities, part of the loss, not of a vector.

    Learned as a logarithm, or fixed. CLIP starts at temperature 0.07 and keeps the factor at 100 or less; ImageBind
    fixes 0.05 to 0.2 (table 9). A learned factor beyond `largest` is set back before it is used.
    """

    def __init__(self, temperature: float = 0.07, *, learned: bool = True, largest: float = 100.0) -> None:
        super().__init__()
        if not 1 / largest <= temperature < math.inf:
            raise ValueError(f"temperature: expected at least {1 / largest:g} (1 / largest), got {temperature}")
        self.largest = largest
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)), requires_grad=learned)

    def forward(self) -> Tensor:
        """() -> scalar tensor."""
        # The parameter itself is moved, as in CLIP: a clamp inside the graph has no gradient and would never come back.
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(self.largest))
        return self.log_scale.exp()


def info_nce(
    a: Tensor,
    b: Tensor,
    logit_scale: Tensor | float,
    *,
    ids: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
    chunk: int | None = None,
) -> Tensor:
    """(B, D) and (B, D) unit rows, pairs row by row -> mean of -log softmax of the pairs, over rows and over columns.

    Equal to `(cross_entropy(l, arange(B)) + cross_entropy(l.T, arange(B))) / 2` with `l = logit_scale * a @ b.T`.

    `logit_scale` is 1 / temperature: a number, or `LogitScale()`'s scalar. `ids`, int64 (B,), says which pairs show the
    same item: those are not each other's negatives. Every rank of `group` (default: all, where torch.distributed runs)
    must take part; see above for what the gradients then are. `chunk` is the edge of a block of logits.

    float32, with float64 for float64 rows. Half-precision rows: products are summed in float32, the probabilities are
    rounded to the rows' type before the gradients' products. Fused on CUDA for half precision (Hopper and later).
    Differentiable once. Raises ValueError for other shapes and types, and for ranks with different B.
    """
    scale = _scalar(logit_scale, a, "logit_scale")
    _check(a, b, ids, chunk)
    value: Tensor = _InfoNce.apply(a, b, scale, ids, _Ranks(group, a), chunk)
    return value


def sigmoid_loss(
    a: Tensor,
    b: Tensor,
    logit_scale: Tensor | float,
    bias: Tensor | float,
    *,
    ids: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
    chunk: int | None = None,
) -> Tensor:
    """(B, D) and (B, D) unit rows -> -1/B sum over all i, j of log sigmoid(z l), z = 1 for pairs and -1 for the rest.

    `l = logit_scale * a @ b.T + bias`; SigLIP starts at scale 10 and bias -10. The other arguments, the ranks and the
    errors are those of `info_nce`; entries masked by `ids` are left out of the sum.
    """
    scale, offset = _scalar(logit_scale, a, "logit_scale"), _scalar(bias, a, "bias")
    _check(a, b, ids, chunk)
    value: Tensor = _Sigmoid.apply(a, b, scale, offset, ids, _Ranks(group, a), chunk or _CHUNK)
    return value


class _InfoNce(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, scale: Tensor, ids: Tensor | None, ranks: _Ranks, chunk: int | None
    ) -> Tensor:
        with torch.autocast(a.device.type, enabled=False):
            logits = _Logits.of(a, b, scale, ids, ranks, chunk)
            row_sums, column_sums = _log_sums(logits)
            column_sums = ranks.gather(column_sums[None]).logsumexp(0)
            own = column_sums[logits.first : logits.first + len(a)]
            value = ranks.sum((row_sums + own - 2 * logits.positives()).sum() / (2 * len(logits.b)))
        ctx.save_for_backward(logits.a, logits.b, scale, logits.ids, row_sums, column_sums)
        ctx.ranks, ctx.chunk = ranks, chunk
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        a, b, scale, ids, row_sums, column_sums = ctx.saved_tensors
        logits = _Logits(a, b, scale, ids, ctx.ranks.rank, ctx.chunk)

        def weights(rows: slice, columns: slice) -> Tensor:
            """The value's gradient by a block of logits, times 2 N: within +-2, which half precision holds."""
            total: Tensor
            if logits.fused:
                sums = row_sums[rows], column_sums[columns]
                total = logits.fused.softmax_minus_target(*logits.part(rows, columns), *sums, logits.buffer)
                return total
            block = logits.block(rows, columns)
            total = (block - row_sums[rows, None]).exp_()
            total += block.sub_(column_sums[columns]).exp_()
            logits.pairs(total, rows, columns).sub_(2)
            return total

        with torch.autocast(logits.a.device.type, enabled=False):
            part = gradient / (2 * len(logits.b))
            by_a, by_b, by_scale = _gradients(logits, weights, part, ctx.ranks, ctx.needs_input_grad)
        return by_a, by_b, by_scale, None, None, None


class _Sigmoid(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        scale: Tensor,
        bias: Tensor,
        ids: Tensor | None,
        ranks: _Ranks,
        chunk: int | None,
    ) -> Tensor:
        value = torch.zeros_like(scale)
        with torch.autocast(a.device.type, enabled=False):
            logits = _Logits.of(a, b, scale, ids, ranks, chunk)
            for rows in _slices(len(logits.a), logits.step):
                for columns in _slices(len(logits.b), logits.width):
                    block = logits.block(rows, columns).add_(bias).neg_()
                    logits.pairs(block, rows, columns).neg_()
                    value -= nn.functional.logsigmoid(block).sum()
            value = ranks.sum(value / len(logits.b))
        ctx.save_for_backward(logits.a, logits.b, scale, logits.ids, bias)
        ctx.ranks, ctx.chunk = ranks, chunk
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        a, b, scale, ids, bias = ctx.saved_tensors
        logits = _Logits(a, b, scale, ids, ctx.ranks.rank, ctx.chunk)
        by_bias = torch.zeros_like(bias)

        def weights(rows: slice, columns: slice) -> Tensor:
            block = logits.block(rows, columns).add_(bias)
            logits.pairs(block, rows, columns).neg_()
            block.sigmoid_()
            logits.pairs(block, rows, columns).neg_()
            by_bias.add_(block.sum())
            return block

        with torch.autocast(logits.a.device.type, enabled=False):
            part = gradient / len(logits.b)
            by_a, by_b, by_scale = _gradients(logits, weights, part, ctx.ranks, ctx.needs_input_grad)
            by_bias = ctx.ranks.sum(by_bias * part)
        return by_a, by_b, by_scale, by_bias, None, None, None


@dataclass(frozen=True)
class _Logits:
    """scale * a @ b.T, (M, N), of this rank's rows a and all ranks' rows b: given in blocks, never held.

    Entries of the same item that are not a pair are -inf.
    """

    a: Tensor
    b: Tensor
    scale: Tensor
    ids: Tensor | None
    rank: int
    chunk: int | None

    @classmethod
    def of(cls, a: Tensor, b: Tensor, scale: Tensor, ids: Tensor | None, ranks: _Ranks, chunk: int | None) -> _Logits:
        """This rank's arguments, those of the other ranks gathered."""
        everyones = None if ids is None else ranks.gather(ids.to(a.device))
        return cls(a.contiguous(), ranks.gather(b.contiguous()), scale, everyones, ranks.rank, chunk)

    @property
    def first(self) -> int:
        """The column that row 0 is paired with."""
        return self.rank * len(self.a)

    @property
    def step(self) -> int:
        """Rows of a block."""
        return self.chunk or (_FUSED_CHUNK if self.fused else _CHUNK)

    @property
    def width(self) -> int:
        """Columns of a block."""
        return self.chunk or (_FUSED_WIDTH if self.fused else _CHUNK)

    @cached_property
    def fused(self) -> ModuleType | None:
        """The kernels for these rows, if there are any."""
        half = self.a.dtype in (torch.bfloat16, torch.float16)
        if not (self.a.is_cuda and half and self.a.shape[1] % 8 == 0):  # the copy engine wants rows of 16 n bytes
            return None
        if torch.cuda.get_device_capability(self.a.device) < (9, 0):
            return None
        try:
            from bind.kernels import loss as loss_gpu  # Triton is there on Linux with CUDA only
        except ImportError:
            return None
        return loss_gpu

    @cached_property
    def bound(self) -> Tensor:
        """No entry is larger in size (Cauchy and Schwarz), also if the rows are not quite unit."""
        norms = [torch.linalg.vector_norm(rows, dim=1, dtype=self.scale.dtype).max() for rows in (self.a, self.b)]
        largest: Tensor = self.scale.abs() * norms[0] * norms[1]
        return largest

    @cached_property
    def buffer(self) -> Tensor:
        """Room for one block of the rows' type, used again and again."""
        width = math.ceil(min(self.width, len(self.b)) / 8) * 8  # the copy engine wants rows of 16 n bytes
        return self.a.new_empty((min(self.step, len(self.a)), width))

    def part(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, int]:
        """What makes up a block: rows of a and of b, scale, their ids, and the column that its row 0 is paired with."""
        diagonal = self.first + rows.start - columns.start
        if self.ids is None:
            return self.a[rows], self.b[columns], self.scale, None, None, diagonal
        own = self.ids[self.first : self.first + len(self.a)]
        return self.a[rows], self.b[columns], self.scale, own[rows], self.ids[columns], diagonal

    def block(self, rows: slice, columns: slice) -> Tensor:
        """A new (rows, columns) block in scale's type."""
        a, b, scale, row_ids, column_ids, _ = self.part(rows, columns)
        if a.dtype != scale.dtype and a.is_cuda:
            block = torch.mm(a, b.T, out_dtype=scale.dtype).mul_(scale)  # out_dtype exists on CUDA only
        else:
            block = (a.to(scale.dtype) @ b.to(scale.dtype).T).mul_(scale)
        if row_ids is not None and column_ids is not None:
            repeated = row_ids[:, None] == column_ids
            self.pairs(repeated, rows, columns).fill_(False)
            block.masked_fill_(repeated, -torch.inf)
        return block

    def positives(self) -> Tensor:
        """(M,) logits of the pairs."""
        b = self.b[self.first : self.first + len(self.a)]
        if self.fused:
            cosines: Tensor = self.fused.row_products(self.a, b)
        else:
            cosines = torch.linalg.vecdot(self.a.to(self.scale.dtype), b.to(self.scale.dtype))
        return cosines.mul_(self.scale)

    def pairs(self, block: Tensor, rows: slice, columns: slice) -> Tensor:
        """The view of those entries of a block that are pairs."""
        return block.diagonal(self.first + rows.start - columns.start)


def _log_sums(logits: _Logits) -> tuple[Tensor, Tensor]:
    """Logarithms of the sums of exp over each row (M,) and, this rank's rows only, over each column (N,)."""
    row_sums = torch.full((len(logits.a),), -torch.inf, dtype=logits.scale.dtype, device=logits.a.device)
    column_sums = row_sums.new_full((len(logits.b),), -torch.inf)
    # The fused kernel takes all columns at once: it never writes logits.
    width = len(logits.b) if logits.fused else logits.width
    for rows in _slices(len(logits.a), logits.step):
        for columns in _slices(len(logits.b), width):
            if logits.fused:
                by_row, by_column = logits.fused.log_sums(*logits.part(rows, columns), logits.bound)
            else:
                block = logits.block(rows, columns)
                by_row, by_column = block.logsumexp(1), block.logsumexp(0)
            row_sums[rows] = torch.logaddexp(row_sums[rows], by_row)
            column_sums[columns] = torch.logaddexp(column_sums[columns], by_column)
    return row_sums, column_sums


def _gradients(
    logits: _Logits, weights: Callable[[slice, slice], Tensor], part: Tensor, ranks: _Ranks, needed: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Blocks of the gradient by the logits, over `part` -> the gradients of this rank's a and b and of the scale.

    Sums are held in scale's type; those for half-precision b in panels, so that only a part is held in both types.
    """
    a, b, scale = logits.a, logits.b, logits.scale
    by_a, by_b = torch.zeros_like(a), torch.zeros_like(b) if needed[1] else None
    by_scale = torch.zeros_like(scale)
    factor = part * scale * ranks.count
    blocks = math.ceil(len(b) / logits.width)
    panels = _slices(len(b), len(b) if a.dtype == scale.dtype else math.ceil(blocks / _PANELS) * logits.width)
    for panel in panels:
        sum_b = None if by_b is None else by_b[panel].to(scale.dtype)  # the same memory if the type is the same
        for rows in _slices(len(a), logits.step):
            sum_a = by_a[rows].to(scale.dtype, copy=True)
            for within in _slices(panel.stop - panel.start, logits.width):
                columns = slice(panel.start + within.start, panel.start + within.stop)
                weight = weights(rows, columns)
                if needed[0] or needed[2]:
                    _add_product(sum_a, weight, b[columns])
                if sum_b is not None:
                    _add_product(sum_b[within], weight.T, a[rows])
            if panel is not panels[-1]:
                by_a[rows] = sum_a
            else:
                torch.mul(sum_a, factor, out=by_a[rows])
                by_scale += sum_a.mul_(a[rows]).sum()  # sum of weight * cosine, without another pass over the blocks
            del sum_a  # here and below: before the next one is made
        if by_b is not None and sum_b is not None:
            torch.mul(sum_b, factor, out=by_b[panel])
        del sum_b
    return (
        by_a if needed[0] else None,
        None if by_b is None else ranks.sum_own(by_b),
        ranks.sum(by_scale * part) if needed[2] else None,
    )


def _add_product(total: Tensor, x: Tensor, y: Tensor) -> None:
    """total += x @ y; half-precision y is multiplied in its own type on CUDA, with sums in total's."""
    if y.is_cuda and y.dtype != total.dtype:
        torch.addmm(total, x.to(y.dtype), y, out_dtype=total.dtype, out=total)
    else:
        total.addmm_(x.to(total.dtype), y.to(total.dtype))


def _slices(length: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


class _Ranks:
    """The processes that share a batch and what they exchange. One process alone exchanges nothing."""

    def __init__(self, group: dist.ProcessGroup | None, rows: Tensor) -> None:
        self.group = group
        running = dist.is_available() and dist.is_initialized()
        self.count = dist.get_world_size(group) if running else 1
        self.rank = dist.get_rank(group) if running else 0
        sizes = self.gather(torch.tensor([len(rows)], device=rows.device)).tolist() if self.count > 1 else []
        if len(set(sizes)) > 1:
            raise ValueError(f"loss: expected equally many rows on every rank, got {sizes}; drop the last short batch")

    def gather(self, own: Tensor) -> Tensor:
        """(M, ...) of each rank -> (R M, ...), in the order of ranks."""
        if self.count == 1:
            return own
        everyones = own.new_empty((self.count * len(own), *own.shape[1:]))
        _collective("all_gather_single", "all_gather_into_tensor")(everyones, own.contiguous(), group=self.group)
        return everyones

    def sum_own(self, everyones: Tensor) -> Tensor:
        """(R M, ...) on each rank -> (M, ...), this rank's part of the sum over ranks: the gather's transpose."""
        if self.count == 1:
            return everyones
        own = everyones.new_empty((len(everyones) // self.count, *everyones.shape[1:]))
        _collective("reduce_scatter_single", "reduce_scatter_tensor")(own, everyones, group=self.group)
        return own

    def sum(self, own: Tensor) -> Tensor:
        """The sum over ranks, on every rank."""
        if self.count > 1:
            dist.all_reduce(own, group=self.group)
        return own


def _collective(name: str, before_2_14: str) -> Callable[..., Any]:
    """torch 2.14 renamed these, and warns of the old names."""
    found: Callable[..., Any] = getattr(dist, name, None) or getattr(dist, before_2_14)
    return found


def _scalar(value: Tensor | float, rows: Tensor, name: str) -> Tensor:
    """A number or scalar tensor -> scalar tensor in the type in which the loss is computed, on the rows' device."""
    scalar = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
    if scalar.ndim:
        raise ValueError(f"{name}: expected a number or a scalar tensor, got shape {tuple(scalar.shape)}")
    return scalar.to(rows.device, torch.float64 if rows.dtype == torch.float64 else torch.float32)


def _check(a: Tensor, b: Tensor, ids: Tensor | None, chunk: int | None) -> None:
    if a.ndim != 2 or a.shape != b.shape or 0 in a.shape:
        raise ValueError(
            f"loss: expected a and b of one shape (B, D), B and D > 0; got {tuple(a.shape)}, {tuple(b.shape)}"
        )
    if a.dtype != b.dtype or a.device != b.device or not a.is_floating_point():
        raise ValueError(
            f"loss: expected floating-point a and b of one type on one device, got {a.dtype} on {a.device} and "
            f"{b.dtype} on {b.device}; convert one of them"
        )
    if ids is not None and (ids.dtype != torch.int64 or ids.shape != a.shape[:1]):
        raise ValueError(f"ids: expected int64 ({len(a)},), got {ids.dtype} {tuple(ids.shape)}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk: expected a positive number or None, got {chunk}")
