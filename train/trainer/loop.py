"""The training loop: paired data -> encoders and heads in a space that frozen towers define.

Step s is a function of the run and s alone: which pair, which items, which variants, and every random number are drawn
from (seed, s). So an interrupted run continues exactly where it was, and R processes see what one process would.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from bind import checkpoint, zoo
from bind.loss.contrastive import LogitScale
from bind.model.model import BindModel
from preprocess import manifest
from train.data.dataset import Batch, PairData
from train.data.sides import Part, Ranks, frozen_tower
from train.evaluate.metrics import mean_recall, same_item
from train.trainer import process, state, towers
from train.trainer import run as runs
from train.trainer.gradient_cache import cached_step
from train.trainer.log import LOG as LOG
from train.trainer.log import Log
from train.trainer.objective import Learner, optimizer
from train.trainer.plan import describe, resolve
from train.trainer.schedule import Schedule
from train.trainer.schedule import TrainError as TrainError
from train.trainer.schema import Pair, Run
from train.trainer.state import STATE, State

LINE_S = 10.0
"""The least time between two lines of progress in a log."""
_LINE = "{desc}: {n_fmt} of {total_fmt} steps, {rate_fmt}, {remaining} left{postfix}\n"
"""A line of progress in a log, in tqdm's format."""
MODEL = "model"
"""The folder of the checkpoint in a run's folder."""


@dataclass
class Result:
    """The result of a training: `reason` is finished, early stop, or the name of the signal that stopped it.

    `recall` is the best held-out recall (None without held-out manifests); `bad` lists media that were left out, with
    reasons.
    """

    reason: str
    step: int
    loss: float | None
    recall: float | None
    model: Path | None
    bad: list[str] = field(default_factory=list)


def train(run: Run) -> Result:
    """Trains a run, or continues what `run.out` holds -> the result; the model is written to `run.out`/model.

    Under torchrun, this process is one of the ranks.

    Args:
        run: a run, as `train.trainer.run.read` reads it from a run file.

    Raises:
        TrainError: the run cannot start, continue or be resumed; DataError (too few usable pairs) is one of these
            errors.
        ManifestError: a manifest breaks the format.
        CheckpointError: the base's checkpoint is damaged.

    Example:
        >>> from train.trainer import run as runs
        >>> result = train(runs.read("depth.toml"))
        >>> result.reason, result.step
        ('finished', 2)
        >>> bind.load(result.model).modalities
        ('image', 'depth')
    """
    with process.ranks(run) as (ranks, device):
        return _Trainer(run, ranks, device).train()


