"""Run files: one TOML a training run, typed; every fault is reported at once, before a weight or a picture is read.

name = "depth"
out = "out/depth"                 # state, log and finished model; relative to the run file, as all its paths are

[base]
model = "small"                   # a name of the zoo, or a checkpoint folder

[modalities.depth]                # what is trained; a modality of a pair needs no table, its anchor is frozen without
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
import importlib.util
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from bind import description as descriptions
from bind import encoders, heads, modalities, zoo
from bind.checkpoint import TABLE
from bind.description import Description, ModalityTable
from bind.files import SUMS, sha256

Stage = Literal["views", "features", "vectors"]
"""What a batch holds of a modality: prepared views, features of its frozen trunk, or vectors of a frozen tower."""

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Degrees = Annotated[float, Field(ge=0, le=180)]
Count = Annotated[int, Field(ge=1)]

# Their `shape` is that of the prepared views, so a run file that changes the preprocessing need not repeat it.
_TAKE_A_SHAPE = ("convnet", "sound", "transformer")


_ONLY_FOR = {"audio": ("gain_db", "mix"), "imu": ("turn_deg", "tilt_deg", "shift")}
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding)
"""What LoRA can change."""


class RunError(ValueError):
    """A run that cannot start: the message lists every fault."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Augment(_Table):
    """How items are varied. `crop`, `flip` and `jitter` act on pictures, in `views` variants of each item.

    A variant is the same for the item and its anchor (aligned crops) and in every epoch, so that a frozen anchor is
    encoded `views` times and never again. `crop` is the least share of the picture that a crop keeps. `jitter` varies
    brightness and contrast of a frozen picture by up to this share.

    The others vary the trained side in every step. Any: `noise`, Gaussian, in standard deviations of the sensor's view;
    `scale`, by what share a sensor's reading may be too large or small (disparity, brightness, each of an IMU's two).
    Pictures: `erase` is the chance that a rectangle is blanked. Spectrograms: `frequency_mask` and `time_mask` are the
    most rows and columns blanked (arXiv 1904.08779), `gain_db` makes louder or softer, `mix` is the chance that another
    of the sounds is heard behind, 0 to 20 dB softer. IMU: `turn_deg` about gravity and `tilt_deg` about any axis rotate
    how the sensor is worn, `shift` is the most of the window by which it starts later or earlier.
    """

    views: Count = 1
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    flip: bool = False
    jitter: Share = 0.0
    erase: Share = 0.0
    frequency_mask: Annotated[int, Field(ge=0)] = 0
    time_mask: Annotated[int, Field(ge=0)] = 0
    noise: Annotated[float, Field(ge=0, le=10)] = 0.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    gain_db: Annotated[float, Field(ge=0, le=60)] = 0.0
    mix: Share = 0.0
    turn_deg: Degrees = 0.0
    tilt_deg: Degrees = 0.0
    shift: Share = 0.0


class Teacher(_Table):
    """A model of any space, the arguments of `bind.load`, that says how similar the items of a batch are.

    The similarities of the pair's two sides are drawn towards the teacher's: to the loss comes `weight` times the
    Kullback-Leibler divergence of their softmax from that of the teacher's, at its `temperature`. A side that the
    teacher lacks is seen through the other: of depth and image, CLIP compares the images.
    """

    model: str
    weights: str | None = None
    weight: Positive = 1.0
    temperature: Annotated[float, Field(ge=0.01, le=10)] = 0.07


