"""Media and what is read from them: sources, the limits on them, and segments of views."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from preprocess.files import IrregularFileError, MediaError, OrdinaryPictureError, open_regular
from preprocess.sidecar import Hints, read_hints

__all__ = ["Hints", "Limits", "MediaError", "Opened", "OrdinaryPictureError", "Plan", "Segment", "Source"]

Plan = Literal["whole", "segments"]
"""`whole`: one segment that stands for the item (sampled views). `segments`: timed segments that cover all of it."""


@dataclass(frozen=True)
class Limits:
    """Upper bounds of one medium. Whatever exceeds one is a `MediaError`, before it costs memory or time.

    Args:
        max_bytes: The length of the file.
        max_pixels: Width times height of a picture, or of a frame of a film.
        max_duration_s: Seconds of sound, film or motion that are read of one file.
        max_rows: Rows of a table of measurements.
        decode_timeout_s: Seconds that decoding may take; as a long film takes longer, one second more is allowed for
            each `decode_bytes_per_s` of the file.
        decode_cpu_s: Seconds of processor time that decoding may take, and as much more as the length of the file
            allows; a film may take all of its time on several cores.
        decode_bytes_per_s: The slowest speed, in bytes a second, at which a long file is still decoded.
        worker_memory_bytes: Memory of a decode worker beyond what it had before its first medium.
        decode: Where media are decoded. "isolated": in worker processes, so that a decoder that hangs, crashes or is
            subverted harms nothing else. "gpu": plain JPEGs by nvJPEG on the model's GPU, in this process and without
            `decode_timeout_s` and `worker_memory_bytes`; the rest isolated. Choose "gpu" only for files whose origin
            is trusted, such as an archive of one's own cameras: a hole in nvJPEG would be one in this process.

    Raises:
        ValueError: `decode` is another word.

    Example:
        >>> try:
        ...     model.embed(["dog.jpg"], limits=Limits(max_pixels=10_000))
        ... except MediaError as error:
        ...     print(error)
        dog.jpg: has 512 x 512 pixels, the limit is 10,000 (max_pixels)
    """

    max_bytes: int = 4 * 2**30
    max_pixels: int = 200_000_000
    max_duration_s: float = 4 * 3600.0
    max_rows: int = 50_000_000
    decode_timeout_s: float = 60.0
    decode_cpu_s: float = 10.0
    decode_bytes_per_s: float = 1e6
    worker_memory_bytes: int = 6 * 2**30
    decode: Literal["isolated", "gpu"] = "isolated"

    def __post_init__(self) -> None:
        if self.decode not in ("isolated", "gpu"):
            raise ValueError(f'decode: expected "isolated" or "gpu", got {self.decode!r}')


@dataclass(frozen=True)
class Opened:
    """A regular file that somebody else has opened: what a decode worker gets in place of a path."""

    descriptor: int


@dataclass(frozen=True)
class Source:
    """One medium: a path, its bytes, or a value already in memory (array, PIL image, text).

    `name` is what errors and results call it. `parts` are other files of the same recording, for readers that join
    them; for a path, the reader's own rule finds them (see `preprocess.decoding.protocol.reads_beside`).
    """

    content: Any
    name: str
    hints: Hints = field(default_factory=Hints)
    parts: tuple[Source, ...] = ()

    @classmethod
    def from_path(cls, path: str | os.PathLike[str], hints: Hints | None = None) -> Source:
        """A file, with the hints of its sidecar `NAME.json` unless given here."""
        # Absolute: a decode worker may have been started in another folder than the caller is in now.
        whole = Path(os.path.abspath(path))
        return cls(whole, os.fspath(path), hints if hints is not None else read_hints(whole))

    @property
    def suffix(self) -> str:
        """The lower-case last extension of the name, with its dot, or ''."""
        return os.path.splitext(self.name)[1].lower()

    @property
    def is_encoded(self) -> bool:
        """Whether the content still has to be decoded (a path, an opened file or bytes)."""
        return isinstance(self.content, (Path, Opened, bytes))

    def decode_allowance_s(self, limits: Limits) -> float:
        """How long decoding this may take."""
        return limits.decode_timeout_s + self.size_allowance_s(limits)

    def size_allowance_s(self, limits: Limits) -> float:
        """How much longer than a small file decoding this may take."""
        size = 0
        with contextlib.suppress(OSError, ValueError):
            if isinstance(self.content, bytes):
                size = len(self.content)
            elif isinstance(self.content, Path):
                size = os.stat(self.content).st_size
        return size / limits.decode_bytes_per_s

    @contextlib.contextmanager
    def open(self, limits: Limits) -> Iterator[BinaryIO]:
        """The encoded bytes as a seekable binary file.

        Raises MediaError for what is missing, a directory, a device or pipe, empty, unreadable or above `max_bytes`.
        """
        if isinstance(self.content, bytes):
            self._check_size(len(self.content), limits)
            yield io.BytesIO(self.content)
            return
        if isinstance(self.content, Opened):
            # One place in the file for all who open it: they do so one after the other.
            os.lseek(self.content.descriptor, 0, os.SEEK_SET)
            with os.fdopen(self.content.descriptor, "rb", closefd=False) as file:
                self._check_size(os.fstat(self.content.descriptor).st_size, limits)
                yield file
            return
        if not isinstance(self.content, Path):
            raise MediaError(self.name, f"expected a path or bytes, got {type(self.content).__name__}")
        try:
            descriptor = open_regular(self.content)
        except IrregularFileError:
            raise MediaError(self.name, "is not a regular file (a directory, pipe or device)") from None
        except (OSError, ValueError) as error:
            raise MediaError(self.name, _why_not_opened(error)) from None
        with os.fdopen(descriptor, "rb") as file:
            self._check_size(os.fstat(descriptor).st_size, limits)
            yield file

    def read_bytes(self, limits: Limits) -> bytes:
        """All encoded bytes. Raises MediaError as `open` does."""
        if isinstance(self.content, bytes):
            self._check_size(len(self.content), limits)
            return self.content
        with self.open(limits) as file:
            try:
                return file.read()
            except OSError as error:
                raise MediaError(self.name, f"could not be read: {error.strerror}") from None

    def _check_size(self, size: int, limits: Limits) -> None:
        if size == 0:
            raise MediaError(self.name, "is empty (0 bytes)")
        if size > limits.max_bytes:
            raise MediaError(self.name, f"has {size:,} bytes, the limit is {limits.max_bytes:,} (max_bytes)")


@dataclass(frozen=True)
class Segment:
    """K views of one stretch of a medium, decoded but not yet normalised: `views` (K, ...).

    Times are None for media without time. `notes` says what was repaired or assumed (gaps, padding, filled holes).
    `metadata` is what the medium says of itself (see `preprocess.metadata`), on its first segment. `at` says which part
    of the medium it is where time does not: `page 3`, `left to 0.40 of its width`.
    """

    views: np.ndarray
    start_s: float | None = None
    end_s: float | None = None
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    at: str | None = None


def _why_not_opened(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, PermissionError):
        return "may not be read (permission denied)"
    if isinstance(error, OSError):
        return f"could not be opened: {error.strerror}"
    return f"could not be opened: {error}"
