"""Exact search on one GPU as Triton kernels: one pass over the rows, in which no score is written, then the k best.

A pass over the rows leaves the best score of each group of rows; the k best rows lie in the k best groups, whose rows
are scored again. So memory sees every row once and, in place of N scores a query, N / 64 of them.
"""

# mypy: disable-error-code="import-untyped,no-untyped-def,untyped-decorator"
# Kernels are Triton's language, not Python: their arguments have no Python types.
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

GROUP = 64
_SPARE = 2
"""Groups beyond k: both passes sum in float32, in different orders."""
_FEW = 64
"""Up to so many queries a pass is bound by memory, and rows stream through plain loads."""
_FEW_ROWS, _FEW_DEPTH = 128, 64
_FEW_OPTIONS = {"num_warps": 4, "num_stages": 5}
_ONE_ROWS = 16
_MANY_ROWS, _MANY_QUERIES, _MANY_DEPTH = 256, 128, 64
_MANY_OPTIONS = {"num_warps": 8, "num_stages": 3}
_SELECTED_AT_ONCE = 4096
_MOST_SELECTED = 64
"""Above it, sorting is quicker than taking one maximum after the other."""


def takes(queries: Tensor, vectors: Tensor) -> bool:
    """Whether `top_k` can: fp16 rows without gaps whose length the copy engine takes (a multiple of 8)."""
    return (
        queries.dtype == vectors.dtype == torch.float16
        and vectors.is_contiguous()
        and vectors.shape[1] % 8 == 0
        and vectors.data_ptr() % 16 == 0
        and len(vectors) < 2**31
    )


