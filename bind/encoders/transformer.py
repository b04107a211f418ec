"""A pre-norm transformer with its stems, from which ImageBind's towers and our trainable encoders are built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bind.encoders import check_options
from bind.kernels.onednn import Linear, linear

NORM_EPSILON = 1e-6
"""The epsilon of every LayerNorm but the stems', which have torch's default of 1e-5; both are as in ImageBind."""


class Attention(nn.Module):
    """(B, N, width) -> (B, N, width): multi-head self-attention.

    `bias_kv` appends one learned key and value that every token may attend to, after the projection, as
    `nn.MultiheadAttention(add_bias_kv=True)` does. `causal` lets a token see only itself and those before it.
    """

    def __init__(self, width: int, heads: int, *, bias_kv: bool = False, causal: bool = False) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"attention: expected a width that {heads} heads divide, got {width}")
        if bias_kv and causal:
            raise ValueError("attention: expected bias_kv or causal, got both; the causal mask would hide the bias key")
        self.heads = heads
        self.causal = causal
        self.in_proj = Linear(width, 3 * width)
        self.out_proj = Linear(width, width)
        self.bias_k = nn.Parameter(torch.empty(1, 1, width)) if bias_kv else None
        self.bias_v = nn.Parameter(torch.empty(1, 1, width)) if bias_kv else None
        for projection in (self.in_proj, self.out_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                nn.init.normal_(bias, std=width**-0.5)

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """(B, N, width) -> (B, N, width); with positions `at` (B,) int64 -> (B, 1, width), the states at these only."""
        batch, tokens, width = x.shape
        visible = None
        if at is None or type(self.in_proj) is not nn.Linear:  # a wrapped layer, as LoRA makes, cannot be divided
            query, key, value = self.in_proj(x).chunk(3, dim=-1)
            query = query if at is None else pick(query, at)
        else:
            weight, bias = self.in_proj.weight, self.in_proj.bias
            query = linear(pick(x, at), weight[:width], bias[:width])
            key, value = linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)
        if at is not None and self.causal:
            visible = (torch.arange(tokens, device=x.device) <= at[:, None])[:, None, None]
        if self.bias_k is not None and self.bias_v is not None:
            key = torch.cat([key, self.bias_k.to(key.dtype).expand(batch, -1, -1)], dim=1)
            value = torch.cat([value, self.bias_v.to(value.dtype).expand(batch, -1, -1)], dim=1)
        query, key, value = (
            part.view(batch, -1, self.heads, width // self.heads).transpose(1, 2) for part in (query, key, value)
        )
        causal = self.causal and at is None
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=visible, is_causal=causal)
        attended: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return attended

    def values(self, x: Tensor) -> Tensor:
        """(B, N, width) -> (B, N, width): attention in which each token sees itself only."""
        own: Tensor = self.out_proj(self.in_proj(x).chunk(3, dim=-1)[2])
        return own


class Block(nn.Module):
    """(B, N, width) -> (B, N, width): attention, then an MLP of four times the width with exact GELU, both pre-norm.

    `drop_path` is the probability that training leaves out a residual branch of an item (stochastic depth, arXiv
    1603.09382). ImageBind's own code leaves out token positions of the whole batch instead.
    """

    def __init__(
        self, width: int, heads: int, *, bias_kv: bool = False, causal: bool = False, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm_1 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.attention = Attention(width, heads, bias_kv=bias_kv, causal=causal)
        self.norm_2 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.fc1 = Linear(width, 4 * width)
        self.fc2 = Linear(4 * width, width)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """(B, N, width) -> (B, N, width); with positions `at` (B,) int64 -> (B, 1, width), the states at these only."""
        attended = self._thin(self.attention(self.norm_1(x), at))
        x = (x if at is None else pick(x, at)) + attended
        return x + self._thin(self.fc2(F.gelu(self.fc1(self.norm_2(x)))))

    def _thin(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0.0:
            return branch
        keep = 1.0 - self.drop_path
        return branch * branch.new_empty(branch.shape[0], 1, 1).bernoulli_(keep).div_(keep)


def pick(x: Tensor, at: Tensor) -> Tensor:
    """(B, N, width) and positions (B,) int64 -> (B, 1, width), the states at these positions."""
    return x[torch.arange(len(x), device=x.device), at].unsqueeze(1)


class FusedInference(Protocol):
    """An object that can compute a `Transformer`'s inference on a GPU (`bind.kernels.transformer.Fused`)."""

    def __call__(self, x: Tensor, at: Tensor) -> Tensor:
        """(B, N, width), (B,) int64 -> (B, width), as `Transformer.forward`."""

    def tokens(self, encoder: PatchEncoder, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, N, width), the tokens that `PatchEncoder` passes to its transformer."""


class Transformer(nn.Module):
    """(B, N, width) and positions (B,) -> (B, width), the states at these positions after `depth` blocks.

    No other state of the last block is needed, so the last block computes only keys and values for the other tokens.
    The drop-path rate grows linearly from 0 to `drop_path`. Where `fused` is set, it computes inference on a GPU in
    bfloat16.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        *,
        bias_kv: bool = False,
        causal: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0.0 <= drop_path < 1.0:
            raise ValueError(f"transformer: expected 0 <= drop_path < 1, got {drop_path}")
        self.width = width
        self.checkpointing = False
        self.fused: FusedInference | None = None
        rates = [drop_path * index / max(depth - 1, 1) for index in range(depth)]
        self.blocks = nn.ModuleList(
            Block(width, heads, bias_kv=bias_kv, causal=causal, drop_path=rate) for rate in rates
        )

    def forward(self, x: Tensor, at: Tensor) -> Tensor:
        """(B, N, width), (B,) int64 -> (B, width)."""
        if (fused := self.fused_for(x)) is not None:
            return fused(x, at)
        *blocks, last = self.blocks
        recompute = self.checkpointing and torch.is_grad_enabled()
        for block in blocks:
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        x = checkpoint(last, x, at, use_reentrant=False) if recompute else last(x, at)
        return x.squeeze(1)

    def fused_for(self, x: Tensor) -> FusedInference | None:
        """`fused`, where it is set and can take an input or a state `x`, else None."""
        usable = x.is_cuda and x.dtype == torch.bfloat16 and not torch.is_grad_enabled()
        return self.fused if usable else None


