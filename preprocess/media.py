"""What a medium is, and when one is refused: sources, sniffing, limits and the one error for bad input."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

Plan = Literal["whole", "segments"]
"""`whole`: one segment that stands for the item (sampled views). `segments`: timed segments that cover all of it."""


MAX_SIDECAR_BYTES = 2**20


class MediaError(ValueError):
    """A medium that cannot be used: `path` names it, `reason` says what was expected, what came, and the way out."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[MediaError], tuple[str, str]]:
        return type(self), (self.path, self.reason)


@dataclass(frozen=True)
class Limits:
    """Upper bounds of one medium. Whatever exceeds one is a `MediaError`, before it costs memory or time.

    Decoding may take `decode_timeout_s` and, as a long film takes longer, one second more for each
    `decode_bytes_per_s` of the file. Of the processor's time it may take `decode_cpu_s` and as much more; a film may
    take all of its time on several cores.

    `decode` says where that happens. "isolated": in worker processes, whose decoders may hang, crash or be subverted
    and nothing else is. "gpu": plain JPEGs by nvJPEG on the model's GPU, in this process and without `decode_timeout_s`
    and `worker_memory_bytes`; the rest isolated. Only for files whose origin is trusted, such as an archive of one's
    own cameras: a hole in nvJPEG would be one in this process. Raises ValueError for another word.
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
class Hints:
    """What a file does not say of itself, from a manifest entry or a sidecar file `NAME.json`.

    `unit` is a depth unit (`m`, `mm`, `sunrgbd`, `disparity`: inverse metres, `disparity_px`) or a thermal one
    (`celsius`, `kelvin`, `centikelvin`). `low` and `high` fix a thermal range, in the file's unit.
    """

    start_s: float | None = None
    end_s: float | None = None
    unit: str | None = None
    focal_px: float | None = None
    baseline_m: float | None = None
    rate_hz: float | None = None
    acceleration_unit: Literal["m/s2", "g"] | None = None
    rotation_unit: Literal["rad/s", "deg/s"] | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def from_mapping(cls, values: dict[str, Any], name: str) -> Hints:
        """Known keys of `values` -> hints; other keys are free metadata. Raises MediaError on a wrong type."""
        known: dict[str, Any] = {}
        for key in (f.name for f in fields(cls)):
            value = values.get(key)
            if value is None:
                continue
            wanted: type | tuple[type, ...] = str if key.endswith("unit") else (int, float)
            if not isinstance(value, wanted) or isinstance(value, bool):
                raise MediaError(
                    name, f"hint {key!r}: expected {'text' if wanted is str else 'a number'}, got {value!r}"
                )
            known[key] = value
        return cls(**known)


@dataclass(frozen=True)
class Opened:
    """A regular file that somebody else has opened: what a decode worker gets in place of a path."""

    descriptor: int


@dataclass(frozen=True)
class Source:
    """One medium: a path, its bytes, or a value already in memory (array, PIL image, text).

    `name` is what errors and results call it.
    """

    content: Any
    name: str
    hints: Hints = field(default_factory=Hints)

    @classmethod
    def from_path(cls, path: str | os.PathLike[str], hints: Hints | None = None) -> Source:
        """A file, with the hints of its sidecar `NAME.json` unless given here. Raises MediaError for a bad sidecar."""
        # Absolute: a decode worker may have been started in another folder than the caller is in now.
        whole = Path(os.path.abspath(path))
        return cls(whole, os.fspath(path), hints if hints is not None else _sidecar_hints(whole))

    @property
    def suffix(self) -> str:
        """The lower-case last extension of the name, with its dot, or ''."""
        return Path(self.name).suffix.lower()

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
    """

    views: np.ndarray
    start_s: float | None = None
    end_s: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """A recognised content type: `family` is image, audio, video, table, array, text or playlist."""

    name: str
    family: str


