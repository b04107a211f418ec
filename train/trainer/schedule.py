"""The items and the learning rate of each step, as a function of the run and the number of the step alone."""

from __future__ import annotations

import math

import numpy as np

from train.trainer.schema import Run


class TrainError(RuntimeError):
    """Training cannot start, continue or be resumed; the message says why, where, and what is left on the disk."""


class Schedule:
    """The pair, the items and the learning rate of each step."""

    def __init__(self, run: Run, sizes: list[int], ranks: int) -> None:
        train = run.train
        self.batch_sizes = []
        for pair, size in zip(train.pairs, sizes, strict=True):
            if size < ranks:
                raise TrainError(f"{pair.name}: {size} items are fewer than {ranks} ranks; use fewer processes")
            if pair.batch_size % ranks:
                raise TrainError(f"{pair.name}: batch_size {pair.batch_size} is not a multiple of {ranks} ranks")
            self.batch_sizes.append(min(pair.batch_size, size // ranks * ranks))
        self._sizes = sizes
        self._seed = run.seed
        turns = [
            max(1, round(pair.repeat * size / batch))
            for pair, size, batch in zip(train.pairs, sizes, self.batch_sizes, strict=True)
        ]
        self.steps_per_epoch = sum(turns)
        self.steps = train.steps or max(1, round(train.epochs * self.steps_per_epoch))
        self.warmup = min(self.steps, round(train.warmup_epochs * self.steps_per_epoch))
        self._peak = train.learning_rate
        # Weights are relative to the batches of an epoch, so that equal weights show every item equally often.
        shares = np.array([pair.weight * turn for pair, turn in zip(train.pairs, turns, strict=True)])
        rng = np.random.default_rng([run.seed, 0])
        self._pairs = rng.choice(len(shares), self.steps, p=shares / shares.sum())
        self._order: dict[tuple[int, int], np.ndarray] = {}
        self._before = np.zeros(self.steps, np.int64)
        for number in range(len(shares)):
            turns_of = np.flatnonzero(self._pairs == number)
            self._before[turns_of] = np.arange(len(turns_of))

    def at(self, step: int) -> tuple[int, int, np.ndarray]:
        """Step -> (number of the pair, the number of earlier passes over its items, rows of the batch)."""
        pair = int(self._pairs[step])
        size, batch = self._sizes[pair], self.batch_sizes[pair]
        turn, place = divmod(int(self._before[step]), size // batch)
        if (pair, turn) not in self._order:
            self._order = {key: order for key, order in self._order.items() if key[0] != pair}
            self._order[pair, turn] = np.random.default_rng([self._seed, 1, pair, turn]).permutation(size)
        return pair, turn, self._order[pair, turn][place * batch : (place + 1) * batch]

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step: a linear warm-up, then a cosine to 0."""
        if step < self.warmup:
            return self._peak * (step + 1) / self.warmup
        share = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self._peak * 0.5 * (1 + math.cos(math.pi * share))
