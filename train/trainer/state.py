"""The state of a training: what a run that was interrupted needs to go on as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from train.trainer import run as runs
from train.trainer.objective import Learner
from train.trainer.schedule import TrainError

STATE = "state.safetensors"
"""The file of what a resumed run needs: weights, optimizer, random numbers, place in the data."""


@dataclass
class Progress:
    """What a resumed run has to know besides weights."""

    step: int = 0
    loss: float | None = None
    best: float | None = None
    without_gain: int = 0
    seconds: float = 0.0
    ended: str = ""


class State:
    """The weights that are trained, their moving average, the moments of AdamW, and the progress; in one file.

    `average` is empty where `ema_decay` is 0.
    """

    def __init__(self, learner: Learner, optimizer: torch.optim.AdamW, ema_decay: float) -> None:
        self.progress = Progress()
        self._learner = learner
        self._optimizer = optimizer
        self._ema_decay = ema_decay
        self.average = {name: p.detach().clone() for name, p in self._parameters()} if ema_decay else {}

    def follow(self, step: int) -> None:
        """Moves the average towards the weights after a step."""
        decay = min(self._ema_decay, (1 + step) / (10 + step))  # so that the start is soon forgotten
        with torch.no_grad():
            for name, p in self._parameters() if self.average else ():
                self.average[name].lerp_(p, 1 - decay)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The moving average in place of the weights, where there is one."""
        kept = {name: p.detach().clone() for name, p in self._parameters()} if self.average else {}
        with torch.no_grad():
            for name, p in self._parameters() if self.average else ():
                p.copy_(self.average[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, p in self._parameters() if self.average else ():
                    p.copy_(kept[name])

    def save(self, file: Path, identity: Mapping[str, Any]) -> None:
        """Writes a file aside and renames it. `identity` is what the run's course depends on, see `run.identity`."""
        tensors = {f"weight.{name}": tensor for name, tensor in self._weights().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.items()}
        for name, p in self._parameters():
            for key, value in self._optimizer.state.get(p, {}).items():
                tensors[f"adam.{key}.{name}"] = value
        tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_name(f".{file.name}")
        save_file(tensors, aside, {"run": json.dumps(identity), "progress": json.dumps(asdict(self.progress))})
        os.replace(aside, file)

    def restore(self, file: Path, device: torch.device) -> None:
        """Takes over everything that `save` wrote. Raises TrainError where weights are missing."""
        with safe_open(file, "pt", str(device)) as state:
            stored = {name: state.get_tensor(name) for name in state.keys()}  # noqa: SIM118, it is no mapping
            self.progress = Progress(**json.loads(state.metadata()["progress"]))

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in stored.items() if name.startswith(prefix)}

        weights = self._learner.state_dict()
        if missing := self._weights().keys() - part("weight.").keys():
            raise TrainError(f"{file} lacks {', '.join(sorted(missing)[:5])}; choose another `out`")
        self._learner.load_state_dict(weights | part("weight."))
        self.average = part("average.")
        for key in ("step", "exp_avg", "exp_avg_sq"):
            values = part(f"adam.{key}.")
            for name, p in self._parameters():
                if name in values:
                    # AdamW counts its steps on the CPU.
                    self._optimizer.state[p][key] = values[name].cpu() if key == "step" else values[name]

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self._learner.named_parameters() if p.requires_grad)

    def _weights(self) -> dict[str, Tensor]:
        """The state of the learner, without what training leaves as it is: weights below LoRA, and buffers of towers
        (tables of a published encoder, statistics of batch norms).
        """
        towers = self._learner.towers
        fixed = {name for name, p in towers.named_parameters(prefix="towers") if not p.requires_grad}
        fixed |= {name for name, _ in towers.named_buffers(prefix="towers")}
        return {name: tensor for name, tensor in self._learner.state_dict().items() if name not in fixed}


def check_unchanged(file: Path, identity: Mapping[str, Any]) -> None:
    """Raises TrainError that lists what differs where a state was begun with another run. No state: nothing."""
    if not file.is_file():
        return
    with safe_open(file, "pt") as state:
        stored = json.loads((state.metadata() or {}).get("run", "{}"))
    if "out" in stored:  # written before the identity was one of contents
        stored = runs.identity(stored, stored.pop("content of manifests"))
    if lines := list(runs.changed(stored, identity)):
        raise TrainError(
            "\n  ".join([f"{file} was begun with another run file; undo these, or choose another `out`:", *lines])
        )
