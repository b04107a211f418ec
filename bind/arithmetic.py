"""Arithmetic with embeddings: weighted sums that are unit vectors again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bind.space import Embeddings

CANCEL = 1e-3
"""The smallest norm of a sum that still has a direction, as a share of the sum of its absolute weights.

A shorter sum has cancelled out: what remains is rounding error. The rounding error of bfloat16 encoders is of this
size, so `a - a` cancels even when `a` was encoded twice.
"""


def combine(parts: Embeddings, weights: Sequence[float]) -> Embeddings:
    """N unit rows and N weights -> their weighted sum as Embeddings (1, D), a unit row.

    Args:
        parts: the embeddings to add up, all of one space.
        weights: one finite number for each part; a negative weight subtracts its part.

    Raises:
        ValueError: the numbers differ, a weight is not finite, or the terms cancel out (the sum's norm is at most
            `CANCEL` times the sum of the absolute weights; all weights 0 and no parts at all are such cases).

    Example:
        >>> query = bind.combine(model.embed(["dog.jpg", "text:indoors"]), [1.0, -0.5])
    """
    factors = np.asarray(weights, dtype=np.float64)
    if factors.shape != (len(parts),):
        raise ValueError(f"combine: expected one weight for each of {len(parts)} parts, got shape {factors.shape}")
    if not np.isfinite(factors).all():
        raise ValueError(f"combine: expected finite weights, got {factors.tolist()}")
    scale = np.abs(factors).max(initial=0.0)
    if scale > 0:
        factors = factors / scale  # only their ratio matters, and a sum of very large ones would overflow
    total = factors @ parts.vectors.astype(np.float64)
    norm = float(np.linalg.norm(total))
    if norm <= CANCEL * np.abs(factors).sum():
        raise ValueError("combine: the terms cancel out, so no direction is left to search in; change their weights")
    return Embeddings((total / norm).astype(np.float32)[None], parts.space)