class Patches(nn.Module):
    """(B, *shape) -> (B, N, width) tokens: a convolution over 1, 2 or 3 dimensions, then a LayerNorm if `norm`.

    Where the last two sizes of `shape` (channels first), kernel and stride are equal, squares of other sizes are
    accepted too. Other shapes raise ValueError.
    """

    def __init__(
        self, shape: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], width: int, *, norm: bool = True
    ) -> None:
        super().__init__()
        channels, *sizes = shape
        if not 1 <= len(sizes) == len(kernel) == len(stride) <= 3 or any(
            size < edge for size, edge in zip(sizes, kernel, strict=True)
        ):
            raise ValueError(
                "patches: expected a shape of channels and 1 to 3 sizes, a kernel no larger than these, and a stride, "
                f"got shape {shape}, kernel {kernel}, stride {stride}"
            )
        convolution: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(sizes) - 1]
        self.shape = shape
        self.kernel = kernel
        self.stride = stride
        self.grid = tuple((size - k) // step + 1 for size, k, step in zip(sizes, kernel, stride, strict=True))
        self.projection = convolution(channels, width, kernel, stride, bias=False)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, N, width)."""
        tokens: Tensor = self.norm(self.project(x))
        return tokens

    def project(self, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, N, width), before the norm."""
        self.check(x, self.shape)
        return self._convolve(x, self.projection.weight)

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        # The convolution is computed as one product over windows, which on a GPU is several times as fast for few
        # channels.
        dims = weight.ndim - 2
        for dim in range(dims):
            x = x.unfold(2 + dim, self.kernel[dim - dims], self.stride[dim - dims])
        windows = x.movedim(1, 1 + dims).flatten(1 + dims).flatten(1, dims)
        return linear(windows, weight.flatten(1))

    def check(self, x: Tensor, shape: tuple[int, ...]) -> None:
        """Raises ValueError unless `x` is a batch of `shape`, or of another square where `shape` ends in a square."""
        given, smallest = tuple(x.shape[1:]), self.kernel[-1]
        square = len(shape) > 2 and all(sizes[-1] == sizes[-2] for sizes in (shape, self.kernel, self.stride))
        resized = (
            square and len(given) == len(shape) and given[:-2] == shape[:-2] and given[-1] == given[-2] >= smallest
        )
        if given != shape and not resized:
            other = f" or another square of at least {smallest}" if square else ""
            raise ValueError(f"encoder: expected (B, {', '.join(map(str, shape))}){other}, got {tuple(x.shape)}")


