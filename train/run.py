"""Run files: one TOML a training run, typed; every fault is reported at once, before a weight or a picture is read.

name = "depth"
out = "out/depth"                 # state, log and finished model; relative to the run file, as all its paths are

[base]
model = "small"                   # a name of the zoo, or a checkpoint folder

[modalities.depth]                # what is new; each of encoder, head and preprocess may be left out
preprocess = { size = 64 }

[train]
epochs = 16
learning_rate = 1e-3

[[train.pairs]]
modality = "depth"                # its encoder is trained ...
anchor = "image"                  # ... against this frozen one
manifests = ["train.jsonl"]
batch_size = 256
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bind import description as descriptions
from bind import encoders, heads, modalities, zoo
from bind.checkpoint import TABLE
from bind.description import Description

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]

# Their `shape` is that of the prepared views, so a run file that changes the preprocessing need not repeat it.
_TAKE_A_SHAPE = ("convnet", "transformer")


class RunError(ValueError):
    """A run that cannot start: the message lists every fault."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Augment(_Table):
    """How items are varied. `crop`, `flip` and `jitter` act on pictures, in `views` variants of each item.

    A variant is the same for the item and its anchor (aligned crops) and in every epoch, so that a frozen anchor is
    encoded `views` times and never again. `crop` is the least share of the picture that a crop keeps. `jitter` varies
    brightness and contrast of a frozen picture by up to this share. The others vary the trained side in every step:
    `erase` is the chance that a rectangle is blanked, `frequency_mask` and `time_mask` the most rows and columns of a
    spectrogram that are (arXiv 1904.08779).
    """

    views: Count = 1
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    flip: bool = False
    jitter: Share = 0.0
    erase: Share = 0.0
    frequency_mask: Annotated[int, Field(ge=0)] = 0
    time_mask: Annotated[int, Field(ge=0)] = 0


class Pair(_Table):
    """One modality and the frozen one it is bound to (default: its SPEC's anchor).

    Batches hold one pair; `weight` says how often, relative to the others, it is this one's turn. `repeat` is how
    often an epoch sees each item. `temperature` is fixed unless `learn_temperature`.
    """

    modality: str
    anchor: str = ""
    manifests: Annotated[tuple[str, ...], Field(min_length=1)]
    weight: Positive = 1.0
    repeat: Positive = 1.0
    batch_size: Annotated[int, Field(ge=2)] = 512
    temperature: Annotated[float, Field(ge=0.01, le=10)] = 0.07
    learn_temperature: bool = False
    augment: Augment = Augment()

    @property
    def name(self) -> str:
        """`depth-image`."""
        return f"{self.modality}-{self.anchor}"


class Modality(_Table):
    """What a new modality consists of, as in a checkpoint's `model.toml`; what is left out comes from its SPEC.

    An encoder table without `module` changes options of the SPEC's encoder.
    """

    encoder: dict[str, Any] = {}
    head: dict[str, Any] = {}
    preprocess: dict[str, Any] = {}


class Base(_Table):
    """The frozen model that holds the space: the arguments of `bind.load`."""

    model: str = "small"
    weights: str | None = None


class Train(_Table):
    """The optimisation: AdamW, a linear warm-up, then a cosine to 0; `epochs`, or `steps` in their place.

    An epoch is one turn over the items of all pairs. `clip_norm` and `ema_decay` are off at 0. `micro_batch` is the
    most items an encoder sees at once (gradient caching), `chunk` the edge of a block of logits; 0 leaves both to the
    defaults. `max_bad_share` of a pair's items may be missing or unreadable. `save_every` and `log_every` are steps.
    """

    pairs: Annotated[tuple[Pair, ...], Field(min_length=1)]
    epochs: Positive = 16
    steps: Count | None = None
    learning_rate: Positive = 1e-3
    betas: tuple[Share, Share] = (0.9, 0.95)
    weight_decay: Annotated[float, Field(ge=0)] = 0.2
    warmup_epochs: Annotated[float, Field(ge=0)] = 2
    clip_norm: Annotated[float, Field(ge=0)] = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    loss: Literal["info_nce", "sigmoid"] = "info_nce"
    chunk: Annotated[int, Field(ge=0)] = 0
    micro_batch: Annotated[int, Field(ge=0)] = 0
    max_bad_share: Share = 0.01
    save_every: Count = 1000
    log_every: Count = 10


