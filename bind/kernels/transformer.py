"""A transformer's inference on one GPU in bfloat16: cuBLAS for the products, Triton for the steps between them.

One block computes x + out(attention(in(norm_1(x)))) and then x + fc2(gelu(fc1(norm_2(x)))). The four products take most
of the arithmetic, and cuBLAS is hard to beat there. The other steps are bound by memory traffic: in plain PyTorch each
reads and writes the whole (B N, width) state. Fusing them removes most of that traffic.

- `add_norm` adds the residual branch and normalises the sum in one pass: 2 reads and 2 writes of the state, in place of
  3 reads and 2 writes in two kernels.
- `attend` reads queries, keys and values where the input projection wrote them, as columns of one (B, N, 3 width)
  array. Nothing is transposed, no key is appended by a copy, and tokens are not padded.
- GELU is applied in the epilogue of its product, inside cuBLAS.
- With `eight_bit` the operands of the products are float8, which halves their bytes and doubles the arithmetic rate.
  Every row has its own scale, computed in the kernel that produces the row.

Attention is FlashAttention's online softmax (arXiv 2205.14135). For one tile of queries, the kernel goes through the
keys tile by tile and keeps, for each query, m (the largest logit so far), z (the sum of exp(logit - m)) and o (the sum
of exp(logit - m) * value). A new tile with maximum m' rescales z and o by exp(m - m'), then adds its own terms; at the
end the output is o / z. This is exact, because softmax is invariant to the subtracted constant. Memory is O(N width) in
place of the O(N^2) of written logits; time is O(N^2 width).

Kernels are compiled for the width of a model and not for a batch size.
"""

# mypy: disable-error-code="import-untyped,no-untyped-def,untyped-decorator"
# Kernels are written in Triton's language, not in Python: their arguments have no Python types.
from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from bind.encoders.transformer import Attention, Block, PatchEncoder, pick

_QUERIES, _KEYS = 64, 64
"""Queries and keys of a tile of attention."""
_WARPS, _STAGES = 4, 3
"""Launch options of the attention kernel."""
_NORM_TILE = 4096
"""Numbers of a tile of layer normalisation: few columns share a program with more rows."""
_LOG2_E = math.log2(math.e)
"""Scores are multiplied by this, because GPUs compute powers of 2 and not of e."""
_LARGEST = 448.0
"""The largest number of float8_e4m3fn."""


class Scaled(NamedTuple):
    """The product of values (M, width) float8 and scales (M, 1) float32."""

    values: Tensor
    scales: Tensor


