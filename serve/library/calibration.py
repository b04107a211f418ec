"""Scores that can be compared across modalities.

Cosines of different modalities cannot be compared, because the vectors of each modality lie in a region of their own
(the modality gap, arXiv 2203.02053). So a text may have a cosine of 0.25 with the right picture, 0.10 with the right
sound, and 0.20 with any wrong picture. The library itself tells what a cosine means: a sample of each modality shows
the usual cosines of *this* query with items of that modality. The calibrated score is

    (cosine - centre) / spread        in standard deviations above the usual item of its modality

where centre and spread are the median and the scaled median absolute deviation over the sample. Both are robust,
because the sample contains matches too. So a random item of the modality has a score of 0. A score of 2 is likely
chance among a few hundred items, and a score of 5 or more stands out. Scores of one query can be compared across
modalities, those of two queries only roughly.

The alternative would be a table of centres by pair of modalities. It would need items of the query's modality in the
library (a library without texts has none for text queries), it would have no entry for composed queries, and it would
say nothing about the query, although some queries score high with everything.

Centre and spread depend on the query and on the items of the library, not on what else a search asks for: the sample is
drawn from all items by a hash of their ids, and a filter does not change it.

A score ranks items, but it does not say whether a hit is right: the best of many wrong items stands out too. A
probability says that, where the model's checkpoint has a calibration for the pair of modalities (see
`bind.calibration`). Elsewhere a hit counts as likely when its score is higher than that of the best of as many random
items usually is (`standing_out`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from bind.calibration import SMALLEST_SPREAD, centre_and_spread
from bind.model.model import BindModel

SAMPLE = 512
"""The size of the sample of a modality; the standard error of the centre is then 1.25 / sqrt(512) = 6 % of the
spread.
"""
PRIOR = 4.0
"""The weight of the figures of all modalities in those of one, as a number of items: few items say little by
themselves.
"""
LIKELY = 0.5
"""The probability from which on a hit counts as found."""
STANDS_OUT = 3.0
"""The least score from which on a hit counts as found where there is no probability, in a library of any size."""
FEW = 10
"""With fewer items than this, the standard deviation over all items, matches included, is used.

