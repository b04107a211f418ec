"""InfoNCE's two passes over the logits as fused Triton kernels: products, exponentials and sums without a written
logit.

`bind.loss.contrastive` derives what the passes compute. With R_i and C_j the log-sum-exps of row i and of column j:

1. `log_sums`: tile by tile, l = s a b^T is accumulated in registers, and two vectors are stored for each tile: the
log-sum-exp of each of its rows and of each of its columns. `_merged` then combines the numbers of one row (or column)
over all tiles. Memory traffic is that of the operands and of B / 128 numbers for each row, not of B.
2. `softmax_minus_target`: the same tiles are computed again and written once as exp(l - R_i) + exp(l - C_j) - 2 [pair],
rounded to the type of the rows. cuBLAS multiplies this block with the rows of b and of a.

Memory layout. a is (M, D) and b is (N, D), both row-major; a tile has 128 rows and 128 columns, and its operands arrive
in slices of 64 dimensions through tensor descriptors (the copy engine, TMA). Tiles are visited in groups: 32 row tiles
down before one step to the right (`_place`), so that the rows of b are read from the L2 cache and not from memory.

Overlap. Exponentials run on the special function units and products on the tensor cores. Tiles are small enough for two
programs on each multiprocessor, so that the exponentials of one run while the other multiplies.

Exponentials are powers of 2 (`exp2`), which the hardware has: the factor log2(e) is multiplied into the scale once.
"""

# mypy: disable-error-code="import-untyped,no-untyped-def,untyped-decorator"
# Kernels are written in Triton's language, not in Python: their arguments have no Python types.
from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

_LOG2_E = tl.constexpr(math.log2(math.e))
"""Logits are multiplied by this, because GPUs compute powers of 2 and not of e."""
_ROWS, _COLUMNS, _DEPTH = 128, 128, 64
"""Rows and columns of a tile of logits, and columns of the vectors in a step."""
_OPTIONS = {"num_warps": 4, "num_stages": 3}
"""Launch options of the kernels over tiles."""
_PROGRAMS = 2
"""The number of programs on each multiprocessor."""
_GROUP = 32
"""The number of row tiles that use one column tile in turn, while it is in the L2 cache."""
_PARTS, _PLACES = 32, 64
"""Partial sums that are merged in a step, and the places of the sum that one program merges."""
_NARROW = tl.constexpr(60.0)
"""The bound on logits (as powers of 2) below which one exponential serves both the row and the column of an entry.

For |logit| <= 60, 2 ** (logit - bound) neither overflows nor underflows in float32, whatever the largest logit of a row
is. Beyond the bound, each row and each column of a tile has its own maximum subtracted, which takes two exponentials.
"""


def log_sums(
    a: Tensor,
    b: Tensor,
    scale: Tensor,
    row_ids: Tensor | None,
    column_ids: Tensor | None,
    diagonal: int,
    bound: Tensor,
) -> tuple[Tensor, Tensor]:
    """Half-precision (M, D) and (N, D) -> float32 (M,) and (N,): the log-sum-exp of each row and of each column.

    The logits are scale * a @ b.T, at most `bound` in size. Where the id of a row equals that of a column, the entry
    counts only if it is the pair, that is, if column = row + `diagonal`.
    """
    by_row = scale.new_empty((triton.cdiv(len(b), _COLUMNS), len(a)))
    by_column = scale.new_empty((triton.cdiv(len(a), _ROWS), len(b)))
    even = len(a) % _ROWS == 0 and len(b) % _COLUMNS == 0
    _launch(_log_sums_kernel, a, b, scale, row_ids, column_ids, diagonal, bound, by_row, by_column, EVEN=even)
    return _merged(by_row), _merged(by_column)


