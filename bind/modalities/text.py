"""Texts: read by `preprocess.readers.text`, turned into tokens here, because tokenizers belong to models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bind import tokenizers
from bind.modalities import ModalitySpec
from preprocess.readers import text

if TYPE_CHECKING:
    import torch


def prepare(views: np.ndarray, config: text.TextConfig) -> torch.Tensor:
    """(texts,) of strings -> (K, context_length) int64 tokens: every window with its start, its end and padding.

    A text longer than the context gives several windows, so K may exceed the number of texts; nothing is cut off.
    Raises ValueError for an unknown tokenizer and a context without room for a token.
    """
    import torch  # listing the modalities needs no torch

    tokenizer = tokenizers.load(config.tokenizer)
    room = config.context_length - len(tokenizer.start) - len(tokenizer.end)
    rows = [row for view in views for row in text.windows(tokenizer.words(str(view)), room)]
    padding = [tokenizer.pad] * room
    return torch.tensor([[*tokenizer.start, *row, *tokenizer.end, *padding[len(row) :]] for row in rows])


SPEC = ModalitySpec(
    name="text",
    config=text.TextConfig,
    read=text.read,
    prepare=prepare,
    shape=text.shape,
    families=frozenset({"text"}),
    default_for=frozenset({"text"}),
    isolated=False,
)
