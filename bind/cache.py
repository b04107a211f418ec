"""The folder for files that Crossbind can compute again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder for files that can be computed again: `$CROSSBIND_CACHE`, else `crossbind` in the user's cache folder.

    The folder may not exist yet.
    """
    if chosen := os.environ.get("CROSSBIND_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossbind"
