"""Pooling: the vectors of several views of one item -> one vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize


def mean_of_views(views: Tensor, counts: Sequence[int]) -> Tensor:
    """(M, D) views of N items in order, `counts[i]` views of item i -> (N, D) unit rows, each item's normalised
    mean.
    """
    if len(set(counts)) <= 1:  # true for an empty batch too
        means = views.unflatten(0, (len(counts), counts[0] if counts else 1)).mean(1)
    else:
        means = torch.stack([part.mean(0) for part in views.split(list(counts))])
    return normalize(means, dim=1)
