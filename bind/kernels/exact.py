"""Exact search on one GPU as Triton kernels: one pass over the rows, in which no score is written, then the k best.

The problem. The k best of N inner products for each of Q queries are a matrix product (Q, D) x (D, N) and a selection.
The product reads N D fp16 numbers once. Written out, the scores would be Q N numbers more, which for 1,000 queries is
more traffic than the rows themselves, and a selection over N numbers is slow.

The algorithm.

1. Group maxima. Rows g * GROUP to (g + 1) * GROUP - 1 are group g. A pass computes scores tile by tile in registers,
and stores only the best score of each group: (Q, N / 64) fp32 numbers.
2. The k + 2 best groups of each query are selected from the maxima.
3. The rows of these groups, (k + 2) * 64 for each query, are scored again, and the k best of them are the result.

Why it is exact. Suppose one of the k best rows lay in a group outside of the k groups with the best maxima. Then each
of these k groups holds a row with a score that is at least as good (its maximum), and these k rows are as good a
result. The first and the third step add in different orders, so that scores differ in their last bits; two
spare groups (`_SPARE`) allow for that.

Cost. Memory traffic is 2 N D bytes (the rows, once) + 8 Q N / 64 bytes (maxima, written and read) + O(Q k 64 D) bytes.
Time for few queries is that of reading the rows at memory bandwidth; for many it is that of the product, 2 Q N D
operations on the tensor cores.

Three kernels share the first step. `_one_kernel` takes one query, without tensor cores, as a product with one column
would waste them. `_few_kernel` takes up to 64 queries and is bound by memory. `_many_kernel` is bound by arithmetic.
"""

# mypy: disable-error-code="import-untyped,no-untyped-def,untyped-decorator"
# Kernels are written in Triton's language, not in Python: their arguments have no Python types.
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

GROUP = 64
"""Rows of a group. Larger groups write fewer maxima and score more rows again: k + 2 groups of 64 rows are few."""
_SPARE = 2
"""How many more groups than k are taken, because the two passes sum in float32 in different orders."""
_FEW = 64
"""The most queries for which a pass is bound by memory bandwidth; the rows then stream through plain loads."""
_FEW_ROWS, _FEW_DEPTH = 128, 64
"""Rows of a tile, and columns of a step, of the kernel for few queries."""
_FEW_OPTIONS = {"num_warps": 4, "num_stages": 5}
"""Launch options of that kernel: five stages of loads hide the latency of memory."""
_ONE_ROWS = 16
"""Rows of a tile for one query, whose product needs no tensor cores."""
_MANY_ROWS, _MANY_QUERIES, _MANY_DEPTH = 256, 128, 64
"""Rows and queries of a tile, and columns of a step, of the kernel for many queries."""
_MANY_OPTIONS = {"num_warps": 8, "num_stages": 3}
"""Launch options of that kernel; three stages of both operands fill the shared memory of a multiprocessor."""
_SELECTED_AT_ONCE = 4096
"""Values of a row that one program selects from, which fit into its registers."""
_MOST_SELECTED = 64
"""The most values that are selected by taking one maximum after the other; above it, sorting is faster."""


def takes(queries: Tensor, vectors: Tensor) -> bool:
    """Whether `top_k` takes these: contiguous fp16 rows whose length, a multiple of 8, suits the copy engine (TMA)."""
    return (
        queries.dtype == vectors.dtype == torch.float16
        and vectors.is_contiguous()
        and vectors.shape[1] % 8 == 0
        and vectors.data_ptr() % 16 == 0
        and len(vectors) < 2**31
    )


def top_k(queries: Tensor, vectors: Tensor, k: int, dead: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """fp16 (Q, D) and (N, D) -> fp32 (Q, k) inner products, descending, and int64 (Q, k) row numbers.

    Rows that are `dead`, (N,) bool, are left out; -inf and -1 fill up the result. k is at most N. Sums are in float32.
    """
    queries = queries.contiguous()
    with torch.cuda.device_of(vectors):
        maxima = _group_maxima(queries, vectors, dead)
        _, groups = _best(maxima, None, min(k + _SPARE, maxima.shape[1]))
        return _best(*_scores(queries, vectors, groups, dead), k)


def _group_maxima(queries: Tensor, vectors: Tensor, dead: Tensor | None) -> Tensor:
    """fp16 (Q, D) and (N, D) -> fp32 (Q, G), the best score of each group of GROUP successive rows."""
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
        # One program runs on each multiprocessor and goes from tile to tile (a "persistent" kernel).
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
    """fp32 (Q, L) values -> the best (Q, wanted), descending, and int64 names of their places (default: their numbers).

    Blocks of values are reduced in turn until one block is left, as in a tournament: (Q, L) -> (Q, blocks * wanted) ->
    ... -> (Q, wanted). The name of -inf is -1, and so is the name of places beyond L.
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
    """Which of `rows` exist and are not dead."""
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
    """Writes the best score of one group for the single query; one program for each group.

    The query is held in registers, (COLUMNS,) fp32. Rows arrive ROWS at a time as a (ROWS, COLUMNS) tile; each is
    multiplied with the query element by element and summed. The running maximum has one entry for each of the ROWS
    places, which are reduced to one number at the end.
    """
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
    """Writes the best scores of ROWS // GROUP groups for all queries (up to 64); one program for ROWS rows.

    A (ROWS, QUERIES) tile of scores is accumulated in registers over slices of DEPTH dimensions, `tl.dot` using the
    tensor cores. The tile is then seen as (groups, GROUP, QUERIES), and the maximum over the middle axis is stored.
    Each row is read from memory once. The queries are read by every program, and come from the L2 cache.
    """
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
    """Writes the best score of each group for many queries; one program on each multiprocessor takes tile after tile.

    A tile is (QUERIES, ROWS). Its operands arrive through tensor descriptors: the copy engine (TMA) moves (tile, DEPTH)
    blocks into shared memory while the tensor cores work on the block before.
    """
    across = tl.cdiv(count, QUERIES)
    # Tiles of the same rows follow each other, so that these rows come from the L2 cache.
    for tile in tl.range(tl.program_id(0), across * tl.cdiv(rows, ROWS), PROGRAMS, flatten=True):
        tile_q, tile_r = tile % across, tile // across
        # Queries run down and rows across, so that one thread holds most of a group's scores and few are exchanged.
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
    """Writes the scores of the rows of one chosen group for one query, and their row numbers.

    Sums are kept in (GROUP, DEPTH) fp32 registers and reduced over DEPTH at the end.
    """
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
    """Writes the `wanted` best of BLOCK values of one query, one after the other; of equal values the first comes
    first.

    Each step takes the maximum, finds its first place, and sets that place to -inf. This costs `wanted` * BLOCK
    operations, all in registers.
    """
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
