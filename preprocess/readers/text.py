"""Text: a string or a text file, and the windows that a text longer than an encoder's context is cut into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from preprocess.encodings import encoding_of, spelled
from preprocess.source import Limits, MediaError, Plan, Segment, Source

MAX_CHARACTERS = 1_000_000  # a long book; some 3,000 windows of 77 tokens
DOCUMENT = "\0"
"""The first character of a view whose text comes from a file, where the config has `roles`; no text has it."""


@dataclass(frozen=True)
class TextConfig:
    """Preprocessing constants: a tokenizer of `bind.tokenizers` and the tokens an encoder takes at once.

    The default is CLIP's (arXiv 2103.00020, section 2.4), which ImageBind took over. With `roles` the encoder is told
    which texts are documents: those that come from files; a string is a query.
    """

    tokenizer: str = "clip"
    context_length: int = 77
    roles: bool = field(default=False, metadata={"added": True})


def shape(config: TextConfig) -> tuple[int]:
    """(tokens of one window,)."""
    return (config.context_length,)


def read(source: Source, config: TextConfig, limits: Limits, plan: Plan) -> list[Segment]:
    """A string in memory, or text as a path or bytes -> one segment whose views (1,) hold the text (dtype U).

    Files are UTF-8 or UTF-16, with or without a byte order mark, else in an encoding that
    `preprocess.encodings` tells; a note says which where it is not UTF-8.
    Raises MediaError for text that is empty or blank, of another encoding, with NUL characters or lone surrogates,
    or longer than `MAX_CHARACTERS`.
    """
    text, notes = (source.content, ()) if isinstance(source.content, str) else _decode(source, limits)
    if len(text) > MAX_CHARACTERS:
        raise MediaError(source.name, f"has {len(text):,} characters, the limit is {MAX_CHARACTERS:,}; split the text")
    if "\0" in text:
        raise MediaError(source.name, f"is not text: character {text.index(chr(0)):,} is NUL")
    if not any(character.isprintable() and not character.isspace() for character in text):
        raise MediaError(source.name, "is blank: expected at least one visible character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise MediaError(source.name, f"is not valid Unicode: character {error.start:,} is half a pair") from None
    if config.roles and source.is_encoded:
        text = DOCUMENT + text
    return [Segment(np.array([text]), notes=notes)]


def windows(words: Sequence[Sequence[int]], room: int) -> list[list[int]]:
    """Tokens grouped by word -> the same tokens, in order, in as few windows of at most `room` as words allow.

    Windows are about equally long, so that in their average every word weighs about the same. A word is cut only
    where it alone is longer than a window. No words give one empty window. Raises ValueError if `room` is below 1.
    """
    if room < 1:
        raise ValueError(f"windows: expected room for at least 1 token, got {room}")
    pieces = [word[i : i + room] for word in words for i in range(0, len(word), room)]
    packed = _pack(pieces, room)
    if len(packed) == 1:
        return packed
    # The smallest room that needs no more windows is the most even one.
    low, high = max(map(len, pieces), default=1), room
    while low < high:
        middle = (low + high) // 2
        if len(_pack(pieces, middle)) <= len(packed):
            high = middle
        else:
            low = middle + 1
    return _pack(pieces, high)


def _pack(pieces: Sequence[Sequence[int]], room: int) -> list[list[int]]:
    packed: list[list[int]] = [[]]
    for piece in pieces:
        if len(packed[-1]) + len(piece) > room:
            packed.append([])
        packed[-1].extend(piece)
    return packed


def _decode(source: Source, limits: Limits) -> tuple[str, tuple[str, ...]]:
    with source.open(limits) as file:
        data = file.read(4 * MAX_CHARACTERS + 4)  # no encoding takes more than 4 bytes a character, and 3 for its mark
    if len(data) == 4 * MAX_CHARACTERS + 4:
        raise MediaError(source.name, f"has more than {MAX_CHARACTERS:,} characters (the limit); split the text")
    encoding = encoding_of(data) or "utf-8"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise MediaError(
            source.name,
            f"is not {encoding.upper()} text: byte 0x{error.object[error.start]:02x} at offset {error.start:,}; "
            "save it as UTF-8",
        ) from None
    if encoding.startswith("utf-8"):
        return text, ()
    return text, (f"is not UTF-8: read as {spelled(encoding)}",)
