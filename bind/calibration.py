"""How likely a hit is right: cosines -> probabilities, by what held-out pairs of two modalities scored.

A cosine alone says little: the vectors of each modality keep to a region of their own, some queries score high with
everything, and the best of many wrong items scores higher than the best of few. Three things correct it:

    against the background      (cosine - centre) / spread of this query with items of that modality in general. Both
                                follow from the background's mean and covariance, which the checkpoint brings, so a
                                library of one kind of thing, or of three items, cannot bend them
    against the library         the same with the median and the spread of the library's own items, drawn towards the
                                background's where they are few: corrects for media unlike those of the background
    the size of the library     log(items)

A logistic function of these, fitted for each pair of modalities (`train.small.calibrate`), is the probability. It does
not change a vector, so its file is checked by `SHA256SUMS` but no part of the identity of the space.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

FILE = "calibration.safetensors"
FEATURES = ("background", "library", "log items", "offset")
DIRECTIONS = 48
"""Of the background's covariance; what is left counts as equal in all directions."""
SMALLEST_SPREAD = 0.005
"""A cosine's least spread: a modality of equal items must not turn rounding into a score."""
_PRIOR = 16.0
"""Items of a library that its own figures must outweigh: those of fewer are drawn to the background's."""
_MAD_TO_DEVIATION = 1.4826  # of a normal distribution


@dataclass(frozen=True)
class Background:
    """Items of one modality in general: `mean` (D,), and a covariance `directions.T @ directions + rest * identity`."""

    mean: np.ndarray
    directions: np.ndarray
    rest: float

    def scale(self, query: np.ndarray) -> tuple[float, float]:
        """A query (D,) -> centre and spread of its cosines with the background's items."""
        variance = np.square(self.directions @ query).sum() + self.rest * np.square(query).sum()
        return float(self.mean @ query), max(float(np.sqrt(variance)), SMALLEST_SPREAD)


def background(vectors: np.ndarray) -> Background:
    """(N, D) unit rows -> their background. Raises ValueError for fewer than two."""
    if len(vectors) < 2:
        raise ValueError(f"a background needs at least two vectors, got {len(vectors)}")
    mean = vectors.mean(0)
    values, directions = np.linalg.eigh(np.cov(vectors.T.astype(np.float64)))
    kept = values[-DIRECTIONS:].clip(0)
    left = max(float(values.sum() - kept.sum()), 0.0) / max(len(values) - len(kept), 1)
    # Every direction gets `left`; those kept have it already.
    scaled = directions[:, -DIRECTIONS:] * np.sqrt((kept - left).clip(0))
    return Background(mean.astype(np.float32), scaled.T.astype(np.float32), left)


def centre_and_spread(cosines: np.ndarray) -> tuple[float, float]:
    """(n,) cosines -> their median and their scaled median absolute deviation: matches among them move neither."""
    centre = float(np.median(cosines))
    return centre, _MAD_TO_DEVIATION * float(np.median(np.abs(cosines - centre)))


@dataclass(frozen=True)
class Calibration:
    """Backgrounds by modality, and the weights of `FEATURES` by (modality of the query, modality of the items).

    `space` is the space whose vectors it was fitted to: other weights, other cosines.
    """

    space: str
    backgrounds: Mapping[str, Background]
    pairs: Mapping[tuple[str, str], np.ndarray]

    def features(
        self, query: np.ndarray, target: str, cosines: np.ndarray, sample: np.ndarray, count: int
    ) -> np.ndarray:
        """A query (D,), (n,) cosines, those of a sample of the library's `count` items -> (n, 4), see `FEATURES`."""
        usual, usual_spread = self.backgrounds[target].scale(query)
        centre, spread = usual, usual_spread
        if len(sample):
            weight = len(sample) / (len(sample) + _PRIOR)
            own, own_spread = centre_and_spread(sample)
            centre = weight * own + (1 - weight) * usual
            spread = max(weight * own_spread + (1 - weight) * usual_spread, SMALLEST_SPREAD)
        size = np.full(len(cosines), np.log(max(count, 1)))
        return np.column_stack(
            [(cosines - usual) / usual_spread, (cosines - centre) / spread, size, np.ones(len(cosines))]
        )

    def probability(
        self, pair: tuple[str, str], query: np.ndarray, cosines: np.ndarray, sample: np.ndarray, count: int
    ) -> np.ndarray | None:
        """As `features`, for the pair (query's modality, items' modality) -> (n,) probabilities, None without a fit."""
        weights = self.pairs.get(pair)
        if weights is None:
            return None
        logits = self.features(query, pair[1], cosines, sample, count) @ weights
        result: np.ndarray = 1 / (1 + np.exp(-logits.clip(-50, 50)))
        return result

    def write(self, file: Path) -> None:
        """Writes everything as safetensors, backgrounds in float16."""
        state = {f"pair.{query}.{target}": weights for (query, target), weights in self.pairs.items()}
        for name, one in self.backgrounds.items():
            state[f"background.{name}.mean"] = one.mean.astype(np.float16)
            state[f"background.{name}.directions"] = one.directions.astype(np.float16)
        rest = {name: one.rest for name, one in self.backgrounds.items()}
        save_file(
            {name: np.ascontiguousarray(array) for name, array in state.items()},
            file,
            {"space": self.space, "features": json.dumps(FEATURES), "rest": json.dumps(rest)},
        )


def read(file: Path, dim: int) -> Calibration:
    """A calibration file of a space of D dimensions -> its content. Raises ValueError where it does not fit."""
    try:
        with safe_open(file, "np") as stored:
            about = stored.metadata() or {}
            space = about["space"]
            arrays = {name: np.asarray(stored.get_tensor(name), np.float32) for name in stored.keys()}  # noqa: SIM118
        if tuple(json.loads(about["features"])) != FEATURES:
            raise ValueError(f"expected the features {FEATURES}, got {about['features']}")
        backgrounds = {
            name: Background(arrays[f"background.{name}.mean"], arrays[f"background.{name}.directions"], float(rest))
            for name, rest in json.loads(about["rest"]).items()
        }
        pairs = {}
        for name, weights in arrays.items():
            kind, *pair = name.split(".")
            if kind == "pair":
                query, target = pair
                pairs[query, target] = weights
                if weights.shape != (len(FEATURES),) or target not in backgrounds:
                    raise ValueError(f"{name}: expected {len(FEATURES)} weights and a background of {target}")
        if any(one.mean.shape != (dim,) or one.directions.shape[1:] != (dim,) for one in backgrounds.values()):
            raise ValueError(f"expected backgrounds of {dim} dimensions")
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"{file}: is no calibration of this model: {error}") from None
    except Exception as error:  # safetensors' own, which is no ValueError
        raise ValueError(f"{file}: is no calibration: {error}") from None
    return Calibration(space, backgrounds, pairs)
