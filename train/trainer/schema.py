"""The schema of run files: one frozen pydantic class for each table. `train.trainer.run` reads a file into them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Stage = Literal["views", "features", "vectors"]
"""The content of a batch for a modality: prepared views, features of its frozen trunk, or vectors of a frozen tower."""

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Degrees = Annotated[float, Field(ge=0, le=180)]
Count = Annotated[int, Field(ge=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Augment(_Table):
    """How items are varied. `crop`, `flip` and `jitter` act on pictures, in `views` variants of each item.

    A variant is the same for the item and its anchor (aligned crops) and in every epoch, so a frozen anchor is encoded
    `views` times and never again. `crop` is the least share of the picture that a crop keeps. `jitter` changes the
    brightness and contrast of a frozen picture by up to this share.

    The other options vary the trained side in every step. For all modalities: `noise` is Gaussian, in standard
    deviations of the sensor's view; `scale` is the largest relative error of a sensor's reading (disparity, brightness,
    each of an IMU's two sensors). For pictures: `erase` is the probability that a rectangle is blanked. For
    spectrograms: `frequency_mask` and `time_mask` are the largest numbers of rows and columns that are blanked (arXiv
    1904.08779), `gain_db` is the largest change of loudness, and `mix` is the probability that another sound is added,
    0 to 20 dB softer. For IMUs: `turn_deg` about gravity and `tilt_deg` about any axis rotate the sensor, and `shift`
    is the largest share of the window by which it starts later or earlier.
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
    """A teacher: a model of any space, given by the arguments of `bind.load`, whose similarities of items are a target.

    The similarities of the pair's two sides are drawn towards the teacher's: the loss gets `weight` times the
    Kullback-Leibler divergence of their softmax from the teacher's, at its `temperature`. Where the teacher lacks one
    side, it sees that side through the other: for depth and image, CLIP compares the images.
    """

    model: str
    weights: str | None = None
    weight: Positive = 1.0
    temperature: Annotated[float, Field(ge=0.01, le=10)] = 0.07


class Pair(_Table):
    """One modality and the modality it is bound to (default: its SPEC's anchor), which is frozen unless it has a table.

    A batch holds items of one pair; `weight` says how often a pair has its turn, relative to the others. `repeat` is
    how often an epoch sees each item. `temperature` is fixed unless `learn_temperature`.
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
        """The name of the pair, such as `depth-image`."""
        return f"{self.modality}-{self.anchor}"


class Lora(_Table):
    """Low-rank changes of an encoder's layers in place of new weights (LoRA, arXiv 2106.09685), by peft.

    `targets` are layers, by the end of their names (`in_proj`, `fc1`). `alpha / rank` is the factor on a change. The
    finished model has plain weights, to which the changes were added.
    """

    targets: Annotated[tuple[str, ...], Field(min_length=1)]
    rank: Count = 8
    alpha: Positive = 16.0


class Modality(_Table):
    """The parts of a trained modality, as in a checkpoint's `model.toml`.

    A missing part comes from the base, or from the modality's SPEC where the base lacks the modality. An encoder table
    without `module` changes options of that encoder. An encoder or head that is the base's starts from the base's
    weights, an encoder with a `source` from those weights, and any other from random weights. `train` "head" keeps the
    encoder fixed; `lora` changes it a little.
    """

    train: Literal["all", "head"] = "all"
    lora: Lora | None = None
    encoder: dict[str, Any] = {}
    head: dict[str, Any] = {}
    preprocess: dict[str, Any] = {}


class Base(_Table):
    """The base: the model that defines the space, by the arguments of `bind.load`; `modalities` to keep (empty:
    all).
    """

    model: str = "small"
    weights: str | None = None
    modalities: tuple[str, ...] = ()


class Train(_Table):
    """The optimisation: AdamW with a linear warm-up, then a cosine to 0; `epochs`, or `steps` in their place.

    An epoch is one pass over the items of all pairs. `clip_norm` and `ema_decay` are off at 0. `micro_batch` is the
    largest number of items that an encoder sees at once (gradient caching), `chunk` the edge of a block of logits; 0
    takes the default of each. `max_bad_share` is the share of a pair's items that may be missing or unreadable.
    `save_every` and `log_every` are numbers of steps.
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
    """The cache: features and vectors of frozen parts, and prepared views, computed once and stored in `folder`."""

    folder: str = "cache"
    features: bool = True
    views: bool = True


class Evaluate(_Table):
    """Held-out manifests, every how many epochs they are measured, and after how many without a gain training stops (0:
    never).

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
        """The content of a batch for a modality."""
        if modality not in self.trained:
            return "vectors"
        return "features" if self.modalities.get(modality, Modality()).train == "head" else "views"
