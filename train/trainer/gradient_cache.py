"""Gradient caching: a contrastive step over more pairs than the encoder's activations fit into memory for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor

Batch = TypeVar("Batch")


def cached_step(
    encode: Callable[[Batch], Sequence[Tensor]],
    batches: Sequence[Batch],
    loss: Callable[..., Tensor],
    *,
    no_sync: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Tensor:
    """Small batches -> the scalar loss over all of them; adds its gradients to `.grad`, in the memory of one small
    batch.

    `encode(batch)` returns one (b, D) tensor for each side; `loss(*sides)` gets the tensors with the rows of all
    batches. The result equals

        loss(*(torch.cat(side) for side in zip(*map(encode, batches)))).backward()

    but every batch is encoded twice (GradCache, arXiv 2101.06983). The first pass has no gradients and gives the
    vectors v. The loss then gives dL/dv, and the second pass, batch by batch, multiplies it with dv/dw by
    backpropagating sum(v * dL/dv). So activations of one batch exist at a time.

    Vectors that train nothing (of a frozen encoder) belong into `loss`, not into `encode`. Random numbers are the same
    in both passes, so dropout is safe. Batch normalisation would see small batches and update its running statistics
    twice, so it must be frozen. `no_sync` is that of a `DistributedDataParallel` encoder, so that its ranks exchange
    gradients once. Raises ValueError for no batches.
    """
    if not batches:
        raise ValueError("cached_step: expected at least one batch, got none")
    states, encoded = [], []
    with torch.no_grad():
        for batch in batches:
            states.append(_random_state())
            encoded.append(encode(batch))
    # otherwise torch 2.10 gives the second pass weights that were cast without gradients (issue 112583)
    torch.clear_autocast_cache()
    sides = [torch.cat(parts).requires_grad_() for parts in zip(*encoded, strict=True)]
    value = loss(*sides)
    value.backward()
    sizes = [len(parts[0]) for parts in encoded]
    gradients = zip(*(side.grad.split(sizes) for side in sides if side.grad is not None), strict=True)
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        for number, (batch, state, wanted) in enumerate(zip(batches, states, gradients, strict=True), start=1):
            _set_random_state(state)
            with nullcontext() if number == len(batches) else no_sync():
                pairs = [pair for pair in zip(encode(batch), wanted, strict=True) if pair[0].requires_grad]
                torch.autograd.backward([vectors for vectors, _ in pairs], [gradient for _, gradient in pairs])
    return value.detach()


def _random_state() -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None


def _set_random_state(state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
