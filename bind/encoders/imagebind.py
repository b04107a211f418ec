"""ImageBind's six towers (arXiv 2305.05665, table 9 and appendix), and a reader of its official checkpoint."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bind.encoders import check_options
from bind.encoders.transformer import NORM_EPSILON, PatchEncoder, Patches, Transformer

CONTEXT = 77
"""The tokens of one text, with start, end and padding (as in CLIP)."""
VOCABULARY = 49408
"""The size of CLIP's byte pair encoding."""

HUGE: dict[str, dict[str, Any]] = {
    "vision": {"modality": "vision", "width": 1280, "depth": 32, "heads": 16},
    "text": {"modality": "text", "width": 1024, "depth": 24, "heads": 16},
    "audio": {"modality": "audio", "width": 768, "depth": 12, "heads": 12, "drop_path": 0.1},
    "depth": {"modality": "depth", "width": 384, "depth": 12, "heads": 8},
    "thermal": {"modality": "thermal", "width": 768, "depth": 12, "heads": 12},
    "imu": {"modality": "imu", "width": 512, "depth": 6, "heads": 8, "drop_path": 0.7, "dropout": 0.5},
}
"""The options of the official towers (`imagebind_huge`), whose heads map to 1,024 dimensions."""

# Modality -> shape (channels first), kernel and stride of its patches, which do not depend on the tower's size.
_PATCHES: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "vision": ((3, 2, 224, 224), (2, 14, 14), (2, 14, 14)),
    "audio": ((1, 128, 204), (16, 16), (10, 10)),
    "depth": ((1, 224, 224), (16, 16), (16, 16)),
    "thermal": ((1, 224, 224), (16, 16), (16, 16)),
    "imu": ((6, 2000), (8,), (8,)),
}


def build(options: Mapping[str, Any]) -> PatchEncoder | TextEncoder:
    """A table like those of `HUGE` -> a randomly initialised tower without its head.

    `modality`, `width`, `depth` and `heads` are needed; `drop_path` and `dropout` (before the head) act in training.
    The tower maps a batch to (B, width). The batch is, for vision, (B, 3, 2, 224, 224) clips of two frames or (B, 3,
    224, 224) pictures; for text (B, 77) int64 tokens; for audio (B, 1, 128, 204) log-mel; for depth and thermal (B, 1,
    224, 224); for imu (B, 6, 2000). Vision, depth and thermal take other square sizes too. Raises ValueError that lists
    unknown or missing keys.
    """
    needed = {"modality", "width", "depth", "heads"}
    check_options(options, needed | {"drop_path", "dropout"})
    if missing := sorted(needed - options.keys()):
        raise ValueError(f"encoder: missing keys {missing}")
    modality, width = options["modality"], options["width"]
    if modality not in HUGE:
        raise ValueError(f"encoder: modality is {modality!r}, expected one of {', '.join(HUGE)}")
    trunk = Transformer(
        width,
        options["depth"],
        options["heads"],
        bias_kv=modality not in ("vision", "text"),
        causal=modality == "text",
        drop_path=options.get("drop_path", 0.0),
    )
    dropout = options.get("dropout", 0.0)
    if modality == "text":
        return TextEncoder(trunk, dropout=dropout)
    if modality == "vision":
        return PatchEncoder(FramePatches(*_PATCHES["vision"], width, norm=False), trunk, pre_norm=True, dropout=dropout)
    encoder = PatchEncoder(Patches(*_PATCHES[modality], width), trunk, dropout=dropout)
    if modality == "imu":
        nn.init.normal_(encoder.positions, std=0.01)  # as the reference does; the other towers use width**-0.5
    return encoder


