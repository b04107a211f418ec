"""Lines of words that were read in a picture or heard in a recording, and how they leave a decode worker."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from preprocess.decoding.protocol import Returns
from preprocess.source import Limits, Plan, Segment

MOST_LINES = 20_000
"""Lines of one medium: the pages of a book, or a day of speech."""
_MOST_BYTES = 2**23
"""Bytes of all lines of a medium as JSON, in which they leave the decode worker."""
_MOST_CHARACTERS = 1000
"""Characters of one line and of the name of its place; the longest lines of a page have 200."""


@dataclass(frozen=True)
class Line:
    """A line of a picture, or a phrase of speech, with its place.

    `score` is the recogniser's confidence from 0 to 1, None where it has none. `box` is (left, top, right, bottom) in
    parts of the picture's width and height, `at` the page of a document; both are None for speech, which has `start_s`
    and `end_s` in seconds.
    """

    text: str
    score: float | None = None
    box: tuple[float, float, float, float] | None = None
    at: str | None = None
    start_s: float | None = None
    end_s: float | None = None

    @property
    def place(self) -> str:
        """Where it is, in words: `1:05.0` of a recording; `page 3, 20 % from the left, 45 % from the top`."""
        if self.start_s is not None:
            return f"{int(self.start_s // 60)}:{self.start_s % 60:04.1f}"
        sides = "" if self.box is None else f"{self.box[0]:.0%} from the left, {self.box[1]:.0%} from the top"
        return ", ".join(filter(None, (self.at, sides.replace("%", " %"))))


def declare(config: Any, limits: Limits, plan: Plan) -> Returns:
    """What a reader of lines returns at most: the bytes of a JSON list."""
    return Returns("uint8", (None,), views=1, elements=_MOST_BYTES)


def packed(lines: Sequence[Line], notes: tuple[str, ...] = ()) -> list[Segment]:
    """Lines -> one segment whose view (1, n) uint8 are the bytes of `dumped`; too many lines are left out and told."""
    if len(lines) > MOST_LINES:
        notes = (*notes, f"its lines behind the first {MOST_LINES:,} were left out")
    payload = dumped(lines[:MOST_LINES]).encode()
    return [Segment(np.frombuffer(payload, np.uint8)[None], notes=notes)]


def unpacked(segments: Sequence[Segment]) -> tuple[Line, ...]:
    """What a reader of lines returned -> its lines. Raises ValueError for what `packed` does not make."""
    return parsed(segments[0].views.tobytes())


def dumped(lines: Iterable[Line]) -> str:
    """Lines -> JSON, each a list of the values of `Line`."""
    return json.dumps([[_short(value) for value in asdict(line).values()] for line in lines])


def parsed(text: str | bytes) -> tuple[Line, ...]:
    """JSON of `dumped` -> its lines. Raises ValueError for any other text."""
    try:
        rows = json.loads(text)
        if len(rows) > MOST_LINES:
            raise ValueError(f"expected at most {MOST_LINES:,} lines, got {len(rows):,}")
        return tuple(_checked(*row) for row in rows)
    except (TypeError, RecursionError, OverflowError) as error:
        raise ValueError(f"expected lines of words: {error}") from None


def _checked(text: Any, score: Any, box: Any, at: Any, start_s: Any, end_s: Any) -> Line:
    is_text = isinstance(text, str) and len(text) <= _MOST_CHARACTERS
    if not is_text or not (at is None or (isinstance(at, str) and len(at) <= _MOST_CHARACTERS)):
        raise ValueError("expected the words of a line and its page as text")
    if box is not None and len(box) != 4:
        raise ValueError("expected a box of four numbers")
    numbers = [None if value is None else float(value) for value in (score, start_s, end_s)]
    sides = None if box is None else tuple(float(side) for side in box)
    if not all(math.isfinite(value) for value in (*(sides or ()), *numbers) if value is not None):
        raise ValueError("expected finite numbers in a line")
    return Line(text, numbers[0], sides, at, *numbers[1:])  # type: ignore[arg-type]


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, tuple):
        return [round(side, 4) for side in value]
    return value[:_MOST_CHARACTERS] if isinstance(value, str) else value