class _Trainer:
    def __init__(self, run: Run, ranks: Ranks, device: torch.device) -> None:
        self.run = run
        self.ranks = ranks
        self.device = device
        self.out = Path(run.out)
        self.manifests = {
            path: manifest.read(path)
            for path in dict.fromkeys(
                [path for pair in run.train.pairs for path in pair.manifests] + list(run.evaluate.manifests)
            )
        }
        # This is checked before the base is loaded and media are read, so that a changed run is reported at once.
        self.identity = runs.identity(
            run.model_dump(mode="json"), {path: found.sha256 for path, found in self.manifests.items()}
        )
        state.check_unchanged(self.out / STATE, self.identity)
        self.base: BindModel = zoo.load(
            run.base.model, run.base.weights, str(device), modalities=run.base.modalities or None
        )
        plan = resolve(self.base.description, run)
        self.description = plan.finished
        torch.manual_seed(run.seed)
        self.starts = {name: towers.start(self.base, plan, name) for name in run.trained}
        self.data = [self._data(pair, pair.manifests, held_out=False) for pair in run.train.pairs]
        self.held_out = [
            self._data(pair, run.evaluate.manifests, held_out=True)
            for pair in (run.train.pairs if run.evaluate.manifests else ())
        ]
        self.schedule = Schedule(run, [len(data) for data in self.data], ranks.count)
        self.learner = Learner({name: start.tower for name, start in self.starts.items()}, run).to(device)
        for start in self.starts.values():
            towers.set_training(start.tower)
        self.forward: dict[str, Callable[[Tensor], Tensor]] = {
            name: torch.compile(tower) if run.compile else tower for name, tower in self.learner.towers.items()
        }
        self.optimizer = optimizer(self.learner, run)
        self.state = State(self.learner, self.optimizer, run.train.ema_decay)
        if (self.out / STATE).is_file():
            self.state.restore(self.out / STATE, self.device)
        self.progress = self.state.progress

    def train(self) -> Result:
        """Does the remaining steps."""
        if self.progress.ended:
            return self._result(self.progress.ended)
        log = Log(self.out, self.progress.step) if self.ranks.rank == 0 else None
        if self.progress.step == 0:
            self._save()
        started = time.monotonic() - self.progress.seconds
        with (
            process.signals(self.ranks.count == 1) as caught,
            ThreadPoolExecutor(1) as ahead,
            self._bar() as bar,
            contextlib.ExitStack() as stack,
        ):
            if log:
                stack.callback(log.close)
            following = ahead.submit(self._batch, self.progress.step)
            while self.progress.step < self.schedule.steps:
                step = self.progress.step
                batch = following.result()
                if step + 1 < self.schedule.steps:
                    following = ahead.submit(self._batch, step + 1)
                record = self._step(step, batch)
                stop = self._agree(caught[0] if caught else 0)
                self.progress.step += 1
                self.progress.loss = record["loss"]
                self.progress.seconds = time.monotonic() - started
                bar.update()
                bar.set_postfix(loss=f"{record['loss']:.4f}", refresh=False)
                if log and (step % self.run.train.log_every == 0 or self.progress.step == self.schedule.steps):
                    log.write(record | {"step": step, "seconds": round(self.progress.seconds, 3)})
                ended = self._evaluate(log)
                if ended or self.progress.step == self.schedule.steps:
                    self.progress.ended = ended or "finished"
                    self._save()
                    return self._result(self.progress.ended)
                if stop:
                    self._save()
                    return self._result(signal.Signals(stop).name)
                if self.progress.step % self.run.train.save_every == 0:
                    self._save()
        raise AssertionError("the loop returns")

    def _step(self, step: int, batch: Batch) -> dict[str, Any]:
        """Does one update -> its log record.

        Raises TrainError, before anything is changed, for a loss that is not finite.
        """
        number, _, rows = self.schedule.at(step)
        pair = self.run.train.pairs[number]
        rate = self.schedule.learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._gradients(step, pair, self.learner.objectives[number], batch)
        self._average_gradients()
        parameters = [p for p in self.learner.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if not (math.isfinite(loss) and math.isfinite(float(norm))):
            raise TrainError(
                f"step {step} ({pair.name}, items {', '.join(map(str, rows[:5]))}, ...): the loss is {loss:g}, the "
                f"norm of its gradients {float(norm):g}, at a learning rate of {rate:g}; the last good checkpoint is "
                f"{self.out / STATE}; lower learning_rate or set clip_norm, with another `out`"
            )
        if self.run.train.clip_norm:
            nn.utils.clip_grads_with_norm_(parameters, self.run.train.clip_norm, norm)
        self.optimizer.step()
        self.state.follow(step)
        scale = self.learner.objectives[number].scale
        assert isinstance(scale, LogitScale)
        temperature = math.exp(-float(scale.log_scale.detach()))
        return {"pair": pair.name, "loss": loss, "lr": rate, "temperature": temperature, "gradient_norm": float(norm)}

    def _gradients(self, step: int, pair: Pair, objective: nn.Module, batch: Batch) -> float:
        """The loss of a batch; its gradients are added to those of the parameters."""
        names = (pair.modality, pair.anchor)
        trained = [side for side in range(2) if names[side] in self.forward]

        def encode(given: Sequence[Tensor]) -> tuple[Tensor, ...]:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.run.dtype == "bfloat16"):
                vectors = [self.forward[names[side]](x) for side, x in zip(trained, given, strict=True)]
            return tuple(F.normalize(each.float(), dim=1) for each in vectors)

        def loss(*vectors: Tensor) -> Tensor:
            sides = list(batch.sides)
            for side, of_side in zip(trained, vectors, strict=True):
                sides[side] = of_side
            value: Tensor = objective(*sides, batch)
            return value

        seed = np.random.SeedSequence([self.run.seed, 2, step, self.ranks.rank])
        torch.manual_seed(int(seed.generate_state(1)[0]))
        size = self.run.train.micro_batch
        given = [batch.sides[side] for side in trained]
        if 0 < size < len(batch.ids):
            return float(cached_step(encode, list(zip(*(x.split(size) for x in given), strict=True)), loss))
        value = loss(*encode(given))
        value.backward()
        return float(value.detach())

    def _average_gradients(self) -> None:
        """Averages the gradients over ranks, as `bind.loss.contrastive` expects.

        This does without DDP, which needs every parameter in every step and one backward pass for a step; batches of
        one pair and gradient caching offer neither.
        """
        if self.ranks.count == 1:
            return
        gradients = [p.grad for p in self.learner.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.ranks.count
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def _agree(self, wanted: int) -> int:
        """The largest number that a rank passes, on every rank."""
        if self.ranks.count == 1:
            return wanted
        shared = torch.tensor([wanted], device=self.device)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return int(shared)

    def _batch(self, step: int) -> Batch:
        """This rank's part of the batch of a step."""
        number, turn, rows = self.schedule.at(step)
        own = len(rows) // self.ranks.count
        return self.data[number].batch(rows[self.ranks.rank * own : (self.ranks.rank + 1) * own], turn)

    def _evaluate(self, log: Log | None) -> str:
        """Measures held-out recall where it is due, and writes the best model -> "early stop" after too long without a
        gain.
        """
        settings = self.run.evaluate
        every = max(1, round(settings.every_epochs * self.schedule.steps_per_epoch))
        last = self.progress.step == self.schedule.steps
        if not self.held_out:
            if last:
                self._write_model()
            return ""
        if self.progress.step % every and not last:
            return ""
        with self.state.averaged():
            recalls = {data.pair.name: self._recall(data) for data in self.held_out}
        recall = sum(recalls.values()) / len(recalls)
        if log:
            log.write({"step": self.progress.step - 1, "held_out_recall": recalls, "mean": recall})
        if self.progress.best is None or recall > self.progress.best:
            self.progress.best, self.progress.without_gain = recall, 0
            self._write_model()
        else:
            self.progress.without_gain += 1
        # Ranks agree on it, because the last bit of a recall may differ between them.
        stop = self._agree(int(0 < settings.patience <= self.progress.without_gain))
        return "early stop" if stop and not last else ""

    def _recall(self, data: PairData) -> float:
        names = (data.pair.modality, data.pair.anchor)
        trained = [self.starts[name].tower if name in self.starts else None for name in names]
        for tower in filter(None, trained):
            tower.eval()
        a, b = (vectors.cpu().numpy() for vectors in data.embed(trained))
        for tower in filter(None, trained):
            towers.set_training(tower)
        return mean_recall(a, b, same_item(data.ids))

    def _data(self, pair: Pair, paths: tuple[str, ...], *, held_out: bool) -> PairData:
        data = PairData(
            pair,
            [self.manifests[path] for path in paths],
            (self._part(pair.modality), self._part(pair.anchor)),
            self.run.cache,
            self.device,
            teacher=None if held_out else self._teacher(pair),
            settings=None if held_out else pair.augment,
            dtype=self.run.dtype,
            max_bad_share=self.run.train.max_bad_share,
            ranks=self.ranks,
            seed=self.run.seed,
        )
        for fault in data.bad if self.ranks.rank == 0 else ():
            tqdm.write(f"left out {fault}")
        return data

    def _teacher(self, pair: Pair) -> tuple[Part, Part] | None:
        """The towers of a pair's teacher for its two sides; where the teacher lacks one, the tower of the other
        side.
        """
        if pair.teacher is None:
            return None
        names = (pair.modality, pair.anchor)
        has = [name for name in names if name in describe(pair.teacher.model).modalities]
        model = zoo.load(pair.teacher.model, pair.teacher.weights, str(self.device), modalities=has)
        of_modality, of_anchor = (frozen_tower(model, name if name in has else has[0]) for name in names)
        return of_modality, of_anchor

    def _part(self, name: str) -> Part:
        """The frozen part of a modality in this run."""
        config = self.description.preprocess(name)
        if self.run.stage(name) == "vectors":
            return frozen_tower(self.base, name)
        trunk = self.starts[name].trunk
        if trunk is None:
            return Part(name, config)
        # The digest of the checkpoint's file identifies weights without a checked source of their own.
        owner = self.description.towers()[name]
        encoder = self.description.modalities[owner].encoder or {}
        identity = {"encoder": encoder, "weights": None if "sha256" in encoder else self.base.digests.get(owner)}
        return Part(name, config, trunk, int(trunk.width), identity)  # type: ignore[arg-type]

    def _write_model(self) -> None:
        """Writes the base with the trained modalities as a checkpoint folder."""
        if self.ranks.rank:
            return
        whole = {name: self.base.tower(name) for name in self.base.modalities}
        left = set(self.description.modalities) - set(self.run.trained)
        digests = {name: digest for name, digest in self.base.digests.items() if name in left}
        with self.state.averaged():
            whole |= {name: start.finished() for name, start in self.starts.items()}
            checkpoint.write(self.out / MODEL, self.description.model_copy(update={"digests": digests}), whole)

    def _save(self) -> None:
        """Writes the state; the first rank does that, and the others wait for it."""
        if self.ranks.rank == 0:
            self.state.save(self.out / STATE, self.identity)
        if self.ranks.count > 1:
            dist.barrier()

    def _bar(self) -> Any:
        """A bar on a terminal; into a log, a line now and then."""
        every_s = {} if sys.stderr.isatty() else {"mininterval": LINE_S, "maxinterval": LINE_S, "delay": LINE_S}
        return tqdm(
            total=self.schedule.steps,
            initial=self.progress.step,
            desc=self.run.name,
            unit="step",
            disable=self.ranks.rank != 0,
            bar_format=_LINE if every_s else None,
            **every_s,
        )

    def _result(self, reason: str) -> Result:
        model = self.out / MODEL
        bad = [str(fault) for data in (*self.data, *self.held_out) for fault in data.bad]
        progress = self.progress
        written = model if (model / checkpoint.TABLE).is_file() else None
        return Result(reason, progress.step, progress.loss, progress.best, written, bad)