def softmax_minus_target(
    a: Tensor,
    b: Tensor,
    scale: Tensor,
    row_ids: Tensor | None,
    column_ids: Tensor | None,
    diagonal: int,
    row_sums: Tensor,
    column_sums: Tensor,
    buffer: Tensor,
) -> Tensor:
    """The arguments and results of `log_sums` -> (M, N) exp(l - row) + exp(l - column), less 2 for pairs, in
    `buffer`.
    """
    block = buffer[: len(a), : len(b)]
    stored = TensorDescriptor.from_tensor(block, [_ROWS, _COLUMNS // 2])
    _launch(_weights_kernel, a, b, scale, row_ids, column_ids, diagonal, row_sums, column_sums, stored)
    return block


def row_products(a: Tensor, b: Tensor) -> Tensor:
    """Half-precision (M, D) and (M, D) -> float32 (M,): inner products of rows, computed without copies in float32."""
    products = torch.empty(len(a), dtype=torch.float32, device=a.device)
    with torch.cuda.device_of(a):
        _row_products_kernel[(triton.cdiv(len(a), _PLACES),)](a, b, products, *a.shape, ROWS=_PLACES, DEPTH=_DEPTH)
    return products


def _launch(
    kernel: Any,
    a: Tensor,
    b: Tensor,
    scale: Tensor,
    row_ids: Tensor | None,
    column_ids: Tensor | None,
    diagonal: int,
    *arrays: Any,
    **constants: bool,
) -> None:
    processors = torch.cuda.get_device_properties(a.device).multi_processor_count if a.is_cuda else 1
    programs = _PROGRAMS * processors
    with torch.cuda.device_of(a):
        kernel[(programs,)](
            TensorDescriptor.from_tensor(a, [_ROWS, _DEPTH]),
            TensorDescriptor.from_tensor(b, [_COLUMNS, _DEPTH]),
            scale,
            row_ids,
            column_ids,
            diagonal,
            *arrays,
            len(a),
            len(b),
            a.shape[1],
            PROGRAMS=programs,
            ROWS=_ROWS,
            COLUMNS=_COLUMNS,
            DEPTH=_DEPTH,
            GROUP=_GROUP,
            **constants,
            **_OPTIONS,
        )


def _merged(parts: Tensor) -> Tensor:
    """(T, L) -> the log-sum-exp over T, (L,), in one pass over the numbers."""
    total = parts.new_empty(parts.shape[1])
    with torch.cuda.device_of(parts):
        _merge_kernel[(triton.cdiv(len(total), _PLACES),)](parts, total, *parts.shape, PARTS=_PARTS, PLACES=_PLACES)
    return total


@triton.jit
def _row_products_kernel(a, b, products, m, d, ROWS: tl.constexpr, DEPTH: tl.constexpr):
    """Writes the inner product of row i of a and row i of b, for ROWS rows."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((ROWS, DEPTH), tl.float32)
    for first in range(0, d, DEPTH):
        depth = first + tl.arange(0, DEPTH)
        # 64-bit, because rows times D exceeds 2**31 with a few million pairs
        places = rows.to(tl.int64)[:, None] * d + depth[None, :]
        inside = (rows < m)[:, None] & (depth < d)[None, :]
        x, y = tl.load(a + places, mask=inside, other=0.0), tl.load(b + places, mask=inside, other=0.0)
        total += x.to(tl.float32) * y.to(tl.float32)
    tl.store(products + rows, tl.sum(total, 1), mask=rows < m)


@triton.jit
def _place(tile, tiles_m, tiles_n, GROUP: tl.constexpr):
    """The number of a tile -> its row and column of tiles: GROUP tiles down, then one step to the right."""
    first = tile // (GROUP * tiles_n) * GROUP
    height = min(tiles_m - first, GROUP)
    within = tile % (GROUP * tiles_n)
    return first + within % height, within // height


@triton.jit
def _products(a, b, row, column, d, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr):
    """The (ROWS, COLUMNS) tile a b^T from `row` and `column` on, summed in float32 over slices of DEPTH dimensions."""
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(0, tl.cdiv(d, DEPTH)):
        total = tl.dot(a.load([row, step * DEPTH]), b.load([column, step * DEPTH]).T, total)
    return total


@triton.jit
def _masked(logits, rows, columns, row_ids, column_ids, diagonal, m, n):
    """The logits with -inf where the ids are the same and the entry is no pair."""
    row_id = tl.load(row_ids + rows, mask=rows < m, other=0)
    column_id = tl.load(column_ids + columns, mask=columns < n, other=0)
    pair = (rows + diagonal)[:, None] == columns[None, :]
    return tl.where((row_id[:, None] != column_id[None, :]) | pair, logits, float("-inf"))


@triton.jit
def _log_sums_kernel(
    a,
    b,
    scale,
    row_ids,
    column_ids,
    diagonal,
    bound,
    by_row,
    by_column,
    m,
    n,
    d,
    PROGRAMS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    EVEN: tl.constexpr,
):
    """Writes the log-sum-exps of the rows and columns of each tile; see the module's docstring, step 1.

    `by_row` is (tiles across, m) and `by_column` (tiles down, n): a tile writes where no other does, so nothing is
    exchanged between programs and the result does not depend on their order.
    """
    tiles_m, tiles_n = tl.cdiv(m, ROWS), tl.cdiv(n, COLUMNS)
    factor = tl.load(scale) * _LOG2_E
    shift = tl.load(bound) * _LOG2_E
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, PROGRAMS, flatten=True):
        tile_m, tile_n = _place(tile, tiles_m, tiles_n, GROUP)
        logits = _products(a, b, tile_m * ROWS, tile_n * COLUMNS, d, ROWS, COLUMNS, DEPTH) * factor
        rows = tile_m * ROWS + tl.arange(0, ROWS)
        columns = tile_n * COLUMNS + tl.arange(0, COLUMNS)
        if not EVEN:
            logits = tl.where((rows < m)[:, None] & (columns < n)[None, :], logits, float("-inf"))
        if row_ids is not None:
            logits = _masked(logits, rows, columns, row_ids, column_ids, diagonal, m, n)
        if shift < _NARROW:
            powers = tl.exp2(logits - shift)
            row = shift + tl.log2(tl.sum(powers, 1))
            column = shift + tl.log2(tl.sum(powers, 0))
        else:
            top = tl.max(logits, 1)
            top = tl.where(top == float("-inf"), 0.0, top)
            row = top + tl.log2(tl.sum(tl.exp2(logits - top[:, None]), 1))
            top = tl.max(logits, 0)
            top = tl.where(top == float("-inf"), 0.0, top)
            column = top + tl.log2(tl.sum(tl.exp2(logits - top[None, :]), 0))
        # 64-bit, because rows times columns of tiles exceeds 2**31 with a few million pairs.
        tl.store(by_row + tile_n.to(tl.int64) * m + rows, row / _LOG2_E, mask=rows < m)
        tl.store(by_column + tile_m.to(tl.int64) * n + columns, column / _LOG2_E, mask=columns < n)


@triton.jit
def _merge_kernel(parts, total, count, length, PARTS: tl.constexpr, PLACES: tl.constexpr):
    """Writes the log-sum-exp over `count` parts for PLACES columns, by the online algorithm (arXiv 1805.02867).

    `top` is the largest value so far and `powers` the sum of exp(value - top). A larger value rescales the sum by
    exp(old top - new top), so that one pass is enough and no power exceeds 1.
    """
    places = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    top = tl.full((PLACES,), float("-inf"), tl.float32)
    powers = tl.zeros((PLACES,), tl.float32)
    for first in range(0, count, PARTS):
        part = first + tl.arange(0, PARTS).to(tl.int64)
        inside = (part < count)[:, None] & (places < length)[None, :]
        values = tl.load(parts + part[:, None] * length + places[None, :], mask=inside, other=float("-inf"))
        new = tl.maximum(top, tl.max(values, 0))
        new_or_0 = tl.where(new == float("-inf"), 0.0, new)
        powers = powers * tl.exp(top - new_or_0) + tl.sum(tl.exp(values - new_or_0[None, :]), 0)
        top = new
    tl.store(total + places, top + tl.log(powers), mask=places < length)


@triton.jit
def _weights_kernel(
    a,
    b,
    scale,
    row_ids,
    column_ids,
    diagonal,
    row_sums,
    column_sums,
    stored,
    m,
    n,
    d,
    PROGRAMS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Writes the softmax minus the target of each tile; see the module's docstring, step 2."""
    tiles_m, tiles_n = tl.cdiv(m, ROWS), tl.cdiv(n, COLUMNS)
    factor = tl.load(scale) * _LOG2_E
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, PROGRAMS, flatten=True):
        tile_m, tile_n = _place(tile, tiles_m, tiles_n, GROUP)
        logits = _products(a, b, tile_m * ROWS, tile_n * COLUMNS, d, ROWS, COLUMNS, DEPTH) * factor
        # Half of the columns are taken at a time, because the copy to be stored shares memory with two programs'
        # operands.
        halves = tl.permute(tl.reshape(logits, (ROWS, 2, COLUMNS // 2)), (0, 2, 1))
        left, right = tl.split(halves)
        rows = tile_m * ROWS + tl.arange(0, ROWS)
        row = tl.load(row_sums + rows, mask=rows < m, other=0.0) * _LOG2_E
        columns = tile_n * COLUMNS + tl.arange(0, COLUMNS // 2)
        left = _weights(left, rows, columns, row, row_ids, column_ids, diagonal, column_sums, m, n)
        stored.store([tile_m * ROWS, tile_n * COLUMNS], left.to(stored.dtype))
        columns += COLUMNS // 2
        right = _weights(right, rows, columns, row, row_ids, column_ids, diagonal, column_sums, m, n)
        stored.store([tile_m * ROWS, tile_n * COLUMNS + COLUMNS // 2], right.to(stored.dtype))


@triton.jit
def _weights(logits, rows, columns, row, row_ids, column_ids, diagonal, column_sums, m, n):
    """The entries exp(l - row sum) + exp(l - column sum), less 2 where the entry is the pair."""
    if row_ids is not None:
        logits = _masked(logits, rows, columns, row_ids, column_ids, diagonal, m, n)
    column = tl.load(column_sums + columns, mask=columns < n, other=0.0) * _LOG2_E
    weights = tl.exp2(logits - row[:, None]) + tl.exp2(logits - column[None, :])
    return tl.where((rows + diagonal)[:, None] == columns[None, :], weights - 2.0, weights)
