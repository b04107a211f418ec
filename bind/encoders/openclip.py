"""Image and text towers of any open_clip model, and how the weights of each want their pictures."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bind.encoders import check_options
from bind.kernels import onednn
from preprocess.extras import needs

CONFIG = "open_clip_config.json"
"""The file that open_clip writes beside a model's weights, with `model_cfg` and `preprocess_cfg`."""
_RESIZE_MODES = ("shortest", "squash")
"""The two of open_clip's three ways to resize that `preprocess.readers.image` has; `longest` pads with a colour."""


@dataclass(frozen=True)
class Settings:
    """The pictures that some weights expect: `size` pixels a side, `mean` and `std` of R, G, B in 0..1.

    `quick_gelu` weights were trained with the activation of OpenAI's CLIP, x * sigmoid(1.702 x).
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    resize_mode: str
    quick_gelu: bool = False

    @property
    def preprocess(self) -> dict[str, Any]:
        """The constants of `preprocess.readers.image.ImageConfig`."""
        values = {key: value for key, value in asdict(self).items() if key != "quick_gelu"}
        return values | {"resize": self.size}


class ClipTower(nn.Module):
    """One tower of a CLIP: (B, 3, H, W) images or (B, L) token ids -> (B, width) in CLIP's own space, not
    normalised.
    """

    def __init__(self, model: nn.Module, tower: str, width: int) -> None:
        super().__init__()
        self.tower = tower
        self.width = width
        # The other tower is dropped, so that one modality costs the memory of one tower.
        for part in ("visual",) if tower == "text" else ("transformer", "token_embedding", "ln_final", "text"):
            if hasattr(model, part):
                delattr(model, part)
        self.clip = model

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) or (B, L) int64 -> (B, width)."""
        features: Tensor = getattr(self.clip, f"encode_{self.tower}")(x)
        return features

    @property
    def places(self) -> Callable[[Tensor], Tensor] | None:
        """(B, 3, S, S) -> (B, width, h, w), the value path of the last block as `PatchEncoder.places` has it.

        None where this is no vision transformer with open_clip's own blocks.
        """
        from open_clip.transformer import VisionTransformer

        visual = getattr(self.clip, "visual", None)
        if self.tower != "image" or not isinstance(visual, VisionTransformer):
            return None
        attention = getattr(visual.transformer.resblocks[-1], "attn", None)
        return partial(_places, visual) if isinstance(attention, nn.MultiheadAttention) else None


