"""The moments of a recording that a query asks for: its scores over time, cut into matching stretches.

A film, a sound or a motion recording is stored as stretches, each with a vector. A query gives each stretch a score
(see `serve.library.calibration`). A moment is a run of stretches around a peak that counts as found: it begins and ends
where the smoothed score falls below a share of the way from the recording's usual score to the peak. Stored stretches
are ten seconds long; `finely` reads the file again in stretches of about two seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bind.model.model import BindModel
from bind.model.pipeline import Failed, embed
from preprocess.source import Limits, Source
from serve.library.calibration import Scale

Which = Literal["all", "first", "last"]
STEP_S = 2.0
"""The length of a fine stretch: the shortest clip that the encoders of video and sound see."""
MOST_STEPS = 600
"""The largest number of fine stretches: those of a longer recording are longer."""
STANDS_OUT = 2.0
"""The score from which on a peak counts as found where the model has no probabilities. It is lower than that of a
search (`serve.library.calibration.STANDS_OUT`), because a recording has few stretches. Measured by
`tests.bench.bench_moments`.
"""
SHARE = 0.5
"""Where a moment ends, as a share of the way from the recording's usual score to the peak. Measured by
`tests.bench.bench_moments`.
"""
GAP_S = 1.0
"""Moments with a smaller gap between them are one."""
_BATCH = 16
"""Stretches that are encoded at once."""


@dataclass(frozen=True)
class Moment:
    """A matching stretch: from `start_s` to `end_s`, with the highest score in it, at `peak_s`.

    `probability` is that of the peak, None where the model has no calibration.
    """

    start_s: float
    end_s: float
    peak_s: float
    score: float
    probability: float | None = None


class Moments(list[Moment]):
    """The moments of one recording in the order of time, and the curve that they were cut from.

    `spans` (N, 2) are the stretches in seconds, `scores` (N,) their scores, and `threshold` is the score from which on
    a peak counts as found. `item_ids` (N,) are the items of the stretches, empty for fine ones.
    """

    def __init__(
        self,
        moments: Iterable[Moment],
        spans: np.ndarray,
        scores: np.ndarray,
        threshold: float,
        item_ids: Sequence[int] = (),
    ) -> None:
        super().__init__(moments)
        self.spans = spans
        self.scores = scores
        self.threshold = threshold
        self.item_ids = tuple(item_ids)


def find(spans: np.ndarray, scores: np.ndarray, threshold: float, share: float = SHARE) -> list[tuple[int, int, int]]:
    """(N, 2) stretches in the order of time and their (N,) scores -> (first, last, peak) of each moment.

    Peaks are taken from the highest down, as long as they reach the threshold; a moment takes the stretches around its
    peak whose smoothed score is above the level where it ends. The stretch beside a moment belongs to no other.
    """
    curve, usual = smoothed(spans, scores), float(np.median(scores)) if len(scores) else 0.0
    free = np.ones(len(scores), bool)
    found: list[tuple[int, int, int]] = []
    for peak in np.argsort(-scores, kind="stable").tolist():
        if scores[peak] < threshold:
            break
        if not free[peak]:
            continue
        level = usual + share * (scores[peak] - usual)
        first = last = peak
        while first > 0 and free[first - 1] and curve[first - 1] >= level:
            first -= 1
        while last + 1 < len(scores) and free[last + 1] and curve[last + 1] >= level:
            last += 1
        free[max(first - 1, 0) : last + 2] = False  # with its shoulders
        found.append((first, last, peak))
    return sorted(found)


def smoothed(spans: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The scores of fine stretches with half of each neighbour's that they touch, as a mean; those of long stretches
    as they are.
    """
    lengths = spans[:, 1] - spans[:, 0]
    touching = (spans[1:, 0] - spans[:-1, 1] <= GAP_S) & (np.maximum(lengths[1:], lengths[:-1]) <= 2 * STEP_S)
    total, weight = scores.astype(np.float64), np.ones(len(scores))
    for here, there in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
        total[here] += 0.5 * np.where(touching, scores[there], 0.0)
        weight[here] += 0.5 * touching
    curve: np.ndarray = total / weight
    return curve


class _Finely:
    """A model whose recordings are read in short stretches; otherwise as the model. An encoder of the pipeline."""

    def __init__(self, model: BindModel, step_s: float) -> None:
        self._model = model
        self._step_s = step_s

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self._model.device

    def config(self, modality: str) -> Any:
        """The constants of the model with short stretches, where the modality has stretches of a length."""
        config = self._model.config(modality)
        if "segment_s" not in {one.name for one in fields(config)}:
            return config
        cut = {"cut": "fixed"} if hasattr(config, "cut") else {}
        return replace(config, segment_s=self._step_s, clip_s=min(config.clip_s, self._step_s), **cut)

    def encode_views(self, modality: str, x: Tensor) -> Tensor:
        """As `BindModel.encode_views`."""
        return self._model.encode_views(modality, x)


def finely(
    model: BindModel, source: Source, modality: str, duration_s: float, limits: Limits
) -> tuple[np.ndarray, np.ndarray]:
    """A recording -> its fine stretches (N, 2) in seconds, in the order of time, and their vectors (N, D).

    Raises MediaError for a file that cannot be read.
    """
    step_s = max(STEP_S, duration_s / MOST_STEPS)
    spans, vectors = [], []
    for result in embed(
        _Finely(model, step_s), [(source, modality)], plan="segments", batch_size=_BATCH, limits=limits
    ):
        if isinstance(result, Failed):
            raise result.error
        if result.modality == modality:
            spans.append((result.start_s or 0.0, result.end_s if result.end_s is not None else duration_s))
            vectors.append(result.vector)
    order = np.argsort([start for start, _ in spans], kind="stable")
    return np.array(spans, np.float64)[order], np.stack(vectors)[order]


@dataclass(frozen=True)
class MomentOptions:
    """What of the moments is asked for, as the arguments of `Library.moments`."""

    fine: bool = False
    which: Which = "all"
    min_score: float | None = None
    after_s: float | None = None
    before_s: float | None = None

    def chosen(self, found: Sequence[Moment]) -> list[Moment]:
        """Moments in the order of time -> those that are asked for."""
        within = [
            one
            for one in found
            if (self.after_s is None or one.start_s >= self.after_s)
            and (self.before_s is None or one.end_s <= self.before_s)
        ]
        return within[:1] if self.which == "first" else within[-1:] if self.which == "last" else within


def cut(
    spans: np.ndarray, vectors: np.ndarray, query: np.ndarray, scale: Scale, options: MomentOptions, ids: Sequence[int]
) -> Moments:
    """Stretches (N, 2) in the order of time, their vectors (N, D), and a query (D,) on its scale -> its moments."""
    cosines = np.einsum("md,d->m", vectors, query)
    scores, probabilities, _ = scale.judge(cosines)
    curve = np.array(scores, np.float64)
    threshold = scale.cutoff(STANDS_OUT) if options.min_score is None else options.min_score
    middles = spans.mean(1) if len(spans) else np.zeros(0)
    moments = [
        Moment(float(spans[first, 0]), float(spans[last, 1]), float(middles[peak]), scores[peak], probabilities[peak])
        for first, last, peak in find(spans, curve, threshold)
    ]
    return Moments(options.chosen(moments), spans, curve, threshold, ids)
