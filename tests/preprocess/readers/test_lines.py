"""Lines of words: what a worker sends is what comes out, and nothing else comes out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from preprocess.readers.lines import MOST_LINES, Line, packed, parsed, unpacked
from preprocess.source import Segment

LINES = (
    Line("Zugabteil für Frauen", 0.98, (0.1, 0.2, 0.5, 0.25), "page 3"),
    Line("one two", start_s=65.0, end_s=66.5),
)


def test_lines_survive_the_way_out_of_a_worker() -> None:
    assert unpacked(packed(LINES)) == LINES
    assert unpacked(packed([])) == ()


def test_a_place_is_said_in_words() -> None:
    assert [line.place for line in LINES] == ["page 3, 10 % from the left, 20 % from the top", "1:05.0"]


def test_too_many_lines_are_told() -> None:
    (segment,) = packed([Line("x")] * (MOST_LINES + 1))
    assert len(unpacked([segment])) == MOST_LINES
    assert "20,000" in segment.notes[0]


@pytest.mark.parametrize(
    "rows",
    [
        "nothing",
        "{}x",
        "[1]",
        "[[1, null, null, null, null, null]]",
        '[["a", "high", null, null, null, null]]',
        '[["a", NaN, null, null, null, null]]',
        '[["a", null, [1, 2, 3], null, null, null]]',
        '[["a", null, [1, 2, 3, Infinity], null, null, null]]',
        '[["a", null, null, 3, null, null]]',
        '[["a", null, null]]',
        json.dumps([["a" * 1001, None, None, None, None, None]]),
    ],
)
@pytest.mark.attack
def test_what_no_reader_makes_is_refused(rows: str) -> None:
    with pytest.raises(ValueError):
        parsed(rows)
    with pytest.raises(ValueError):
        unpacked([Segment(np.frombuffer(rows.encode(), np.uint8)[None])])