class PatchEncoder(nn.Module):
    """(B, *shape) -> (B, width): patches, class token and positions through a transformer, then the normed class token.

    Positions are interpolated bicubically for squares of another size than the stem's own. Raises ValueError for other
    shapes.
    """

    def __init__(self, stem: Patches, trunk: Transformer, *, pre_norm: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.width = trunk.width
        self.stem = stem
        self.cls = nn.Parameter(torch.empty(1, 1, self.width))
        self.positions = nn.Parameter(torch.empty(1, 1 + math.prod(stem.grid), self.width))
        self.pre_norm = nn.LayerNorm(self.width, eps=NORM_EPSILON) if pre_norm else nn.Identity()
        self.trunk = trunk
        self.norm = nn.LayerNorm(self.width, eps=NORM_EPSILON)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.cls, std=self.width**-0.5)
        nn.init.normal_(self.positions, std=self.width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, width)."""
        fused = self.trunk.fused_for(x)
        tokens = self._tokens(x) if fused is None else fused.tokens(self, x)
        at_class_token = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        pooled: Tensor = self.dropout(self.norm(self.trunk(tokens, at_class_token)))
        return pooled

    def places(self, x: Tensor) -> Tensor:
        """(B, *shape), squares -> (B, width, h, w): what each patch adds to a class token that looks at it only.

        That is the value path of the last block, without its residual and its feed-forward layer (MaskCLIP, arXiv
        2112.01071; ClearCLIP, arXiv 2407.12442). Raises ValueError for other shapes than squares.
        """
        tokens = self._tokens(x)
        *blocks, last = self.trunk.blocks
        assert isinstance(last, Block)
        for block in blocks:
            tokens = block(tokens)
        side = math.isqrt(tokens.shape[1] - 1)
        if side * side != tokens.shape[1] - 1:
            raise ValueError(f"places: expected patches of one square picture, got {tokens.shape[1] - 1} patches")
        patches: Tensor = self.norm(last.attention.values(last.norm_1(tokens[:, 1:])))
        return patches.transpose(1, 2).reshape(len(x), self.width, side, side)

    def _tokens(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.stem(x)
        tokens = torch.cat([self.cls.to(tokens.dtype).expand(x.shape[0], -1, -1), tokens], dim=1)
        normed: Tensor = self.pre_norm(tokens + self.positions_for(tokens.shape[1]))
        return normed

    def set_checkpointing(self, on: bool) -> None:
        """Whether training recomputes activations block by block: less memory for about a third more time."""
        self.trunk.checkpointing = on

    def positions_for(self, count: int) -> Tensor:
        """(1, count, width), the learned positions, interpolated where `count` is not their own number."""
        if count == self.positions.shape[1]:
            return self.positions
        # The stem has checked that only squares have another size than the native one.
        *outer, _, side = self.stem.grid
        planes = math.prod(outer)
        wanted = math.isqrt((count - 1) // planes)
        grid = self.positions[0, 1:].view(planes, side, side, self.width).permute(0, 3, 1, 2)
        # Interpolation is in float32, as in the reference: bfloat16 would round its weights too.
        grid = F.interpolate(grid.float(), size=(wanted, wanted), mode="bicubic").to(grid.dtype)
        return torch.cat([self.positions[:, :1], grid.permute(0, 2, 3, 1).reshape(1, -1, self.width)], dim=1)


def build(options: Mapping[str, Any]) -> PatchEncoder:
    """A table of the arguments of `Patches`, `Transformer` and `PatchEncoder` -> an encoder (B, *shape) -> (B, width).

    `shape`, `kernel`, `stride`, `width`, `depth` and `heads` are needed; `bias_kv`, `drop_path` and `dropout` are
    optional. Weights are random. Raises ValueError that lists unknown or missing keys.
    """
    needed = {"shape", "kernel", "stride", "width", "depth", "heads"}
    check_options(options, needed | {"bias_kv", "drop_path", "dropout"})
    if missing := sorted(needed - options.keys()):
        raise ValueError(f"encoder: missing keys {missing}")
    width = options["width"]
    shape, kernel, stride = (tuple(options[key]) for key in ("shape", "kernel", "stride"))
    trunk = Transformer(
        width,
        options["depth"],
        options["heads"],
        bias_kv=options.get("bias_kv", False),
        drop_path=options.get("drop_path", 0.0),
    )
    return PatchEncoder(Patches(shape, kernel, stride, width), trunk, dropout=options.get("dropout", 0.0))
