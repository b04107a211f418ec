"""Checks of a run that need several of its tables together, or the description of its base model."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterator
from pathlib import Path

import torch
from torch import nn

from bind import encoders, heads, modalities
from bind.description import Description
from train.trainer.plan import describe, resolve, restricted
from train.trainer.schema import Modality, Pair, Run

_ONLY_FOR = {"audio": ("gain_db", "mix"), "imu": ("turn_deg", "tilt_deg", "shift")}
"""Modality -> keys of `augment` that only this modality has."""
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding)
"""The types of layers that LoRA can change."""


def faults(run: Run) -> Iterator[str]:
    """A run with absolute paths -> one sentence for each fault: in names, in files, and in what the base does
    not have.
    """
    base: Description | None = None
    try:
        base = describe(run.base.model)
    except ValueError as error:
        yield f"base.model: {error}"
    have: Collection[str] = base.modalities if base else ()
    if base:
        try:
            base = restricted(base, run)
            have = base.modalities
        except ValueError as error:
            yield f"base.modalities: {error}"
            base = None
    usable = True
    for number, pair in enumerate(run.train.pairs):
        where = f"train.pairs.{number}"
        for key, value in (("modality", pair.modality), ("anchor", pair.anchor)):
            if value not in modalities.specs():
                usable = False
                yield f"{where}.{key}: no modality {value!r}; known: {', '.join(modalities.specs())}"
        if base and run.stage(pair.anchor) == "vectors" and pair.anchor in set(modalities.specs()) - set(have):
            yield f"{where}.anchor: {base.name} has no {pair.anchor}; it has {', '.join(have)}"
        if pair.anchor == pair.modality:
            yield f"{where}.anchor: {pair.anchor} cannot be bound to itself"
        if pair.teacher and usable:
            yield from _teacher_faults(pair, where)
        augment = pair.augment
        if augment.views == 1 and (augment.crop < 1 or augment.flip or augment.jitter):
            yield f"{where}.augment: crop, flip and jitter need views > 1: the variants of an item that are encoded"
        for modality, keys in _ONLY_FOR.items():
            if modality not in (pair.modality, pair.anchor):
                yield from (f"{where}.augment.{key}: is for {modality}" for key in keys if getattr(augment, key))
        for manifest in pair.manifests:
            if not Path(manifest).is_file():
                yield f"{where}.manifests: there is no file {manifest}"
    for manifest in run.evaluate.manifests:
        if not Path(manifest).is_file():
            yield f"evaluate.manifests: there is no file {manifest}"
    paired = {side for pair in run.train.pairs for side in (pair.modality, pair.anchor)}
    for name in sorted(set(run.modalities) - paired):
        yield f"modalities.{name}: no pair of this run trains {name}"
        usable = False
    if run.evaluate.patience and not run.evaluate.manifests:
        yield "evaluate.patience: stopping early needs evaluate.manifests"
    if base and usable:
        yield from _faults_of_trained(base, run)


def _teacher_faults(pair: Pair, where: str) -> Iterator[str]:
    assert pair.teacher
    try:
        if not {pair.modality, pair.anchor} & set(describe(pair.teacher.model).modalities):
            yield f"{where}.teacher: {pair.teacher.model} has neither {pair.modality} nor {pair.anchor}"
    except ValueError as error:
        yield f"{where}.teacher: {error}"


def _faults_of_trained(base: Description, run: Run) -> Iterator[str]:
    """The faults of the trained modalities, on a base that has the other modalities."""
    try:
        plan = resolve(base, run)
    except (ValueError, TypeError) as error:
        yield str(error)
        return
    owners = plan.finished.towers()
    for name in run.trained:
        where, table = f"modalities.{name}", plan.starting[name]
        wanted = run.modalities.get(name, Modality())
        if table.shares and run.stage(name) == "views":
            yield f'{where}: shares the encoder of {table.shares}; train that, or a head of its own: train = "head"'
        if wanted.lora and wanted.train == "head":
            yield f'{where}: lora changes the encoder, train = "head" leaves it as it is; leave out one of them'
        if (wanted.lora or wanted.train == "head") and not (
            name in plan.continued or encoders.is_published(table.encoder or {})
        ):
            yield f"{where}.encoder: what is only headed or adapted needs weights: the base's encoder, or a `source`"
        try:
            with torch.device("meta"):
                encoder = encoders.build(plan.finished.modalities[owners[name]].encoder or {})
                heads.build(plan.finished.modalities[name].head or {}, int(encoder.width), base.dim)  # type: ignore[arg-type]
        except (ValueError, TypeError) as error:
            yield f"{where}: {error}"
            continue
        if wanted.train == "head" and table.head and table.head.get("type") == "identity":
            yield f'{where}.head: an identity has nothing to train; give head = {{ type = "linear" }}'
        if wanted.lora and not importlib.util.find_spec("peft"):
            yield f"{where}.lora: needs the package peft: pip install 'crossbind[train]'"
        layers = {key for key, module in encoder.named_modules() if isinstance(module, _LAYERS)}
        for target in wanted.lora.targets if wanted.lora else ():
            if not any(f".{key}".endswith(f".{target}") for key in layers):
                ends = sorted({key.rpartition(".")[2] for key in layers})
                yield f"{where}.lora.targets: no layer is called {target!r}; there are {', '.join(ends)}"
    moving = set(run.trained)
    for name in base.modalities:  # those that share its encoder, or its head too
        if owners[name] in run.trained and (run.stage(owners[name]) == "views" or not base.modalities[name].head):
            moving.add(name)
    for name in sorted(moving - set(run.trained)):
        if any(pair.anchor == name for pair in run.train.pairs):
            yield f"train.pairs: {name} is no frozen anchor, as it shares what this run trains: {owners[name]}"
        elif base.modalities[name].head:
            yield f"modalities.{owners[name]}: {name} has a head of its own on this encoder; {_way_out(base, name)}"
    for name in run.trained:
        if owners[name] in set(run.trained) - {name} and run.stage(owners[name]) == "views":
            yield f"modalities.{name}: its encoder, {owners[name]}'s, is not frozen in this run; use two runs"
    together = [{pair.modality, pair.anchor} for pair in run.train.pairs]
    for both in base.trained:
        for mover, other in (both, both[::-1]):
            if mover in moving and other not in moving and set(both) not in together:
                yield f"modalities.{owners[mover]}: {other} was bound to {mover}, which moves; {_way_out(base, other)}"


def _way_out(base: Description, name: str) -> str:
    # A modality is not dropped without being asked, or the finished model would lack a modality of its base.
    rest = [other for other in base.modalities if other != name]
    return f"add a pair of the two, or leave {name} out: base.modalities = {rest}".replace("'", '"')
