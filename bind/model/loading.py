"""A description and its weights -> a `BindModel`: from a checkpoint folder, or drawn at random."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bind import calibration, checkpoint, encoders, heads
from bind import description as descriptions
from bind.checkpoint import CheckpointError
from bind.description import Description, ModalityTable
from bind.model.model import BindModel
from bind.model.towers import Tower


def load(
    folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32, only: Collection[str] | None = None
) -> BindModel:
    """A checkpoint folder -> a model of all its modalities, or of those in `only`; other files are not read or checked.

    Raises CheckpointError for damage, ValueError for a bad description.
    """
    description = descriptions.read(checkpoint.verified(folder, checkpoint.TABLE, checkpoint.read_sums(folder)))
    return load_described(description, folder, device, dtype, only)


def load_described(
    description: Description,
    folder: Path,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    only: Collection[str] | None = None,
) -> BindModel:
    """A description and the folder of its weights -> a model; otherwise as `load`."""
    sums = checkpoint.read_sums(folder)

    def tower(name: str, table: ModalityTable, shared: Tower | None) -> Tower:
        file = f"{name}.safetensors"
        stored = load_file(checkpoint.verified(folder, file, sums)) if file in sums else {}
        encoder = shared.encoder if shared else None
        if table.encoder and encoders.is_published(table.encoder):
            encoder = encoders.load(table.encoder, checkpoint.locate)
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
        found = calibration.read(checkpoint.verified(folder, calibration.FILE, sums), description.dim)
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
    """A description -> a model of the right shapes with random weights.

    Each modality has a seed of its own, so that a subset of the modalities has the same weights.
    """
    # The weights are drawn and not read, so the sources in the description do not apply to them.
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
    # owners of an encoder come before the modalities that share it
    for name in sorted(needed, key=lambda name: owners[name] != name):
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
    except NotImplementedError:  # open_clip moves a model between devices while it constructs it
        module = build()
    try:
        missing, unexpected = module.load_state_dict(state, strict=False, assign=True)
    except RuntimeError as error:  # the shapes differ
        raise CheckpointError(f"{where}: {error}") from None
    if missing or unexpected:
        raise CheckpointError(f"{where}: missing tensors {missing[:8]}, unexpected {unexpected[:8]}")
    if any(buffer.is_meta for buffer in module.buffers()):
        # A buffer that is not stored exists only in a module that was constructed with real tensors.
        module = build()
        module.load_state_dict(state, assign=True)
    return module


def _without_source(table: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if table is None:
        return None
    bare = {key: value for key, value in table.items() if key not in ("source", "sha256")}
    return bare | {"parts": [_without_source(part) for part in table["parts"]]} if "parts" in table else bare
