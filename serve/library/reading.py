"""Reading words in pictures and in speech, of contents that a library has already: nothing is embedded for it.

Recognisers run in decode workers, as decoders do: without network and files of the user's, with limits of memory and
time. Every content is read once by a recogniser; what was read is committed every few seconds, so that an interrupted
run goes on where it was.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from preprocess.decoding.pool import DecodePool
from preprocess.decoding.protocol import Read
from preprocess.readers import ocr, speech, tracks
from preprocess.readers.lines import unpacked
from preprocess.source import Hints, Limits, MediaError, Segment, Source
from serve.library import texts
from serve.library.reports import IndexReport
from serve.library.texts import Unread
from serve.library.writer import Writer

_COMMIT_S = 2.0
"""Seconds of work that a killed run does again at most."""
_AHEAD = 4
"""Files that are read before their turn, one for each of a few cores."""
_OCR_CPU_S = 60.0
"""Seconds of processor time for one medium: finding words takes much longer than decoding."""
_OFF = {"ocr": "--no-ocr", "speech": "--speech ''"}
"""Kind of a channel -> the option that switches it off."""
_SPEECH_BYTES_PER_S = 4000.0
"""A recording of 32 kbit/s may take as long as it lasts."""


@dataclass(frozen=True)
class Channel:
    """A way to get words of contents: its `kind`, what reads (`recogniser` is remembered), and of which modalities.

    `readable` are files beyond Python's packages that the reader needs, `limits` what a content may take.
    """

    kind: str
    recogniser: str
    modalities: tuple[str, ...]
    read: Read
    config: Any
    limits: Callable[[Limits], Limits] = lambda limits: limits
    readable: tuple[str, ...] = ()


def words_in_pictures() -> Channel:
    """The channel `ocr`. Raises MissingExtra where its extra is not installed."""
    ocr.check()
    limits = partial(replace, decode_cpu_s=_OCR_CPU_S, decode_timeout_s=4 * _OCR_CPU_S)
    return Channel("ocr", "rapidocr", ("image",), ocr.read, ocr.OcrConfig(), limits)


def words_in_speech(model: str | os.PathLike[str]) -> Channel:
    """The channel `speech`, with the model in a folder, or `en-us`. Raises MissingExtra; ValueError for no model."""
    name = os.fspath(model)
    readable = () if name == speech.BUNDLED else (os.path.realpath(os.path.expanduser(name)),)
    config = speech.SpeechConfig(readable[0] if readable else name)
    speech.check(config.model)
    limits = partial(replace, decode_bytes_per_s=_SPEECH_BYTES_PER_S, decode_cpu_s=_OCR_CPU_S)
    recogniser = f"pocketsphinx {os.path.basename(config.model)}"
    return Channel("speech", recogniser, ("audio", "video"), speech.read, config, limits, readable)


def chosen(ocr: bool | None, model: str | os.PathLike[str] | None) -> dict[str, Any]:
    """What a caller chose of `ocr` and the model of `speech` -> the fields of a root that it changes.

    Raises MissingExtra, and ValueError for a folder that is no model of speech.
    """
    found: dict[str, Any] = {}
    if ocr is not None:
        found["ocr"] = ocr
        if ocr:
            words_in_pictures()
    if model is not None:
        found["speech"] = _whole(os.fspath(model))
        if found["speech"]:
            words_in_speech(found["speech"])
    return found


def _whole(model: str) -> str:
    return model if model in ("", speech.BUNDLED) else os.path.abspath(os.path.expanduser(model))


def channels(ocr: bool, model: str) -> tuple[list[Channel], list[str]]:
    """The channels of remembered choices, and why one of them cannot be had (any more)."""
    found, problems = [], []
    makers = {"ocr": words_in_pictures if ocr else None, "speech": partial(words_in_speech, model) if model else None}
    for kind, make in makers.items():
        try:
            if make is not None:
                found.append(make())
        except ValueError as error:
            problems.append(f"{kind}: {error}; {_OFF[kind]} switches it off")
    return found, problems


def run(
    writer: Writer, library: Path, channel: Channel, places: Sequence[str], limits: Limits, retry: bool
) -> IndexReport:
    """Reads the contents of some folders (or files) that lack a channel -> a report with what came of them.

    Raises LibraryError when the library cannot be written; what was committed stays.
    """
    report = IndexReport(words={channel.kind: 0})
    waiting: deque[tuple[Unread, str, Future[list[Segment]]]] = deque()
    ready: list[Reading] = []
    wanted = missing(writer, library, channel, places, retry)
    if not wanted:
        return report
    committed_at = time.monotonic()

    def commit() -> None:
        with writer.transaction():
            for one in ready:
                store(writer, channel, one)
        ready.clear()

    with pool(channel) as workers:
        try:
            for number, unread in enumerate(wanted):
                if (path := _path(unread)) is not None:
                    waiting.append((unread, path, _submit(workers, channel, unread, path, limits)))
                while waiting and (len(waiting) > _AHEAD or number == len(wanted) - 1):
                    if (one := _taken(*waiting.popleft())) is None:
                        continue
                    ready.append(one)
                    report.words[channel.kind] += bool(one.segments)
                    if not one.segments and one.note != tracks.SILENT:
                        report.wordless.append((one.path, f"{channel.kind}: {one.note}"))
                    if time.monotonic() - committed_at > _COMMIT_S:
                        commit()
                        committed_at = time.monotonic()
        finally:
            commit()
    return report


@dataclass(frozen=True)
class Reading:
    """What was read of a content: its segment of lines and the notes on it, or none and why."""

    content: int
    path: str
    segments: Sequence[Segment]
    note: str


def missing(writer: Writer, library: Path, channel: Channel, places: Sequence[str], retry: bool) -> list[Unread]:
    """The contents of some folders (or files) that lack a channel; with `retry` also those that could not be read."""
    return texts.unread(writer.connection, library, channel.kind, channel.recogniser, channel.modalities, places, retry)


def pool(channel: Channel) -> DecodePool:
    """Workers in which a channel reads."""
    return DecodePool(readable=channel.readable)


def read(workers: DecodePool, channel: Channel, unread: Unread, limits: Limits) -> Reading | None:
    """Reads one content; None where its files changed meanwhile, so that a later run takes them."""
    path = _path(unread)
    return None if path is None else _taken(unread, path, _submit(workers, channel, unread, path, limits))


def store(writer: Writer, channel: Channel, one: Reading) -> None:
    """Stores what was read, inside of a transaction."""
    lines = unpacked(list(one.segments)) if one.segments else ()
    writer.put_lines(one.content, channel.kind, channel.recogniser, lines, one.note)


def _submit(workers: DecodePool, channel: Channel, unread: Unread, path: str, limits: Limits) -> Future[list[Segment]]:
    source = Source(Path(path), path, Hints(**json.loads(unread.hints)))
    return workers.submit(channel.read, source, channel.config, channel.limits(limits), "whole")


def _taken(unread: Unread, path: str, future: Future[list[Segment]]) -> Reading | None:
    found = _found(future)
    return Reading(unread.content, path, *found) if _path(unread) == path else None


def _found(future: Future[list[Segment]]) -> tuple[list[Segment], str]:
    """The segment of lines and its notes; no segment and the reason where a content could not be read."""
    try:
        segments = future.result()
        unpacked(segments)
        return segments, "; ".join(segments[0].notes)
    except MediaError as error:
        return [], error.reason
    except ValueError as error:
        return [], f"its recogniser sent back what no reader returns: {error}"


def _path(unread: Unread) -> str | None:
    """The first file of a content that is as it was indexed; None where there is none."""
    for path, size_bytes, mtime_ns in unread.files:
        try:
            status = os.stat(path)
        except OSError:
            continue
        if (status.st_size, status.st_mtime_ns) == (size_bytes, mtime_ns):
            return path
    return None
