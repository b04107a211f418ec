"""Image trunks of timm (any of its backbones): frozen with published weights, or trained on depth, thermal or pictures.

timm (https://github.com/huggingface/pytorch-image-models) publishes for each of its models the size, mean, standard
deviation, interpolation and crop that the weights were trained with; `describe` turns them into a model's `preprocess`.
"""

from __future__ import annotations

import difflib
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bind.encoders import check_options
from preprocess.extras import needs

POOLS = ("avg", "max", "avgmax", "token")
"""What `pool` may be: the poolings of timm after which a vector is as wide as the backbone's features."""

_KEYS = re.compile(r"(?<=^Missing keys \()[^)]*|(?<=^Unexpected keys \()[^)]*")
"""The tensors in what `timm.models.load_pretrained` logs."""
_FEW = 0.1
"""What a file may have beside a model's tensors and its classifier, as a share of the tensors."""


class TimmTrunk(nn.Module):
    """A timm backbone without its classifier: (B, channels, H, W) -> (B, width), pooled and not normalised."""

    def __init__(self, model: nn.Module, channels: int) -> None:
        super().__init__()
        self.trunk = model
        self.channels = channels
        # Some backbones have a layer between the pooling and the classifier, which stays.
        self.width = int(getattr(model, "head_hidden_size", None) or model.num_features)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, width). Raises ValueError for another number of channels."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"encoder: expected (B, {self.channels}, H, W), got {tuple(x.shape)}")
        features: Tensor = self.trunk(x)
        if features.shape != (len(x), self.width):
            raise ValueError(
                f"encoder: expected pooled features ({len(x)}, {self.width}) of the backbone, got "
                f"{tuple(features.shape)}; choose another pool: {', '.join(POOLS)}"
            )
        return features


def build(options: Mapping[str, Any]) -> TimmTrunk:
    """A table of options -> a randomly initialised trunk.

    Args:
        options: `model` is a name of timm, with or without a tag of its weights (`resnet18`, `resnet18.a1_in1k`);
            `shape` is that of a view, (channels, height, width), by default what the model was published for; `pool`
            is one of `POOLS`, by default the model's own.

    Raises:
        ValueError: an unknown model, tag or key, or a pooling or size that the model cannot have.
    """
    return _build(options, None)


def load(options: Mapping[str, Any], file: Path) -> TimmTrunk:
    """The trunk of `options` with the weights of a file of timm: safetensors, or a pickle of tensors only.

    A classifier in the file is left out. Weights for colours are adapted to other numbers of channels as timm does it,
    and position embeddings to the size in `shape`. Raises ValueError for a file that lacks any tensor of the model.
    """
    return _build(options, file)


def find_model(name: str) -> str:
    """A name of timm, with or without a tag -> the same. Raises ValueError with similar names for an unknown one."""
    with needs("clip", "a timm model"):
        import timm

    known, (model, _, tag) = timm.list_models(), name.partition(".")
    if model not in known:
        similar = [
            *timm.list_models(f"{model}*")[:4],
            *difflib.get_close_matches(model, known, 4, 0.6),
            *timm.list_models(f"*{model}*")[:4],
        ]
        hint = f"; similar: {', '.join([*dict.fromkeys(similar)][:6])}" if similar and model else ""
        raise ValueError(f"timm has no model {model!r}{hint}; timm.list_models() lists all")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{model}.*")]
    if tag and tag not in tags:
        published = f"; known: {', '.join(tags)}" if tags else ", as it publishes none"
        raise ValueError(f"timm has no weights {tag!r} of {model}{published}; or pass a file that exists")
    return name


def describe(name: str) -> dict[str, Any]:
    """A name of timm -> its `dim`, and its `preprocess` as constants of an image: `timm.data.resolve_model_data_config`
    in our words.

    Raises ValueError for an unknown name, and for the few models whose pictures are not square or are padded.
    """
    from bind.encoders import shapes_only

    with shapes_only():
        trunk = build({"model": name})
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(trunk.trunk)
    channels, height, width = config["input_size"]
    if (channels, height) != (3, width) or config["crop_mode"] not in ("center", "squash"):
        raise ValueError(
            f"timm's {name} takes {height} x {width} pictures of {channels} channels, crop {config['crop_mode']!r}; "
            "expected square colour pictures that are cropped or squashed"
        )
    picture = {
        "size": height,
        "resize": math.floor(height / config["crop_pct"]),
        "interpolation": config["interpolation"],
        "mean": [float(value) for value in config["mean"]],
        "std": [float(value) for value in config["std"]],
    }
    mode = "squash" if config["crop_mode"] == "squash" else "shortest"
    return {"dim": trunk.width, "preprocess": picture | {"resize_mode": mode}}