# (offset, magic bytes, format). First match wins; from the formats' own specifications.
_MAGIC: tuple[tuple[int, bytes, Format], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", Format("png", "image")),
    (0, b"\xff\xd8\xff", Format("jpeg", "image")),
    (0, b"GIF87a", Format("gif", "image")),
    (0, b"GIF89a", Format("gif", "image")),
    (0, b"II*\0", Format("tiff", "image")),
    (0, b"MM\0*", Format("tiff", "image")),
    (0, b"II+\0", Format("tiff", "image")),
    (0, b"MM\0+", Format("tiff", "image")),
    (0, b"\x00\x00\x00\x0cjP  ", Format("jpeg2000", "image")),
    (0, b"\xff\x4f\xff\x51", Format("jpeg2000", "image")),
    (0, b"v/1\x01", Format("exr", "array")),
    (0, b"\x93NUMPY", Format("npy", "array")),
    (0, b"PAR1", Format("parquet", "table")),
    (0, b"fLaC", Format("flac", "audio")),
    (0, b"OggS", Format("ogg", "audio")),
    (0, b"ID3", Format("mp3", "audio")),
    (0, b"caff", Format("caf", "audio")),
    (0, b".snd", Format("au", "audio")),
    (0, b"#!AMR", Format("amr", "audio")),
    (0, b"\x1a\x45\xdf\xa3", Format("matroska", "video")),
    (0, b"FLV\x01", Format("flv", "video")),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Format("asf", "video")),
    (0, b"\x00\x00\x01\xba", Format("mpeg", "video")),
    (0, b"\x00\x00\x01\xb3", Format("mpegvideo", "video")),
)
_RIFF = {
    b"WAVE": Format("wav", "audio"),
    b"AVI ": Format("avi", "video"),
    b"WEBP": Format("webp", "image"),
}
_BMP_HEADERS = [size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124)]
_FORM = {b"AIFF": Format("aiff", "audio"), b"AIFC": Format("aiff", "audio")}
_IMAGE_BRANDS = {b"avif": "avif", b"avis": "avif", b"heic": "heif", b"heix": "heif", b"mif1": "heif"}
_PLAYLISTS = ("#extm3u", "ffconcat version", "[playlist]", "<?xml", "<smil", "<asx")
_AUDIO_SUFFIXES = {".m4a", ".m4b", ".mka", ".oga", ".opus", ".weba", ".wma"}
_TEXTUAL = ("text", "table")
_FAMILY_OF_SUFFIX = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".jp2"), "image"),
    **dict.fromkeys((".wav", ".flac", ".ogg", ".mp3", ".aac", ".aif", ".aiff", *_AUDIO_SUFFIXES), "audio"),
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".wmv", ".mpg", ".mpeg", ".ts"), "video"),
    **dict.fromkeys((".csv", ".tsv", ".parquet"), "table"),
    **dict.fromkeys((".npy", ".exr"), "array"),
    **dict.fromkeys((".txt", ".md"), "text"),
}


def sniff(source: Source, limits: Limits) -> Format:
    """The format of the encoded content, from its first bytes; its extension only tells text tables from prose.

    Raises MediaError for unsupported content, playlists, and content whose family contradicts the extension
    (a picture named `.wav`), besides what `Source.open` raises.
    """
    with source.open(limits) as file:
        try:
            head = file.read(4096)
        except OSError as error:
            raise MediaError(source.name, f"could not be read: {error.strerror}") from None
    # Words may begin like the short magic numbers ("BM", "ID3"), so a file that is named as text is looked at as text.
    order = (_from_text, _from_magic) if _FAMILY_OF_SUFFIX.get(source.suffix) in _TEXTUAL else (_from_magic, _from_text)
    found = order[0](head, source.suffix) or order[1](head, source.suffix)
    if found is None:
        raise MediaError(source.name, "is of a type that is not supported (its first bytes match no known format)")
    if found.family == "playlist":
        raise MediaError(source.name, "is a playlist or markup that points at other files; pass the media file itself")
    named = _FAMILY_OF_SUFFIX.get(source.suffix)
    # Containers such as .mp4 and .ogg hold sound or pictures in motion: either name is right for either content.
    moving = {"audio", "video"}
    if named and named != found.family and not {named, found.family} <= moving:
        raise MediaError(
            source.name, f"is named {source.suffix} ({named}) but contains {found.name} ({found.family}); rename it"
        )
    return found


