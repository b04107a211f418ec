"""What a run file may say: one frozen pydantic class a table. `train.trainer.run` reads a file into them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Stage = Literal["views", "features", "vectors"]
"""What a batch holds of a modality: prepared views, features of its frozen trunk, or vectors of a frozen tower."""

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Degrees = Annotated[float, Field(ge=0, le=180)]
Count = Annotated[int, Field(ge=1)]


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
