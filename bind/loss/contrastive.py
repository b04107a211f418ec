"""Contrastive losses over a batch of pairs, in O(B D) memory and exact over any number of ranks.

| loss | what one pair is compared with | use |
|---|---|---|
| `info_nce` | all others in a softmax, in both directions (CLIP; ImageBind, equation 1) | the default |
| `sigmoid_loss` | each other pair by itself (SigLIP, arXiv 2303.15343) | small or noisy batches |

The formula. With logits l_ij = s <a_i, b_j>, s the logit scale, InfoNCE is the mean over i of

    (log sum_j exp l_ij  +  log sum_j exp l_ji) / 2  -  l_ii

that is, two sums of exponentials for each pair, one over its row and one over its column, and the logit of the pair.

Why no (B, B) matrix is needed. A log-sum-exp can be merged from parts: that of a whole row is the logaddexp of those of
its blocks, however the row is divided. So the forward pass visits the logits one (chunk, chunk)
block at a time, and keeps two vectors: R_i, the log-sum-exp of row i, and C_j, that of column j. The gradient needs the
softmaxes, but these follow from the same two vectors:

    dL/dl_ij = (exp(l_ij - R_i) + exp(l_ij - C_j) - 2 [i = j]) / (2 B)

The backward pass computes each block of logits again, turns the block into this expression, and multiplies it with the
rows of b and of a right away: dL/da = s (dL/dl) b and dL/db = s (dL/dl)^T a. The idea is that of FlashAttention (arXiv
2205.14135), applied to a loss. "Inf-CL" (arXiv 2410.17243) does the same for CLIP.

Cost. Time is 8 B^2 D + O(B^2) operations for the four products of a forward and backward pass (2 B^2 D more than with
stored logits, for computing the logits twice). Memory is O(B D + chunk^2). At B = 65,536 the float32 logits alone would
take 17 GB.

Exactness. No block leaves out a term and no sum is approximated: value and gradients are those of the plain formula, up
to the order in which floating-point numbers are added. Subtracting R_i and C_j before the exponential keeps every power
at most 1, so nothing overflows.

Several ranks. Each rank passes its own rows, equally many on each. A rank compares its rows a with the rows b of all
ranks, which are gathered once. The log-sum-exps of its rows are complete then. Those of the columns cover only this
rank's rows, so they are exchanged (R N numbers) and merged. So no logit is computed twice, and memory is O(R B D) for
the gathered rows. The returned value is that of the whole batch, the same on every rank.

The gradients of a and b are R times those of one process that holds the whole batch, because `DistributedDataParallel`
takes the MEAN of the parameter gradients of its R ranks. With its default reduction the encoders' gradients then equal
those of one process (a sum would make them R times as large). The gradients of the logit scale and the bias are the
whole batch's, on every rank, inside and outside of DDP.
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
"""The edge of a block of logits in plain PyTorch, where the block is written to memory: 64 MiB in float32."""
_FUSED_CHUNK, _FUSED_WIDTH = 8192, 16_384
"""Rows and columns of a block of the fused kernels: 256 MiB, and sums that are long enough for cuBLAS."""
_PANELS = 4
"""The parts that b is divided into: for half-precision rows, the float32 sums of one part exist at a time."""


class LogitScale(nn.Module):
    """() -> the factor on cosines, 1 / temperature.

    Each pair of modalities has one; it is part of the loss, not of a vector.

    The factor is fixed, or it is learned as a logarithm. CLIP starts at temperature 0.07 and keeps the factor at 100 or
    less; ImageBind fixes temperatures of 0.05 to 0.2 (table 9). A learned factor beyond `largest` is set back before it
    is used.
    """

    def __init__(self, temperature: float = 0.07, *, learned: bool = True, largest: float = 100.0) -> None:
        super().__init__()
        if not 1 / largest <= temperature < math.inf:
            raise ValueError(f"temperature: expected at least {1 / largest:g} (1 / largest), got {temperature}")
        self.largest = largest
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)), requires_grad=learned)

    def forward(self) -> Tensor:
        """() -> scalar tensor."""
        # The parameter itself is changed, as in CLIP: a clamp inside the graph has no gradient beyond its bound, so
        # that the parameter would never come back.
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

    The value equals `(cross_entropy(l, arange(B)) + cross_entropy(l.T, arange(B))) / 2` with `l = logit_scale * a @
    b.T`.

    The loss is computed in float32, and in float64 for float64 rows. For half-precision rows, products are summed in
    float32, and the softmax is rounded to the type of the rows before it is multiplied with them. On CUDA (Hopper and
    later) half-precision rows use the fused kernels of `bind.kernels.loss`. The loss can be differentiated once.

    Args:
        a: the rows of one side.
        b: the rows of the other side; row i is the pair of row i of `a`.
        logit_scale: 1 / temperature: a number, or the scalar of a `LogitScale`.
        ids: int64 (B,) numbers of items; pairs of one item are not used as each other's negatives.
        group: the ranks that share the batch, all of which must take part; the default is all ranks of
            torch.distributed. The module's docstring says how gradients relate then.
        chunk: the edge of a block of logits; None takes a default.

    Raises:
        ValueError: shapes or types do not fit, or ranks have different numbers of rows.

    Example:
        >>> a = torch.nn.functional.normalize(torch.eye(4, 8), dim=1)
        >>> round(info_nce(a, a, logit_scale=5.0).item(), 4)
        0.02
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
    """(B, D) and (B, D) unit rows -> -1/B sum over all i, j of log sigmoid(z l), z = 1 for pairs and -1 for all others.

    `l` is `logit_scale * a @ b.T + bias`; SigLIP starts at scale 10 and bias -10. No softmax couples the logits, so
    each block adds to the value by itself, and the backward pass needs no sums. The other arguments, the ranks and the
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
            """A block of the gradient of the value by the logits, times 2 N; entries lie in -2..2, which half precision
            holds.
            """
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
    """The logits scale * a @ b.T, (M, N), of this rank's rows a and all ranks' rows b, computed one block at a time.

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
        """This rank's arguments, with the rows b and the ids of all ranks gathered."""
        everyones = None if ids is None else ranks.gather(ids.to(a.device))
        return cls(a.contiguous(), ranks.gather(b.contiguous()), scale, everyones, ranks.rank, chunk)

    @property
    def first(self) -> int:
        """The column of the pair of row 0."""
        return self.rank * len(self.a)

    @property
    def step(self) -> int:
        """The number of rows of a block."""
        return self.chunk or (_FUSED_CHUNK if self.fused else _CHUNK)

    @property
    def width(self) -> int:
        """The number of columns of a block."""
        return self.chunk or (_FUSED_WIDTH if self.fused else _CHUNK)

    @cached_property
    def fused(self) -> ModuleType | None:
        """The module of the fused kernels where they take these rows, else None."""
        half = self.a.dtype in (torch.bfloat16, torch.float16)
        # the copy engine (TMA) needs rows of a multiple of 16 bytes
        if not (self.a.is_cuda and half and self.a.shape[1] % 8 == 0):
            return None
        if torch.cuda.get_device_capability(self.a.device) < (9, 0):
            return None
        try:
            from bind.kernels import loss as loss_gpu  # Triton exists on Linux with CUDA only
        except ImportError:
            return None
        return loss_gpu

    @cached_property
    def bound(self) -> Tensor:
        """An upper bound of the absolute logits (Cauchy-Schwarz inequality), valid also if rows are not quite unit
        rows.
        """
        norms = [torch.linalg.vector_norm(rows, dim=1, dtype=self.scale.dtype).max() for rows in (self.a, self.b)]
        largest: Tensor = self.scale.abs() * norms[0] * norms[1]
        return largest

    @cached_property
    def buffer(self) -> Tensor:
        """Memory for one block in the type of the rows, which all blocks use in turn."""
        # the copy engine (TMA) needs rows of a multiple of 16 bytes
        width = math.ceil(min(self.width, len(self.b)) / 8) * 8
        return self.a.new_empty((min(self.step, len(self.a)), width))

    def part(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, int]:
        """The inputs of a block: its rows of a and of b, the scale, their ids, and the column of the pair of
        its row 0.
        """
        diagonal = self.first + rows.start - columns.start
        if self.ids is None:
            return self.a[rows], self.b[columns], self.scale, None, None, diagonal
        own = self.ids[self.first : self.first + len(self.a)]
        return self.a[rows], self.b[columns], self.scale, own[rows], self.ids[columns], diagonal

    def block(self, rows: slice, columns: slice) -> Tensor:
        """A new (rows, columns) block of logits in the type of the scale."""
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
        """A view of the entries of a block that are pairs."""
        return block.diagonal(self.first + rows.start - columns.start)


