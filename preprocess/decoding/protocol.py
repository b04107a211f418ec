"""What goes between a decode pool and its workers, and what a reader may send back.

Tasks reach a worker pickled (they are ours), a file as an open descriptor beside its task. What comes back was touched
by a decoder that may have been subverted, so it is JSON and raw array bytes only, never a pickle, and it is held
against what the reader has declared before a byte of it is read.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np

from preprocess import metadata
from preprocess.extras import MissingExtra
from preprocess.source import Limits, MediaError, OrdinaryPictureError, Plan, Segment, Source

Read = Callable[[Source, Any, Limits, Plan], list[Segment]]
"""`(source, preprocessing constants, limits, plan) -> segments`. A module-level function; raises MediaError."""

LENGTH = struct.Struct("<Q")
"""Each message is preceded by its length in bytes: unsigned, 64 bits, little endian."""
MAX_HEADER_BYTES = 2**24
"""Bytes of the JSON header of a message, so that a subverted worker cannot fill the memory of this process."""
_MAX_NOTES = 1000
"""Notes of one medium. Readers write a handful; more are the work of a subverted worker."""
_MAX_WORDS = 10_000
"""Characters of one text in a header."""
_MAX_DIMENSIONS = 8
"""Dimensions of one array. Readers return five at most (views, channels, frames, height, width)."""


class MalformedReplyError(Exception):
    """A worker sent what no reader returns."""


@dataclass(frozen=True)
class Returns:
    """What a reader returns at most: `segments` of up to `views` views (K, *shape) of type `dtype`.

    An entry of `shape` that is None may have any length; `elements` then bounds the numbers of a view. `is_film`: it
    may keep several cores busy for the whole of its time.
    """

    dtype: str
    shape: tuple[int | None, ...]
    views: int
    segments: int = 1
    elements: float = math.inf
    is_film: bool = False


Declare = Callable[[Any, Limits, Plan], Returns]
_Reader = TypeVar("_Reader", bound=Callable[..., list[Segment]])


def returns(declare: Declare) -> Callable[[_Reader], _Reader]:
    """Declares what a reader returns at most, given its constants, limits and plan: larger replies are refused.

    A reader without a declaration may return whatever fits a worker's memory.
    """

    def declared(read: _Reader) -> _Reader:
        read.returns = declare  # type: ignore[attr-defined]
        return read

    return declared


Beside = Callable[[str], list[str]]
"""The path of a medium -> the paths of all files that are read as one with it."""
MAX_PARTS = 8
"""Files of one recording that are read together, such as the tables of a phone's sensors."""


def reads_beside(beside: Beside) -> Callable[[_Reader], _Reader]:
    """Declares the files beside a medium that a reader reads with it: it gets them as `source.parts`."""

    def declared(read: _Reader) -> _Reader:
        read.beside = beside  # type: ignore[attr-defined]
        return read

    return declared


def with_parts(read: Read, source: Source) -> Source:
    """A source at a path, with the files beside it that `read` wants; any other one as it is."""
    if source.parts or not isinstance(source.content, Path):
        return source
    others = others_of(read, os.fspath(source.content))
    return replace(source, parts=tuple(Source(Path(path), path) for path in others)) if others else source


def others_of(read: Read, path: str) -> list[str]:
    """The files that `read` reads as one with the medium at `path`, up to `MAX_PARTS`, without itself."""
    beside: Beside | None = getattr(read, "beside", None)
    return [] if beside is None else [other for other in beside(path) if other != path][:MAX_PARTS]


def stands_for(read: Read, path: str) -> str:
    """Of the files that `read` reads as one with the medium at `path`, the first, which stands for all of them."""
    beside: Beside | None = getattr(read, "beside", None)
    return path if beside is None else beside(path)[0]


def most(read: Read, config: Any, limits: Limits, plan: Plan) -> Returns | None:
    """What `read` has declared to return at most; None where it has not."""
    declare: Declare | None = getattr(read, "returns", None)
    return None if declare is None else declare(config, limits, plan)


def read_here(read: Read, source: Source, config: Any, limits: Limits, plan: Plan) -> list[Segment]:
    """`read` in this process, every decoder error as a MediaError. For values already in memory, and in workers.

    A reader that returns no segment is a MediaError too: an item that vanishes would be in no report.
    """
    try:
        segments = read(with_parts(read, source), config, limits, plan)
    except MediaError:
        raise
    except MissingExtra as error:
        raise MediaError(source.name, str(error)) from None
    except MemoryError:
        raise MediaError(source.name, "needs more memory than a decode worker may use") from None
    except Exception as error:
        # Decoders raise what they like for bad data (Pillow: SyntaxError, PyAV: its own, tifffile: LookupError).
        raise MediaError(source.name, f"could not be decoded: {type(error).__name__}: {error}") from error
    if not segments:
        raise MediaError(source.name, "nothing in it can be embedded: its reader returned no segment")
    return segments