class Pair(_Table):
    """One modality and the one it is bound to (default: its SPEC's anchor), which is frozen unless it has a table.

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
    teacher: Teacher | None = None

    @property
    def name(self) -> str:
        """`depth-image`."""
        return f"{self.modality}-{self.anchor}"


class Lora(_Table):
    """Low-rank changes of an encoder's layers in place of new weights (arXiv 2106.09685), by peft.

    `targets` are layers, by the end of their names (`in_proj`, `fc1`). `alpha / rank` is the factor on a change. The
    finished model has plain weights, the changes added.
    """

    targets: Annotated[tuple[str, ...], Field(min_length=1)]
    rank: Count = 8
    alpha: Positive = 16.0


class Modality(_Table):
    """What a trained modality consists of, as in a checkpoint's `model.toml`.

    What is left out comes from the base, or from the modality's SPEC where the base lacks it; an encoder table without
    `module` changes options of that encoder. An encoder or head that is the base's starts from the base's weights, an
    encoder with a `source` from those, any other anew. `train` "head" leaves the encoder as it is; `lora` changes it a
    little.
    """

    train: Literal["all", "head"] = "all"
    lora: Lora | None = None
    encoder: dict[str, Any] = {}
    head: dict[str, Any] = {}
    preprocess: dict[str, Any] = {}


class Base(_Table):
    """The model that holds the space: the arguments of `bind.load`. `modalities` are those to keep (empty: all)."""

    model: str = "small"
    weights: str | None = None
    modalities: tuple[str, ...] = ()


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
    """What is computed once and kept in `folder`: features and vectors of what is frozen, and prepared views."""

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
        """The modalities that this run changes: the first of each pair, and all that have a table."""
        return tuple(sorted({pair.modality for pair in self.train.pairs} | set(self.modalities)))

    def stage(self, modality: str) -> Stage:
        """What a batch holds of a modality."""
        if modality not in self.trained:
            return "vectors"
        return "features" if self.modalities.get(modality, Modality()).train == "head" else "views"


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


def identity(dumped: Mapping[str, Any], contents: Mapping[str, str]) -> dict[str, Any]:
    """A dumped run and the SHA-256 of each of its manifests by path -> what its course depends on.

    That is neither where its files lie nor what it logs: a run goes on in another folder, and with another `log_every`.
    """
    found = copy.deepcopy({key: value for key, value in dumped.items() if key not in ("out", "cache")})
    for key in ("log_every", "save_every"):
        found["train"].pop(key, None)
    for table in (*found["train"]["pairs"], found["evaluate"]):
        table["manifests"] = [Path(manifest).name for manifest in table["manifests"]]
    for model in (found["base"], *filter(None, (pair.get("teacher") for pair in found["train"]["pairs"]))):
        folder = Path(model["model"])
        if (folder / TABLE).is_file():
            listing = folder / SUMS
            model["model"] = f"SHA-256 {sha256(listing if listing.is_file() else folder / TABLE)}"
        if model["weights"] and Path(model["weights"]).exists():
            model["weights"] = Path(model["weights"]).name
    numbered = {f"{number} {Path(path).name}": digest for number, (path, digest) in enumerate(contents.items())}
    return found | {"content of manifests": numbered}


def kept(base: Description, run: Run) -> Description:
    """The base's description -> the same with the modalities that the run keeps. Raises ValueError for unknown ones."""
    names = run.base.modalities or tuple(base.modalities)
    if unknown := sorted(set(names) - set(base.modalities)):
        raise ValueError(f"{base.name} has no {', '.join(unknown)}; it has {', '.join(base.modalities)}")
    tables = {name: table for name, table in base.modalities.items() if name in names}
    trained = tuple(pair for pair in base.trained if set(pair) <= set(names))
    return base.model_copy(update={"modalities": tables, "trained": trained})


def starting(base: Description, run: Run, name: str) -> ModalityTable:
    """The table of a trained modality as training begins; with its encoder's `source`, where its weights lie."""
    wanted = run.modalities.get(name, Modality())
    old, spec = base.modalities.get(name), modalities.spec(name)
    preprocess = (old.preprocess if old else {}) | wanted.preprocess
    if old and old.shares and not wanted.encoder:
        return ModalityTable(shares=old.shares, head=wanted.head or head_of(base, name), preprocess=preprocess)
    encoder = dict(wanted.encoder)
    if "module" not in encoder:
        encoder = dict((old and old.encoder) or spec.encoder or {}) | encoder
    if encoder.get("module") in _TAKE_A_SHAPE and "shape" not in wanted.encoder:
        alone = {name: ModalityTable(preprocess=preprocess)}
        config = Description(format=1, name="", dim=1, license="", modalities=alone).preprocess(name)
        encoder["shape"] = list(spec.shape(config))
    head = wanted.head or (head_of(base, name) if old else dict(spec.head or {}))
    return ModalityTable(encoder=encoder, head=head, preprocess=preprocess)