class FramePatches(Patches):
    """(B, 3, 2, H, W) clips of two frames -> (B, N, width); (B, 3, H, W) pictures count as clips of two equal
    frames.
    """

    def project(self, x: Tensor) -> Tensor:
        """(B, 3, 2, H, W) or (B, 3, H, W) -> (B, N, width)."""
        if x.ndim != 4:
            return super().project(x)
        self.check(x, (self.shape[0], *self.shape[2:]))
        # For equal frames, the sum of the kernel over time gives the same result in one product.
        return self._convolve(x, self.projection.weight.sum(2))


class TextEncoder(nn.Module):
    """(B, 77) int64 CLIP tokens -> (B, width): the state at the end-of-text token, which has the highest number."""

    def __init__(self, trunk: Transformer, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.width = trunk.width
        self.tokens = nn.Embedding(VOCABULARY, self.width)
        self.positions = nn.Parameter(torch.empty(1, CONTEXT, self.width))
        self.trunk = trunk
        self.norm = nn.LayerNorm(self.width, eps=NORM_EPSILON)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 77) -> (B, width)."""
        if x.shape[1:] != (CONTEXT,) or x.dtype != torch.int64:
            raise ValueError(f"encoder: expected (B, {CONTEXT}) int64 tokens, got {tuple(x.shape)} {x.dtype}")
        ends = x.argmax(dim=1)
        if not torch.compiler.is_compiling():  # a compiler would need the length in advance
            # No token sees those after it, so tokens behind the last end token change nothing.
            x = x[:, : int(ends.max()) + 1]
        states = self.tokens(x) + self.positions[:, : x.shape[1]]
        pooled: Tensor = self.dropout(self.norm(self.trunk(states, ends)))
        return pooled

    def set_checkpointing(self, on: bool) -> None:
        """Whether training recomputes activations block by block: less memory for about a third more time."""
        self.trunk.checkpointing = on


_BLOCK = {
    "norm_1.weight": "norm_1.weight",
    "norm_1.bias": "norm_1.bias",
    "attn.in_proj_weight": "attention.in_proj.weight",
    "attn.in_proj_bias": "attention.in_proj.bias",
    "attn.out_proj.weight": "attention.out_proj.weight",
    "attn.out_proj.bias": "attention.out_proj.bias",
    "norm_2.weight": "norm_2.weight",
    "norm_2.bias": "norm_2.bias",
    "mlp.fc1.weight": "fc1.weight",
    "mlp.fc1.bias": "fc1.bias",
    "mlp.fc2.weight": "fc2.weight",
    "mlp.fc2.bias": "fc2.bias",
}
"""Our name of a block's parameter -> its name in ImageBind's state dict."""
# Modality -> the official names of its stem's projection, its stem's norm (without LayerNorm's suffixes), its positions
# and its head.
_STEM = {
    "vision": ("rgbt_stem.proj.1.weight", "", "pos_embedding_helper.pos_embed", "2.weight"),
    "audio": ("rgbt_stem.proj.weight", "rgbt_stem.norm_layer", "pos_embedding_helper.pos_embed", "2.weight"),
    "depth": ("depth_stem.proj.weight", "depth_stem.norm_layer", "pos_embedding_helper.pos_embed", "2.weight"),
    "thermal": ("rgbt_stem.proj.weight", "rgbt_stem.norm_layer", "pos_embedding_helper.pos_embed", "2.weight"),
    "imu": ("imu_stem.proj.weight", "imu_stem.norm_layer", "pos_embed", "3.weight"),
}


def _names(modality: str, depth: int) -> dict[str, str]:
    """The official name -> our name, for every weight of one tower of `depth` blocks and its head."""
    stem, trunk, head = (f"modality_{part}.{modality}." for part in ("preprocessors", "trunks", "heads"))
    block = dict(_BLOCK)
    if modality == "text":
        names = {
            f"{stem}token_embedding.weight": "encoder.tokens.weight",
            f"{stem}pos_embed": "encoder.positions",
            f"{head}proj.1.weight": "head.weight",
        }
        norms = {f"{head}proj.0": "encoder.norm"}
    else:
        projection, stem_norm, positions, head_weight = _STEM[modality]
        names = {
            f"{stem}cls_token": "encoder.cls",
            f"{stem}{projection}": "encoder.stem.projection.weight",
            f"{stem}{positions}": "encoder.positions",
            f"{head}{head_weight}": "head.weight",
        }
        norms = {f"{head}0": "encoder.norm"}
        if modality == "vision":
            norms[f"{trunk}pre_transformer_layer.0"] = "encoder.pre_norm"
        else:
            norms[f"{stem}{stem_norm}"] = "encoder.stem.norm"
            block |= {f"attn.bias_{part}": f"attention.bias_{part}" for part in "kv"}
    for official, ours in norms.items():
        names |= {f"{official}.{part}": f"{ours}.{part}" for part in ("weight", "bias")}
    for index in range(depth):
        names |= {
            f"{trunk}blocks.{index}.{official}": f"encoder.trunk.blocks.{index}.{ours}"
            for official, ours in block.items()
        }
    return names


def from_official(modality: str, state: Mapping[str, Tensor], depth: int | None = None) -> dict[str, Tensor]:
    """The official state dict -> `encoder.*` and `head.weight` of one tower; other towers' tensors are not read.

    `depth` is the expected number of blocks; the default is that of the official tower. The causal mask is left out,
    and so is the logit scale, which is a training temperature and no part of a vector. Raises ValueError that lists
    missing and unexpected names.
    """
    names = _names(modality, depth or HUGE[modality]["depth"])
    parts = ("preprocessors", "trunks", "heads", "postprocessors")
    own = {name for name in state if name.startswith(tuple(f"modality_{part}.{modality}." for part in parts))}
    own -= {f"modality_preprocessors.{modality}.mask", f"modality_postprocessors.{modality}.1.log_logit_scale"}
    missing, unexpected = sorted(names.keys() - own), sorted(own - names.keys())
    if missing or unexpected:
        raise ValueError(
            f"imagebind {modality}: not the official state dict; {len(missing)} names are missing: {_listed(missing)}; "
            f"{len(unexpected)} are unexpected: {_listed(unexpected)}"
        )
    tower = {ours: state[official] for official, ours in names.items()}
    if modality == "imu":
        # The reference multiplies windows by a matrix (width, 6 * 8), which is the flattened kernel of a convolution.
        channels, kernel = _PATCHES["imu"][0][0], _PATCHES["imu"][1][0]
        tower["encoder.stem.projection.weight"] = tower["encoder.stem.projection.weight"].view(-1, channels, kernel)
    return tower


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:20]) or "none"
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"


def open_official(pth: Path) -> dict[str, Tensor]:
    """The official `.pth` -> its state dict, memory-mapped, so that a tensor costs memory only when it is used.

    Raises OSError where the file cannot be opened. Raises ValueError for a file that is truncated, no checkpoint, in
    torch's format before 1.6, or that holds anything but tensors (nothing else is ever unpickled).
    """
    expected = f"{pth}: expected the official ImageBind checkpoint, a dict of tensors in torch's zip format"
    with pth.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{expected}, got another or a cut off file; download it again")
    try:
        state = torch.load(pth, map_location="cpu", mmap=True, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise ValueError(f"{expected}; torch says: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{expected}, got other content")
    return state


def convert(pth: Path, files: Mapping[str, Path], options: Mapping[str, Mapping[str, Any]] = HUGE) -> None:
    """Writes towers of the official `.pth` as safetensors files; `files` maps modalities to paths; see `from_official`.

    Tensors are copied from the mapped file to the new one, so that little memory is needed. Each file is written under
    a temporary name and then renamed. Raises what `open_official` and `from_official` raise, before the file in
    question appears.
    """
    state = open_official(pth)
    for modality, path in files.items():
        tower = from_official(modality, state, options[modality]["depth"])
        aside = path.with_name(path.name + ".part")
        try:
            save_file({name: tensor.contiguous() for name, tensor in tower.items()}, aside)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