def _log_sums(logits: _Logits) -> tuple[Tensor, Tensor]:
    """The log-sum-exp of each row (M,) over all columns and of each column (N,) over this rank's rows."""
    row_sums = torch.full((len(logits.a),), -torch.inf, dtype=logits.scale.dtype, device=logits.a.device)
    column_sums = row_sums.new_full((len(logits.b),), -torch.inf)
    # The fused kernel takes all columns at once, because it never writes logits to memory.
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
    """Blocks of the gradient by the logits, divided by `part` -> the gradients of this rank's a and b and of the scale.

    `weights(rows, columns)` computes one block W of the gradient by the logits. The block is used for both products, W
    b and W^T a, and then dropped. The gradient by the scale s needs no further pass: dL/ds = sum_ij W_ij <a_i, b_j> =
    sum_i <a_i, (W b)_i>.

    Sums are kept in the type of the scale. For half-precision rows the sums for b are computed in panels, so that only
    one panel of them exists in both types.
    """
    a, b, scale = logits.a, logits.b, logits.scale
    by_a, by_b = torch.zeros_like(a), torch.zeros_like(b) if needed[1] else None
    by_scale = torch.zeros_like(scale)
    factor = part * scale * ranks.count
    blocks = math.ceil(len(b) / logits.width)
    panels = _slices(len(b), len(b) if a.dtype == scale.dtype else math.ceil(blocks / _PANELS) * logits.width)
    for panel in panels:
        # this is the same memory where the type is the same
        sum_b = None if by_b is None else by_b[panel].to(scale.dtype)
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
                by_scale += sum_a.mul_(a[rows]).sum()  # the sum of weight * cosine, see above
            del sum_a  # here and below: frees the memory before the next one is allocated
        if by_b is not None and sum_b is not None:
            torch.mul(sum_b, factor, out=by_b[panel])
        del sum_b
    return (
        by_a if needed[0] else None,
        None if by_b is None else ranks.sum_own(by_b),
        ranks.sum(by_scale * part) if needed[2] else None,
    )


def _add_product(total: Tensor, x: Tensor, y: Tensor) -> None:
    """Adds x @ y to `total`; half-precision y is multiplied in its own type on CUDA, with sums in the type of
    `total`.
    """
    if y.is_cuda and y.dtype != total.dtype:
        torch.addmm(total, x.to(y.dtype), y, out_dtype=total.dtype, out=total)
    else:
        total.addmm_(x.to(total.dtype), y.to(total.dtype))


def _slices(length: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


class _Ranks:
    """The ranks that share a batch, and their collectives; one process alone exchanges nothing."""

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
        """(R M, ...) on each rank -> (M, ...), this rank's part of the sum over ranks: the transpose of `gather`."""
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
    """The collective of `torch.distributed` under its new name, or its old one before torch 2.14, which warns of the
    old.
    """
    found: Callable[..., Any] = getattr(dist, name, None) or getattr(dist, before_2_14)
    return found


def _scalar(value: Tensor | float, rows: Tensor, name: str) -> Tensor:
    """A number or scalar tensor -> a scalar tensor on the device of the rows, in the type of the loss."""
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
