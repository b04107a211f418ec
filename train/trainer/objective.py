"""The trained towers and the loss of each pair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bind.loss.contrastive import LogitScale, info_nce, sigmoid_loss
from bind.model.towers import Tower
from train.data.dataset import Batch
from train.trainer.distillation import similarity_loss
from train.trainer.schema import Pair, Run


class Objective(nn.Module):
    """(B, D) and (B, D) unit rows -> the loss of one pair, with its temperature (and its bias, for sigmoid)."""

    def __init__(self, pair: Pair, kind: str, chunk: int) -> None:
        super().__init__()
        self.scale = LogitScale(pair.temperature, learned=pair.learn_temperature)
        self.bias = nn.Parameter(torch.tensor(-10.0)) if kind == "sigmoid" else None  # SigLIP starts there
        self.chunk = chunk or None
        self.teacher = pair.teacher

    def forward(self, a: Tensor, b: Tensor, batch: Batch) -> Tensor:
        """Unit rows of this rank -> the scalar loss of the batch of all ranks."""
        scale = self.scale()
        if self.bias is None:
            loss = info_nce(a, b, scale, ids=batch.ids, chunk=self.chunk)
        else:
            loss = sigmoid_loss(a, b, scale, self.bias, ids=batch.ids, chunk=self.chunk)
        if self.teacher and batch.teacher:
            loss = loss + self.teacher.weight * similarity_loss(
                a, b, scale, *batch.teacher, 1 / self.teacher.temperature
            )
        return loss


class Learner(nn.Module):
    """Everything that is trained: a tower, or its head, for each modality of the run, and one objective for
    each pair.
    """

    def __init__(self, towers: Mapping[str, Tower], run: Run) -> None:
        super().__init__()
        self.towers = nn.ModuleDict(dict(towers))
        train = run.train
        self.objectives = nn.ModuleList(Objective(pair, train.loss, train.chunk) for pair in train.pairs)


def optimizer(learner: Learner, run: Run) -> torch.optim.AdamW:
    """AdamW: matrices and kernels decay; one-dimensional parameters (biases, norms, class tokens, scales) do not."""
    trained = [p for p in learner.parameters() if p.requires_grad]
    decaying = [p for p in trained if p.squeeze().ndim > 1]
    others = [p for p in trained if p.squeeze().ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decaying}, {"params": others, "weight_decay": 0.0}]
    train = run.train
    return torch.optim.AdamW(groups, train.learning_rate, train.betas, weight_decay=train.weight_decay)
