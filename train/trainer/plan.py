"""A run and its base model -> a plan: what each trained modality starts from, and the description of the finished
model.

The tables of a run file, of the base and of a modality's SPEC are merged here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bind import description as descriptions
from bind import modalities, zoo
from bind.checkpoint import TABLE
from bind.description import Description, ModalityTable
from train.trainer.schema import Modality, Run

# `shape` is that of the prepared views, so a run file that changes the preprocessing need not repeat it.
_TAKE_A_SHAPE = ("convnet", "sound", "timm", "transformer")


@dataclass(frozen=True)
class Plan:
    """A run, resolved against the description of its base.

    `base` has only the modalities that the run keeps. `starting` are the tables of the trained modalities at the start
    of training, with an encoder's `source` where its weights come from one. `finished` describes the finished model.
    The encoders of `continued` are the base's; those of the other trained modalities start from their `source` or from
    random weights.
    """

    run: Run
    base: Description
    starting: Mapping[str, ModalityTable]
    continued: frozenset[str]
    finished: Description

    def keeps_head(self, name: str) -> bool:
        """Whether a trained modality has the head that the base has for it, and so starts from its weights."""
        return name in self.continued and self.starting[name].head == _head_of(self.base, name)


def resolve(base: Description, run: Run) -> Plan:
    """The description of a run's base -> the plan. Raises ValueError that lists every fault.

    The finished model's record of trained pairs only grows, because weights that saw a pair have seen it. An encoder
    that starts from random weights is the only one whose record is dropped.
    """
    base = restricted(base, run)
    tables = {name: _starting(base, run, name) for name in run.trained}
    continued = frozenset(name for name, table in tables.items() if _continues(base, name, table))
    anew = tables.keys() - continued
    before = [pair for pair in base.trained if not anew & set(pair)]
    finished = dict(tables)
    for name, table in tables.items():
        if run.stage(name) == "views" and table.encoder:
            own = {key: value for key, value in table.encoder.items() if key not in ("source", "sha256")}
            finished[name] = table.model_copy(update={"encoder": own})
    pairs = dict.fromkeys((pair.anchor, pair.modality) for pair in run.train.pairs)
    new = [pair for pair in pairs if not {pair, pair[::-1]} & set(before)]
    whole = base.model_copy(
        update={
            "name": run.name,
            "about": f"{base.name} with {', '.join(run.trained)} bound by run {run.name!r}",
            "trained": (*before, *new),
            "modalities": base.modalities | finished,
        }
    )
    written = whole.model_dump(exclude_none=True, exclude_defaults=True) | {"format": 1}
    return Plan(run, base, tables, continued, descriptions.parse(written, run.name))


def describe(model: str) -> Description:
    """A name of the zoo or a checkpoint folder -> its description. Raises ValueError."""
    table = Path(model) / TABLE
    return descriptions.read(table) if table.is_file() else zoo.describe(model)


def restricted(base: Description, run: Run) -> Description:
    """The base's description -> the same with the modalities that the run keeps. Raises ValueError for unknown ones."""
    names = run.base.modalities or tuple(base.modalities)
    if unknown := sorted(set(names) - set(base.modalities)):
        raise ValueError(f"{base.name} has no {', '.join(unknown)}; it has {', '.join(base.modalities)}")
    tables = {name: table for name, table in base.modalities.items() if name in names}
    trained = tuple(pair for pair in base.trained if set(pair) <= set(names))
    return base.model_copy(update={"modalities": tables, "trained": trained})


def _starting(base: Description, run: Run, name: str) -> ModalityTable:
    """The table of a trained modality at the start of training, with its encoder's `source` where its weights come from
    one.
    """
    wanted = run.modalities.get(name, Modality())
    old, spec = base.modalities.get(name), modalities.spec(name)
    preprocess = (old.preprocess if old else {}) | wanted.preprocess
    if old and old.shares and not wanted.encoder:
        return ModalityTable(shares=old.shares, head=wanted.head or _head_of(base, name), preprocess=preprocess)
    encoder = dict(wanted.encoder)
    if "module" not in encoder:
        encoder = dict((old and old.encoder) or spec.encoder or {}) | encoder
    if encoder.get("module") in _TAKE_A_SHAPE and "shape" not in wanted.encoder:
        alone = {name: ModalityTable(preprocess=preprocess)}
        config = Description(format=1, name="", dim=1, license="", modalities=alone).preprocess(name)
        encoder["shape"] = list(spec.shape(config))
    head = wanted.head or (_head_of(base, name) if old else dict(spec.head or {}))
    return ModalityTable(encoder=encoder, head=head, preprocess=preprocess)


def _continues(base: Description, name: str, table: ModalityTable) -> bool:
    """Whether a modality's encoder, as `_starting` gives it, is the base's."""
    old = base.modalities.get(name)
    return old is not None and (old.encoder, old.shares) == (table.encoder, table.shares)


def _head_of(base: Description, name: str) -> dict[str, Any]:
    """The table of a modality's head, which may be that of the modality whose encoder it shares."""
    table = base.modalities[name]
    return dict(table.head or (_head_of(base, table.shares) if table.shares else {}))
