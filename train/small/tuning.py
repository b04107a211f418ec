"""Tuning of the image trunk of `small` to pictures and their captions, before the space is fixed.

Trunk and learned map are trained together, with the losses of the heads (`train.small.heads`), on views of the pictures
themselves. The trunk must keep naming ImageNet's classes: a loss draws its class probabilities to those that the frozen
trunk gives the picture. The result is a running mean of the weights, averaged with the frozen trunk.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from train.small.heads import CLASSES, POOLED, Learned, Losses, Material

if TYPE_CHECKING:
    from train.small.pictures import Item

STEPS, BATCH = 500, 640
"""Steps of the tuning and pictures of a step."""
_FROZEN_BLOCKS = 5
"""The first three stages are not trained: they take most of the time and hold few of the weights."""
_RATE, _HEAD_RATE = 1.5e-3, 3e-4
"""The learning rates of the trunk, relative to the size of each tensor (sizes differ, as norms are folded in), and of
the map.
"""
_WARM, _DECAY = 0.1, 0.98
"""The share of the steps in which the rate grows, and the decay of the exponential average of weights."""
_KEEPING = 1.0
"""The weight of the loss that names classes as the frozen trunk does."""
SHARE = 1.0
"""The share of the tuned weights in the result; the rest is the frozen trunk."""


def varied(x: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, S, S), values -1 to 1 -> the same, rotated, zoomed, shifted, mirrored and recoloured, on white."""
    count = len(x)

    def between(low: float, high: float) -> Tensor:
        return (torch.rand(count, generator=generator) * (high - low) + low).to(x.device)

    angle = between(-0.3, 0.3) * (between(0, 1) < 0.6)
    zoom, aspect = between(-0.35, 0.35).exp(), between(-0.15, 0.15).exp()
    mirror = torch.where(between(0, 1) < 0.5, -1.0, 1.0)
    cosine, sine = angle.cos() * zoom, angle.sin() * zoom
    across = torch.stack([cosine * aspect * mirror, -sine, between(-0.15, 0.15)], 1)
    down = torch.stack([sine * mirror, cosine / aspect, between(-0.15, 0.15)], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), list(x.shape), align_corners=False)
    x = 1 - F.grid_sample((1 - x) / 2, grid, align_corners=False)  # the padding is 0 there, which is white
    bright, contrast, colour = (between(-0.25, 0.25).exp()[:, None, None, None] for _ in range(3))
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * colour * (between(0, 1) > 0.1)[:, None, None, None]
    x = ((x - 0.5) * contrast + 0.5) * bright.clamp(max=1.15)
    mixing = (torch.eye(3) + 0.08 * torch.randn(count, 3, 3, generator=generator)).to(x.device)
    mixed = torch.einsum("bij,bjhw->bihw", mixing / mixing.sum(2, keepdim=True), x)
    return mixed.clamp(0, 1) * 2 - 1


def cropped(x: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, S, S), values -1 to 1 -> crops of at least two fifths of the area, mirrored at random, with another
    exposure.
    """
    count = len(x)

    def between(low: float, high: float) -> Tensor:
        return (torch.rand(count, generator=generator) * (high - low) + low).to(x.device)

    side, aspect = between(0.4, 1.0).sqrt(), between(-0.15, 0.15).exp()
    wide, high = (side * aspect).clamp(max=1), (side / aspect).clamp(max=1)
    mirror = torch.where(between(0, 1) < 0.5, -1.0, 1.0)
    none = torch.zeros_like(side)
    across = torch.stack([wide * mirror, none, between(-1, 1) * (1 - wide)], 1)
    down = torch.stack([none, high, between(-1, 1) * (1 - high)], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), list(x.shape), align_corners=False)
    x = (F.grid_sample(x, grid, padding_mode="reflection", align_corners=False) + 1) / 2
    bright, contrast, colour = (between(-0.25, 0.25).exp()[:, None, None, None] for _ in range(3))
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * colour
    x = ((x - 0.5) * contrast + 0.5) * bright
    return x.clamp(0, 1) * 2 - 1


def view(x: Tensor, photographs: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, S, S), and which (B,) are photographs -> a view of each: a crop of a photograph, or a varied drawing."""
    shown = torch.empty_like(x)
    for which, change in ((photographs, cropped), (~photographs, varied)):
        if which.any():
            shown[which] = change(x[which], generator)
    return shown