The median of so few items is not robust, as most of three items may agree by chance. With the standard deviation, no
score of n items exceeds (n - 1) / sqrt(n), which is 2.7 for 9 items. So scores cannot tell found items from others
there: without probabilities, all count as likely.
"""


def standing_out(counts: Mapping[str, int]) -> dict[str, float]:
    """The numbers of items by modality -> the scores from which on hits count as found without a probability.

    The largest of n values of a normal distribution is about sqrt(2 ln n). Where no modality has `FEW` items nothing
    can be judged, and the scores are minus infinity.
    """
    if max(counts.values(), default=0) < FEW:
        return dict.fromkeys(counts, -math.inf)
    return {name: max(STANDS_OUT, math.sqrt(2 * math.log(max(count, 1)))) for name, count in counts.items()}


def sample(ids: np.ndarray) -> np.ndarray:
    """(N,) ids -> the `SAMPLE` of them, ascending, whose hashes are the lowest: a new item changes one at most."""
    if len(ids) <= SAMPLE:
        return np.sort(ids)
    mixed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # the finaliser of SplitMix64, shortened
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xBF58476D1CE4E5B9)
    return np.sort(ids[np.argpartition(mixed ^ (mixed >> np.uint64(29)), SAMPLE)[:SAMPLE]])


@dataclass(frozen=True)
class Scale:
    """The centre and the spread of the cosines of one query with the items of one modality."""

    centre: float
    spread: float
    likely: Callable[[np.ndarray], np.ndarray | None] | None = None
    threshold: float = STANDS_OUT
    """The score from which on a hit counts as found where there is no probability."""

    @property
    def calibrated(self) -> bool:
        """Whether hits of this modality have probabilities."""
        return self.likely is not None and self.likely(np.zeros(0)) is not None

    def probability(self, cosines: np.ndarray) -> list[float | None]:
        """(n,) cosines -> n probabilities that the item is what the query asks for, None where the model has no
        calibration.
        """
        found = None if self.likely is None else self.likely(cosines)
        return [None] * len(cosines) if found is None else found.tolist()

    def score(self, cosines: np.ndarray) -> np.ndarray:
        """(n,) cosines -> (n,) calibrated scores."""
        return (cosines - self.centre) / self.spread

    def cutoff(self, uncalibrated: float) -> float:
        """The score from which on the probability is `LIKELY`; `uncalibrated` where there are no probabilities."""
        if not self.calibrated:
            return uncalibrated
        low, high = -1.0, 1.0  # cosines: probabilities grow with them
        (least, most) = (self.probability(np.array([cosine]))[0] or 0.0 for cosine in (low, high))
        if most < LIKELY or least >= LIKELY:
            return math.inf if most < LIKELY else -math.inf
        while high - low > 1e-6:
            middle = (low + high) / 2
            likely = (self.probability(np.array([middle]))[0] or 0.0) >= LIKELY
            low, high = (low, middle) if likely else (middle, high)
        return float(self.score(np.array(high)))

    def judge(self, cosines: np.ndarray) -> tuple[list[float], list[float | None], list[bool]]:
        """(n,) cosines -> n scores, n probabilities, and whether each item is likely what the query asks for."""
        scores, probabilities = self.score(cosines.astype(np.float64)), self.probability(cosines)
        likely = [
            bool(score >= self.threshold) if probability is None else probability >= LIKELY
            for score, probability in zip(scores, probabilities, strict=True)
        ]
        return scores.tolist(), probabilities, likely


@dataclass(frozen=True)
class Worth:
    """The model's calibration for queries of one modality; `counts` are the library's items by modality."""

    model: BindModel
    modality: str
    counts: Mapping[str, int]

    @classmethod
    def of(cls, model: BindModel, modality: str | None, counts: Mapping[str, int]) -> Worth | None:
        """The calibration for a query's modality; None where the model has no calibration, or the query mixes
        modalities.
        """
        return None if model.calibration is None or modality is None else cls(model, modality, counts)

    def likely(self, query: np.ndarray, target: str, sample: np.ndarray, cosines: np.ndarray) -> np.ndarray | None:
        """Cosines (n,) of a query with items of a modality -> (n,) probabilities.

        A modality that shares an encoder has the calibration of the encoder's owner.
        """
        known = self.model.calibration
        assert known is not None
        owners = self.model.description.towers()
        pair = owners.get(self.modality, self.modality), owners.get(target, target)
        return known.probability(pair, query, cosines, sample, self.counts[target])


def scales(
    query: np.ndarray,
    samples: Mapping[str, np.ndarray],
    worth: Worth | None = None,
    counts: Mapping[str, int] | None = None,
) -> dict[str, Scale]:
    """A query (D,) and (n, D) sampled vectors of each modality, n > 0 -> the scale of each modality's cosines.

    `counts` are the numbers of items that were sampled; without them the sample is all there is.
    """
    cosines = {modality: vectors @ query for modality, vectors in samples.items()}
    thresholds = standing_out(counts or {modality: len(vectors) for modality, vectors in samples.items()})
    own = {modality: _centre_and_spread(values) for modality, values in cosines.items()}
    weights = np.array([len(values) / (len(values) + PRIOR) for values in cosines.values()])
    common = np.average(np.array(list(own.values())), axis=0, weights=weights) if own else np.zeros(2)
    found = {}
    for (modality, figures), weight in zip(own.items(), weights, strict=True):
        centre, spread = weight * np.array(figures) + (1 - weight) * common
        likely = None if worth is None else partial(worth.likely, query, modality, cosines[modality])
        found[modality] = Scale(float(centre), max(float(spread), SMALLEST_SPREAD), likely, thresholds[modality])
    return found


def _centre_and_spread(cosines: np.ndarray) -> tuple[float, float]:
    centre, spread = centre_and_spread(cosines)
    return (centre, spread) if len(cosines) >= FEW else (centre, max(spread, float(cosines.std())))
