"""The date of a file in a library, and where it is from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from serve.library.scan import Probed

_LAST_SECOND = 253_402_300_799  # of the year 9999; file systems can store later ones, datetime cannot


def date_of(probed: Probed, media_facts: Mapping[str, Any]) -> tuple[str, str]:
    """The date of a file as ISO 8601, and the source of that date. The sources are tried in this order:

    `sidecar` (our `date`, as it is there), `exif` or `xmp` (local time, with its offset where it is known),
    `container` (of a film or of sound), `takeout` or `xmp` (of a file beside it), `file` (of its last change, in UTC).
    `media_facts` are what the medium says of itself.
    """
    date = probed.metadata.get("date")
    if isinstance(date, str):
        return date, "sidecar"
    for facts in (media_facts, probed.others):
        if facts.get("taken"):
            return facts["taken"], facts.get("taken_from", "")
    seconds = min(max(probed.found.mtime_ns // 10**9, 0), _LAST_SECOND)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "file"