def _places(visual: Any, x: Tensor) -> Tensor:
    """A vision transformer of open_clip, (B, 3, S, S) -> (B, width, h, w)."""
    patches = visual.conv1(x)
    grid = patches.shape[2:]
    tokens = patches.flatten(2).transpose(1, 2)
    first = visual.class_embedding.to(tokens.dtype).expand(len(x), 1, -1)
    positions = visual.positional_embedding
    side = math.isqrt(len(positions) - 1)
    square = positions[1:].float().T.unflatten(1, (side, side))[None]
    resized = F.interpolate(square, size=grid, mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    positions = torch.cat([positions[None, :1], resized.to(positions.dtype)], 1)
    tokens = visual.ln_pre(torch.cat([first, tokens], 1) + positions.to(tokens.dtype))
    *blocks, last = visual.transformer.resblocks
    is_batch_first = last.attn.batch_first
    tokens = tokens if is_batch_first else tokens.transpose(0, 1)
    for block in blocks:
        tokens = block(tokens)
    tokens = (tokens if is_batch_first else tokens.transpose(0, 1))[:, 1:]
    width = tokens.shape[2]
    weight, bias = last.attn.in_proj_weight[2 * width :], last.attn.in_proj_bias[2 * width :]
    values = visual.ln_post(last.attn.out_proj(F.linear(last.ln_1(tokens), weight, bias)))
    features: Tensor = values if visual.proj is None else values @ visual.proj
    return features.transpose(1, 2).reshape(len(x), -1, *grid)


def build(options: Mapping[str, Any]) -> nn.Module:
    """`{"model": open_clip name, "tower": "image" | "text", "quick_gelu": bool}` -> a randomly initialised tower.

    `quick_gelu` may be left out where the model's own configuration says what is right.
    """
    return _build(options, None)


def load(options: Mapping[str, Any], file: Path) -> nn.Module:
    """The tower with the weights of an open_clip checkpoint file (safetensors, or a weights-only pickle)."""
    return _build(options, file)


def _build(options: Mapping[str, Any], file: Path | None) -> nn.Module:
    check_options(options, {"model", "tower", "quick_gelu"})
    if options.get("tower") not in ("image", "text"):
        raise ValueError(f"encoder: tower is {options.get('tower')!r}, expected image or text")
    name = str(options["model"])
    config = _config(name)
    import open_clip

    try:
        model = open_clip.create_model(
            name,
            pretrained=str(file) if file else None,
            pretrained_image=False,
            weights_only=True,
            cache_dir=None,
            force_quick_gelu=bool(options.get("quick_gelu", False)),
        )
    except Exception as error:  # of a file: each format has errors of its own
        if file is None:
            raise
        first = " ".join(str(error).split())[:200]
        raise ValueError(f"{file} does not hold the weights of {name}: {type(error).__name__}: {first}") from None
    onednn.adopt(model)
    return ClipTower(model, str(options["tower"]), int(config["embed_dim"]))


def find_model(name: str) -> str | None:
    """The name that open_clip has for a model, whatever its case and punctuation (`vit-b32` -> `ViT-B-32`), or None."""
    with needs("clip", "an open_clip model"):
        import open_clip

    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    return next((known for known in open_clip.list_models() if plain(known) == plain(name)), None)


def describe(model: str) -> dict[str, Any]:
    """The dimension, tokenizer and text context of an open_clip model, as it publishes them."""
    config = _config(model)
    text = config["text_cfg"]
    return {
        "dim": int(config["embed_dim"]),
        "context_length": int(text.get("context_length", 77)),
        "tokenizer": f"open_clip:{model}" if {"hf_tokenizer_name", "tokenizer_kwargs"} & set(text) else "clip",
    }


def settings(model: str, tag: str | None = None, file: Path | None = None) -> Settings:
    """The settings of a model's weights, which a tag or a file names.

    The settings of a file are in the `open_clip_config.json` beside it; otherwise they are those that all published
    weights of the model share. With neither tag nor file they are those of the first published weights. Raises
    ValueError for an unknown tag, for a file whose settings are unknown, and for settings that
    `preprocess.readers.image` does not support.
    """
    with needs("clip", "an open_clip model"):
        from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    tags = list_pretrained_tags_by_model(model)
    if tag is not None:
        if tag not in tags:
            raise ValueError(f"{model} has no weights {tag!r}; known: {', '.join(tags) or 'none'}")
        return _settings(model, get_pretrained_cfg(model, tag))
    if file is not None and (beside := file.parent / CONFIG).is_file():
        try:
            stored = json.loads(beside.read_text(encoding="utf-8"))
            published = stored["preprocess_cfg"] | {"quick_gelu": stored["model_cfg"].get("quick_gelu")}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{beside}: expected model_cfg and preprocess_cfg, as open_clip writes them") from error
        return _settings(model, published)
    found = {_settings(model, get_pretrained_cfg(model, one)): one for one in reversed(tags)}
    if file is not None and len(found) > 1:
        raise ValueError(
            f"{file}: published weights of {model} want their pictures in {len(found)} different ways, and nothing "
            f"says which these are; put their {CONFIG} beside the file, or name weights that are like them: "
            + " or ".join(f"clip-{model}:{one}" for one in reversed(found.values()))
        )
    return list(found)[-1] if found else _settings(model, {})


def _settings(model: str, published: Mapping[str, Any]) -> Settings:
    """A table with some keys of open_clip's PreprocessCfg and `quick_gelu` -> settings; other keys are CLIP's."""
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    config = _config(model)
    # The picture's size is the model's own, whatever is published: open_clip takes it from the encoder too.
    size = config["vision_cfg"].get("image_size", published.get("size") or 224)
    merged = PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), dict(published)))
    width, height = (size, size) if isinstance(size, int) else size
    if (
        width != height
        or merged.resize_mode not in _RESIZE_MODES
        or merged.interpolation not in ("bicubic", "bilinear")
    ):
        raise ValueError(
            f"{model}: pictures of {width} x {height}, resized by {merged.resize_mode!r} and {merged.interpolation!r}, "
            "are not supported; expected square ones, shortest or squash, bicubic or bilinear"
        )
    quick = bool(published.get("quick_gelu")) and not config.get("quick_gelu", False)
    return Settings(int(width), tuple(merged.mean), tuple(merged.std), merged.interpolation, merged.resize_mode, quick)


def _config(model: str) -> dict[str, Any]:
    with needs("clip", "an open_clip model"):
        import open_clip

    config: dict[str, Any] | None = open_clip.get_model_config(model)
    if config is None:
        raise ValueError(f"open_clip has no model {model!r}; open_clip.list_models() lists them")
    return config


def download(model: str, tag: str) -> Path:
    """The weights file of a model and tag, downloaded from open_clip's hub where it is not in its cache.

    Raises ValueError for an unknown tag and where the hub cannot be reached.
    """
    with needs("clip", "an open_clip model"):
        from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model

    config = get_pretrained_cfg(model, tag)
    if not config:
        raise ValueError(f"{model} has no weights {tag!r}; known: {list_pretrained_tags_by_model(model)}")
    try:
        return Path(download_pretrained(config))
    except OSError as error:
        raise ValueError(
            f"{model}: its weights {tag!r} could not be downloaded; pass a file with weights=, or 'random' ({error})"
        ) from None
