"""Distillation: a large model's similarities of the items of a batch are the target for a small model in any space."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.nn.functional import all_gather


def similarity_loss(
    a: Tensor, b: Tensor, logit_scale: Tensor, teacher_a: Tensor, teacher_b: Tensor, teacher_scale: float
) -> Tensor:
    """(B, D) and (B, D) unit rows, (B, E) and (B, E) of a teacher -> mean KL divergence from the teacher's softmax.

    Rows are compared with all columns and columns with all rows, as in `info_nce`. The dimensions D and E may differ.
    The loss is 0 where both models find everything equally similar (affinity mimicking, arXiv 2309.12314). The target
    does not depend on labels, so repeated items need no mask.

    All ranks take part. The value is that of the whole batch, and gradients are R times those of one process, as
    averaging over ranks expects (see `bind.loss.contrastive`). Memory is B x (R B) logits.
    """
    everyone = _gathered(torch.cat([a, b], 1))
    all_a, all_b = everyone.chunk(2, 1)
    with torch.no_grad():
        all_teacher_a, all_teacher_b = _gathered(teacher_a), _gathered(teacher_b)
        of_rows = F.log_softmax(teacher_scale * teacher_a @ all_teacher_b.T, 1)
        of_columns = F.log_softmax(teacher_scale * teacher_b @ all_teacher_a.T, 1)
    rows, columns = (F.log_softmax(logit_scale * x @ y.T, 1) for x, y in ((a, all_b), (b, all_a)))
    own = sum(
        F.kl_div(found, target, reduction="batchmean", log_target=True) / 2
        for found, target in ((rows, of_rows), (columns, of_columns))
    )
    assert isinstance(own, Tensor)
    whole = own.detach().clone()
    if dist.is_initialized():
        dist.all_reduce(whole)
        whole /= dist.get_world_size()
    return own + (whole - own.detach())


def _gathered(own: Tensor) -> Tensor:
    """(B, ...) of each rank -> (R B, ...), differentiable."""
    return torch.cat(all_gather(own.contiguous())) if dist.is_initialized() else own
