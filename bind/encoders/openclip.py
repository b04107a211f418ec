"""Image and text towers of any open_clip model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bind.encoders import check_options
from bind.kernels import onednn
from preprocess.extras import needs


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


def build(options: Mapping[str, Any]) -> nn.Module:
    """`{"model": open_clip name, "tower": "image" | "text"}` -> a randomly initialised tower."""
    return _build(options, None)


def load(options: Mapping[str, Any], file: Path) -> nn.Module:
    """The tower with the weights of an open_clip checkpoint file (safetensors, or a weights-only pickle)."""
    return _build(options, file)


def _build(options: Mapping[str, Any], file: Path | None) -> nn.Module:
    check_options(options, {"model", "tower"})
    if options.get("tower") not in ("image", "text"):
        raise ValueError(f"encoder: tower is {options.get('tower')!r}, expected image or text")
    with needs("clip", "an open_clip model"):
        import open_clip

    name = str(options["model"])
    config = open_clip.get_model_config(name)
    if config is None:
        raise ValueError(f"open_clip has no model {name!r}; open_clip.list_models() lists them")
    model = open_clip.create_model(
        name, pretrained=str(file) if file else None, pretrained_image=False, weights_only=True, cache_dir=None
    )
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
    """The dimension, picture size, mean, std, tokenizer and text context of an open_clip model, as it publishes
    them.
    """
    with needs("clip", "an open_clip model"):
        import open_clip

    config = open_clip.get_model_config(model)
    text = config["text_cfg"]
    image = open_clip.transform.PreprocessCfg(size=config["vision_cfg"].get("image_size", 224))
    return {
        "dim": int(config["embed_dim"]),
        "size": image.size if isinstance(image.size, int) else int(image.size[0]),
        "mean": tuple(image.mean),
        "std": tuple(image.std),
        "context_length": int(text.get("context_length", 77)),
        "tokenizer": f"open_clip:{model}" if {"hf_tokenizer_name", "tokenizer_kwargs"} & set(text) else "clip",
    }


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
