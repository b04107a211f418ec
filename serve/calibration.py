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
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

SAMPLE = 512
"""Items of a modality that are looked at: the centre is then known to 1.25 / sqrt(512) = 6 % of the spread."""
PRIOR = 4.0
"""Items that a modality's own figures must outweigh: few items say little, so theirs are drawn to those of all."""
SMALLEST_SPREAD = 0.005
"""A cosine's least spread: a modality of equal items must not turn rounding into a score."""
_MAD_TO_DEVIATION = 1.4826  # of a normal distribution


@dataclass(frozen=True)
class Scale:
    """Centre and spread of the cosines of one query with the items of one modality."""

    centre: float
    spread: float

    def score(self, cosines: np.ndarray) -> np.ndarray:
        """(n,) cosines -> (n,) calibrated scores."""
        return (cosines - self.centre) / self.spread


def scales(query: np.ndarray, samples: Mapping[str, np.ndarray]) -> dict[str, Scale]:
    """A query (D,) and (n, D) sampled vectors of each modality, n > 0 -> the scale of each modality's cosines."""
    cosines = {modality: vectors @ query for modality, vectors in samples.items()}
    own = {modality: (float(np.median(values)), _spread(values)) for modality, values in cosines.items()}
    weights = np.array([len(values) / (len(values) + PRIOR) for values in cosines.values()])
    common = np.average(np.array(list(own.values())), axis=0, weights=weights) if own else np.zeros(2)
    found = {}
    for (modality, figures), weight in zip(own.items(), weights, strict=True):
        centre, spread = weight * np.array(figures) + (1 - weight) * common
        found[modality] = Scale(float(centre), max(float(spread), SMALLEST_SPREAD))
    return found


def _spread(values: np.ndarray) -> float:
    return _MAD_TO_DEVIATION * float(np.median(np.abs(values - np.median(values))))