def top_k(queries: Tensor, vectors: Tensor, k: int, dead: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """fp16 (Q, D) and (N, D) -> fp32 (Q, k) inner products, descending, and int64 (Q, k) row numbers; -inf and -1 fill.

    `dead` (N,) bool rows are left out. k is at most N. Sums are in float32.
    """
    queries = queries.contiguous()
    with torch.cuda.device_of(vectors):
        maxima = _group_maxima(queries, vectors, dead)
        _, groups = _best(maxima, None, min(k + _SPARE, maxima.shape[1]))
        return _best(*_scores(queries, vectors, groups, dead), k)


def _group_maxima(queries: Tensor, vectors: Tensor, dead: Tensor | None) -> Tensor:
    """-> fp32 (Q, G), the best score of each group of GROUP rows in a row."""
    (count, width), rows = queries.shape, len(vectors)
    maxima = torch.empty((count, triton.cdiv(rows, GROUP)), dtype=torch.float32, device=vectors.device)
    groups = maxima.shape[1]
    if count == 1:
        columns = triton.next_power_of_2(width)
        _one_kernel[(groups,)](
            queries, vectors, dead, maxima, rows, width, GROUP, _ONE_ROWS, columns, columns == width, num_warps=4
        )
    elif count <= _FEW:
        _few_kernel[(triton.cdiv(rows, _FEW_ROWS),)](
            queries,
            vectors,
            dead,
            maxima,
            count,
            rows,
            groups,
            width,
            QUERIES=max(triton.next_power_of_2(count), 16),
            ROWS=_FEW_ROWS,
            DEPTH=_FEW_DEPTH,
            GROUP=GROUP,
            EVEN=width % _FEW_DEPTH == 0,
            **_FEW_OPTIONS,
        )
    else:
        # One program a multiprocessor, which goes from tile to tile.
        programs = torch.cuda.get_device_properties(vectors.device).multi_processor_count if vectors.is_cuda else 1
        _many_kernel[(programs,)](
            TensorDescriptor.from_tensor(queries, [_MANY_QUERIES, _MANY_DEPTH]),
            TensorDescriptor.from_tensor(vectors, [_MANY_ROWS, _MANY_DEPTH]),
            dead,
            maxima,
            count,
            rows,
            groups,
            width,
            PROGRAMS=programs,
            QUERIES=_MANY_QUERIES,
            ROWS=_MANY_ROWS,
            DEPTH=_MANY_DEPTH,
            GROUP=GROUP,
            **_MANY_OPTIONS,
        )
    return maxima


def _scores(queries: Tensor, vectors: Tensor, groups: Tensor, dead: Tensor | None) -> tuple[Tensor, Tensor]:
    """(Q, W) group numbers -> fp32 (Q, W * GROUP) scores of their rows, and the rows' int64 numbers."""
    count, width = groups.shape
    scores = torch.empty((count, width * GROUP), dtype=torch.float32, device=vectors.device)
    rows = torch.empty_like(scores, dtype=torch.int64)
    _score_kernel[(width, count)](
        queries, vectors, groups, dead, scores, rows, len(vectors), vectors.shape[1], GROUP, 128, num_warps=4
    )
    return scores, rows


def _best(values: Tensor, names: Tensor | None, wanted: int) -> tuple[Tensor, Tensor]:
    """fp32 (Q, L) values -> the best (Q, wanted), descending, and the int64 names of their places (default: numbers).

    The name of -inf is -1, as is that of places beyond L.
    """
    count, length = values.shape
    if wanted > _MOST_SELECTED:
        found, places = values.topk(min(wanted, length), dim=1)
        chosen = places if names is None else names.gather(1, places)
        chosen = chosen.masked_fill(found == -torch.inf, -1)
        missing = (0, wanted - found.shape[1])
        return torch.nn.functional.pad(found, missing, value=-torch.inf), torch.nn.functional.pad(
            chosen, missing, value=-1
        )
    block = min(triton.next_power_of_2(length), _SELECTED_AT_ONCE)
    blocks = triton.cdiv(length, block)
    found = values.new_empty((count, blocks * wanted))
    chosen = torch.empty_like(found, dtype=torch.int64)
    _select_kernel[(blocks, count)](values, names, found, chosen, length, wanted, BLOCK=block, num_warps=4)
    return (found, chosen) if blocks == 1 else _best(found, chosen, wanted)


@triton.jit
def _alive(rows, count, dead):
    """Which of `rows` are there and not dead."""
    alive = rows < count
    if dead is not None:
        alive &= tl.load(dead + rows, mask=alive, other=1) == 0
    return alive


@triton.jit
def _one_kernel(
    query,
    vectors,
    dead,
    maxima,
    count,
    width,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    EVEN: tl.constexpr,
):
    columns = tl.arange(0, COLUMNS)
    wanted = tl.load(query + columns, mask=columns < width, other=0.0).to(tl.float32)
    first = tl.program_id(0) * GROUP
    best = tl.full((ROWS,), float("-inf"), tl.float32)
    for step in tl.static_range(0, GROUP, ROWS):
        rows = first + step + tl.arange(0, ROWS)
        places = vectors + tl.minimum(rows, count - 1).to(tl.int64)[:, None] * width + columns[None, :]
        part = tl.load(places) if EVEN else tl.load(places, mask=(columns < width)[None, :], other=0.0)
        scores = tl.sum(part.to(tl.float32) * wanted[None, :], 1)
        best = tl.maximum(best, tl.where(_alive(rows, count, dead), scores, float("-inf")))
    tl.store(maxima + tl.program_id(0), tl.max(best, 0))


@triton.jit
def _few_kernel(
    queries,
    vectors,
    dead,
    maxima,
    count,
    rows,
    groups,
    width,
    QUERIES: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    EVEN: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    query = tl.arange(0, QUERIES)
    columns = tl.arange(0, DEPTH)
    row_places = vectors + tl.minimum(row, rows - 1).to(tl.int64)[:, None] * width + columns[None, :]
    query_places = queries + tl.minimum(query, count - 1)[None, :] * width + columns[:, None]
    scores = tl.zeros((ROWS, QUERIES), tl.float32)
    for start in range(0, width, DEPTH):
        if EVEN:
            part, wanted = tl.load(row_places + start), tl.load(query_places + start)
        else:
            inside = columns + start < width
            part = tl.load(row_places + start, mask=inside[None, :], other=0.0)
            wanted = tl.load(query_places + start, mask=inside[:, None], other=0.0)
        scores = tl.dot(part, wanted, scores)
    scores = tl.where(_alive(row, rows, dead)[:, None], scores, float("-inf"))
    best = tl.max(tl.reshape(scores, (ROWS // GROUP, GROUP, QUERIES)), 1)
    group = tl.program_id(0) * (ROWS // GROUP) + tl.arange(0, ROWS // GROUP)
    places = query.to(tl.int64)[None, :] * groups + group[:, None]
    tl.store(maxima + places, best, mask=(query < count)[None, :] & (group < groups)[:, None])


@triton.jit
def _many_kernel(
    queries,
    vectors,
    dead,
    maxima,
    count,
    rows,
    groups,
    width,
    PROGRAMS: tl.constexpr,
    QUERIES: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
):
    across = tl.cdiv(count, QUERIES)
    # Tiles of the same rows follow each other: they come from the L2 cache.
    for tile in tl.range(tl.program_id(0), across * tl.cdiv(rows, ROWS), PROGRAMS, flatten=True):
        tile_q, tile_r = tile % across, tile // across
        # Queries down, rows across: a thread then holds most of a group's scores, and few are exchanged.
        scores = tl.zeros((QUERIES, ROWS), tl.float32)
        for step in range(0, tl.cdiv(width, DEPTH)):
            wanted = queries.load([tile_q * QUERIES, step * DEPTH])
            scores = tl.dot(wanted, vectors.load([tile_r * ROWS, step * DEPTH]).T, scores)
        row = tile_r * ROWS + tl.arange(0, ROWS)
        query = tile_q * QUERIES + tl.arange(0, QUERIES)
        scores = tl.where(_alive(row, rows, dead)[None, :], scores, float("-inf"))
        best = tl.max(tl.reshape(scores, (QUERIES, ROWS // GROUP, GROUP)), 2)
        group = tile_r * (ROWS // GROUP) + tl.arange(0, ROWS // GROUP)
        places = query.to(tl.int64)[:, None] * groups + group[None, :]
        tl.store(maxima + places, best, mask=(query < count)[:, None] & (group < groups)[None, :])


@triton.jit
def _score_kernel(
    queries, vectors, groups, dead, scores, names, count, width, GROUP: tl.constexpr, DEPTH: tl.constexpr
):
    query, place = tl.program_id(1), tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    group = tl.load(groups + place)
    rows = group * GROUP + tl.arange(0, GROUP)
    alive = _alive(rows, count, dead) & (group >= 0)
    at = tl.where(alive, rows, 0)
    total = tl.zeros((GROUP, DEPTH), tl.float32)
    for start in range(0, width, DEPTH):
        columns = start + tl.arange(0, DEPTH)
        inside = columns < width
        part = tl.load(vectors + at[:, None] * width + columns[None, :], mask=inside[None, :], other=0.0)
        wanted = tl.load(queries + query * width + columns, mask=inside, other=0.0)
        total += part.to(tl.float32) * wanted.to(tl.float32)[None, :]
    out = place.to(tl.int64) * GROUP + tl.arange(0, GROUP)
    tl.store(scores + out, tl.where(alive, tl.sum(total, 1), float("-inf")))
    tl.store(names + out, rows)


@triton.jit
def _select_kernel(values, names, found, chosen, length, wanted, BLOCK: tl.constexpr):
    """The `wanted` best of BLOCK values of one query, one after the other; the first of equal ones first."""
    query, blocks = tl.program_id(1).to(tl.int64), tl.num_programs(0)
    within = tl.arange(0, BLOCK)
    places = tl.program_id(0) * BLOCK + within
    left = tl.load(values + query * length + places, mask=places < length, other=float("-inf"))
    out = (query * blocks + tl.program_id(0)) * wanted
    for number in range(wanted):
        best = tl.max(left, 0)
        first = tl.min(tl.where(left == best, within, BLOCK), 0)
        left = tl.where(within == first, float("-inf"), left)
        name = (tl.program_id(0) * BLOCK + first).to(tl.int64)
        if names is not None:
            name = tl.load(names + query * length + name, mask=best != float("-inf"), other=-1)
        tl.store(found + out + number, best)
        tl.store(chosen + out + number, tl.where(best == float("-inf"), -1, name))
