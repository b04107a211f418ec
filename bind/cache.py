"""Where things are kept that can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$CROSSBIND_CACHE`, else `crossbind` in the user's cache folder; it may not exist yet."""
    if chosen := os.environ.get("CROSSBIND_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossbind"