class Cache(_Table):
    """What is computed once and kept in `folder`: vectors of frozen anchors, prepared views of the trained side."""

    folder: str = "cache"
    features: bool = True
    views: bool = True


class Evaluate(_Table):
    """Held-out manifests, every how many epochs, and after how many without a better recall training stops (0: never).

    The finished model is then the one with the best mean of recall@1, 5 and 10 over both directions and all pairs.
    """

    manifests: tuple[str, ...] = ()
    every_epochs: Positive = 1
    patience: Annotated[int, Field(ge=0)] = 0


class Run(_Table):
    """A whole run file. `device` "auto" is a GPU where there is one; `dtype` bfloat16 means autocast."""

    name: str
    out: str
    seed: Annotated[int, Field(ge=0)] = 0
    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    base: Base = Base()
    modalities: dict[str, Modality] = {}
    train: Train
    cache: Cache = Cache()
    evaluate: Evaluate = Evaluate()

    @property
    def trained(self) -> tuple[str, ...]:
        """The modalities that get an encoder in this run."""
        return tuple(sorted({pair.modality for pair in self.train.pairs}))


def read(path: str | Path) -> Run:
    """A run file -> Run; its paths are made absolute and the default anchors filled in.

    Raises RunError that lists every fault of the file.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RunError(f"{path}: {error}") from None
    return parse(table, path.parent, path.name)


def parse(table: Mapping[str, Any], folder: Path, name: str = "run") -> Run:
    """As `read`, from a parsed table; `folder` is what its paths are relative to."""
    faults: list[str] = []
    run: Run | None = None
    try:
        run = Run.model_validate(table)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        run = _what_is_left(table, error)
    if run is not None:
        run = _resolved(run, folder.resolve())
        faults.extend(_cross_faults(run))
    if faults or run is None:
        raise RunError("\n  ".join([f"{name}: {len(faults)} error(s)", *faults]))
    return run


def changed(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Two dumped runs -> a line `key: old -> new` for every key in which they differ."""
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from changed(before, after, f"{prefix}{key}.")
        elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
            numbered = [{str(i): value for i, value in enumerate(values)} for values in (before, after)]
            yield from changed(numbered[0], numbered[1], f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}: {before!r} -> {after!r}"


def extended(base: Description, run: Run) -> Description:
    """The base's description -> that of the finished model. Raises ValueError that lists every fault."""
    table = base.model_dump(exclude_none=True, exclude_defaults=True) | {"format": 1, "name": run.name}
    table["about"] = f"{base.name} with {', '.join(run.trained)} bound by run {run.name!r}"
    pairs = [(pair.anchor, pair.modality) for pair in run.train.pairs]
    table["trained"] = list(dict.fromkeys([*base.trained, *pairs]))
    table["modalities"] = dict(table["modalities"]) | {name: _modality_table(name, run) for name in run.trained}
    return descriptions.parse(table, run.name)


def _modality_table(name: str, run: Run) -> dict[str, Any]:
    spec = modalities.spec(name)
    wanted = run.modalities.get(name, Modality())
    encoder = dict(wanted.encoder) if "module" in wanted.encoder else dict(spec.encoder or {}) | wanted.encoder
    if encoder.get("module") in _TAKE_A_SHAPE and "shape" not in wanted.encoder:
        alone = {name: descriptions.ModalityTable(preprocess=wanted.preprocess)}
        config = Description(format=1, name="", dim=1, license="", modalities=alone).preprocess(name)
        encoder["shape"] = list(spec.shape(config))
    return {"encoder": encoder, "head": wanted.head or dict(spec.head or {}), "preprocess": wanted.preprocess}


