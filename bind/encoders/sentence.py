"""Sentence encoders of the BERT family (arXiv 1810.04805), without transformers, whose import takes seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from bind.encoders import check_options, shapes_only
from bind.kernels.onednn import Linear

# sentence-transformers/all-MiniLM-L6-v2, config.json
_MINILM = {
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
}
# Keys of a config.json that this module does not vary, and the values it expects.
_FIXED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute", "layer_norm_eps": 1e-12}
_NORM_EPSILON = 1e-12
_INITIAL_STD = 0.02


class SentenceEncoder(nn.Module):
    """(B, L) token ids, 0 where padded -> (B, width): the mean of the last layer over all tokens, as unit rows.

    This is sentence-transformers' all-MiniLM-L6-v2: mean pooling, then the L2 norm. `config` has the keys of BERT's
    config.json. The means of the given `layers` are appended without normalisation (0 is the layer of embedded words, 1
    the first layer); they describe the words before they form a sentence.
    """

    def __init__(self, config: Mapping[str, int], layers: Sequence[int] = ()) -> None:
        super().__init__()
        width, self._kept = config["hidden_size"], tuple(layers)
        if set(layers) - set(range(config["num_hidden_layers"])):
            raise ValueError(f"encoder: layers is {layers!r}, expected some of 0 to {config['num_hidden_layers'] - 1}")
        self.width = width * (1 + len(layers))
        self.words = nn.Embedding(config["vocab_size"], width)
        # The embedding of the first of BERT's two token types is added, because there is one sentence only.
        self.positions = nn.Embedding(config["max_position_embeddings"], width)
        self.norm = nn.LayerNorm(width, eps=_NORM_EPSILON)
        self.layers = nn.ModuleList(
            _Layer(width, config["num_attention_heads"], config["intermediate_size"])
            for _ in range(config["num_hidden_layers"])
        )
        for module in self.modules():
            if isinstance(module, (nn.Embedding, nn.Linear)):
                nn.init.normal_(module.weight, std=_INITIAL_STD)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, L) int64 -> (B, width) float; the first `hidden_size` of each row have norm 1."""
        lengths = (ids != 0).sum(1)
        shortest, longest = (int(length) for length in torch.aminmax(lengths))
        ids = ids[:, :longest]  # attention over columns that are padding in every row would be wasted
        real = None if shortest == longest else (ids != 0)[..., None]
        visible = None if real is None else real[:, None, None, :, 0]

        def mean(x: Tensor) -> Tensor:
            return x.mean(1) if real is None else (x * real).sum(1) / lengths[:, None]

        states = [self.norm(self.words(ids) + self.positions.weight[:longest])]
        for layer in self.layers:
            states.append(layer(states[-1], visible))
        sentence = F.normalize(mean(states[-1]), dim=1)
        return torch.cat([sentence, *(mean(states[number]) for number in self._kept)], 1) if self._kept else sentence


class _Layer(nn.Module):
    """(B, L, width) -> (B, L, width): attention, then an MLP with exact GELU; a LayerNorm follows each sum."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = Linear(width, 3 * width)
        self.out_proj = Linear(width, width)
        self.norm_1 = nn.LayerNorm(width, eps=_NORM_EPSILON)
        self.fc1 = Linear(width, inner)
        self.fc2 = Linear(inner, width)
        self.norm_2 = nn.LayerNorm(width, eps=_NORM_EPSILON)

    def forward(self, x: Tensor, visible: Tensor | None) -> Tensor:
        """(B, L, width), and (B, 1, 1, L) bool where a row has padding (else None) -> (B, L, width)."""
        query, key, value = self.in_proj(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        x = self.norm_1(x + self.out_proj(mixed.transpose(1, 2).flatten(2)))
        normed: Tensor = self.norm_2(x + self.fc2(F.gelu(self.fc1(x))))
        return normed


def build(options: Mapping[str, Any]) -> nn.Module:
    """`{"layers": [...]}` -> a randomly initialised encoder of MiniLM-L6's shape; its keys may be overridden."""
    check_options(options, {*_MINILM, "layers"})
    shape = {name: value for name, value in options.items() if name != "layers"}
    return SentenceEncoder(_MINILM | shape, options.get("layers", ()))


def load(options: Mapping[str, Any], file: Path) -> nn.Module:
    """The encoder with the weights of a sentence-transformers folder's `model.safetensors`; its config.json lies beside
    it.

    Raises ValueError where the two do not fit, and for a BERT of another kind (activation, positions).
    """
    config = json.loads((file.parent / "config.json").read_text())
    if other := {key: config[key] for key, value in _FIXED.items() if config.get(key, value) != value}:
        raise ValueError(f"{file.parent / 'config.json'}: expected {_FIXED}, got {other}")
    published = load_file(file)
    try:
        state = _renamed(published, config["num_hidden_layers"])
    except KeyError as error:
        raise ValueError(f"{file}: has no tensor {error}") from None
    if unexpected := [key for key in published if not key.startswith("pooler.") and key != "embeddings.position_ids"]:
        raise ValueError(f"{file}: unexpected tensors {unexpected}")
    with shapes_only():
        encoder = build({key: config[key] for key in _MINILM} | dict(options))
    try:
        encoder.load_state_dict(state, assign=True)
    except RuntimeError as error:  # the shapes differ
        raise ValueError(f"{file}: {error}") from None
    return encoder


def _renamed(published: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The tensors of BERT under transformers' names, removed from `published` -> under our names; q, k and v become
    one.
    """
    take = published.pop
    kinds = take("embeddings.token_type_embeddings.weight")
    state = {
        "words.weight": take("embeddings.word_embeddings.weight"),
        "positions.weight": take("embeddings.position_embeddings.weight") + kinds[0],
    }
    norms = {"norm": "embeddings.LayerNorm"}
    linears: dict[str, str] = {}
    for number in range(layers):
        ours, theirs = f"layers.{number}", f"encoder.layer.{number}"
        norms |= {
            f"{ours}.norm_1": f"{theirs}.attention.output.LayerNorm",
            f"{ours}.norm_2": f"{theirs}.output.LayerNorm",
        }
        linears |= {
            f"{ours}.out_proj": f"{theirs}.attention.output.dense",
            f"{ours}.fc1": f"{theirs}.intermediate.dense",
            f"{ours}.fc2": f"{theirs}.output.dense",
        }
        for part in ("weight", "bias"):
            three = [take(f"{theirs}.attention.self.{name}.{part}") for name in ("query", "key", "value")]
            state[f"{ours}.in_proj.{part}"] = torch.cat(three)
    for ours, theirs in (norms | linears).items():
        for part in ("weight", "bias"):
            state[f"{ours}.{part}"] = take(f"{theirs}.{part}")
    return state
