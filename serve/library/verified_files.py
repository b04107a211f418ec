"""Files that are given to a client only with the content that was indexed, whatever lies at their path by now."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from io import BufferedReader

from preprocess.source import MediaError

_KNOWN = 4096
"""Files whose digest is remembered, so that they are not hashed for each request."""
_SETTLED_S = 2.0
"""A file that changed less than this before it was hashed may change again without another time of change."""


class VerifiedFiles:
    """The content of open files: each is hashed when first asked for, and again when it has changed."""

    def __init__(self) -> None:
        self._digests: OrderedDict[tuple[int, ...], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, file: BufferedReader, name: str, size: int, digest: bytes) -> None:
        """Returns when an open file has this size and this SHA-256, at its start. Raises MediaError, OSError."""
        stamp = _stamp(file)
        if stamp[2] == size:
            with self._lock:
                found = self._digests.get(stamp)
            if found is None:
                found = hashlib.file_digest(file, "sha256").digest()
                file.seek(0)
                if _stamp(file) == stamp and time.time_ns() - stamp[4] > _SETTLED_S * 1e9:
                    with self._lock:
                        self._digests[stamp] = found
                        while len(self._digests) > _KNOWN:
                            self._digests.popitem(last=False)
            if found == digest:
                return
        raise MediaError(name, "has changed since it was indexed")


def _stamp(file: BufferedReader) -> tuple[int, ...]:
    # No program can choose a file's time of change (ctime), unlike its time of modification.
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
