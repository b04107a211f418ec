"""Clips cut from YouTube videos, which data sets list by id and start but do not distribute."""

from __future__ import annotations

import os
import re
from pathlib import Path

from data_manifests import Download, Entry, is_filled

NAMING = (
    "clips cut to the segment, anywhere below the folder, named ID, ID_START or ID_START_END (START in seconds, "
    "zero-padded or not, or in milliseconds; a 'Y' before the ID is allowed); .mp4 .mkv .webm .avi .mov give video and "
    "audio, .wav .flac .m4a .mp3 .ogg .opus audio"
)
"""What the `layout` of data sets of YouTube clips says about the names of the clips."""
_AUDIO = {".wav", ".flac", ".m4a", ".mp3", ".ogg", ".opus"}
"""Suffixes of clips that are sound."""
_VIDEO = {".mp4", ".mkv", ".webm", ".avi", ".mov"}
"""Suffixes of clips that are films."""
# An id may itself begin with Y and contain underscores, so a name can have two readings; both are kept.
_READINGS = (
    re.compile(r"([\w-]{11})(?:_(\d+(?:\.\d+)?))?(?:_.*)?"),
    re.compile(r"Y([\w-]{11})(?:_(\d+(?:\.\d+)?))?(?:_.*)?"),
)


class Clips:
    """The clips below a download, by YouTube id."""

    def __init__(self, download: Download) -> None:
        self._root = download.path
        self._by_id: dict[str, list[tuple[float | None, str]]] = {}
        for folder, subfolders, names in os.walk(download.path):
            subfolders.sort()
            for name in sorted(names):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() not in _AUDIO | _VIDEO:
                    continue
                path = Path(folder, name).relative_to(download.path).as_posix()
                for reading in _READINGS:
                    if match := reading.fullmatch(stem):
                        start = None if match[2] is None else float(match[2])
                        self._by_id.setdefault(match[1], []).append((start, path))

    def find(self, youtube_id: str, start_s: float) -> Entry:
        """The `video` and `audio` references of the clip that starts there, as far as its files exist; may be empty."""
        right = [path for start, path in self._by_id.get(youtube_id, ()) if start in (start_s, start_s * 1000)]
        right += [path for start, path in self._by_id.get(youtube_id, ()) if start is None]
        found: Entry = {}
        for path in filter(lambda path: is_filled(self._root / path), right):
            found.setdefault("video" if Path(path).suffix.lower() in _VIDEO else "audio", {"path": path})
        if "video" in found:
            found.setdefault("audio", found["video"])
        return found