def extended(base: Description, run: Run) -> Description:
    """The base's description -> that of the finished model. Raises ValueError that lists every fault.

    Its record of trained pairs only grows, whatever moved since: weights that saw a pair have seen it. Only an encoder
    that starts anew forgets.
    """
    base = kept(base, run)
    tables = {name: starting(base, run, name) for name in run.trained}
    anew = {name for name, table in tables.items() if not continues(base, name, table)}
    before = [pair for pair in base.trained if not anew & set(pair)]
    for name, table in tables.items():
        if run.stage(name) == "views" and table.encoder:
            own = {key: value for key, value in table.encoder.items() if key not in ("source", "sha256")}
            tables[name] = table.model_copy(update={"encoder": own})
    pairs = dict.fromkeys((pair.anchor, pair.modality) for pair in run.train.pairs)
    new = [pair for pair in pairs if not {pair, pair[::-1]} & set(before)]
    whole = base.model_copy(
        update={
            "name": run.name,
            "about": f"{base.name} with {', '.join(run.trained)} bound by run {run.name!r}",
            "trained": (*before, *new),
            "modalities": base.modalities | tables,
        }
    )
    return descriptions.parse(whole.model_dump(exclude_none=True, exclude_defaults=True) | {"format": 1}, run.name)


def continues(base: Description, name: str, table: ModalityTable) -> bool:
    """Whether a modality's encoder, as `starting` says it, is the base's."""
    old = base.modalities.get(name)
    return old is not None and (old.encoder, old.shares) == (table.encoder, table.shares)


def head_of(base: Description, name: str) -> dict[str, Any]:
    """The table of a modality's head, which may be that of the modality whose encoder it shares."""
    table = base.modalities[name]
    return dict(table.head or (head_of(base, table.shares) if table.shares else {}))


_Model = TypeVar("_Model", Base, Teacher)


def _resolved(run: Run, folder: Path) -> Run:
    def absolute(path: str) -> str:
        return str(folder / path)

    def located(model: _Model) -> _Model:
        found = (folder / model.model / TABLE).is_file()
        return model.model_copy(update={"model": absolute(model.model)}) if found else model

    pairs = []
    for pair in run.train.pairs:
        known = modalities.specs().get(pair.modality)
        anchor = pair.anchor or (known.anchor if known else None) or ""
        manifests = tuple(map(absolute, pair.manifests))
        teacher = pair.teacher and located(pair.teacher)
        pairs.append(pair.model_copy(update={"anchor": anchor, "manifests": manifests, "teacher": teacher}))
    return run.model_copy(
        update={
            "out": absolute(run.out),
            "base": located(run.base),
            "train": run.train.model_copy(update={"pairs": tuple(pairs)}),
            "cache": run.cache.model_copy(update={"folder": absolute(run.cache.folder)}),
            "evaluate": run.evaluate.model_copy(update={"manifests": tuple(map(absolute, run.evaluate.manifests))}),
        }
    )


def describe(model: str) -> Description:
    """A name of the zoo or a checkpoint folder -> its description. Raises ValueError."""
    table = Path(model) / TABLE
    return descriptions.read(table) if table.is_file() else zoo.describe(model)


def _cross_faults(run: Run) -> Iterator[str]:
    """What only shows when tables are seen together."""
    base: Description | None = None
    try:
        base = describe(run.base.model)
    except ValueError as error:
        yield f"base.model: {error}"
    have: Collection[str] = base.modalities if base else ()
    if base:
        try:
            base = kept(base, run)
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
    """What is wrong with the modalities that are trained, on a base that has the others."""
    try:
        described = extended(base, run)
    except (ValueError, TypeError) as error:
        yield str(error)
        return
    owners = described.towers()
    for name in run.trained:
        where, table = f"modalities.{name}", starting(base, run, name)
        wanted = run.modalities.get(name, Modality())
        if table.shares and run.stage(name) == "views":
            yield f'{where}: shares the encoder of {table.shares}; train that, or a head of its own: train = "head"'
        if wanted.lora and wanted.train == "head":
            yield f'{where}: lora changes the encoder, train = "head" leaves it as it is; leave out one of them'
        if (wanted.lora or wanted.train == "head") and not (
            continues(base, name, table) or encoders.is_published(table.encoder or {})
        ):
            yield f"{where}.encoder: what is only headed or adapted needs weights: the base's encoder, or a `source`"
        try:
            with torch.device("meta"):
                encoder = encoders.build(described.modalities[owners[name]].encoder or {})
                heads.build(described.modalities[name].head or {}, int(encoder.width), base.dim)  # type: ignore[arg-type]
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
    for name in base.modalities:  # with the encoder that they share, or with its head too
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
    # Not dropped without being asked: the finished model would lack what its base had.
    rest = [other for other in base.modalities if other != name]
    return f"add a pair of the two, or leave {name} out: base.modalities = {rest}".replace("'", '"')


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
