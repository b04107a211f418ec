"""InfoNCE's two passes over blocks of logits as fused Triton kernels: products, exponentials and sums in one go.

Logits live in registers, in float32. The first pass writes only sums, one number a row and tile; the second writes the
softmax minus the target in the rows' type, for cuBLAS to multiply with. Tiles are small enough for two programs a
multiprocessor: one's exponentials run beside the other's products.
"""

# mypy: disable-error-code="import-untyped,no-untyped-def,untyped-decorator"
# Kernels are Triton's language, not Python: their arguments have no Python types.
from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

_LOG2_E = tl.constexpr(math.log2(math.e))
_ROWS, _COLUMNS, _DEPTH = 128, 128, 64
_OPTIONS = {"num_warps": 4, "num_stages": 3}
_PROGRAMS = 2
"""Programs a multiprocessor."""
_GROUP = 32
"""Row tiles that share column tiles while they are in the L2 cache."""
_PARTS, _PLACES = 32, 64
_NARROW = tl.constexpr(60.0)
"""Logits within +-60 (powers of 2): 2 ** (logit - bound) neither over- nor underflows in float32, whatever the maxima,
so one exponential serves row and column. Beyond that each row and column of a tile has its own maximum subtracted."""


def log_sums(
    a: Tensor,
    b: Tensor,
    scale: Tensor,
    row_ids: Tensor | None,
    column_ids: Tensor | None,
    diagonal: int,
    bound: Tensor,
) -> tuple[Tensor, Tensor]:
    """Half-precision (M, D) and (N, D) -> float32 (M,), (N,): log of the sum of exp over each row and each column.

    The logits are scale * a @ b.T, at most `bound` in size. Where a row's id is a column's, the entry counts only if it
    is the pair, i.e. column = row + `diagonal`.
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
    """As `log_sums`, with its results -> (M, N) exp(l - row) + exp(l - column), less 2 for pairs; in `buffer`."""
    block = buffer[: len(a), : len(b)]
    stored = TensorDescriptor.from_tensor(block, [_ROWS, _COLUMNS // 2])
    _launch(_weights_kernel, a, b, scale, row_ids, column_ids, diagonal, row_sums, column_sums, stored)
    return block


def row_products(a: Tensor, b: Tensor) -> Tensor:
    """Half-precision (M, D) and (M, D) -> float32 (M,): inner products of rows, without copies in float32."""
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
    """(T, L) -> logsumexp over T, (L,), in one reading."""
    total = parts.new_empty(parts.shape[1])
    with torch.cuda.device_of(parts):
        _merge_kernel[(triton.cdiv(len(total), _PLACES),)](parts, total, *parts.shape, PARTS=_PARTS, PLACES=_PLACES)
    return total


@triton.jit
def _row_products_kernel(a, b, products, m, d, ROWS: tl.constexpr, DEPTH: tl.constexpr):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((ROWS, DEPTH), tl.float32)
    for first in range(0, d, DEPTH):
        depth = first + tl.arange(0, DEPTH)
        places = rows.to(tl.int64)[:, None] * d + depth[None, :]  # rows times D passes 2**31 with a few million pairs
        inside = (rows < m)[:, None] & (depth < d)[None, :]
        x, y = tl.load(a + places, mask=inside, other=0.0), tl.load(b + places, mask=inside, other=0.0)
        total += x.to(tl.float32) * y.to(tl.float32)
    tl.store(products + rows, tl.sum(total, 1), mask=rows < m)


@triton.jit
def _place(tile, tiles_m, tiles_n, GROUP: tl.constexpr):
    """A tile's number -> its row and column of tiles: GROUP tiles down, then one to the right."""
    first = tile // (GROUP * tiles_n) * GROUP
    height = min(tiles_m - first, GROUP)
    within = tile % (GROUP * tiles_n)
    return first + within % height, within // height


@triton.jit
def _products(a, b, row, column, d, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr):
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(0, tl.cdiv(d, DEPTH)):
        total = tl.dot(a.load([row, step * DEPTH]), b.load([column, step * DEPTH]).T, total)
    return total


@triton.jit
def _masked(logits, rows, columns, row_ids, column_ids, diagonal, m, n):
    """-inf where the ids are the same and the entry is no pair."""
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
        # 64-bit: rows times columns of tiles passes 2**31 with a few million pairs.
        tl.store(by_row + tile_n.to(tl.int64) * m + rows, row / _LOG2_E, mask=rows < m)
        tl.store(by_column + tile_m.to(tl.int64) * n + columns, column / _LOG2_E, mask=columns < n)


@triton.jit
def _merge_kernel(parts, total, count, length, PARTS: tl.constexpr, PLACES: tl.constexpr):
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
    tiles_m, tiles_n = tl.cdiv(m, ROWS), tl.cdiv(n, COLUMNS)
    factor = tl.load(scale) * _LOG2_E
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, PROGRAMS, flatten=True):
        tile_m, tile_n = _place(tile, tiles_m, tiles_n, GROUP)
        logits = _products(a, b, tile_m * ROWS, tile_n * COLUMNS, d, ROWS, COLUMNS, DEPTH) * factor
        # Half of the columns at a time: the copy to be stored shares the memory with two programs' operands.
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
    if row_ids is not None:
        logits = _masked(logits, rows, columns, row_ids, column_ids, diagonal, m, n)
    column = tl.load(column_sums + columns, mask=columns < n, other=0.0) * _LOG2_E
    weights = tl.exp2(logits - row[:, None]) + tl.exp2(logits - column[None, :])
    return tl.where((rows + diagonal)[:, None] == columns[None, :], weights - 2.0, weights)
