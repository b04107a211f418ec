"""What a file does not say of itself: hints and metadata from the files beside a medium `NAME`.

Ours is `NAME.json`. Those of others are joined as metadata (see `preprocess.companions`). A sidecar is help, never a
hurdle: what cannot be used of it is told in a note, and the medium is read without.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from preprocess.files import IrregularFileError, MediaError, open_regular

MAX_SIDECAR_BYTES = 2**20
"""Bytes of a sidecar. Those of Google Takeout have a few KB."""


@dataclass(frozen=True)
class Hints:
    """What a file does not say of itself, from a manifest entry or a sidecar file `NAME.json`.

    `unit` is a depth unit (`m`, `mm`, `sunrgbd`, `disparity`: inverse metres, `disparity_px`) or a thermal one
    (`celsius`, `kelvin`, `centikelvin`). `low` and `high` fix a thermal range, in the file's unit. `modality` says what
    the medium is, whatever its name says. `scale` is how many units of a depth map are a metre (1000: mm).
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
    modality: str | None = None
    scale: float | None = None

    @classmethod
    def from_mapping(cls, values: dict[str, Any], name: str) -> Hints:
        """Known keys of `values` -> hints; other keys are free metadata. Raises MediaError on a wrong type."""
        hints, wrong = cls.of(values)
        if wrong:
            raise MediaError(name, f"hint {wrong[0]}")
        return hints

    @classmethod
    def of(cls, values: dict[str, Any]) -> tuple[Hints, tuple[str, ...]]:
        """Known keys of `values` that have their type -> hints, and what is wrong with the others."""
        known: dict[str, Any] = {}
        wrong: list[str] = []
        for key in (f.name for f in fields(cls)):
            value = values.get(key)
            if value is None:
                continue
            is_text = key.endswith("unit") or key == "modality"
            if isinstance(value, str if is_text else (int, float)) and not isinstance(value, bool):
                known[key] = value
            else:
                wrong.append(f"{key!r}: expected {'text' if is_text else 'a number'}, got {value!r:.80}")
        return cls(**known), tuple(wrong)


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


@dataclass(frozen=True)
class Sidecar:
    """What `NAME.json` says: hints, all other keys as metadata, and notes on what was left out."""

    hints: Hints = field(default_factory=Hints)
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read(path: str | os.PathLike[str]) -> Sidecar:
    """The sidecar `NAME.json` of a medium; an empty one where there is none, or where it is none of ours.

    Raises OSError where there is one that cannot be read.
    """
    try:
        values = read_sidecar(path)
    except MediaError as error:
        return Sidecar(notes=(f"{error.reason}; it was ignored",))
    except (FileNotFoundError, ValueError):  # none there, or a name that no file can have
        return Sidecar()
    hints, wrong = Hints.of(values)
    known = {f.name for f in fields(Hints) if getattr(hints, f.name) is not None}
    notes = tuple(f"its sidecar's {reason}: no hint of ours, ignored" for reason in wrong)
    return Sidecar(hints, {key: value for key, value in values.items() if key not in known}, notes)


def read_hints(path: Path) -> Hints:
    """The hints of the sidecar beside a medium; empty where there is none that can be read."""
    try:
        return read(path).hints
    except OSError:
        return Hints()
