"""Files that a library keeps itself: each in a folder of its own, which appears with all that is in it or never."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from preprocess.media import MAX_SIDECAR_BYTES, Limits, MediaError

_INCOMING = ".incoming-"
_CHUNK_BYTES = 2**20
_NAME_BYTES = 180
"""File systems take 255; the sidecar's suffix and a little more must fit."""


def safe_name(name: str) -> str:
    r"""What somebody calls a file -> a name without folders, that no system takes for anything else.

    >>> safe_name("../../etc/passwd"), safe_name("C:\\x\\my dog.jpg"), safe_name("..")
    ('passwd', 'my dog.jpg', 'file')
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    clean = "".join(c for c in last if c.isprintable() and c not in '<>:"|?*').strip(" .") or "file"
    stem, suffix = os.path.splitext(clean)
    encoded, end = stem.encode("utf-8", "ignore"), suffix.encode("utf-8", "ignore")[:16]
    return (encoded[: _NAME_BYTES - len(end)] + end).decode("utf-8", "ignore") or "file"


class Kept:
    """The files below `folder`. One writer at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, content: IO[bytes], name: str, metadata: Mapping[str, Any], limits: Limits) -> Path:
        """Stores a file with its sidecar -> its path, the same for the same file, name and metadata.

        Raises MediaError for what is empty, above `limits.max_bytes` or has unusable metadata; OSError.
        """
        name = safe_name(name)
        sidecar = _sidecar(name, metadata)
        self.folder.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=_INCOMING, dir=self.folder))
        try:
            digest = hashlib.sha256(name.encode() + b"\0" + sidecar + b"\0")
            size = 0
            with open(place / name, "xb") as file:
                while block := content.read(_CHUNK_BYTES):
                    size += len(block)
                    if size > limits.max_bytes:
                        raise MediaError(name, f"has more than {limits.max_bytes:,} bytes (max_bytes)")
                    digest.update(block)
                    file.write(block)
                _sync(file)
            if size == 0:
                raise MediaError(name, "is empty (0 bytes)")
            if sidecar:
                with open(place / f"{name}.json", "xb") as file:
                    file.write(sidecar)
                    _sync(file)
            final = self.folder / digest.hexdigest()[:32]
            if not final.exists():
                place.chmod(0o755)
                _sync_folder(place)
                os.rename(place, final)
                _sync_folder(self.folder)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        return final / name

    def drop(self, path: Path) -> None:
        """Deletes a file with its sidecar if it is one of these; any other path is left alone."""
        if path.parent.parent == self.folder:
            shutil.rmtree(path.parent, ignore_errors=True)

    def sweep(self, is_wanted: Callable[[Path], bool]) -> None:
        """Deletes what interrupted calls left: whatever has no file that is wanted."""
        if not self.folder.is_dir():
            return
        for place in self.folder.iterdir():
            if place.name.startswith(_INCOMING) or not any(map(is_wanted, place.iterdir())):
                shutil.rmtree(place, ignore_errors=True)


def _sidecar(name: str, metadata: Mapping[str, Any]) -> bytes:
    if not metadata:
        return b""
    try:
        written = json.dumps(dict(metadata), sort_keys=True, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise MediaError(name, f"its metadata cannot be written as JSON: {error}") from None
    if len(written) > MAX_SIDECAR_BYTES:
        raise MediaError(name, f"its metadata has more than {MAX_SIDECAR_BYTES:,} bytes")
    return written


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
