"""Files and folders: waiting until the disk has them, SHA-256 digests, and exchanging two paths in one step."""

from __future__ import annotations

import ctypes
import errno
import functools
import hashlib
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

SUMS = "SHA256SUMS"
"""The file with the checksums of the other files of its folder, as `sha256sum` writes them."""
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
"""A line of `sha256sum`: digest, a space, `*` or a space, the file's name."""
_AT_FDCWD = -100  # the value in Linux's fcntl.h
_SWAP = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS


def sha256(file: Path) -> str:
    """The SHA-256 of a file's content, 64 hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def parse_sums(listing: bytes) -> dict[str, str]:
    """The bytes of a `SHA256SUMS`, as `sha256sum` writes it -> {file name: digest}.

    Raises ValueError for other bytes.
    """
    try:
        lines = [line for line in listing.decode().splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    matches = [_LINE.fullmatch(line) for line in lines]
    if None in matches:
        raise ValueError(f"line {matches.index(None) + 1} is not `DIGEST  NAME`")
    return {match[2]: match[1] for match in matches if match}


def format_sums(sums: Mapping[str, str]) -> bytes:
    """{file name: digest} -> the bytes of a `SHA256SUMS`, which `sha256sum --check` reads."""
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()


def sync(path: Path) -> None:
    """Waits until the disk has a file's content, or a folder's list of names. Raises OSError."""
    if os.name == "posix" or path.is_file():  # other systems cannot open a folder
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def exchange(one: Path, other: Path) -> bool:
    """Exchanges two paths of one file system in one step -> whether this system can do that. Raises OSError."""
    call = _exchanging_call()
    if call is None:
        return False
    if call(os.fsencode(one), os.fsencode(other)) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # this file system cannot exchange paths
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


@functools.cache
def _exchanging_call() -> Callable[[bytes, bytes], int] | None:
    """The system call that exchanges two paths (it returns 0 on success), or None; Python has no function for it."""
    library = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    if sys.platform == "linux" and hasattr(library, "renameat2"):
        return lambda one, other: int(library.renameat2(_AT_FDCWD, one, _AT_FDCWD, other, _SWAP))  # type: ignore[union-attr]
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        return lambda one, other: int(library.renamex_np(one, other, _SWAP))  # type: ignore[union-attr]
    return None
