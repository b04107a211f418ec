"""This process among its ranks: its rank and device under torchrun, and the signals that ask it to end."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import torch
import torch.distributed as dist
from tqdm import tqdm

from train.data.sides import Ranks
from train.trainer.schema import Run


@contextlib.contextmanager
def signals(alone: bool) -> Iterator[list[int]]:
    """Signals that ask for an end, collected in a list; a step is finished and saved before they take effect.

    The same signal again ends this process at once, in whatever step, with the last saved state on the disk. For one of
    several ranks this does not hold, because torchrun passes on a signal that the terminal has sent to all ranks, and
    ends late ranks itself.
    """
    caught: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)

    def catch(which: int, _: object) -> None:
        caught.append(which)
        if alone:
            # the system itself ends the process, as a long kernel call returns to no handler
            signal.signal(which, signal.SIG_DFL)
            tqdm.write(f"{signal.Signals(which).name}: this step is finished and saved; once more ends at once")

    old = {number: signal.signal(number, catch) for number in numbers}
    try:
        yield caught
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def ranks(run: Run) -> Iterator[tuple[Ranks, torch.device]]:
    """This process's rank under torchrun (or rank 0 of 1), and its device."""
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device(run.device if run.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1:
        yield Ranks(), device
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), count), device
    finally:
        dist.destroy_process_group()
