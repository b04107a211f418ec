"""A recogniser that knows the words of a picture or a recording by the file's name.

Decode workers import this module, so it imports no model.
"""

from __future__ import annotations

import os
from typing import Any

from preprocess.decoding.protocol import returns
from preprocess.readers import lines
from preprocess.readers.lines import Line
from preprocess.source import Limits, MediaError, Plan, Segment, Source

WORDS = {
    "0.png": (
        Line("Quarterly revenue", 0.9, (0.1, 0.2, 0.6, 0.3)),
        Line("Zugabteil für Frauen", 0.8, (0.1, 0.7, 0.6, 0.8)),
    ),
    "1.png": (Line("新宿駅の出口", 0.9, (0.0, 0.0, 1.0, 0.1)), Line("revenue and costs of revenue", 0.9)),
    "2.png": (),
}
HEARD = (Line("one two three", start_s=65.0, end_s=66.0),)


@returns(lines.declare)
def read(source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    """The lines of the file's name; those of a recording where it is unknown. Raises MediaError for `3.png`."""
    name = os.path.basename(source.name)
    if name == "3.png":
        raise MediaError(source.name, "is too dark")
    return lines.packed(WORDS.get(name, HEARD))