def prepared(pixels: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) float32, values -1 to 1."""
    return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def tune(
    trunk: nn.Module,
    items: Sequence[Item],
    pixels: Tensor,
    material: Material,
    start: Learned,
    own: Tensor,
    seed: int = 0,
    steps: int = STEPS,
) -> tuple[dict[str, Tensor], Learned]:
    """Tunes a frozen trunk -> its tuned weights, and the learned map.

    `pixels` (N, S, S, 3) uint8 are those of the pictures; `own` (N, W) are their features without certainties.
    Everything runs on the device of the trunk.
    """
    device = next(trunk.parameters()).device
    torch.manual_seed(seed)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    photographs = torch.tensor([item.is_photograph for item in items], device=device)
    tuned = copy.deepcopy(trunk).train()
    trained = [part for name, part in tuned.named_parameters() if part.requires_grad_(not _stays(name)).requires_grad]
    losses = Losses(material, start)
    groups = losses.groups(_HEAD_RATE)
    groups += [{"params": [part], "lr": _RATE * float(part.detach().square().mean().sqrt())} for part in trained]
    rates = [float(group["lr"]) for group in groups]  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(groups, weight_decay=0, betas=(0.9, 0.98), fused=device.type == "cuda")
    mean = {name: part.detach().clone() for name, part in tuned.state_dict().items()}
    average = [part.detach().clone() for part in vars(losses.learned()).values()]

    def look(rows: np.ndarray) -> Tensor:
        taken = torch.from_numpy(rows).to(pixels.device)
        picked = pixels[taken].to(device, non_blocking=True)
        shown = view(prepared(picked), photographs[taken.to(device)], generator)
        return shown.contiguous(memory_format=torch.channels_last)

    for step in tqdm(range(steps), unit="step", disable=None):
        done = step / steps
        factor = min(1, (done + 1 / steps) / _WARM) * (1 + math.cos(math.pi * done)) / 2
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        rows, others, captions, keys = material.drawn.batch(rng, BATCH)
        both = np.concatenate([rows, others])
        x = look(both)
        with torch.autocast(device.type, torch.bfloat16):
            features = tuned(x)[:, CLASSES:].float()
        wanted = own[torch.from_numpy(both).to(device), POOLED : POOLED + CLASSES].float()
        seen = material.coordinates(features)
        described = np.concatenate([captions, material.drawn.sample_captions(others, rng)])
        again = torch.ones(len(both), dtype=torch.bool, device=device)
        halves = seen.split(len(rows))
        loss = losses(
            seen, torch.cat([halves[1], halves[0]]), again, described, np.concatenate([keys, keys]), wanted, rng
        )
        named = features[:, POOLED : POOLED + CLASSES].clamp(min=1e-8).log()
        loss = loss - _KEEPING * (wanted * named).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay = min(_DECAY, (1 + step) / (10 + step))
        with torch.no_grad():
            now = tuned.state_dict()
            torch._foreach_lerp_(list(mean.values()), [now[name] for name in mean], 1 - decay)
            torch._foreach_lerp_(average, list(vars(losses.learned()).values()), 1 - decay)
    return mean, Learned(*average)


def _stays(name: str) -> bool:
    return name.startswith(("stem.", *(f"blocks.{number}." for number in range(_FROZEN_BLOCKS))))


def between(frozen: Mapping[str, Tensor], tuned: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Two sets of the same weights -> their mean, in which the second set has the weight `share` (arXiv 2109.01903)."""
    return {name: torch.lerp(weight, tuned[name].to(weight), share) for name, weight in frozen.items()}
