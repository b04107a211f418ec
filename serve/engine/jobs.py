"""The values of the batcher: jobs, their sources, segments and views, and the errors of a job."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from bind import modalities
from bind.modalities import Guess
from preprocess.source import Limits, MediaError, OrdinaryPictureError, Plan, Segment, Source

if TYPE_CHECKING:
    pass

_LONG_TEXT = 8_000
"""The number of characters from which on a text is tokenized in the thread for long texts."""


class Busy(Exception):
    """There is too much work already. The caller may try again after `retry_after_s` seconds."""

    def __init__(self, retry_after_s: int, reason: str = "too much is waiting already") -> None:
        super().__init__(f"{reason}; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class LateError(Exception):
    """An answer was not ready before its deadline."""


class ItemError(ValueError):
    """The item at `index` of a job cannot be used; `error` says why."""

    def __init__(self, index: int, error: MediaError) -> None:
        super().__init__(str(error))
        self.index = index
        self.error = error


@dataclass(frozen=True, eq=False)
class EncodedSegment:
    """One embedded text or medium, or a stretch of one.

    `vector` is (D,) float32 of norm 1, `notes` say what the reader repaired or assumed, `tokens` is the number of
    tokens of a text.
    """

    vector: np.ndarray
    modality: str
    notes: tuple[str, ...] = ()
    tokens: int = 0
    start_s: float | None = None
    end_s: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    at: str | None = None


@dataclass(eq=False)
class Job:
    """The sources that were submitted together, and the future of their results."""

    client: str
    future: Future[list[list[EncodedSegment]]]
    deadline: float
    limits: Limits
    plan: Plan
    results: list[list[EncodedSegment]]
    missing: int

    def fail(self, error: BaseException) -> None:
        """Ends the job with an error, unless it has ended already."""
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)

    def is_over(self) -> bool:
        """Whether nobody waits for the job any more: it failed, was cancelled, or is too late (which fails it here)."""
        if time.monotonic() > self.deadline:
            self.fail(LateError())
        return self.future.done()


@dataclass(eq=False)
class Task:
    """One source of a job: its segments after they were read, and the number of segments that are not encoded yet."""

    job: Job
    index: int
    source: Source
    modality: str | None
    since: float
    missing: int = 0
    found: list[EncodedSegment | None] = field(default_factory=list)
    is_decoded: bool = False
    has_left: bool = False
    notes: tuple[str, ...] = ()

    def recognise(self, known: Collection[str]) -> str:
        """Its modality, by its content where nobody named one; `known` are those of the model. Raises MediaError."""
        found = self.modality or modalities.detect(self.source, self.job.limits)
        if isinstance(found, Guess) and found.is_ordinary and found not in known:
            self.notes, found = (found.note,), "image"
        self.modality = found
        return found

    def read_as_picture(self, error: BaseException | None) -> bool:
        """Whether the name suggested what the pixels refute: then it is to be read again, as an image."""
        if not (isinstance(error, OrdinaryPictureError) and isinstance(self.modality, Guess)):
            return False
        self.notes, self.modality = (self.modality.note,), "image"
        return True


@dataclass(eq=False)
class Part:
    """A segment of a task: `missing` views are not encoded yet; `total` (D,) is the sum of the vectors of the
    others.
    """

    task: Task
    place: int
    segment: Segment
    views: Tensor
    missing: int
    total: Tensor | None = None
    tokens: int = 0


@dataclass(eq=False)
class Piece:
    """One view, which is encoded in one go; `size` is its number of tokens, or 1 for other media."""

    part: Part
    place: int
    size: int


def is_long(source: Source) -> bool:
    """Whether a text is so long that it is tokenized in the thread for long texts."""
    return not isinstance(source.content, str) or len(source.content) > _LONG_TEXT