def download(name: str) -> Path:
    """A name of timm, with or without a tag -> the file with its weights, from the hub or from the hub's local cache.

    Raises ValueError for an unknown name, a model without published weights, and where the hub cannot be reached.
    """
    find_model(name)
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise ValueError(f"timm publishes no weights of {name}; pass a file with weights=, or 'random'")
    repository, _, revision = config.hf_hub_id.partition("@")
    files = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    for file in files:
        if isinstance(cached := try_to_load_from_cache(repository, file, revision=revision or None), str):
            return Path(cached)
    causes = []
    for file in files:
        try:
            with _logged("huggingface_hub.utils._http"):
                return Path(hf_hub_download(repository, file, revision=revision or None))
        except Exception as error:  # each version of the hub's client has errors of its own
            causes.append(_first_line(error))
            # Of a hub that answers, the model may have the other file.
            if not isinstance(error, EntryNotFoundError) or isinstance(error, LocalEntryNotFoundError):
                break
    raise ValueError(
        f"timm:{name}: its weights could not be downloaded; pass a file with weights=, or 'random' ({causes[-1]})"
    )


def _build(options: Mapping[str, Any], file: Path | None) -> TimmTrunk:
    check_options(options, {"model", "shape", "pool"})
    name = find_model(str(options.get("model", "")))
    import timm
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    published: Sequence[int] = config.input_size if config else (3, 224, 224)
    shape = [int(side) for side in options.get("shape", published)]
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"encoder: expected shape (channels, height, width), got {options['shape']!r}")
    arguments: dict[str, Any] = {"num_classes": 0, "in_chans": shape[0]}
    if config and config.fixed_input_size and list(published[1:]) != shape[1:]:
        arguments["img_size"] = tuple(shape[1:])
    if (pool := options.get("pool")) is not None:
        if pool not in POOLS:
            raise ValueError(f"encoder: pool is {pool!r}, expected one of {', '.join(POOLS)}")
        arguments["global_pool"] = pool
    if file is not None:
        arguments |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file)}}
    with _logged("timm.models._builder") as messages:
        try:
            model = timm.create_model(name, **arguments)
        except NotImplementedError:  # a tensor without numbers, see `bind.encoders.shapes_only`
            raise
        except Exception as error:  # timm's models and the readers of files raise what they like
            what = f"{file} does not hold the weights of timm's {name}" if file else f"timm cannot build {name}"
            raise ValueError(f"{what} for views of {tuple(shape)}: {_first_line(error)}") from error
    if file is not None:
        # Without a classifier timm loads what there is; of the rest it tells only its log.
        _check_keys(messages, len(model.state_dict()), config.classifier if config else "", f"timm's {name}", file)
    return TimmTrunk(model, shape[0])


def _check_keys(
    messages: Sequence[str], tensors: int, classifier: str | Sequence[str] | None, model: str, file: Path
) -> None:
    """Raises ValueError where timm's log says that a file lacks tensors of a model, or has many of another model."""
    keys = {message.partition(" ")[0]: _KEYS.findall(message) for message in messages if _KEYS.search(message)}
    missing = [key for group in keys.get("Missing", []) for key in group.split(", ")]
    if missing:
        raise ValueError(f"{file} does not hold the weights of {model}: it lacks {', '.join(missing[:4])}")
    names = [classifier] if isinstance(classifier, str) else classifier or []
    ends = {name.partition(".")[0] for name in names}
    others = [key for group in keys.get("Unexpected", []) for key in group.split(", ")]
    others = [key for key in others if key.partition(".")[0] not in ends]
    if len(others) > _FEW * tensors:
        raise ValueError(f"{file} does not hold the weights of {model}: it also has {', '.join(others[:4])}")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:300]}"


@contextmanager
def _logged(name: str) -> Iterator[list[str]]:
    """What a logger is told inside, which is not shown."""
    messages: list[str] = []
    logger = logging.getLogger(name)
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
