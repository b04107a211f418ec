"""What a file does not say of itself: hints and metadata from `NAME.json` beside the medium `NAME`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from preprocess.files import IrregularFileError, MediaError, open_regular

MAX_SIDECAR_BYTES = 2**20


@dataclass(frozen=True)
class Hints:
    """What a file does not say of itself, from a manifest entry or a sidecar file `NAME.json`.

    `unit` is a depth unit (`m`, `mm`, `sunrgbd`, `disparity`: inverse metres, `disparity_px`) or a thermal one
    (`celsius`, `kelvin`, `centikelvin`). `low` and `high` fix a thermal range, in the file's unit.
    """

    start_s: float | None = None
    end_s: float | None = None
    unit: str | None = None
    focal_px: float | None = None
    baseline_m: float | None = None
    rate_hz: float | None = None
    acceleration_unit: Literal["m/s2", "g"] | None = None
    rotation_unit: Literal["rad/s", "deg/s"] | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def from_mapping(cls, values: dict[str, Any], name: str) -> Hints:
        """Known keys of `values` -> hints; other keys are free metadata. Raises MediaError on a wrong type."""
        known: dict[str, Any] = {}
        for key in (f.name for f in fields(cls)):
            value = values.get(key)
            if value is None:
                continue
            wanted: type | tuple[type, ...] = str if key.endswith("unit") else (int, float)
            if not isinstance(value, wanted) or isinstance(value, bool):
                raise MediaError(
                    name, f"hint {key!r}: expected {'text' if wanted is str else 'a number'}, got {value!r}"
                )
            known[key] = value
        return cls(**known)


def read_sidecar(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object in `NAME.json` beside a medium: hints and free metadata.

    Raises MediaError, which names the medium, for content that is no JSON object of at most `MAX_SIDECAR_BYTES`, and
    for a pipe or device; OSError where there is no such file or it cannot be read.
    """
    path = os.fspath(path)
    name = os.path.basename(path) + ".json"
    try:
        descriptor = open_regular(path + ".json")
    except IrregularFileError:
        raise MediaError(path, f"its sidecar {name} is not a regular file (a directory, pipe or device)") from None
    with os.fdopen(descriptor, "rb") as file:
        raw = file.read(MAX_SIDECAR_BYTES + 1)
    if len(raw) > MAX_SIDECAR_BYTES:
        raise MediaError(path, f"its sidecar {name} has more than {MAX_SIDECAR_BYTES:,} bytes")
    try:
        values = json.loads(raw)
        json.dumps(values, allow_nan=False)  # `NaN` and `1e999` are read, but are no numbers in JSON
    except (ValueError, RecursionError) as error:
        raise MediaError(path, f"its sidecar {name} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise MediaError(path, f"its sidecar {name} must hold one JSON object")
    return values


def read_hints(path: Path) -> Hints:
    """The hints of the sidecar file beside a medium; empty where there is none. Raises MediaError for a bad one."""
    try:
        values = read_sidecar(path)
    except MediaError:
        raise
    except (OSError, ValueError):  # none there, or a name that no file can have
        return Hints()
    return Hints.from_mapping(values, str(path))
