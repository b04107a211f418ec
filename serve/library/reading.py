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


def run(
    writer: Writer, library: Path, channel: Channel, places: Sequence[str], limits: Limits, retry: bool
) -> IndexReport:
    """Reads the contents of some folders (or files) that lack a channel -> a report with what came of them.

    Raises LibraryError when the library cannot be written; what was committed stays.
    """
    report = IndexReport(words={channel.kind: 0})
    waiting: deque[tuple[Unread, str, Future[list[Segment]]]] = deque()
    ready: list[tuple[int, Sequence[Segment], str]] = []
    missing = texts.unread(
        writer.connection, library, channel.kind, channel.recogniser, channel.modalities, places, retry
    )
    if not missing:
        return report
    committed_at = time.monotonic()

    def commit() -> None:
        with writer.transaction():
            for content, segments, note in ready:
                writer.put_lines(
                    content, channel.kind, channel.recogniser, unpacked(segments) if segments else (), note
                )
        ready.clear()

    with DecodePool(readable=channel.readable) as pool:
        try:
            for number, unread in enumerate(missing):
                if (path := _path(unread)) is not None:
                    source = Source(Path(path), path, Hints(**json.loads(unread.hints)))
                    future = pool.submit(channel.read, source, channel.config, channel.limits(limits), "whole")
                    waiting.append((unread, path, future))
                while waiting and (len(waiting) > _AHEAD or number == len(missing) - 1):
                    unread, path, future = waiting.popleft()
                    found = _found(future)
                    if _path(unread) != path:
                        continue  # it changed while it was read: the next run takes its new content
                    ready.append((unread.content, *found))
                    report.words[channel.kind] += bool(found[0])
                    if not found[0] and found[1] != tracks.SILENT:
                        report.wordless.append((path, f"{channel.kind}: {found[1]}"))
                    if time.monotonic() - committed_at > _COMMIT_S:
                        commit()
                        committed_at = time.monotonic()
        finally:
            commit()
    return report


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