class Fused:
    """(B, N, width) bfloat16 and positions (B,) int64 -> (B, width), as a `Transformer` of these blocks in eval mode.

    GELU has the tanh form, the only one that cuBLAS has; it deviates by 5e-4 at most. With `eight_bit` the products
    have float8 operands (e4m3, with one scale for each token and each output), except in the last block. The weights
    are then copied, so that changing them later, or moving the model, has no effect. Raises ValueError for head widths
    that are not the sum of at most two of 16, 32, 64 and 128.
    """

    def __init__(self, blocks: Iterable[nn.Module], eight_bit: bool = False) -> None:
        self.blocks = [block for block in blocks if isinstance(block, Block)]
        self.eight_bit = eight_bit
        for block in self.blocks:
            _split(block.attention)
        self.products = [_products_8(block) if eight_bit else _products(block) for block in self.blocks[:-1]]

    def __call__(self, x: Tensor, at: Tensor) -> Tensor:
        """(B, N, width), (B,) int64 -> (B, width)."""
        states, branch = x.reshape(-1, x.shape[2]), None
        for block, (in_proj, out_proj, mlp) in zip(self.blocks[:-1], self.products, strict=True):
            states, normed = add_norm(states, branch, block.norm_1, self.eight_bit)
            mixed = attend(block.attention, in_proj(normed).view(*x.shape[:2], -1))
            branch = out_proj(mixed.view_as(states))
            states, normed = add_norm(states, branch, block.norm_2, self.eight_bit)
            branch = mlp(normed)
        block = self.blocks[-1]
        states, normed = add_norm(states, branch, block.norm_1)
        assert isinstance(normed, Tensor)
        one = pick(states.view_as(x), at) + block.attention.out_proj(
            attend(block.attention, *_project_one(block.attention, normed.view_as(x), at), at)
        )
        last: Tensor = one + block.fc2(nn.functional.gelu(block.fc1(block.norm_2(one))))
        return last.squeeze(1)

    def tokens(self, encoder: PatchEncoder, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, N, width), the tokens that a `PatchEncoder` passes to its transformer."""
        patches = encoder.stem.project(x)
        batch, count, width = patches.shape
        tokens = patches.new_empty(batch, count + 1, width)
        norm = encoder.stem.norm
        scaled = isinstance(norm, nn.LayerNorm)
        columns, rows = _tile(width)
        with torch.cuda.device_of(x):
            _place_kernel[(triton.cdiv(batch * (count + 1), rows),)](
                patches,
                norm.weight if scaled else patches,
                norm.bias if scaled else patches,
                encoder.cls,
                encoder.positions_for(count + 1).contiguous(),
                tokens,
                batch * (count + 1),
                count + 1,
                norm.eps if isinstance(norm, nn.LayerNorm) else 0.0,
                NORM=scaled,
                WIDTH=width,
                ROWS=rows,
                COLUMNS=columns,
                num_warps=4,
            )
        if isinstance(encoder.pre_norm, nn.LayerNorm):
            _, normed = add_norm(tokens.view(-1, width), None, encoder.pre_norm)
            assert isinstance(normed, Tensor)
            tokens = normed.view_as(tokens)
        return tokens


def _products(block: Block) -> tuple[Callable[[Any], Tensor], ...]:
    """The products of a block as functions: input projection, output projection, MLP."""

    def mlp(x: Tensor) -> Tensor:
        hidden = torch._addmm_activation(block.fc1.bias, x, block.fc1.weight.T, use_gelu=True)
        return block.fc2(hidden)  # type: ignore[no-any-return]

    return block.attention.in_proj, block.attention.out_proj, mlp


def _products_8(block: Block) -> tuple[Callable[[Any], Tensor], ...]:
    """The products of a block with float8 operands; inputs other than `Scaled` are scaled row by row first."""
    in_proj, out_proj, fc1, fc2 = (
        Linear8(layer) for layer in (block.attention.in_proj, block.attention.out_proj, block.fc1, block.fc2)
    )
    return in_proj, lambda x: out_proj(scale_rows(x)), lambda x: fc2(scale_rows(fc1(x), gelu=True))


class Linear8:
    """Scaled (M, width) -> (M, out) bfloat16: a linear layer with float8 operands, summed in float32."""

    def __init__(self, layer: nn.Linear) -> None:
        weight = layer.weight.detach().float()
        scales = weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / _LARGEST
        self.weight = (weight / scales).to(torch.float8_e4m3fn)
        self.scales = scales.T.contiguous()
        self.bias = layer.bias

    def __call__(self, x: Scaled) -> Tensor:
        """Scaled (M, width) -> (M, out)."""
        return torch._scaled_mm(
            x.values, self.weight.T, x.scales, self.scales, self.bias, out_dtype=torch.bfloat16, use_fast_accum=True
        )


def scale_rows(x: Tensor, gelu: bool = False) -> Scaled:
    """(M, width) -> float8 with one scale for each row; the tanh form of GELU is applied first if `gelu`."""
    count, width = x.shape
    scaled = Scaled(torch.empty_like(x, dtype=torch.float8_e4m3fn), x.new_empty((count, 1), dtype=torch.float32))
    columns, rows = _tile(width)
    with torch.cuda.device_of(x):
        _scale_rows_kernel[(triton.cdiv(count, rows),)](
            x, *scaled, count, GELU=gelu, WIDTH=width, ROWS=rows, COLUMNS=columns, num_warps=8 if columns > 4096 else 4
        )
    return scaled


def add_norm(
    x: Tensor, branch: Tensor | None, norm: nn.LayerNorm, eight_bit: bool = False
) -> tuple[Tensor, Tensor | Scaled]:
    """(M, width) and its residual branch -> their sum and the LayerNorm of the sum, in float8 if `eight_bit`.

    `branch` None means that nothing is added. Statistics are computed in float32, in two passes over registers.
    """
    count, width = x.shape
    total = x if branch is None else torch.empty_like(x)
    normed = torch.empty_like(x, dtype=torch.float8_e4m3fn if eight_bit else x.dtype)
    scales = x.new_empty((count, 1), dtype=torch.float32) if eight_bit else normed
    columns, rows = _tile(width)
    with torch.cuda.device_of(x):
        _add_norm_kernel[(triton.cdiv(count, rows),)](
            x,
            x if branch is None else branch,
            norm.weight,
            norm.bias,
            total,
            normed,
            scales,
            count,
            norm.eps,
            ADD=branch is not None,
            SCALE=eight_bit,
            WIDTH=width,
            ROWS=rows,
            COLUMNS=columns,
            num_warps=4,
        )
    return total, Scaled(normed, scales) if eight_bit else normed


def attend(
    attention: Attention,
    projected: Tensor,
    query: Tensor | None = None,
    at: Tensor | None = None,
) -> Tensor:
    """(B, N, 3 * width) queries, keys and values -> (B, N, width), the mixed values before the output projection.

    For one query only, `projected` is (B, N, 2 * width) keys and values, `query` is (B, 1, width) and comes from
    position `at` (B,), and the result is (B, 1, width).
    """
    main, rest = _split(attention)
    batch, tokens, row = projected.shape
    width = attention.heads * (main + rest)
    queries = projected if query is None else query
    keys, values = projected[..., -2 * width : -width], projected[..., -width:]
    count = queries.shape[1]
    mixed = projected.new_empty(batch, count, width)
    bias = attention.bias_k is not None and attention.bias_v is not None
    # The keys beyond the last full tile make a tile of their own, of the smallest size that tl.dot takes.
    left = (tokens if bias else tokens - 1) % _KEYS
    tail = max(triton.next_power_of_2(left), 16) if left else 0
    with torch.cuda.device_of(projected):
        _attention_kernel[(triton.cdiv(count, _QUERIES), attention.heads, batch)](
            queries,
            keys,
            values,
            attention.bias_k if bias else keys,
            attention.bias_v if bias else values,
            mixed,
            mixed if at is None else at,
            count,
            tokens,
            queries.shape[2],
            row,
            width,
            _LOG2_E / math.sqrt(main + rest),
            BIAS=bias,
            CAUSAL=attention.causal,
            AT=at is not None,
            MAIN=main,
            REST=rest,
            ROWS=_QUERIES,
            COLUMNS=_KEYS,
            TAIL=tail,
            num_warps=_WARPS,
            num_stages=_STAGES,
        )
    return mixed


def _project_one(attention: Attention, x: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N, width) and positions (B,) -> keys and values (B, N, 2 * width), and the query (B, 1, width) at each
    position.
    """
    width = x.shape[2]
    weight, bias = attention.in_proj.weight, attention.in_proj.bias
    pairs = nn.functional.linear(x, weight[width:], bias[width:])
    return pairs, nn.functional.linear(pick(x, at), weight[:width], bias[:width])


