"""What a query is made of, for the service, its API and its client alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preprocess.source import Hints


@dataclass(frozen=True, eq=False)
class Term:
    """One summand of a query. The type of `content` says what it is, so that words are never taken for a path:

    a str is words; bytes or a Path are a medium, of kind `modality` (None: its content tells); an int is the id of an
    item of the library; an array (D,) is a vector of the library's space. `name` is what bytes are called (its suffix
    and words such as `room.depth.png` help to recognise them), `weight` lies in -1..1. Raises ValueError otherwise.
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
        """Whether it is words."""
        return isinstance(self.content, str)
