"""Room for what is too large for memory, also in a sandbox, where no file can be made."""

from __future__ import annotations

import io
import tempfile
from typing import IO

_given: list[IO[bytes]] = []


def use(file: IO[bytes]) -> None:
    """Every `Scratch` of this process uses `file` from now on: one that was opened before the sandbox was closed."""
    _given[:] = [file]


class Scratch:
    """Bytes that stay in memory up to `in_memory` of them, and then go to a temporary file. One at a time."""

    def __init__(self, in_memory: int) -> None:
        self._file: IO[bytes] = io.BytesIO()
        self._in_memory = in_memory

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file in _given:
            self._file.seek(0)
            self._file.truncate()
        else:
            self._file.close()

    def write(self, data: bytes | memoryview) -> int:
        """Writes at the present place. Raises OSError where the disk is full or the file would be too large."""
        if isinstance(self._file, io.BytesIO) and self._file.tell() + len(data) > self._in_memory:
            written, place = self._file.getbuffer(), self._file.tell()
            self._file = _given[0] if _given else tempfile.TemporaryFile()  # noqa: SIM115 - __exit__ closes it
            self._file.write(written)
            self._file.seek(place)
        return self._file.write(data)

    def tell(self) -> int:
        """The present place, in bytes from the start."""
        return self._file.tell()

    def seek(self, place: int) -> int:
        """Goes to a place, in bytes from the start."""
        return self._file.seek(place)

    def read(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the end."""
        return self._file.read(count)
