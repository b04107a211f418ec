"""Texts: `preprocess.readers.text` reads them; they become tokens here, because tokenizers belong to models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bind import tokenizers
from bind.modalities import ModalitySpec
from preprocess.readers import text

if TYPE_CHECKING:
    import torch


def prepare(views: np.ndarray, config: text.TextConfig) -> torch.Tensor:
    """(texts,) of strings -> (K, context_length) int64 tokens: each window with its start, its end and padding.

    A text longer than the context gives several windows, so that nothing is cut off and K may exceed the number of
    texts. `tokenizer` may name several tokenizers, joined by `+`, for encoders side by side; each has an equal part of
    a row. With `roles` a row begins with 1 where its text is a document and with 0 where it is a query. Raises
    ValueError for an unknown tokenizer and for a context without room for a token.
    """
    import torch  # listing the modalities needs no torch

    parts = [tokenizers.load(name) for name in config.tokenizer.split("+")]
    length = config.context_length // len(parts)
    if not config.roles:
        return torch.tensor([row for view in views for row in _rows(str(view), parts, length)])
    rows = []
    for view in views:
        content = str(view).removeprefix(text.DOCUMENT)
        role = int(content != str(view))
        rows += [[role, *row] for row in _rows(content, parts, length - 1)]
    return torch.tensor(rows)


def _rows(content: str, parts: Sequence[tokenizers.Tokenizer], length: int) -> list[list[int]]:
    """A text -> rows with `length` tokens of each tokenizer, side by side; all tokenizers make equally many windows."""
    words = [tokenizer.words(content) for tokenizer in parts]
    rooms = [length - len(tokenizer.start) - len(tokenizer.end) for tokenizer in parts]
    windows = [text.windows(part, room) for part, room in zip(words, rooms, strict=True)]
    count = max(map(len, windows))
    columns = []
    for tokenizer, room, found in zip(parts, rooms, windows, strict=True):
        padding = [tokenizer.pad] * room
        rows = [[*tokenizer.start, *row, *tokenizer.end, *padding[len(row) :]] for row in _as_many(found, count)]
        columns.append(rows)
    return [[token for column in columns for token in column[number]] for number in range(count)]


def _as_many(windows: list[list[int]], count: int) -> list[list[int]]:
    """Windows -> `count` windows, at least as many as given: the longest window is halved until there are enough."""
    windows = list(windows)
    while len(windows) < count:
        at = max(range(len(windows)), key=lambda number: len(windows[number]))
        longest, half = windows[at], (len(windows[at]) + 1) // 2
        windows[at : at + 1] = [longest[:half], longest[half:] or longest]
    return windows


SPEC = ModalitySpec(
    name="text",
    config=text.TextConfig,
    read=text.read,
    prepare=prepare,
    shape=text.shape,
    families=frozenset({"text"}),
    default_for=frozenset({"text"}),
    isolated=False,
    preview="text",
)