def header_of(segments: list[Segment]) -> bytes:
    """The header of a reply; the bytes of each segment's views follow it."""
    entries = [
        {
            "dtype": s.views.dtype.str,
            "shape": s.views.shape,
            "start_s": s.start_s,
            "end_s": s.end_s,
            "notes": s.notes,
            "metadata": metadata.bounded(s.metadata),
            "at": s.at,
        }
        for s in segments
    ]
    return json.dumps({"segments": entries}).encode()


def refusal_of(error: MediaError) -> bytes:
    """The header of a reply that says why a medium cannot be used."""
    return json.dumps({"reason": error.reason, "is_picture": isinstance(error, OrdinaryPictureError)}).encode()


@dataclass(frozen=True)
class Refusal:
    """Why a medium cannot be used; `is_picture`: as what it was to be read, but as a picture it can."""

    reason: str
    is_picture: bool = False

    def of(self, name: str) -> MediaError:
        """The same as an error about the medium called `name`."""
        return (OrdinaryPictureError if self.is_picture else MediaError)(name, self.reason)


@dataclass(frozen=True)
class Announced:
    """A segment whose views are still to come: `count` bytes of them."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start_s: float | None
    end_s: float | None
    notes: tuple[str, ...]
    metadata: dict[str, Any]
    at: str | None

    @property
    def count(self) -> int:
        """The bytes of its views."""
        return math.prod(self.shape) * self.dtype.itemsize


def announced(header: bytes | memoryview, allowed: Returns | None, max_bytes: int) -> list[Announced] | Refusal:
    """A reply's header -> its segments, or the reason why the medium cannot be used.

    Raises MalformedReplyError for what is no header, for more than `allowed`, and for more than `max_bytes` in all.
    """
    try:
        values = json.loads(bytes(header))
        if "reason" in values:
            return Refusal(_words(values["reason"]), values.get("is_picture") is True)
        entries = [_announced(entry) for entry in values["segments"]]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise MalformedReplyError(f"its header is malformed ({type(error).__name__})") from None
    if not entries:
        _refuse("it holds no segment")
    if sum(entry.count for entry in entries) > max_bytes:
        _refuse(f"it holds more than {max_bytes:,} bytes")
    if allowed is not None:
        if len(entries) > allowed.segments:
            _refuse(f"it holds {len(entries):,} segments of {allowed.segments:,} at most")
        for entry in entries:
            _check(entry, allowed)
    return entries


def _check(entry: Announced, allowed: Returns) -> None:
    views, *shape = entry.shape or (-1,)
    fits = (
        entry.dtype == np.dtype(allowed.dtype)
        and 0 < views <= allowed.views
        and len(shape) == len(allowed.shape)
        and all(wanted in (None, got) for got, wanted in zip(shape, allowed.shape, strict=True))
        and math.prod(shape) <= allowed.elements
    )
    if not fits:
        _refuse(
            f"it holds views {entry.shape} {entry.dtype}, expected at most {allowed.views} of {allowed.shape} "
            f"{allowed.dtype}"
        )


def _announced(entry: dict[str, Any]) -> Announced:
    dtype, shape = entry["dtype"], entry["shape"]
    if not (isinstance(dtype, str) and len(dtype) <= 8 and np.dtype(dtype).kind in "buif"):
        _refuse("its type of numbers is unknown")
    if not (isinstance(shape, list) and len(shape) <= _MAX_DIMENSIONS):
        _refuse("its shape is no list")
    if any(type(length) is not int or length < 0 for length in shape):
        _refuse("its shape is not of whole numbers")
    notes = entry["notes"]
    if not isinstance(notes, list) or len(notes) > _MAX_NOTES:
        _refuse("its notes are no list")
    times = _seconds(entry["start_s"]), _seconds(entry["end_s"])
    facts, at = entry["metadata"], entry["at"]
    if metadata.bounded(facts) != facts:
        _refuse("its metadata are not of the known keys and kinds")
    words = tuple(_words(note) for note in notes)
    return Announced(np.dtype(dtype), tuple(shape), *times, words, facts, None if at is None else _words(at))


def _words(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MAX_WORDS:
        _refuse("its words are no text, or too long")
    return value


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        _refuse("its times are no numbers")
    return float(value)


def _refuse(reason: str) -> NoReturn:
    raise MalformedReplyError(reason)
