"""Sentence encoders of the BERT family through transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from bind.encoders import check_options

# sentence-transformers/all-MiniLM-L6-v2, config.json
_MINILM = {
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
}


class SentenceEncoder(nn.Module):
    """(B, L) token ids, 0 where padded -> (B, width): the mean of the last layer over all tokens, unit rows.

    As sentence-transformers' all-MiniLM-L6-v2: mean pooling, then L2 norm.
    """

    def __init__(self, config: Mapping[str, int]) -> None:
        super().__init__()
        from transformers.models.bert import BertConfig, BertModel

        self.bert = BertModel(BertConfig(**config), add_pooling_layer=False)
        self.width = config["hidden_size"]

    def forward(self, ids: Tensor) -> Tensor:
        """(B, L) int64 -> (B, width) float, unit rows."""
        longest = int((ids != 0).sum(1).max())
        ids = ids[:, :longest]  # attention over columns that are padding in every row is wasted
        mask = ids != 0
        hidden = self.bert(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        summed = (hidden * mask[..., None]).sum(1)
        return nn.functional.normalize(summed / mask.sum(1, keepdim=True), dim=1)


def build(options: Mapping[str, Any]) -> nn.Module:
    """`{}` -> a randomly initialised encoder of MiniLM-L6's shape; its keys may be overridden."""
    check_options(options, set(_MINILM))
    return SentenceEncoder(_MINILM | dict(options))


def load(options: Mapping[str, Any], file: Path) -> nn.Module:
    """The encoder with the weights of a sentence-transformers folder's `model.safetensors` (its config.json beside it).

    Raises ValueError where the two do not fit.
    """
    config = json.loads((file.parent / "config.json").read_text())
    encoder = SentenceEncoder({key: config[key] for key in _MINILM} | dict(options))
    missing, unexpected = encoder.bert.load_state_dict(load_file(file), strict=False)
    unexpected = [key for key in unexpected if not key.startswith("pooler.") and key != "embeddings.position_ids"]
    if missing or unexpected:
        raise ValueError(f"{file}: missing tensors {missing}, unexpected {unexpected}")
    return encoder
