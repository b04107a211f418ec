"""Tables on disk: the digest of a content -> the arrays computed from it, memory-mapped and only ever appended to.

A table is a folder of shards, each written by one process. `NAME.rows` holds rows of one shape and type; `NAME.keys`
says which rows belong to which digest. Rows reach the disk before the key that names them. So a process that is killed
leaves a valid table that is only shorter. Several processes can fill a table at the same time without knowing of each
other.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from preprocess.source import Limits, MediaError, Source

_KEY = struct.Struct("<32sQI")  # digest, first row, number of rows
_FLUSH_EVERY = 64
"""Rows after which keys are written behind their vectors, so that an interruption loses at most so much work."""


def content_digest(source: Source, limits: Limits) -> bytes:
    """The SHA-256 of a source's content and hints, 32 bytes. Raises MediaError where it cannot be read."""
    digest = hashlib.sha256(json.dumps(asdict(source.hints), sort_keys=True).encode())
    if source.is_encoded:
        with source.open(limits) as file:
            try:
                while block := file.read(2**20):
                    digest.update(block)
            except OSError as error:
                raise MediaError(source.name, f"could not be read: {error.strerror}") from None
    elif isinstance(source.content, np.ndarray):
        digest.update(f"{source.content.dtype}{source.content.shape}".encode())
        digest.update(np.ascontiguousarray(source.content).tobytes())
    elif isinstance(source.content, str):
        digest.update(source.content.encode())
    else:
        raise MediaError(source.name, f"{type(source.content).__name__} in memory cannot be cached; use a file")
    return digest.digest()


def table_name(kind: str, parts: Mapping[str, Any]) -> str:
    """The inputs of a table's rows besides their content -> the name of its folder, which is a cache key."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


class Table:
    """Digest -> (count, *shape) array.

    `with table:` opens a shard for `add`; `refresh` shows rows that others have added.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.folder = folder
        self.shape = shape
        self.dtype = dtype
        self._row_bytes = math.prod(shape) * dtype.itemsize
        self._places: dict[bytes, tuple[str, int, int]] = {}
        self._maps: dict[str, np.ndarray] = {}
        self._files: tuple[BinaryIO, BinaryIO] | None = None
        self._waiting: list[tuple[bytes, int, int]] = []
        self._shard = ""
        self._written = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.refresh()

    def refresh(self) -> None:
        """Reads the keys of all shards again."""
        self._places.clear()
        self._maps.clear()
        for file in sorted(self.folder.glob("*.keys")):
            try:
                rows = file.with_suffix(".rows").stat().st_size // self._row_bytes
            except FileNotFoundError:
                continue
            content = file.read_bytes()
            for digest, first, count in _KEY.iter_unpack(content[: len(content) // _KEY.size * _KEY.size]):
                if first + count <= rows:
                    self._places[digest] = (file.stem, first, count)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, digest: bytes) -> np.ndarray:
        shard, first, count = self._places[digest]
        if shard not in self._maps:
            file = self.folder / f"{shard}.rows"
            whole = file.stat().st_size // self._row_bytes  # the last row may be incomplete
            self._maps[shard] = np.memmap(file, self.dtype, "r", shape=(whole, *self.shape))
        return self._maps[shard][first : first + count]

    def add(self, digest: bytes, rows: np.ndarray) -> None:
        """Appends (count, *shape) rows, which can be read after the `with` block.

        Raises ValueError for another shape.
        """
        if rows.shape[1:] != self.shape or len(rows) == 0:
            raise ValueError(f"{self.folder.name}: expected (count, {self.shape}), got {rows.shape}")
        if self._files is None:
            self._shard = uuid.uuid4().hex
            names = (self.folder / f"{self._shard}.rows", self.folder / f"{self._shard}.keys")
            self._files = names[0].open("xb"), names[1].open("xb")
            self._written = 0
        self._files[0].write(np.ascontiguousarray(rows, self.dtype).tobytes())
        self._waiting.append((digest, self._written, len(rows)))
        self._written += len(rows)
        if len(self._waiting) >= _FLUSH_EVERY:
            self._flush()

    def __enter__(self) -> Table:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._files is not None:
            self._flush()
            for file in self._files:
                file.close()
            self._files = None
            self.refresh()

    def _flush(self) -> None:
        assert self._files is not None
        rows, keys = self._files
        rows.flush()
        os.fsync(rows.fileno())
        keys.write(b"".join(_KEY.pack(*entry) for entry in self._waiting))
        keys.flush()
        self._waiting.clear()