def _resolved(run: Run, folder: Path) -> Run:
    def absolute(path: str) -> str:
        return str(folder / path)

    pairs = []
    for pair in run.train.pairs:
        known = modalities.specs().get(pair.modality)
        anchor = pair.anchor or (known.anchor if known else None) or ""
        manifests = tuple(map(absolute, pair.manifests))
        pairs.append(pair.model_copy(update={"anchor": anchor, "manifests": manifests}))
    base = run.base
    if (folder / base.model / TABLE).is_file():
        base = base.model_copy(update={"model": absolute(base.model)})
    return run.model_copy(
        update={
            "out": absolute(run.out),
            "base": base,
            "train": run.train.model_copy(update={"pairs": tuple(pairs)}),
            "cache": run.cache.model_copy(update={"folder": absolute(run.cache.folder)}),
            "evaluate": run.evaluate.model_copy(update={"manifests": tuple(map(absolute, run.evaluate.manifests))}),
        }
    )


def _cross_faults(run: Run) -> Iterator[str]:
    """What only shows when tables are seen together."""
    base: Description | None = None
    try:
        table = Path(run.base.model) / TABLE
        base = descriptions.read(table) if table.is_file() else zoo.describe(run.base.model)
    except ValueError as error:
        yield f"base.model: {error}"
    usable = True
    for number, pair in enumerate(run.train.pairs):
        where = f"train.pairs.{number}"
        for key, value in (("modality", pair.modality), ("anchor", pair.anchor)):
            if value not in modalities.specs():
                usable = False
                yield f"{where}.{key}: no modality {value!r}; known: {', '.join(modalities.specs())}"
        if base and pair.modality in base.modalities:
            usable = False
            yield f"{where}.modality: {base.name} already has {pair.modality}; start from a base without it"
        if base and pair.anchor in modalities.specs() and pair.anchor not in base.modalities:
            yield f"{where}.anchor: {base.name} has no {pair.anchor}; it has {', '.join(base.modalities)}"
        augment = pair.augment
        if augment.views == 1 and (augment.crop < 1 or augment.flip or augment.jitter):
            yield f"{where}.augment: crop, flip and jitter need views > 1: the variants of an item that are encoded"
        for manifest in pair.manifests:
            if not Path(manifest).is_file():
                yield f"{where}.manifests: there is no file {manifest}"
    for manifest in run.evaluate.manifests:
        if not Path(manifest).is_file():
            yield f"evaluate.manifests: there is no file {manifest}"
    for name in sorted(set(run.modalities) - set(run.trained)):
        yield f"modalities.{name}: no pair of this run trains {name}"
    if run.evaluate.patience and not run.evaluate.manifests:
        yield "evaluate.patience: stopping early needs evaluate.manifests"
    if base and usable:
        try:
            described = extended(base, run)
        except (ValueError, TypeError) as error:
            yield str(error)
            return
        for name in run.trained:
            try:
                with torch.device("meta"):
                    encoder = encoders.build(described.modalities[name].encoder or {})
                    heads.build(described.modalities[name].head or {}, int(encoder.width), base.dim)  # type: ignore[arg-type]
            except (ValueError, TypeError) as error:
                yield f"modalities.{name}: {error}"


def _what_is_left(table: Mapping[str, Any], error: ValidationError) -> Run | None:
    """The run without its faulty keys, so that the rest can be checked too; None where they cannot be left out."""
    left = copy.deepcopy(dict(table))
    for fault in error.errors():
        place: Any = left
        *outer, last = fault["loc"] or ("",)
        try:
            for key in outer:
                place = place[key]
            del place[last]
        except (KeyError, IndexError, TypeError):
            place = None
    left.setdefault("name", "unnamed")
    left.setdefault("out", "out")
    try:
        return Run.model_validate(left)
    except ValidationError:
        return None