def _from_magic(head: bytes, suffix: str) -> Format | None:
    for offset, magic, found in _MAGIC:
        if head.startswith(magic, offset):
            if found.name == "matroska" and suffix in _AUDIO_SUFFIXES:
                return Format("matroska", "audio")
            if found.name == "ogg" and (b"theora" in head[:128] or suffix == ".ogv"):
                return Format("ogg", "video")
            return found
    if head[:4] in (b"RIFF", b"RF64", b"RIFX"):
        return _RIFF.get(head[8:12])
    if head[:2] == b"BM" and head[14:18] in _BMP_HEADERS:
        return Format("bmp", "image")
    if head[:4] == b"FORM":
        return _FORM.get(head[8:12])
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in _IMAGE_BRANDS:
            return Format(_IMAGE_BRANDS[brand], "image")
        audio = brand in (b"M4A ", b"M4B ") or suffix in _AUDIO_SUFFIXES
        return Format("mp4", "audio" if audio else "video")
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free"):
        return Format("mp4", "video")
    if len(head) > 188 and head[0] == head[188] == 0x47:
        return Format("mpegts", "video")
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        # The layer bits are 0 in ADTS AAC and never 0 in MPEG audio.
        return Format("aac" if head[1] & 0x06 == 0 else "mp3", "audio")
    return None


def _from_text(head: bytes, suffix: str) -> Format | None:
    if b"\0" in head:
        return None
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # a character cut at the end of the head is no fault
            return None
        text = head[: error.start].decode("utf-8-sig")
    if text.lstrip().lower().startswith(_PLAYLISTS) or suffix in (".m3u", ".m3u8", ".pls", ".ffconcat", ".svg"):
        return Format("playlist", "playlist")
    if suffix in (".csv", ".tsv"):
        return Format("csv", "table")
    if suffix in (".txt", ".md"):
        return Format("text", "text")
    return None


def csv_delimiter(line: str) -> str:
    """The delimiter of a header line: comma, tab or semicolon, whichever cuts it into the most fields."""
    return max(",\t;", key=lambda mark: len(next(csv.reader([line], delimiter=mark), [])))


class IrregularFileError(OSError):
    """What was to be opened is a directory, a pipe or a device."""


def open_regular(path: str | os.PathLike[str]) -> int:
    """A descriptor of the regular file at `path`, opened for reading, without ever waiting for a writer.

    Raises IrregularFileError for a directory, pipe, socket or device; OSError and ValueError as `os.open` does.
    """
    # Non-blocking: a named pipe in a folder must not stop the run before it is recognised as one.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IrregularFileError(errno.EINVAL, "is not a regular file (a directory, pipe or device)", os.fspath(path))
    return descriptor


def read_sidecar(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object in `NAME.json` beside a medium: hints and free metadata.

    Raises MediaError, which names the medium, for content that is no JSON object of at most `MAX_SIDECAR_BYTES`, and
    for a pipe or device; OSError where there is no such file or it cannot be read.
    """
    path = os.fspath(path)
    name = os.path.basename(path) + ".json"
    try:
        descriptor = open_regular(path + ".json")
    except IrregularFileError:
        raise MediaError(path, f"its sidecar {name} is not a regular file (a directory, pipe or device)") from None
    with os.fdopen(descriptor, "rb") as file:
        raw = file.read(MAX_SIDECAR_BYTES + 1)
    if len(raw) > MAX_SIDECAR_BYTES:
        raise MediaError(path, f"its sidecar {name} has more than {MAX_SIDECAR_BYTES:,} bytes")
    try:
        values = json.loads(raw)
        json.dumps(values, allow_nan=False)  # `NaN` and `1e999` are read, but are no numbers in JSON
    except (ValueError, RecursionError) as error:
        raise MediaError(path, f"its sidecar {name} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise MediaError(path, f"its sidecar {name} must hold one JSON object")
    return values


def _sidecar_hints(path: Path) -> Hints:
    try:
        values = read_sidecar(path)
    except MediaError:
        raise
    except (OSError, ValueError):  # none there, or a name that no file can have
        return Hints()
    return Hints.from_mapping(values, str(path))


def _why_not_opened(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, PermissionError):
        return "may not be read (permission denied)"
    if isinstance(error, OSError):
        return f"could not be opened: {error.strerror}"
    return f"could not be opened: {error}"
