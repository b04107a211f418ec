"""The terms of a query, which the library, the service and the client take."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preprocess.source import Hints


@dataclass(frozen=True, eq=False)
class Term:
    """One term of a query. The type of `content` says what it is, so that words are never taken for a path.

    Args:
        content: A str is words; bytes or a Path are a medium; an int is the id of an item of the library; an array (D,)
            is a vector of the library's space.
        modality: The modality of a medium; None means that the content decides.
        weight: The factor of the term in the sum, from -1 to 1.
        name: The name of bytes: its suffix and words, as in `room.depth.png`, help to recognise the bytes.
        hints: Facts that a medium does not hold itself, such as the unit of depth.

    Raises:
        ValueError: The weight is not in -1..1, or the content is of another type.

    Example:
        >>> terms = [Term(Path("dog.jpg")), Term("indoors", weight=-1)]
        >>> terms[0].is_words, terms[1].is_words
        (False, True)
    """

    content: str | bytes | Path | int | np.ndarray
    modality: str | None = None
    weight: float = 1.0
    name: str = ""
    hints: Hints = field(default_factory=Hints)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and -1 <= self.weight <= 1):
            raise ValueError(f"term: expected a weight from -1 to 1, got {self.weight}")
        if isinstance(self.content, bool) or not isinstance(self.content, (str, bytes, Path, int, np.ndarray)):
            raise ValueError(f"term: expected words, bytes, a Path, an item id or a vector, got {type(self.content)}")

    @property
    def is_words(self) -> bool:
        """Whether the content is words."""
        return isinstance(self.content, str)
