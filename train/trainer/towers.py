"""The trained towers of a run: as training starts, and as a checkpoint stores them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from torch import nn

from bind import checkpoint, encoders, heads
from bind.model.model import BindModel
from bind.model.towers import Tower
from preprocess.extras import needs
from train.trainer.plan import Plan
from train.trainer.schema import Lora


@dataclass(frozen=True)
class Start:
    """A trained module `tower`; where only a head is trained, `trunk` is the frozen encoder before it."""

    tower: Tower
    trunk: nn.Module | None = None

    def finished(self) -> Tower:
        """The tower as a checkpoint stores it: trunk and head together, with low-rank changes added to the weights."""
        encoder: Any = self.trunk or self.tower.encoder
        if hasattr(encoder, "merge_and_unload"):  # merging is done on a copy, as undoing it would not be exact
            encoder = copy.deepcopy(encoder).merge_and_unload()
        return Tower(encoder, self.tower.head)


def start(base: BindModel, plan: Plan, name: str) -> Start:
    """A trained modality -> its tower with the base's weights, its makers' or random ones. See `schema.Modality`."""
    run, table = plan.run, plan.starting[name]
    encoder: nn.Module
    if name in plan.continued:
        encoder = base.tower(name).encoder
    elif encoders.is_published(table.encoder or {}):
        encoder = encoders.load(table.encoder or {}, checkpoint.locate)
    else:
        encoder = encoders.build(table.encoder or {})
    if plan.keeps_head(name):
        head = copy.deepcopy(base.tower(name).head)
    else:
        head = heads.build(table.head or {}, int(encoder.width), base.dim)  # type: ignore[arg-type]
    head.requires_grad_(True)
    if run.stage(name) == "features":
        trunk = encoder.requires_grad_(False).eval().to(base.device)
        return Start(Tower(nn.Identity(), head), trunk)
    lora = run.modalities[name].lora if name in run.modalities else None
    encoder = copy.deepcopy(encoder).requires_grad_(True)
    return Start(Tower(adapted(encoder, lora) if lora else encoder, head))


def adapted(encoder: nn.Module, lora: Lora) -> nn.Module:
    """An encoder -> the same with frozen weights and trainable low-rank changes, which start at 0."""
    with needs("train", "LoRA"):
        from peft import LoraConfig, LoraModel

    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets))  # type: ignore[arg-type]
    model: nn.Module = LoraModel(encoder, config, "default")
    return model


def set_training(tower: Tower) -> None:
    """Sets training mode, except for batch norms, which only pretrained encoders have: their statistics stay fixed.

    So an item's vector does not depend on its batch, and ranks and gradient caching compute what one process would.
    """
    tower.train()
    for module in tower.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
