"""How fast a model is on this machine: measured when asked, and remembered."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from bind.cache import cache_folder
from bind.model.model import BindModel

_PICTURES = 8
"""Pictures that are embedded at once."""
_REPEATS = 3
"""Runs whose median counts."""
_TEXT = "two people walk along a river in the rain"
"""The text that is embedded."""


def measure(model: BindModel) -> dict[str, float]:
    """A model -> `images_per_s` (pictures of 640 x 480 in memory, eight at once) and `text_ms` (one text), as far as
    it has the modalities. The median of three runs after a first one that does not count.
    """
    found: dict[str, float] = {}
    if "image" in model.modalities:
        rng = np.random.default_rng(0)
        pictures = [Image.fromarray(rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)) for _ in range(_PICTURES)]
        found["images_per_s"] = round(_PICTURES / _seconds(lambda: model.embed(pictures)), 2)
    if "text" in model.modalities:
        found["text_ms"] = round(1000 * _seconds(lambda: model.embed([f"text:{_TEXT}"])), 2)
    return found


def remember(name: str, device: str, speed: dict[str, float]) -> None:
    """Writes what was measured of a model into the cache folder of this machine."""
    file = cache_folder() / "speeds.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    everything = _read() | {_key(name, device): speed}
    aside = file.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps(everything, indent=1, sort_keys=True))
    os.replace(aside, file)


def remembered(name: str, device: str = "cpu") -> dict[str, float]:
    """What was measured of a model on this machine; empty where nothing was."""
    found: dict[str, float] = _read().get(_key(name, device), {})
    return found


def _read() -> dict[str, Any]:
    try:
        found = json.loads((cache_folder() / "speeds.json").read_text())
    except (OSError, ValueError):  # nothing was measured, or the file is damaged and can be made again
        return {}
    return found if isinstance(found, dict) else {}


def _key(name: str, device: str) -> str:
    return f"{platform.node()}/{device}/{name}"


def _seconds(run: Callable[[], object]) -> float:
    taken = []
    for _ in range(_REPEATS + 1):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return median(taken[1:])
