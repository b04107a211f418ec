"""The rows of a catalogue as values, for reading and writing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class FileRow:
    """The row of a path. `content` is None for a file that `reader` could not use, for `reason`."""

    id: int
    content: int | None
    stamp: tuple[int, int, str]
    modality: str
    parts: tuple[str, ...]
    reason: str | None
    reader: str | None
    caption: str
    metadata: str


@dataclass(frozen=True)
class Entry:
    """A segment with one of the files that contain it; `also` are the others."""

    segment: int
    content: int
    path: str
    also: tuple[str, ...]
    modality: str
    start_s: float | None
    end_s: float | None
    metadata: dict[str, Any]
    at: str | None = None
    notes: tuple[str, ...] = ()
    date: str = ""
    date_source: str = ""
    item: int = -1
    """The id of an upload's item; -1 where the id is that of the segment."""


@dataclass(frozen=True)
class NewFile:
    """The columns of a file that is to be written. `content` and `reason` are as in `FileRow`."""

    path: str
    folder: str
    stamp: tuple[int, int, str]
    content: int | None = None
    date: str = ""
    caption: str = ""
    metadata: str = "{}"
    reason: str | None = None
    reader: str | None = None
    date_source: str = ""


@dataclass(frozen=True)
class NewSegment:
    """A segment that is to be written: `vector` (D,) float32 of norm 1."""

    modality: str
    start_s: float | None
    end_s: float | None
    vector: np.ndarray
    at: str | None = None


@dataclass(frozen=True)
class ContentKey:
    """The key of a content: SHA-256, the modality that the file is read as, and its hints as JSON."""

    digest: bytes
    modality: str
    hints: str