def _split(attention: Attention) -> tuple[int, int]:
    """A head's width as a sum of two powers of 2, the second of which may be 0.

    Triton's tiles have sizes that are powers of 2. ImageBind's heads are 80 wide, so they are computed as 64 + 16.
    """
    width = attention.in_proj.in_features // attention.heads
    main = 1 << (width.bit_length() - 1)
    rest = width - main
    if not 16 <= main <= 128 or (rest and (rest < 16 or rest & (rest - 1))):
        raise ValueError(f"attention: expected heads as wide as one or two of 16, 32, 64, 128 together, got {width}")
    return main, rest


def _tile(width: int) -> tuple[int, int]:
    """The columns (a power of 2) and rows of the tile that a program holds."""
    columns = triton.next_power_of_2(width)
    return columns, max(_NORM_TILE // columns, 1)


@triton.jit
def _add_norm_kernel(
    x,
    branch,
    weight,
    bias,
    total,
    normed,
    scales,
    count,
    epsilon,
    ADD: tl.constexpr,
    SCALE: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Writes the sum of ROWS rows and their branch, and the LayerNorm of the sum; see `add_norm`."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    within = columns < WIDTH
    inside = (rows < count)[:, None] & within[None, :]
    places = rows.to(tl.int64)[:, None] * WIDTH + columns[None, :]
    values = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        values += tl.load(branch + places, mask=inside, other=0.0).to(tl.float32)
        tl.store(total + places, values.to(total.dtype.element_ty), mask=inside)
    result = _normed(values, weight, bias, epsilon, columns, within, WIDTH)
    if SCALE:
        result = _scaled(result, scales, rows, count)
    tl.store(normed + places, result.to(normed.dtype.element_ty), mask=inside)


@triton.jit
def _normed(values, weight, bias, epsilon, columns, within, WIDTH: tl.constexpr):
    """The LayerNorm of rows whose columns beyond `within` are 0."""
    mean = tl.sum(values, 1) / WIDTH
    centred = tl.where(within[None, :], values - mean[:, None], 0.0)
    deviation = tl.rsqrt(tl.sum(centred * centred, 1) / WIDTH + epsilon)
    scale = tl.load(weight + columns, mask=within, other=0.0).to(tl.float32)
    shift = tl.load(bias + columns, mask=within, other=0.0).to(tl.float32)
    return centred * deviation[:, None] * scale[None, :] + shift[None, :]


@triton.jit
def _scaled(values, scales, rows, count):
    """Rows divided by their scales, so that the largest number of each row becomes the largest number of float8."""
    scale = tl.maximum(tl.max(tl.abs(values), 1), 1e-12) / 448.0
    tl.store(scales + rows, scale, mask=rows < count)
    return values / scale[:, None]


@triton.jit
def _scale_rows_kernel(
    x,
    out,
    scales,
    count,
    GELU: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Writes ROWS rows in float8 with their scales; see `scale_rows`."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    inside = (rows < count)[:, None] & (columns < WIDTH)[None, :]
    places = rows.to(tl.int64)[:, None] * WIDTH + columns[None, :]
    values = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
    if GELU:
        # x * (1 + tanh(u)) / 2 = x / (1 + exp(-2 u)); erf would take as long as the product before it.
        values /= 1.0 + tl.exp2(values * (-2.302208198 - 0.1029432397 * values * values))
    tl.store(out + places, _scaled(values, scales, rows, count).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _place_kernel(
    patches,
    weight,
    bias,
    cls,
    positions,
    out,
    count,
    tokens,
    epsilon,
    NORM: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Writes ROWS tokens of `count` in all, `tokens` for each item: the class token or a patch, plus its position.

    Patches are normalised first if NORM. An item has one token more than it has patches.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    within = columns < WIDTH
    inside = (rows < count)[:, None] & within[None, :]
    number = rows % tokens
    patch = (rows - rows // tokens - 1).to(tl.int64)  # each item before this one has one token more than patches
    is_patch = inside & (number > 0)[:, None]
    values = tl.load(patches + patch[:, None] * WIDTH + columns[None, :], mask=is_patch, other=0.0).to(tl.float32)
    if NORM:
        values = _normed(values, weight, bias, epsilon, columns, within, WIDTH)
    first = tl.load(cls + columns, mask=within, other=0.0).to(tl.float32)
    values = tl.where((number > 0)[:, None], values, first[None, :])
    values += tl.load(positions + number[:, None] * WIDTH + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(out + rows.to(tl.int64)[:, None] * WIDTH + columns[None, :], values.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _attention_kernel(
    queries,
    keys,
    values,
    bias_k,
    bias_v,
    mixed,
    at,
    count,
    tokens,
    query_row,
    key_row,
    width,
    scale,
    BIAS: tl.constexpr,
    CAUSAL: tl.constexpr,
    AT: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    TAIL: tl.constexpr,
):
    """Writes the attention of ROWS of `count` queries of one head over all keys; see the module's docstring.

    A head's width is MAIN + REST, both powers of 2; logits are sums of both parts. `query_row` and `key_row` are the
    distances between successive tokens in memory. The grid is (tiles of queries, heads, items).

    One key starts the running softmax: the appended key (BIAS), or else token 0, which every token sees. So 257 tokens
    (256 patches and a class token) are four tiles of 64 keys and not five.
    """
    head = tl.program_id(1) * (MAIN + REST)
    item = tl.program_id(2).to(tl.int64)
    queries += item * count * query_row + head
    keys += item * tokens * key_row + head
    values += item * tokens * key_row + head
    first_k = bias_k + head if BIAS else keys
    first_v = bias_v + head if BIAS else values
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    main = tl.arange(0, MAIN)
    here = (rows < count)[:, None]
    query = tl.load(queries + rows[:, None] * query_row + main[None, :], mask=here, other=0.0)
    best = tl.sum(query.to(tl.float32) * tl.load(first_k + main).to(tl.float32)[None, :], 1)
    total = tl.zeros((ROWS, MAIN), tl.float32) + tl.load(first_v + main).to(tl.float32)[None, :]
    if REST > 0:
        rest = MAIN + tl.arange(0, REST)
        query_rest = tl.load(queries + rows[:, None] * query_row + rest[None, :], mask=here, other=0.0)
        best += tl.sum(query_rest.to(tl.float32) * tl.load(first_k + rest).to(tl.float32)[None, :], 1)
        total_rest = tl.zeros((ROWS, REST), tl.float32) + tl.load(first_v + rest).to(tl.float32)[None, :]
    else:
        query_rest, total_rest = query, total
    best *= scale
    weight_sum = tl.zeros((ROWS,), tl.float32) + 1.0
    # The last position whose key each query sees.
    if AT and CAUSAL:
        seen = tl.zeros((ROWS,), tl.int32) + tl.load(at + item).to(tl.int32)
    elif CAUSAL:
        seen = rows
    else:
        seen = tl.zeros((ROWS,), tl.int32) + (tokens - 1)
    start = 0 if BIAS else 1
    full = start + (tokens - start) // COLUMNS * COLUMNS
    for begin in range(start, full, COLUMNS):
        best, weight_sum, total, total_rest = _step(
            query, query_rest, keys, values, begin, tokens, seen, key_row, scale,
            best, weight_sum, total, total_rest, CAUSAL, MAIN, REST, COLUMNS,
        )  # fmt: skip
    if TAIL > 0:
        best, weight_sum, total, total_rest = _step(
            query, query_rest, keys, values, full, tokens, seen, key_row, scale,
            best, weight_sum, total, total_rest, True, MAIN, REST, TAIL,
        )  # fmt: skip
    out = mixed + item * count * width + head + rows[:, None] * width
    tl.store(out + main[None, :], (total / weight_sum[:, None]).to(mixed.dtype.element_ty), mask=here)
    if REST > 0:
        tl.store(out + rest[None, :], (total_rest / weight_sum[:, None]).to(mixed.dtype.element_ty), mask=here)


@triton.jit
def _step(
    query,
    query_rest,
    keys,
    values,
    begin,
    tokens,
    seen,
    key_row,
    scale,
    best,
    weight_sum,
    total,
    total_rest,
    MASK: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One step of the running softmax, over the COLUMNS keys from `begin` on; with MASK, only keys that a query sees
    count.
    """
    columns = begin + tl.arange(0, COLUMNS)
    there = (columns < tokens)[:, None]
    main = columns[:, None] * key_row + tl.arange(0, MAIN)[None, :]
    key = tl.load(keys + main, mask=there, other=0.0) if MASK else tl.load(keys + main)
    logits = tl.dot(query, key.T)
    if REST > 0:
        rest = columns[:, None] * key_row + MAIN + tl.arange(0, REST)[None, :]
        key_rest = tl.load(keys + rest, mask=there, other=0.0) if MASK else tl.load(keys + rest)
        logits = tl.dot(query_rest, key_rest.T, logits)
    if MASK:
        logits = tl.where(columns[None, :] <= seen[:, None], logits, float("-inf"))
    highest = tl.maximum(best, tl.max(logits, 1) * scale)
    weights = tl.exp2(logits * scale - highest[:, None])
    shrink = tl.exp2(best - highest)
    weight_sum = weight_sum * shrink + tl.sum(weights, 1)
    value = tl.load(values + main, mask=there, other=0.0) if MASK else tl.load(values + main)
    weights = weights.to(value.dtype)
    total = tl.dot(weights, value, total * shrink[:, None])
    if REST > 0:
        value_rest = tl.load(values + rest, mask=there, other=0.0) if MASK else tl.load(values + rest)
        total_rest = tl.dot(weights, value_rest, total_rest * shrink[:, None])
    else:
        total_rest = total
    return highest, weight_sum, total, total_rest
