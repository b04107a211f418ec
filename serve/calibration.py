"""Scores that can be compared across modalities.

Cosines cannot: the vectors of each modality keep to a region of their own (the modality gap, arXiv 2203.02053), so a
text may be at 0.25 from the right picture, at 0.10 from the right sound, and at 0.20 from any wrong picture. What a
cosine is worth is read off the library itself: a sample of each modality tells what *this* query scores with items of
that modality as such. The calibrated score is

    (cosine - centre) / spread        in standard deviations above the usual item of its modality

with centre and spread the median and the scaled median absolute deviation over the sample: matches are in the sample
too, and must move neither. So 0 is what a random item of the modality scores, 2 is likely chance among a few hundred
items, and 5 or more stands out. Scores of one query can be compared across modalities, those of two queries only
roughly.

A table by pair of modalities would be the alternative. It would need items of the query's modality in the library (a
library without texts has none for text queries), has no entry for composed queries, and says nothing about the query:
some score high with everything.

A score ranks, it does not say whether a hit is right: the best of many wrong items stands out too. That is what a
probability says, where the model's checkpoint brings a calibration for the pair of modalities (see `bind.calibration`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from bind.calibration import SMALLEST_SPREAD, centre_and_spread
from bind.model import BindModel

SAMPLE = 512
"""Items of a modality that are looked at: the centre is then known to 1.25 / sqrt(512) = 6 % of the spread."""
PRIOR = 4.0
"""Items that a modality's own figures must outweigh: few items say little, so theirs are drawn to those of all."""
LIKELY = 0.5
"""A probability from which on a hit counts as found."""
FEW = 10
"""Of fewer items the deviation counts, match and all, instead of what no match moves: most of three items may agree by
chance. No score of n items then exceeds (n - 1) / sqrt(n), 2.7 for 9."""


@dataclass(frozen=True)
class Scale:
    """Centre and spread of the cosines of one query with the items of one modality."""

    centre: float
    spread: float
    likely: Callable[[np.ndarray], np.ndarray | None] | None = None

    @property
    def calibrated(self) -> bool:
        """Whether there are probabilities."""
        return self.likely is not None and self.likely(np.zeros(0)) is not None

    def probability(self, cosines: np.ndarray) -> list[float | None]:
        """(n,) cosines -> n probabilities that the item is what is asked for, None where that is not known."""
        found = None if self.likely is None else self.likely(cosines)
        return [None] * len(cosines) if found is None else found.tolist()

    def score(self, cosines: np.ndarray) -> np.ndarray:
        """(n,) cosines -> (n,) calibrated scores."""
        return (cosines - self.centre) / self.spread


@dataclass(frozen=True)
class Worth:
    """What a model knows of its cosines with a query of one modality; `counts` are the library's items by modality."""

    model: BindModel
    modality: str
    counts: Mapping[str, int]

    @classmethod
    def of(cls, model: BindModel, modality: str | None, counts: Mapping[str, int]) -> Worth | None:
        """None where the model has no calibration, or the query is a mixture."""
        return None if model.calibration is None or modality is None else cls(model, modality, counts)

    def likely(self, query: np.ndarray, target: str, sample: np.ndarray, cosines: np.ndarray) -> np.ndarray | None:
        """Cosines (n,) of a query with items of a modality -> (n,) probabilities. A shared encoder is its owner's."""
        known = self.model.calibration
        assert known is not None
        owners = self.model.description.towers()
        pair = owners.get(self.modality, self.modality), owners.get(target, target)
        return known.probability(pair, query, cosines, sample, self.counts[target])


def scales(query: np.ndarray, samples: Mapping[str, np.ndarray], worth: Worth | None = None) -> dict[str, Scale]:
    """A query (D,) and (n, D) sampled vectors of each modality, n > 0 -> the scale of each modality's cosines."""
    cosines = {modality: vectors @ query for modality, vectors in samples.items()}
    own = {modality: _centre_and_spread(values) for modality, values in cosines.items()}
    weights = np.array([len(values) / (len(values) + PRIOR) for values in cosines.values()])
    common = np.average(np.array(list(own.values())), axis=0, weights=weights) if own else np.zeros(2)
    found = {}
    for (modality, figures), weight in zip(own.items(), weights, strict=True):
        centre, spread = weight * np.array(figures) + (1 - weight) * common
        likely = None if worth is None else partial(worth.likely, query, modality, cosines[modality])
        found[modality] = Scale(float(centre), max(float(spread), SMALLEST_SPREAD), likely)
    return found


def _centre_and_spread(cosines: np.ndarray) -> tuple[float, float]:
    centre, spread = centre_and_spread(cosines)
    return (centre, spread) if len(cosines) >= FEW else (centre, max(spread, float(cosines.std())))
